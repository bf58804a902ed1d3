"""Conditional variational autoencoder: the code says what the context does not."""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_finite
from dlcompanion.generative.variational_autoencoder import VAE


@keras.saving.register_keras_serializable(package="dlcompanion")
class ConditionalVAE(VAE):
    r"""Variational autoencoder of :math:`x` given a context :math:`c`.

    .. math::

        \log p(x \mid c) \ge \mathbb E_{q(z \mid x, c)} \log p(x \mid z, c)
        - \mathrm{KL}\bigl(q(z \mid x, c) \,\|\, \mathcal N(0, I)\bigr) .

    Both networks see the context, and the prior of the code does not depend on it. So
    the code has no reason to repeat what the context says already: of a digit whose
    class is given it keeps the hand. Data are lists, ``fit([x, context])``, wherever a
    :class:`VAE` has ``x``: in ``encode``, ``elbo``, ``iwae`` and ``reconstruct`` too.

    Args:
        encoder: Keras model of two inputs, ``(batch, ...)`` and the context, that gives
            ``(batch, 2 * latent)``: means, then logarithms of variances.
        decoder: Keras model of two inputs, ``(batch, latent)`` and the context, to the
            shape of the data.
        likelihood: As :class:`VAE`.
        beta: As :class:`VAE`.
        free_bits: As :class:`VAE`.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: List of ``x``, ``(batch, ...)``, and ``context``, ``(batch, ...)``.

    Returns:
        As :class:`VAE`.

    Raises:
        ValueError: If the inputs are not two, a NumPy context holds something that is
            not finite, and as :class:`VAE`.

    Example:
        >>> x = np.random.default_rng(0).uniform(size=(8, 64)).astype("float32")
        >>> classes = np.eye(10, dtype="float32")[:8]
        >>> model = ConditionalVAE.dense(64, context=10, latent=2, hidden=(16,), seed=0)
        >>> model.compile("adam")
        >>> history = model.fit([x, classes], verbose=0)
        >>> tuple(model.sample(classes).shape), tuple(model.elbo([x, classes]).shape)
        ((8, 64), (8,))

    References:
        Sohn, Lee and Yan, *Learning Structured Output Representation using Deep
        Conditional Generative Models*, 2015.
    """

    @classmethod
    def dense(cls, shape, context, latent, hidden=(128,), activation="relu", **kwargs):
        """A conditional VAE whose networks are dense and see the context as numbers.

        Args:
            shape: Integer or tuple, the shape of one example.
            context: Positive integer, how many numbers the context has.
            latent: Positive integer, the number of codes.
            hidden: Tuple of integers, the hidden layers from data to code.
            activation: Activation of the hidden layers.
            **kwargs: Passed on to the class.

        Returns:
            A :class:`ConditionalVAE`.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        check_count("latent", latent)
        check_count("context", context)
        layers = keras.layers
        x, z, c = (keras.Input(s) for s in (shape, (latent,), (context,)))

        def network(first, sizes, last):
            y = layers.Concatenate()([first, c])
            for units in sizes:
                y = layers.Dense(units, activation)(y)
            return layers.Dense(last)(y)

        codes = network(layers.Flatten()(x), hidden, 2 * latent)
        data = network(z, tuple(reversed(hidden)), math.prod(shape))
        encoder = keras.Model([x, c], codes, name="encoder")
        decoder = keras.Model([z, c], layers.Reshape(shape)(data), name="decoder")
        return cls(encoder, decoder, **kwargs)

    def data_and_context(self, inputs):
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(
                "A ConditionalVAE takes a list of two, [x, context]. "
                f"Received: {type(inputs).__name__}"
            )
        return inputs

    def decoder_inputs(self, z, context):
        return [z, context]

    def decode(self, z, context):
        """Mean of the data for codes ``z`` in a context."""
        z, context = (
            ops.convert_to_tensor(t, keras.config.floatx()) for t in (z, context)
        )
        decoded = self._decoded(self.decoder_inputs(z, context), training=False)
        return ops.sigmoid(decoded) if self.likelihood == "bernoulli" else decoded

    def sample(self, context):
        """Means of the data, one for each context, for codes drawn from the prior.

        Args:
            context: Array of shape ``(n, ...)``.

        Returns:
            Tensor of shape ``(n, ...)``.
        """
        if not self.built:
            raise ValueError(
                "A ConditionalVAE knows its sizes after fit, a call or build(shapes). "
                "Received: a model that is not built"
            )
        shape = (len(context), self.latent)
        return self.decode(
            keras.random.normal(shape, seed=self.seed_generator), context
        )

    def reconstruct(self, x):
        """Mean of the data for the mean code of each example, in its context."""
        return self.decode(self.encode(x)[0], self.data_and_context(x)[1])

    def check_data(self, x):
        data, context = self.data_and_context(x)
        super().check_data(data)
        if isinstance(context, np.ndarray):
            check_finite("context", context)
