"""Rainbow: six improvements of deep Q-learning, each of which can be switched off."""

import functools
import warnings
from collections import deque

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agents.prioritized_replay import PrioritizedReplay
from dlcompanion.reinforcement.agents.replay_buffer import ReplayBuffer
from dlcompanion.reinforcement.dqn import DQN, DeepQ, DQNParts, values_taken
from dlcompanion.reinforcement.generalized_advantage import reward_to_go
from dlcompanion.reinforcement.networks.dense_network import first_layers, scaled_dense
from dlcompanion.reinforcement.networks.dueling_head import DuelingHead
from dlcompanion.reinforcement.networks.noisy_dense import NoisyDense
from dlcompanion.uncertainty.stochastic_layers.predictive_samples import seed_states


def categorical_projection(values, probabilities, support):
    r"""A distribution moved onto a grid, with its mass and, inside, its mean kept.

    The mass at a value between two points of the grid is shared between them, the more
    to the nearer; what lies outside goes to the end:

    .. math:: q_j = \sum_i p_i \left[ 1 - \frac{|\hat z_i - g_j|}{\Delta_{ij}}
        \right]_0^1, \qquad \hat z_i = \min(\max(z_i, g_1), g_m) ,

    where :math:`\Delta_{ij}` is the distance from :math:`g_j` to the next point of the
    grid on the side of :math:`z_i`.

    Args:
        values: Tensor :math:`z` ``(batch, n)``.
        probabilities: Tensor :math:`p` ``(batch, n)``.
        support: Increasing array :math:`g` ``(m,)`` of at least two values.

    Returns:
        Tensor :math:`q` ``(batch, m)``.

    Raises:
        ValueError: If ``support`` is not increasing.

    Example:
        >>> q = categorical_projection([[0.25, 7.0]], [[0.5, 0.5]], [0.0, 1.0, 2.0])
        >>> ops.convert_to_numpy(q).tolist()
        [[0.375, 0.125, 0.5]]

    References:
        Bellemare, Dabney and Munos, *A Distributional Perspective on Reinforcement
        Learning*, 2017, eq. 7. https://arxiv.org/abs/1707.06887
    """
    support = check_support(support)
    probabilities = ops.convert_to_tensor(probabilities)
    values = ops.cast(values, probabilities.dtype)
    gaps = np.diff(support)
    above = ops.cast(np.append(gaps, 1.0), values.dtype)  # the ends have no neighbor
    below = ops.cast(np.append(1.0, gaps), values.dtype)
    values = ops.clip(values, support[0].item(), support[-1].item())
    distance = values[:, None, :] - ops.cast(support, values.dtype)[:, None]
    share = ops.where(
        distance >= 0, distance / above[:, None], -distance / below[:, None]
    )
    share = ops.clip(1.0 - share, 0.0, 1.0)  # (batch, m, n)
    return ops.sum(share * probabilities[:, None, :], axis=-1)


def check_support(support):
    """Refuse anything but an increasing grid.

    Args:
        support: Sequence of at least two numbers.

    Returns:
        Float32 array.

    Raises:
        ValueError: If it is none.

    Example:
        >>> check_support([0, 1]).tolist()
        [0.0, 1.0]
    """
    grid = np.asarray(support, "float32")
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all():
        raise ValueError(
            "support must be increasing, of at least two numbers. "
            f"Received: support={support!r}"
        )
    return grid


@keras.saving.register_keras_serializable(package="dlcompanion")
class CategoricalQ(DeepQ):
    r"""Deep Q-learning of whole distributions of returns, and with noisy layers.

    With a ``support`` :math:`g` the network gives logits of a distribution of the
    return on that grid, for each action. What is learned is the distribution of the
    best action that follows, discounted, moved by the reward and projected back onto
    the grid (``categorical_projection``), by the
    cross-entropy

    .. math:: -\frac1n \sum_i w_i \sum_j \Pi\bigl[R_i + \gamma_i\, g,\;
        p^-(s'_i, a'_i)\bigr]_j \log p_j(s_i, a_i), \qquad
        Q(s, a) = \sum_j g_j\, p_j(s, a) .

    Without one it is ``DeepQ``.

    Args:
        network: :class:`keras.Model` from observations to values ``(batch, actions)``,
            or with a support to logits ``(batch, actions, atoms)``.
        target_network: As of ``DeepQ``.
        support: Increasing list of numbers, or None.
        noisy: Boolean, whether the networks are called with ``training=True`` while
            they learn, for :class:`~dlcompanion.reinforcement.NoisyDense` layers.
        **kwargs: Passed on to ``DeepQ``.

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
        """Outputs of a network in training: values, or logits ``(..., atoms)``."""
        return ops.cast(network(observations, training=self.noisy), "float32")

    def values_of(self, outputs):
        """Expected values of the actions.

        Args:
            outputs: Tensor ``(batch, actions)`` or ``(batch, actions, atoms)``.

        Returns:
            Tensor ``(batch, actions)``.
        """
        if self.support is None:
            return outputs
        grid = ops.cast(self.support, outputs.dtype)
        return ops.sum(ops.softmax(outputs) * grid, axis=-1)

    def targets(self, rewards, next_observations, discounts):
        """Targets: distributions, or values, of the actions taken."""
        if self.support is None:
            return super().targets(rewards, next_observations, discounts)
        outputs = self.outputs_of(self.target_network, next_observations)
        chosen = (
            self.outputs_of(self.network, next_observations) if self.double else outputs
        )
        best = ops.argmax(self.values_of(chosen), axis=-1)
        p = ops.softmax(_taken(outputs, best))
        grid = ops.cast(self.support, p.dtype)
        moved = rewards[:, None] + discounts[:, None] * grid
        return ops.stop_gradient(categorical_projection(moved, p, self.support))

    def loss_and_errors(self, observations, actions, targets, weights):
        """The loss of a batch, the values of its actions and its errors.

        The error of a distribution is its divergence (in nats) from the target.
        """
        if self.support is None:
            return super().loss_and_errors(observations, actions, targets, weights)
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


def rainbow_network(
    shape, actions, seed, scale=1.0, dueling=True, atoms=51, noisy=True
):
    """The default network of Rainbow: two hidden layers of 64 rectified units.

    Args:
        shape: Tuple, the shape of one observation.
        actions: Integer.
        seed: Integer, decides the initial weights and the noise.
        scale: Number that observations are multiplied with.
        dueling: Boolean, whether a :class:`~dlcompanion.reinforcement.DuelingHead`
            ends it.
        atoms: Integer, the logits of each action, or None for its value.
        noisy: Boolean, whether the second layer and the head are noisy.

    Returns:
        :class:`keras.Sequential` from observations to ``(batch, actions)`` or
        ``(batch, actions, atoms)``.

    Example:
        >>> rainbow_network((4,), 2, seed=0).output_shape
        (None, 2, 51)
    """
    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    seeds = [n // 2 for n in seeds]  # a head adds to its own

    def dense(units, activation, seed):
        if noisy:
            return NoisyDense(units, activation, seed=seed)
        return scaled_dense(units, activation, 1.0, seed)

    layers = first_layers(shape, scale)
    layers += [scaled_dense(64, "relu", 1.0, seeds[0]), dense(64, "relu", seeds[1])]
    if dueling:
        layers.append(DuelingHead(actions, atoms, noisy, seeds[2]))
    else:
        layers.append(dense(actions * (atoms or 1), "linear", seeds[2]))
        if atoms:
            layers.append(keras.layers.Reshape((actions, atoms)))
    return keras.Sequential([keras.Input(shape), *layers], name="network")


class Rainbow(DQN):
    r"""Deep Q-learning with six improvements.

    =============== =================================================================
    ``double``      one network chooses the action that the other one values
    ``dueling``     the value of a state is learned apart from what an action adds:
                    :class:`~dlcompanion.reinforcement.DuelingHead`
    ``prioritized`` steps of large error are drawn more often:
                    :class:`~dlcompanion.reinforcement.PrioritizedReplay`
    ``n_step``      targets are ``n``-step returns:
                    ``n_step_transitions``
    ``atoms``       the distribution of the return is learned, not its mean (C51):
                    ``CategoricalQ``
    ``noisy``       learned noise in the weights explores:
                    :class:`~dlcompanion.reinforcement.NoisyDense`
    =============== =================================================================

    With all of them off it is :class:`~dlcompanion.reinforcement.DQN`. The steps of a
    phase of learning are drawn all at once, and get their new priorities after it. With
    ``noisy`` there is no :math:`\varepsilon`: ``epsilon`` is 0, and the network is
    called with ``training=True`` while it explores and learns, with ``training=False``
    for ``predict`` and ``evaluate``.

    Args:
        environment: As of DQN.
        network: :class:`keras.Model` from observations to values ``(batch, actions)``,
            or if there are ``atoms`` to logits ``(batch, actions, atoms)``; then
            ``dueling`` is ignored, and ``noisy`` calls it as said above. By default two
            hidden layers of 64 rectified units, the second one and the head noisy or
            not.
        optimizer: As of DQN.
        double: Boolean.
        dueling: Boolean.
        prioritized: Boolean.
        n_step: Positive integer; 1 is off. Returns stop at the end of a rollout: the
            last ``n_step`` of ``rollout_length`` steps sum fewer rewards.
        atoms: Integer of at least 2, the points of the grid, or None for off.
        noisy: Boolean.
        value_range: Pair of numbers, the ends of the grid, to which returns are
            clipped. A warning says so as soon as others are played.
        priority_exponent: Number :math:`\alpha` of at least 0.
        importance_exponent: Number :math:`\beta` in [0, 1], constant.
        **kwargs: The other arguments of :class:`~dlcompanion.reinforcement.DQN`.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or the network does not fit the spaces.

    Example:
        >>> agent = Rainbow(
        ...     "CartPole-v1",
        ...     value_range=(0, 100),
        ...     gradient_steps=4,
        ...     learning_starts=256,
        ...     horizon=64,
        ...     seed=0,
        ... )
        >>> history = agent.fit(steps=500, verbose=0)
        >>> agent.predict(np.zeros(4, "float32")) in (0, 1)
        True

    References:
        Hessel et al., *Rainbow: Combining Improvements in Deep Reinforcement Learning*,
        2018. https://arxiv.org/abs/1710.02298
    """

    def __init__(
        self,
        environment,
        network=None,
        optimizer=None,
        double=True,
        dueling=True,
        prioritized=True,
        n_step=3,
        atoms=51,
        noisy=True,
        value_range=(-10.0, 10.0),
        priority_exponent=0.5,
        importance_exponent=0.4,
        **kwargs,
    ):
        settings = {
            "dueling": bool(dueling),
            "prioritized": bool(prioritized),
            "n_step": check_count("n_step", n_step),
            "atoms": None if atoms is None else check_count("atoms", atoms, 2),
            "noisy": bool(noisy),
            "value_range": _check_range(value_range),
            "priority_exponent": check_number("priority_exponent", priority_exponent),
            "importance_exponent": check_number(
                "importance_exponent", importance_exponent, 0, 1
            ),
        }
        names = "dueling prioritized atoms noisy value_range priority_exponent".split()
        parts = _parts(*[settings[name] for name in names])
        super().__init__(environment, network, optimizer, double, parts=parts, **kwargs)
        self.config |= settings
        for name, value in settings.items():
            setattr(self, name, value)
        # some 500 steps: what comes later is discounted to little
        self._recent = deque(maxlen=-(-500 // self.rollout_length))

    # -- acting ---------------------------------------------------------------------

    @property
    def epsilon(self):
        """The probability of a random action, 0 with noisy layers."""
        return 0.0 if self.noisy else super().epsilon

    def _outputs(self, observations, states=None, exploring=False):
        if exploring and self.noisy:
            explorer = backend.kept_program(
                self.learner, "explorer", lambda: _explorer(self.learner)
            )
            values = keras.ops.convert_to_numpy(explorer(observations))
            return self._finite(values), None
        outputs, states = super()._outputs(observations, states, exploring)
        if self.atoms is None:
            return outputs, states
        p = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        grid = np.array(self.learner.support, "float32")
        return (p * grid).sum(axis=-1) / p.sum(axis=-1), states

    def _actions(self, outputs, deterministic, random):
        # noise explores: nothing is drawn
        return super()._actions(outputs, deterministic or self.noisy, random)

    def _player(self, deterministic, random):
        """As in Agent; noise drawn here leaves the noise of training as it is."""
        act = super()._player(deterministic, random)

        def apart(observations):
            states = seed_states(self.learner.network)
            before = [keras.ops.convert_to_numpy(state) for state in states]
            for state in states:
                state.assign(random.integers(2**31, size=2).astype(state.dtype))
            try:
                return act(observations)
            finally:
                for state, value in zip(states, before, strict=True):
                    state.assign(value)

        return act if deterministic or not self.noisy else apart

    # -- learning -------------------------------------------------------------------

    def learn_from_rollout(self, rollout, random):
        """As DQN; warns, once, of returns that the grid cannot hold."""
        if self._recent is not None and self.atoms is not None:
            self._look_at_returns(rollout)
        return super().learn_from_rollout(rollout, random)

    def _look_at_returns(self, rollout):
        rewards = np.where(rollout.mask, rollout.rewards, 0.0)
        self._recent.append((self.epochs, rewards, rollout.dones))
        now = [x[1:] for x in self._recent if x[0] == self.epochs]  # since the reset
        rewards, dones = map(np.concatenate, zip(*now, strict=True))
        returns = reward_to_go(rewards, dones, np.zeros(dones.shape), self.discount)
        low, high = self.value_range
        slack = 1e-6 * (high - low)
        if returns.min() < low - slack or returns.max() > high + slack:
            self._recent = None
            warnings.warn(
                f"Returns from {returns.min():.4g} to {returns.max():.4g} were played, "
                f"and Rainbow clips them to value_range=({low:g}, {high:g}): choose "
                "one that holds the discounted sums of rewards",
                stacklevel=2,
            )

    def learn_from(self, rows, weights=None):
        """Make one gradient step for each minibatch, and update the priorities."""
        if not self.prioritized:
            return super().learn_from(rows, weights)
        weights = self.replay.weights(rows, self.importance_exponent)
        found = super().learn_from(rows, weights)
        self.replay.prioritize(rows, found["errors"])
        return found


def _explorer(learner):
    """The values of a network with noise, compiled."""
    return backend.compile(
        lambda x: learner.values_of(learner.outputs_of(learner.network, x)), jit=False
    )


def _parts(dueling, prioritized, atoms, noisy, value_range, priority_exponent):
    """What a DQN with these improvements makes itself of."""
    network = functools.partial(
        rainbow_network, dueling=dueling, atoms=atoms, noisy=noisy
    )
    outputs, support, replay = (), None, ReplayBuffer
    if atoms is not None:
        outputs, support = (atoms,), np.linspace(*value_range, atoms)
    learner = functools.partial(CategoricalQ, support=support, noisy=noisy)
    if prioritized:
        replay = functools.partial(PrioritizedReplay, exponent=priority_exponent)
    return DQNParts(network, outputs, learner, replay)


def _check_range(value_range):
    try:
        low, high = (float(x) for x in value_range)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            "value_range must be two finite numbers, the smaller one first. "
            f"Received: value_range={value_range!r}"
        )
    return [low, high]
