"""Chapter graphs."""

__all__ = []
