"""Inverted: an invertible layer, run the other way round."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="dlcompanion")
class Inverted(keras.layers.Layer):
    r"""A transform with its two directions exchanged.

    Some transforms are cheap from noise to data and dear the other way. A flow carries
    data to noise, so such a layer :math:`f` goes into it as :math:`f^{-1}`.

    Args:
        transform: Keras layer whose ``call(x, inverse=False, context=None)`` returns
            ``(y, log_det)`` with ``y`` of the shape of ``x``.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of the shape that the transform takes.
        inverse: Boolean, whether to run the transform as it is.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        The input's, and ``(batch,)``.

    Raises:
        ValueError: If the transform is no Keras layer.

    Example:
        >>> from dlcompanion.generative.flows.coupling import DiagonalScaling
        >>> y, log_det = Inverted(DiagonalScaling())(keras.ops.ones((5, 2)))
        >>> tuple(log_det.shape)
        (5,)
    """

    def __init__(self, transform, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)
        if not isinstance(transform, keras.layers.Layer):
            raise ValueError(
                "Inverted needs a Keras layer as transform. "
                f"Received: transform={transform!r}"
            )
        self.transform = transform

    def build(self, inputs_shape, context_shape=None):
        if not self.transform.built:
            context = () if context_shape is None else (context_shape,)
            self.transform.build(inputs_shape, *context)

    def call(self, inputs, inverse=False, context=None):
        given = {} if context is None else {"context": context}
        outputs = self.transform(inputs, inverse=not inverse, **given)
        return tuple(ops.cast(x, self.compute_dtype) for x in outputs)

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])

    def get_config(self):
        transform = keras.saving.serialize_keras_object(self.transform)
        return {**super().get_config(), "transform": transform}

    @classmethod
    def from_config(cls, config):
        transform = keras.saving.deserialize_keras_object(config["transform"])
        return cls(**{**config, "transform": transform})
