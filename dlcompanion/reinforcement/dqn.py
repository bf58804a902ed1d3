"""Deep Q-learning: the table of action values becomes a network."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_jit_compile, check_number
from dlcompanion.reinforcement.agents.agent import WEIGHTS
from dlcompanion.reinforcement.agents.replay_buffer import (
    ReplayBuffer,
    n_step_transitions,
    train_from,
)
from dlcompanion.reinforcement.agents.rollout_agent import RolloutAgent
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.networks.action_mask import is_forbidden
from dlcompanion.reinforcement.networks.dense_network import dense_network
from dlcompanion.reinforcement.networks.network_checks import check_network
from dlcompanion.reinforcement.networks.target_networks import (
    TargetedModel,
    freeze,
    frozen_copy,
)


def q_learning_targets(rewards, discounts, next_values, choice=None):
    r"""Targets of the values of the actions taken.

    .. math:: y = R + \gamma\, Q^-(s', a'), \qquad
        a' = \operatorname{argmax}_a Q^-(s', a) \text{ or }
        \operatorname{argmax}_a Q(s', a)

    In the first the maximum of noisy estimates is biased upwards (maximization bias);
    in the second (*double* Q-learning) one network chooses the action and the other
    gives its value.

    Args:
        rewards: Tensor :math:`R` ``(batch,)``.
        discounts: Tensor :math:`\gamma` ``(batch,)``, 0 where the episode terminated.
        next_values: Tensor :math:`Q^-(s', \cdot)` ``(batch, actions)``, of the target
            network.
        choice: Tensor :math:`Q(s', \cdot)` of the same shape that chooses the action,
            or None if the target network chooses itself.

    Returns:
        Tensor ``(batch,)`` through which no gradient flows.

    Example:
        >>> rewards, discounts, next_values = [1.0], [1.0], [[1.0, 5.0]]
        >>> print(float(q_learning_targets(rewards, discounts, next_values)[0]))
        6.0
        >>> choice = [[2.0, 0.0]]
        >>> print(float(q_learning_targets(rewards, discounts, next_values, choice)[0]))
        2.0
    """
    next_values = ops.convert_to_tensor(next_values)
    choice = next_values if choice is None else ops.convert_to_tensor(choice)
    best = ops.one_hot(ops.argmax(choice, axis=-1), choice.shape[-1])
    value = ops.sum(next_values * ops.cast(best, next_values.dtype), axis=-1)
    return ops.stop_gradient(
        ops.cast(rewards, value.dtype) + ops.cast(discounts, value.dtype) * value
    )


def values_taken(values, actions):
    """The values of the actions taken.

    Args:
        values: Tensor ``(batch, actions)``.
        actions: Integer tensor ``(batch,)``.

    Returns:
        Tensor ``(batch,)``.

    Example:
        >>> print(float(values_taken([[1.0, 5.0]], [1])[0]))
        5.0
    """
    values = ops.convert_to_tensor(values)
    taken = ops.one_hot(ops.cast(actions, "int32"), values.shape[-1])
    return ops.sum(values * ops.cast(taken, values.dtype), axis=-1)


def q_learning_loss(values, actions, targets, weights=None, delta=1.0):
    r"""Huber's loss of the values of the actions taken.

    .. math:: \frac1n \sum_i w_i\, h\bigl(y_i - Q(s_i, a_i)\bigr), \qquad
        h(e) = \begin{cases} e^2 / 2 & |e| \le \delta \\
        \delta\, |e| - \delta^2 / 2 & \text{else} \end{cases}

    The square aims at the mean of the targets, the straight part at their median: where
    the errors are many times :math:`\delta`, a fall that is rare counts for nothing.

    Args:
        values: Tensor :math:`Q(s, \cdot)` ``(batch, actions)``.
        actions: Integer tensor ``(batch,)``.
        targets: Tensor :math:`y` ``(batch,)``, of :func:`q_learning_targets`.
        weights: Tensor :math:`w` ``(batch,)``, or None for ones.
        delta: Positive number :math:`\delta`.

    Returns:
        Scalar tensor.

    Example:
        >>> print(float(q_learning_loss([[1.0, 5.0]], [1], [4.5])))
        0.125
    """
    taken = values_taken(values, actions)
    targets = ops.cast(targets, taken.dtype)
    each = keras.losses.huber(targets[:, None], taken[:, None], delta)
    return ops.mean(each if weights is None else ops.cast(weights, each.dtype) * each)


@keras.saving.register_keras_serializable(package="dlcompanion")
class DeepQ(TargetedModel):
    r"""A network of action values and its target network.

    One step of training, on observations with
    ``y = (actions, rewards, next_observations, discounts)`` and optional weights,
    descends the gradient of

    .. math:: \frac1n \sum_i w_i\, h\bigl(R_i + \gamma_i \max_a Q^-(s'_i, a)
        - Q(s_i, a_i)\bigr) ,

    with Huber's :math:`h` (:func:`q_learning_loss`). :math:`Q^-` is the target network:
    :math:`Q` as it was before one of the last ``target_update_interval`` steps. Both
    are called with ``training=False``, as :math:`Q` is when the agent acts.

    Args:
        network: :class:`keras.Model` from observations to values ``(batch, actions)``.
        target_network: Another one like it, or None for a copy of ``network``.
        double: Boolean, whether ``network`` chooses the action that ``target_network``
            values.
        target_update_interval: Positive integer, the steps between two copies of the
            network to the target network. 1 disables the target network.
        delta: Positive number, the error up to which :math:`h` is the square.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Values ``(batch, actions)``.

    Raises:
        ValueError: If ``target_update_interval`` is not a positive integer or ``delta``
            not a positive number.

    Example:
        >>> network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> tuple(DeepQ(network)(ops.ones((5, 3))).shape)
        (5, 2)

    References:
        Mnih et al., *Human-level control through deep reinforcement learning*, 2015.
        https://doi.org/10.1038/nature14236
    """

    def __init__(
        self,
        network,
        target_network=None,
        double=False,
        target_update_interval=128,
        delta=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.delta = check_number("delta", delta)
        if not self.delta:
            raise ValueError(f"delta must be positive. Received: delta={delta}")
        self.target_update_interval = check_count(
            "target_update_interval", target_update_interval
        )
        self.double = bool(double)
        self.network = self.policy = network
        self.target_network = target_network or frozen_copy(network)
        freeze(self.target_network)

    @property
    def target_networks(self):
        return [self.target_network]

    def build(self, input_shape):
        freeze(self.target_network)  # what it has built since, too
        self.updates = self.add_weight(
            name="updates", shape=(), dtype="int", initializer="zeros", trainable=False
        )

    def call(self, inputs):
        return self.outputs_of(self.network, inputs)

    def outputs_of(self, network, observations):
        """Outputs of a network, in float32 in any mixed precision.

        Args:
            network: The network or its older copy.
            observations: Tensor ``(batch, ...)``.

        Returns:
            Tensor ``(batch, actions)``.
        """
        return ops.cast(network(observations, training=False), "float32")

    def targets(self, rewards, next_observations, discounts):
        """Targets of the values of the actions taken.

        Args:
            rewards: Tensor ``(batch,)``.
            next_observations: Observations ``(batch, ...)``.
            discounts: Tensor ``(batch,)``.

        Returns:
            Tensor ``(batch,)``.
        """
        values = self.outputs_of(self.target_network, next_observations)
        choice = (
            self.outputs_of(self.network, next_observations) if self.double else None
        )
        return q_learning_targets(rewards, discounts, values, choice)

    def loss_and_errors(self, observations, actions, targets, weights):
        """The loss of a batch.

        Args:
            observations: Tensor ``(batch, ...)``.
            actions: Integer tensor ``(batch,)``.
            targets: What :meth:`targets` gave.
            weights: Tensor ``(batch,)``, or None for ones.

        Returns:
            ``(loss, (taken, errors))``: a scalar, the values of the actions taken and
            their errors, ``(batch,)`` both.
        """
        values = self.outputs_of(self.network, observations)
        loss = q_learning_loss(values, actions, targets, weights, self.delta)
        taken = values_taken(values, actions)
        return loss, (taken, targets - taken)

    def update(self, data):
        observations, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        actions, rewards, next_observations, discounts = y
        self._renew_target()
        targets = self.targets(rewards, next_observations, discounts)

        def loss():
            return self.loss_and_errors(observations, actions, targets, weights)

        value, (taken, errors) = self.descend(
            loss, self.network.trainable_variables, has_aux=True
        )
        return {"loss": value, "value_mean": ops.mean(taken), "errors": errors}

    def _renew_target(self):
        now = ops.equal(ops.mod(self.updates.value, self.target_update_interval), 0)
        pairs = zip(self.target_network.weights, self.network.weights, strict=True)
        for old, new in pairs:
            old.assign(ops.where(now, new.value, old.value))
        self.updates.assign_add(1)

    def get_config(self):
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "target_network": keras.saving.serialize_keras_object(self.target_network),
            "double": self.double,
            "target_update_interval": self.target_update_interval,
            "delta": self.delta,
        }


class DQNParts(NamedTuple):
    """What DQN makes itself of; Rainbow is DQN with other parts.

    Attributes:
        network: Function of the shape of an observation, the number of actions, a seed
            and what observations are multiplied with: the network that is made if none
            is given.
        outputs: Tuple, the shape of what a network gives for each action.
        learner: Function of a network and the arguments of ``DeepQ``.
        replay: Function of ``buffer_size``: the replay memory.

    Example:
        >>> DQN_PARTS.network((4,), 2, seed=0).output_shape
        (None, 2)
    """

    network: Callable
    outputs: tuple
    learner: Callable
    replay: Callable


def _rectified(shape, actions, seed, scale=1.0):
    return dense_network(shape, actions, 1.0, seed, "network", "relu", scale=scale)


DQN_PARTS = DQNParts(_rectified, (), DeepQ, ReplayBuffer)


class DQN(RolloutAgent):
    r"""Deep Q-learning: action values by a network, with replay and a target network.

    Q-learning moves the value of an action towards the reward and the value of the best
    action that follows. With a network in place of the table two things break it: steps
    that follow one another are alike, and each step moves its own target. So the agent
    learns from a *replay memory*, random minibatches of stored steps, and towards a
    *target network*, an older copy of the network:

    .. math:: Q(s, a) \leftarrow r + \gamma \max_{a'} Q^-(s', a')

    It makes ``rollout_length`` steps in each environment, stores them, makes
    ``gradient_steps`` updates, and goes on. With probability :math:`\varepsilon` the
    action is random, else the one of the largest value; :math:`\varepsilon` falls from
    1 to ``final_exploration`` over the first ``exploration_steps`` steps.

    An *epoch* of ``fit`` resets all environments and makes ``horizon`` steps in each,
    episode after episode. It logs ``epsilon``, and, NaN before the first update,
    ``loss`` and ``value_mean``, the mean value of the actions learned from. The target
    is bootstrapped when an episode is truncated, and not when it terminates.

    ``predict(deterministic=False)`` explores as the agent does at this point of its
    learning. A network that is a chain of dense layers acts in NumPy, any other through
    a compiled call. Networks are called with ``training=False``: dropout does nothing.
    The file of ``save`` has the memory in it.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            environment, or vector environment (``NEXT_STEP`` or ``SAME_STEP``
            autoreset), with a Box of observations and Discrete actions.
        network: :class:`keras.Model` from observations to values, one an action. By
            default two hidden layers of 64 rectified units, before which bytes are
            divided by 255.
        optimizer: Keras optimizer. By default Adam with learning rate 0.0023, and
            gradients whose norm is 10 at most.
        double: Boolean, whether the network chooses the action whose value the target
            network gives.
        discount: Number :math:`\gamma` in [0, 1].
        batch_size: Positive integer, the stored steps in a minibatch.
        buffer_size: Integer of at least ``batch_size``, the steps that the replay
            memory holds. With the size of a rollout there is in effect no memory.
        learning_starts: Integer of at least ``batch_size``, the steps before the
            first update.
        rollout_length: Positive integer, the steps of each environment between two
            phases of learning.
        gradient_steps: Positive integer, the updates after each rollout.
        target_update_interval: Positive integer, the gradient steps between two copies
            of the network to the target network. 1 disables the target network.
        delta: Positive number, the error up to which the loss is the square
            (``q_learning_loss``), of the order of the returns: with a much smaller
            one the network learns their median.
        jit_compile: Boolean or ``"auto"``, as in :meth:`keras.Model.compile`. On
            TensorFlow ``True`` costs a second or two at first and then makes the steps
            of a small network some three times as fast.
        exploration_steps: Positive integer, the environment steps over which
            :math:`\varepsilon` falls.
        final_exploration: Number in [0, 1], :math:`\varepsilon` after them.
        num_envs: Positive integer, the environments played in parallel. Ignored if
            ``environment`` is already an environment or vector environment.
        horizon: Positive integer, the steps of each environment in an epoch, after
            which an episode is truncated, or None for the environment's own time limit
            (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Seeds weights,
            resets, actions and minibatches.
        parts: ``DQNParts``, for subclasses.

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
        target_update_interval=128,
        delta=1.0,
        jit_compile="auto",
        exploration_steps=8_000,
        final_exploration=0.04,
        num_envs=8,
        horizon=None,
        seed=None,
        parts=DQN_PARTS,
    ):
        self.discount = check_number("discount", discount, 0, 1)
        self.batch_size = check_count("batch_size", batch_size)
        self.gradient_steps = check_count("gradient_steps", gradient_steps)
        self.exploration_steps = check_count("exploration_steps", exploration_steps)
        self.final_exploration = check_number(
            "final_exploration", final_exploration, 0, 1
        )
        check_jit_compile(jit_compile)
        sizes = {"buffer_size": buffer_size, "learning_starts": learning_starts}
        _check_sizes(batch_size, **sizes)
        self.learning_starts = learning_starts
        self.replay = parts.replay(buffer_size)
        environments = Environments(environment, num_envs)
        settings = {
            "double": bool(double),
            "target_update_interval": target_update_interval,
            "delta": delta,
        }
        config = {
            **settings,
            **sizes,
            "discount": discount,
            "batch_size": batch_size,
            "gradient_steps": gradient_steps,
            "jit_compile": jit_compile,
            "exploration_steps": exploration_steps,
            "final_exploration": final_exploration,
            "num_envs": num_envs,
        }
        super().__init__(environments, seed, horizon, rollout_length, config)
        shape, actions = environments.observation_shape, environments.actions
        if network is None:
            seed = self.number(WEIGHTS, 0)
            network = parts.network(shape, actions, seed, self.default_scale())
        _check_values(network, shape, (actions, *parts.outputs))
        learner = parts.learner(network, **settings, name="learner")
        learner.build((None, *shape))
        optimizer = optimizer or keras.optimizers.Adam(0.0023, global_clipnorm=10.0)
        learner.compile(optimizer, jit_compile=jit_compile)
        self.attach(learner)

    n_step = 1
    logged = ("epsilon", "loss", "value_mean")

    @property
    def epsilon(self):
        """The current probability of a random action."""
        done = max(self.steps, self.played) / self.exploration_steps
        return 1.0 - min(done, 1.0) * (1.0 - self.final_exploration)

    def _actions(self, outputs, deterministic, random):
        best = self.environments.distribution.best(outputs)
        if deterministic:
            return best
        anything = random.integers(self.environments.actions, size=best.shape)
        exploring = random.random(best.shape) < self.epsilon
        forbidden = is_forbidden(outputs)
        if forbidden.any():  # what the network forbids is not explored either
            chance = np.where(forbidden, -1.0, random.random(outputs.shape))
            anything = chance.argmax(axis=-1)
        return np.where(exploring, anything, best)

    def learn_from_rollout(self, rollout, random):
        """Store a rollout, and learn from minibatches of the replay memory."""
        logs = {"epsilon": self.epsilon}
        dtype = self.environments.observation_dtype
        steps = n_step_transitions(rollout, self.n_step, self.discount, dtype)
        self.replay.add(**steps)
        if self.replay.added < self.learning_starts:
            return logs
        rows = self.replay.draw((self.gradient_steps, self.batch_size), random)
        found = self.learn_from(rows)
        return {
            **logs,
            "loss": float(found["loss"].mean()),
            "value_mean": float(found["value_mean"].mean()),
        }

    def learn_from(self, rows, weights=None):
        """Make one gradient step for each minibatch.

        Args:
            rows: Integer array ``(steps, batch)``, where they are in the memory.
            weights: Array of that shape, or None for ones.

        Returns:
            Dict from name to array, as ``train_from`` returns it.
        """
        return train_from(self.replay, self.learner, rows, weights=weights)

    def arrays(self):
        """The memory, the target network and its age."""
        target = [*self.learner.target_network.variables, self.learner.updates]
        target = {f"target.{n}": ops.convert_to_numpy(w) for n, w in enumerate(target)}
        return {**super().arrays(), **self.replay.arrays(), **target}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave."""
        super().restore(arrays)
        self.replay.restore(arrays)
        target = [*self.learner.target_network.variables, self.learner.updates]
        for n, variable in enumerate(target):
            variable.assign(arrays[f"target.{n}"])

    @staticmethod
    def parts_of(learner):
        """The network and optimizer of a loaded learner."""
        return {"network": learner.network, "optimizer": learner.optimizer}


def _check_sizes(batch_size, **sizes):
    for name, value in sizes.items():
        if check_count(name, value) < batch_size:
            raise ValueError(
                f"{name} must be at least batch_size, so that there is enough to "
                f"learn from. Received: {name}={value}, batch_size={batch_size}"
            )


def _check_values(network, shape, outputs):
    remark = "logits of a distribution for each action" if len(outputs) > 1 else ""
    check_network("network", network, {"observations": shape}, outputs, remark)
