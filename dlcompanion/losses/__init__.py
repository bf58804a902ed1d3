"""Chapter losses."""

from dlcompanion.losses.distribution_heads import (
    DistributionHead,
    DistributionSample,
    KLDivergencePenalty,
    NegativeLogLikelihood,
)
from dlcompanion.losses.maximum_likelihood import (
    BetaNLL,
    GaussianNLL,
    MixtureNLL,
    QuantileLoss,
    StudentTNLL,
)
from dlcompanion.losses.triplet import TripletAll, TripletBatchHard, TripletSemiHard

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
]
