r"""Conformal prediction of numbers: intervals that hold the truth as often as promised.

==========================================  ========================================
:class:`SplitConformalRegression`            one width for all inputs
:class:`ConformalizedQuantileRegression`     a width that follows the noise (CQR)
==========================================  ========================================
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_finite
from dlcompanion.uncertainty.conformal import ConformalPredictor, one_output


class _Interval(ConformalPredictor):
    """Lower and upper end, moved outwards by the threshold."""

    columns = 1

    def conformity(self, outputs, y):
        outputs, y = one_output(outputs, "float64"), np.asarray(y, "float64")
        if y.ndim == 1:
            y = y[:, None]
        if outputs.shape[1:] != (self.columns,) or y.shape != (len(outputs), 1):
            raise ValueError(
                f"The model must give (batch, {self.columns}), and y must be one "
                f"number an example. Received: outputs of shape {outputs.shape}, "
                f"y.shape={y.shape}"
            )
        check_finite("predictions", outputs)
        check_finite("y", y)
        return np.maximum(outputs[:, :1] - y, y - outputs[:, -1:])[:, 0]

    def call(self, inputs):
        outputs = ops.cast(self.model(inputs, training=False), "float32")
        # rounded outwards: to the nearest, half of the ends would lie inside
        low = -_rounded_up(self.threshold - outputs[:, :1], self.compute_dtype)
        high = _rounded_up(outputs[:, -1:] + self.threshold, self.compute_dtype)
        return ops.concatenate([low, high], axis=-1)

    def set_threshold(self, x, value):
        rounded = np.float32(value)
        if float(rounded) < value:
            rounded = np.nextafter(rounded, np.float32(np.inf))
        super().set_threshold(x, rounded)


def _rounded_up(ends, dtype):
    """Sums that float32 has rounded to the nearest, at least as large in a dtype."""
    size = ops.stop_gradient(ops.abs(ends))
    ends = ends + size * 2.0**-23
    small = ops.cast(ends, dtype)
    if small.dtype == ends.dtype:
        return small
    step = 2.0 ** -(10 if "float16" == keras.backend.standardize_dtype(dtype) else 7)
    larger = ops.cast(ends + size * step, dtype)
    return ops.where(ops.cast(small, "float32") < ends, larger, small)


@keras.saving.register_keras_serializable(package="dlcompanion")
class SplitConformalRegression(_Interval):
    r"""An interval of one width around the prediction.

    .. math:: s(x, y) = |y - \hat f(x)|, \qquad
              C(x) = [\hat f(x) - \hat q, \; \hat f(x) + \hat q]

    with the ``conformal_quantile`` of the held-out errors.
    Where the noise varies with :math:`x` the interval is too wide here and too narrow
    there, and the coverage is right on average only.

    Args:
        model: Trained Keras model from inputs to ``(batch, 1)``.
        alpha: Number between 0 and 1, the share of errors that is allowed.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of ``model``.

    Output shape:
        ``(batch, 2)``: lower and upper end.

    Raises:
        ValueError: As ``ConformalPredictor``; in
            ``calibrate``, if the model does not give ``(batch, 1)`` or a number is not
            finite.

    Example:
        >>> inside = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
        >>> x = np.linspace(0, 1, 99)[:, None]
        >>> error = np.linspace(-1, 1, 99)
        >>> predictor = SplitConformalRegression(inside).calibrate(x, x[:, 0] + error)
        >>> predictor.predict(np.zeros((1, 1))).round(2)
        array([[-0.92,  0.92]], dtype=float32)

    References:
        Lei, G'Sell, Rinaldo, Tibshirani and Wasserman, *Distribution-Free Predictive
        Inference for Regression*, 2018. https://arxiv.org/abs/1604.04173
    """


@keras.saving.register_keras_serializable(package="dlcompanion")
class ConformalizedQuantileRegression(_Interval):
    r"""Predicted quantiles, moved until they cover (CQR).

    The model predicts a lower and an upper quantile of :math:`y`, trained on the
    pinball loss, so the width of the interval follows the noise. The quantiles may be
    wrong; the threshold corrects their coverage:

    .. math:: s(x, y) = \max\bigl(\hat q_{lo}(x) - y, \; y - \hat q_{hi}(x)\bigr),
              \qquad
              C(x) = [\hat q_{lo}(x) - \hat q, \; \hat q_{hi}(x) + \hat q] .

    The threshold is negative where the quantiles cover too often: then the interval
    shrinks, and may be empty (lower above upper end).

    Args:
        model: Trained Keras model from inputs to ``(batch, 2)``, the lower and the
            upper quantile, for example those of ``alpha / 2`` and ``1 - alpha / 2``.
        alpha: Number between 0 and 1, the share of errors that is allowed.
        **kwargs: Passed on to :class:`keras.Model`.

    Input shape:
        That of ``model``.

    Output shape:
        ``(batch, 2)``: lower and upper end.

    Raises:
        ValueError: As ``ConformalPredictor``; in
            ``calibrate``, if the model does not give ``(batch, 2)`` or a number is not
            finite.

    Example:
        >>> inside = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
        >>> ends = np.tile([-1.0, 1.0], (99, 1))
        >>> predictor = ConformalizedQuantileRegression(inside)
        >>> predictor.calibrate(ends, np.linspace(-3, 3, 99)).predict(ends[:1]).round(1)
        array([[-2.8,  2.8]], dtype=float32)

    References:
        Romano, Patterson and Candes, *Conformalized Quantile Regression*, 2019.
        https://arxiv.org/abs/1905.03222
    """

    columns = 2
