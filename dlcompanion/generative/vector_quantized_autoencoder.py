"""VQ-VAE: an autoencoder whose code is a few numbers of a list."""

import keras
from keras import ops

from dlcompanion.generative.vector_quantization import (
    CodePerplexity,
    EMAVectorQuantizer,
    VectorQuantizer,
)
from dlcompanion.training import UnsupervisedModel

_PARTS = ("encoder", "decoder", "quantizer")


@keras.saving.register_keras_serializable(package="dlcompanion")
class VQVAE(UnsupervisedModel):
    r"""Autoencoder whose code is a few numbers of a list.

    .. math::

        L = \mathbb E\bigl[(x - \hat x)^2\bigr] + \text{losses of the quantiser}, \qquad
        \hat x = \mathrm{decoder}(\mathrm{quantizer}(\mathrm{encoder}(x))) .

    Of :math:`m` vectors quantised by :math:`K` codes, the code of an example takes
    :math:`m \log_2 K` bits. Train with ``fit(x)``; the logs hold ``loss``, ``error``,
    the mean squared error of a number, and ``perplexity``, of the codes in use.

    Args:
        encoder: Keras model from ``(batch, ...)`` to ``(batch, ..., features)``: the
            last axis is a vector to quantise.
        decoder: Keras model from there to the shape of the data.
        quantizer: :class:`VectorQuantizer` or :class:`EMAVectorQuantizer`.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Float tensor of shape ``(batch, ...)``.
        training: Boolean, whether running means of the codes learn.

    Returns:
        Dict with ``"decoded"``, of the shape of the data, and ``"numbers"``, int32,
        which codes were used.

    Raises:
        ValueError: If ``quantizer`` is no quantiser, or targets are given. A NaN in the
            data makes the loss NaN.

    Example:
        >>> encoder = keras.Sequential(
        ...     [keras.layers.Dense(6), keras.layers.Reshape((3, 2))]
        ... )
        >>> decoder = keras.Sequential(
        ...     [keras.layers.Flatten(), keras.layers.Dense(8)]
        ... )
        >>> model = VQVAE(encoder, decoder, VectorQuantizer(codes=4))
        >>> model.compile("adam")
        >>> history = model.fit(ops.ones((4, 8)), verbose=0)
        >>> sorted(history.history), tuple(model.encode(ops.ones((4, 8))).shape)
        (['error', 'loss', 'perplexity'], (4, 3))

    References:
        van den Oord, Vinyals and Kavukcuoglu, *Neural Discrete Representation
        Learning*, 2017. https://arxiv.org/abs/1711.00937
    """

    no_targets = "A VQVAE has no targets: fit(x)."

    def __init__(self, encoder, decoder, quantizer, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(quantizer, (VectorQuantizer, EMAVectorQuantizer)):
            raise ValueError(
                "quantizer must be a VectorQuantizer or an EMAVectorQuantizer. "
                f"Received: quantizer={quantizer!r}"
            )
        self.encoder = encoder
        self.decoder = decoder
        self.quantizer = quantizer
        self.error = keras.metrics.Mean("error")
        self.perplexity = CodePerplexity(quantizer.codes)

    def build(self, input_shape):
        for layer in (self.encoder, self.quantizer, self.decoder):
            if not layer.built:
                layer.build(input_shape)
            input_shape = layer.compute_output_shape(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        z = self.encoder(inputs, training=training)
        numbers = self.quantizer.encode(z)  # before the codes move
        codes = self.quantizer(z, training=training)
        decoded = self.decoder(codes, training=training)
        return {"decoded": decoded, "numbers": numbers}

    def example_losses(self, x, outputs):
        decoded = ops.cast(outputs["decoded"], "float32")
        error = ops.square(ops.cast(x, "float32") - decoded)
        error = ops.mean(ops.reshape(error, (ops.shape(error)[0], -1)), axis=-1)
        self.perplexity.update_state(outputs["numbers"])
        return {"loss": error, "error": error}

    def encode(self, x):
        """Numbers of the codes of ``x``, int32."""
        return self.quantizer.encode(self.encoder(x, training=False))

    def decode(self, numbers):
        """Data for numbers of codes."""
        return self.decoder(self.quantizer.decode(numbers), training=False)

    def reconstruct(self, x):
        """Data for the codes of ``x``."""
        return self.decode(self.encode(x))

    def get_config(self):
        parts = {name: getattr(self, name) for name in _PARTS}
        parts = {k: keras.saving.serialize_keras_object(v) for k, v in parts.items()}
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in _PARTS
        }
        return cls(**{**config, **parts})
