"""MADE: a dense network in which no output sees its own input or a later one."""

import keras
import numpy as np
from keras import ops

from dlcompanion.checks import check_count

ORDERS = ("forward", "backward")


@keras.saving.register_keras_serializable(package="dlcompanion")
class MADE(keras.layers.Layer):
    r"""Dense network whose output for a variable sees the variables before it alone.

    Every unit has a degree: that of the :math:`i`-th variable is :math:`i`, those of
    the hidden units go round :math:`1, \dots, D - 1`. A unit of degree :math:`m`
    listens to units of a degree of at most :math:`m`, an output to units of a lower
    degree than its own; what is forbidden is multiplied by zero in the kernel,

    .. math:: h^\ell = g\bigl((M^\ell \odot W^\ell)^\top h^{\ell-1} + b^\ell\bigr),
              \qquad M^\ell_{kj} = [m_k \le m_j],
              \quad M^{\text{out}}_{kj} = [m_k < m_j] .

    So output :math:`i` is a function of :math:`x_1, \dots, x_{i-1}`, and one pass gives
    the conditionals of all :math:`D` variables. The paper draws the degrees at random;
    here they are fixed. A context, if there is one, has degree 0, and hidden units of
    degree 0 join: all outputs see it.

    Args:
        outputs_per_variable: Positive integer, numbers given for each variable.
        hidden_units: Sequence of positive integers, the hidden layers.
        activation: Activation of the hidden layers.
        order: ``"forward"``, ``"backward"`` (the last variable comes first), or the
            variables' numbers in the order in which they come.
        output_initializer: Initializer of the last kernel.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        ``(batch, event_size, outputs_per_variable)``.

    Raises:
        ValueError: If a size is not positive, ``order`` no order of the variables, or
            the input not of rank 2.

    Example:
        >>> made = MADE(outputs_per_variable=2, hidden_units=(16,))
        >>> tuple(made(keras.ops.ones((5, 3))).shape)
        (5, 3, 2)

    References:
        Germain et al., *MADE: Masked Autoencoder for Distribution Estimation*, 2015.
        https://arxiv.org/abs/1502.03509
    """

    def __init__(
        self,
        outputs_per_variable=1,
        hidden_units=(64,),
        activation="relu",
        order="forward",
        output_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.outputs_per_variable = check_count(
            "outputs_per_variable", outputs_per_variable
        )
        self.hidden_units = tuple(check_count("hidden_units", n) for n in hidden_units)
        self.activation = keras.activations.get(activation)
        self.order = order if isinstance(order, str) else [int(n) for n in order]
        if not (order in ORDERS if isinstance(order, str) else _is_order(self.order)):
            raise ValueError(
                f"order must be one of {ORDERS} or name each variable once, from 0 on. "
                f"Received: order={order!r}"
            )
        self.output_initializer = keras.initializers.get(output_initializer)

    def build(self, inputs_shape, context_shape=None):
        size = inputs_shape[-1]
        if len(inputs_shape) != 2 or size is None:
            raise ValueError(
                "MADE needs inputs of shape (batch, event_size). "
                f"Received: inputs_shape={tuple(inputs_shape)}"
            )
        extra = 0 if context_shape is None else context_shape[-1]
        variable_degrees = 1 + self.ranks(size)
        degrees = np.concatenate([variable_degrees, np.zeros(extra, int)])
        least = 0 if extra else min(1, size - 1)
        self.hidden = []
        for units in self.hidden_units:
            following = np.arange(units) % max(size - least, 1) + least
            mask = degrees[:, None] <= following[None, :]
            self.hidden.append(
                _MaskedDense(mask, units, self.activation, dtype=self.dtype_policy)
            )
            degrees = following
        out_degrees = np.repeat(variable_degrees, self.outputs_per_variable)
        self.output_layer = _MaskedDense(
            degrees[:, None] < out_degrees[None, :],
            len(out_degrees),
            kernel_initializer=self.output_initializer,
            dtype=self.dtype_policy,
        )
        for layer in (*self.hidden, self.output_layer):
            layer.build((None, len(layer.mask)))

    def call(self, inputs, context=None):
        h = inputs  # (batch, event)
        if context is not None:
            h = ops.concatenate([h, ops.cast(context, h.dtype)], axis=-1)
        for layer in self.hidden:
            h = layer(h)
        shape = (-1, inputs.shape[-1], self.outputs_per_variable)
        return ops.reshape(self.output_layer(h), shape)

    def ranks(self, event_size):
        """Which place each variable has in the order, counted from 0.

        Args:
            event_size: Integer, the number of variables.

        Returns:
            Integer array of shape ``(event_size,)``.
        """
        if self.order == "forward":
            return np.arange(event_size)
        if self.order == "backward":
            return np.arange(event_size)[::-1]
        if len(self.order) != event_size:
            raise ValueError(
                f"order must name the {event_size} variables. "
                f"Received: order={self.order}"
            )
        return np.argsort(self.order)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape, self.outputs_per_variable)

    def get_config(self):
        return {
            **super().get_config(),
            "outputs_per_variable": self.outputs_per_variable,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(self.activation),
            "order": self.order,
            "output_initializer": keras.initializers.serialize(self.output_initializer),
        }


class _MaskedDense(keras.layers.Dense):
    """Dense layer some of whose connections do not exist."""

    def __init__(self, mask, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mask = mask.astype("float32")  # (in, units), a constant

    def call(self, inputs, training=None):
        kernel = self.kernel * ops.cast(self.mask, self.kernel.dtype)
        outputs = ops.matmul(inputs, kernel) + self.bias
        return outputs if self.activation is None else self.activation(outputs)


def _is_order(order):
    return sorted(order) == list(range(len(order))) and len(order) > 0
