"""The clipped surrogate objective, and the model that learns from it."""

import keras
from keras import ops

from dlcompanion.checks import check_number
from dlcompanion.training import StepModel


def clipped_surrogate_loss(log_ratio, advantages, clip_range, weights):
    r"""Minus the clipped surrogate objective.

    .. math:: L = -\frac{\sum_i w_i \min\bigl(\rho_i A_i,\;
        \operatorname{clip}(\rho_i, 1 - \epsilon, 1 + \epsilon) A_i\bigr)}{\sum_i w_i},
        \qquad \rho_i = \frac{\pi(a_i \mid s_i)}{\pi_\text{old}(a_i \mid s_i)}

    The smaller of the two is a lower bound: an action that has already become more
    probable by the factor :math:`1 + \epsilon` earns nothing by going on, one that has
    gone the wrong way is always pulled back.

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


def standardised(advantages, weights):
    r"""Advantages less their mean, in standard deviations, over those that count.

    Args:
        advantages: Tensor ``(steps,)``.
        weights: Tensor ``(steps,)``: 1 for a step that counts, else 0.

    Returns:
        Tensor ``(steps,)``.

    Example:
        >>> import numpy as np
        >>> x = standardised(np.array([1.0, 3.0, 9.0]), np.array([1.0, 1.0, 0.0]))
        >>> ops.convert_to_numpy(x)[:2].round(4).tolist()
        [-1.0, 1.0]
    """
    advantages = ops.convert_to_tensor(advantages)
    centred = advantages - _mean(advantages, weights)
    return centred / (ops.sqrt(_mean(ops.square(centred), weights)) + 1e-8)


def _mean(x, weights):
    weights = ops.cast(weights, x.dtype)
    return ops.sum(x * weights) / ops.maximum(ops.sum(weights), 1.0)


@keras.saving.register_keras_serializable(package="dlcompanion")
class ProximalPolicy(StepModel):
    r"""A policy and its critic, learning from a rollout that they no longer would play.

    One step of training, on observations with ``y = (actions, behaviour, advantages,
    returns)`` and optional weights, goes down the gradient of

    .. math:: L_\text{clip} + \frac{c_v}{n} \sum_i \bigl(v(s_i) - G_i\bigr)^2
        - \frac{c_H}{n} \sum_i H[\pi(\cdot \mid s_i)] .

    ``behaviour`` is what the policy gave for the observations when it played. The
    advantages are standardised within the batch. Both networks are called with
    ``training=False``, as they are when the policy acts.

    Args:
        policy: :class:`keras.Model` from observations to ``distribution.outputs``.
        critic: :class:`keras.Model` from observations to values ``(batch, 1)``.
        distribution: What the outputs mean, for example
            :class:`~dlcompanion.reinforcement.Categorical`.
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
        >>> from dlcompanion.reinforcement import Categorical
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
        actions, behaviour, advantages, returns = y
        weights = ops.ones_like(returns) if weights is None else weights
        advantages = standardised(advantages, weights)
        before = self.distribution.log_prob(behaviour, actions)
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
