"""Optimization: how a network gets from its first weights to good ones."""

from dlcompanion.optimization.adaptive_gradient_clipping import AdaptiveGradientClipping
from dlcompanion.optimization.gradient_centralization import GradientCentralization
from dlcompanion.optimization.lars import LARS
from dlcompanion.optimization.lookahead import Lookahead
from dlcompanion.optimization.ranger import Ranger
from dlcompanion.optimization.rectified_adam import RectifiedAdam
from dlcompanion.optimization.stochastic_weight_averaging import (
    SWA,
    refresh_batch_normalization,
)

__all__ = [
    "LARS",
    "SWA",
    "AdaptiveGradientClipping",
    "GradientCentralization",
    "Lookahead",
    "Ranger",
    "RectifiedAdam",
    "refresh_batch_normalization",
]
