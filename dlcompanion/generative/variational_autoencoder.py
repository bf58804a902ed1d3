"""Variational autoencoder: a generative model and its inference, learned together."""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.training import SavesSeeds

LIKELIHOODS = ("bernoulli", "gaussian")
_FINITE = (float(np.finfo("float32").min), float(np.finfo("float32").max))


@keras.saving.register_keras_serializable(package="dlcompanion")
class VAE(SavesSeeds, keras.Model):
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
            make the loss NaN.

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
        if likelihood not in LIKELIHOODS:
            raise ValueError(
                f"likelihood must be one of {LIKELIHOODS}. "
                f"Received: likelihood={likelihood!r}"
            )
        for name, value in (("beta", beta), ("free_bits", free_bits)):
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"{name} must be finite and at least 0. Received: {name}={value}"
                )
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.beta = beta
        self.free_bits = free_bits
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
        if not self.encoder.built:
            self.encoder.build(input_shape)
        codes = self.encoder.compute_output_shape(input_shape)
        if len(codes) != 2 or codes[-1] is None or codes[-1] % 2:
            raise ValueError(
                "encoder must give (batch, 2 * latent): means, then logarithms of "
                f"variances. Received: encoder output of shape {codes}"
            )
        self.latent = codes[-1] // 2
        if not self.decoder.built:
            self.decoder.build((None, self.latent))
        taken = getattr(self.decoder, "input_shape", (None, self.latent))
        given = None
        if taken[1:] == (self.latent,):
            given = self.decoder.compute_output_shape((None, self.latent))
        if given is None or tuple(given)[1:] != tuple(input_shape)[1:]:
            raise ValueError(
                f"decoder must go from {(None, self.latent)} to the shape of the "
                f"data, {input_shape}. Received: decoder from {taken} to {given}"
            )
        if self.likelihood == "gaussian":
            self.log_scale = self.add_weight(
                (), "zeros", name="log_scale", autocast=False
            )
        self.built = True

    # -- the model ----------------------------------------------------------------

    def call(self, inputs, training=None):
        mean, log_variance = self._posterior(inputs, training)
        noise = keras.random.normal(
            ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator
        )
        z = mean + ops.exp(0.5 * log_variance) * noise
        decoded = self._decoded(z, training)
        return {"mean": mean, "log_variance": log_variance, "decoded": decoded}

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        _refuse_targets(y)
        log_likelihood = self._log_likelihood(x, y_pred["decoded"])  # (batch,)
        kl = kl_to_standard_normal(y_pred["mean"], y_pred["log_variance"])
        weight = ops.ones_like(log_likelihood)
        if sample_weight is not None:
            weight = ops.cast(ops.reshape(sample_weight, (-1,)), weight.dtype)
        kl_per_code = ops.mean(weight[:, None] * kl, axis=0)  # (latent,)
        divergence = ops.sum(ops.maximum(kl_per_code, self.free_bits))
        self.log_likelihood_tracker.update_state(log_likelihood, weight)
        self.kl_tracker.update_state(ops.sum(kl, axis=-1), weight)
        loss = self.beta * divergence - ops.mean(weight * log_likelihood)
        added = sum(self._aggregate_additional_loss(one) for one in self.losses)
        return loss / backend.replicas() + added

    def _posterior(self, x, training=None):
        """Mean and log-variance of q(z | x)."""
        codes = _widen(self.encoder(x, training=training))
        return codes[:, : self.latent], codes[:, self.latent :]

    def _decoded(self, z, training=None):
        return _widen(self.decoder(z, training=training))

    def _log_likelihood(self, x, decoded):
        """Log p(x | z) of each example, from the decoder's output."""
        x = ops.cast(x, decoded.dtype)
        if self.likelihood == "bernoulli":
            terms = x * decoded - ops.softplus(decoded)
            terms = ops.where((x >= 0) & (x <= 1), terms, math.nan)
        else:
            z = (x - decoded) * ops.exp(-self.log_scale)
            terms = -0.5 * (z * z + math.log(2 * math.pi)) - self.log_scale
        return ops.sum(ops.reshape(terms, (ops.shape(x)[0], -1)), axis=-1)

    # -- what it is for -------------------------------------------------------------

    def encode(self, x):
        """Mean and log-variance of the codes of ``x``, each ``(batch, latent)``."""
        return self._posterior(self._ready(x), training=False)

    def decode(self, z):
        """Mean of the data for codes ``z`` of shape ``(batch, latent)``."""
        decoded = self._decoded(ops.convert_to_tensor(z, "float32"), training=False)
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

    def _draws(self, x, mean, log_variance, samples):
        """Log p(x | z) and log p(z) - log q(z | x) of draws, ``(samples, batch)``."""
        check_count("samples", samples)
        batch = ops.shape(mean)[0]
        shape = (samples, batch, self.latent)
        noise = keras.random.normal(shape, dtype=mean.dtype, seed=self.seed_generator)
        z = mean + ops.exp(0.5 * log_variance) * noise
        log_ratio = 0.5 * ops.sum(noise * noise - z * z + log_variance, axis=-1)
        decoded = self._decoded(ops.reshape(z, (-1, self.latent)), training=False)
        copies = ops.tile(x, (samples,) + (1,) * (len(x.shape) - 1))
        log_likelihood = self._log_likelihood(copies, decoded)
        return ops.reshape(log_likelihood, (samples, batch)), log_ratio

    # -- data that come in as NumPy arrays ------------------------------------------

    def _ready(self, x):
        self._check(x)
        x = ops.convert_to_tensor(x, "float32")
        if not self.built:
            self.build((None, *x.shape[1:]))
        return x

    def _check(self, structure):
        for x in keras.tree.flatten(structure):
            if not isinstance(x, np.ndarray):
                continue
            if x.ndim < 2 or x.dtype.kind not in "fiu" or len(x) == 0:
                raise ValueError(
                    "A VAE needs numbers of shape (batch, ...), one example at least. "
                    f"Received: x.shape={x.shape}, dtype={x.dtype}"
                )
            low, high = x.min(), x.max()  # NaN if there is one
            least, most = (0, 1) if self.likelihood == "bernoulli" else _FINITE
            if not least <= low <= high <= most:
                raise ValueError(
                    f"x must lie between {least} and {most}, and hold no NaN. "
                    f"Received: values from {low} to {high}"
                )

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        _refuse_targets(y)
        self._check(x)
        data = validation_data
        self._check(data[0] if isinstance(data, tuple | list) else data)
        return super().fit(x, y, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        self._check(x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        self._check(x)
        return super().predict(x, *args, **kwargs)

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


def _refuse_targets(y):
    if y is not None:
        raise ValueError("A VAE has no targets: fit(x). Received: data with a y")


def _widen(x):
    """Bounds are sums of many terms: float32 at least, whatever the policy."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
