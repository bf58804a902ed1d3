"""Chapter optimization."""

__all__ = []
