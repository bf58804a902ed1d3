"""Networks with a memory: from an observation and a state to outputs and a new state.

A recurrent layer of Keras takes a whole sequence, and an agent sees one observation at
a time. So the networks of a recurrent agent are models of one step, made with the cell
of such a layer. To act, the agent calls a NumPy copy of it where it knows how.
"""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.reinforcement.networks.actor import (
    ACTIVATIONS,
    AppendLogStd,
    DenseChain,
    _is_plain_dense,
    runs_its_layers,
    scaled_dense,
)
from dlcompanion.reinforcement.networks.network_checks import check_network


def recurrent_network(input_shape, outputs, last_scale, seed, name, spread=False):
    """The default network of a recurrent agent: 64 tanh units, and a memory of 64.

    Args:
        input_shape: Tuple, the shape of one observation; flattened if not a vector.
        outputs: Integer, the number of linear outputs.
        last_scale: Number, scale of the last layer's initial weights.
        seed: Integer, decides the initial weights.
        name: String, the name of the model.
        spread: Boolean, whether :class:`~dlcompanion.reinforcement.AppendLogStd`
            stands behind the outputs.

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
    if len(input_shape) != 1:
        flat = keras.layers.Flatten()(observations)
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


class RecurrentCopy:
    """A NumPy copy of a network with one GRU cell between float32 dense layers.

    Args:
        before: List of :class:`keras.layers.Dense` layers before the cell.
        cell: :class:`keras.layers.GRUCell`.
        after: List of dense layers behind it.
        spread: The :class:`AppendLogStd` behind them, or None.

    Example:
        >>> model = recurrent_network((4,), 2, 0.01, seed=0, name="policy")
        >>> copy = RecurrentCopy.of(model)
        >>> outputs, states = copy(np.zeros((3, 4), "float32"), copy.zeros(3))
        >>> outputs.shape, states.shape
        ((3, 2), (3, 64))
    """

    def __init__(self, before, cell, after, spread=None):
        self.before, self.cell = DenseChain(before), cell
        self.after = DenseChain(after, spread)
        self.units = cell.units
        self.refresh()

    @classmethod
    def of(cls, model):
        """The copy that equals ``model``, or None where there is none."""
        if not runs_its_layers(model):
            return None
        layers = [x for x in model.layers if type(x) is not keras.layers.InputLayer]
        places = [n for n, layer in enumerate(layers) if _is_plain_gru(layer)]
        if len(places) != 1:
            return None
        cell, x, states = layers[places[0]], *model.inputs
        try:
            for layer in layers:  # one after the other
                sources = layer.input if layer is cell else [layer.input]
                if [id(s) for s in sources] != [id(x), id(states)][: len(sources)]:
                    return None
                x, new = layer.output if layer is cell else (layer.output, states)
                states = new if layer is cell else states
        except (AttributeError, ValueError):  # a layer that was never or twice called
            return None
        if [id(y) for y in model.outputs] != [id(x), id(cell.output[1])]:
            return None
        before, after = layers[: places[0]], layers[places[0] + 1 :]
        before = before[type((before or [None])[0]) is keras.layers.Flatten :]
        spread = after.pop() if after and type(after[-1]) is AppendLogStd else None
        if not all(map(_is_plain_dense, before + after)):
            return None
        return cls(before, cell, after, spread)

    def zeros(self, count):
        """The states in which episodes begin.

        Args:
            count: Integer, how many.

        Returns:
            Float32 array ``(count, units)``.
        """
        return np.zeros((count, self.units), "float32")

    def refresh(self):
        """Copy the weights of the Keras layers anew."""
        self.before.refresh()
        self.after.refresh()
        cell = self.cell
        self.weights = [
            keras.ops.convert_to_numpy(w)
            for w in (cell.kernel, cell.recurrent_kernel, cell.bias)
        ]

    def __call__(self, observations, states):
        kernel, recurrent_kernel, bias = self.weights
        x = self.before(observations.reshape(len(observations), -1))
        x = x @ kernel + bias[0]  # (batch, 3 * units): update, reset, candidate
        h = states @ recurrent_kernel + bias[1]
        gates = ACTIVATIONS["sigmoid"]((x + h)[:, : 2 * self.units])
        update, reset = np.split(gates, 2, axis=1)
        candidate = np.tanh(x[:, -self.units :] + reset * h[:, -self.units :])
        states = update * states + (1 - update) * candidate
        return self.after(states), states


class CompiledStep:
    """Any other network, behind the same methods: a compiled call.

    Args:
        model: :class:`keras.Model` that :func:`check_recurrent` let pass.
    """

    def __init__(self, model):
        self.units = model.inputs[1].shape[1]
        self.function = backend.compile(lambda *x: model(x, training=False), jit=False)

    zeros = RecurrentCopy.zeros

    def refresh(self):
        """Nothing to do: the call reads the weights themselves."""

    def __call__(self, observations, states):
        outputs = self.function(observations, states)
        return tuple(
            keras.ops.convert_to_numpy(y).astype("float32", copy=False) for y in outputs
        )


def step_in_numpy(model):
    """How to make a step of ``model`` on NumPy arrays cheaply.

    Args:
        model: :class:`keras.Model` that :func:`check_recurrent` let pass.

    Returns:
        :class:`RecurrentCopy` or :class:`CompiledStep`, a function of observations
        ``(batch, ...)`` and states ``(batch, units)`` that returns outputs and new
        states.
    """
    return RecurrentCopy.of(model) or CompiledStep(model)


def _is_plain_gru(layer):
    return (
        type(layer) is keras.layers.GRUCell
        and layer.dtype_policy.name == "float32"
        and layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.use_bias
        and layer.reset_after
    )
