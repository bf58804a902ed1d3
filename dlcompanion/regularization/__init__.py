"""Chapter regularization."""

from dlcompanion.regularization.dropblock import DropBlock2D

__all__ = ["DropBlock2D"]
