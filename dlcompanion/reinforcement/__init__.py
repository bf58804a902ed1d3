"""Chapter reinforcement."""

__all__ = []
