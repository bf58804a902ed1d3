"""Importance-weighted autoencoder: several guesses of the code share the work."""

import math

import keras
from keras import ops

from dlcompanion.checks import check_count
from dlcompanion.generative.variational_autoencoder import (
    VAE,
    kl_to_standard_normal,
)


@keras.saving.register_keras_serializable(package="dlcompanion")
class IWAE(VAE):
    r"""Latent variable model trained by the importance-weighted bound.

    Model and networks are those of :class:`VAE`, and so are ``sample``, ``encode``,
    ``elbo`` and the rest; the training loss is the negative of

    .. math::

        L_K = \mathbb E_{z_1 \dots z_K \sim q(z \mid x)}
        \log \frac1K \sum_{k=1}^K w_k, \qquad
        w_k = \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)},
        \qquad L_1 = \mathrm{ELBO} \le L_K \le L_{K+1} \le \log p(x) .

    The ELBO punishes a guess that puts any draw at an unlikely place. Here one good
    draw of :math:`K` is enough, the gradient weighs draws by
    :math:`w_k / \sum_j w_j`, and so the posterior may be wider and of another shape
    than :math:`q`. There is a price: the larger :math:`K`, the less the encoder is told
    (its gradient falls faster than its noise).

    The logs hold ``loss``, and, over single draws, ``log_likelihood`` and ``kl``, in
    nats an example.

    Args:
        encoder: As :class:`VAE`.
        decoder: As :class:`VAE`.
        samples: Positive integer :math:`K`. The decoder runs on :math:`K` times the
            batch.
        likelihood: As :class:`VAE`.
        seed: Integer, fixes the draws.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Float tensor of shape ``(batch, ...)``.

    Returns:
        Dict with ``"mean"`` and ``"log_variance"`` of shape ``(batch, latent)``,
        ``"decoded"``, the decoder's output for the first draw, ``"log_likelihood"``
        and ``"log_weights"``, of all draws, ``(batch, samples)``.

    Raises:
        ValueError: If ``samples`` is not a positive integer, and as :class:`VAE`.

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).uniform(size=(8, 64)).astype("float32")
        >>> model = IWAE.dense(64, latent=2, hidden=(16,), samples=5, seed=0)
        >>> model.compile("adam")
        >>> history = model.fit(x, verbose=0)
        >>> tuple(model.sample(3).shape), tuple(model(x)["log_weights"].shape)
        ((3, 64), (8, 5))

    References:
        Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016.
        https://arxiv.org/abs/1509.00519; on the price: Rainforth et al., *Tighter
        Variational Bounds are Not Necessarily Better*, 2018.
        https://arxiv.org/abs/1802.04537
    """

    def __init__(
        self,
        encoder,
        decoder,
        samples=5,
        likelihood="bernoulli",
        seed=None,
        **kwargs,
    ):
        super().__init__(encoder, decoder, likelihood, seed=seed, **kwargs)
        self.samples = check_count("samples", samples)
        # the likelihood is taken in call: data and scale stay as wide as they are
        self.autocast = False

    def call(self, inputs, training=None):
        mean, log_variance = self._posterior(inputs, training)
        k, batch = self.samples, ops.shape(mean)[0]
        noise = keras.random.normal(
            (batch, k, self.latent), dtype=mean.dtype, seed=self.seed_generator
        )
        z = mean[:, None] + ops.exp(0.5 * log_variance)[:, None] * noise
        # log p(z) - log q(z | x)
        log_ratio = 0.5 * ops.sum(
            noise * noise - z * z + log_variance[:, None], axis=-1
        )
        decoded = self._decoded(ops.reshape(z, (-1, self.latent)), training)
        copies = ops.repeat(ops.cast(inputs, decoded.dtype), k, axis=0)
        log_likelihood = ops.reshape(self._log_likelihood(copies, decoded), (batch, k))
        return {
            "mean": mean,
            "log_variance": log_variance,
            "decoded": decoded[::k],
            "log_likelihood": log_likelihood,
            "log_weights": log_likelihood + log_ratio,
        }

    def example_losses(self, x, outputs):
        bound = ops.logsumexp(outputs["log_weights"], axis=-1) - math.log(self.samples)
        return {
            "loss": -bound,
            "log_likelihood": ops.mean(outputs["log_likelihood"], axis=-1),
            "kl": kl_to_standard_normal(outputs["mean"], outputs["log_variance"]),
        }

    def batch_loss(self, x, outputs, weights):
        return ops.mean(weights * self.logged(x, outputs, weights)["loss"])

    def get_config(self):
        config = super().get_config()
        del config["beta"], config["free_bits"]
        return {**config, "samples": self.samples}
