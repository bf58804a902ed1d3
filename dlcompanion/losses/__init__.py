"""Chapter losses."""

__all__ = []
