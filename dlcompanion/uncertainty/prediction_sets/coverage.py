r"""Metrics of prediction sets and intervals: how often they cover, how large they are.

========================  ===========================  ==============================
predictions               how often                    how large
========================  ===========================  ==============================
sets of classes           :class:`SetCoverage`         :class:`MeanSetSize`
intervals of numbers      :class:`IntervalCoverage`    :class:`MeanIntervalWidth`
========================  ===========================  ==============================
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_labels

_NAN = float("nan")


class _OfPredictions(keras.metrics.MeanMetricWrapper):
    """A mean over examples of a function of targets and predictions."""

    def __init__(self, name, dtype=None):
        super().__init__(self.measure, name=name, dtype=dtype)

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


@keras.saving.register_keras_serializable(package="dlcompanion")
class SetCoverage(_OfPredictions):
    r"""Share of examples whose class is in the predicted set.

    .. math:: \frac1n \sum_i \mathbb 1 \left[ y_i \in C(x_i) \right]

    Conformal predictors promise at least :math:`1 - \alpha` on new data.

    Args:
        name: String, name of the metric.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Class indices ``(batch, ...)`` or ``(batch, ..., 1)``.
        y_pred: Memberships ``(batch, ..., classes)``, booleans or zeros and ones, as
            :class:`~dlcompanion.uncertainty.SplitConformal` predicts them.
        sample_weight: Weights of the examples, as Keras's metrics take them.

    Raises:
        ValueError: If shapes do not fit; for NumPy data, if a membership is not 0 or 1
            or a label is not a class. In a compiled step such data make the result NaN.

    Example:
        >>> metric = SetCoverage()
        >>> sets = np.array([[True, True, False], [False, False, True]])
        >>> metric.update_state(np.array([1, 0]), sets)
        >>> float(metric.result())
        0.5

    References:
        Angelopoulos and Bates, *A Gentle Introduction to Conformal Prediction and
        Distribution-Free Uncertainty Quantification*, 2021.
        https://arxiv.org/abs/2107.07511
    """

    def __init__(self, name="coverage", dtype=None):
        super().__init__(name, dtype)

    @staticmethod
    def measure(y_true, y_pred):
        member, valid = _memberships(y_pred)
        classes = member.shape[-1]
        shape = tuple(member.shape[:-1])
        _check_shapes(y_true, shape, "One-hot labels: take the argmax.")
        if isinstance(y_true, np.ndarray) and isinstance(y_pred, np.ndarray):
            y_true = check_labels("labels", y_true.reshape(-1), classes, np.prod(shape))
        label = ops.reshape(ops.cast(y_true, "int32"), ops.shape(valid))
        valid = valid & (label >= 0) & (label < classes)
        mine = label[..., None] == ops.arange(classes, dtype="int32")
        return ops.where(valid, ops.sum(ops.where(mine, member, 0.0), axis=-1), _NAN)


@keras.saving.register_keras_serializable(package="dlcompanion")
class MeanSetSize(_OfPredictions):
    r"""Mean number of classes in the predicted sets.

    .. math:: \frac1n \sum_i |C(x_i)|

    Of two predictors with equal coverage the one with smaller sets is more informative.

    Args:
        name: String, name of the metric.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Ignored.
        y_pred: Memberships ``(batch, ..., classes)``, booleans or zeros and ones.
        sample_weight: Weights of the examples, as Keras's metrics take them.

    Raises:
        ValueError: For NumPy data, if a membership is not 0 or 1. In a compiled step
            such data make the result NaN.

    Example:
        >>> metric = MeanSetSize()
        >>> sets = np.array([[True, True, False], [False, False, True]])
        >>> metric.update_state(np.array([1, 0]), sets)
        >>> float(metric.result())
        1.5

    References:
        Sadinle, Lei and Wasserman, *Least Ambiguous Set-Valued Classifiers with Bounded
        Error Levels*, 2019. https://arxiv.org/abs/1609.00451
    """

    def __init__(self, name="mean_set_size", dtype=None):
        super().__init__(name, dtype)

    @staticmethod
    def measure(y_true, y_pred):
        member, valid = _memberships(y_pred)
        return ops.where(valid, ops.sum(member, axis=-1), _NAN)


@keras.saving.register_keras_serializable(package="dlcompanion")
class IntervalCoverage(_OfPredictions):
    r"""Share of examples whose target lies in the predicted interval (PICP).

    .. math:: \frac1n \sum_i \mathbb 1 \left[ l_i \le y_i \le u_i \right]

    Args:
        name: String, name of the metric.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Numbers ``(batch, ...)`` or ``(batch, ..., 1)``.
        y_pred: Lower and upper ends ``(batch, ..., 2)``, as
            :class:`~dlcompanion.uncertainty.SplitConformalRegression` predicts them.
        sample_weight: Weights of the examples, as Keras's metrics take them.

    Raises:
        ValueError: If shapes do not fit. An end or a target that is NaN makes the
            result NaN.

    Example:
        >>> metric = IntervalCoverage()
        >>> ends = np.array([[0.0, 2.0], [0.0, 4.0]])
        >>> metric.update_state(np.array([1.0, 5.0]), ends)
        >>> float(metric.result())
        0.5

    References:
        Khosravi, Nahavandi, Creighton and Atiya, *Comprehensive Review of Neural
        Network-Based Prediction Intervals and New Advances*, 2011.
    """

    def __init__(self, name="coverage", dtype=None):
        super().__init__(name, dtype)

    @staticmethod
    def measure(y_true, y_pred):
        low, high = _ends(y_pred)
        _check_shapes(y_true, tuple(low.shape), "There is one target an interval.")
        y = ops.reshape(ops.cast(y_true, low.dtype), ops.shape(low))
        covered = ops.cast((low <= y) & (y <= high), low.dtype)
        unknown = ops.isnan(low) | ops.isnan(high) | ops.isnan(y)
        return ops.where(unknown, _NAN, covered)


@keras.saving.register_keras_serializable(package="dlcompanion")
class MeanIntervalWidth(_OfPredictions):
    r"""Mean width of the predicted intervals (MPIW).

    .. math:: \frac1n \sum_i \max(0, u_i - l_i)

    An interval whose lower end lies above the upper one is empty and has no width.

    Args:
        name: String, name of the metric.
        dtype: Dtype of the result.

    Call arguments:
        y_true: Ignored.
        y_pred: Lower and upper ends ``(batch, ..., 2)``.
        sample_weight: Weights of the examples, as Keras's metrics take them.

    Raises:
        ValueError: If predictions are no pairs. An end that is NaN makes the result
            NaN.

    Example:
        >>> metric = MeanIntervalWidth()
        >>> ends = np.array([[0.0, 2.0], [0.0, 4.0]])
        >>> metric.update_state(np.array([1.0, 5.0]), ends)
        >>> float(metric.result())
        3.0

    References:
        Khosravi, Nahavandi, Creighton and Atiya, *Comprehensive Review of Neural
        Network-Based Prediction Intervals and New Advances*, 2011.
    """

    def __init__(self, name="mean_interval_width", dtype=None):
        super().__init__(name, dtype)

    @staticmethod
    def measure(y_true, y_pred):
        low, high = _ends(y_pred)
        return ops.where(ops.isnan(high - low), _NAN, ops.maximum(high - low, 0.0))


def _memberships(y_pred):
    """Memberships as float32, and whether those of an example are all 0 or 1."""
    if isinstance(y_pred, np.ndarray) and not np.isin(y_pred, (0, 1)).all():
        raise ValueError(
            "Prediction sets must be booleans, or zeros and ones. Received: y_pred of "
            f"dtype {y_pred.dtype} with values from {y_pred.min()} to {y_pred.max()}"
        )
    if len(y_pred.shape) < 2:
        raise ValueError(
            "Prediction sets must have shape (batch, ..., classes). "
            f"Received: y_pred.shape={tuple(y_pred.shape)}"
        )
    member = ops.cast(y_pred, "float32")
    return member, ops.all((member == 0) | (member == 1), axis=-1)


def _ends(y_pred):
    """Lower and upper ends, in the dtype of Keras's own metrics."""
    if len(y_pred.shape) < 2 or y_pred.shape[-1] != 2:
        raise ValueError(
            "Intervals must have shape (batch, ..., 2), lower and upper end. "
            f"Received: y_pred.shape={tuple(y_pred.shape)}"
        )
    ends = ops.cast(y_pred, keras.config.floatx())
    return ends[..., 0], ends[..., 1]


def _check_shapes(y_true, shape, remedy):
    given = tuple(np.shape(y_true))
    known = [n for n in (given, shape) if None not in n]
    if len(known) == 2 and given not in (shape, (*shape, 1)):
        raise ValueError(
            f"Targets must have shape {shape} or {(*shape, 1)}. {remedy} "
            f"Received: y_true.shape={given}"
        )
