"""Densities of numbers that have only a few levels, such as the pixels of a picture."""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number, generator


def dequantize(levels, count, seed=0):
    r"""Spread every level evenly over its share of the unit interval.

    .. math:: x = \frac{k + u}{K}, \qquad u \sim \mathcal U(0, 1)

    A density that is trained on levels as they are puts infinite spikes on them. With
    the noise it cannot: :math:`\mathbb E_u \log p(x) - D \log K` is a lower bound of
    the log-probability of the levels (see :func:`bits_per_dimension`).

    Args:
        levels: Array of integers from 0 to ``count - 1``, of any shape.
        count: Integer of at least 2, the number of levels :math:`K`.
        seed: Integer of at least 0, for the noise.

    Returns:
        NumPy array of float32 in ``(0, 1)``, of the same shape.

    Raises:
        ValueError: If ``levels`` holds anything but such integers.

    Example:
        >>> x = dequantize(np.array([[0, 1, 2]]), count=4)
        >>> bool((np.floor(4 * x) == [[0, 1, 2]]).all())
        True

    References:
        Theis et al., *A note on the evaluation of generative models*, 2016,
        section 3.1. https://arxiv.org/abs/1511.01844
    """
    count = check_count("count", count, least=2)
    levels = np.asarray(levels)
    whole = np.issubdtype(levels.dtype, np.integer)
    if not whole or (levels.size and (levels.min() < 0 or levels.max() >= count)):
        raise ValueError(
            f"levels must be integers from 0 to {count - 1}. Received: an array of "
            f"{levels.dtype} from {levels.min()} to {levels.max()}"
        )
    noise = generator(seed).uniform(1e-6, 1 - 1e-6, levels.shape)  # inside in float32
    return ((levels + noise) / count).astype("float32")


def bits_per_dimension(log_prob, dimensions, count):
    r"""Log-density in nats to the bits that each entry of a quantized example costs.

    .. math:: \frac{-\log p(x)}{D \log 2} + \log_2 K

    for :math:`D` entries of :math:`K` levels each, where :math:`x` is
    :func:`dequantize`\ d. It is the length in bits of a lossless code, at most; with
    equally likely levels it is :math:`\log_2 K`.

    Args:
        log_prob: Array of log-densities in nats.
        dimensions: Positive integer, :math:`D`.
        count: Integer of at least 2, :math:`K`.

    Returns:
        NumPy array of the same shape.

    Raises:
        ValueError: If ``dimensions`` or ``count`` is out of its range.

    Example:
        >>> float(bits_per_dimension(np.array(0.0), dimensions=64, count=16))
        4.0
    """
    dimensions = check_count("dimensions", dimensions)
    count = check_count("count", count, least=2)
    nats = ops.convert_to_numpy(log_prob).astype("float64")
    return math.log2(count) - nats / (dimensions * math.log(2))


@keras.saving.register_keras_serializable(package="dlcompanion")
class LogitTransform(keras.layers.Layer):
    r"""Stretch the unit interval over all numbers.

    .. math:: y = \operatorname{logit}(p), \quad p = \alpha + (1 - 2 \alpha) x, \qquad
              \log |\det \partial y / \partial x|
              = \sum_i \log (1 - 2 \alpha) - \log p_i (1 - p_i)

    Pixels live between 0 and 1 and noise does not; behind this layer no flow has to
    learn where the borders are. The margin :math:`\alpha` keeps 0 and 1 from infinity,
    and lets a sample leave the interval by :math:`\alpha / (1 - 2 \alpha)`.

    Args:
        margin: Number between 0 and 1/2, :math:`\alpha`.
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given.

    Call arguments:
        inputs: Tensor of shape ``(batch, ...)`` with entries between 0 and 1. What is
            outside of the interval and its margin gives NaN.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Ignored; what conditional flows pass to each of their layers.

    Output shape:
        That of the input, and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If ``margin`` is out of its range.

    Example:
        >>> y, log_det = LogitTransform()(ops.zeros((5, 3)) + 0.5)
        >>> bool(ops.all(ops.abs(y) < 1e-6))
        True

    References:
        Dinh et al., *Density estimation using Real NVP*, 2017, section 4.1.
        https://arxiv.org/abs/1605.08803
    """

    def __init__(self, margin=0.05, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, 0, 0.5, open_ends=True)

    def build(self, inputs_shape, context_shape=None):
        pass

    def call(self, inputs, inverse=False, context=None):
        inside = 1 - 2 * self.margin
        axes = tuple(range(1, len(inputs.shape)))
        if inverse:
            p = ops.sigmoid(inputs)
            # log p (1 - p), without the rounding of 1 - p
            log = ops.log_sigmoid(inputs) + ops.log_sigmoid(-inputs)
            return (p - self.margin) / inside, ops.sum(log - math.log(inside), axes)
        p = self.margin + inside * inputs
        log_p, log_rest = ops.log(p), ops.log(1 - p)
        return log_p - log_rest, ops.sum(math.log(inside) - log_p - log_rest, axes)

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}
