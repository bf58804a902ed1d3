"""Chapter losses."""

from dlcompanion.losses.triplet import TripletAll, TripletBatchHard, TripletSemiHard

__all__ = ["TripletAll", "TripletBatchHard", "TripletSemiHard"]
