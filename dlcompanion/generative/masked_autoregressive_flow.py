"""Masked and inverse autoregressive flows: each variable given those before it."""

import keras
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.generative.flows.autoregressive_network import MADE
from dlcompanion.generative.flows.change_of_variables import NormalizingFlow
from dlcompanion.generative.flows.inverted_transform import Inverted


class Autoregressive(keras.layers.Layer):
    r"""Move every variable by an amount that the variables before it decide.

    A subclass says how: ``outputs_per_variable`` (an attribute or a property) is the
    number of parameters that the conditioner gives each variable, and ``move(x,
    params, inverse)`` returns all variables moved and the log-determinant,
    ``(batch,)``, from ``params`` of shape ``(batch, event_size,
    outputs_per_variable)``.

    Forward, all parameters come from one pass of the conditioner. Backward, the
    parameters of a variable are known once those before it are: ``event_size`` passes,
    in a loop that is compiled as a loop, so that the program does not grow with the
    number of variables.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor of shape ``(batch, context_size)`` that the conditioner sees
            too, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.
    """

    outputs_per_variable = None

    def __init__(self, conditioner, **kwargs):
        kwargs.setdefault("dtype", keras.config.floatx())  # densities need float32
        super().__init__(**kwargs)
        if not isinstance(conditioner, MADE):
            raise ValueError(
                f"{type(self).__name__} needs a MADE as conditioner. "
                f"Received: conditioner={conditioner!r}"
            )
        if conditioner.outputs_per_variable != self.outputs_per_variable:
            raise ValueError(
                f"{type(self).__name__} needs {self.outputs_per_variable} outputs for "
                "each variable. Received: conditioner.outputs_per_variable="
                f"{conditioner.outputs_per_variable}"
            )
        self.conditioner = conditioner

    def build(self, inputs_shape, context_shape=None):
        if not self.conditioner.built:
            self.conditioner.build(inputs_shape, context_shape)

    def call(self, inputs, inverse=False, context=None):
        given = {} if context is None else {"context": context}

        def moved(x):
            params = ops.cast(self.conditioner(x, **given), inputs.dtype)
            return self.move(inputs, params, inverse)

        if not inverse:
            return moved(inputs)
        size = inputs.shape[-1]
        ranks = self.conditioner.ranks(size).astype("int32")

        def one_more(step, x):  # what is not known yet stays 0, so that none overflows
            return ops.where(ranks <= step, moved(x)[0], ops.zeros_like(x))

        known = backend.repeat(size - 1, one_more, ops.zeros_like(inputs))
        return moved(known)  # the last pass finds the last variable

    def move(self, x, params, inverse):
        raise NotImplementedError("an autoregressive layer says how a variable moves")

    def compute_output_shape(self, inputs_shape):
        return tuple(inputs_shape), tuple(inputs_shape[:1])

    def get_config(self):
        conditioner = keras.saving.serialize_keras_object(self.conditioner)
        return {**super().get_config(), "conditioner": conditioner}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        config["conditioner"] = keras.saving.deserialize_keras_object(
            config["conditioner"]
        )
        return cls(**config)


@keras.saving.register_keras_serializable(package="dlcompanion")
class MaskedAutoregressive(Autoregressive):
    r"""Shift and scale each variable by functions of the variables before it.

    .. math:: u_i = \bigl(x_i - \mu_i(x_{1:i-1})\bigr)\, e^{-\alpha_i(x_{1:i-1})},
              \qquad \log |\det \partial u / \partial x| = -\sum_i \alpha_i ,

    with :math:`\mu` and a raw :math:`r` from one :class:`MADE`, and :math:`\alpha = c
    \tanh r` with a learned :math:`c` for each variable, so that no scale explodes; the
    paper has :math:`\alpha = r`. The Jacobian is triangular. The inverse,
    :math:`x_i = u_i e^{\alpha_i} + \mu_i`, is found variable by variable.

    Args:
        conditioner: :class:`MADE` with two outputs for each variable. Its order is
            that of the flow.
        **kwargs: Passed on to :class:`keras.layers.Layer`. The dtype is that of
            ``keras.config.floatx()`` unless given, whatever the global policy says.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`, in ``event_size`` passes.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If the conditioner is no :class:`MADE` of two outputs a variable.

    Example:
        >>> layer = MaskedAutoregressive(MADE(2, hidden_units=(16,)))
        >>> u, log_det = layer(keras.ops.ones((5, 3)))
        >>> x, _ = layer(u, inverse=True)
        >>> bool(keras.ops.all(keras.ops.isclose(x, 1.0, atol=1e-5)))
        True

    References:
        Papamakarios et al., *Masked Autoregressive Flow for Density Estimation*, 2017.
        https://arxiv.org/abs/1705.07057
    """

    outputs_per_variable = 2

    def build(self, inputs_shape, context_shape=None):
        super().build(inputs_shape, context_shape)
        self.bound = self.add_weight(
            name="bound", shape=inputs_shape[1:], initializer="ones", autocast=False
        )

    def log_scale(self, raw):
        return ops.cast(self.bound, raw.dtype) * ops.tanh(raw)

    def move(self, x, params, inverse):
        mu, alpha = params[..., 0], self.log_scale(params[..., 1])
        if inverse:
            return x * ops.exp(alpha) + mu, ops.sum(alpha, axis=-1)
        return (x - mu) * ops.exp(-alpha), -ops.sum(alpha, axis=-1)


class AutoregressiveFlow(NormalizingFlow):
    """Autoregressive layers, the order turned round from each to the next.

    A subclass names its ``transform``, a class or function that takes a conditioner,
    and ``outputs_per_variable``; or hands both to ``__init__`` if they depend on
    arguments of its own.
    """

    transform = MaskedAutoregressive
    outputs_per_variable = MaskedAutoregressive.outputs_per_variable

    def __init__(
        self,
        event_size,
        blocks=5,
        hidden_units=(64, 64),
        activation="relu",
        context_size=0,
        seed=None,
        *,
        transform=None,
        outputs_per_variable=None,
        **kwargs,
    ):
        event_size = check_count("event_size", event_size)
        blocks = check_count("blocks", blocks)
        transform = transform or type(self).transform
        transforms = []
        for number in range(blocks):
            made = MADE(
                outputs_per_variable or type(self).outputs_per_variable,
                hidden_units,
                activation,
                order="backward" if number % 2 else "forward",
                # small: every layer starts close to the identity
                output_initializer=keras.initializers.VarianceScaling(1e-2),
                dtype=kwargs.get("dtype"),
            )
            transforms.append(transform(made))
        super().__init__(event_size, transforms, context_size, seed, **kwargs)
        self.event_size = event_size
        self.blocks = blocks
        self.hidden_units = made.hidden_units
        self.activation = made.activation

    def get_config(self):
        config = super().get_config()
        del config["transforms"], config["event_shape"]  # made anew by __init__
        return {
            **config,
            "event_size": self.event_size,
            "blocks": self.blocks,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(self.activation),
        }


@keras.saving.register_keras_serializable(package="dlcompanion")
class MaskedAutoregressiveFlow(AutoregressiveFlow):
    r"""Flow of masked autoregressive layers: the density costs one pass a layer.

    .. math:: \log p(x) = \log \mathcal N(f(x); 0, I) - \sum_k \sum_i \alpha_{ki} ,

    with the log-scales of ``MaskedAutoregressive``. Sampling finds one variable
    after the other, in ``event_size`` passes a layer; where samples are what counts,
    take :class:`InverseAutoregressiveFlow`. The paper puts batch normalization between
    the layers; here there is none.

    Args:
        event_size: Positive integer, the number of variables.
        blocks: Positive integer, the number of layers.
        hidden_units: Sequence of positive integers, the hidden layers of each
            :class:`MADE`.
        activation: Activation of the hidden layers.
        context_size: As :class:`NormalizingFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NormalizingFlow`. The dtype is that of the conditioners.

    Input shape:
        ``(batch, event_size)``, and ``(batch, context_size)`` if there is a context.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is not positive, or as :class:`NormalizingFlow`.

    Example:
        >>> import numpy as np
        >>> flow = MaskedAutoregressiveFlow(event_size=3, blocks=2, seed=0)
        >>> flow.compile("adam")
        >>> x = np.random.default_rng(0).normal(size=(64, 3))
        >>> losses = flow.fit(x, verbose=0).history["loss"]
        >>> tuple(flow.sample(4).shape)
        (4, 3)

    References:
        Papamakarios et al., *Masked Autoregressive Flow for Density Estimation*, 2017.
        https://arxiv.org/abs/1705.07057
    """


@keras.saving.register_keras_serializable(package="dlcompanion")
class InverseAutoregressiveFlow(AutoregressiveFlow):
    r"""Flow of inverted autoregressive layers: a sample costs one pass a layer.

    From noise to data,

    .. math:: x_i = \bigl(z_i - \mu_i(z_{1:i-1})\bigr)\, e^{-\alpha_i(z_{1:i-1})} ,

    the layer of :class:`MaskedAutoregressiveFlow` run the other way. What is drawn
    comes with its density (``sample_and_log_prob``), and gradients flow through both,
    which is what variational inference needs. The density of given data, and so
    ``fit``, take ``event_size`` passes a layer. The paper's scales are gates,
    :math:`\sigma(s)`; these are exponentials.

    Args:
        event_size: As :class:`MaskedAutoregressiveFlow`.
        blocks: As :class:`MaskedAutoregressiveFlow`.
        hidden_units: As :class:`MaskedAutoregressiveFlow`.
        activation: As :class:`MaskedAutoregressiveFlow`.
        context_size: As :class:`NormalizingFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`MaskedAutoregressiveFlow`.

    Input shape:
        ``(batch, event_size)``, and ``(batch, context_size)`` if there is a context.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: As :class:`MaskedAutoregressiveFlow`.

    Example:
        >>> flow = InverseAutoregressiveFlow(event_size=3, blocks=2, seed=0)
        >>> x, log_prob = flow.sample_and_log_prob(4)
        >>> tuple(x.shape), tuple(log_prob.shape)
        ((4, 3), (4,))

    References:
        Kingma et al., *Improved Variational Inference with Inverse Autoregressive
        Flow*, 2016. https://arxiv.org/abs/1606.04934
    """

    @staticmethod
    def transform(conditioner):
        return Inverted(MaskedAutoregressive(conditioner))
