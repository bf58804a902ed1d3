"""Chapter uncertainty."""

__all__ = []
