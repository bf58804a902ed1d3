"""check_loss: what a loss promises to compile(), fit() and a saved model."""

import keras
import numpy as np

from dlcompanion.testing import common, dtypes, gradients
from dlcompanion.testing.common import Subject, leaves, quiet
from dlcompanion.testing.errors import run_checks
from dlcompanion.testing.labels import check_labels
from dlcompanion.testing.masks import check_loss_mask


def check_loss(
    loss_class, init_kwargs, y_true, y_pred, *, extremes=None, per_sample=True, skip=()
):
    """Check that a loss keeps the promises that Keras's own losses keep.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``config``, ``shape``, ``reduction``,
    ``sample_weight``, ``dtype``, ``symbolic``, ``gradient``, ``finite``, ``jit``,
    ``reload``, ``float64`` (under that ``floatx``; not on JAX, which has none),
    ``numpy_data`` (arrays of every dtype that holds the targets), ``mask``, ``labels``.
    Calls :func:`keras.utils.set_random_seed`.

    ``mask``: steps that Keras's mask of the predictions leaves out add nothing, where
    the loss takes a time axis. ``labels``: integers of shape ``(batch,)`` and
    ``(batch, 1)`` are one, and one-hot ones are too or are refused by a ValueError.

    Args:
        loss_class: The loss's class.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one.
        y_true: NumPy array of targets, or ``None`` if the loss ignores them.
        y_pred: NumPy array of float32 predictions, one example a row.
        extremes: List of predictions at which value and gradient must be finite.
            By default, for ``y_pred`` in [0, 1], certain predictions, right and wrong;
            else zeros, and a thousand times ``y_pred``.
        per_sample: ``False`` if ``call`` returns one number for the batch on
            purpose; sample weights and reductions are then not checked.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.

    Example:
        >>> y = np.array([[0.0], [1.0]], "float32")
        >>> check_loss(keras.losses.MeanSquaredError, {}, y, y + 0.5)
    """
    y_pred = np.asarray(y_pred)
    if y_pred.dtype != np.float32 or y_pred.ndim == 0 or len(y_pred) < 2:
        raise ValueError(
            "y_pred must hold at least 2 float32 examples. "
            f"Received: dtype={y_pred.dtype}, shape={y_pred.shape}"
        )
    subject = Subject("loss", loss_class, init_kwargs)
    subject.y_true = np.zeros(len(y_pred), "float32") if y_true is None else y_true
    subject.y_true = np.asarray(subject.y_true)
    subject.y_pred = y_pred
    subject.extremes = _extremes(y_pred) if extremes is None else extremes
    subject.per_sample = per_sample
    keras.utils.set_random_seed(0)
    run_checks(subject, CHECKS, skip)


def _extremes(y_pred):
    if y_pred.min() >= 0 and y_pred.max() <= 1:
        if y_pred.ndim > 1 and np.allclose(y_pred.sum(-1), 1, atol=1e-3):
            sure = np.eye(y_pred.shape[-1], dtype="float32")
            return [sure[y_pred.argmax(-1)], sure[y_pred.argmin(-1)]]
        hard = (y_pred > 0.5).astype("float32")
        return [hard, 1 - hard]
    return [np.zeros_like(y_pred), 1000 * y_pred]


def _value(subject, y_pred=None, sample_weight=None, **overrides):
    loss = subject.make(**overrides)
    y_pred = subject.y_pred if y_pred is None else y_pred
    return common.to_numpy(loss(subject.y_true, y_pred, sample_weight))


def _shape(subject):
    """Call returns one number an example; the reduced loss is one number."""
    value = common.to_numpy(subject.make()(subject.y_true, subject.y_pred))
    if value.shape != ():
        subject.fail("one number", f"shape {value.shape}", "leave reducing to Keras.")
    if not np.isfinite(value):
        subject.fail("a finite loss", f"{value}", "see call.")
    if not subject.per_sample:
        return
    single = common.to_numpy(subject.make().call(*_tensors(subject)))
    if single.ndim == 0 or single.shape[0] != len(subject.y_pred):
        subject.fail(
            f"call returns one value an example, ({len(subject.y_pred)}, ...)",
            f"shape {single.shape}",
            "reduce over the last axis only and leave the batch to the reduction of "
            "keras.losses.Loss; or say per_sample=False.",
            check="sample_weight",
        )


def _tensors(subject):
    return (
        keras.ops.convert_to_tensor(subject.y_true),
        keras.ops.convert_to_tensor(subject.y_pred),
    )


def _reduction(subject):
    """Every reduction is that of the values per example."""
    if not (subject.per_sample and subject.accepts("reduction")):
        return
    each = _value(subject, reduction=None)
    if each.shape[:1] != (len(subject.y_pred),):
        subject.fail(
            f"reduction=None gives one value an example, ({len(subject.y_pred)}, ...)",
            f"shape {each.shape}",
            "pass reduction on to super().__init__.",
        )
    wanted = {
        "sum": each.sum(),
        "sum_over_batch_size": each.mean(),
        "mean": each.mean(),
    }
    for reduction, value in wanted.items():
        subject.close(
            [_value(subject, reduction=reduction)],
            [value],
            f"reduction={reduction!r} of the values per example",
            "pass reduction on to super().__init__ and let call return one value an "
            "example.",
        )


def _sample_weight(subject):
    """Weights multiply the values per example."""
    if not subject.per_sample:
        return
    remedy = (
        "override call, not __call__, and return one value an example: "
        "keras.losses.Loss applies the weights."
    )
    weight = np.linspace(0.0, 2.0, len(subject.y_pred)).astype("float32")
    each = common.to_numpy(subject.make().call(*_tensors(subject)))
    spread = weight.reshape(-1, *[1] * (each.ndim - 1))
    total = (spread * each).sum()
    name = getattr(subject.make(), "reduction", None)
    per_batch = {
        "sum": total,
        "sum_over_batch_size": total / each.size,
        "mean": total / each.size,
        "mean_with_sample_weight": total / (np.ones_like(each) * spread).sum(),
    }
    wanted = per_batch.get(name, spread * each)
    what = f"the weighted loss under reduction={name!r}"
    subject.close([_value(subject, None, weight)], [wanted], what, remedy)


def _dtype(subject):
    """The loss is float32, also for predictions in half precision."""
    for dtype in ("float16", "bfloat16"):
        y_pred = keras.ops.cast(subject.y_pred, dtype)
        value = subject.make()(subject.y_true, y_pred)
        kind = keras.backend.standardize_dtype(value.dtype)
        if kind != "float32" or not np.isfinite(float(common.to_numpy(value).sum())):
            subject.fail(
                f"a finite float32 loss of {dtype} predictions",
                f"{common.to_numpy(value)}, {kind}",
                "let keras.losses.Loss.__call__ cast, and keep its dtype.",
            )


class _AsLayer(keras.layers.Layer):
    """The loss as a layer, which Keras can call on symbolic tensors."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def call(self, y_true, y_pred):
        return self.loss(y_true, y_pred)


def _symbolic(subject):
    """The loss of symbolic tensors is symbolic, with the batch size unknown."""
    made = [
        keras.KerasTensor((None, *a.shape[1:]), dtype=str(a.dtype))
        for a in (subject.y_true, subject.y_pred)
    ]
    value = _AsLayer(subject.make())(*made)
    if tuple(value.shape) != ():
        subject.fail("symbolic shape ()", f"{tuple(value.shape)}", "use keras.ops.")


def _gradient(subject):
    """The gradient in y_pred is the derivative."""
    loss, y_pred = subject.make(), keras.Variable(subject.y_pred)

    def outputs():
        return [loss(subject.y_true, keras.ops.convert_to_tensor(y_pred))]

    gradients.check_gradient(subject, outputs, [y_pred], [], [y_pred])


def _finite(subject):
    """Value and gradient are finite at extreme predictions."""
    from dlcompanion.autodiff import value_and_grad

    loss = subject.make()
    for y_pred in subject.extremes:
        point = keras.Variable(np.asarray(y_pred, "float32"))

        def total(point=point):
            return loss(subject.y_true, keras.ops.convert_to_tensor(point))

        value, (gradient,) = value_and_grad(total, variables=[point])()
        for name, found in (("loss", value), ("gradient", gradient)):
            found = common.to_numpy(found)
            if not np.isfinite(found).all():
                subject.fail(
                    f"a finite {name} at extreme predictions",
                    f"{common.brief(found)} at {common.brief(y_pred)}",
                    "clip before the logarithm, use logsumexp, add epsilon inside the "
                    "square root.",
                )


@keras.saving.register_keras_serializable(package="dlcompanion.testing")
class Scale(keras.layers.Layer):
    """One weight, at first 1, times the input: the model around a loss."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale

    def compute_output_shape(self, input_shape):
        return input_shape


def _model(subject):
    """A compiled model that returns its input, made at the first call."""
    if not hasattr(subject, "model"):
        inputs = keras.Input(subject.y_pred.shape[1:])
        subject.model = keras.Model(inputs, Scale()(inputs))
        subject.model.compile(common.momentum(), subject.make(), jit_compile=common.JIT)
    return subject.model


def _jit(subject):
    """A compiled training step reports the loss that the eager call gives."""
    with quiet():
        received = _model(subject).train_on_batch(subject.y_pred, subject.y_true)
    subject.close(
        [received],
        [common.to_numpy(subject.make()(subject.y_true, subject.y_pred))],
        "the loss of a compiled step",
        "use keras.ops only, without Python branches on values.",
        rtol=1e-4,
        atol=1e-5,
    )


def _reload(subject):
    """A saved and loaded model has the same loss."""
    loaded = common.save_and_load(_model(subject))
    if type(loaded.loss) is not subject.component_class:
        subject.fail(
            f"the loaded model has the loss {subject.component_class.__name__}",
            f"{loaded.loss!r}",
            "register the class with keras.saving.register_keras_serializable.",
        )
    subject.close(
        leaves(loaded.loss(subject.y_true, subject.y_pred)),
        leaves(subject.make()(subject.y_true, subject.y_pred)),
        "the loss after loading",
        "return every argument from get_config.",
    )


CHECKS = {
    "config": common.check_config,
    "shape": _shape,
    "reduction": _reduction,
    "sample_weight": _sample_weight,
    "dtype": _dtype,
    "symbolic": _symbolic,
    "gradient": _gradient,
    "finite": _finite,
    "jit": _jit,
    "reload": _reload,
    "float64": dtypes.loss_float64,
    "numpy_data": dtypes.loss_data,
    "mask": check_loss_mask,
    "labels": check_labels,
}
