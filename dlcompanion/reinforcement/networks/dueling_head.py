"""DuelingHead: how good it is to be here, and what the actions add to that."""

import keras
from keras import ops

from dlcompanion.checks import check_count
from dlcompanion.reinforcement.networks.noisy_dense import NoisyDense


@keras.saving.register_keras_serializable(package="dlcompanion")
class DuelingHead(keras.layers.Layer):
    r"""Last layer of a network of action values, in two streams.

    .. math:: Q(s, a) = V(s) + A(s, a) - \frac{1}{|\mathcal A|} \sum_{a'} A(s, a')

    In most states it matters little what one does. A value of its own is learned from
    every step, whatever the action. The mean is taken off so that the two streams are
    determined: that of the outputs over the actions is :math:`V`.

    Args:
        actions: Positive integer.
        atoms: Positive integer, the outputs of each action (the logits of a
            distribution of returns), or None for one value and no axis for it.
        noisy: Boolean, whether the streams are
            :class:`~dlcompanion.reinforcement.NoisyDense` layers.
        seed: Integer, or None for one that is drawn. Decides the weights.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, features)``.

    Output shape:
        ``(batch, actions)``, or ``(batch, actions, atoms)``.

    Raises:
        ValueError: If ``actions`` or ``atoms`` is not a positive integer.

    Example:
        >>> tuple(DuelingHead(actions=3)(ops.ones((2, 5))).shape)
        (2, 3)
        >>> tuple(DuelingHead(actions=3, atoms=51)(ops.ones((2, 5))).shape)
        (2, 3, 51)

    References:
        Wang et al., *Dueling Network Architectures for Deep Reinforcement Learning*,
        2016, eq. 9. https://arxiv.org/abs/1511.06581
    """

    def __init__(self, actions, atoms=None, noisy=False, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.actions = check_count("actions", actions)
        self.atoms = None if atoms is None else check_count("atoms", atoms)
        self.noisy, self.seed = bool(noisy), seed
        size = 1 if atoms is None else self.atoms
        self.value = self._dense(size, 0)
        self.advantage = self._dense(self.actions * size, 2)

    def _dense(self, units, n):
        seed = None if self.seed is None else self.seed + n
        if self.noisy:
            return NoisyDense(units, seed=seed, dtype=self.dtype_policy)
        initializer = keras.initializers.GlorotUniform(seed=seed)
        return keras.layers.Dense(
            units, kernel_initializer=initializer, dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.value.build(input_shape)
        self.advantage.build(input_shape)

    def call(self, inputs, training=False):
        passed = {"training": training} if self.noisy else {}
        value = self.value(inputs, **passed)[:, None]  # (batch, 1, atoms)
        advantage = self.advantage(inputs, **passed)
        advantage = ops.reshape(advantage, (-1, self.actions, value.shape[-1]))
        outputs = value + advantage - ops.mean(advantage, axis=1, keepdims=True)
        return outputs[..., 0] if self.atoms is None else outputs

    def compute_output_shape(self, input_shape):
        last = () if self.atoms is None else (self.atoms,)
        return (input_shape[0], self.actions, *last)

    def get_config(self):
        return {
            **super().get_config(),
            "actions": self.actions,
            "atoms": self.atoms,
            "noisy": self.noisy,
            "seed": self.seed,
        }
