"""Chapter reinforcement."""

from dlcompanion.reinforcement.actor_critic import A2C
from dlcompanion.reinforcement.agents.interquartile import (
    bootstrap_interval,
    interquartile_mean,
)
from dlcompanion.reinforcement.agents.prioritized_replay import PrioritizedReplay
from dlcompanion.reinforcement.agents.replay_buffer import ReplayBuffer
from dlcompanion.reinforcement.alphazero import AlphaZero
from dlcompanion.reinforcement.bandits import (
    UCB1,
    BernoulliBandits,
    EpsilonGreedy,
    Greedy,
    ThompsonSampling,
)
from dlcompanion.reinforcement.dqn import DQN
from dlcompanion.reinforcement.environments.finite_mdp import FiniteMDP
from dlcompanion.reinforcement.environments.grid_world import GridWorld
from dlcompanion.reinforcement.environments.ray_environments import ray_environments
from dlcompanion.reinforcement.games.boards import ConnectFour, LineGame, TicTacToe
from dlcompanion.reinforcement.games.matches import play_match
from dlcompanion.reinforcement.games.minimax import Minimax
from dlcompanion.reinforcement.games.tree_search import tree_search
from dlcompanion.reinforcement.generalized_advantage import (
    generalized_advantages,
    lambda_returns,
    n_step_returns,
    vtrace,
)
from dlcompanion.reinforcement.networks.action_mask import ActionMask
from dlcompanion.reinforcement.networks.dense_network import AppendLogStd
from dlcompanion.reinforcement.networks.dueling_head import DuelingHead
from dlcompanion.reinforcement.networks.noisy_dense import NoisyDense
from dlcompanion.reinforcement.normalized_environments import Normalizer
from dlcompanion.reinforcement.policy_gradient import REINFORCE
from dlcompanion.reinforcement.ppo import PPO
from dlcompanion.reinforcement.rainbow import Rainbow
from dlcompanion.reinforcement.recurrent_policy import RecurrentPPO
from dlcompanion.reinforcement.sac import SAC
from dlcompanion.reinforcement.tabular import SARSA, ExpectedSARSA, QLearning
from dlcompanion.reinforcement.value_iteration import policy_values, value_iteration

__all__ = [
    "A2C",
    "ActionMask",
    "AlphaZero",
    "AppendLogStd",
    "BernoulliBandits",
    "ConnectFour",
    "DQN",
    "DuelingHead",
    "EpsilonGreedy",
    "ExpectedSARSA",
    "FiniteMDP",
    "Greedy",
    "GridWorld",
    "LineGame",
    "Minimax",
    "NoisyDense",
    "Normalizer",
    "PPO",
    "PrioritizedReplay",
    "QLearning",
    "REINFORCE",
    "Rainbow",
    "RecurrentPPO",
    "ReplayBuffer",
    "SAC",
    "SARSA",
    "ThompsonSampling",
    "TicTacToe",
    "UCB1",
    "bootstrap_interval",
    "generalized_advantages",
    "interquartile_mean",
    "lambda_returns",
    "n_step_returns",
    "play_match",
    "policy_values",
    "ray_environments",
    "tree_search",
    "value_iteration",
    "vtrace",
]
