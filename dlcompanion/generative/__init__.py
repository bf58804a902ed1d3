"""Chapter generative."""

from dlcompanion.generative.actnorm import ActNorm
from dlcompanion.generative.autoregressive_network import MADE
from dlcompanion.generative.change_of_variables import NormalizingFlow
from dlcompanion.generative.conditional_autoencoder import ConditionalVAE
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
from dlcompanion.generative.dequantization import (
    LogitTransform,
    bits_per_dimension,
    dequantize,
)
from dlcompanion.generative.free_energy import FreeEnergy
from dlcompanion.generative.glow import ChannelCoupling, Glow
from dlcompanion.generative.hierarchical_autoencoder import HierarchicalVAE
from dlcompanion.generative.importance_weighted_autoencoder import IWAE
from dlcompanion.generative.information_bottleneck import (
    InformationPlane,
    VariationalBottleneck,
)
from dlcompanion.generative.information_estimators import (
    DonskerVaradhanEstimator,
    InfoNCEEstimator,
    binned_information,
    discrete_information,
)
from dlcompanion.generative.inverted_transform import Inverted
from dlcompanion.generative.invertible_convolution import InvertibleConvolution1x1
from dlcompanion.generative.masked_autoregressive_flow import (
    InverseAutoregressiveFlow,
    MaskedAutoregressive,
    MaskedAutoregressiveFlow,
)
from dlcompanion.generative.multiscale import FactorOut, Squeeze
from dlcompanion.generative.normalizing_flows import NICE, RealNVP
from dlcompanion.generative.planar_flow import (
    Planar,
    PlanarFlow,
    Radial,
    RadialFlow,
)
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
from dlcompanion.generative.spline_flow import (
    AutoregressiveSpline,
    AutoregressiveSplineFlow,
    NeuralSplineFlow,
    SplineCoupling,
)
from dlcompanion.generative.straight_through import (
    StraightThrough,
    StraightThroughBernoulli,
    straight_through,
)
from dlcompanion.generative.variational_autoencoder import VAE, kl_to_standard_normal
from dlcompanion.generative.vector_quantization import (
    CodePerplexity,
    EMAVectorQuantizer,
    VectorQuantizer,
)
from dlcompanion.generative.vector_quantized_autoencoder import VQVAE

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AutoregressiveSpline",
    "AutoregressiveSplineFlow",
    "ChannelCoupling",
    "CodePerplexity",
    "ConditionalVAE",
    "DiagonalScaling",
    "DonskerVaradhanEstimator",
    "EMAVectorQuantizer",
    "FactorOut",
    "FreeEnergy",
    "GaussianSampler",
    "Glow",
    "GumbelSoftmax",
    "HierarchicalVAE",
    "IWAE",
    "InfoNCEEstimator",
    "InformationPlane",
    "InverseAutoregressiveFlow",
    "Inverted",
    "InvertibleConvolution1x1",
    "LearnedBaseline",
    "LogitTransform",
    "MADE",
    "MaskedAutoregressive",
    "MaskedAutoregressiveFlow",
    "NICE",
    "NeuralSplineFlow",
    "NormalizingFlow",
    "Planar",
    "PlanarFlow",
    "Radial",
    "RadialFlow",
    "RealNVP",
    "SplineCoupling",
    "Squeeze",
    "StraightThrough",
    "StraightThroughBernoulli",
    "VAE",
    "VQVAE",
    "VariationalBottleneck",
    "VectorQuantizer",
    "binned_information",
    "bits_per_dimension",
    "dequantize",
    "discrete_information",
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
