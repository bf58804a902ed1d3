"""Proximal policy optimization: many steps on one rollout, none of them too far."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_jit_compile, check_number
from dlcompanion.reinforcement.agents.agent import WEIGHTS
from dlcompanion.reinforcement.agents.rollout import rows_of
from dlcompanion.reinforcement.agents.rollout_agent import RolloutAgent
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.generalized_advantage import (
    Explained,
    advantages_and_returns,
)
from dlcompanion.reinforcement.networks.dense_network import dense_network
from dlcompanion.reinforcement.networks.network_checks import (
    check_network,
    check_separate,
)
from dlcompanion.training import StepModel


def clipped_surrogate_loss(log_ratio, advantages, clip_range, weights):
    r"""Minus the clipped surrogate objective.

    .. math:: L = -\frac{\sum_i w_i \min\bigl(\rho_i A_i,\;
        \operatorname{clip}(\rho_i, 1 - \epsilon, 1 + \epsilon) A_i\bigr)}{\sum_i w_i},
        \qquad \rho_i = \frac{\pi(a_i \mid s_i)}{\pi_\text{old}(a_i \mid s_i)}

    The smaller of the two is a lower bound: an action that has already become more
    probable by the factor :math:`1 + \epsilon` has no gradient, one whose probability
    moved in the wrong direction always has.

    Args:
        log_ratio: Tensor ``(steps,)``, :math:`\log \rho_i`.
        advantages: Tensor ``(steps,)``, :math:`A_i`; taken as constants.
        clip_range: Number or scalar tensor, :math:`\epsilon`.
        weights: Tensor ``(steps,)``: 1 for a step that counts, else 0.

    Returns:
        Scalar tensor.

    Example:
        >>> import numpy as np
        >>> good, bad = np.log([1.5]), np.log([0.5])  # ratios after some steps
        >>> one = np.ones(1)
        >>> print(f"{float(clipped_surrogate_loss(good, one, 0.2, one)):.2f}")
        -1.20
        >>> print(f"{float(clipped_surrogate_loss(bad, one, 0.2, one)):.2f}")
        -0.50
    """
    ratio = ops.exp(ops.convert_to_tensor(log_ratio))
    advantages = ops.stop_gradient(ops.cast(advantages, ratio.dtype))
    clipped = ops.clip(ratio, 1.0 - clip_range, 1.0 + clip_range)
    return -_mean(ops.minimum(ratio * advantages, clipped * advantages), weights)


def standardize(advantages, weights):
    r"""Advantages less their mean, in standard deviations, over those that count.

    Args:
        advantages: Tensor ``(steps,)``.
        weights: Tensor ``(steps,)``: 1 for a step that counts, else 0.

    Returns:
        Tensor ``(steps,)``.

    Example:
        >>> import numpy as np
        >>> x = standardize(np.array([1.0, 3.0, 9.0]), np.array([1.0, 1.0, 0.0]))
        >>> ops.convert_to_numpy(x)[:2].round(4).tolist()
        [-1.0, 1.0]
    """
    advantages = ops.convert_to_tensor(advantages)
    centered = advantages - _mean(advantages, weights)
    return centered / (ops.sqrt(_mean(ops.square(centered), weights)) + 1e-8)


def _mean(x, weights):
    weights = ops.cast(weights, x.dtype)
    return ops.sum(x * weights) / ops.maximum(ops.sum(weights), 1.0)


@keras.saving.register_keras_serializable(package="dlcompanion")
class ProximalPolicy(StepModel):
    r"""Trains policy and critic on a rollout with the clipped surrogate loss.

    One step of training, on observations with ``y = (actions, behavior, advantages,
    returns)`` and optional weights, descends the gradient of

    .. math:: L_\text{clip} + \frac{c_v}{n} \sum_i \bigl(v(s_i) - G_i\bigr)^2
        - \frac{c_H}{n} \sum_i H[\pi(\cdot \mid s_i)] .

    ``behavior`` is the output of the policy when the rollout was collected. The
    advantages are standardized within the batch. Both networks are called with
    ``training=False``, as they are when the policy acts.

    Args:
        policy: :class:`keras.Model` from observations to ``distribution.outputs``.
        critic: :class:`keras.Model` from observations to values ``(batch, 1)``.
        distribution: What the outputs mean, for example
            ``Categorical``.
        clip_range: Number :math:`\epsilon` above 0, or a Keras schedule of it, counted
            in steps of the optimizer.
        value_weight: Number :math:`c_v` of at least 0.
        entropy_weight: Number :math:`c_H` of at least 0.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Outputs of the policy ``(batch, outputs)`` and values ``(batch,)``.

    Raises:
        ValueError: If a number is none of the above.

    Example:
        >>> from dlcompanion.reinforcement.networks.action_distributions import (
        ...     Categorical,
        ... )
        >>> policy = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> critic = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> learner = ProximalPolicy(policy, critic, Categorical(2))
        >>> outputs, values = learner(ops.ones((5, 3)))
        >>> tuple(outputs.shape), tuple(values.shape)
        ((5, 2), (5,))
    """

    def __init__(
        self,
        policy,
        critic,
        distribution,
        clip_range=0.2,
        value_weight=0.5,
        entropy_weight=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(clip_range, keras.optimizers.schedules.LearningRateSchedule):
            clip_range = check_number("clip_range", clip_range)
            if clip_range == 0:
                raise ValueError("clip_range must be above 0. Received: clip_range=0")
        self.clip_range = clip_range
        self.value_weight = check_number("value_weight", value_weight)
        self.entropy_weight = check_number("entropy_weight", entropy_weight)
        self.policy = policy
        self.critic = critic
        self.distribution = distribution

    def build(self, input_shape):
        """The networks were built by whoever made them."""

    def call(self, inputs):
        outputs = ops.cast(self.policy(inputs, training=False), "float32")
        values = self.critic(inputs, training=False)[:, 0]
        return outputs, ops.cast(values, "float32")  # whatever the networks compute in

    def each_step(self, inputs):
        """Outputs of the policy ``(steps, outputs)`` and values ``(steps,)``."""
        return self(inputs)

    def update(self, data):
        observations, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        actions, behavior, advantages, returns = y
        weights = ops.ones_like(returns) if weights is None else weights
        advantages = standardize(advantages, weights)
        before = self.distribution.log_prob(behavior, actions)
        clip_range = self.clip_range
        if callable(clip_range):
            clip_range = clip_range(self.optimizer.iterations)

        def loss():
            outputs, values = self.each_step(observations)
            log_ratio = self.distribution.log_prob(outputs, actions) - before
            policy_loss = clipped_surrogate_loss(
                log_ratio, advantages, clip_range, weights
            )
            value_loss = squared_error(values, returns, weights)
            entropy = _mean(self.distribution.entropy(outputs), weights)
            total = policy_loss + self.value_weight * value_loss
            total = total - self.entropy_weight * entropy
            return total, (policy_loss, value_loss, entropy, log_ratio)

        _, aux = self.descend(loss, self.trainable_variables, has_aux=True)
        policy_loss, value_loss, entropy, log_ratio = aux
        ratio = ops.exp(log_ratio)
        outside = ops.cast(ops.abs(ratio - 1.0) > clip_range, ratio.dtype)
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "kl": _mean(ratio - 1.0 - log_ratio, weights),  # of few samples, never < 0
            "clip_fraction": _mean(outside, weights),
        }

    def get_config(self):
        parts = ("policy", "critic", "distribution", "clip_range")
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            **{name: serialize(getattr(self, name)) for name in parts},
            "value_weight": self.value_weight,
            "entropy_weight": self.entropy_weight,
        }


def squared_error(values, returns, weights):
    """Mean squared error of the critic.

    Args:
        values: Tensor ``(steps,)``.
        returns: Tensor ``(steps,)``.
        weights: Tensor ``(steps,)``: 1 for a step that counts, else 0.

    Returns:
        Scalar tensor.

    Example:
        >>> float(squared_error([1.0, 9.0], [3.0, 0.0], weights=[1.0, 0.0]))
        4.0
    """
    values = ops.convert_to_tensor(values)
    return _mean(ops.square(values - ops.cast(returns, values.dtype)), weights)


class PPOParts(NamedTuple):
    """What PPO makes itself of: the recurrent one has other parts.

    Attributes:
        network: Function as ``dense_network``: what is made if no network is given.
        check: Function of an argument's name, a network, the shape of an observation
            and a number of outputs, which refuses a network that does not fit.
        learner: Class as ``ProximalPolicy``.
        batch_size: Function of the number of environments and ``rollout_length``: the
            size of a batch if none is given.

    Example:
        >>> PPO_PARTS.batch_size(8, 128)
        256
    """

    network: Callable
    check: Callable
    learner: type
    batch_size: Callable


def _check_dense(name, network, observation_shape, outputs):
    check_network(name, network, {"observations": observation_shape}, (outputs,))


def _largest_divisor(count, rollout_length):
    """The largest size up to 256 that divides a rollout."""
    return max(n for n in range(1, 257) if count * rollout_length % n == 0)


PPO_PARTS = PPOParts(dense_network, _check_dense, ProximalPolicy, _largest_divisor)


class PPO(RolloutAgent):
    r"""Proximal policy optimization, with clipping.

    A2C makes one gradient step on a rollout and discards it, since the policy has
    changed. PPO makes ``update_epochs`` passes over the same rollout in minibatches,
    and clips the objective, so that there is no gain in changing the probability of an
    action by more than ``clip_range``:

    .. math:: \max_\theta \sum_t \min\bigl(\rho_t A_t,\;
        \operatorname{clip}(\rho_t, 1 - \epsilon, 1 + \epsilon) A_t\bigr), \qquad
        \rho_t = \frac{\pi_\theta(a_t \mid s_t)}{\pi_\text{old}(a_t \mid s_t)} .

    All steps of an update phase are one compiled call. An *epoch* of ``fit`` resets all
    environments and makes ``horizon`` steps in each, with an update phase every
    ``rollout_length`` steps. Returns are bootstrapped with the critic's value when an
    episode is truncated, and not when it terminates.

    What the literature calls the details are these: vector environments, generalized
    advantages, shuffled batches, advantages standardized batch by batch, a last layer
    of the policy that begins near 0, one Adam with an epsilon of 1e-5 for both
    networks, gradients clipped by their global norm, rates that may fall with a Keras
    schedule, separate networks, and for real actions a spread that no observation
    changes. The value loss is not clipped.

    A policy that is a chain of dense layers acts in NumPy, any other through a
    compiled call. Networks are called with ``training=False``: dropout does nothing.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            environment, or vector environment (``NEXT_STEP`` or ``SAME_STEP``
            autoreset), with a Box of observations and Discrete, MultiDiscrete or
            bounded Box actions.
        policy: :class:`keras.Model` from observations to logits, one an action (of
            several choices side by side), or to ``[mean, log_std]`` of real actions in
            units of the space. By default two hidden layers of 64 tanh units, with
            :class:`~dlcompanion.reinforcement.AppendLogStd` behind them for real
            actions.
        critic: :class:`keras.Model` from observations to one value. By default two
            hidden layers of 64 tanh units. It must not share layers with the policy.
        optimizer: Keras optimizer of both networks. By default Adam with learning rate
            3e-4, an epsilon of 1e-5 and ``global_clipnorm=0.5``.
        clip_range: Number above 0, or a Keras schedule, counted in optimizer steps.
        rollout_length: Positive integer, the steps of each environment between two
            update phases.
        batch_size: Integer of at least 2 that divides ``num_envs * rollout_length``,
            or None for the largest one up to 256.
        update_epochs: Positive integer, the passes over each rollout.
        discount: Number :math:`\gamma` in [0, 1].
        gae_lambda: Number :math:`\lambda` in [0, 1], of the generalized advantages.
        value_weight: Number of at least 0, of the critic's loss.
        entropy_weight: Number of at least 0, of the entropy bonus.
        num_envs: Positive integer, the environments played in parallel. Ignored if
            ``environment`` is already an environment or vector environment.
        horizon: Positive integer, the steps of each environment in an epoch, after
            which an episode is truncated, or None for the environment's own time limit
            (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Seeds weights,
            resets, actions and batches.
        normalizer: :class:`~dlcompanion.reinforcement.Normalizer` of observations and
            rewards, for this agent alone, or None.
        jit_compile: Boolean or ``"auto"``, as in :meth:`keras.Model.compile`. On
            TensorFlow ``True`` costs some seconds at first and then makes the updates
            faster, most of all those of a recurrent policy.
        parts: ``PPOParts``, for subclasses.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or a network does not fit the spaces.

    Example:
        >>> agent = PPO("CartPole-v1", rollout_length=32, horizon=32, seed=0)
        >>> history = agent.fit(steps=200, verbose=0)
        >>> sorted(history.history)[:4]
        ['clip_fraction', 'entropy', 'explained_variance', 'kl']
        >>> agent.predict(np.zeros(4, "float32")) in (0, 1)
        True

    References:
        Schulman, Wolski, Dhariwal, Radford and Klimov, *Proximal Policy Optimization
        Algorithms*, 2017, eq. 7. https://arxiv.org/abs/1707.06347

        Huang, Dossa, Raffin, Kanervisto and Wang, *The 37 Implementation Details of
        Proximal Policy Optimization*, 2022.
    """

    def __init__(
        self,
        environment,
        policy=None,
        critic=None,
        optimizer=None,
        clip_range=0.2,
        rollout_length=128,
        batch_size=None,
        update_epochs=10,
        discount=0.99,
        gae_lambda=0.95,
        value_weight=0.5,
        entropy_weight=0.0,
        num_envs=8,
        horizon=None,
        seed=None,
        normalizer=None,
        jit_compile="auto",
        parts=PPO_PARTS,
    ):
        check_jit_compile(jit_compile)
        self.discount = check_number("discount", discount, 0, 1)
        self.gae_lambda = check_number("gae_lambda", gae_lambda, 0, 1)
        self.update_epochs = check_count("update_epochs", update_epochs)
        check_count("rollout_length", rollout_length)
        spaces = ("Discrete", "MultiDiscrete", "Box")
        environments = Environments(environment, num_envs, spaces)
        config = {
            "batch_size": batch_size,  # as given: a file may meet fewer environments
            "update_epochs": self.update_epochs,
            "discount": discount,
            "gae_lambda": gae_lambda,
            "value_weight": value_weight,
            "entropy_weight": entropy_weight,
            "num_envs": num_envs,
            "jit_compile": jit_compile,
        }
        if batch_size is None:
            batch_size = parts.batch_size(environments.count, rollout_length)
        # one advantage alone, less its mean, would be 0
        self.batch_size = check_count("batch_size", batch_size, 2)
        _check_divides(self.batch_size, environments.count * rollout_length)
        super().__init__(
            environments, seed, horizon, rollout_length, config, normalizer
        )
        policy, critic = self._networks(policy, critic, parts)
        distribution = environments.distribution
        weights = (value_weight, entropy_weight)
        learner = parts.learner(
            policy, critic, distribution, clip_range, *weights, name="learner"
        )
        learner.build((None, *environments.observation_shape))
        learner.compile(
            optimizer or keras.optimizers.Adam(3e-4, epsilon=1e-5, global_clipnorm=0.5),
            jit_compile=jit_compile,
        )
        self.attach(learner)
        self._explained = Explained()

    def _networks(self, policy, critic, parts):
        """Policy and critic, made if not given, and checked."""
        shape = self.environments.observation_shape
        outputs = self.environments.distribution.outputs
        real = self.environments.low is not None
        if policy is None:
            means = outputs // 2 if real else outputs
            seed = self.number(WEIGHTS, 0)
            scale = self.default_scale()
            policy = parts.network(
                shape, means, 0.01, seed, "policy", spread=real, scale=scale
            )
        if critic is None:
            seed = self.number(WEIGHTS, 1)
            scale = self.default_scale()
            critic = parts.network(shape, 1, 1.0, seed, "critic", scale=scale)
        parts.check("policy", policy, shape, outputs)
        parts.check("critic", critic, shape, 1)
        check_separate(policy=policy, critic=critic)
        return policy, critic

    # -- learning -------------------------------------------------------------------

    def learn_from_rollout(self, rollout, random):
        """``update_epochs`` passes over the rollout."""
        advantages, returns = advantages_and_returns(
            rollout, self._values, self.discount, self.gae_lambda
        )
        self._explained.add(advantages, returns, rollout.mask)
        observations, actions, advantages, returns, mask = (
            rows_of(x)
            for x in (
                rollout.observations,
                rollout.actions,
                advantages,
                returns,
                rollout.mask.astype("float32"),
            )
        )
        behavior = self.actor("policy", observations)
        data = (observations, (actions, behavior, advantages, returns), mask)
        return self.learn_from(data, len(mask), self.batch_size, random)

    def _values(self, observations):
        return self.actor("critic", observations)

    def learn_from(self, data, examples, batch_size, random):
        """Make ``update_epochs`` passes over the examples, in shuffled minibatches.

        Args:
            data: As of :meth:`~dlcompanion.training.StepModel.train_on_batches`.
            examples: Integer, how many they are.
            batch_size: Integer that divides it.
            random: ``numpy.random.Generator`` of this epoch.

        Returns:
            Dict from name to number, the mean of what the steps logged.
        """
        order = np.tile(np.arange(examples, dtype="int32"), (self.update_epochs, 1))
        order = random.permuted(order, axis=1).reshape(-1, batch_size)
        logs = self.learner.train_on_batches(data, order)
        return {name: float(values.mean()) for name, values in logs.items()}

    def summarize(self, logs):
        """Means, and the explained variance of the epoch's returns."""
        return super().summarize(logs) | {"explained_variance": self._explained.take()}

    @staticmethod
    def parts_of(learner):
        """The networks, optimizer and schedule of a loaded learner."""
        return {
            "policy": learner.policy,
            "critic": learner.critic,
            "optimizer": learner.optimizer,
            "clip_range": learner.clip_range,
        }


def _check_divides(batch_size, rows):
    if rows % batch_size:
        raise ValueError(
            "batch_size must divide the steps of a rollout, num_envs * "
            f"rollout_length = {rows}. Received: batch_size={batch_size}"
        )
