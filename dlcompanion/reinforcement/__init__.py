"""Chapter reinforcement."""

from dlcompanion.reinforcement.agent import Agent
from dlcompanion.reinforcement.environments import Environments, Episodes
from dlcompanion.reinforcement.policy_gradient import (
    REINFORCE,
    PolicyWithBaseline,
    baseline_loss,
    policy_gradient_loss,
)
from dlcompanion.reinforcement.returns import reward_to_go

__all__ = [
    "REINFORCE",
    "Agent",
    "Environments",
    "Episodes",
    "PolicyWithBaseline",
    "baseline_loss",
    "policy_gradient_loss",
    "reward_to_go",
]
