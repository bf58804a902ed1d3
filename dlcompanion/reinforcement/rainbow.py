"""Rainbow: six improvements of deep Q-learning, each of which can be switched off."""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.categorical_q import CategoricalQ
from dlcompanion.reinforcement.dqn import DQN
from dlcompanion.reinforcement.dueling_head import DuelingHead
from dlcompanion.reinforcement.network_checks import check_network
from dlcompanion.reinforcement.noisy_dense import NoisyDense
from dlcompanion.reinforcement.numpy_policy import scaled_dense
from dlcompanion.reinforcement.prioritized_replay import PrioritizedReplay


class Rainbow(DQN):
    r"""Deep Q-learning with six improvements.

    =============== =================================================================
    ``double``      one network chooses the action that the other one values
    ``dueling``     the value of a state is learned apart from what an action adds:
                    :class:`~dlcompanion.reinforcement.DuelingHead`
    ``prioritized`` what was surprising is remembered more often:
                    :class:`~dlcompanion.reinforcement.PrioritizedReplay`
    ``n_step``      ``n`` rewards are seen before the network has to guess:
                    :func:`~dlcompanion.reinforcement.n_step_transitions`
    ``atoms``       the distribution of the return is learned, not its mean (C51):
                    :class:`~dlcompanion.reinforcement.CategoricalQ`
    ``noisy``       noise in the weights explores, and learns where to stop:
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
            ``dueling`` is the network's own affair, and ``noisy`` calls it as said
            above. By default two hidden layers of 64 rectified units, the second one
            and the head noisy or not.
        optimizer: As of DQN.
        double: Boolean.
        dueling: Boolean.
        prioritized: Boolean.
        n_step: Positive integer; 1 is off. Seen is no further than to the end of a
            rollout: of ``rollout_length`` steps the last ``n_step`` see fewer rewards.
        atoms: Integer of at least 2, the points of the grid, or None for off.
        noisy: Boolean.
        value_range: Pair of numbers, the ends of the grid. Returns outside are taken
            for its ends.
        priority_exponent: Number :math:`\alpha` of at least 0.
        importance_exponent: Number :math:`\beta` in [0, 1], the same all along.
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
        self.dueling, self.prioritized = bool(dueling), bool(prioritized)
        self.noisy = bool(noisy)
        self.n_step = check_count("n_step", n_step)
        self.atoms = None if atoms is None else check_count("atoms", atoms, 2)
        self.value_range = _check_range(value_range)
        self.priority_exponent = check_number("priority_exponent", priority_exponent)
        self.importance_exponent = check_number(
            "importance_exponent", importance_exponent, 0, 1
        )
        super().__init__(environment, network, optimizer, double, **kwargs)
        names = "dueling prioritized n_step atoms noisy value_range priority_exponent"
        for name in [*names.split(), "importance_exponent"]:
            self.config[name] = getattr(self, name)
        learner = self.learner
        self._explorer = backend.compile(
            lambda x: learner.values_of(learner.outputs_of(learner.network, x)),
            jit=False,
        )

    # -- the parts ------------------------------------------------------------------

    def make_replay(self, buffer_size):
        """The memory."""
        if self.prioritized:
            return PrioritizedReplay(buffer_size, self.priority_exponent)
        return super().make_replay(buffer_size)

    def make_network(self, shape, actions, seed):
        """The network, if none was given."""
        seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
        seeds = [n // 2 for n in seeds]  # a head adds to its own

        def dense(units, activation, seed):
            if self.noisy:
                return NoisyDense(units, activation, seed=seed)
            return scaled_dense(units, activation, 1.0, seed)

        layers = [keras.layers.Flatten()] if len(shape) != 1 else []
        layers += [
            scaled_dense(64, "relu", 1.0, seeds[0]),
            dense(64, "relu", seeds[1]),
        ]
        if self.dueling:
            layers.append(DuelingHead(actions, self.atoms, self.noisy, seeds[2]))
        else:
            layers.append(dense(actions * (self.atoms or 1), "linear", seeds[2]))
            if self.atoms:
                layers.append(keras.layers.Reshape((actions, self.atoms)))
        return keras.Sequential([keras.Input(shape), *layers], name="network")

    def check_network(self, network, shape, actions):
        """Refuse a network that does not fit the spaces."""
        if self.atoms is None:
            return super().check_network(network, shape, actions)
        check_network(
            "network",
            network,
            {"observations": shape},
            (actions, self.atoms),
            "logits of a distribution for each action",
        )

    def make_learner(self, network, double, target_every, delta):
        """What learns."""
        support = None
        if self.atoms is not None:
            support = np.linspace(*self.value_range, self.atoms)
        return CategoricalQ(
            network,
            support=support,
            noisy=self.noisy,
            double=double,
            target_every=target_every,
            delta=delta,
            name="learner",
        )

    # -- acting ---------------------------------------------------------------------

    @property
    def epsilon(self):
        """The share of actions played at random, none with noisy layers."""
        return 0.0 if self.noisy else super().epsilon

    def _outputs(self, observations):
        outputs = self._in_numpy(observations)
        if self.atoms is None:
            return outputs
        p = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        grid = np.array(self.learner.support, "float32")
        return (p * grid).sum(axis=-1) / p.sum(axis=-1)

    def _sample(self, observations, random):
        if not self.noisy:
            return super()._sample(observations, random)
        values = keras.ops.convert_to_numpy(self._explorer(observations))
        return values.argmax(axis=-1)

    # -- learning -------------------------------------------------------------------

    def learn_from(self, rows, weights=None):
        """Make a step of descent for each batch, and note what was surprising."""
        if not self.prioritized:
            return super().learn_from(rows, weights)
        weights = self.replay.weights(rows, self.importance_exponent)
        found = super().learn_from(rows, weights)
        self.replay.prioritize(rows, found["errors"])
        return found


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
