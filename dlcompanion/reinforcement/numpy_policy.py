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

    def dense(units, activation, scale, seed):
        initializer = keras.initializers.VarianceScaling(
            scale**2, mode="fan_avg", distribution="uniform", seed=seed
        )
        return keras.layers.Dense(units, activation, kernel_initializer=initializer)

    flatten = [keras.layers.Flatten()] if len(input_shape) != 1 else []
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *flatten,
            dense(64, activation, 1.0, seeds[0]),
            dense(64, activation, 1.0, seeds[1]),
            dense(outputs, "linear", last_scale, seeds[2]),
        ],
        name=name,
    )


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
        if not isinstance(model, keras.Sequential) and not _is_line(model):
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
        self.weights = [
            (to_numpy(d.kernel), to_numpy(d.bias) if d.use_bias else 0.0)
            for d in self.layers
        ]
        self.log_std = None if self.spread is None else to_numpy(self.spread.log_std)

    def __call__(self, x):
        for function, (kernel, bias) in zip(self.functions, self.weights, strict=True):
            x = function(x @ kernel + bias)
        if self.log_std is None:
            return x
        return np.concatenate([x, np.broadcast_to(self.log_std, x.shape)], axis=-1)


class CompiledModel:
    """Any other model, behind the same two methods: a compiled call.

    Args:
        model: :class:`keras.Model` with one input and one output.
    """

    def __init__(self, model):
        self.function = backend.compile(lambda x: model(x, training=False), jit=False)

    def refresh(self):
        """Nothing to do: the call reads the weights themselves."""

    def __call__(self, x):
        return keras.ops.convert_to_numpy(self.function(x))


def in_numpy(model):
    """How to call ``model`` on NumPy arrays cheaply: its chain, or a compiled call.

    Args:
        model: Built :class:`keras.Model`, called with ``training=False``.

    Returns:
        :class:`DenseChain` or :class:`CompiledModel`.
    """
    return DenseChain.of(model) or CompiledModel(model)


def _is_line(model):
    """Whether a functional model passes one tensor from layer to layer."""
    if not hasattr(model, "inputs") or not model.inputs or len(model.outputs) != 1:
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
