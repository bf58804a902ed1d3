"""The network of Rainbow: distributions of returns, and noise for exploration."""

import keras
from keras import ops

from dlcompanion.reinforcement.categorical_returns import (
    categorical_projection,
    check_support,
)
from dlcompanion.reinforcement.deep_q import DeepQ, values_taken


@keras.saving.register_keras_serializable(package="dlcompanion")
class CategoricalQ(DeepQ):
    r"""Deep Q-learning of whole distributions of returns, and with noisy layers.

    With a ``support`` :math:`g` the network gives logits of a distribution of the
    return on that grid, for each action. What is learned is the distribution of the
    best action that follows, discounted, moved by the reward and projected back onto
    the grid (:func:`~dlcompanion.reinforcement.categorical_projection`), by the
    cross-entropy

    .. math:: -\frac1n \sum_i w_i \sum_j \Pi\bigl[R_i + \gamma_i\, g,\;
        p^-(s'_i, a'_i)\bigr]_j \log p_j(s_i, a_i), \qquad
        Q(s, a) = \sum_j g_j\, p_j(s, a) .

    Without one it is :class:`~dlcompanion.reinforcement.DeepQ`.

    Args:
        network: :class:`keras.Model` from observations to values ``(batch, actions)``,
            or with a support to logits ``(batch, actions, atoms)``.
        target_network: As of :class:`~dlcompanion.reinforcement.DeepQ`.
        support: Increasing list of numbers, or None.
        noisy: Boolean, whether the networks are called with ``training=True`` while
            they learn, for :class:`~dlcompanion.reinforcement.NoisyDense` layers.
        **kwargs: Passed on to :class:`~dlcompanion.reinforcement.DeepQ`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Values ``(batch, actions)``, without noise.

    Raises:
        ValueError: If ``support`` is not increasing.

    Example:
        >>> layers = [keras.layers.Dense(2 * 5), keras.layers.Reshape((2, 5))]
        >>> network = keras.Sequential([keras.Input((3,)), *layers])
        >>> learner = CategoricalQ(network, support=[0.0, 1.0, 2.0, 3.0, 4.0])
        >>> tuple(learner(ops.ones((6, 3))).shape)
        (6, 2)

    References:
        Bellemare, Dabney and Munos, *A Distributional Perspective on Reinforcement
        Learning*, 2017, algorithm 1. https://arxiv.org/abs/1707.06887
    """

    def __init__(
        self, network, target_network=None, support=None, noisy=False, **kwargs
    ):
        super().__init__(network, target_network, **kwargs)
        self.support = None if support is None else check_support(support).tolist()
        self.noisy = bool(noisy)

    def call(self, inputs):
        outputs = ops.cast(self.network(inputs, training=False), "float32")
        return self.values_of(outputs)

    def outputs_of(self, network, observations):
        """What a network says while it learns: values, or logits ``(..., atoms)``."""
        return ops.cast(network(observations, training=self.noisy), "float32")

    def values_of(self, outputs):
        """What the actions are worth on average.

        Args:
            outputs: Tensor ``(batch, actions)`` or ``(batch, actions, atoms)``.

        Returns:
            Tensor ``(batch, actions)``.
        """
        if self.support is None:
            return outputs
        grid = ops.cast(self.support, outputs.dtype)
        return ops.sum(ops.softmax(outputs) * grid, axis=-1)

    def targets(self, rewards, following, discounts):
        """What the distributions, or values, of the actions taken should have been."""
        if self.support is None:
            return super().targets(rewards, following, discounts)
        outputs = self.outputs_of(self.target_network, following)
        chosen = self.outputs_of(self.network, following) if self.double else outputs
        best = ops.argmax(self.values_of(chosen), axis=-1)
        p = ops.softmax(_taken(outputs, best))
        grid = ops.cast(self.support, p.dtype)
        moved = rewards[:, None] + discounts[:, None] * grid
        return ops.stop_gradient(categorical_projection(moved, p, self.support))

    def judge(self, observations, actions, targets, weights):
        """The loss of a batch, the values of its actions and its errors.

        The error of a distribution is its divergence (in nats) from the target.
        """
        if self.support is None:
            return super().judge(observations, actions, targets, weights)
        outputs = self.outputs_of(self.network, observations)
        logs = ops.log_softmax(_taken(outputs, actions))
        each = -ops.sum(targets * logs, axis=-1)
        loss = ops.mean(
            each if weights is None else ops.cast(weights, each.dtype) * each
        )
        entropy = -ops.sum(targets * ops.log(ops.maximum(targets, 1e-30)), axis=-1)
        taken = values_taken(self.values_of(outputs), actions)
        return loss, (taken, each - entropy)

    def get_config(self):
        return {**super().get_config(), "support": self.support, "noisy": self.noisy}


def _taken(outputs, actions):
    """``(batch, atoms)`` of the actions, from ``(batch, actions, atoms)``."""
    taken = ops.one_hot(ops.cast(actions, "int32"), outputs.shape[1])
    return ops.sum(outputs * ops.cast(taken, outputs.dtype)[..., None], axis=1)
