"""check_optimizer and check_schedule: what training relies on."""

import keras
import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.common import Subject, quiet, snapshot
from dlcompanion.testing.errors import run_checks


def check_optimizer(optimizer_class, init_kwargs, *, steps=200, factor=0.5, skip=()):
    """Check that an optimizer keeps the promises that Keras's own ones keep.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``config``, ``schedule``, ``no_gradient``, ``jit``,
    ``slots``, ``solves``. Calls :func:`keras.utils.set_random_seed`.

    Args:
        optimizer_class: The optimizer's class, or a function that makes one.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one. An optimizer among them is made anew each time.
        steps: Steps given to the sample problem, a well-conditioned quadratic
            whose minimum lies 0.2 away from the start in each coordinate.
        factor: The loss must fall below this part of the first loss.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.

    Example:
        >>> check_optimizer(keras.optimizers.SGD, {"learning_rate": 0.1})
    """
    subject = Subject("optimizer", optimizer_class, init_kwargs)
    subject.steps, subject.factor = steps, factor
    keras.utils.set_random_seed(0)
    run_checks(subject, OPTIMIZER_CHECKS, skip)


def _schedule(subject):
    """A schedule is accepted as learning rate, and is followed."""
    if not subject.accepts("learning_rate"):
        return
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    try:
        optimizer = subject.make(learning_rate=decay)
    except (TypeError, ValueError):
        if "learning_rate" in common.init_arguments(subject.component_class):
            raise
        return  # a base class takes it, this one refuses it (wrappers)
    variable = keras.Variable(np.ones(2, "float32"))
    optimizer.build([variable])
    rates = []
    for _ in range(2):
        rates.append(float(common.to_numpy(optimizer.learning_rate)))
        optimizer.apply([keras.ops.ones(2)], [variable])
    if not np.allclose(rates, [0.1, 0.05], rtol=1e-5):
        subject.fail(
            "the learning rates 0.1 and 0.05 of an ExponentialDecay(0.1, 1, 0.5)",
            f"{rates}",
            "pass learning_rate on to super().__init__ and use the learning_rate "
            "given to update_step.",
        )
    revived = type(optimizer).from_config(optimizer.get_config())
    kept = revived.get_config()["learning_rate"]
    if isinstance(kept, (int, float)):
        subject.fail(
            "a schedule survives get_config", f"{kept}", "use super().get_config()."
        )


def _no_gradient(subject):
    """A variable without a gradient stays, and the others move."""
    optimizer = subject.make()
    idle, busy = (keras.Variable(np.ones(3, "float32"), name=n) for n in ("a", "b"))
    optimizer.build([idle, busy])
    remedy = "skip gradients that are None, as keras.optimizers.Optimizer.apply does."
    with quiet():
        for _ in range(2):
            optimizer.apply([None, keras.ops.ones(3)], [idle, busy])
    if getattr(optimizer, "weight_decay", None) is None:
        subject.close([idle], [np.ones(3)], "a variable without gradient", remedy)
    if np.allclose(common.to_numpy(busy), 1.0, rtol=0, atol=1e-12):
        subject.fail("the variable with a gradient moves", "it stays", remedy)


def _problem(subject, **compile_kwargs):
    """A linear unit whose loss is a quadratic of condition number about 2."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.normal(size=(32, 4)))[0] * np.sqrt(32)
    x = (x * np.linspace(1.0, 1.4, 4)).astype("float32")
    y = x @ np.full((4, 1), 0.2, "float32")
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile(subject.make(), "mse", **compile_kwargs)
    return model, x, y


def _started(subject):
    """The sample problem after two compiled steps, made at the first call."""
    if not hasattr(subject, "problem"):
        model, x, y = subject.problem = _problem(subject, jit_compile=common.JIT)
        with quiet():
            subject.first = float(model.train_on_batch(x, y))
            model.train_on_batch(x, y)
    return subject.problem


def _jit(subject):
    """A compiled step takes the variables where an eager step takes them."""
    model, x, y = _started(subject)
    eager, _, _ = _problem(subject, run_eagerly=True)
    with quiet():
        eager.train_on_batch(x, y)
        eager.train_on_batch(x, y)
    subject.close(
        snapshot(model.variables + model.optimizer.variables),
        snapshot(eager.variables + eager.optimizer.variables),
        "variables after two compiled steps",
        "no Python branch on state: use keras.ops.where, and self.assign for slots.",
        rtol=1e-4,
        atol=1e-5,
    )


def _slots(subject):
    """Saving and loading keeps every slot, so that the next step is the same."""
    model, x, y = _started(subject)
    remedy = (
        "make slots in build with add_variable or add_optimizer_variables: they are "
        "saved; what is kept in plain attributes is not."
    )
    loaded = common.save_and_load(model)
    if type(loaded.optimizer) is not type(model.optimizer):
        subject.fail(
            type(model.optimizer).__name__,
            type(loaded.optimizer).__name__,
            "register the class with keras.saving.register_keras_serializable.",
            check="config",
        )
    old, new = model.optimizer.variables, loaded.optimizer.variables
    if len(old) != len(new):
        subject.fail(f"{len(old)} variables after loading", f"{len(new)}", remedy)
    for a, b in zip(old, new, strict=True):
        subject.close([b], [a], f"{a.path} after loading", remedy)
    with quiet():
        for _ in range(3):
            model.train_on_batch(x, y)
            loaded.train_on_batch(x, y)
    subject.close(
        snapshot(loaded.variables),
        snapshot(model.variables),
        "weights three steps after loading",
        remedy,
        rtol=1e-5,
        atol=1e-6,
    )


def _solves(subject):
    """The loss of a small quadratic falls."""
    model, x, y = _started(subject)
    with quiet():
        for _ in range(subject.steps):
            last = model.train_on_batch(x, y)
    last = float(last)
    if not last < subject.factor * subject.first:
        subject.fail(
            f"a loss below {subject.factor * subject.first:.4g} after {subject.steps} "
            "steps on a quadratic",
            f"{last:.4g}, from {subject.first:.4g}",
            "check the sign of the update and the learning rate.",
        )


def check_schedule(schedule_class, init_kwargs, *, steps=1000, skip=()):
    """Check that a learning-rate schedule works inside a compiled step.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``config``, ``finite``, ``jit``.

    Args:
        schedule_class: The schedule's class.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one.
        steps: The last step that is tried; 0, 1 and steps between are tried too.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.

    Example:
        >>> schedule = keras.optimizers.schedules.CosineDecay
        >>> check_schedule(schedule, {"initial_learning_rate": 0.1, "decay_steps": 9})
    """
    subject = Subject("schedule", schedule_class, init_kwargs)
    subject.steps = sorted({0, 1, 2, steps // 3, steps // 2, steps - 1, steps})
    keras.utils.set_random_seed(0)
    run_checks(subject, SCHEDULE_CHECKS, skip)


def _rates(schedule, steps, dtype="int32"):
    return [schedule(keras.ops.convert_to_tensor(step, dtype)) for step in steps]


def _finite(subject):
    """Rates are one number each, finite and not negative."""
    rates = _rates(subject.make(), subject.steps)
    for step, rate in zip(subject.steps, rates, strict=True):
        rate = common.to_numpy(rate)
        if rate.shape != () or not np.isfinite(rate) or rate < 0:
            subject.fail(
                f"one finite rate of at least 0 at step {step}",
                f"{rate}",
                "see __call__ at its first and last step.",
            )


def _schedule_jit(subject):
    """An optimizer inside a compiled step follows the schedule."""
    wanted = [float(common.to_numpy(r)) for r in _rates(subject.make(), range(3))]
    # SGD on the loss mean(y_pred): the weight falls by the rate
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    optimizer = keras.optimizers.SGD(subject.make())
    model.compile(optimizer, "mean_absolute_error", jit_compile=common.JIT)
    x, y = np.ones((1, 1), "float32"), np.full((1, 1), -1e3, "float32")
    received = []
    with quiet():
        for _ in range(3):
            before = float(model.get_weights()[0][0, 0])
            model.train_on_batch(x, y)
            received.append(before - float(model.get_weights()[0][0, 0]))
    subject.close(
        received,
        wanted,
        "the rates of three compiled steps",
        "use keras.ops and cast the step; no Python branch on its value.",
        rtol=1e-4,
        atol=1e-6,
    )


OPTIMIZER_CHECKS = {
    "config": common.check_config,
    "schedule": _schedule,
    "no_gradient": _no_gradient,
    "jit": _jit,
    "slots": _slots,
    "solves": _solves,
}

SCHEDULE_CHECKS = {
    "config": common.check_config,
    "finite": _finite,
    "jit": _schedule_jit,
}
