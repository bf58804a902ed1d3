"""The network of deep Q-learning, its target and its loss."""

import keras
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.target_networks import (
    TargetedModel,
    freeze,
    frozen_copy,
)


def q_learning_targets(rewards, discounts, following, choice=None):
    r"""What the values of the actions taken should have been.

    .. math:: y = R + \gamma\, Q^-(s', a'), \qquad
        a' = \operatorname{argmax}_a Q^-(s', a) \text{ or }
        \operatorname{argmax}_a Q(s', a)

    The first choice takes the largest of several estimates for the estimate of the
    largest, and is too hopeful; with the second (*double* Q-learning) one network
    chooses and the other one judges.

    Args:
        rewards: Tensor :math:`R` ``(batch,)``.
        discounts: Tensor :math:`\gamma` ``(batch,)``, 0 where the episode terminated.
        following: Tensor :math:`Q^-(s', \cdot)` ``(batch, actions)``, of the target
            network.
        choice: Tensor :math:`Q(s', \cdot)` of the same shape that chooses the action,
            or None if the target network chooses itself.

    Returns:
        Tensor ``(batch,)`` through which no gradient flows.

    Example:
        >>> rewards, discounts, following = [1.0], [1.0], [[1.0, 5.0]]
        >>> print(float(q_learning_targets(rewards, discounts, following)[0]))
        6.0
        >>> choice = [[2.0, 0.0]]
        >>> print(float(q_learning_targets(rewards, discounts, following, choice)[0]))
        2.0
    """
    following = ops.convert_to_tensor(following)
    choice = following if choice is None else ops.convert_to_tensor(choice)
    best = ops.one_hot(ops.argmax(choice, axis=-1), choice.shape[-1])
    value = ops.sum(following * ops.cast(best, following.dtype), axis=-1)
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
    r"""A network of action values, and its older copy that says what to learn.

    One step of training, on observations with
    ``y = (actions, rewards, following, discounts)`` and optional weights, goes down the
    gradient of

    .. math:: \frac1n \sum_i w_i\, h\bigl(R_i + \gamma_i \max_a Q^-(s'_i, a)
        - Q(s_i, a_i)\bigr) ,

    with Huber's :math:`h` (:func:`q_learning_loss`). :math:`Q^-` is the target network:
    :math:`Q` as it was before one of the last ``target_every`` steps. Both are called
    with ``training=False``, as :math:`Q` is when the agent acts.

    Args:
        network: :class:`keras.Model` from observations to values ``(batch, actions)``.
        target_network: Another one like it, or None for a copy of ``network``.
        double: Boolean, whether ``network`` chooses the action that ``target_network``
            values.
        target_every: Positive integer: the target network is made equal to the network
            before every so many steps. With 1 there is in effect none.
        delta: Positive number, the error up to which :math:`h` is the square.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Values ``(batch, actions)``.

    Raises:
        ValueError: If ``target_every`` is not a positive integer or ``delta`` not a
            positive number.

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
        target_every=128,
        delta=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.delta = check_number("delta", delta)
        if not self.delta:
            raise ValueError(f"delta must be positive. Received: delta={delta}")
        self.target_every = check_count("target_every", target_every)
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
        """What a network says, in float32 whatever it computes in.

        Args:
            network: The network or its older copy.
            observations: Tensor ``(batch, ...)``.

        Returns:
            Tensor ``(batch, actions)``.
        """
        return ops.cast(network(observations, training=False), "float32")

    def targets(self, rewards, following, discounts):
        """What the values of the actions taken should have been.

        Args:
            rewards: Tensor ``(batch,)``.
            following: Observations ``(batch, ...)``.
            discounts: Tensor ``(batch,)``.

        Returns:
            Tensor ``(batch,)``.
        """
        values = self.outputs_of(self.target_network, following)
        choice = self.outputs_of(self.network, following) if self.double else None
        return q_learning_targets(rewards, discounts, values, choice)

    def judge(self, observations, actions, targets, weights):
        """The loss of a batch.

        Args:
            observations: Tensor ``(batch, ...)``.
            actions: Integer tensor ``(batch,)``.
            targets: What :meth:`targets` gave.
            weights: Tensor ``(batch,)``, or None for ones.

        Returns:
            ``(loss, (taken, errors))``: a scalar, the values of the actions taken and
            how wrong they are, ``(batch,)`` both.
        """
        values = self.outputs_of(self.network, observations)
        loss = q_learning_loss(values, actions, targets, weights, self.delta)
        taken = values_taken(values, actions)
        return loss, (taken, targets - taken)

    def update(self, data):
        observations, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        actions, rewards, following, discounts = y
        self._renew_target()
        targets = self.targets(rewards, following, discounts)

        def loss():
            return self.judge(observations, actions, targets, weights)

        value, (taken, errors) = self.descend(
            loss, self.network.trainable_variables, has_aux=True
        )
        return {"loss": value, "value_mean": ops.mean(taken), "errors": errors}

    def _renew_target(self):
        now = ops.equal(ops.mod(self.updates.value, self.target_every), 0)
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
            "target_every": self.target_every,
            "delta": self.delta,
        }
