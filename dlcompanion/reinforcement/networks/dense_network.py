"""Dense networks: what an agent plays with if it is given no network."""

import keras
import numpy as np
from keras import ops


def dense_network(
    input_shape,
    outputs,
    last_scale,
    seed,
    name,
    activation="tanh",
    spread=False,
    scale=1.0,
):
    """The default network of an agent: two hidden layers of 64 units.

    Args:
        input_shape: Tuple, the shape of one observation; flattened if not a vector.
        outputs: Integer, the number of linear outputs.
        last_scale: Number, scale of the last layer's initial weights. A small one
            makes a policy begin with nearly equal probabilities.
        seed: Integer, decides the initial weights.
        name: String, the name of the model.
        activation: String, of the hidden units.
        spread: Boolean, whether :class:`~dlcompanion.reinforcement.AppendLogStd`
            stands behind the outputs.
        scale: Number that observations are multiplied with.

    Returns:
        A :class:`keras.Sequential` model.

    Example:
        >>> dense_network((4,), 2, 0.01, seed=0, name="policy").output_shape
        (None, 2)
    """
    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *first_layers(input_shape, scale),
            scaled_dense(64, activation, 1.0, seeds[0]),
            scaled_dense(64, activation, 1.0, seeds[1]),
            scaled_dense(outputs, "linear", last_scale, seeds[2]),
            *([AppendLogStd(name="log_std")] if spread else []),
        ],
        name=name,
    )


def dense_critic(observation_shape, size, seed, name, scale=1.0):
    """The default critic of real actions: two hidden layers of 64 units.

    Args:
        observation_shape: Tuple, the shape of one observation.
        size: Integer, the numbers that an action has.
        seed: Integer, decides the initial weights.
        name: String, the name of the model.
        scale: Number that observations are multiplied with.

    Returns:
        A :class:`keras.Model` from ``[observations, actions]`` to one value.

    Example:
        >>> dense_critic((4,), 2, seed=0, name="critic").output_shape
        (None, 1)
    """
    observations, actions = keras.Input(observation_shape), keras.Input((size,))
    flat = observations
    for layer in first_layers(observation_shape, scale):
        flat = layer(flat)
    joined = keras.layers.Concatenate()([flat, actions])
    dense = dense_network((joined.shape[-1],), 1, 1.0, seed, name, "relu")
    return keras.Model([observations, actions], dense(joined), name=name)


def first_layers(input_shape, scale=1.0):
    """What stands before the dense layers of a default network.

    Args:
        input_shape: Tuple, the shape of one observation.
        scale: Number that observations are multiplied with: 1 / 255 if they are bytes.

    Returns:
        List of layers: Rescaling if need be, and Flatten if it is no vector.

    Example:
        >>> [type(layer).__name__ for layer in first_layers((8, 8, 1), 1 / 255)]
        ['Rescaling', 'Flatten']
    """
    layers = [] if scale == 1.0 else [keras.layers.Rescaling(scale)]
    return layers + ([keras.layers.Flatten()] if len(input_shape) != 1 else [])


def scaled_dense(units, activation, scale, seed):
    """A dense layer whose initial weights are Glorot's times ``scale``.

    Args:
        units: Positive integer.
        activation: String.
        scale: Number.
        seed: Integer, decides the initial weights.

    Returns:
        A :class:`keras.layers.Dense` layer.

    Example:
        >>> layer = scaled_dense(2, "linear", 0.01, seed=0)
        >>> bool(ops.max(ops.abs(layer(np.ones((1, 3))))) < 0.1)
        True
    """
    initializer = keras.initializers.VarianceScaling(
        scale**2, mode="fan_avg", distribution="uniform", seed=seed
    )
    return keras.layers.Dense(units, activation, kernel_initializer=initializer)


@keras.saving.register_keras_serializable(package="dlcompanion")
class AppendLogStd(keras.layers.Layer):
    r"""The last layer of a Gaussian policy: a spread that no observation changes.

    Puts :math:`\log \sigma`, one learned number an action, beside the means:
    :math:`[\mu(s), \log \sigma]`. What the policy explores with then depends on how
    long it has learned, and not on where it is.

    Args:
        initial: Number, :math:`\log \sigma` in the beginning.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        ``(batch, size)``.

    Output shape:
        ``(batch, 2 * size)``.

    Example:
        >>> keras.ops.convert_to_numpy(AppendLogStd(-1.0)(np.ones((1, 2)))).tolist()
        [[1.0, 1.0, -1.0, -1.0]]
    """

    def __init__(self, initial=0.0, **kwargs):
        super().__init__(**kwargs)
        self.initial = float(initial)

    def build(self, input_shape):
        self.log_std = self.add_weight(
            name="log_std",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial),
        )

    def call(self, inputs):
        spread = ops.zeros_like(inputs) + self.log_std
        return ops.concatenate([inputs, spread], axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 2 * input_shape[-1])

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}
