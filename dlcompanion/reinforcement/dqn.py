"""Deep Q-learning: the table of action values becomes a network."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agent import WEIGHTS
from dlcompanion.reinforcement.deep_q import DeepQ
from dlcompanion.reinforcement.environments import Environments
from dlcompanion.reinforcement.network_checks import check_network
from dlcompanion.reinforcement.numpy_policy import dense_network
from dlcompanion.reinforcement.replay_buffer import ReplayBuffer, n_step_transitions
from dlcompanion.reinforcement.segment_agent import SegmentAgent


class DQN(SegmentAgent):
    r"""Deep Q-learning: learns what each action is worth, from what it remembers.

    Q-learning moves the value of an action towards the reward and the value of the best
    action that follows. With a network in place of the table two things break it: steps
    that follow one another are alike, and each step moves its own target. So the agent
    learns from a *replay memory*, steps of all the past drawn at random, and towards a
    *target network*, an older copy of itself:

    .. math:: Q(s, a) \leftarrow r + \gamma \max_{a'} Q^-(s', a')

    It plays ``rollout_length`` steps in each environment, remembers them, makes
    ``gradient_steps`` steps of descent, and plays on. With probability
    :math:`\varepsilon` it plays any action, else the best it knows; :math:`\varepsilon`
    falls from 1 to ``final_exploration`` over the first ``exploration_steps`` steps.

    All environments are reset, and play ``horizon`` steps each, episode after episode:
    that is one *epoch* of ``fit``, which logs ``epsilon``, and, NaN until it learns,
    ``loss`` and ``value_mean``, the mean value of the actions learned from. After a
    step that *terminates* nothing follows; an episode that is *cut* is worth what the
    network says.

    ``predict(deterministic=False)`` explores as the agent does at this point of its
    learning. A network that is a chain of dense layers acts in NumPy, any other through
    a compiled call. Networks are called with ``training=False``: dropout does nothing.
    The file of ``save`` has the memory in it.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            environment, or vector environment (``NEXT_STEP`` or ``SAME_STEP``
            autoreset), with a Box of observations and Discrete actions.
        network: :class:`keras.Model` from observations to values, one an action. By
            default two hidden layers of 64 rectified units.
        optimizer: Keras optimizer. By default Adam with learning rate 0.0023, and
            gradients whose norm is 10 at most.
        double: Boolean, whether the network chooses the action whose value the target
            network gives.
        discount: Number :math:`\gamma` in [0, 1].
        batch_size: Positive integer, the remembered steps of one step of descent.
        buffer_size: Integer of at least ``batch_size``, the steps remembered. With the
            size of a rollout there is in effect no memory.
        learning_starts: Integer of at least ``batch_size``, the steps played before the
            first step of descent.
        rollout_length: Positive integer, the steps in each environment between two
            phases of learning.
        gradient_steps: Positive integer, the steps of descent of a phase.
        target_every: Positive integer, the steps of descent after which the target
            network is renewed. With 1 there is in effect none.
        delta: Positive number, the error up to which the loss is the square
            (:func:`~dlcompanion.reinforcement.q_learning_loss`). Take it in the size of
            the returns: much smaller, the network learns their median.
        jit_compile: Boolean or ``"auto"``, as in :meth:`keras.Model.compile`. On
            TensorFlow ``True`` costs a second or two at first and then makes the steps
            of a small network some three times as fast.
        exploration_steps: Positive integer, the steps over which exploration falls.
        final_exploration: Number in [0, 1].
        num_envs: Positive integer. Of an environment or vector environment it is the
            number that that one has.
        horizon: Positive integer, the steps of an epoch and the most of an episode, or
            None for the environment's own time limit (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Decides weights,
            resets, actions and what is remembered when.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or the network does not fit the spaces.

    Example:
        >>> agent = DQN("CartPole-v1", horizon=64, learning_starts=256, seed=0)
        >>> history = agent.fit(steps=1_000, verbose=0)
        >>> sorted(history.history)[:3]
        ['epsilon', 'length_mean', 'loss']
        >>> agent.predict(np.zeros(4, "float32")) in (0, 1)
        True

    References:
        Mnih et al., *Human-level control through deep reinforcement learning*, 2015.
        https://doi.org/10.1038/nature14236

        van Hasselt, Guez and Silver, *Deep Reinforcement Learning with Double
        Q-learning*, 2016. https://arxiv.org/abs/1509.06461
    """

    def __init__(
        self,
        environment,
        network=None,
        optimizer=None,
        double=False,
        discount=0.99,
        batch_size=64,
        buffer_size=100_000,
        learning_starts=1_000,
        rollout_length=32,
        gradient_steps=128,
        target_every=128,
        delta=1.0,
        jit_compile="auto",
        exploration_steps=8_000,
        final_exploration=0.04,
        num_envs=8,
        horizon=None,
        seed=None,
    ):
        self.discount = check_number("discount", discount, 0, 1)
        self.batch_size = check_count("batch_size", batch_size)
        self.gradient_steps = check_count("gradient_steps", gradient_steps)
        self.exploration_steps = check_count("exploration_steps", exploration_steps)
        self.final_exploration = check_number(
            "final_exploration", final_exploration, 0, 1
        )
        if jit_compile not in (True, False, "auto"):
            raise ValueError(
                'jit_compile must be True, False or "auto". '
                f"Received: jit_compile={jit_compile!r}"
            )
        sizes = {"buffer_size": buffer_size, "learning_starts": learning_starts}
        for name, value in sizes.items():
            if check_count(name, value) < batch_size:
                raise ValueError(
                    f"{name} must be at least batch_size, so that there is enough to "
                    f"learn from. Received: {name}={value}, batch_size={batch_size}"
                )
        self.learning_starts = learning_starts
        environments = Environments(environment, num_envs)
        config = {
            "double": bool(double),
            "discount": discount,
            "batch_size": batch_size,
            **sizes,
            "gradient_steps": gradient_steps,
            "target_every": target_every,
            "delta": delta,
            "jit_compile": jit_compile,
            "exploration_steps": exploration_steps,
            "final_exploration": final_exploration,
            "num_envs": num_envs,
        }
        super().__init__(environments, seed, horizon, rollout_length, config)
        self.replay = self.make_replay(buffer_size)
        shape, actions = environments.observation_shape, environments.actions
        if network is None:
            network = self.make_network(shape, actions, self.number(WEIGHTS, 0))
        self.check_network(network, shape, actions)
        learner = self.make_learner(network, double, target_every, delta)
        learner.build((None, *shape))
        optimizer = optimizer or keras.optimizers.Adam(0.0023, global_clipnorm=10.0)
        learner.compile(optimizer, jit_compile=jit_compile)
        self.attach(learner)

    n_step = 1
    logged = ("epsilon", "loss", "value_mean")

    def make_replay(self, buffer_size):
        """The memory."""
        return ReplayBuffer(buffer_size)

    def make_network(self, shape, actions, seed):
        """The network, if none was given."""
        return dense_network(shape, actions, 1.0, seed, "network", "relu")

    def check_network(self, network, shape, actions):
        """Refuse a network that does not fit the spaces."""
        check_network("network", network, {"observations": shape}, (actions,))

    def make_learner(self, network, double, target_every, delta):
        """What learns."""
        return DeepQ(network, None, double, target_every, delta, name="learner")

    @property
    def epsilon(self):
        """The share of actions that are played at random, at this point."""
        done = max(self.steps, self.played) / self.exploration_steps
        return 1.0 - min(done, 1.0) * (1.0 - self.final_exploration)

    def _sample(self, observations, random):
        actions = self._best(observations)
        anything = random.integers(self.environments.actions, size=actions.shape)
        return np.where(random.random(actions.shape) < self.epsilon, anything, actions)

    def digest(self, segment, random):
        """Remember a segment, and learn from what is remembered."""
        logs = {"epsilon": self.epsilon}
        dtype = self.environments.observation_dtype
        steps = n_step_transitions(segment, self.n_step, self.discount, dtype)
        self.replay.add(**steps)
        if self.replay.added < self.learning_starts:
            return logs
        rows = self.replay.draw((self.gradient_steps, self.batch_size), random)
        found = self.learn_from(rows)
        return {
            **logs,
            "loss": float(found["loss"][-1]),  # a running mean: the last has it whole
            "value_mean": float(found["value_mean"].mean()),
        }

    def learn_from(self, rows, weights=None):
        """Make a step of descent for each batch of remembered steps.

        Args:
            rows: Integer array ``(steps, batch)``, where they are in the memory.
            weights: Array of that shape, or None for ones.

        Returns:
            Dict from name to array, what each step logged.
        """
        batch = self.replay.take(rows)
        before, after = (
            batch[name].astype("float32", copy=False)
            for name in ("observation", "following")
        )
        data = before, (batch["action"], batch["reward"], after, batch["discount"])
        if weights is not None:
            data = *data, weights
        return self.learner.train_on_batches(data)

    def arrays(self):
        """The memory, the target network and its age."""
        target = [*self.learner.target_network.variables, self.learner.updates]
        target = {f"target.{n}": ops.convert_to_numpy(w) for n, w in enumerate(target)}
        return {**self.replay.arrays(), **target}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave."""
        self.replay.restore(arrays)
        target = [*self.learner.target_network.variables, self.learner.updates]
        for n, variable in enumerate(target):
            variable.assign(arrays[f"target.{n}"])

    @staticmethod
    def parts_of(learner):
        """The network and optimizer of a loaded learner."""
        return {"network": learner.network, "optimizer": learner.optimizer}
