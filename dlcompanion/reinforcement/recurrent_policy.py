"""Proximal policy optimization with a memory, for what an observation does not show."""

from collections import deque

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.reinforcement.agents.rollout import rows_of
from dlcompanion.reinforcement.generalized_advantage import (
    advantages_and_returns_from_values,
)
from dlcompanion.reinforcement.networks.memory_network import (
    check_recurrent,
    recurrent_network,
)
from dlcompanion.reinforcement.ppo import PPO, PPOParts, ProximalPolicy


@keras.saving.register_keras_serializable(package="dlcompanion")
class RecurrentProximalPolicy(ProximalPolicy):
    r"""A policy and its critic with a memory each, learning from pieces of episodes.

    The state :math:`h` of a memory goes from step to step, and is zero where an episode
    begins:

    .. math:: (z_t, h_{t+1}) = f_\theta(o_t, b_t h_t), \qquad
        b_t = 0 \text{ if an episode begins at } t, \text{ else } 1 .

    The loss is that of ``ProximalPolicy``, over all
    steps of all pieces; its gradient goes back through the states to the first step
    of a piece, and the state with which the piece began is a constant: backpropagation
    through time, truncated.

    Args:
        policy: :class:`keras.Model` from ``[observations, states]``, ``(batch, ...)``
            and ``(batch, units)``, to ``[outputs, new states]``, with
            ``distribution.outputs`` outputs.
        critic: :class:`keras.Model` from ``[observations, states]`` to
            ``[values, new states]``, with values ``(batch, 1)``. Its states may have
            another size.
        distribution: As of ``ProximalPolicy``.
        clip_range: As of ``ProximalPolicy``.
        value_weight: As of ``ProximalPolicy``.
        entropy_weight: As of ``ProximalPolicy``.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: List of observations ``(batch, time, ...)``; of ``begins``
            ``(batch, time)``, 1 where an episode begins, else 0; and of the states
            ``(batch, units)`` of policy and critic before the first step.

    Returns:
        Outputs of the policy ``(batch, time, outputs)`` and values ``(batch, time)``.

    Example:
        >>> from dlcompanion.reinforcement.networks.action_distributions import (
        ...     Categorical,
        ... )
        >>> def network(outputs):
        ...     observations, states = keras.Input((3,)), keras.Input((8,))
        ...     h, new = keras.layers.GRUCell(8)(observations, states)
        ...     return keras.Model(
        ...         [observations, states], [keras.layers.Dense(outputs)(h), new]
        ...     )
        >>> learner = RecurrentProximalPolicy(network(2), network(1), Categorical(2))
        >>> zeros = ops.zeros((5, 8))
        >>> outputs, values = learner(
        ...     [ops.ones((5, 4, 3)), ops.zeros((5, 4)), zeros, zeros]
        ... )
        >>> tuple(outputs.shape), tuple(values.shape)
        ((5, 4, 2), (5, 4))
    """

    def call(self, inputs):
        observations, begins, *states = inputs

        def step(states, row):
            observations, begins = row
            states = [ops.where(begins[:, None] > 0, 0.0, state) for state in states]
            networks = zip((self.policy, self.critic), states, strict=True)
            pairs = [net([observations, h], training=False) for net, h in networks]
            outputs, states = zip(*pairs, strict=True)
            return _float32(states), _float32(outputs)

        rows = [ops.moveaxis(ops.convert_to_tensor(x), 1, 0) for x in inputs[:2]]
        _, (outputs, values) = backend.scan(step, _float32(states), rows)
        outputs, values = (ops.moveaxis(x, 0, 1) for x in (outputs, values))
        return outputs, values[..., 0]

    def each_step(self, inputs):
        return [_flat(x) for x in self(inputs)]

    def update(self, data):
        inputs, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        y = tuple(_flat(x) for x in y)
        return super().update((inputs, y, None if weights is None else _flat(weights)))


def _float32(x):
    return [ops.cast(part, "float32") for part in x]  # whatever the networks compute in


def _flat(x):
    """``(batch, time, ...)`` to ``(batch * time, ...)``."""
    return ops.reshape(x, (-1, *x.shape[2:]))


def _whole_environments(count, rollout_length):
    """The largest size up to 256 of whole environments, one at the least."""
    some = range(1, max(256 // rollout_length, 1) + 1)
    return rollout_length * max(n for n in some if count % n == 0)


RECURRENT_PARTS = PPOParts(
    recurrent_network, check_recurrent, RecurrentProximalPolicy, _whole_environments
)


class RecurrentPPO(PPO):
    r"""Proximal policy optimization with a recurrent policy and critic.

    For partially observable environments, where a velocity or what was shown ten steps
    ago is not part of the observation. Both networks have a state that goes on from
    step to step of an episode and is zero at its beginning, so that their outputs may
    depend on all observations since.

    All else is as in :class:`~dlcompanion.reinforcement.PPO`, but for the batches: what
    is shuffled is no longer steps but environments, each with its ``rollout_length``
    steps in order. The gradient goes back to the first of them, and the memory itself
    across them: a rollout begins in the state in which it was collected. So
    ``rollout_length`` is the length of the truncated backpropagation through time, and
    the cost of an update is proportional to it.

    Networks of dense layers with one :class:`keras.layers.GRUCell` among them act in
    NumPy, others through a compiled call. On TensorFlow ``jit_compile=True`` costs some
    seconds at first and makes the updates three times as fast.

    Args:
        environment: As of PPO.
        policy: :class:`keras.Model` from ``[observations, states]`` to
            ``[outputs, new states]``: one step of a recurrent network, made with a cell
            of Keras. Outputs are as of PPO, states are ``(batch, units)``; those of a
            cell that has two stand side by side. By default a hidden layer of 64 tanh
            units and a GRU cell of 64.
        critic: The same with one value as output. It has a state of its own and must
            not share layers with the policy.
        optimizer: As of PPO.
        **kwargs: The other arguments of PPO. ``batch_size`` counts steps as there, and
            is a multiple of ``rollout_length``.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or a network does not fit the spaces.

    Example:
        >>> agent = RecurrentPPO(
        ...     "CartPole-v1", rollout_length=16, batch_size=64, horizon=32, seed=0
        ... )
        >>> history = agent.fit(steps=200, verbose=0)
        >>> action, state = agent.predict(np.zeros(4, "float32"))
        >>> action, state = agent.predict(np.ones(4, "float32"), state)
        >>> action in (0, 1), state.shape
        (True, (64,))

    References:
        Hausknecht and Stone, *Deep Recurrent Q-Learning for Partially Observable MDPs*,
        2015, whose "bootstrapped sequential updates" these batches are, but for the
        state in the beginning. https://arxiv.org/abs/1507.06527

        Ni, Eysenbach and Salakhutdinov, *Recurrent Model-Free RL Can Be a Strong
        Baseline for Many POMDPs*, 2022. https://arxiv.org/abs/2110.05038
    """

    def __init__(self, environment, policy=None, critic=None, optimizer=None, **kwargs):
        super().__init__(
            environment, policy, critic, optimizer, parts=RECURRENT_PARTS, **kwargs
        )
        if self.batch_size % self.rollout_length:
            raise ValueError(
                "batch_size counts steps, of environments with rollout_length steps "
                f"each, and must be a multiple of it. Received: batch_size="
                f"{self.batch_size}, rollout_length={self.rollout_length}"
            )
        count = self.environments.count
        self._states = [self.actor.zeros(name, count) for name in ("policy", "critic")]
        self._acted = deque(maxlen=self.rollout_length)  # the steps of a rollout

    # -- acting ---------------------------------------------------------------------

    def explore(self, observations, random):
        """Actions while learning; :meth:`learn_from_rollout` uses the outputs."""
        begins = self._collector.begins
        before = [np.where(begins[:, None], 0, h) for h in self._states]
        outputs, h = self._outputs(observations, before[0])
        seen = self._scaled(observations)
        values, g = self.actor.step("critic", seen, before[1])
        self._states = [h, g]
        self._acted.append((outputs, values[:, 0], begins, *before, g))
        return self._actions(outputs, False, random)

    def predict(self, observation, state=None, deterministic=True):
        """Action for an observation, and the state to give with the next one.

        As the recurrent policies of Stable-Baselines3 (contrib) do, but for
        ``episode_start``: where an episode begins give no state, or zeros in its row
        of a batch.

        Args:
            observation: Array of the shape of one observation, or with a batch axis
                before it.
            state: What the last call returned, an array ``(units,)`` or
                ``(batch, units)``, or None at the beginning of an episode.
            deterministic: Boolean: the most probable action, or one drawn with the
                policy's probabilities.

        Returns:
            ``(action, state)``.

        Raises:
            ValueError: If a shape is another or a value is not finite.
        """
        batch, single = self._batch_of(observation)
        states = self._states_of(state, len(batch), single)
        with self.actor.held():
            outputs, states = self._outputs(batch, states)
        actions = self._actions(outputs, deterministic, self._draws)
        return self._to_user(actions, single), states[0] if single else states

    def _states_of(self, state, count, single):
        """What :meth:`predict` was given, as states of a batch."""
        if state is None:
            return None
        states = np.asarray(state, "float32")
        states = states[None] if single else states
        shape = self.actor.zeros("policy", count).shape
        if states.shape != shape or not np.isfinite(states).all():
            raise ValueError(
                f"A state is finite and has shape {shape[single:]} here: give back "
                "what the last call returned, or None. "
                f"Received: state.shape={np.shape(state)}"
            )
        return states

    # -- learning -------------------------------------------------------------------

    def under_way(self):
        """Where an epoch under way was left, with the states of both memories."""
        arrays = super().under_way()
        if self._collector is None:
            return arrays
        states = {f"epoch.states.{n}": h for n, h in enumerate(self._states)}
        return {**arrays, **states}

    def take_up(self, arrays):
        """Go on with the epoch that :meth:`under_way` told of."""
        super().take_up(arrays)
        self._states = [arrays[f"epoch.states.{n}"] for n in range(2)]

    def learn_from_rollout(self, rollout, random):
        """``update_epochs`` passes over the rollout."""
        first = self._acted[0]
        columns = zip(*((o, v, b, g) for o, v, b, _, _, g in self._acted), strict=True)
        behavior, values, begins, remembered = map(np.stack, columns)
        following = rows_of(rollout.next_observations)
        after, _ = self.actor.step("critic", following, rows_of(remembered))
        advantages, returns = advantages_and_returns_from_values(
            rollout, values, after.reshape(values.shape), self.discount, self.gae_lambda
        )
        self._explained.add(advantages, returns, rollout.mask)

        def by_environment(x, dtype="float32"):
            return np.ascontiguousarray(np.swapaxes(x, 0, 1), dtype)

        inputs = [by_environment(x) for x in (rollout.observations, begins)]
        y = [by_environment(x) for x in (behavior, advantages, returns)]
        actions = by_environment(rollout.actions, rollout.actions.dtype)
        mask = by_environment(rollout.mask)
        data = ([*inputs, *first[3:5]], (actions, *y), mask)
        size = self.batch_size // self.rollout_length
        return self.learn_from(data, len(mask), size, random)
