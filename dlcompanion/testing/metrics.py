"""check_metric: what evaluation relies on."""

import keras
import numpy as np

from dlcompanion.testing import common, dtypes
from dlcompanion.testing.common import Subject, leaves, quiet
from dlcompanion.testing.errors import run_checks
from dlcompanion.testing.labels import check_labels
from dlcompanion.testing.masks import check_metric_mask


def check_metric(metric_class, init_kwargs, y_true, y_pred, *, weighted=True, skip=()):
    """Check that a metric keeps the promises that Keras's own metrics keep.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``config``, ``reset``, ``pieces``, ``merge``,
    ``sample_weight``, ``jit``, ``reload``, ``half`` (predictions in half precision),
    ``float64`` (under that ``floatx``; not on JAX, which has none), ``numpy_data``
    (arrays of every dtype that holds the data), ``no_weight``, ``mask``, ``labels``.

    ``no_weight``: a metric that has seen nothing, or weights of 0 only, is finite, as
    Keras's own. ``mask``: steps that Keras's mask of predictions ``(batch, time, ...)``
    leaves out do not count. ``labels``: as of :func:`check_loss`.

    Args:
        metric_class: The metric's class.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one.
        y_true: NumPy array of targets, at least 4 examples.
        y_pred: NumPy array of predictions.
        weighted: ``False`` if the metric takes no sample weights.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.

    Example:
        >>> y = np.array([[0.0], [1.0], [1.0], [0.0]], "float32")
        >>> check_metric(keras.metrics.MeanSquaredError, {}, y, y + 0.5)
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if len(y_true) < 4 or len(y_true) != len(y_pred):
        raise ValueError(
            "check_metric needs at least 4 examples, as many of y_true as of y_pred. "
            f"Received: shapes {y_true.shape} and {y_pred.shape}"
        )
    subject = Subject("metric", metric_class, init_kwargs)
    subject.y_true, subject.y_pred, subject.weighted = y_true, y_pred, weighted
    keras.utils.set_random_seed(0)
    run_checks(subject, CHECKS, skip)


def _result(subject, *slices, metric=None, weights=None):
    """The result after updates with these slices of the examples."""
    metric = metric or subject.make()
    for one in slices or (slice(None),):
        kwargs = {} if weights is None else {"sample_weight": weights[one]}
        metric.update_state(subject.y_true[one], subject.y_pred[one], **kwargs)
    return leaves(metric.result())


def _reset(subject):
    """reset_state forgets everything."""
    metric = subject.make()
    half = slice(0, len(subject.y_true) // 2)
    _result(subject, half, metric=metric)
    metric.reset_state()
    subject.close(
        _result(subject, metric=metric),
        _result(subject),
        "the result after reset_state is that of a new metric",
        "set every variable back in reset_state, and keep no other state.",
    )


def _pieces(subject):
    """Updating in unequal pieces gives what one update gives."""
    cut = len(subject.y_true) // 4
    subject.close(
        _result(subject, slice(0, cut), slice(cut, None)),
        _result(subject),
        "the result of two updates of unequal size is that of one",
        "accumulate totals and counts, not means of batches.",
        rtol=1e-4,
        atol=1e-5,
    )


def _merge(subject):
    """Merging two metrics gives what one gives, if it can be merged."""
    if not hasattr(subject.component_class, "merge_state"):
        return
    cut = len(subject.y_true) // 4
    first, second = subject.make(), subject.make()
    _result(subject, slice(0, cut), metric=first)
    _result(subject, slice(cut, None), metric=second)
    first.merge_state([second])
    subject.close(
        leaves(first.result()),
        _result(subject),
        "the result of two merged metrics is that of one",
        "keep totals and counts in variables: merge_state adds them.",
        rtol=1e-4,
        atol=1e-5,
    )


def _sample_weight(subject):
    """Weight 0 leaves an example out, weight 2 counts it twice."""
    if not subject.weighted:
        return
    n = len(subject.y_true)
    remedy = "multiply values by sample_weight, and divide by the sum of weights."
    half = np.where(np.arange(n) < n // 2, 1.0, 0.0).astype("float32")
    subject.close(
        _result(subject, weights=half),
        _result(subject, slice(0, n // 2)),
        "weight 0 leaves an example out",
        remedy,
        rtol=1e-4,
        atol=1e-5,
    )
    twice = np.where(np.arange(n) < n // 2, 2.0, 1.0).astype("float32")
    subject.close(
        _result(subject, weights=twice),
        _result(subject, slice(0, n // 2), slice(None)),
        "weight 2 counts an example twice",
        remedy,
        rtol=1e-4,
        atol=1e-5,
    )


@keras.saving.register_keras_serializable(package="dlcompanion.testing")
def _no_loss(y_true, y_pred):
    return keras.ops.zeros(keras.ops.shape(y_pred)[:1])


def _evaluate(subject, model):
    """What a model that passes its inputs through logs for the metric."""
    with quiet():
        logs = model.test_on_batch(subject.y_pred, subject.y_true, return_dict=True)
    logs.pop("loss", None)
    return [np.asarray(v, "float32") for v in logs.values()]


def _jit(subject):
    """A compiled evaluation gives what the eager metric gives."""
    inputs = keras.Input(subject.y_pred.shape[1:], dtype=str(subject.y_pred.dtype))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(loss=_no_loss, metrics=[subject.make()], jit_compile=common.JIT)
    subject.close(
        _evaluate(subject, model),
        _result(subject),
        "the result of a compiled evaluation",
        "use keras.ops and assign variables; no NumPy on tensors.",
        rtol=1e-4,
        atol=1e-5,
    )
    subject.model = model


def _reload(subject):
    """A model that is saved and loaded brings its metric along."""
    if not hasattr(subject, "model"):
        _jit(subject)
    subject.close(
        _evaluate(subject, common.save_and_load(subject.model)),
        _evaluate(subject, subject.model),
        "the result after the model was saved and loaded",
        "register the class, and return every argument in get_config.",
        rtol=1e-4,
        atol=1e-5,
    )


def _no_weight(subject):
    """Without any weight the result is finite: Keras's own metrics give 0."""
    results = {"no data": leaves(subject.make().result())}
    if subject.weighted:
        none = np.zeros(len(subject.y_true), "float32")
        results["weights of 0"] = _result(subject, weights=none)
    for what, values in results.items():
        if not all(np.isfinite(value).all() for value in values):
            subject.fail(
                f"a finite result of {what}",
                f"{values}",
                "divide by keras.ops.divide_no_nan.",
            )


CHECKS = {
    "config": common.check_config,
    "reset": _reset,
    "pieces": _pieces,
    "merge": _merge,
    "sample_weight": _sample_weight,
    "jit": _jit,
    "reload": _reload,
    "half": dtypes.metric_half,
    "float64": dtypes.metric_float64,
    "numpy_data": dtypes.metric_data,
    "no_weight": _no_weight,
    "mask": check_metric_mask,
    "labels": check_labels,
}
