"""Chapter losses."""

from dlcompanion.losses.triplet import (
    TripletAll,
    TripletBatchHard,
    TripletSemiHard,
    pairwise_distances,
)

__all__ = ["TripletAll", "TripletBatchHard", "TripletSemiHard", "pairwise_distances"]
