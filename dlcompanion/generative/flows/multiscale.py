"""Squeeze and FactorOut: how a flow of pictures gets coarser as it goes deeper."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="dlcompanion")
class Squeeze(keras.layers.Layer):
    r"""Fold every patch of :math:`2 \times 2` places into the channels.

    ``(h, w, c)`` becomes ``(h / 2, w / 2, 4 c)``: what one channel held at the four
    places stands in four channels in a row, row by row. No number is changed, so the
    log-determinant is 0; couplings and 1x1 convolutions now see the four together.

    Args:
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given.

    Call arguments:
        inputs: Tensor of shape ``(batch, height, width, channels)``.
        inverse: Boolean, whether to unfold.
        context: Ignored; what conditional flows pass to each of their layers.

    Output shape:
        ``(batch, height / 2, width / 2, 4 * channels)``, and ``(batch,)``.

    Raises:
        ValueError: If the input is no picture or a side is not even.

    Example:
        >>> y, log_det = Squeeze()(keras.ops.ones((5, 8, 8, 1)))
        >>> tuple(y.shape)
        (5, 4, 4, 4)

    References:
        Dinh et al., *Density estimation using Real NVP*, 2017, section 3.6.
        https://arxiv.org/abs/1605.08803
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())
        super().__init__(**kwargs)

    def build(self, inputs_shape, context_shape=None):
        sides = tuple(inputs_shape)[1:]
        if len(sides) != 3 or None in sides or sides[0] % 2 or sides[1] % 2:
            raise ValueError(
                "Squeeze needs inputs of shape (batch, height, width, channels) with "
                f"even sides. Received: inputs_shape={tuple(inputs_shape)}"
            )

    def call(self, inputs, inverse=False, context=None):
        _, h, w, c = inputs.shape
        if inverse:
            x = ops.reshape(inputs, (-1, h, w, c // 4, 2, 2))
            x = ops.transpose(x, (0, 1, 4, 2, 5, 3))  # (batch, h, 2, w, 2, c / 4)
            x = ops.reshape(x, (-1, 2 * h, 2 * w, c // 4))
        else:
            x = ops.reshape(inputs, (-1, h // 2, 2, w // 2, 2, c))
            x = ops.transpose(x, (0, 1, 3, 5, 2, 4))  # (batch, h / 2, w / 2, c, 2, 2)
            x = ops.reshape(x, (-1, h // 2, w // 2, 4 * c))
        return x, ops.zeros_like(inputs[:, 0, 0, 0])

    def compute_output_shape(self, inputs_shape):
        batch, h, w, c = inputs_shape
        return (batch, h // 2, w // 2, 4 * c), (batch,)


@keras.saving.register_keras_serializable(package="dlcompanion")
class FactorOut(keras.layers.Layer):
    r"""Take half of the channels as finished, and carry only the others on.

    .. math:: y = \bigl( x_1, \; f(x_2) \bigr), \qquad
              \log |\det \partial y / \partial x|
              = \log |\det \partial f / \partial x_2|

    The first half goes to the noise as it is, so that half of the work is saved and
    what is fine in the picture is decided by what is coarse: a coupling in front of
    this layer that keeps the second half and moves the first gives :math:`x_1` a
    normal distribution with mean and scale from :math:`x_2`, as in Glow. Levels nest:
    ``transforms`` may end in another ``FactorOut``.

    Args:
        transforms: List of Keras layers for the second half of the channels, applied
            in this order.
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given.

    Call arguments:
        inputs: Tensor of shape ``(batch, height, width, channels)``; the inverse
            takes what comes out.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor that is passed on to the transforms, or ``None``.

    Output shape:
        ``(batch, height * width * channels)``, the finished half first, and
        ``(batch,)``.

    Raises:
        ValueError: If there is no transform, or the input is no picture with at least
            two channels.

    Example:
        >>> from dlcompanion.generative import ActNorm
        >>> y, log_det = FactorOut([ActNorm()])(keras.ops.ones((5, 4, 4, 2)))
        >>> tuple(y.shape)
        (5, 32)

    References:
        Dinh et al., *Density estimation using Real NVP*, 2017, section 3.6.
        https://arxiv.org/abs/1605.08803
    """

    def __init__(self, transforms, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())
        super().__init__(**kwargs)
        if not transforms or not all(
            isinstance(t, keras.layers.Layer) for t in transforms
        ):
            raise ValueError(
                "FactorOut needs a list of Keras layers. "
                f"Received: transforms={transforms!r}"
            )
        self.transforms = list(transforms)

    def build(self, inputs_shape, context_shape=None):
        sides = tuple(inputs_shape)[1:]
        if len(sides) != 3 or None in sides or sides[2] < 2:
            raise ValueError(
                "FactorOut needs inputs of shape (batch, height, width, channels) with "
                f"at least 2 channels. Received: inputs_shape={tuple(inputs_shape)}"
            )
        height, width, channels = sides
        self.finished = (height, width, channels // 2)
        shape = self.carried = (height, width, channels - channels // 2)
        context = () if context_shape is None else (context_shape,)
        for transform in self.transforms:
            if not transform.built:
                transform.build((None, *shape), *context)
            shape = tuple(transform.compute_output_shape((None, *shape))[0])[1:]
        self.deepest = shape

    def call(self, inputs, inverse=False, context=None):
        given = {} if context is None else {"context": context}
        size = math.prod(self.finished)
        log_det = 0.0
        if inverse:
            first = ops.reshape(inputs[:, :size], (-1, *self.finished))
            second = ops.reshape(inputs[:, size:], (-1, *self.deepest))
            for transform in self.transforms[::-1]:
                second, more = transform(second, inverse=True, **given)
                log_det = log_det + more
            return ops.concatenate([first, second], axis=-1), log_det
        first = inputs[..., : self.finished[-1]]
        second = inputs[..., self.finished[-1] :]
        for transform in self.transforms:
            second, more = transform(second, **given)
            log_det = log_det + more
        first = ops.reshape(first, (-1, size))
        second = ops.reshape(second, (-1, math.prod(self.deepest)))
        return ops.concatenate([first, second], axis=-1), log_det

    def compute_output_shape(self, inputs_shape):
        return (inputs_shape[0], math.prod(inputs_shape[1:])), tuple(inputs_shape[:1])

    def get_config(self):
        transforms = [keras.saving.serialize_keras_object(t) for t in self.transforms]
        return {**super().get_config(), "transforms": transforms}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["transforms"] = [
            keras.saving.deserialize_keras_object(t) for t in config["transforms"]
        ]
        return cls(**config)
