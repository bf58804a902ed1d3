"""Chapter generative."""

from dlcompanion.generative.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    DiagonalScaling,
)
from dlcompanion.generative.normalizing_flows import NICE, NormalizingFlow, RealNVP
from dlcompanion.generative.score_function import (
    pathwise_gradient,
    score_function_gradient,
    score_function_loss,
)
from dlcompanion.generative.variational_autoencoder import VAE, kl_to_standard_normal

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "DiagonalScaling",
    "NICE",
    "NormalizingFlow",
    "RealNVP",
    "VAE",
    "kl_to_standard_normal",
    "pathwise_gradient",
    "score_function_gradient",
    "score_function_loss",
]
