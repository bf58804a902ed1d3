"""Chapter reinforcement."""

from dlcompanion.reinforcement.agent import Agent
from dlcompanion.reinforcement.bandits import (
    UCB1,
    BernoulliBandits,
    EpsilonGreedy,
    Greedy,
    Pulls,
    ThompsonSampling,
)
from dlcompanion.reinforcement.environments import Environments, Episodes
from dlcompanion.reinforcement.finite_mdp import FiniteMDP
from dlcompanion.reinforcement.grid_world import GridWorld
from dlcompanion.reinforcement.policy_gradient import (
    REINFORCE,
    PolicyWithBaseline,
    baseline_loss,
    policy_gradient_loss,
)
from dlcompanion.reinforcement.returns import reward_to_go
from dlcompanion.reinforcement.tabular import (
    SARSA,
    ExpectedSARSA,
    QLearning,
    TabularAgent,
)
from dlcompanion.reinforcement.value_iteration import (
    Solution,
    policy_values,
    value_iteration,
)

__all__ = [
    "REINFORCE",
    "Agent",
    "Environments",
    "Episodes",
    "PolicyWithBaseline",
    "baseline_loss",
    "policy_gradient_loss",
    "reward_to_go",
    "UCB1",
    "BernoulliBandits",
    "EpsilonGreedy",
    "Greedy",
    "Pulls",
    "ThompsonSampling",
    "GridWorld",
    "SARSA",
    "ExpectedSARSA",
    "QLearning",
    "TabularAgent",
    "FiniteMDP",
    "Solution",
    "policy_values",
    "value_iteration",
]
