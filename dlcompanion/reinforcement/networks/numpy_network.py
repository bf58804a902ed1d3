"""Small networks in NumPy: acting without the price of calling a backend.

An environment step costs a few microseconds; calling a compiled Keras model on eight
observations costs ten to a hundred times as many, whatever the model. A chain of dense
layers is a handful of matrix products, so agents act with a NumPy copy of it and learn
with the Keras model. When a copy is to be read anew, ``Actor`` knows.
"""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.reinforcement.networks.dense_network import AppendLogStd

ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 0.5 * np.tanh(0.5 * z) + 0.5,
    "silu": lambda z: z * (0.5 * np.tanh(0.5 * z) + 0.5),
}


class DenseChain:
    """A NumPy copy of a Keras model that is a chain of float32 dense layers.

    An :class:`AppendLogStd` may follow as the last one.

    Args:
        layers: List of :class:`keras.layers.Dense` layers, from input to output.
        spread: The :class:`AppendLogStd` behind them, or None.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> chain = DenseChain.of(model)
        >>> chain(np.zeros((1, 4), "float32")).tolist()
        [[0.0, 0.0]]
    """

    units = None

    def __init__(self, layers, spread=None):
        self.layers, self.spread = layers, spread
        self.functions = [ACTIVATIONS[d.activation.__name__] for d in layers]
        self.refresh()

    @classmethod
    def of(cls, model):
        """The chain that equals ``model``, or None where there is none."""
        if not _is_line(model):
            return None
        layers = [x for x in model.layers if type(x) is not keras.layers.InputLayer]
        spread = None
        if layers and type(layers[-1]) is AppendLogStd:
            *layers, spread = layers
        if not layers or not all(map(_is_plain_dense, layers)):
            return None
        return cls(layers, spread) if len(model.input_shape) == 2 else None

    def refresh(self):
        """Copy the weights of the Keras layers anew."""
        to_numpy = keras.ops.convert_to_numpy
        self.weights = _copied(self.layers)
        self.log_std = None if self.spread is None else to_numpy(self.spread.log_std)

    def __call__(self, x):
        for function, (kernel, bias) in zip(self.functions, self.weights, strict=True):
            x = function(x @ kernel + bias)
        if self.log_std is None:
            return x
        return np.concatenate([x, np.broadcast_to(self.log_std, x.shape)], axis=-1)


class DenseTree:
    """A NumPy copy of a functional model of float32 dense layers that may branch.

    A trunk with a head for the policy and one for the value is such a tree. One
    Flatten may stand before all else.

    Args:
        model: A model of which :meth:`of` made sure that it is such a tree.

    Example:
        >>> inputs = keras.Input((2, 2))
        >>> trunk = keras.layers.Dense(4, "relu")(keras.layers.Flatten()(inputs))
        >>> heads = [keras.layers.Dense(n)(trunk) for n in (3, 1)]
        >>> tree = DenseTree.of(keras.Model(inputs, heads))
        >>> [output.shape for output in tree(np.zeros((5, 2, 2), "float32"))]
        [(5, 3), (5, 1)]
    """

    units = None

    def __init__(self, model):
        self.layers = [x for x in model.layers if type(x) is keras.layers.Dense]
        self.functions = [ACTIVATIONS[d.activation.__name__] for d in self.layers]
        # the place of a tensor: 0 for the (flat) input, n for the n-th dense layer
        places = {id(model.inputs[0]): 0}
        for layer in model.layers:
            if type(layer) is keras.layers.Flatten:
                places[id(layer.output)] = 0
        for number, layer in enumerate(self.layers, 1):
            places[id(layer.output)] = number
        self.sources = [places[id(layer.input)] for layer in self.layers]
        self.ends = [places[id(output)] for output in model.outputs]
        self.refresh()

    @classmethod
    def of(cls, model):
        """The tree that equals ``model``, or None where there is none."""
        if not runs_its_layers(model):
            return None
        if len(model.inputs or ()) != 1 or len(model.outputs) < 2:
            return None  # one input, and several outputs in a list
        if not isinstance(model.output, (list, tuple)):
            return None
        known = {id(model.inputs[0])}
        for layer in model.layers:
            if type(layer) is keras.layers.InputLayer:
                continue
            flatten = type(layer) is keras.layers.Flatten
            try:
                source, output = layer.input, layer.output
            except (AttributeError, ValueError):  # never or twice called
                return None
            first = source is model.inputs[0]
            if id(source) not in known or not (first or not flatten):
                return None
            if not flatten and not (_is_plain_dense(layer) and len(source.shape) == 2):
                return None
            known.add(id(output))
        return cls(model) if {id(x) for x in model.outputs} <= known else None

    def refresh(self):
        """Copy the weights of the Keras layers anew."""
        self.weights = _copied(self.layers)

    def __call__(self, x):
        values = [x.reshape(len(x), -1)]
        parts = zip(self.functions, self.sources, self.weights, strict=True)
        for function, source, (kernel, bias) in parts:
            values.append(function(values[source] @ kernel + bias))
        return [values[end] for end in self.ends]


class RecurrentCopy:
    """A NumPy copy of a network with one GRU cell between float32 dense layers.

    Args:
        before: List of :class:`keras.layers.Dense` layers before the cell.
        cell: :class:`keras.layers.GRUCell`.
        after: List of dense layers behind it.
        spread: The :class:`AppendLogStd` behind them, or None.

    Example:
        >>> inputs = observations, states = keras.Input((4,)), keras.Input((8,))
        >>> y, new = keras.layers.GRUCell(8)(observations, states)
        >>> copy = RecurrentCopy.of(
        ...     keras.Model(list(inputs), [keras.layers.Dense(2)(y), new])
        ... )
        >>> y, new = copy(np.zeros((3, 4), "float32"), np.zeros((3, 8), "float32"))
        >>> y.shape, new.shape
        ((3, 2), (3, 8))
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
        if len(places) != 1 or len(model.inputs or ()) != 2:
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


class CompiledModel:
    """Any other model, behind the same two methods: a compiled call.

    Args:
        model: :class:`keras.Model` of one input, or of observations and states.
        padded: Boolean, for batches of ever other sizes: each is filled up with zeros
            to the next power of 2, so that few programs are compiled.
    """

    def __init__(self, model, padded=False):
        self.padded = padded
        inputs = getattr(model, "inputs", None) or ()
        self.units = inputs[1].shape[1] if len(inputs) == 2 else None
        self.function = backend.compile(
            lambda *x: model(x if len(x) > 1 else x[0], training=False), jit=False
        )

    def refresh(self):
        """Nothing to do: the call reads the weights themselves."""

    def __call__(self, *inputs):
        count = len(inputs[0])
        if self.padded:
            size = 1 << (count - 1).bit_length()
            inputs = [
                np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)])
                for x in inputs
            ]

        def rows(y):
            return keras.ops.convert_to_numpy(y)[:count].astype("float32", copy=False)

        return keras.tree.map_structure(rows, self.function(*inputs))


def in_numpy(model, padded=False):
    """How to call ``model`` on NumPy arrays cheaply: a copy, or a compiled call.

    Args:
        model: Built :class:`keras.Model`, called with ``training=False``: of
            observations, or one step of a recurrent network, from observations and
            states to outputs and new states.
        padded: Boolean, as of :class:`CompiledModel`.

    Returns:
        :class:`DenseChain`, :class:`DenseTree`, :class:`RecurrentCopy` or
        :class:`CompiledModel`. Each is called like the model; ``units`` is the size of
        its states, None if it has no memory.
    """
    for kind in (DenseChain, DenseTree, RecurrentCopy):
        copy = kind.of(model)
        if copy is not None:
            return copy
    return CompiledModel(model, padded)


def _copied(layers):
    to_numpy = keras.ops.convert_to_numpy
    return [
        (to_numpy(d.kernel), to_numpy(d.bias) if d.use_bias else 0.0) for d in layers
    ]


def runs_its_layers(model):
    """Whether a model is no more than its layers: its ``call`` is Keras's own.

    Args:
        model: :class:`keras.Model`.

    Returns:
        Boolean.

    Example:
        >>> runs_its_layers(keras.Sequential([keras.Input((4,)), keras.layers.ReLU()]))
        True
    """
    by_keras = type(model).call.__module__.split(".")[0] == "keras"
    return by_keras and hasattr(model, "inputs")


def _is_line(model):
    """Whether a model passes one tensor from layer to layer."""
    if not runs_its_layers(model):
        return False
    if isinstance(model, keras.Sequential):
        return True
    if not model.inputs or len(model.outputs) != 1:
        return False
    try:
        pairs = zip(model.layers, model.layers[1:], strict=False)
        line = all(after.input is before.output for before, after in pairs)
        return line and model.layers[-1].output is model.outputs[0]
    except (AttributeError, ValueError):  # a layer that was never or twice called
        return False


def _is_plain_dense(layer):
    return (
        type(layer) is keras.layers.Dense
        and layer.dtype_policy.name == "float32"
        and getattr(layer.activation, "__name__", None) in ACTIVATIONS
        and ACTIVATIONS.get(layer.activation.__name__) is not None
        and getattr(keras.activations, layer.activation.__name__) is layer.activation
    )


def _is_plain_gru(layer):
    return (
        type(layer) is keras.layers.GRUCell
        and layer.dtype_policy.name == "float32"
        and layer.activation is keras.activations.tanh
        and layer.recurrent_activation is keras.activations.sigmoid
        and layer.use_bias
        and layer.reset_after
    )
