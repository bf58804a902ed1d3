"""TanhGaussian: a normal distribution, squashed into the space of actions."""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count
from dlcompanion.reinforcement.networks.action_distributions import HALF_LOG_TWO_PI

LOWEST, HIGHEST = -20.0, 2.0  # of the logarithm of the standard deviation


@keras.saving.register_keras_serializable(package="dlcompanion")
class TanhGaussian:
    r"""Real actions between -1 and 1: the hyperbolic tangent of normal ones.

    .. math:: a = \tanh u, \qquad u \sim \mathcal N(\mu, \sigma^2), \qquad
        \log \pi(a \mid s) = \sum_i \log \mathcal N(u_i; \mu_i, \sigma_i^2)
        - \log(1 - \tanh^2 u_i)

    The outputs of the policy are ``[mean, log_std]`` side by side, ``log_std`` is
    clipped to [-20, 2]. The last logarithm is computed as

    .. math:: \log(1 - \tanh^2 u) = 2 \, (\log 2 - u - \operatorname{softplus}(-2u)),

    which holds where :math:`\tanh u` is rounded to 1. Only :math:`u` can be taken for
    an action at the very end of the space, so whoever draws actions to learn from
    uses :meth:`draw`, that has both. The entropy has no closed form.

    Args:
        size: Positive integer, the number of actions played at a time.

    Raises:
        ValueError: If ``size`` is not a positive integer.

    Example:
        >>> squashed = TanhGaussian(1)
        >>> squashed.best(np.array([[0.0, -1.0]])).tolist()
        [[0.0]]
        >>> actions, log_probs = squashed.draw([[0.0, 0.0]], noise=[[50.0]])
        >>> float(actions[0, 0]), f"{float(log_probs[0]):.1f}"
        (1.0, '-1152.3')

    References:
        Haarnoja, Zhou, Abbeel and Levine, *Soft Actor-Critic*, 2018, appendix C.
        https://arxiv.org/abs/1801.01290
    """

    def __init__(self, size):
        self.size = check_count("size", size)
        self.outputs = 2 * self.size

    def sample(self, outputs, random):
        """Actions ``(batch, size)``, NumPy."""
        mean, log_std = outputs[:, : self.size], outputs[:, self.size :]
        noise = random.standard_normal(mean.shape).astype("float32")
        return np.tanh(mean + np.exp(np.clip(log_std, LOWEST, HIGHEST)) * noise)

    def best(self, outputs):
        """The median actions ``(batch, size)``, NumPy: the squashed means."""
        return np.tanh(outputs[:, : self.size])

    def draw(self, outputs, noise):
        """Actions as a function of the outputs, with their log-densities.

        Args:
            outputs: Tensor ``(batch, 2 * size)``.
            noise: Tensor ``(batch, size)``, standard normal.

        Returns:
            Actions ``(batch, size)`` and log-densities ``(batch,)``; gradients flow
            from both to the outputs.
        """
        mean, log_std = self._split(outputs)
        noise = ops.cast(noise, mean.dtype)
        u = mean + ops.exp(log_std) * noise
        normal = -0.5 * noise * noise - log_std - HALF_LOG_TWO_PI
        return ops.tanh(u), ops.sum(normal - log_slope(u), axis=-1)

    def log_prob(self, outputs, actions):
        """Log-densities ``(batch,)`` of actions ``(batch, size)`` between -1 and 1.

        Of -1 and 1 themselves they are not finite.
        """
        mean, log_std = self._split(outputs)
        u = ops.arctanh(ops.cast(actions, mean.dtype))
        z = (u - mean) * ops.exp(-log_std)
        normal = -0.5 * z * z - log_std - HALF_LOG_TWO_PI
        return ops.sum(normal - log_slope(u), axis=-1)

    def _split(self, outputs):
        outputs = ops.convert_to_tensor(outputs)
        mean, log_std = outputs[:, : self.size], outputs[:, self.size :]
        return mean, ops.clip(log_std, LOWEST, HIGHEST)

    def get_config(self):
        return {"size": self.size}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def log_slope(u):
    """Logarithm of the derivative of the hyperbolic tangent.

    Args:
        u: Tensor.

    Returns:
        Tensor of that shape.

    Example:
        >>> print(f"{float(log_slope(ops.convert_to_tensor(0.0))):.1f}")
        0.0
    """
    return 2.0 * (math.log(2.0) - u - ops.softplus(-2.0 * u))
