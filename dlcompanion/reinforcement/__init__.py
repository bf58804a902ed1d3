"""Chapter reinforcement."""

from dlcompanion.reinforcement.action_distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)
from dlcompanion.reinforcement.action_mask import ActionMask
from dlcompanion.reinforcement.actor_critic import A2C, ActorCritic, mean_entropy
from dlcompanion.reinforcement.agent import Agent
from dlcompanion.reinforcement.alphazero import AlphaZero
from dlcompanion.reinforcement.bandits import (
    UCB1,
    BernoulliBandits,
    EpsilonGreedy,
    Greedy,
    Pulls,
    ThompsonSampling,
)
from dlcompanion.reinforcement.categorical_q import CategoricalQ
from dlcompanion.reinforcement.categorical_returns import categorical_projection
from dlcompanion.reinforcement.deep_q import (
    DeepQ,
    q_learning_loss,
    q_learning_targets,
    values_taken,
)
from dlcompanion.reinforcement.dqn import DQN
from dlcompanion.reinforcement.dueling_head import DuelingHead
from dlcompanion.reinforcement.environments import Environments, Episodes
from dlcompanion.reinforcement.finite_mdp import FiniteMDP
from dlcompanion.reinforcement.games import ConnectFour, LineGame, TicTacToe
from dlcompanion.reinforcement.generalized_advantage import (
    generalized_advantages,
    lambda_returns,
    n_step_returns,
)
from dlcompanion.reinforcement.grid_world import GridWorld
from dlcompanion.reinforcement.interquartile import (
    bootstrap_interval,
    interquartile_mean,
)
from dlcompanion.reinforcement.judgement import explained_variance, judge
from dlcompanion.reinforcement.matches import SearchPlayer, play_match
from dlcompanion.reinforcement.minimax import Examination, Minimax
from dlcompanion.reinforcement.noisy_dense import NoisyDense
from dlcompanion.reinforcement.normalized_environments import (
    Normalizer,
    RunningStatistics,
)
from dlcompanion.reinforcement.numpy_policy import AppendLogStd
from dlcompanion.reinforcement.policy_gradient import (
    REINFORCE,
    PolicyWithBaseline,
    baseline_loss,
    policy_gradient_loss,
)
from dlcompanion.reinforcement.policy_value import (
    PolicyValue,
    outcome_loss,
    policy_value_network,
    search_policy_loss,
)
from dlcompanion.reinforcement.ppo import PPO
from dlcompanion.reinforcement.prioritized_replay import PrioritizedReplay
from dlcompanion.reinforcement.proximal_policy import (
    ProximalPolicy,
    clipped_surrogate_loss,
    standardised,
)
from dlcompanion.reinforcement.rainbow import Rainbow
from dlcompanion.reinforcement.ray_environments import ray_environments
from dlcompanion.reinforcement.recurrent_policy import (
    RecurrentPPO,
    RecurrentProximalPolicy,
)
from dlcompanion.reinforcement.replay_buffer import ReplayBuffer, n_step_transitions
from dlcompanion.reinforcement.returns import reward_to_go
from dlcompanion.reinforcement.sac import SAC
from dlcompanion.reinforcement.segment_agent import Epoch, SegmentAgent
from dlcompanion.reinforcement.segments import Segment, Stream
from dlcompanion.reinforcement.self_play import PositionMemory, SelfPlay, self_play
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
from dlcompanion.reinforcement.tree_search import (
    RandomRollouts,
    SearchResult,
    draw_actions,
    legal_softmax,
    tree_search,
    with_noise,
)
from dlcompanion.reinforcement.value_iteration import (
    Solution,
    policy_values,
    value_iteration,
)
from dlcompanion.reinforcement.vector_environments import (
    vector_acrobot,
    vector_pendulum,
)
from dlcompanion.reinforcement.vtrace import VTrace, vtrace

__all__ = [
    "A2C",
    "DQN",
    "PPO",
    "REINFORCE",
    "SAC",
    "SARSA",
    "UCB1",
    "ActionMask",
    "ActorCritic",
    "Agent",
    "AlphaZero",
    "AppendLogStd",
    "BernoulliBandits",
    "Categorical",
    "CategoricalQ",
    "ConnectFour",
    "DeepQ",
    "DiagonalGaussian",
    "DuelingHead",
    "Environments",
    "Episodes",
    "Epoch",
    "EpsilonGreedy",
    "Examination",
    "ExpectedSARSA",
    "FiniteMDP",
    "Greedy",
    "GridWorld",
    "LineGame",
    "Minimax",
    "MultiCategorical",
    "NoisyDense",
    "Normalizer",
    "PolicyValue",
    "PolicyWithBaseline",
    "PositionMemory",
    "PrioritizedReplay",
    "ProximalPolicy",
    "Pulls",
    "QLearning",
    "Rainbow",
    "RandomRollouts",
    "RecurrentPPO",
    "RecurrentProximalPolicy",
    "ReplayBuffer",
    "RunningStatistics",
    "SearchPlayer",
    "SearchResult",
    "Segment",
    "SegmentAgent",
    "SelfPlay",
    "SoftActorCritic",
    "Solution",
    "Stream",
    "TabularAgent",
    "TanhGaussian",
    "ThompsonSampling",
    "TicTacToe",
    "VTrace",
    "baseline_loss",
    "bootstrap_interval",
    "categorical_projection",
    "clipped_surrogate_loss",
    "draw_actions",
    "entropy_temperature_loss",
    "explained_variance",
    "generalized_advantages",
    "interquartile_mean",
    "judge",
    "lambda_returns",
    "legal_softmax",
    "mean_entropy",
    "n_step_returns",
    "n_step_transitions",
    "outcome_loss",
    "play_match",
    "policy_gradient_loss",
    "policy_value_network",
    "policy_values",
    "q_learning_loss",
    "q_learning_targets",
    "ray_environments",
    "reward_to_go",
    "search_policy_loss",
    "self_play",
    "soft_critic_loss",
    "soft_policy_loss",
    "soft_targets",
    "standardised",
    "tree_search",
    "value_iteration",
    "values_taken",
    "vector_acrobot",
    "vector_pendulum",
    "vtrace",
    "with_noise",
]
