"""check_callback: what a callback promises to fit()."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.common import Subject, quiet, snapshot
from dlcompanion.testing.errors import run_checks
from dlcompanion.training import ResumableCheckpoint


def check_callback(
    callback_class, init_kwargs, *, make_model=None, data=None, epochs=4, skip=()
):
    """Check that a callback leaves nothing behind, and runs in every kind of fit.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``runs`` (fit with one epoch, without validation,
    and from a later ``initial_epoch``), ``state`` (one object in two fits does what two
    objects do), ``shared`` (another model's fit with the same class is not
    disturbed), ``resume`` (a fit that is cut in two by a
    :class:`~dlcompanion.training.ResumableCheckpoint`, which carries the callback if
    it can, ends where the whole fit does). Calls
    :func:`keras.utils.set_random_seed`.

    Args:
        callback_class: The callback's class, or a function that makes one.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one (a new folder each time, for example).
        make_model: Function that returns a new compiled model; by default a small
            regression with BatchNormalization and the metric ``"mae"``.
        data: Tuple ``(x, y)`` for that model.
        epochs: Epochs of a fit; the callback should act within them.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.

    Example:
        >>> stop = {"monitor": "loss", "patience": 1}
        >>> check_callback(keras.callbacks.EarlyStopping, stop)
    """
    if (make_model is None) != (data is None):
        raise ValueError(
            "make_model and data belong together. "
            f"Received: make_model={make_model!r}, data={type(data).__name__}"
        )
    subject = Subject("callback", callback_class, init_kwargs)
    subject.make_model = make_model or _model
    subject.data = data or _data()
    subject.epochs = epochs
    keras.utils.set_random_seed(0)
    run_checks(subject, CHECKS, skip)


def _data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 3)).astype("float32")
    return x, (x.sum(axis=1, keepdims=True) + 1).astype("float32")


def _model():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        "mse",
        metrics=["mae"],
        run_eagerly=True,
    )
    return model


def _fit(subject, callback, *others, **kwargs):
    """Weights and logs of one fit of a new model from the same start."""
    keras.utils.set_random_seed(0)
    model = subject.make_model()
    if not hasattr(subject, "start"):
        subject.start = snapshot(model.variables)
    common.restore(model.variables, subject.start)
    settings = {"epochs": subject.epochs, "batch_size": 16, "shuffle": False}
    x, y = subject.data
    with quiet():
        history = model.fit(
            x,
            y,
            **{**settings, "verbose": 0, "validation_data": (x, y), **kwargs},
            callbacks=[callback, *others],
        )
    logs = {
        key: np.asarray(values, "float64")
        for key, values in sorted(history.history.items())
    }
    return snapshot(model.variables), logs


def _runs(subject):
    """Fit runs with one epoch, without validation, and from a later epoch."""
    _fit(subject, subject.make(), epochs=1, validation_data=None)
    _fit(subject, subject.make(), initial_epoch=subject.epochs - 1)


def _state(subject):
    """The second fit with one callback is the first fit again."""
    remedy = (
        "set counters, averages and best values in on_train_begin, not in __init__."
    )
    callback = subject.make()
    first_weights, first_logs = _fit(subject, callback)
    _fit(subject, callback, epochs=max(1, subject.epochs - 1))
    second_weights, second_logs = _fit(subject, callback)
    lengths = [
        {k: len(v) for k, v in logs.items()} for logs in (first_logs, second_logs)
    ]
    if lengths[0] != lengths[1]:
        subject.fail(
            f"another fit with the same callback runs alike: {lengths[0]} epochs",
            f"{lengths[1]}",
            remedy,
        )
    subject.close(
        list(second_logs.values()),
        list(first_logs.values()),
        "the logs of another fit with the same callback",
        remedy,
    )
    subject.close(
        second_weights,
        first_weights,
        "the weights after another fit with the same callback",
        remedy,
    )
    subject.fresh = first_weights, first_logs


def _shared(subject):
    """A new object of the class does what the first new object did."""
    if not hasattr(subject, "fresh"):
        return
    weights, logs = _fit(subject, subject.make())
    subject.close(
        [*logs.values(), *weights],
        [*subject.fresh[1].values(), *subject.fresh[0]],
        "the fit of a new callback after others of its class",
        "keep state on the object, not on the class or module.",
    )


def _resume(subject):
    """Two halves of a fit, with a checkpoint between them, are the whole fit."""
    whole, _ = getattr(subject, "fresh", None) or _fit(subject, subject.make())
    with tempfile.TemporaryDirectory() as folder:
        for epochs in (max(1, subject.epochs // 2), subject.epochs):
            callback = subject.make()
            try:
                carry = ResumableCheckpoint(Path(folder) / "run", carry=[callback])
            except ValueError:  # nothing to carry: it must do without
                carry = ResumableCheckpoint(Path(folder) / "run")
            halves, _ = _fit(subject, callback, carry, epochs=epochs)
    subject.close(
        halves,
        whole,
        "the weights of a fit that was cut in two and resumed",
        "give the callback get_state() and set_state(state), and let on_train_begin "
        "keep what was set.",
    )


CHECKS = {"runs": _runs, "state": _state, "shared": _shared, "resume": _resume}
