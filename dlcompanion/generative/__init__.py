"""Chapter generative."""

from dlcompanion.generative.autoregressive_network import MADE
from dlcompanion.generative.change_of_variables import NormalizingFlow
from dlcompanion.generative.control_variates import (
    rebar_control,
    relax_gradient,
    relaxed_samples,
)
from dlcompanion.generative.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    DiagonalScaling,
)
from dlcompanion.generative.inverted_transform import Inverted
from dlcompanion.generative.masked_autoregressive_flow import (
    InverseAutoregressiveFlow,
    MaskedAutoregressive,
    MaskedAutoregressiveFlow,
)
from dlcompanion.generative.normalizing_flows import NICE, RealNVP
from dlcompanion.generative.rational_quadratic_spline import (
    rational_quadratic_spline,
    spline_bins,
    spline_unit_slope,
)
from dlcompanion.generative.reparameterization import (
    GaussianSampler,
    GumbelSoftmax,
    measure_valued_gradient,
    pathwise_gradient,
)
from dlcompanion.generative.score_function import (
    LearnedBaseline,
    score_function_gradient,
    score_function_loss,
)
from dlcompanion.generative.spline_flow import NeuralSplineFlow, SplineCoupling
from dlcompanion.generative.straight_through import (
    StraightThrough,
    StraightThroughBernoulli,
    straight_through,
)
from dlcompanion.generative.variational_autoencoder import VAE, kl_to_standard_normal

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "DiagonalScaling",
    "GaussianSampler",
    "GumbelSoftmax",
    "InverseAutoregressiveFlow",
    "Inverted",
    "LearnedBaseline",
    "MADE",
    "MaskedAutoregressive",
    "MaskedAutoregressiveFlow",
    "NICE",
    "NeuralSplineFlow",
    "NormalizingFlow",
    "RealNVP",
    "SplineCoupling",
    "StraightThrough",
    "StraightThroughBernoulli",
    "VAE",
    "kl_to_standard_normal",
    "measure_valued_gradient",
    "pathwise_gradient",
    "rational_quadratic_spline",
    "rebar_control",
    "relax_gradient",
    "relaxed_samples",
    "score_function_gradient",
    "score_function_loss",
    "spline_bins",
    "spline_unit_slope",
    "straight_through",
]
