"""Coupling layers: invertible by construction, whatever network is inside."""

import keras
from keras import ops


class Coupling(keras.layers.Layer):
    """Move one half of the variables by an amount that the other half decides.

    A subclass says how: ``outputs_per_variable`` (an attribute or a property) is the
    number of parameters that the conditioner gives each moved variable, and
    ``move(moved, params, inverse)`` returns the moved half and the log-determinant
    from ``params`` of shape ``(batch, outputs_per_variable * moved_size)``.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor of shape ``(batch, context_size)`` that the conditioner sees
            beside the kept half, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.
    """

    outputs_per_variable = None  # parameters that the conditioner gives each variable

    def __init__(self, conditioner, swap=False, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)
        if not isinstance(conditioner, keras.layers.Layer):
            raise ValueError(
                f"{type(self).__name__} needs a Keras layer or model as conditioner. "
                f"Received: conditioner={conditioner!r}"
            )
        self.conditioner = conditioner
        self.swap = bool(swap)

    def build(self, inputs_shape, context_shape=None):
        if len(inputs_shape) != 2 or inputs_shape[-1] is None or inputs_shape[-1] < 2:
            raise ValueError(
                f"{type(self).__name__} needs inputs of shape (batch, event_size) with "
                f"event_size >= 2. Received: inputs_shape={tuple(inputs_shape)}"
            )
        kept, moved = halves(inputs_shape[-1], self.swap)
        seen = kept if context_shape is None else kept + context_shape[-1]
        if not self.conditioner.built:
            self.conditioner.build((None, seen))
        given = self.conditioner.compute_output_shape((None, seen))[-1]
        if given != self.outputs_per_variable * moved:
            raise ValueError(
                f"{type(self).__name__} keeps {kept} variables and moves {moved}: its "
                f"conditioner must return {self.outputs_per_variable} x {moved} "
                f"outputs. Received: {given} outputs"
            )

    def call(self, inputs, inverse=False, context=None):
        first = inputs.shape[-1] // 2
        kept, moved = inputs[:, :first], inputs[:, first:]
        if self.swap:
            kept, moved = moved, kept
        seen = kept
        if context is not None:
            seen = ops.concatenate([kept, ops.cast(context, kept.dtype)], axis=-1)
        params = ops.cast(self.conditioner(seen), inputs.dtype)
        moved, log_det = self.move(moved, params, inverse)
        parts = [moved, kept] if self.swap else [kept, moved]
        return ops.concatenate(parts, axis=-1), log_det

    def move(self, moved, params, inverse):
        raise NotImplementedError("a coupling says how the second half is moved")

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])

    def get_config(self):
        conditioner = keras.saving.serialize_keras_object(self.conditioner)
        return {**super().get_config(), "conditioner": conditioner, "swap": self.swap}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["conditioner"] = keras.saving.deserialize_keras_object(
            config["conditioner"]
        )
        return cls(**config)


@keras.saving.register_keras_serializable(package="dlcompanion")
class AdditiveCoupling(Coupling):
    r"""Shift one half of the variables by a function of the other half.

    With :math:`x = (x_1, x_2)` and any network :math:`t`,

    .. math:: y_1 = x_1, \qquad y_2 = x_2 + t(x_1),
              \qquad \log |\det \partial y / \partial x| = 0 .

    The inverse subtracts :math:`t(y_1)`; the network itself is never inverted.

    Args:
        conditioner: Keras layer or model from the kept half to one output for each
            variable of the moved half. In a conditional flow it sees the context
            behind the kept half.
        swap: Boolean. If true, the second half is kept and the first is moved. Of an
            odd number of variables the first half is the smaller.
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given, whatever the global policy says:
            the conditioner may compute in half precision, the density may not.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the conditioner is no layer or returns another number of
            outputs, or if the input has fewer than two variables.

    Example:
        >>> coupling = AdditiveCoupling(keras.layers.Dense(2))
        >>> y, log_det = coupling(keras.ops.ones((5, 4)))
        >>> x, _ = coupling(y, inverse=True)
        >>> bool(keras.ops.all(keras.ops.isclose(x, 1.0)))
        True

    References:
        Dinh et al., *NICE: Non-linear Independent Components Estimation*, 2014.
        https://arxiv.org/abs/1410.8516
    """

    outputs_per_variable = 1

    def move(self, moved, params, inverse):
        log_det = ops.zeros_like(moved[:, 0])
        return (moved - params if inverse else moved + params), log_det


@keras.saving.register_keras_serializable(package="dlcompanion")
class AffineCoupling(Coupling):
    r"""Scale and shift one half of the variables by functions of the other half.

    .. math:: y_1 = x_1, \qquad y_2 = x_2 \odot e^{s(x_1)} + t(x_1),
              \qquad \log |\det \partial y / \partial x| = \sum_i s_i(x_1) .

    One conditioner gives :math:`t` and then a raw :math:`r`; the log-scale is
    :math:`s = c \tanh r` with a learned :math:`c` for each variable, so that no
    scale explodes. A subclass that overrides ``log_scale(raw)`` bounds it otherwise.

    Args:
        conditioner: As :class:`AdditiveCoupling`, with two outputs for each variable
            of the moved half: all shifts first, then all raw log-scales.
        swap: As :class:`AdditiveCoupling`.
        **kwargs: As :class:`AdditiveCoupling`.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: As :class:`AdditiveCoupling`.

    Example:
        >>> coupling = AffineCoupling(keras.layers.Dense(4))
        >>> y, log_det = coupling(keras.ops.ones((5, 4)))
        >>> tuple(log_det.shape)
        (5,)

    References:
        Dinh et al., *Density estimation using Real NVP*, 2017, eqs. 4 and 5.
        https://arxiv.org/abs/1605.08803
    """

    outputs_per_variable = 2

    def build(self, inputs_shape, context_shape=None):
        super().build(inputs_shape, context_shape)
        _, moved = halves(inputs_shape[-1], self.swap)
        self.bound = self.add_weight(
            name="bound", shape=(moved,), initializer="ones", autocast=False
        )

    def log_scale(self, raw):
        return ops.cast(self.bound, raw.dtype) * ops.tanh(raw)

    def move(self, moved, params, inverse):
        shift, raw = ops.split(params, 2, axis=-1)
        s = self.log_scale(raw)
        if inverse:
            return (moved - shift) * ops.exp(-s), -ops.sum(s, axis=-1)
        return moved * ops.exp(s) + shift, ops.sum(s, axis=-1)


@keras.saving.register_keras_serializable(package="dlcompanion")
class DiagonalScaling(keras.layers.Layer):
    r"""Scale every variable by a learned factor, :math:`y_i = e^{s_i} x_i`.

    Additive couplings keep volume; this is the layer of NICE that lets some
    variables matter more than others.

    Args:
        **kwargs: As :class:`AdditiveCoupling`.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to divide.
        context: Ignored.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the input is not of rank 2.

    Example:
        >>> y, log_det = DiagonalScaling()(keras.ops.ones((5, 4)))
        >>> tuple(y.shape), tuple(log_det.shape)
        ((5, 4), (5,))

    References:
        Dinh et al., *NICE: Non-linear Independent Components Estimation*, 2014,
        section 3.3. https://arxiv.org/abs/1410.8516
    """

    def __init__(self, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())
        super().__init__(**kwargs)

    def build(self, inputs_shape, context_shape=None):
        if len(inputs_shape) != 2:
            raise ValueError(
                "DiagonalScaling needs inputs of shape (batch, event_size). "
                f"Received: inputs_shape={tuple(inputs_shape)}"
            )
        self.log_scale = self.add_weight(
            name="log_scale", shape=(inputs_shape[-1],), initializer="zeros"
        )

    def call(self, inputs, inverse=False, context=None):
        s = ops.cast(-self.log_scale if inverse else self.log_scale, inputs.dtype)
        log_det = ops.zeros_like(inputs[:, 0]) + ops.sum(s)
        return inputs * ops.exp(s), log_det

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])


def halves(event_size, swap):
    """Sizes of the kept and of the moved half of an event."""
    first = event_size // 2
    return (event_size - first, first) if swap else (first, event_size - first)
