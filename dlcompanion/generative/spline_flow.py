"""Spline flows: each variable is bent by a curve that other variables draw."""

import keras
from keras import ops

from dlcompanion.checks import check_count, check_number
from dlcompanion.generative.flows.coupling import Coupling
from dlcompanion.generative.flows.rational_quadratic_spline import (
    rational_quadratic_spline,
    spline_bins,
    spline_unit_slope,
)
from dlcompanion.generative.masked_autoregressive_flow import (
    Autoregressive,
    AutoregressiveFlow,
)
from dlcompanion.generative.normalizing_flows import CouplingFlow


@keras.saving.register_keras_serializable(package="dlcompanion")
class SplineCoupling(Coupling):
    r"""Bend one half of the variables by curves that the other half draws.

    .. math:: y_1 = x_1, \qquad y_{2i} = g_{\theta_i(x_1)}(x_{2i}),
              \qquad \log |\det \partial y / \partial x|
              = \sum_i \log g'_{\theta_i(x_1)}(x_{2i}),

    where :math:`g` is a monotone :func:`rational_quadratic_spline` of ``bins`` bins in
    the square :math:`[-B, B]^2` and the identity outside. Where an affine coupling has
    two numbers for a variable this one has ``3 * bins - 1``, enough to tear a hump into
    two. A conditioner that returns zeros makes the identity.

    Args:
        conditioner: Keras layer or model from the kept half to ``3 * bins - 1``
            outputs for each variable of the moved half: variable by variable, first
            the raw widths, then the heights, then the inner slopes. In a conditional
            flow it sees the context behind the kept half.
        swap: As :class:`AdditiveCoupling`.
        bins: Integer of at least 2, the number of bins.
        bound: Positive number, :math:`B`. The data should lie within it: what is
            outside is not bent.
        **kwargs: As :class:`AdditiveCoupling`.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If ``bins`` or ``bound`` is out of its range, or as
            :class:`AdditiveCoupling`.

    Example:
        >>> coupling = SplineCoupling(keras.layers.Dense(2 * 11), bins=4)
        >>> y, log_det = coupling(keras.ops.ones((5, 4)))
        >>> tuple(y.shape), tuple(log_det.shape)
        ((5, 4), (5,))

    References:
        Durkan et al., *Neural Spline Flows*, 2019.
        https://arxiv.org/abs/1906.04032
    """

    def __init__(self, conditioner, swap=False, bins=8, bound=3.0, **kwargs):
        super().__init__(conditioner, swap, **kwargs)
        self.bins = check_count("bins", bins, least=2)
        self.bound = check_number("bound", bound, open_ends=True)

    @property
    def outputs_per_variable(self):
        return 3 * self.bins - 1

    def move(self, moved, params, inverse):
        # the bins along the last axis: sums over them are fast there
        params = ops.reshape(params, (-1, moved.shape[-1], self.outputs_per_variable))
        return _bend(moved, params, self.bins, self.bound, inverse)

    def get_config(self):
        return {**super().get_config(), "bins": self.bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="dlcompanion")
class AutoregressiveSpline(Autoregressive):
    r"""Bend every variable by a curve that the variables before it draw.

    .. math:: y_i = g_{\theta_i(x_{1:i-1})}(x_i), \qquad
              \log |\det \partial y / \partial x|
              = \sum_i \log g'_{\theta_i(x_{1:i-1})}(x_i),

    with the splines :math:`g` of :class:`SplineCoupling` and a :class:`MADE` for all
    :math:`\theta_i` in one pass. Its inverse finds one variable after the other.

    Args:
        conditioner: A :class:`MADE` of ``3 * bins - 1`` outputs for each variable.
        bins: As :class:`SplineCoupling`.
        bound: As :class:`SplineCoupling`.
        **kwargs: As :class:`AdditiveCoupling`.

    Call arguments:
        inputs: Tensor of shape ``(batch, event_size)``.
        inverse: Boolean, whether to solve for :math:`x`.
        context: Tensor of shape ``(batch, context_size)``, or ``None``.

    Output shape:
        ``(batch, event_size)`` and the log-determinant, ``(batch,)``.

    Raises:
        ValueError: If ``bins`` or ``bound`` is out of its range, or the conditioner is
            no MADE with so many outputs.

    Example:
        >>> from dlcompanion.generative import MADE
        >>> layer = AutoregressiveSpline(MADE(11, hidden_units=(16,)), bins=4)
        >>> y, log_det = layer(keras.ops.ones((5, 3)))
        >>> tuple(y.shape), tuple(log_det.shape)
        ((5, 3), (5,))

    References:
        Durkan et al., *Neural Spline Flows*, 2019.
        https://arxiv.org/abs/1906.04032
    """

    def __init__(self, conditioner, bins=8, bound=3.0, **kwargs):
        self.bins = check_count("bins", bins, least=2)
        self.bound = check_number("bound", bound, open_ends=True)
        super().__init__(conditioner, **kwargs)

    @property
    def outputs_per_variable(self):
        return 3 * self.bins - 1

    def move(self, x, params, inverse):
        return _bend(x, params, self.bins, self.bound, inverse)

    def get_config(self):
        return {**super().get_config(), "bins": self.bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="dlcompanion")
class NeuralSplineFlow(CouplingFlow):
    r"""Flow of spline couplings: sharp edges and many humps from few layers.

    :math:`\log p(x) = \log \mathcal N(f(x); 0, I) + \sum_k \sum_i \log g'_{ki}`, with
    the curves :math:`g_{ki}` of :class:`SplineCoupling`. Like RealNVP it has its
    density and its samples in one pass each. Scale the data to lie within ``bound``.

    Args:
        event_size: As :class:`NICE`.
        couplings: As :class:`NICE`.
        hidden_units: As :class:`NICE`.
        activation: As :class:`NICE`.
        bins: As :class:`SplineCoupling`.
        bound: As :class:`SplineCoupling`.
        context_size: As :class:`NormalizingFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`NICE`.

    Input shape:
        ``(batch, event_size)``, and ``(batch, context_size)`` if there is a context.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is too small, or as :class:`NormalizingFlow`.

    Example:
        >>> flow = NeuralSplineFlow(event_size=2, couplings=2, bins=4, seed=0)
        >>> tuple(flow.sample(3).shape)
        (3, 2)

    References:
        Durkan et al., *Neural Spline Flows*, 2019.
        https://arxiv.org/abs/1906.04032
    """

    def __init__(
        self,
        event_size,
        couplings=4,
        hidden_units=(64, 64),
        activation="relu",
        bins=8,
        bound=3.0,
        context_size=0,
        seed=None,
        **kwargs,
    ):
        self.bins = check_count("bins", bins, least=2)
        self.bound = check_number("bound", bound, open_ends=True)

        def coupling(conditioner, swap):
            return SplineCoupling(conditioner, swap, bins, bound)

        super().__init__(
            event_size,
            couplings,
            hidden_units,
            activation,
            context_size,
            seed,
            coupling=coupling,
            outputs_per_variable=3 * bins - 1,
            **kwargs,
        )

    def get_config(self):
        return {**super().get_config(), "bins": self.bins, "bound": self.bound}


@keras.saving.register_keras_serializable(package="dlcompanion")
class AutoregressiveSplineFlow(AutoregressiveFlow):
    r"""Flow of autoregressive splines: the most flexible density, the slowest samples.

    A :class:`MaskedAutoregressiveFlow` with ``AutoregressiveSpline`` in place of
    shifts and scales. The density costs one pass a layer, a sample ``event_size``.

    Args:
        event_size: As :class:`MaskedAutoregressiveFlow`.
        blocks: As :class:`MaskedAutoregressiveFlow`.
        hidden_units: As :class:`MaskedAutoregressiveFlow`.
        activation: As :class:`MaskedAutoregressiveFlow`.
        bins: As :class:`SplineCoupling`.
        bound: As :class:`SplineCoupling`.
        context_size: As :class:`NormalizingFlow`.
        seed: As :class:`NormalizingFlow`.
        **kwargs: As :class:`MaskedAutoregressiveFlow`.

    Input shape:
        ``(batch, event_size)``, and ``(batch, context_size)`` if there is a context.

    Output shape:
        ``(batch,)``, the log-density in nats.

    Raises:
        ValueError: If a size is too small, or as :class:`NormalizingFlow`.

    Example:
        >>> flow = AutoregressiveSplineFlow(event_size=3, blocks=1, bins=4, seed=0)
        >>> tuple(flow.sample(4).shape)
        (4, 3)

    References:
        Durkan et al., *Neural Spline Flows*, 2019.
        https://arxiv.org/abs/1906.04032
    """

    def __init__(
        self,
        event_size,
        blocks=5,
        hidden_units=(64, 64),
        activation="relu",
        bins=8,
        bound=3.0,
        context_size=0,
        seed=None,
        **kwargs,
    ):
        self.bins = check_count("bins", bins, least=2)
        self.bound = check_number("bound", bound, open_ends=True)

        def transform(conditioner):
            return AutoregressiveSpline(conditioner, bins, bound)

        super().__init__(
            event_size,
            blocks,
            hidden_units,
            activation,
            context_size,
            seed,
            transform=transform,
            outputs_per_variable=3 * bins - 1,
            **kwargs,
        )

    def get_config(self):
        return {**super().get_config(), "bins": self.bins, "bound": self.bound}


def _bend(x, params, bins, bound, inverse):
    """Values and log-determinant; ``params`` of shape (batch, event, 3 bins - 1)."""
    widths, heights, slopes = ops.split(params, [bins, 2 * bins], axis=-1)
    # zeros are the identity
    made = spline_bins(widths, heights, slopes + spline_unit_slope(), bound)
    y, log_slope = rational_quadratic_spline(x, *made, -bound, inverse)
    return y, ops.sum(log_slope, axis=-1)
