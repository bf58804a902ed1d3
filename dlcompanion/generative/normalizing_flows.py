"""Normalizing flows: a density by change of variables (NICE and RealNVP)."""

import keras

from dlcompanion.checks import check_count
from dlcompanion.generative.flows.change_of_variables import NormalizingFlow
from dlcompanion.generative.flows.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    DiagonalScaling,
    halves,
)


class CouplingFlow(NormalizingFlow):
    """Couplings that keep the first half and the second half in turn.

    A subclass names its ``coupling``, a class or function that takes a conditioner and
    ``swap``, and ``outputs_per_variable``, what the conditioner gives each moved
    variable; or hands both to ``__init__`` if they depend on arguments of its own.
    """

    coupling = None
    outputs_per_variable = None

    def __init__(
        self,
        event_size,
        couplings=4,
        hidden_units=(64, 64),
        activation="relu",
        context_size=0,
        seed=None,
        *,
        coupling=None,
        outputs_per_variable=None,
        **kwargs,
    ):
        event_size = check_count("event_size", event_size, least=2)
        couplings = check_count("couplings", couplings)
        hidden_units = tuple(check_count("hidden_units", n) for n in hidden_units)
        coupling = coupling or type(self).coupling
        outputs_per_variable = outputs_per_variable or type(self).outputs_per_variable
        policy = kwargs.get("dtype")
        transforms = []
        for number in range(couplings):
            _, moved = halves(event_size, swap := bool(number % 2))
            layers = [
                keras.layers.Dense(n, activation, dtype=policy) for n in hidden_units
            ]
            # small: every coupling starts close to the identity
            small = keras.initializers.VarianceScaling(1e-2)
            units = outputs_per_variable * moved
            layers.append(
                keras.layers.Dense(units, kernel_initializer=small, dtype=policy)
            )
            transforms.append(coupling(keras.Sequential(layers), swap))
        transforms += self.closing_transforms()
        super().__init__(event_size, transforms, context_size, seed, **kwargs)
        self.event_size = event_size
        self.couplings = couplings
        self.hidden_units = hidden_units
        self.activation = activation

    def closing_transforms(self):
        return []

    def get_config(self):
        config = super().get_config()
        del config["transforms"], config["event_shape"]  # made anew by __init__
        return {
            **config,
            "event_size": self.event_size,
            "couplings": self.couplings,
            "hidden_units": list(self.hidden_units),
            "activation": keras.activations.serialize(
                keras.activations.get(self.activation)
            ),
        }


@keras.saving.register_keras_serializable(package="dlcompanion")
class NICE(CouplingFlow):
    r"""Flow of additive couplings and one learned scale for each variable.

    The couplings (:class:`AdditiveCoupling`) keep volume and the closing
    ``DiagonalScaling`` sets it, so that
    :math:`\log p(x) = \log \mathcal N(f(x); 0, I) + \sum_i s_i`. The paper's noise is
    logistic or normal; here it is normal.

    Args:
        event_size: Integer of at least 2, the number of variables.
        couplings: Positive integer. With fewer than three, not every variable can
            depend on every other.
        hidden_units: Sequence of positive integers, the hidden layers of each
            conditioner.
        activation: Activation of the hidden layers.
        context_size: As :class:`NormalizingFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NormalizingFlow`. The dtype is that of the conditioners.

    Input shape:
        ``(batch, event_size)``, and ``(batch, context_size)`` if there is a context.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is too small, or as :class:`NormalizingFlow`.

    Example:
        >>> import numpy as np
        >>> flow = NICE(event_size=2, couplings=4, seed=0)
        >>> flow.compile("adam")
        >>> x = np.random.default_rng(0).normal(size=(64, 2))
        >>> losses = flow.fit(x, verbose=0).history["loss"]
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    References:
        Dinh et al., *NICE: Non-linear Independent Components Estimation*, 2014.
        https://arxiv.org/abs/1410.8516
    """

    coupling = AdditiveCoupling
    outputs_per_variable = AdditiveCoupling.outputs_per_variable

    def closing_transforms(self):
        return [DiagonalScaling()]


@keras.saving.register_keras_serializable(package="dlcompanion")
class RealNVP(CouplingFlow):
    r"""Flow of affine couplings, each volume-changing where it likes.

    :math:`\log p(x) = \log \mathcal N(f(x); 0, I) + \sum_k \sum_i s_{ki}`, with the
    log-scales of :class:`AffineCoupling`. Density and sampling cost one pass each,
    without a loop over the variables. The paper's checkerboard masks, multi-scale
    architecture and batch normalization are for images and not here: the variables
    are split in the middle, and the halves take turns.

    Args:
        event_size: As :class:`NICE`.
        couplings: As :class:`NICE`.
        hidden_units: As :class:`NICE`.
        activation: As :class:`NICE`.
        context_size: As :class:`NormalizingFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NICE`.

    Input shape:
        ``(batch, event_size)``, and ``(batch, context_size)`` if there is a context.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: As :class:`NICE`.

    Example:
        >>> import numpy as np
        >>> flow = RealNVP(event_size=2, couplings=4, seed=0)
        >>> tuple(flow.log_prob(np.zeros((5, 2))).shape)
        (5,)

    References:
        Dinh et al., *Density estimation using Real NVP*, 2017.
        https://arxiv.org/abs/1605.08803
    """

    coupling = AffineCoupling
    outputs_per_variable = AffineCoupling.outputs_per_variable
