"""Chapter reinforcement."""

from dlcompanion.reinforcement.action_distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)
from dlcompanion.reinforcement.action_mask import ActionMask
from dlcompanion.reinforcement.actor_critic import A2C, ActorCritic, mean_entropy
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
from dlcompanion.reinforcement.generalized_advantage import (
    generalized_advantages,
    lambda_returns,
    n_step_returns,
)
from dlcompanion.reinforcement.grid_world import GridWorld
from dlcompanion.reinforcement.numpy_policy import AppendLogStd
from dlcompanion.reinforcement.policy_gradient import (
    REINFORCE,
    PolicyWithBaseline,
    baseline_loss,
    policy_gradient_loss,
)
from dlcompanion.reinforcement.ppo import PPO
from dlcompanion.reinforcement.proximal_policy import (
    ProximalPolicy,
    clipped_surrogate_loss,
    standardised,
)
from dlcompanion.reinforcement.replay_buffer import ReplayBuffer, n_step_transitions
from dlcompanion.reinforcement.returns import reward_to_go
from dlcompanion.reinforcement.sac import SAC
from dlcompanion.reinforcement.segment_agent import (
    Epoch,
    SegmentAgent,
    explained_variance,
    judge,
)
from dlcompanion.reinforcement.segments import Segment, Stream
from dlcompanion.reinforcement.soft_actor_critic import (
    SoftActorCritic,
    entropy_temperature_loss,
    soft_critic_loss,
    soft_policy_loss,
    soft_targets,
)
from dlcompanion.reinforcement.tabular import (
    SARSA,
    ExpectedSARSA,
    QLearning,
    TabularAgent,
)
from dlcompanion.reinforcement.tanh_gaussian import TanhGaussian
from dlcompanion.reinforcement.value_iteration import (
    Solution,
    policy_values,
    value_iteration,
)
from dlcompanion.reinforcement.vtrace import VTrace, vtrace

__all__ = [
    "A2C",
    "PPO",
    "REINFORCE",
    "SAC",
    "SARSA",
    "UCB1",
    "ActionMask",
    "ActorCritic",
    "Agent",
    "AppendLogStd",
    "BernoulliBandits",
    "Categorical",
    "DiagonalGaussian",
    "Environments",
    "Epoch",
    "Episodes",
    "EpsilonGreedy",
    "ExpectedSARSA",
    "FiniteMDP",
    "Greedy",
    "GridWorld",
    "MultiCategorical",
    "PolicyWithBaseline",
    "ProximalPolicy",
    "Pulls",
    "QLearning",
    "ReplayBuffer",
    "Segment",
    "SegmentAgent",
    "SoftActorCritic",
    "Solution",
    "Stream",
    "TabularAgent",
    "TanhGaussian",
    "ThompsonSampling",
    "VTrace",
    "baseline_loss",
    "clipped_surrogate_loss",
    "entropy_temperature_loss",
    "explained_variance",
    "generalized_advantages",
    "judge",
    "lambda_returns",
    "mean_entropy",
    "n_step_returns",
    "n_step_transitions",
    "policy_gradient_loss",
    "policy_values",
    "reward_to_go",
    "soft_critic_loss",
    "soft_policy_loss",
    "soft_targets",
    "standardised",
    "value_iteration",
    "vtrace",
]
