"""Hierarchical variational autoencoder: the code has a code of its own."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.generative.variational_autoencoder import (
    VAE,
    copies,
    kl_to_standard_normal,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class HierarchicalVAE(VAE):
    r"""Variational autoencoder with two levels of codes.

    The prior of the code is itself a latent variable model,

    .. math::

        z_2 \sim \mathcal N(0, I), \qquad
        z_1 \mid z_2 \sim \mathcal N\bigl(\mu_p(z_2), \sigma_p^2(z_2)\bigr), \qquad
        x \sim p(x \mid z_1),

    and inference climbs, :math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`, both normal. Trained
    on one draw of

    .. math::

        \log p(x) \ge \mathbb E_q \Bigl[\log p(x \mid z_1)
        - \underbrace{\bigl(\log q(z_1 \mid x) - \log p(z_1 \mid z_2)\bigr)
        }_{\mathrm{KL}_1}
        - \underbrace{\mathrm{KL}\bigl(q(z_2 \mid z_1) \,\|\, \mathcal N(0, I)\bigr)
        }_{\mathrm{KL}_2}\Bigr] .

    The draw of :math:`z_2` depends on that of :math:`z_1`, so the first term has no
    closed form: only its entropy is exact, and on one draw it may be negative. What
    the upper level costs, :math:`\mathrm{KL}_2`, must be won back in
    :math:`\mathrm{KL}_1`. If it is not, :math:`z_2` falls silent and the model is the
    one-level VAE: look at ``kl_2``. Its remedy is ``free_bits``, which counts the mean
    divergence of each code of either level as at least :math:`\lambda`.

    The logs hold ``loss``, ``log_likelihood``, ``kl``, ``kl_1`` and ``kl_2``, in nats
    an example. ``encode``, ``decode`` and ``reconstruct`` are about :math:`z_1`.

    Args:
        encoder: Keras model from ``(batch, ...)`` to ``(batch, 2 * latent)``: means,
            then logarithms of variances, of :math:`q(z_1 \mid x)`.
        upper_encoder: Keras model from ``(batch, latent)`` to ``(batch, 2 * upper)``,
            the same of :math:`q(z_2 \mid z_1)`.
        prior: Keras model from ``(batch, upper)`` to ``(batch, 2 * latent)``, the same
            of :math:`p(z_1 \mid z_2)`.
        decoder: Keras model from ``(batch, latent)`` to the shape of the data.
        likelihood: As :class:`VAE`.
        beta: As :class:`VAE`, the weight of both divergences.
        free_bits: As :class:`VAE`, for the codes of both levels.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Float tensor of shape ``(batch, ...)``.

    Returns:
        Dict with ``"mean"`` and ``"log_variance"`` of :math:`q(z_1 \mid x)`,
        ``"decoded"`` for one draw, and the terms of that draw, ``"kl_1"`` of shape
        ``(batch, latent)`` and ``"kl_2"`` of shape ``(batch, upper)``.

    Raises:
        ValueError: If ``upper_encoder`` or ``prior`` has another output than above, and
            as :class:`VAE`.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).uniform(size=(8, 64)).astype("float32")
        >>> model = HierarchicalVAE.dense(64, latent=4, upper=2, hidden=(16,), seed=0)
        >>> model.compile("adam")
        >>> history = model.fit(x, verbose=0)
        >>> sorted(history.history)
        ['kl', 'kl_1', 'kl_2', 'log_likelihood', 'loss']
        >>> tuple(model.sample(3).shape), tuple(model.elbo(x).shape)
        ((3, 64), (8,))

    References:
        Rezende, Mohamed and Wierstra, *Stochastic Backpropagation and Approximate
        Inference in Deep Generative Models*, 2014, https://arxiv.org/abs/1401.4082;
        Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016,
        https://arxiv.org/abs/1509.00519; on the silence of the upper level: Sønderby et
        al., *Ladder Variational Autoencoders*, 2016, https://arxiv.org/abs/1602.02282.
    """

    def __init__(
        self,
        encoder,
        upper_encoder,
        prior,
        decoder,
        likelihood="bernoulli",
        beta=1.0,
        free_bits=0.0,
        seed=None,
        **kwargs,
    ):
        super().__init__(encoder, decoder, likelihood, beta, free_bits, seed, **kwargs)
        self.upper_encoder = upper_encoder
        self.prior = prior
        self.kl_1_tracker = keras.metrics.Mean("kl_1")
        self.kl_2_tracker = keras.metrics.Mean("kl_2")

    @classmethod
    def dense(
        cls,
        shape,
        latent,
        upper,
        hidden=(128,),
        upper_hidden=(32,),
        activation="relu",
        **kwargs,
    ):
        """A two-level VAE whose four networks are dense, mirrored.

        Args:
            shape: Integer or tuple, the shape of one example.
            latent: Positive integer, the number of codes of the lower level.
            upper: Positive integer, the number of codes of the upper level.
            hidden: Tuple of integers, the hidden layers from data to code.
            upper_hidden: Tuple of integers, those from the lower to the upper code.
            activation: Activation of the hidden layers.
            **kwargs: Passed on to the class.

        Returns:
            A :class:`HierarchicalVAE`.
        """
        check_count("upper", upper)
        ends = VAE.dense(shape, latent, hidden, activation)

        def network(taken, sizes, given, name):
            layers = [keras.layers.Dense(units, activation) for units in sizes]
            layers = [keras.Input((taken,)), *layers, keras.layers.Dense(given)]
            return keras.Sequential(layers, name=name)

        down = tuple(reversed(upper_hidden))
        return cls(
            ends.encoder,
            network(latent, upper_hidden, 2 * upper, "upper_encoder"),
            network(upper, down, 2 * latent, "prior"),
            ends.decoder,
            **kwargs,
        )

    def build(self, input_shape):
        super().build(input_shape)
        z1 = (None, self.latent)
        if not self.upper_encoder.built:
            self.upper_encoder.build(z1)
        codes = _output_shape(self.upper_encoder, z1)
        if len(codes) != 2 or codes[-1] is None or codes[-1] % 2:
            raise ValueError(
                f"upper_encoder must go from {z1} to (batch, 2 * upper): means, then "
                f"logarithms of variances. Received: upper_encoder output {codes}"
            )
        self.upper = codes[-1] // 2
        z2 = (None, self.upper)
        if not self.prior.built:
            self.prior.build(z2)
        given = _output_shape(self.prior, z2)
        if given[1:] != (2 * self.latent,):
            raise ValueError(
                f"prior must go from {z2} to {(None, 2 * self.latent)}: means, then "
                f"logarithms of variances, of z1. Received: prior output {given}"
            )

    def call(self, inputs, training=None):
        mean, log_variance = self._posterior(inputs, training)
        draw = self._climb(mean, log_variance, training)
        return {
            "mean": mean,
            "log_variance": log_variance,
            "decoded": self._decoded(draw["z1"], training),
            "kl_1": draw["kl_1"],
            "kl_2": draw["kl_2"],
        }

    def example_losses(self, x, outputs):
        kl_1, kl_2 = outputs["kl_1"], outputs["kl_2"]  # (batch, codes)
        return {
            "log_likelihood": self._log_likelihood(x, outputs["decoded"]),
            "kl_1": kl_1,
            "kl_2": kl_2,
            "kl": ops.sum(kl_1, axis=-1) + ops.sum(kl_2, axis=-1),
        }

    def batch_loss(self, x, outputs, weights):
        terms = self.logged(x, outputs, weights)
        loss = -ops.mean(weights * terms["log_likelihood"])
        for level in ("kl_1", "kl_2"):
            kl_per_code = ops.mean(weights[:, None] * terms[level], axis=0)
            if self.free_bits:  # without: a mean over one draw may be negative
                kl_per_code = ops.maximum(kl_per_code, self.free_bits)
            loss = loss + self.beta * ops.sum(kl_per_code)
        return loss

    def _climb(self, mean, log_variance, training=None):
        """One draw of both codes from q, with the terms of the bound."""
        noise_1 = self._noise(ops.shape(mean), mean.dtype)
        z1 = mean + ops.exp(0.5 * log_variance) * noise_1
        mean_2, log_variance_2 = self._halves(self.upper_encoder(z1, training=training))
        noise_2 = self._noise(ops.shape(mean_2), mean_2.dtype)
        z2 = mean_2 + ops.exp(0.5 * log_variance_2) * noise_2
        prior_mean, prior_log_variance = self._halves(self.prior(z2, training=training))
        distance = ops.square(z1 - prior_mean) * ops.exp(-prior_log_variance)
        # minus log p(z1 | z2), without the constant that log q has as well
        surprise = 0.5 * (distance + prior_log_variance)
        log_ratio = ops.sum(
            0.5 * (noise_1 * noise_1 + log_variance) - surprise, axis=-1
        ) + 0.5 * ops.sum(noise_2 * noise_2 + log_variance_2 - z2 * z2, axis=-1)
        return {
            "z1": z1,
            "z2": z2,
            "kl_1": surprise - 0.5 * (log_variance + 1.0),
            "kl_2": kl_to_standard_normal(mean_2, log_variance_2),
            "log_ratio": log_ratio,
        }

    def _noise(self, shape, dtype):
        return keras.random.normal(shape, dtype=dtype, seed=self.seed_generator)

    def _halves(self, codes):
        return ops.split(backend.widen(codes), 2, axis=-1)

    # -- what it is for -------------------------------------------------------------

    def sample(self, n):
        """Means of the data for ``n`` codes drawn down the levels.

        Args:
            n: Positive integer.

        Returns:
            Tensor of shape ``(n, ...)``.
        """
        check_count("n", n)
        if not self.built:
            raise ValueError(
                "A HierarchicalVAE knows its sizes after fit, a call or "
                "build(input_shape). Received: a model that is not built"
            )
        return self.sample_given(self._noise((n, self.upper), keras.config.floatx()))

    def sample_given(self, z2):
        """Means of the data for draws of the lower code, the upper one being given.

        Args:
            z2: Array of shape ``(n, upper)``; repeat a row to see what it leaves open.

        Returns:
            Tensor of shape ``(n, ...)``.
        """
        z2 = ops.convert_to_tensor(z2, keras.config.floatx())
        mean, log_variance = self._halves(self.prior(z2, training=False))
        noise = self._noise(ops.shape(mean), mean.dtype)
        return self.decode(mean + ops.exp(0.5 * log_variance) * noise)

    def divergences(self, x, samples=1):
        """What each code of each level costs, in nats, for each example.

        Args:
            x: Array of shape ``(batch, ...)``.
            samples: Positive integer, the draws to average over.

        Returns:
            Pair of tensors: :math:`KL_1`, ``(batch, latent)``, and :math:`KL_2`,
            ``(batch, upper)``.
        """
        mean, log_variance = self._posterior(self._ready(x), training=False)
        draw = self._copies(mean, log_variance, samples)
        return tuple(
            ops.mean(
                ops.reshape(draw[level], (samples, -1, draw[level].shape[-1])), axis=0
            )
            for level in ("kl_1", "kl_2")
        )

    def elbo(self, x, samples=1):
        """Evidence lower bound of each example, with ``beta = 1`` and no free bits.

        Args:
            x: Array of shape ``(batch, ...)``.
            samples: Positive integer, draws of the codes.

        Returns:
            Tensor of shape ``(batch,)``, in nats.
        """
        x = self._ready(x)
        mean, log_variance = self._posterior(x, training=False)
        draw = self._copies(mean, log_variance, samples)
        kl = ops.sum(draw["kl_1"], axis=-1) + ops.sum(draw["kl_2"], axis=-1)
        bound = self._likelihoods(x, draw["z1"], samples) - ops.reshape(
            kl, (samples, -1)
        )
        return ops.mean(bound, axis=0)

    def _copies(self, mean, log_variance, samples):
        check_count("samples", samples)
        return self._climb(copies(mean, samples), copies(log_variance, samples))

    def _likelihoods(self, x, z1, samples):
        decoded = self._decoded(z1, training=False)
        log_likelihood = self._log_likelihood(copies(x, samples), decoded)
        return ops.reshape(log_likelihood, (samples, -1))

    def _draws(self, x, mean, log_variance, samples):
        draw = self._copies(mean, log_variance, samples)
        log_ratio = ops.reshape(draw["log_ratio"], (samples, -1))
        return self._likelihoods(x, draw["z1"], samples), log_ratio

    def get_config(self):
        return {
            **super().get_config(),
            "upper_encoder": keras.saving.serialize_keras_object(self.upper_encoder),
            "prior": keras.saving.serialize_keras_object(self.prior),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: keras.saving.deserialize_keras_object(config[name], custom_objects)
            for name in ("upper_encoder", "prior")
        }
        return super().from_config({**config, **parts}, custom_objects)


def _output_shape(network, taken):
    """Shape of the output, empty if the network takes something else."""
    if getattr(network, "input_shape", taken)[1:] != taken[1:]:
        return ()
    return tuple(network.compute_output_shape(taken))
