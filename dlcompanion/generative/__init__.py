"""Chapter generative."""

__all__ = []
