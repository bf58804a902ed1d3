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

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "DiagonalScaling",
    "NICE",
    "NormalizingFlow",
    "RealNVP",
    "pathwise_gradient",
    "score_function_gradient",
    "score_function_loss",
]
