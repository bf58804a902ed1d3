"""A network that judges positions: policy and value, and how it learns them."""

import keras
import numpy as np
from keras import ops

from dlcompanion.training import StepModel


def search_policy_loss(logits, policies):
    r"""How far the policy of the network is from that of the search.

    .. math:: -\frac1n \sum_i \sum_a \pi_i(a) \log p(a \mid s_i)

    Args:
        logits: Tensor ``(batch, actions)``.
        policies: Tensor of that shape, the share of visits :math:`\pi_i`.

    Returns:
        Scalar tensor.

    Example:
        >>> uniform = np.full((2, 4), 0.25, "float32")
        >>> loss = search_policy_loss(np.zeros((2, 4), "float32"), uniform)
        >>> print(f"{float(loss):.4f}")
        1.3863
    """
    logs = ops.log_softmax(ops.convert_to_tensor(logits))
    policies = ops.convert_to_tensor(policies, dtype=logs.dtype)
    return -ops.mean(ops.sum(policies * logs, axis=-1))


def outcome_loss(values, outcomes):
    r"""How far the values are from how the games ended.

    .. math:: \frac1n \sum_i \bigl(v(s_i) - z_i\bigr)^2

    Args:
        values: Tensor ``(batch,)``.
        outcomes: Tensor ``(batch,)``, :math:`z_i`: 1 if the player to move won, -1 if
            the opponent did, 0 for a draw.

    Returns:
        Scalar tensor.

    Example:
        >>> float(outcome_loss(np.float32([0.5, 0.0]), np.float32([1.0, 0.0])))
        0.125
    """
    values = ops.convert_to_tensor(values)
    return ops.mean(ops.square(values - ops.convert_to_tensor(outcomes, values.dtype)))


@keras.saving.register_keras_serializable(package="dlcompanion")
class PolicyValue(StepModel):
    r"""A network with two heads that learns from positions of self-play.

    One step of training, on observations with ``y = (policies, outcomes)``, goes down
    the gradient of :func:`search_policy_loss` plus :func:`outcome_loss` plus the
    regularizers of the network's weights. The network is called with
    ``training=False``, as it is when it plays.

    Args:
        network: :class:`keras.Model` from observations to logits ``(batch, actions)``
            and values ``(batch, 1)``.
        **kwargs: Passed on to :class:`keras.Model`.

    Call arguments:
        inputs: Observations ``(batch, ...)``.

    Returns:
        Logits ``(batch, actions)`` and values ``(batch,)``.

    Example:
        >>> inputs = keras.Input((3,))
        >>> heads = [keras.layers.Dense(n)(inputs) for n in (2, 1)]
        >>> logits, values = PolicyValue(keras.Model(inputs, heads))(np.ones((5, 3)))
        >>> tuple(logits.shape), tuple(values.shape)
        ((5, 2), (5,))
    """

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def build(self, input_shape):
        """The network was built by whoever made it."""

    def call(self, inputs):
        logits, values = self.network(inputs, training=False)
        return ops.cast(logits, "float32"), ops.cast(values[:, 0], "float32")

    def update(self, data):
        observations, (policies, outcomes), _ = keras.utils.unpack_x_y_sample_weight(
            data
        )

        def loss():
            logits, values = self(observations)
            parts = search_policy_loss(logits, policies), outcome_loss(values, outcomes)
            return parts[0] + parts[1], parts

        total, parts = self.descend(
            loss, self.network.trainable_variables, has_aux=True
        )
        return {"loss": total, "policy_loss": parts[0], "value_loss": parts[1]}

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return {**super().get_config(), "network": network}


def policy_value_network(observation_shape, actions, seed, units=128):
    """The default network of AlphaZero: two dense layers and two heads.

    Args:
        observation_shape: Tuple, the shape of one observation.
        actions: Integer, the number of logits.
        seed: Integer, decides the initial weights.
        units: Integer, the rectified units of each layer.

    Returns:
        :class:`keras.Model` from observations to logits ``(batch, actions)`` and
        values ``(batch, 1)`` in [-1, 1].

    Example:
        >>> policy_value_network((3, 3, 2), 9, seed=0).output_shape
        [(None, 9), (None, 1)]
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(4).tolist())

    def dense(units, activation, name, scale=1.0):
        initializer = keras.initializers.VarianceScaling(
            scale, mode="fan_in", seed=next(seeds)
        )
        return keras.layers.Dense(
            units,
            activation,
            kernel_initializer=initializer,
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )

    inputs = keras.Input(observation_shape)
    hidden = keras.layers.Flatten()(inputs)
    hidden = dense(units, "relu", "trunk_1", 2.0)(hidden)
    hidden = dense(units, "relu", "trunk_2", 2.0)(hidden)
    # near 0 both: all moves alike, and nobody ahead
    logits = dense(actions, "linear", "logits", 0.01)(hidden)
    value = dense(1, "tanh", "value", 0.01)(hidden)
    return keras.Model(inputs, [logits, value], name="network")
