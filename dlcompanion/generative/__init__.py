"""Chapter generative."""

from dlcompanion.generative.conditional_autoencoder import ConditionalVAE
from dlcompanion.generative.control_variates import rebar_control, relax_gradient
from dlcompanion.generative.flows.actnorm import ActNorm
from dlcompanion.generative.flows.autoregressive_network import MADE
from dlcompanion.generative.flows.change_of_variables import NormalizingFlow
from dlcompanion.generative.flows.coupling import AdditiveCoupling, AffineCoupling
from dlcompanion.generative.flows.dequantization import (
    LogitTransform,
    bits_per_dimension,
    dequantize,
)
from dlcompanion.generative.flows.free_energy import FreeEnergy
from dlcompanion.generative.flows.invertible_convolution import InvertibleConvolution1x1
from dlcompanion.generative.flows.rational_quadratic_spline import (
    rational_quadratic_spline,
    spline_bins,
)
from dlcompanion.generative.glow import Glow
from dlcompanion.generative.hierarchical_autoencoder import HierarchicalVAE
from dlcompanion.generative.importance_weighted_autoencoder import IWAE
from dlcompanion.generative.information_bottleneck import (
    DonskerVaradhanEstimator,
    InfoNCEEstimator,
    InformationPlane,
    VariationalBottleneck,
)
from dlcompanion.generative.masked_autoregressive_flow import (
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
)
from dlcompanion.generative.normalizing_flows import NICE, RealNVP
from dlcompanion.generative.planar_flow import PlanarFlow, RadialFlow
from dlcompanion.generative.reparameterization import (
    GaussianSampler,
    GumbelSoftmax,
    StraightThrough,
    StraightThroughBernoulli,
    measure_valued_gradient,
    pathwise_gradient,
)
from dlcompanion.generative.score_function import (
    LearnedBaseline,
    score_function_gradient,
)
from dlcompanion.generative.spline_flow import (
    AutoregressiveSplineFlow,
    NeuralSplineFlow,
    SplineCoupling,
)
from dlcompanion.generative.variational_autoencoder import VAE
from dlcompanion.generative.vector_quantized_autoencoder import (
    VQVAE,
    CodePerplexity,
    EMAVectorQuantizer,
    VectorQuantizer,
)

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineCoupling",
    "AutoregressiveSplineFlow",
    "CodePerplexity",
    "ConditionalVAE",
    "DonskerVaradhanEstimator",
    "EMAVectorQuantizer",
    "FreeEnergy",
    "GaussianSampler",
    "Glow",
    "GumbelSoftmax",
    "HierarchicalVAE",
    "IWAE",
    "InfoNCEEstimator",
    "InformationPlane",
    "InverseAutoregressiveFlow",
    "InvertibleConvolution1x1",
    "LearnedBaseline",
    "LogitTransform",
    "MADE",
    "MaskedAutoregressiveFlow",
    "NICE",
    "NeuralSplineFlow",
    "NormalizingFlow",
    "PlanarFlow",
    "RadialFlow",
    "RealNVP",
    "SplineCoupling",
    "StraightThrough",
    "StraightThroughBernoulli",
    "VAE",
    "VQVAE",
    "VariationalBottleneck",
    "VectorQuantizer",
    "bits_per_dimension",
    "dequantize",
    "measure_valued_gradient",
    "pathwise_gradient",
    "rational_quadratic_spline",
    "rebar_control",
    "relax_gradient",
    "score_function_gradient",
    "spline_bins",
]
