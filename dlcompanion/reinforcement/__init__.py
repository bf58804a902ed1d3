"""Chapter reinforcement."""

from dlcompanion.reinforcement.policy_gradient import REINFORCE, PolicyWithBaseline

__all__ = ["REINFORCE", "PolicyWithBaseline"]
