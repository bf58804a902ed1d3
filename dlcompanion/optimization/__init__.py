"""Optimization: how a network gets from its first weights to good ones."""

from dlcompanion.optimization.lookahead import Lookahead
from dlcompanion.optimization.stochastic_weight_averaging import (
    SWA,
    refresh_batch_normalization,
)

__all__ = ["SWA", "Lookahead", "refresh_batch_normalization"]
