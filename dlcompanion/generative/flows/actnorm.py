"""ActNorm: a scale and a shift for each channel that start from the first batch."""

import keras
import numpy as np
from keras import ops

from dlcompanion import backend


@keras.saving.register_keras_serializable(package="dlcompanion")
class ActNorm(keras.layers.Layer):
    r"""Scale and shift every channel; the first training batch says from where.

    .. math:: y = e^{s} \odot \frac{x - \mu_0}{\sigma_0} + b, \qquad
              \log |\det \partial y / \partial x|
              = h \, w \sum_c (s_c - \log \sigma_{0c})

    on :math:`h \times w` places. Learned are :math:`s` and :math:`b`, which start at
    zero. :math:`\mu_0` and :math:`\sigma_0` are the mean and the standard deviation of
    each channel over the first batch that comes in training, and are kept from then
    on: a normalization that, unlike that of a batch, gives each example a density of
    its own. It is the data-dependent start of the paper, in a form that a compiled
    step can make on every backend: nothing has to be called before ``fit``. Whether it
    has happened is a weight and saved; until then :math:`\mu_0 = 0, \sigma_0 = 1`.

    Args:
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given, whatever the global policy says.

    Call arguments:
        inputs: Tensor of shape ``(batch, ..., channels)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Ignored; what conditional flows pass to each of their layers.
        training: Boolean, whether a first batch may set :math:`\mu_0, \sigma_0`. A
            channel that is constant in it leaves a scale of one.

    Output shape:
        That of the input, and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the input has no axis of channels of known size.

    Example:
        >>> layer = ActNorm()
        >>> x = 3 + 2 * keras.random.normal((100, 4), seed=0)
        >>> y, log_det = layer(x, training=True)
        >>> bool(keras.ops.all(keras.ops.abs(keras.ops.mean(y, axis=0)) < 1e-5))
        True

    References:
        Kingma & Dhariwal, *Glow: Generative Flow with Invertible 1x1 Convolutions*,
        2018, section 3.1. https://arxiv.org/abs/1807.03039
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)

    def build(self, inputs_shape, context_shape=None):
        if len(inputs_shape) < 2 or None in tuple(inputs_shape)[1:]:
            raise ValueError(
                "ActNorm needs inputs of shape (batch, ..., channels) of known size. "
                f"Received: inputs_shape={tuple(inputs_shape)}"
            )
        shape = (inputs_shape[-1],)
        learned = {"shape": shape, "initializer": "zeros", "autocast": False}
        kept = {"trainable": False, "autocast": False, "aggregation": "mean"}
        self.log_scale = self.add_weight(name="log_scale", **learned)
        self.shift = self.add_weight(name="shift", **learned)
        self.mean = self.add_weight(
            name="mean", shape=shape, initializer="zeros", **kept
        )
        self.deviation = self.add_weight(
            name="deviation", shape=shape, initializer="ones", **kept
        )
        self.started = self.add_weight(
            name="started", shape=(), initializer="zeros", **kept
        )

    def call(self, inputs, inverse=False, context=None, training=False):
        mean, deviation = (
            ops.convert_to_tensor(w) for w in (self.mean, self.deviation)
        )
        if training and not inverse:
            mean, deviation = ops.cond(
                ops.convert_to_tensor(self.started) > 0,
                lambda: (mean, deviation),
                lambda: self._of_batch(inputs),
            )
            self.mean.assign(mean)
            self.deviation.assign(deviation)
            self.started.assign(1.0)
        scale = ops.cast(ops.exp(self.log_scale) / deviation, inputs.dtype)
        shift = ops.cast(self.shift, inputs.dtype)
        mean = ops.cast(mean, inputs.dtype)
        places = float(np.prod(inputs.shape[1:-1]))
        log_det = places * ops.sum(self.log_scale - ops.log(deviation))
        log_det = ops.cast(log_det, inputs.dtype)
        log_det = ops.broadcast_to(log_det, ops.shape(inputs)[:1])
        if inverse:
            return (inputs - shift) / scale + mean, -log_det
        return (inputs - mean) * scale + shift, log_det

    def _of_batch(self, inputs):
        """Mean and deviation of each channel, without gradient.

        Sums are of differences from the first example, in units of the largest one: so
        nothing cancels far from zero, and no square leaves the range of float32.
        """
        axes = tuple(range(len(inputs.shape) - 1))
        dtype = backend.at_least_float32(self.variable_dtype)
        inputs = ops.stop_gradient(ops.cast(inputs, dtype))
        first = ops.reshape(inputs, (-1, inputs.shape[-1]))[0]
        away = inputs - first
        extent = ops.max(ops.abs(away), axis=axes)
        # constant, but for the last digits
        least = 4 * float(np.finfo(dtype).eps) * ops.abs(first)
        constant = extent <= least
        unit = ops.where(constant, 1.0, extent)
        mean = ops.mean(away / unit, axis=axes)
        variance = ops.mean(ops.square(away / unit - mean), axis=axes)
        deviation = ops.where(constant, 1.0, unit * ops.sqrt(variance))
        kept = (first + unit * mean, deviation)
        return tuple(ops.cast(x, self.variable_dtype) for x in kept)

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])
