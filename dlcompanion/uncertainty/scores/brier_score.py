"""The Brier score, and what it is made of."""

import keras
import numpy as np
from keras import ops

from dlcompanion.backend import segment_sum
from dlcompanion.checks import check_boolean, check_count
from dlcompanion.uncertainty.scores.calibration_error import measured, per_weight


@keras.saving.register_keras_serializable(package="dlcompanion")
class BrierScore(keras.metrics.Metric):
    r"""Mean squared error of probabilities.

    .. math:: \mathrm{BS} = \frac1n \sum_i \sum_k (p_{ik} - y_{ik})^2 ,

    between 0 and 2 (of one column, ``classes=1``: the probability of class 1, between
    0 and 1). It is proper: in the mean nothing is better than the true probabilities.
    :meth:`decomposition` tells what it consists of, in bins of the probability of
    each class,

    .. math:: \mathrm{BS} = \underbrace{\sum_b \tfrac{n_b}{n} (\bar p_b - \bar y_b)^2
              }_{\text{reliability}}
              - \underbrace{\sum_b \tfrac{n_b}{n} (\bar y_b - \bar y)^2
              }_{\text{resolution}}
              + \underbrace{\bar y (1 - \bar y)}_{\text{uncertainty}}
              + \underbrace{\tfrac1n \sum_b \sum_{i \in b} \bigl[(p_i - \bar p_b)^2
              - 2 (p_i - \bar p_b)(y_i - \bar y_b)\bigr]}_{\text{within bins}} ,

    summed over classes: how far probabilities are from frequencies, how far
    frequencies differ between bins (the only term that one wants large), how uncertain
    the outcome is beforehand, and what the bins do not see. The last term is 0 if all
    probabilities of a bin are equal, and then the other three are Murphy's.

    Args:
        classes: Positive integer, columns of the predictions.
        bins: Positive integer, bins of equal width; they matter to the decomposition
            alone.
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: If an argument is not what is said above; for NumPy data, if
            predictions are no probabilities or a label is not a class. In a compiled
            step such data make the score NaN.

    Example:
        >>> metric = BrierScore(classes=1)
        >>> p = np.array([[0.8]] * 5, "float32")
        >>> metric.update_state(np.array([1, 1, 1, 0, 0]), p)
        >>> round(float(metric.result()), 3)
        0.28
        >>> parts = metric.decomposition()
        >>> [round(parts[name], 3) for name in ("reliability", "uncertainty")]
        [0.04, 0.24]

    References:
        Brier, *Verification of Forecasts Expressed in Terms of Probability*, 1950;
        Murphy, *A New Vector Partition of the Probability Score*, 1973; Stephenson,
        Coelho and Jolliffe, *Two Extra Components in the Brier Score Decomposition*,
        2008, for what remains within bins.
    """

    def __init__(self, classes, bins=15, from_logits=False, name="brier", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.classes = check_count("classes", classes)
        self.bins = check_count("bins", bins)
        self.from_logits = check_boolean("from_logits", from_logits)
        # of each bin: weight, p, y, (p - middle of the bin)^2 and times y
        shape = (self.classes * self.bins, 5)
        self.sums = self.add_variable(shape, "zeros", name="sums")
        self.squares = self.add_variable((), "zeros", name="squares")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.classes == 1 and len(y_pred.shape) == 2 and y_pred.shape[-1] != 1:
            raise ValueError(
                "The metric was made for one column. "
                f"Received: shape={tuple(y_pred.shape)}, classes=1"
            )
        p, y, weight, mark = measured(
            y_true, y_pred, sample_weight, self.classes, self.from_logits
        )
        cell = ops.clip(ops.floor(p * self.bins), 0, self.bins - 1)
        off = p - (cell + 0.5) / self.bins  # small, so that its square keeps its digits
        cell = ops.cast(cell, "int32")
        cell = cell + self.bins * ops.arange(self.classes, dtype="int32")
        weight = ops.broadcast_to(weight[:, None], ops.shape(p))
        rows = ops.stack([ops.ones_like(p), off, y, off * off, off * y], axis=-1)
        rows = ops.reshape(rows * weight[..., None], (-1, 5))
        size = self.classes * self.bins
        sums = segment_sum(rows, ops.reshape(cell, (-1,)), size)
        self.sums.assign(self.sums + sums)
        self.squares.assign(self.squares + ops.sum(weight * ops.square(p - y)))
        self.total.assign(self.total + ops.sum(weight[:, 0]) + mark)

    def result(self):
        return per_weight(self.squares, self.total)

    def decomposition(self):
        """Dictionary of the four terms; resolution counts negatively."""
        total = float(ops.convert_to_numpy(self.total))
        sums = ops.convert_to_numpy(self.sums).astype("float64") / (total or 1.0)
        share, off, y, squares, product = np.moveaxis(
            sums.reshape(self.classes, self.bins, 5), -1, 0
        )
        filled = np.where(share > 0, share, 1.0)
        mean_off, mean_y = off / filled, y / filled
        middle = (np.arange(self.bins) + 0.5) / self.bins
        base = y.sum(axis=1, keepdims=True)
        variance = squares - off * mean_off
        covariance = product - off * mean_y
        return {
            "reliability": float((share * (middle + mean_off - mean_y) ** 2).sum()),
            "resolution": float((share * (mean_y - base) ** 2).sum()),
            "uncertainty": float((base * (1 - base)).sum()),
            "within_bins": float((variance - 2 * covariance).sum()),
        }

    def get_config(self):
        config = {"classes": self.classes, "bins": self.bins}
        return {**super().get_config(), **config, "from_logits": self.from_logits}
