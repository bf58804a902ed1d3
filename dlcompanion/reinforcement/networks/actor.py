"""Small networks in NumPy: acting without the price of calling a backend.

An environment step costs a few microseconds; calling a compiled Keras model on eight
observations costs ten to a hundred times as many, whatever the model. A chain of dense
layers is a handful of matrix products, so agents act with a NumPy copy of it, refreshed
once a rollout, and learn with the Keras model.
"""

import keras
import numpy as np
from keras import ops

from dlcompanion import backend

ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 0.5 * np.tanh(0.5 * z) + 0.5,
    "silu": lambda z: z * (0.5 * np.tanh(0.5 * z) + 0.5),
}


def dense_network(input_shape, outputs, last_scale, seed, name, activation="tanh"):
    """The default network of an agent: two hidden layers of 64 units.

    Args:
        input_shape: Tuple, the shape of one observation; flattened if not a vector.
        outputs: Integer, the number of linear outputs.
        last_scale: Number, scale of the last layer's initial weights. A small one
            makes a policy begin with nearly equal probabilities.
        seed: Integer, decides the initial weights.
        name: String, the name of the model.
        activation: String, of the hidden units.

    Returns:
        A :class:`keras.Sequential` model.

    Example:
        >>> dense_network((4,), 2, 0.01, seed=0, name="policy").output_shape
        (None, 2)
    """
    seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
    flatten = [keras.layers.Flatten()] if len(input_shape) != 1 else []
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *flatten,
            scaled_dense(64, activation, 1.0, seeds[0]),
            scaled_dense(64, activation, 1.0, seeds[1]),
            scaled_dense(outputs, "linear", last_scale, seeds[2]),
        ],
        name=name,
    )


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


class DenseChain:
    """A NumPy copy of a Keras model that is a chain of float32 dense layers.

    An :class:`AppendLogStd` may follow as the last one.

    Args:
        layers: List of :class:`keras.layers.Dense` layers, from input to output.
        spread: The :class:`AppendLogStd` behind them, or None.

    Example:
        >>> model = dense_network((4,), 2, 1.0, seed=0, name="policy")
        >>> chain = DenseChain.of(model)
        >>> chain(np.zeros((1, 4), "float32")).tolist()
        [[0.0, 0.0]]
    """

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


class CompiledModel:
    """Any other model, behind the same two methods: a compiled call.

    Args:
        model: :class:`keras.Model` with one input.
        padded: Boolean, for batches of ever other sizes: each is filled up with zeros
            to the next power of 2, so that few programs are compiled.
    """

    def __init__(self, model, padded=False):
        self.padded = padded
        self.function = backend.compile(lambda x: model(x, training=False), jit=False)

    def refresh(self):
        """Nothing to do: the call reads the weights themselves."""

    def __call__(self, x):
        count = len(x)
        if self.padded:
            size = 1 << (count - 1).bit_length()
            x = np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)])
        to_numpy = keras.ops.convert_to_numpy
        outputs = keras.tree.map_structure(to_numpy, self.function(x))
        return keras.tree.map_structure(lambda y: y[:count], outputs)


def in_numpy(model, padded=False):
    """How to call ``model`` on NumPy arrays cheaply: a copy, or a compiled call.

    Args:
        model: Built :class:`keras.Model`, called with ``training=False``.
        padded: Boolean, as of :class:`CompiledModel`.

    Returns:
        :class:`DenseChain`, :class:`DenseTree` or :class:`CompiledModel`.
    """
    copy = DenseChain.of(model) or DenseTree.of(model)
    return copy or CompiledModel(model, padded)


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
        >>> runs_its_layers(dense_network((4,), 2, 1.0, seed=0, name="policy"))
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
