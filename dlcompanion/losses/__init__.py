"""Chapter losses."""

from dlcompanion.losses.distribution_heads import (
    DistributionHead,
    NegativeLogLikelihood,
)
from dlcompanion.losses.triplet import (
    TripletAll,
    TripletBatchHard,
    TripletSemiHard,
    pairwise_distances,
)

__all__ = [
    "DistributionHead",
    "NegativeLogLikelihood",
    "TripletAll",
    "TripletBatchHard",
    "TripletSemiHard",
    "pairwise_distances",
]
