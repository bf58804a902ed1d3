"""REINFORCE: actions with a return above the baseline become more probable."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agents.agent import (
    ACTIONS,
    RESETS,
    WEIGHTS,
    Agent,
    Epoch,
)
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.generalized_advantage import reward_to_go
from dlcompanion.reinforcement.networks.dense_network import dense_network
from dlcompanion.reinforcement.networks.network_checks import (
    check_network,
    check_separate,
)
from dlcompanion.training import CompositeOptimizer, StepModel


def policy_gradient_loss(logits, actions, advantages, weights):
    r"""A scalar whose gradient is minus the policy gradient.

    .. math:: L(\theta) = - \frac{\sum_i w_i \, A_i \log \pi_\theta(a_i \mid s_i)}
        {\sum_i w_i}

    Args:
        logits: Tensor ``(steps, actions)``, the policy's output for :math:`s_i`.
        actions: Integer tensor ``(steps,)``, the actions taken.
        advantages: Tensor ``(steps,)``, :math:`A_i`; taken as constants.
        weights: Tensor ``(steps,)``: 1 for a step that was played, 0 for padding.

    Returns:
        Scalar tensor.

    Example:
        >>> logits = keras.ops.zeros((2, 2))  # probabilities of one half
        >>> loss = policy_gradient_loss(
        ...     logits, np.array([0, 1]), np.array([1.0, 3.0]), np.ones(2)
        ... )
        >>> print(f"{float(loss):.4f}")  # 2 log 2
        1.3863
    """
    logits = ops.convert_to_tensor(logits)
    taken = ops.one_hot(actions, logits.shape[-1], dtype=logits.dtype)
    log_probabilities = ops.sum(ops.log_softmax(logits) * taken, axis=-1)  # (steps,)
    advantages = ops.stop_gradient(ops.cast(advantages, logits.dtype))
    return -_mean(advantages * log_probabilities, weights)


def baseline_loss(values, returns, weights):
    r"""Half the mean squared error of the baseline.

    .. math:: \frac{\sum_i w_i \, (v(s_i) - G_i)^2}{2 \sum_i w_i}

    Args:
        values: Tensor ``(steps,)``, the baseline's output.
        returns: Tensor ``(steps,)``, the reward to go :math:`G_i`.
        weights: Tensor ``(steps,)``: 1 for a step that was played, 0 for padding.

    Returns:
        Scalar tensor.

    Example:
        >>> float(baseline_loss([1.0, 9.0], [3.0, 0.0], weights=[1.0, 0.0]))
        2.0
    """
    values = ops.convert_to_tensor(values)
    return 0.5 * _mean(ops.square(values - ops.cast(returns, values.dtype)), weights)


def _mean(x, weights):
    weights = ops.cast(weights, x.dtype)
    return ops.sum(x * weights) / ops.maximum(ops.sum(weights), 1.0)


@keras.saving.register_keras_serializable(package="dlcompanion")
class PolicyWithBaseline(StepModel):
    r"""Trains a policy and its baseline on a rollout.

    One step of training, on observations with ``y = (actions, returns)`` and optional
    weights, takes one step of the policy down the gradient of

    .. math:: -\frac1n \sum_i \bigl(G_i - v(s_i)\bigr) \log \pi(a_i \mid s_i)

    with :math:`v` as it was before, and then ``baseline_steps`` steps of the baseline
    down that of :math:`\frac1{2n} \sum_i (v(s_i) - G_i)^2`. Both networks are called
    with ``training=False``, as they are when the policy acts: the gradient must be that
    of the policy that played. Compile it with a
    :class:`~dlcompanion.training.CompositeOptimizer` of ``"policy"`` and
    ``"baseline"``.

    Args:
        policy: :class:`keras.Model` from observations to logits ``(batch, actions)``.
        baseline: :class:`keras.Model` from observations to values ``(batch, 1)``.
        baseline_steps: Positive integer.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Logits ``(batch, actions)`` and values ``(batch,)``.

    Raises:
        ValueError: If ``baseline_steps`` is not a positive integer.

    Example:
        >>> policy = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> baseline = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> logits, values = PolicyWithBaseline(policy, baseline)(np.ones((5, 3)))
        >>> tuple(logits.shape), tuple(values.shape)
        ((5, 2), (5,))
    """

    def __init__(self, policy, baseline, baseline_steps=5, **kwargs):
        super().__init__(**kwargs)
        check_count("baseline_steps", baseline_steps)
        self.policy = policy
        self.baseline = baseline
        self.baseline_steps = baseline_steps

    def build(self, input_shape):
        """The networks were built by whoever made them."""

    def call(self, inputs):
        logits = ops.cast(self.policy(inputs, training=False), "float32")
        return logits, self._values(inputs)

    def _values(self, observations):
        values = self.baseline(observations, training=False)
        return ops.cast(values[:, 0], "float32")  # whatever the networks compute in

    def update(self, data):
        observations, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        actions, returns = y
        weights = ops.ones_like(returns) if weights is None else weights

        def on_policy():
            logits, values = self(observations)
            loss = policy_gradient_loss(logits, actions, returns - values, weights)
            return loss, (logits, values)

        def on_baseline():
            return baseline_loss(self._values(observations), returns, weights)

        policy_loss, (logits, values) = self.descend(
            on_policy, self.policy.trainable_variables, has_aux=True
        )
        for _ in range(self.baseline_steps):
            self.descend(on_baseline, self.baseline.trainable_variables)

        logs = ops.log_softmax(logits)
        spread = _mean(ops.square(returns - _mean(returns, weights)), weights)
        error = _mean(ops.square(returns - values), weights)
        return {
            "policy_loss": policy_loss,
            "baseline_loss": 0.5 * error,
            "explained_variance": 1 - error / ops.maximum(spread, 1e-12),
            "entropy": _mean(-ops.sum(ops.exp(logs) * logs, axis=-1), weights),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "policy": keras.saving.serialize_keras_object(self.policy),
            "baseline": keras.saving.serialize_keras_object(self.baseline),
            "baseline_steps": self.baseline_steps,
        }


class REINFORCE(Agent):
    r"""The policy gradient by Monte Carlo, with a learned baseline.

    The gradient of the expected return is an expectation that one can sample: play an
    episode, and weigh the gradient of each action's log-probability by the return
    after it, less a baseline,

    .. math:: \nabla_\theta J = \mathbb E_\pi \Bigl[ \sum_t
        \bigl(G_t - v(s_t)\bigr) \nabla_\theta \log \pi_\theta(a_t \mid s_t) \Bigr],
        \qquad G_t = \sum_{k \ge t} \gamma^{k - t} r_k .

    The baseline :math:`v`, a network that is fitted to :math:`G_t`, changes the
    variance and not the mean.

    One rollout is one whole episode in each of ``num_envs`` environments, one update is
    one step of the policy on all of its steps. The mean runs over steps instead of
    episodes, and the factor :math:`\gamma^t` in front of each term is left out, as in
    most implementations. Returns are bootstrapped with :math:`v` of the next state when
    an episode is truncated, by the environment's time limit or by ``horizon``, and not
    when it terminates. Rollouts are padded to the next power of 2, so that few compiled
    updates serve all.

    A policy that is a chain of dense layers acts in NumPy, any other through a
    compiled call. Networks are called with ``training=False``: dropout does nothing.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            environment, or vector environment (``NEXT_STEP`` or ``SAME_STEP``
            autoreset), with a Box of observations and Discrete actions.
        policy: :class:`keras.Model` from observations to logits, one an action. By
            default two hidden layers of 64 tanh units.
        baseline: :class:`keras.Model` from observations to one value. By default as
            the policy.
        optimizer: Keras optimizer of the policy. By default Adam with learning rate
            0.01.
        baseline_optimizer: Keras optimizer of the baseline. By default Adam with
            learning rate 0.03.
        baseline_steps: Positive integer, the steps of the baseline after each one of
            the policy.
        discount: Number :math:`\gamma` in [0, 1].
        num_envs: Positive integer, the episodes of a rollout. Ignored if
            ``environment`` is already an environment or vector environment.
        horizon: Positive integer, the steps after which an episode is truncated, or
            None for the environment's own time limit (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Seeds weights,
            resets and actions.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or a network does not fit the spaces.

    Example:
        >>> agent = REINFORCE("CartPole-v1", seed=0)
        >>> history = agent.fit(steps=200, verbose=0)
        >>> sorted(history.history)[:3]
        ['baseline_loss', 'entropy', 'explained_variance']
        >>> agent.predict(np.zeros(4, "float32")) in (0, 1)
        True
        >>> sorted(agent.evaluate(episodes=2))
        ['episodes', 'length_mean', 'return_mean', 'return_std']

    References:
        Williams, *Simple Statistical Gradient-Following Algorithms for Connectionist
        Reinforcement Learning*, 1992. https://doi.org/10.1007/BF00992696

        Sutton, McAllester, Singh and Mansour, *Policy Gradient Methods for
        Reinforcement Learning with Function Approximation*, 2000.
    """

    def __init__(
        self,
        environment,
        policy=None,
        baseline=None,
        optimizer=None,
        baseline_optimizer=None,
        baseline_steps=5,
        discount=0.99,
        num_envs=8,
        horizon=None,
        seed=None,
    ):
        check_number("discount", discount, 0, 1)
        self.discount = discount
        environments = Environments(environment, num_envs)
        config = {
            "discount": discount,
            "num_envs": num_envs,
            "baseline_steps": baseline_steps,
        }
        super().__init__(environments, seed, horizon, config)
        shape, actions = environments.observation_shape, environments.actions
        seeds = [self.number(WEIGHTS, n) for n in range(2)]
        if policy is None:
            policy = dense_network(
                shape, actions, 0.01, seeds[0], "policy", scale=self.default_scale()
            )
        if baseline is None:
            baseline = dense_network(
                shape, 1, 1.0, seeds[1], "baseline", scale=self.default_scale()
            )
        check_network("policy", policy, {"observations": shape}, (actions,))
        check_network("baseline", baseline, {"observations": shape}, (1,))
        check_separate(policy=policy, baseline=baseline)
        learner = PolicyWithBaseline(policy, baseline, baseline_steps, name="learner")
        learner.build((None, *shape))
        learner.compile(
            CompositeOptimizer(
                {
                    "policy": optimizer or keras.optimizers.Adam(0.01),
                    "baseline": baseline_optimizer or keras.optimizers.Adam(0.03),
                }
            )
        )
        self.attach(learner)

    def epoch(self):
        """Play one episode in each environment, and then learn from all of them."""
        episodes = self._play()
        logs = self.learn_from_episodes(episodes)
        return Epoch(episodes.returns, episodes.lengths, episodes.playing.size, logs)

    def _play(self):
        random = np.random.default_rng(self.number(ACTIONS, 1 + self.epochs))
        with self.actor.held():
            return self.environments.play(
                self._player(False, random),
                self.number(RESETS, self.epochs),
                self.horizon,
            )

    def learn_from_episodes(self, episodes):
        """One step of the optimizer of the policy, on all steps of the episodes.

        Args:
            episodes: ``Episodes``, as ``Environments.play`` returns them.

        Returns:
            Dict from name to number.
        """
        following = self.actor("baseline", episodes.last_observations)[:, 0]
        after = np.where(episodes.terminated, 0.0, following)
        playing = episodes.playing  # (time, environments)
        dones = playing & ~np.vstack([playing[1:], np.zeros_like(playing[:1])])
        returns = reward_to_go(
            episodes.rewards, dones, np.broadcast_to(after, dones.shape), self.discount
        )

        # few sizes, so that few programs are compiled
        count = int(playing.sum())
        size = min(1 << (count - 1).bit_length(), playing.shape[1] * self.horizon)

        def padded(x):
            rows = np.zeros((size, *x.shape[2:]), x.dtype)
            rows[:count] = x[playing]
            return rows

        return self.learner.train_on_batch(
            padded(episodes.observations),
            (padded(episodes.actions), padded(returns)),
            padded(np.ones_like(returns)),
            return_dict=True,
        )

    @staticmethod
    def parts_of(learner):
        """The networks and optimizers of a loaded learner."""
        return {
            "policy": learner.policy,
            "baseline": learner.baseline,
            "optimizer": learner.optimizer["policy"],
            "baseline_optimizer": learner.optimizer["baseline"],
        }
