"""Soft actor-critic: real actions, learned from whatever was ever played."""

import keras

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agent import WEIGHTS
from dlcompanion.reinforcement.environments import Environments
from dlcompanion.reinforcement.network_checks import check_network, check_separate
from dlcompanion.reinforcement.numpy_policy import dense_network
from dlcompanion.reinforcement.replay_buffer import ReplayBuffer, n_step_transitions
from dlcompanion.reinforcement.segment_agent import SegmentAgent
from dlcompanion.reinforcement.soft_actor_critic import SoftActorCritic
from dlcompanion.reinforcement.tanh_gaussian import TanhGaussian
from dlcompanion.training import CompositeOptimizer


class SAC(SegmentAgent):
    r"""Soft actor-critic: paid for reward, and for staying undecided.

    What it looks for is the policy with the largest

    .. math:: \mathbb E \sum_t \gamma^t \bigl(r_t
        + \alpha \, \mathcal H[\pi(\cdot \mid s_t)]\bigr),

    actions being hyperbolic tangents of normal ones. Two critics :math:`q_k(s, a)`
    learn from steps that are drawn from a replay memory, whoever played them,

    .. math:: q_k(s, a) \approx r + \gamma \Bigl(\min_k \bar q_k(s', a')
        - \alpha \log \pi(a' \mid s')\Bigr), \qquad a' \sim \pi(\cdot \mid s'),

    the policy climbs :math:`\min_k q_k(s, a) - \alpha \log \pi(a \mid s)` through its
    own actions, and the temperature :math:`\alpha` is raised or lowered until the
    entropy is the wanted one. :math:`\bar q_k` follow the critics slowly.

    After every ``rollout_length`` steps ``updates`` updates are made in one call. All
    environments are reset, and play ``horizon`` steps each: that is one *epoch* of
    ``fit``. An episode that *terminates* is worth nothing afterwards; one that is
    *cut*, by its time limit or by the end of the epoch, is worth what the critics say.
    The history has ``critic_loss``, ``policy_loss``, ``entropy`` and ``temperature``,
    means over an epoch, and NaN before the first update.

    A policy that is a chain of dense layers acts in NumPy, any other through a
    compiled call. ``save`` writes the replay memory too, which makes the file large.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            environment, or vector environment (``NEXT_STEP`` or ``SAME_STEP``
            autoreset), with a Box of observations and a bounded Box of actions.
        policy: :class:`keras.Model` from observations to ``[mean, log_std]``, two
            numbers an action. By default two hidden layers of 64 rectified units.
        critics: List of two :class:`keras.Model` from ``[observations, actions]`` to
            one value, the actions flat and in units of the space (-1 and 1 are its
            ends). By default two hidden layers of 64 rectified units each. No two of
            the three networks may share layers: a file would hold copies.
        optimizer: Keras optimizer of the policy. By default Adam with learning rate
            0.001.
        critic_optimizer: Keras optimizer of both critics. By default as the policy's.
        temperature_optimizer: Keras optimizer of the temperature's logarithm. By
            default as the policy's.
        temperature: Number :math:`\alpha` of at least 0, or None for one that is
            learned, beginning with 1.
        target_entropy: Number, the entropy in nats at which a learned temperature
            stands still, of actions in units of the space; or None for minus the number
            of actions played at a time.
        target_rate: Number in [0, 1], the share of the way to the critics that their
            slow copies go in an update.
        batch_size: Positive integer, the steps that an update learns from.
        capacity: Positive integer, the steps that are remembered.
        learning_starts: Integer of at least 0: as many steps are played at random,
            evenly over the space, before the first update.
        rollout_length: Positive integer, the steps between two calls of updates.
        updates: Positive integer, the updates in a call, or None for as many as steps
            were made, of all environments together.
        discount: Number :math:`\gamma` in [0, 1].
        num_envs: Positive integer. Of an environment or vector environment it is the
            number that that one has.
        horizon: Positive integer, the steps of an epoch and the most of an episode, or
            None for the environment's own time limit (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Decides weights,
            resets, actions and what is drawn from memory.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or a network does not fit the spaces.

    Example:
        >>> agent = SAC("Pendulum-v1", horizon=32, learning_starts=64, seed=0)
        >>> history = agent.fit(steps=96, verbose=0)
        >>> sorted(history.history)[:3]
        ['critic_loss', 'entropy', 'length_mean']
        >>> agent.predict([1.0, 0.0, 0.0]).shape
        (1,)

    References:
        Haarnoja, Zhou, Abbeel and Levine, *Soft Actor-Critic: Off-Policy Maximum
        Entropy Deep Reinforcement Learning with a Stochastic Actor*, 2018.
        https://arxiv.org/abs/1801.01290

        Haarnoja et al., *Soft Actor-Critic Algorithms and Applications*, 2018: the
        learned temperature. https://arxiv.org/abs/1812.05905
    """

    def __init__(
        self,
        environment,
        policy=None,
        critics=None,
        optimizer=None,
        critic_optimizer=None,
        temperature_optimizer=None,
        temperature=None,
        target_entropy=None,
        target_rate=0.005,
        batch_size=256,
        capacity=100_000,
        learning_starts=100,
        rollout_length=8,
        updates=None,
        discount=0.99,
        num_envs=1,
        horizon=None,
        seed=None,
    ):
        self.discount = check_number("discount", discount, 0, 1)
        self.batch_size = check_count("batch_size", batch_size)
        self.learning_starts = check_count("learning_starts", learning_starts, least=0)
        self.replay = ReplayBuffer(capacity)
        environments = Environments(environment, num_envs, spaces=("Box",))
        config = {
            "temperature": temperature,
            "target_entropy": target_entropy,
            "target_rate": target_rate,
            "batch_size": batch_size,
            "capacity": capacity,
            "learning_starts": learning_starts,
            "updates": updates,
            "discount": discount,
            "num_envs": num_envs,
        }
        super().__init__(environments, seed, horizon, rollout_length, config)
        if updates is None:
            updates = rollout_length * environments.count
        self.updates = check_count("updates", updates)
        shape, self.size = (
            environments.observation_shape,
            environments.distribution.size,
        )
        environments.distribution = TanhGaussian(self.size)
        seeds = [self.number(WEIGHTS, n) for n in range(3)]
        if policy is None:
            policy = dense_network(
                shape, 2 * self.size, 0.01, seeds[0], "policy", "relu"
            )
        if critics is None:
            critics = [
                dense_critic(shape, self.size, seed, f"critic_{n}")
                for n, seed in enumerate(seeds[1:])
            ]
        learner = SoftActorCritic(
            policy, critics, temperature, target_entropy, target_rate, name="learner"
        )
        seen = {"observations": shape}
        check_network("policy", policy, seen, (2 * self.size,))
        for critic in critics:
            check_network("critic", critic, {**seen, "actions": (self.size,)}, (1,))
        check_separate(policy=policy, first_critic=critics[0], second_critic=critics[1])
        optimizers = {
            "policy": optimizer or keras.optimizers.Adam(0.001),
            "critics": critic_optimizer or keras.optimizers.Adam(0.001),
        }
        if temperature is None:
            optimizers["temperature"] = temperature_optimizer or keras.optimizers.Adam(
                0.001
            )
        learner.build((None, *shape))
        learner.compile(CompositeOptimizer(optimizers))
        self.attach(learner)

    logged = ("critic_loss", "policy_loss", "entropy", "temperature")

    def explore(self, observations, random):
        """Actions while learning: evenly drawn at first, then by the policy."""
        if self.played < self.learning_starts:
            shape = (len(observations), self.size)
            return random.uniform(-1.0, 1.0, shape).astype("float32")
        return super().explore(observations, random)

    def digest(self, segment, random):
        """Remember the segment, and learn from memory."""
        dtype = self.environments.observation_dtype
        self.replay.add(**n_step_transitions(segment, 1, self.discount, dtype))
        if self.played < self.learning_starts or not len(self.replay):
            return {}
        shape = (self.updates, self.batch_size)
        drawn = self.replay.sample(shape, random)
        noise = random.standard_normal((*shape, 2, self.size)).astype("float32")
        before, after = (
            drawn[name].astype("float32", copy=False)
            for name in ("observation", "following")
        )
        y = (drawn["action"], drawn["reward"], after, drawn["discount"], noise)
        logs = self.learner.train_on_batches((before, y))
        return {name: float(values.mean()) for name, values in logs.items()}

    def arrays(self):
        """The replay memory."""
        return self.replay.arrays()

    def restore(self, arrays):
        """Take back the replay memory."""
        self.replay.restore(arrays)

    @staticmethod
    def parts_of(learner):
        """The networks of a loaded learner; it has its optimizers itself."""
        return {"policy": learner.policy, "critics": learner.critics}


def dense_critic(observation_shape, size, seed, name):
    """The default critic: two hidden layers of 64 units on observation and action."""
    observations, actions = keras.Input(observation_shape), keras.Input((size,))
    flat = observations
    if len(observation_shape) != 1:
        flat = keras.layers.Flatten()(observations)
    joined = keras.layers.Concatenate()([flat, actions])
    dense = dense_network((joined.shape[-1],), 1, 1.0, seed, name, "relu")
    return keras.Model([observations, actions], dense(joined), name=name)
