"""Advantage actor-critic: a critic that speaks before the episode is over."""

import keras
from keras import ops

from dlcompanion.checks import check_count, check_number
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
from dlcompanion.reinforcement.policy_gradient import (
    baseline_loss,
    policy_gradient_loss,
)
from dlcompanion.training import CompositeOptimizer, StepModel


def mean_entropy(logits, weights):
    r"""How undecided a policy is, on average.

    .. math:: \frac{\sum_i w_i H[\pi(\cdot \mid s_i)]}{\sum_i w_i}, \qquad
        H[\pi] = - \sum_a \pi(a) \log \pi(a)

    Args:
        logits: Tensor ``(steps, actions)``.
        weights: Tensor ``(steps,)``: 1 for a step that counts, else 0.

    Returns:
        Scalar tensor, in nats.

    Example:
        >>> print(f"{float(mean_entropy(ops.zeros((3, 2)), ops.ones(3))):.4f}")
        0.6931
    """
    logs = ops.log_softmax(ops.convert_to_tensor(logits))
    weights = ops.cast(weights, logs.dtype)
    entropy = -ops.sum(ops.exp(logs) * logs, axis=-1)  # (steps,)
    return ops.sum(weights * entropy) / ops.maximum(ops.sum(weights), 1.0)


@keras.saving.register_keras_serializable(package="dlcompanion")
class ActorCritic(StepModel):
    r"""A policy and its critic, learning from the same steps.

    One step of training, on observations with ``y = (actions, advantages, returns)``
    and optional weights, goes down the gradient of

    .. math:: -\frac1n \sum_i A_i \log \pi(a_i \mid s_i)
        + \frac{1}{2n} \sum_i \bigl(v(s_i) - G_i\bigr)^2
        - \frac{c_H}{n} \sum_i H[\pi(\cdot \mid s_i)] .

    The advantages :math:`A_i` and returns :math:`G_i` are constants, and the critic
    makes ``critic_steps`` steps towards the same ones. Both networks are called with
    ``training=False``, as they are when the policy acts. Compile it with a
    :class:`~dlcompanion.training.CompositeOptimizer` of ``"policy"`` and ``"critic"``:
    a critic that learns no faster than the policy is always behind it.

    Args:
        policy: :class:`keras.Model` from observations to logits ``(batch, actions)``.
        critic: :class:`keras.Model` from observations to values ``(batch, 1)``.
        entropy_weight: Number :math:`c_H` of at least 0.
        critic_steps: Positive integer.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Logits ``(batch, actions)`` and values ``(batch,)``.

    Raises:
        ValueError: If ``entropy_weight`` is negative or ``critic_steps`` not positive.

    Example:
        >>> policy = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> critic = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> logits, values = ActorCritic(policy, critic)(ops.ones((5, 3)))
        >>> tuple(logits.shape), tuple(values.shape)
        ((5, 2), (5,))
    """

    def __init__(self, policy, critic, entropy_weight=0.0, critic_steps=5, **kwargs):
        super().__init__(**kwargs)
        self.critic_steps = check_count("critic_steps", critic_steps)
        self.entropy_weight = check_number("entropy_weight", entropy_weight)
        self.policy = policy
        self.critic = critic

    def build(self, input_shape):
        """The networks were built by whoever made them."""

    def call(self, inputs):
        return self._logits(inputs), self._values(inputs)

    def _logits(self, observations):
        logits = self.policy(observations, training=False)
        return ops.cast(logits, "float32")  # whatever the network computes in

    def _values(self, observations):
        values = self.critic(observations, training=False)
        return ops.cast(values[:, 0], "float32")

    def update(self, data):
        observations, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        actions, advantages, returns = y
        weights = ops.ones_like(returns) if weights is None else weights

        def on_policy():
            logits = self._logits(observations)
            loss = policy_gradient_loss(logits, actions, advantages, weights)
            entropy = mean_entropy(logits, weights)
            return loss - self.entropy_weight * entropy, (loss, entropy)

        def on_critic():
            return baseline_loss(self._values(observations), returns, weights)

        _, (policy_loss, entropy) = self.descend(
            on_policy, self.policy.trainable_variables, has_aux=True
        )
        steps = [
            self.descend(on_critic, self.critic.trainable_variables)
            for _ in range(self.critic_steps)
        ]
        return {
            "policy_loss": policy_loss,
            "value_loss": steps[0],
            "entropy": entropy,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "policy": keras.saving.serialize_keras_object(self.policy),
            "critic": keras.saving.serialize_keras_object(self.critic),
            "entropy_weight": self.entropy_weight,
            "critic_steps": self.critic_steps,
        }


class A2C(RolloutAgent):
    r"""Advantage actor-critic: updates every few steps, bootstrapped with a critic.

    REINFORCE waits for the end of the episode. Here, after ``rollout_length`` steps, a
    critic :math:`v` estimates the remaining return, and the generalized advantage
    combines the rewards with its estimates,

    .. math:: A_t = \sum_{k \ge 0} (\gamma \lambda)^k \bigl(r_{t+k}
        + \gamma v(s_{t+k+1}) - v(s_{t+k})\bigr),

    one step moves the policy along :math:`A_t \nabla \log \pi(a_t \mid s_t)`, and
    ``critic_steps`` steps move the critic towards :math:`A_t + v(s_t)`.

    An *epoch* of ``fit`` resets all environments and makes ``horizon`` steps in each,
    episode after episode, with an update every ``rollout_length`` steps. Returns are
    bootstrapped with the critic's value when an episode is truncated, by its time limit
    or by the end of the epoch, and not when it terminates.

    A policy that is a chain of dense layers acts in NumPy, any other through a
    compiled call. Networks are called with ``training=False``: dropout does nothing.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            environment, or vector environment (``NEXT_STEP`` or ``SAME_STEP``
            autoreset), with a Box of observations and Discrete actions.
        policy: :class:`keras.Model` from observations to logits, one an action. By
            default two hidden layers of 64 tanh units.
        critic: :class:`keras.Model` from observations to one value. By default
            two hidden layers of 64 rectified units, since tanh units saturate at values
            of many times a reward. It must not share layers with the policy: a file
            would hold two copies.
        optimizer: Keras optimizer of the policy. By default Adam with learning rate
            0.005.
        critic_optimizer: Keras optimizer of the critic. By default Adam with learning
            rate 0.01.
        critic_steps: Positive integer, the critic's gradient steps in each update.
        rollout_length: Positive integer, the steps of each environment between two
            updates.
        discount: Number :math:`\gamma` in [0, 1].
        gae_lambda: Number :math:`\lambda` in [0, 1], of the generalized advantages.
        entropy_weight: Number of at least 0, of the entropy bonus.
        num_envs: Positive integer, the environments played in parallel. Ignored if
            ``environment`` is already an environment or vector environment.
        horizon: Positive integer, the steps of each environment in an epoch, after
            which an episode is truncated, or None for the environment's own time limit
            (1000 if it has none).
        seed: Integer of at least 0, or None for one that is drawn. Seeds weights,
            resets and actions.
        normalizer: :class:`~dlcompanion.reinforcement.Normalizer` of observations and
            rewards, for this agent alone, or None.

    Raises:
        ValueError: If an argument is none of the above, the environment is unknown or
            has other spaces, or a network does not fit the spaces.

    Example:
        >>> agent = A2C("CartPole-v1", horizon=32, seed=0)
        >>> history = agent.fit(steps=200, verbose=0)
        >>> sorted(history.history)[:3]
        ['entropy', 'explained_variance', 'length_mean']
        >>> agent.predict([0.0, 0.0, 0.0, 0.0]) in (0, 1)
        True

    References:
        Mnih et al., *Asynchronous Methods for Deep Reinforcement Learning*, 2016.
        https://arxiv.org/abs/1602.01783

        Schulman, Moritz, Levine, Jordan and Abbeel, *High-Dimensional Continuous
        Control Using Generalized Advantage Estimation*, 2016.
        https://arxiv.org/abs/1506.02438
    """

    def __init__(
        self,
        environment,
        policy=None,
        critic=None,
        optimizer=None,
        critic_optimizer=None,
        critic_steps=5,
        rollout_length=32,
        discount=0.99,
        gae_lambda=0.95,
        entropy_weight=0.01,
        num_envs=8,
        horizon=None,
        seed=None,
        normalizer=None,
    ):
        self.discount = check_number("discount", discount, 0, 1)
        self.gae_lambda = check_number("gae_lambda", gae_lambda, 0, 1)
        environments = Environments(environment, num_envs)
        config = {
            "discount": discount,
            "gae_lambda": gae_lambda,
            "entropy_weight": entropy_weight,
            "critic_steps": critic_steps,
            "num_envs": num_envs,
        }
        super().__init__(
            environments, seed, horizon, rollout_length, config, normalizer
        )
        shape, actions = environments.observation_shape, environments.actions
        seeds = [self.number(WEIGHTS, n) for n in range(2)]
        if policy is None:
            policy = dense_network(
                shape, actions, 0.01, seeds[0], "policy", scale=self.default_scale()
            )
        if critic is None:
            critic = dense_network(
                shape, 1, 1.0, seeds[1], "critic", "relu", scale=self.default_scale()
            )
        seen = {"observations": shape}
        check_network("policy", policy, seen, (actions,))
        check_network("critic", critic, seen, (1,))
        check_separate(policy=policy, critic=critic)
        learner = ActorCritic(
            policy, critic, entropy_weight, critic_steps, name="learner"
        )
        learner.build((None, *shape))
        learner.compile(
            CompositeOptimizer(
                {
                    "policy": optimizer or keras.optimizers.Adam(0.005),
                    "critic": critic_optimizer or keras.optimizers.Adam(0.01),
                }
            )
        )
        self.attach(learner)
        self._explained = Explained()

    def learn_from_rollout(self, rollout, random):
        """One update from a rollout."""
        advantages, expected = self.advantages_and_returns(rollout)
        self._explained.add(advantages, expected, rollout.mask)
        return self.learn_from(rollout, advantages, expected)

    def summarize(self, logs):
        """Means, and the explained variance of the epoch's returns."""
        return super().summarize(logs) | {"explained_variance": self._explained.take()}

    def advantages_and_returns(self, rollout):
        """Generalized advantages, and returns as targets of the critic.

        Args:
            rollout: ``Rollout``.

        Returns:
            Two float32 arrays ``(time, environments)``.
        """
        return advantages_and_returns(
            rollout, self._values, self.discount, self.gae_lambda
        )

    def _values(self, observations):
        return self.actor("critic", observations)

    def learn_from(self, rollout, advantages, returns):
        """One update, of policy and critic.

        Args:
            rollout: ``Rollout``.
            advantages: Array ``(time, environments)``, from
                :meth:`advantages_and_returns`.
            returns: Array of that shape, from the same method.

        Returns:
            Dict from name to number.
        """
        return self.learner.train_on_batch(
            rows_of(rollout.observations),
            tuple(map(rows_of, (rollout.actions, advantages, returns))),
            rows_of(rollout.mask.astype("float32")),
            return_dict=True,
        )

    @staticmethod
    def parts_of(learner):
        """The networks and optimizers of a loaded learner."""
        return {
            "policy": learner.policy,
            "critic": learner.critic,
            "optimizer": learner.optimizer["policy"],
            "critic_optimizer": learner.optimizer["critic"],
        }
