"""Chapter losses."""

from dlcompanion.losses.distribution_heads import (
    DistributionHead,
    NegativeLogLikelihood,
)
from dlcompanion.losses.distribution_layers import (
    DistributionSample,
    KLDivergencePenalty,
)
from dlcompanion.losses.maximum_likelihood import (
    BetaNLL,
    GaussianNLL,
    MixtureNLL,
    QuantileLoss,
    StudentTNLL,
)
from dlcompanion.losses.triplet import (
    TripletAll,
    TripletBatchHard,
    TripletSemiHard,
    pairwise_distances,
)

__all__ = [
    "BetaNLL",
    "DistributionHead",
    "DistributionSample",
    "GaussianNLL",
    "KLDivergencePenalty",
    "MixtureNLL",
    "NegativeLogLikelihood",
    "QuantileLoss",
    "StudentTNLL",
    "TripletAll",
    "TripletBatchHard",
    "TripletSemiHard",
    "pairwise_distances",
]
