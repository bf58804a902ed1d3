r"""How far probabilities are from frequencies: the binned calibration errors.

Probabilities are calibrated if among all cases that are given 0.8, eight in ten are
so. Nobody has many cases of exactly 0.8, so neighbors are put into a bin, and in each
the mean probability is compared with the frequency.

=================================  =================================================
:class:`ExpectedCalibrationError`   mean gap, of the class that was decided for
:class:`MaximumCalibrationError`    the largest gap instead of the mean
:class:`ClasswiseCalibrationError`  mean gap of every class, not of the best alone
:class:`AdaptiveCalibrationError`   the same in bins of equal mass
=================================  =================================================

A binned error is positive even if the model is calibrated perfectly, because the
frequency in a bin of 20 cases is off by 0.1 on average: compare errors of equally
many cases only, and do not trust one of fewer than 1,000. The likelihood, which no bin
spoils, is :class:`keras.metrics.SparseCategoricalCrossentropy`.
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.backend import segment_sum
from dlcompanion.checks import (
    check_boolean,
    check_choice,
    check_count,
    check_labels,
    check_probabilities,
)

#: Bins of equal mass are put together from cells of equal width in the log-odds, up to
#: those of the largest float32 below 1.
_CELLS, _REACH = 4096, 17.0


@keras.saving.register_keras_serializable(package="dlcompanion")
class BinnedCalibration(keras.metrics.Metric):
    """Sums of weights, probabilities and outcomes in bins, for the metrics here.

    The state does not grow with the data: bins of equal width are sums themselves,
    bins of equal mass are put together, when the result is asked for, from 4,096 cells
    of equal width in the log-odds. A bin then ends at the edge of a cell, at most 0.8 %
    of the odds away from where it should, and what shares a cell is not taken apart.

    NumPy data are checked. In a compiled step a probability outside [0, 1], a label
    that is not a class, or a NaN makes the result NaN.

    Args:
        columns: Positive integer, how many probabilities of an example are measured.
        bins: Positive integer.
        binning: ``"width"`` or ``"mass"``, what is equal among bins.
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: If an argument is not what is said above.

    Example:
        >>> isinstance(ExpectedCalibrationError(), BinnedCalibration)
        True
    """

    def __init__(self, columns, bins, binning, from_logits, name, dtype):
        super().__init__(name=name, dtype=dtype)
        self.columns = check_count("columns", columns)
        self.bins = check_count("bins", bins)
        self.binning = check_choice("binning", binning, ("width", "mass"))
        self.from_logits = check_boolean("from_logits", from_logits)
        cells = bins if binning == "width" else _CELLS
        self.cells = self.columns * cells
        self.sums = self.add_variable((self.cells, 3), "zeros", name="sums")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        p, hit, weight, mark = measured(
            y_true, y_pred, sample_weight, self.columns, self.from_logits
        )
        cells = self.cells // self.columns
        if self.binning == "width":
            cell = ops.floor(p * cells)
        else:
            u = ops.log(p) - ops.log1p(-p)
            cell = ops.floor((u / _REACH + 1.0) * (cells / 2))
        cell = ops.cast(ops.clip(cell, 0, cells - 1), "int32")
        cell = cell + cells * ops.arange(self.columns, dtype="int32")
        weight = ops.broadcast_to(weight[:, None], ops.shape(p))
        rows = ops.stack([weight, weight * p, weight * hit], axis=-1)
        sums = segment_sum(
            ops.reshape(rows, (-1, 3)), ops.reshape(cell, (-1,)), self.cells
        )
        self.sums.assign(self.sums + sums)
        self.total.assign(self.total + ops.sum(weight[:, 0]) + mark)

    def gaps(self):
        """Share of the weight, and gap between mean probability and frequency.

        Both of shape ``(columns, bins)``; of an empty bin both are 0.
        """
        sums = ops.convert_to_tensor(self.sums)
        if self.binning == "mass":
            by_column = ops.reshape(sums[:, 0], (self.columns, -1))
            # a cell belongs to the bin of its middle
            middle = ops.cumsum(by_column, axis=-1) - by_column / 2
            whole = ops.maximum(ops.sum(by_column, axis=-1, keepdims=True), 1e-30)
            bin_ = ops.floor(middle / whole * self.bins)
            bin_ = ops.cast(ops.clip(bin_, 0, self.bins - 1), "int32")
            bin_ = bin_ + self.bins * ops.arange(self.columns, dtype="int32")[:, None]
            size = self.bins * self.columns
            sums = segment_sum(sums, ops.reshape(bin_, (-1,)), size)
        weight, p, hit = ops.unstack(
            ops.reshape(sums, (self.columns, self.bins, 3)), axis=-1
        )
        filled = ops.where(weight > 0, weight, 1.0)
        return per_weight(weight, self.total), ops.abs(p - hit) / filled

    def get_config(self):
        config = {"bins": self.bins, "from_logits": self.from_logits}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="dlcompanion")
class ExpectedCalibrationError(BinnedCalibration):
    r"""Mean gap between confidence and accuracy (ECE).

    .. math:: \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{n}
              \bigl| \mathrm{acc}(b) - \mathrm{conf}(b) \bigr| ,

    over bins of the confidence, the probability of the class that is decided for.
    Predictions of one column, ``(batch, 1)``, are the probability of class 1; they are
    binned themselves and compared with its frequency. Bins of equal width contain
    their lower edge, the last one also 1.

    Args:
        bins: Positive integer, :math:`B`.
        binning: ``"width"`` for bins of equal width; ``"mass"`` for bins of equally
            many examples, whose gaps are equally certain (see
            ``BinnedCalibration``).
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: If an argument is not what is said above; for NumPy data, if
            predictions are no probabilities or a label is not a class.

    Example:
        Four answers of confidence 0.9, and three of them right.

        >>> metric = ExpectedCalibrationError(bins=10)
        >>> p = np.array([[0.9, 0.1]] * 4, "float32")
        >>> metric.update_state(np.array([0, 0, 0, 1]), p)
        >>> round(float(metric.result()), 3)
        0.15

    References:
        Pakdaman Naeini, Cooper and Hauskrecht, *Obtaining Well Calibrated Probabilities
        Using Bayesian Binning*, 2015; Guo et al., *On Calibration of Modern Neural
        Networks*, 2017, eq. 3. https://arxiv.org/abs/1706.04599
    """

    def __init__(
        self, bins=15, binning="width", from_logits=False, name="ece", dtype=None
    ):
        super().__init__(1, bins, binning, from_logits, name, dtype)

    def result(self):
        share, gap = self.gaps()
        return ops.sum(share * gap)

    def get_config(self):
        return {**super().get_config(), "binning": self.binning}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MaximumCalibrationError(BinnedCalibration):
    r"""Largest gap between confidence and accuracy (MCE).

    .. math:: \mathrm{MCE} = \max_b
              \bigl| \mathrm{acc}(b) - \mathrm{conf}(b) \bigr| ,

    over the bins that hold any example. In bins of equal width the largest gap is
    nearly always that of a bin of three examples; ``binning="mass"`` prevents it.

    Args:
        bins: Positive integer.
        binning: ``"width"`` or ``"mass"``, as :class:`ExpectedCalibrationError`.
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: As :class:`ExpectedCalibrationError`.

    Example:
        >>> metric = MaximumCalibrationError(bins=10)
        >>> p = np.array([[0.9], [0.9], [0.2]], "float32")
        >>> metric.update_state(np.array([1, 1, 1]), p)
        >>> round(float(metric.result()), 3)
        0.8

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, 2017, eq. 5.
        https://arxiv.org/abs/1706.04599
    """

    def __init__(
        self, bins=15, binning="width", from_logits=False, name="mce", dtype=None
    ):
        super().__init__(1, bins, binning, from_logits, name, dtype)

    def result(self):
        # 0 * total: NaN if anything was, which a maximum may overlook
        return ops.max(self.gaps()[1]) + 0 * self.total

    def get_config(self):
        return {**super().get_config(), "binning": self.binning}


@keras.saving.register_keras_serializable(package="dlcompanion")
class ClasswiseCalibrationError(BinnedCalibration):
    r"""Mean gap between probability and frequency, of every class.

    .. math:: \frac1K \sum_{k=1}^{K} \sum_{b=1}^{B} \frac{n_{bk}}{n}
              \bigl| \bar y_{bk} - \bar p_{bk} \bigr|

    asks for calibration of all :math:`K` probabilities of an example, not only of the
    largest. Most of them are near 0 and right to be: values are small, and smaller the
    more classes there are.

    Args:
        classes: Integer of at least 2, :math:`K`.
        bins: Positive integer, :math:`B`, of equal width.
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: As :class:`ExpectedCalibrationError`, or if predictions do not have
            ``classes`` columns.

    Example:
        >>> metric = ClasswiseCalibrationError(classes=2, bins=10)
        >>> p = np.array([[0.9, 0.1]] * 4, "float32")
        >>> metric.update_state(np.array([0, 0, 0, 1]), p)
        >>> round(float(metric.result()), 3)
        0.15

    References:
        Nixon et al., *Measuring Calibration in Deep Learning*, 2019 (there: static
        calibration error), https://arxiv.org/abs/1904.01685; Kull et al., *Beyond
        temperature scaling*, 2019. https://arxiv.org/abs/1910.12656
    """

    _binning = "width"

    def __init__(
        self, classes, bins=15, from_logits=False, name="classwise_ece", dtype=None
    ):
        check_count("classes", classes, least=2)
        super().__init__(classes, bins, self._binning, from_logits, name, dtype)

    def result(self):
        share, gap = self.gaps()
        return ops.sum(share * gap) / self.columns

    def get_config(self):
        return {**super().get_config(), "classes": self.columns}


@keras.saving.register_keras_serializable(package="dlcompanion")
class AdaptiveCalibrationError(ClasswiseCalibrationError):
    r"""Mean gap of every class, in bins of equally many examples (ACE).

    .. math:: \frac{1}{K R} \sum_{k=1}^{K} \sum_{r=1}^{R}
              \bigl| \bar y_{rk} - \bar p_{rk} \bigr|

    with ranges :math:`r` that hold :math:`n / R` examples each, so that none is empty
    and none hangs on a few. (Where many probabilities are equal, ranges are uneven and
    count by what they hold.)

    Args:
        classes: Integer of at least 2, :math:`K`.
        bins: Positive integer, :math:`R`.
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: As :class:`ClasswiseCalibrationError`.

    Example:
        >>> metric = AdaptiveCalibrationError(classes=2, bins=2)
        >>> p = np.array([[0.9, 0.1]] * 2 + [[0.6, 0.4]] * 2, "float32")
        >>> metric.update_state(np.array([0, 0, 0, 0]), p)
        >>> round(float(metric.result()), 3)
        0.25

    References:
        Nixon et al., *Measuring Calibration in Deep Learning*, 2019.
        https://arxiv.org/abs/1904.01685
    """

    _binning = "mass"

    def __init__(self, classes, bins=15, from_logits=False, name="ace", dtype=None):
        super().__init__(classes, bins, from_logits, name, dtype)


def per_weight(sums, total):
    """Sums divided by the total weight; 0 without any, as in Keras's metrics.

    Args:
        sums: Tensor.
        total: Scalar tensor; NaN makes the result NaN.

    Returns:
        Tensor of the shape of ``sums``.

    Example:
        >>> float(per_weight(ops.zeros(()), ops.zeros(())))
        0.0
    """
    total = ops.convert_to_tensor(total)
    return sums / ops.where(total == 0, ops.ones_like(total), total)


def measured(y_true, y_pred, sample_weight, columns, from_logits):
    """What is compared: probabilities and outcomes, weights, and a NaN if any is bad.

    Shapes ``(batch, columns)`` twice, ``(batch,)`` and ``()``. One column of several
    classes is the largest probability, and whether it was right.
    """
    if len(y_pred.shape) == 1:
        y_pred = y_pred[:, None]
    given = y_pred.shape[-1]
    if len(y_pred.shape) != 2 or (columns > 1 and given != columns):
        raise ValueError(
            "Predictions must have shape (batch, classes), with the classes of the "
            f"metric. Received: shape={tuple(y_pred.shape)}, columns={columns}"
        )
    labels = tuple(np.shape(y_true))
    if len(labels) != 1 and labels[1:] != (1,):
        raise ValueError(
            "Labels are one class index for each example, (batch,) or (batch, 1); of "
            f"one-hot labels take the argmax. Received: y_true.shape={labels}"
        )
    if isinstance(y_true, np.ndarray) and isinstance(y_pred, np.ndarray):
        if not from_logits:
            check_probabilities("y_pred", y_pred)
        y_true = check_labels("labels", y_true, max(given, 2), len(y_pred))
    p = ops.cast(y_pred, "float32")
    if from_logits:
        p = ops.softmax(p) if given > 1 else ops.sigmoid(p)
    label = ops.cast(ops.reshape(y_true, (-1,)), "int32")
    inside = ops.all((p >= 0) & (p <= 1), axis=-1)  # a NaN is neither
    inside = inside & (label >= 0) & (label < max(given, 2))
    mark = ops.where(ops.all(inside), 0.0, float("nan"))
    p = ops.where(inside[:, None], p, 0.0)
    if given == 1:
        hit = ops.cast(label == 1, "float32")[:, None]
    elif columns == 1:
        hit = ops.cast(ops.cast(ops.argmax(p, axis=-1), "int32") == label, "float32")
        p, hit = ops.max(p, axis=-1, keepdims=True), hit[:, None]
    else:
        classes = ops.arange(given, dtype="int32")
        hit = ops.cast(label[:, None] == classes, "float32")
    weight = ops.ones_like(p[:, 0])
    if sample_weight is not None:
        given_weight = ops.cast(sample_weight, "float32")
        weight = weight * ops.reshape(given_weight, (-1,))
    return p, hit, weight, mark
