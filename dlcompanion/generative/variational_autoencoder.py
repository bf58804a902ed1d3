"""Variational autoencoder: a generative model and its inference, learned together."""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_choice, check_count, check_number
from dlcompanion.training import SavesSeeds, UnsupervisedModel

LIKELIHOODS = ("bernoulli", "gaussian")
_FINITE = (float(np.finfo("float32").min), float(np.finfo("float32").max))


@keras.saving.register_keras_serializable(package="dlcompanion")
class VAE(SavesSeeds, UnsupervisedModel):
    r"""Latent variable model trained by the evidence lower bound.

    A code :math:`z \sim \mathcal N(0, I)` is drawn, and a decoder turns it into the
    parameters of :math:`p(x \mid z)`. The encoder proposes codes for a given
    :math:`x`, :math:`q(z \mid x) = \mathcal N(\mu(x), \operatorname{diag}
    \sigma^2(x))`, and both are trained on

    .. math::

        \log p(x) \ge \underbrace{\mathbb E_{q(z \mid x)} \log p(x \mid z)}_{
        \text{one draw, } z = \mu + \sigma \varepsilon}
        - \sum_j \underbrace{\tfrac12 (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1)}_{
        \mathrm{KL}_j, \text{ in closed form}} .

    The training loss is the negative bound with a weight :math:`\beta` before the
    divergence and, with free bits, the mean divergence of each code over the batch
    counted as at least :math:`\lambda`, so that nothing is gained by silencing it:
    :math:`\beta \sum_j \max(\lambda, \overline{\mathrm{KL}}_j)`. Train with ``fit(x)``;
    the logs hold ``loss``, ``log_likelihood`` and ``kl``, in nats an example.

    Args:
        encoder: Keras model from ``(batch, ...)`` to ``(batch, 2 * latent)``: the
            means, then the logarithms of the variances.
        decoder: Keras model from ``(batch, latent)`` to the shape of the data: the
            logits of a Bernoulli, the means of a Gaussian.
        likelihood: ``"bernoulli"``, for data in :math:`[0, 1]`, where a gray value
            counts as the probability of white; or ``"gaussian"``, whose one standard
            deviation is learned.
        beta: Number of at least 0, the weight of the divergence in the loss.
        free_bits: Number of at least 0, :math:`\lambda`, in nats a code.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Float tensor of shape ``(batch, ...)``.

    Returns:
        Dict with ``"mean"`` and ``"log_variance"`` of shape ``(batch, latent)`` and
        ``"decoded"``, the output of the decoder for one draw of the code, also in
        inference. All are float32 or wider.

    Raises:
        ValueError: If ``likelihood`` is unknown, ``beta`` or ``free_bits`` is negative
            or not finite, the encoder's output is not of shape ``(batch, 2 * latent)``,
            the decoder's not that of the data, or NumPy data hold a NaN or, for a
            Bernoulli, something outside :math:`[0, 1]`. In a compiled step such data
            make the loss NaN. In ``fit`` and ``evaluate``, if the encoder masks steps:
            a code of one vector has no mask, and padding would count as data.

    Example:
        >>> x = np.random.default_rng(0).uniform(size=(8, 64)).astype("float32")
        >>> vae = VAE.dense(64, latent=2, hidden=(16,), seed=0)
        >>> vae.compile("adam")
        >>> history = vae.fit(x, epochs=1, verbose=0)
        >>> sorted(history.history)
        ['kl', 'log_likelihood', 'loss']
        >>> tuple(vae.sample(3).shape), tuple(vae.elbo(x).shape)
        ((3, 64), (8,))

    References:
        Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014, eq. 10.
        https://arxiv.org/abs/1312.6114; Higgins et al., *beta-VAE*, 2017; Kingma et
        al., *Improved Variational Inference with Inverse Autoregressive Flow*, 2016,
        free bits, https://arxiv.org/abs/1606.04934; Burda, Grosse and Salakhutdinov,
        *Importance Weighted Autoencoders*, 2016, https://arxiv.org/abs/1509.00519.
    """

    no_targets = "A VAE has no targets: fit(x)."

    def __init__(
        self,
        encoder,
        decoder,
        likelihood="bernoulli",
        beta=1.0,
        free_bits=0.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = check_choice("likelihood", likelihood, LIKELIHOODS)
        self.beta = check_number("beta", beta)
        self.free_bits = check_number("free_bits", free_bits)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.log_likelihood_tracker = keras.metrics.Mean("log_likelihood")
        self.kl_tracker = keras.metrics.Mean("kl")

    @classmethod
    def dense(cls, shape, latent, hidden=(128,), activation="relu", **kwargs):
        """A VAE whose encoder and decoder are dense networks, mirrored.

        Args:
            shape: Integer or tuple, the shape of one example.
            latent: Positive integer, the number of codes.
            hidden: Tuple of integers, the hidden layers from data to code.
            activation: Activation of the hidden layers.
            **kwargs: Passed on to the class.

        Returns:
            A :class:`VAE`.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        check_count("latent", latent)
        layers = keras.layers
        encoder = keras.Sequential(
            [
                keras.Input(shape),
                layers.Flatten(),
                *[layers.Dense(units, activation) for units in hidden],
                layers.Dense(2 * latent),
            ],
            name="encoder",
        )
        decoder = keras.Sequential(
            [
                keras.Input((latent,)),
                *[layers.Dense(units, activation) for units in reversed(hidden)],
                layers.Dense(math.prod(shape)),
                layers.Reshape(shape),
            ],
            name="decoder",
        )
        return cls(encoder, decoder, **kwargs)

    def build(self, input_shape):
        x, context = self.data_and_context(input_shape)
        if not self.encoder.built:
            self.encoder.build(input_shape)
        codes = self.encoder.compute_output_shape(input_shape)
        if len(codes) != 2 or codes[-1] is None or codes[-1] % 2:
            raise ValueError(
                "encoder must give (batch, 2 * latent): means, then logarithms of "
                f"variances. Received: encoder output of shape {codes}"
            )
        self.latent = codes[-1] // 2
        wanted = self.decoder_inputs((None, self.latent), context)
        if not self.decoder.built:
            self.decoder.build(wanted)
        taken = getattr(self.decoder, "input_shape", wanted)
        given = None
        if _last_axes(taken) == _last_axes(wanted):
            given = self.decoder.compute_output_shape(wanted)
        if given is None or tuple(given)[1:] != tuple(x)[1:]:
            raise ValueError(
                f"decoder must go from {wanted} to the shape of the data, {x}. "
                f"Received: decoder from {taken} to {given}"
            )
        if self.likelihood == "gaussian":
            self.log_scale = self.add_weight(
                (), "zeros", name="log_scale", autocast=False
            )
        self.built = True

    # -- the model ----------------------------------------------------------------

    def call(self, inputs, training=None):
        _, context = self.data_and_context(inputs)
        mean, log_variance = self._posterior(inputs, training)
        noise = keras.random.normal(
            ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator
        )
        z = mean + ops.exp(0.5 * log_variance) * noise
        decoded = self._decoded(self.decoder_inputs(z, context), training)
        return {"mean": mean, "log_variance": log_variance, "decoded": decoded}

    def without_targets(self, x, y=None, sample_weight=None):
        masking = [
            layer.name
            for layer in backend.flatten_layers(self.encoder)
            if isinstance(layer, keras.layers.Masking)
            or getattr(layer, "mask_zero", False)
        ]
        if masking:
            raise ValueError(
                "The likelihood counts every step of the data, also where the encoder "
                "masks it: write an UnsupervisedModel whose example_losses leaves "
                f"padding out. Received: an encoder with the layers {masking}"
            )
        return super().without_targets(x, y, sample_weight)

    def example_losses(self, x, outputs):
        x, _ = self.data_and_context(x)
        return {
            "log_likelihood": self._log_likelihood(x, outputs["decoded"]),
            "kl": kl_to_standard_normal(outputs["mean"], outputs["log_variance"]),
        }

    def batch_loss(self, x, outputs, weights):
        terms = self.logged(x, outputs, weights)
        kl_per_code = ops.mean(weights[:, None] * terms["kl"], axis=0)  # (latent,)
        divergence = ops.sum(ops.maximum(kl_per_code, self.free_bits))
        return self.beta * divergence - ops.mean(weights * terms["log_likelihood"])

    # Two hooks, for a model of data in a context.

    def data_and_context(self, inputs):
        """The data to explain, and what is given with them; of shapes as well."""
        return inputs, None

    def decoder_inputs(self, z, context):
        """What the decoder takes; of shapes as well."""
        return z

    def _posterior(self, x, training=None):
        """Mean and log-variance of q(z | x)."""
        codes = backend.widen(self.encoder(x, training=training))
        return codes[:, : self.latent], codes[:, self.latent :]

    def _decoded(self, z, training=None):
        z = keras.tree.map_structure(ops.convert_to_tensor, z)  # or Keras may refuse
        return backend.widen(self.decoder(z, training=training))

    def _log_likelihood(self, x, decoded):
        """Log p(x | z) of each example, from the decoder's output."""
        x = ops.cast(x, decoded.dtype)
        if self.likelihood == "bernoulli":
            terms = x * decoded - ops.softplus(decoded)
            terms = ops.where((x >= 0) & (x <= 1), terms, math.nan)
        else:
            log_scale = ops.cast(self.log_scale, decoded.dtype)
            z = (x - decoded) * ops.exp(-log_scale)
            terms = -0.5 * (z * z + math.log(2 * math.pi)) - log_scale
        return ops.sum(ops.reshape(terms, (ops.shape(x)[0], -1)), axis=-1)

    # -- what it is for -------------------------------------------------------------

    def encode(self, x):
        """Mean and log-variance of the codes of ``x``, each ``(batch, latent)``."""
        return self._posterior(self._ready(x), training=False)

    def decode(self, z):
        """Mean of the data for codes ``z`` of shape ``(batch, latent)``."""
        decoded = self._decoded(
            ops.convert_to_tensor(z, keras.config.floatx()), training=False
        )
        return ops.sigmoid(decoded) if self.likelihood == "bernoulli" else decoded

    def sample(self, n):
        """Means of the data for ``n`` codes drawn from the prior.

        Args:
            n: Positive integer.

        Returns:
            Tensor of shape ``(n, ...)``.
        """
        check_count("n", n)
        if not self.built:
            raise ValueError(
                "A VAE knows its sizes after fit, a call or build(input_shape). "
                "Received: a model that is not built"
            )
        return self.decode(
            keras.random.normal((n, self.latent), seed=self.seed_generator)
        )

    def reconstruct(self, x):
        """Mean of the data for the mean code of each example: no noise anywhere."""
        return self.decode(self.encode(x)[0])

    def elbo(self, x, samples=1):
        """Evidence lower bound of each example, with ``beta = 1`` and no free bits.

        Args:
            x: Array of shape ``(batch, ...)``.
            samples: Positive integer, draws of the code for the likelihood term.

        Returns:
            Tensor of shape ``(batch,)``, in nats.
        """
        x = self._ready(x)
        mean, log_variance = self._posterior(x, training=False)
        log_likelihood, _ = self._draws(x, mean, log_variance, samples)
        kl = ops.sum(kl_to_standard_normal(mean, log_variance), axis=-1)
        return ops.mean(log_likelihood, axis=0) - kl

    def iwae(self, x, samples=64):
        r"""Importance weighted bound of each example.

        .. math:: \log \frac1K \sum_{k=1}^K
            \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q(z \mid x),

        is the ELBO for one draw and tightens to :math:`\log p(x)` with many. Tensors
        of ``samples * batch`` examples are made.

        Args:
            x: Array of shape ``(batch, ...)``.
            samples: Positive integer, :math:`K`.

        Returns:
            Tensor of shape ``(batch,)``, in nats.
        """
        x = self._ready(x)
        mean, log_variance = self._posterior(x, training=False)
        log_likelihood, log_ratio = self._draws(x, mean, log_variance, samples)
        log_weights = log_likelihood + log_ratio  # (samples, batch)
        return ops.logsumexp(log_weights, axis=0) - math.log(samples)

    def _draws(self, inputs, mean, log_variance, samples):
        """Log p(x | z) and log p(z) - log q(z | x) of draws, ``(samples, batch)``."""
        check_count("samples", samples)
        batch = ops.shape(mean)[0]
        shape = (samples, batch, self.latent)
        noise = keras.random.normal(shape, dtype=mean.dtype, seed=self.seed_generator)
        z = mean + ops.exp(0.5 * log_variance) * noise
        log_ratio = 0.5 * ops.sum(noise * noise - z * z + log_variance, axis=-1)
        z = ops.reshape(z, (-1, self.latent))
        x, context = self.data_and_context(copies(inputs, samples))
        decoded = self._decoded(self.decoder_inputs(z, context), training=False)
        log_likelihood = self._log_likelihood(x, decoded)
        return ops.reshape(log_likelihood, (samples, batch)), log_ratio

    # -- data that come in as NumPy arrays ------------------------------------------

    def _ready(self, inputs):
        self.check_data(inputs)
        inputs = keras.tree.map_structure(
            lambda x: ops.convert_to_tensor(x, keras.config.floatx()), inputs
        )
        if not self.built:
            self.build(keras.tree.map_structure(lambda x: (None, *x.shape[1:]), inputs))
        return inputs

    def check_data(self, x):
        for part in keras.tree.flatten(x):
            if not isinstance(part, np.ndarray):
                continue
            if part.ndim < 2 or part.dtype.kind not in "fiu" or len(part) == 0:
                raise ValueError(
                    "A VAE needs numbers of shape (batch, ...), one example at least. "
                    f"Received: x.shape={part.shape}, dtype={part.dtype}"
                )
            low, high = part.min(), part.max()  # NaN if there is one
            least, most = (0, 1) if self.likelihood == "bernoulli" else _FINITE
            if not least <= low <= high <= most:
                raise ValueError(
                    f"x must lie between {least} and {most}, and hold no NaN. "
                    f"Received: values from {low} to {high}"
                )

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "decoder": keras.saving.serialize_keras_object(self.decoder),
            "likelihood": self.likelihood,
            "beta": self.beta,
            "free_bits": self.free_bits,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("encoder", "decoder")
        }
        return cls(**{**config, **parts})


def kl_to_standard_normal(mean, log_variance):
    r"""Divergence of :math:`\mathcal N(\mu, \sigma^2)` from :math:`\mathcal N(0, 1)`.

    Args:
        mean: Tensor.
        log_variance: Tensor of the same shape.

    Returns:
        Tensor of that shape: :math:`\tfrac12(\mu^2 + \sigma^2 - \log\sigma^2 - 1)`.

    Example:
        >>> float(kl_to_standard_normal(ops.ones(()), ops.zeros(())))
        0.5
    """
    return 0.5 * (ops.square(mean) + ops.exp(log_variance) - log_variance - 1.0)


def copies(inputs, samples):
    """Each example so many times, batch after batch."""

    def tiled(x):
        return ops.tile(x, (samples,) + (1,) * (len(x.shape) - 1))

    return keras.tree.map_structure(tiled, inputs)


def _last_axes(shapes):
    """A shape, or a list of them, without the axis of examples."""
    several = isinstance(shapes, list)
    axes = [tuple(shape)[1:] for shape in (shapes if several else [shapes])]
    return axes if several else axes[0]
