"""Optimization: how a network gets from its first weights to good ones."""

from dlcompanion.optimization.lookahead import Lookahead

__all__ = ["Lookahead"]
