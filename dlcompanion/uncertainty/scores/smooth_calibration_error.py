"""A calibration error without bins."""

import functools

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_boolean
from dlcompanion.uncertainty.scores.calibration_error import measured, per_weight

_WAVES, _POINTS, _HALVINGS = 512, 1024, 24


@functools.cache
def _grid():
    """Values of cos(pi k t) on the grid, twice them where k > 0."""
    k = np.arange(_WAVES)[:, None]
    points = (np.arange(_POINTS) + 0.5) / _POINTS
    return np.cos(np.pi * k * points) * np.where(k > 0, 2, 1)


@keras.saving.register_keras_serializable(package="dlcompanion")
class SmoothCalibrationError(keras.metrics.Metric):
    r"""Calibration error by a smoothed residual instead of bins (smECE).

    The residuals :math:`y_i - p_i` are smoothed along the probability by a Gaussian
    kernel that is reflected at 0 and 1,

    .. math:: \hat r_\sigma(t) = \frac1n \sum_i (y_i - p_i)\, \tilde K_\sigma(p_i, t),
              \qquad \mathrm{smECE}_\sigma = \int_0^1 |\hat r_\sigma(t)|\, dt ,

    and the width chooses itself: smECE is the value at which
    :math:`\mathrm{smECE}_\sigma = \sigma`. A binned error jumps when a probability
    crosses the edge of a bin; this one is continuous, and a small error means that
    small changes of the probabilities make them calibrated.

    Smoothing with that kernel multiplies the cosine series of the residuals by
    :math:`e^{-\pi^2 k^2 \sigma^2 / 2}`, so the state is the first 512 coefficients,
    exact for :math:`\sigma > 0.004`; smaller errors are resolved less well. Of several
    classes the largest probability is taken, of one column, ``(batch, 1)``, the
    probability of class 1.

    Args:
        from_logits: Boolean, whether predictions are logits.
        name: String, name of the metric.
        dtype: Dtype of the result.

    Raises:
        ValueError: If ``from_logits`` is not a boolean; for NumPy data, if predictions
            are no probabilities or a label is not a class. In a compiled step such
            data make the result NaN.

    Example:
        All answers have confidence 0.9, and 0.7 of them are right.

        >>> metric = SmoothCalibrationError()
        >>> p = np.full((10, 1), 0.9, "float32")
        >>> metric.update_state(np.array([1] * 7 + [0] * 3), p)
        >>> round(float(metric.result()), 3)
        0.2

    References:
        Blasiok and Nakkiran, *Smooth ECE: Principled Reliability Diagrams via Kernel
        Smoothing*, 2023. https://arxiv.org/abs/2309.12236
    """

    def __init__(self, from_logits=False, name="smooth_ece", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.from_logits = check_boolean("from_logits", from_logits)
        self.series = self.add_variable((_WAVES,), "zeros", name="series")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        p, hit, weight, mark = measured(
            y_true, y_pred, sample_weight, 1, self.from_logits
        )
        waves = ops.cos(p * ops.arange(_WAVES, dtype="float32") * np.pi)
        residuals = weight * (hit - p)[:, 0]
        self.series.assign(self.series + ops.matmul(residuals, waves))
        self.total.assign(self.total + ops.sum(weight) + mark)

    def result(self):
        series = per_weight(self.series, self.total)
        grid = ops.convert_to_tensor(_grid(), series.dtype)
        decay = -0.5 * (np.pi * np.arange(_WAVES)) ** 2
        decay = ops.convert_to_tensor(decay, series.dtype)

        def smoothed(sigma):
            return ops.mean(
                ops.abs(ops.matmul(series * ops.exp(decay * sigma**2), grid))
            )

        # smoothed(sigma) - sigma falls: halve the interval in which it is 0
        def halve(_, interval):
            low, high = interval
            middle = (low + high) / 2
            above = smoothed(middle) > middle
            return ops.where(above, middle, low), ops.where(above, high, middle)

        low, high = ops.fori_loop(
            0, _HALVINGS, halve, (0 * self.total, 0 * self.total + 1)
        )
        middle = (low + high) / 2 + 0 * self.total  # NaN if the total is
        return ops.where(self.total == 0, 0 * middle, middle)

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits}
