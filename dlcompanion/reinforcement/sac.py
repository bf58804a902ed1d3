"""Soft actor-critic: real actions, learned off-policy from a replay memory."""

import keras
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
from dlcompanion.reinforcement.networks.dense_network import dense_critic, dense_network
from dlcompanion.reinforcement.networks.network_checks import (
    check_network,
    check_separate,
)
from dlcompanion.reinforcement.networks.tanh_gaussian import TanhGaussian
from dlcompanion.reinforcement.networks.target_networks import (
    TargetedModel,
    frozen_copy,
)
from dlcompanion.training import CompositeOptimizer


def soft_targets(rewards, discounts, values, log_probs, temperature):
    r"""Targets of the critics: the reward, and the soft value of the next state.

    .. math:: y = r + \gamma \Bigl(\min_k q_k(s', a')
        - \alpha \log \pi(a' \mid s')\Bigr)

    Args:
        rewards: Tensor ``(batch,)``.
        discounts: Tensor ``(batch,)``: :math:`\gamma`, or 0 where the episode
            terminated.
        values: Tensor ``(critics, batch)`` of an action drawn in the next state.
        log_probs: Tensor ``(batch,)`` of these actions.
        temperature: Scalar :math:`\alpha`.

    Returns:
        Tensor ``(batch,)``.

    Example:
        >>> y = soft_targets(1.0, 0.5, ops.array([[4.0], [6.0]]), 1.0, temperature=2.0)
        >>> float(y[0])
        2.0
    """
    return rewards + discounts * (ops.min(values, axis=0) - temperature * log_probs)


def soft_critic_loss(values, targets):
    r"""Half the squared errors of all critics.

    .. math:: \frac{1}{2n} \sum_k \sum_i \bigl(q_k(s_i, a_i) - y_i\bigr)^2

    Args:
        values: Tensor ``(critics, batch)``.
        targets: Tensor ``(batch,)``.

    Returns:
        Scalar tensor.

    Example:
        >>> float(soft_critic_loss(ops.array([[1.0], [3.0]]), ops.array([2.0])))
        1.0
    """
    return 0.5 * ops.sum(ops.mean(ops.square(values - targets), axis=-1))


def soft_policy_loss(values, log_probs, temperature):
    r"""Loss of the policy: negative entropy, less the value of its actions.

    .. math:: \frac1n \sum_i \alpha \log \pi(a_i \mid s_i) - \min_k q_k(s_i, a_i)

    Args:
        values: Tensor ``(critics, batch)`` of actions that the policy drew.
        log_probs: Tensor ``(batch,)`` of these actions.
        temperature: Scalar :math:`\alpha`.

    Returns:
        Scalar tensor.

    Example:
        >>> values, log_probs = ops.array([[4.0], [6.0]]), ops.array([1.0])
        >>> float(soft_policy_loss(values, log_probs, temperature=2.0))
        -2.0
    """
    return ops.mean(temperature * log_probs - ops.min(values, axis=0))


def entropy_temperature_loss(log_temperature, log_probs, target_entropy):
    r"""Loss of the temperature, which rises while the entropy is below its target.

    .. math:: -\log \alpha \; \frac1n \sum_i
        \bigl(\log \pi(a_i \mid s_i) + \bar{\mathcal H}\bigr)

    The paper has :math:`\alpha` in place of :math:`\log \alpha`; the gradient has the
    same sign, and does not vanish with the temperature.

    Args:
        log_temperature: Scalar :math:`\log \alpha`.
        log_probs: Tensor ``(batch,)``.
        target_entropy: Number :math:`\bar{\mathcal H}`.

    Returns:
        Scalar tensor.

    Example:
        >>> float(entropy_temperature_loss(0.5, ops.array([3.0]), -1.0))
        -1.0
    """
    return -log_temperature * ops.mean(log_probs + target_entropy)


@keras.saving.register_keras_serializable(package="dlcompanion")
class SoftActorCritic(TargetedModel):
    r"""Trains a policy, two critics with target networks, and a temperature.

    One step of training, on observations :math:`s` with ``y = (actions, rewards,
    next_observations, discounts, noise)``, descends the gradients of
    :func:`soft_critic_loss`, then :func:`soft_policy_loss`, then
    :func:`entropy_temperature_loss`, and moves each target

    .. math:: \bar\theta_k \leftarrow \bar\theta_k + \tau (\theta_k - \bar\theta_k) .

    The noise ``(batch, 2, size)`` is standard normal, for the actions in :math:`s` and
    in the next states: given as data, it makes a step a function of its inputs.
    The critics' targets come from the slow copies, the policy's from the critics
    themselves. All networks are called with ``training=False``. Compile it with a
    :class:`~dlcompanion.training.CompositeOptimizer` of ``"policy"``, ``"critics"``
    and, unless the temperature is given, ``"temperature"``.

    Args:
        policy: :class:`keras.Model` from observations to ``[mean, log_std]``
            ``(batch, 2 * size)``, of a
            ``TanhGaussian``.
        critics: List of two models from ``[observations, actions]`` to values
            ``(batch, 1)``.
        temperature: Number :math:`\alpha` of at least 0, or None for one that is
            learned, beginning with 1.
        target_entropy: Number :math:`\bar{\mathcal H}` in nats, or None for minus the
            number of actions played at a time.
        tau: Number :math:`\tau` in [0, 1].
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Outputs of the policy ``(batch, 2 * size)``, and the smaller of the critics'
        values ``(batch,)`` of its median action.

    Raises:
        ValueError: If there are not two critics, or a number is none of the above.

    Example:
        >>> x, a = keras.Input((3,)), keras.Input((1,))
        >>> joined = keras.layers.Concatenate()([x, a])
        >>> critics = [keras.Model([x, a], keras.layers.Dense(1)(joined)) for _ in "12"]
        >>> policy = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> outputs, values = SoftActorCritic(policy, critics)(ops.ones((5, 3)))
        >>> tuple(outputs.shape), tuple(values.shape)
        ((5, 2), (5,))
    """

    def __init__(
        self,
        policy,
        critics,
        temperature=None,
        target_entropy=None,
        tau=0.005,
        **kwargs,
    ):
        super().__init__(**kwargs)
        pair = isinstance(critics, (list, tuple)) and len(critics) == 2
        if not pair or not all(isinstance(x, keras.Model) for x in critics):
            raise ValueError(
                "critics must be a list of two models, keras.Model: the smaller value "
                f"counts. Received: critics={critics!r}"
            )
        if temperature is not None:
            check_number("temperature", temperature)
        if target_entropy is not None:
            check_number("target_entropy", target_entropy, low=-float("inf"))
        self.temperature = temperature
        self.target_entropy = target_entropy
        self.tau = check_number("tau", tau, 0, 1)
        self.policy = policy
        self.critics = list(critics)
        self.targets = [frozen_copy(critic) for critic in critics]

    @property
    def target_networks(self):
        return self.targets

    def build(self, input_shape):
        # the networks were built by whoever made them
        self.log_temperature = None
        if self.temperature is None:
            self.log_temperature = self.add_weight(
                shape=(), initializer="zeros", name="log_temperature"
            )

    def call(self, inputs):
        outputs = self._outputs(inputs)
        best = ops.tanh(outputs[:, : outputs.shape[-1] // 2])
        return outputs, ops.min(_values(self.critics, inputs, best), axis=0)

    def _outputs(self, observations):
        outputs = self.policy(observations, training=False)
        return ops.cast(outputs, "float32")  # whatever the network computes in

    def update(self, data):
        observations, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        actions, rewards, next_observations, discounts, noise = y
        size = actions.shape[-1]
        draw = TanhGaussian(size).draw
        goal = -float(size) if self.target_entropy is None else self.target_entropy
        learned = self.log_temperature is not None
        temperature = self.temperature
        if learned:
            temperature = ops.exp(ops.cast(self.log_temperature.value, "float32"))

        after, log_probs_after = draw(self._outputs(next_observations), noise[:, 1])
        worth = _values(self.targets, next_observations, after)
        expected = ops.stop_gradient(
            soft_targets(rewards, discounts, worth, log_probs_after, temperature)
        )

        def on_critics():
            values = _values(self.critics, observations, actions)
            return soft_critic_loss(values, expected)

        def on_policy():
            drawn, log_probs = draw(self._outputs(observations), noise[:, 0])
            values = _values(self.critics, observations, drawn)
            return soft_policy_loss(values, log_probs, temperature), log_probs

        critic_loss = self.descend(on_critics, _trainable(self.critics))
        policy_loss, log_probs = self.descend(
            on_policy, self.policy.trainable_variables, has_aux=True
        )
        log_probs = ops.stop_gradient(log_probs)

        def on_temperature():
            log = ops.cast(self.log_temperature.value, log_probs.dtype)
            return entropy_temperature_loss(log, log_probs, goal)

        if learned and self.log_temperature.trainable:
            self.descend(on_temperature, [self.log_temperature])
        for target, critic in zip(self.targets, self.critics, strict=True):
            for slow, quick in zip(target.weights, critic.weights, strict=True):
                slow.assign(slow + self.tau * (quick - slow))
        return {
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "entropy": -ops.mean(log_probs),
            "temperature": ops.convert_to_tensor(temperature, "float32"),
        }

    def optimizer_variables(self):
        """Which variables each optimizer trains.

        Returns:
            Dict from ``"policy"``, ``"critics"`` and perhaps ``"temperature"`` to
            lists of variables.
        """
        variables = {
            "policy": self.policy.trainable_variables,
            "critics": _trainable(self.critics),
        }
        if self.temperature is None:
            variables["temperature"] = [self.log_temperature]
        return variables

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "policy": serialize(self.policy),
            "critics": [serialize(critic) for critic in self.critics],
            "temperature": self.temperature,
            "target_entropy": self.target_entropy,
            "tau": self.tau,
        }


def _values(critics, observations, actions):
    """The values of all critics, ``(critics, batch)``."""
    values = [critic([observations, actions], training=False) for critic in critics]
    return ops.stack([ops.cast(v[:, 0], "float32") for v in values])


def _trainable(models):
    return [v for model in models for v in model.trainable_variables]


class SAC(RolloutAgent):
    r"""Soft actor-critic: maximizes reward and entropy.

    The policy maximizes

    .. math:: \mathbb E \sum_t \gamma^t \bigl(r_t
        + \alpha \, \mathcal H[\pi(\cdot \mid s_t)]\bigr),

    actions being hyperbolic tangents of normal ones. Two critics :math:`q_k(s, a)`
    learn from steps that are drawn from a replay memory, of older policies too,

    .. math:: q_k(s, a) \approx r + \gamma \Bigl(\min_k \bar q_k(s', a')
        - \alpha \log \pi(a' \mid s')\Bigr), \qquad a' \sim \pi(\cdot \mid s'),

    the policy climbs :math:`\min_k q_k(s, a) - \alpha \log \pi(a \mid s)` through its
    own actions, and the temperature :math:`\alpha` is raised or lowered until the
    entropy is the target. :math:`\bar q_k` are moving averages of the critics.

    After every ``rollout_length`` steps ``gradient_steps`` updates are made in one
    call. An *epoch* of ``fit`` resets all environments and makes ``horizon`` steps in
    each. The target is bootstrapped with the critics when an episode is truncated, by
    its time limit or by the end of the epoch, and not when it terminates.
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
        target_entropy: Number, the target in nats of the entropy with a learned
            temperature, of actions in units of the space; or None for minus the number
            of actions played at a time.
        tau: Number in [0, 1], the rate of the target critics, moving averages of the
            critics.
        batch_size: Positive integer, the stored steps in a minibatch.
        buffer_size: Positive integer, the steps that the replay memory holds.
        learning_starts: Integer of at least 0, the environment steps before the first
            update, with actions drawn uniformly from the space.
        rollout_length: Positive integer, the steps of each environment between two
            phases of learning.
        gradient_steps: Positive integer, the updates after each rollout, or None for as
            many as environment steps in it, of all environments together.
        discount: Number :math:`\gamma` in [0, 1].
        num_envs: Positive integer, the environments played in parallel. Ignored if
            ``environment`` is already an environment or vector environment.
        horizon: Positive integer, the steps of each environment in an epoch, after
            which an episode is truncated, or None for the environment's own time limit
            (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Seeds weights,
            resets, actions and minibatches.
        jit_compile: Boolean or ``"auto"``, as in :meth:`keras.Model.compile`. On
            TensorFlow ``True`` costs some seconds at first; then the updates
            take half the time.

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
        tau=0.005,
        batch_size=256,
        buffer_size=100_000,
        learning_starts=100,
        rollout_length=8,
        gradient_steps=None,
        discount=0.99,
        num_envs=1,
        horizon=None,
        seed=None,
        jit_compile="auto",
    ):
        check_jit_compile(jit_compile)
        self.discount = check_number("discount", discount, 0, 1)
        self.batch_size = check_count("batch_size", batch_size)
        self.learning_starts = check_count("learning_starts", learning_starts, least=0)
        self.replay = ReplayBuffer(buffer_size)
        environments = Environments(environment, num_envs, spaces=("Box",))
        config = {
            "temperature": temperature,
            "target_entropy": target_entropy,
            "tau": tau,
            "batch_size": batch_size,
            "buffer_size": buffer_size,
            "learning_starts": learning_starts,
            "gradient_steps": gradient_steps,
            "discount": discount,
            "num_envs": num_envs,
            "jit_compile": jit_compile,
        }
        super().__init__(environments, seed, horizon, rollout_length, config)
        if gradient_steps is None:
            gradient_steps = rollout_length * environments.count
        self.gradient_steps = check_count("gradient_steps", gradient_steps)
        shape = environments.observation_shape
        self.size = environments.distribution.size
        environments.distribution = TanhGaussian(self.size)
        seeds = [self.number(WEIGHTS, n) for n in range(3)]
        scale = self.default_scale() if policy is None or critics is None else None
        if policy is None:
            outputs, activation = 2 * self.size, "relu"
            policy = dense_network(
                shape, outputs, 0.01, seeds[0], "policy", activation, scale=scale
            )
        if critics is None:
            critics = [
                dense_critic(shape, self.size, seed, f"critic_{n}", scale)
                for n, seed in enumerate(seeds[1:])
            ]
        learner = SoftActorCritic(
            policy, critics, temperature, target_entropy, tau, name="learner"
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
        learner.compile(CompositeOptimizer(optimizers), jit_compile=jit_compile)
        self.attach(learner)

    logged = ("critic_loss", "policy_loss", "entropy", "temperature")

    def explore(self, observations, random):
        """Actions while learning: uniform at first, then by the policy."""
        if self.played < self.learning_starts:
            shape = (len(observations), self.size)
            return random.uniform(-1.0, 1.0, shape).astype("float32")
        return super().explore(observations, random)

    def learn_from_rollout(self, rollout, random):
        """Store the rollout, and learn from minibatches of the replay memory."""
        dtype = self.environments.observation_dtype
        self.replay.add(**n_step_transitions(rollout, 1, self.discount, dtype))
        if self.played < self.learning_starts or not len(self.replay):
            return {}
        shape = (self.gradient_steps, self.batch_size)
        rows = self.replay.draw(shape, random)
        noise = random.standard_normal((*shape, 2, self.size)).astype("float32")
        logs = train_from(self.replay, self.learner, rows, noise)
        return {name: float(values.mean()) for name, values in logs.items()}

    def arrays(self):
        """The replay memory."""
        return {**super().arrays(), **self.replay.arrays()}

    def restore(self, arrays):
        """Take back the replay memory."""
        super().restore(arrays)
        self.replay.restore(arrays)

    @staticmethod
    def parts_of(learner):
        """The networks of a loaded learner; it has its optimizers itself."""
        return {"policy": learner.policy, "critics": learner.critics}
