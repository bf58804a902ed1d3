"""Networks with a memory: from an observation and a state to outputs and a new state.

A recurrent layer of Keras takes a whole sequence, and an agent sees one observation at
a time. So the networks of a recurrent agent are models of one step, made with the cell
of such a layer.
"""

import keras
import numpy as np

from dlcompanion.reinforcement.networks.dense_network import (
    AppendLogStd,
    first_layers,
    scaled_dense,
)
from dlcompanion.reinforcement.networks.network_checks import check_network


def recurrent_network(
    input_shape, outputs, last_scale, seed, name, spread=False, scale=1.0
):
    """The default network of a recurrent agent: 64 tanh units, and a memory of 64.

    Args:
        input_shape: Tuple, the shape of one observation; flattened if not a vector.
        outputs: Integer, the number of linear outputs.
        last_scale: Number, scale of the last layer's initial weights.
        seed: Integer, decides the initial weights.
        name: String, the name of the model.
        spread: Boolean, whether :class:`~dlcompanion.reinforcement.AppendLogStd`
            stands behind the outputs.
        scale: Number that observations are multiplied with.

    Returns:
        A :class:`keras.Model` from ``[observations, states]`` to
        ``[outputs, new states]``.

    Example:
        >>> model = recurrent_network((4,), 2, 0.01, seed=0, name="policy")
        >>> outputs, states = model([np.zeros((3, 4)), np.zeros((3, 64))])
        >>> tuple(outputs.shape), tuple(states.shape)
        ((3, 2), (3, 64))
    """
    seeds = np.random.SeedSequence(seed).generate_state(5).tolist()

    observations, states = keras.Input(input_shape), keras.Input((64,))
    flat = observations
    for layer in first_layers(input_shape, scale):
        flat = layer(flat)
    cell = keras.layers.GRUCell(
        64,
        kernel_initializer=keras.initializers.GlorotUniform(seeds[1]),
        recurrent_initializer=keras.initializers.Orthogonal(seed=seeds[2]),
        seed=seeds[4] // 2,  # of a dropout that it has not: no variable by chance
    )
    remembered, new = cell(scaled_dense(64, "tanh", 1.0, seeds[0])(flat), states)
    y = scaled_dense(outputs, "linear", last_scale, seeds[3])(remembered)
    if spread:
        y = AppendLogStd(name="log_std")(y)
    return keras.Model([observations, states], [y, new], name=name)


def check_recurrent(name, model, observation_shape, outputs):
    """Refuse a network that is not one step of a recurrent one for these spaces.

    Args:
        name: String, the argument's name.
        model: What was given.
        observation_shape: Tuple, the shape of one observation.
        outputs: Integer, the outputs that are needed.

    Raises:
        ValueError: If it is not.
    """
    inputs = getattr(model, "inputs", None) or ()
    states = tuple(inputs[1].shape[1:]) if len(inputs) == 2 else ()
    if isinstance(model, keras.Model) and (len(states) != 1 or None in states):
        raise ValueError(
            f"The {name} must be made of two inputs, observations and states (batch, "
            "units): keras.Model([observations, states], [outputs, new_states]). "
            f"Received: {name}={model.name!r} with inputs {list(inputs)}"
        )
    check_network(
        name,
        model,
        {"observations": observation_shape, "states": states},
        {"outputs": (outputs,), "new states": states},
    )
