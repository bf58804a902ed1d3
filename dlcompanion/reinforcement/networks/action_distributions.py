"""What a policy's outputs mean: the distribution of actions for each kind of space.

An agent draws actions in NumPy, step by step, and learns from their log-probabilities
in ``keras.ops``, all at once. Each class here says both for one kind of space.
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count

HALF_LOG_TWO_PI = 0.5 * np.log(2 * np.pi)


@keras.saving.register_keras_serializable(package="dlcompanion")
class Categorical:
    r"""One of ``n`` actions, from logits.

    .. math:: \pi(a \mid s) = \operatorname{softmax}(z(s))_a

    Args:
        n: Positive integer, the number of actions.

    Raises:
        ValueError: If ``n`` is not a positive integer.

    Example:
        >>> coin = Categorical(2)
        >>> ops.convert_to_numpy(coin.log_prob([[0.0, 0.0]], [1])).round(3).tolist()
        [-0.6930000185966492]
        >>> coin.best(np.array([[0.0, 1.0]])).tolist()
        [1]
    """

    def __init__(self, n):
        self.n = check_count("n", n)
        self.outputs = self.n  # what the policy has to give

    def sample(self, outputs, random):
        """Actions drawn with these probabilities, NumPy (Gumbel's trick)."""
        return (outputs + random.gumbel(size=outputs.shape)).argmax(axis=-1)

    def best(self, outputs):
        """The most probable actions, NumPy."""
        return outputs.argmax(axis=-1)

    def log_prob(self, outputs, actions):
        """Log-probabilities ``(batch,)`` of integer actions ``(batch,)``."""
        logs = ops.log_softmax(ops.convert_to_tensor(outputs))
        taken = ops.one_hot(ops.cast(actions, "int32"), self.n, dtype=logs.dtype)
        return ops.sum(logs * taken, axis=-1)

    def entropy(self, outputs):
        """Entropy ``(batch,)`` in nats."""
        logs = ops.log_softmax(ops.convert_to_tensor(outputs))
        return -ops.sum(ops.exp(logs) * logs, axis=-1)

    def get_config(self):
        return {"n": self.n}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="dlcompanion")
class MultiCategorical:
    """Several choices at a time, independent given the observation.

    Args:
        sizes: List of positive integers, the actions of each choice. The policy gives
            their logits side by side.

    Raises:
        ValueError: If a size is not a positive integer.

    Example:
        >>> two = MultiCategorical([2, 4])
        >>> entropy = float(two.entropy(np.zeros((1, 6)))[0])  # log 8
        >>> print(two.outputs, f"{entropy:.4f}")
        6 2.0794
    """

    def __init__(self, sizes):
        self.parts = [Categorical(int(n)) for n in sizes]
        self.sizes = [part.n for part in self.parts]
        self.outputs = sum(self.sizes)

    def _split(self, outputs):
        ends = np.cumsum(self.sizes)
        return [
            outputs[..., end - n : end]
            for end, n in zip(ends.tolist(), self.sizes, strict=True)
        ]

    def sample(self, outputs, random):
        """Actions ``(batch, choices)``, NumPy."""
        split = zip(self.parts, self._split(outputs), strict=True)
        return np.stack([part.sample(x, random) for part, x in split], axis=-1)

    def best(self, outputs):
        """The most probable actions ``(batch, choices)``, NumPy."""
        split = zip(self.parts, self._split(outputs), strict=True)
        return np.stack([part.best(x) for part, x in split], axis=-1)

    def log_prob(self, outputs, actions):
        """Log-probabilities ``(batch,)`` of integer actions ``(batch, choices)``."""
        split = zip(
            self.parts, self._split(ops.convert_to_tensor(outputs)), strict=True
        )
        return sum(p.log_prob(x, actions[..., n]) for n, (p, x) in enumerate(split))

    def entropy(self, outputs):
        """Entropy ``(batch,)`` in nats."""
        split = zip(
            self.parts, self._split(ops.convert_to_tensor(outputs)), strict=True
        )
        return sum(part.entropy(x) for part, x in split)

    def get_config(self):
        return {"sizes": self.sizes}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@keras.saving.register_keras_serializable(package="dlcompanion")
class DiagonalGaussian:
    r"""Real actions, each with a mean and a standard deviation.

    .. math:: \log \pi(a \mid s) = -\sum_i \frac{(a_i - \mu_i)^2}{2 \sigma_i^2}
        + \log \sigma_i + \tfrac12 \log 2 \pi

    The outputs are ``[mean, log_std]`` side by side. Actions are in units of the
    space: -1 and 1 are its ends; what lies outside is played as the end, and keeps the
    probability that it was drawn with.

    Args:
        size: Positive integer, the number of actions played at a time.

    Raises:
        ValueError: If ``size`` is not a positive integer.

    Example:
        >>> normal = DiagonalGaussian(1)
        >>> print(f"{float(normal.log_prob([[0.0, 0.0]], [[0.0]])[0]):.4f}")
        -0.9189
    """

    def __init__(self, size):
        self.size = check_count("size", size)
        self.outputs = 2 * self.size

    def sample(self, outputs, random):
        """Actions ``(batch, size)``, NumPy."""
        mean, log_std = outputs[:, : self.size], outputs[:, self.size :]
        noise = random.standard_normal(mean.shape).astype("float32")
        return mean + np.exp(log_std) * noise

    def best(self, outputs):
        """The means ``(batch, size)``, NumPy."""
        return outputs[:, : self.size]

    def log_prob(self, outputs, actions):
        """Log-densities ``(batch,)`` of actions ``(batch, size)``."""
        outputs = ops.convert_to_tensor(outputs)
        mean, log_std = outputs[:, : self.size], outputs[:, self.size :]
        z = (ops.cast(actions, mean.dtype) - mean) * ops.exp(-log_std)
        return -ops.sum(0.5 * z * z + log_std + HALF_LOG_TWO_PI, axis=-1)

    def entropy(self, outputs):
        """Entropy ``(batch,)`` in nats."""
        log_std = ops.convert_to_tensor(outputs)[:, self.size :]
        return ops.sum(log_std + 0.5 + HALF_LOG_TWO_PI, axis=-1)

    def get_config(self):
        return {"size": self.size}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
