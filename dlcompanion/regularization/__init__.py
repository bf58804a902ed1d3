"""Chapter regularization."""

__all__ = []
