"""What the first pages of comparable projects do, done with the agents of this one."""

import gymnasium as gym
import keras
import numpy as np
import pytest

from dlcompanion.reinforcement import A2C, DQN, PPO, REINFORCE, QLearning

pytestmark = pytest.mark.once


# -- gymnasium's tutorials ----------------------------------------------------------


def test_a_table_plays_blackjack():
    agent = QLearning("Blackjack-v1", step_size=0.02, exploration=0.3, seed=0)
    before = agent.evaluate(1_000)["return_mean"]  # sticks whatever it has
    history = agent.fit(40_000)
    assert agent.table.shape == (32 * 11 * 2, 2)
    # exploring costs what it costs; the table alone comes near the best, -0.05
    assert agent.evaluate(1_000)["return_mean"] > max(before + 0.02, -0.15)
    assert history["returns"].mean() < -0.15
    assert agent.predict((21, 10, 0)) == 0  # stick


class Pole(gym.Env):
    """A pole on a cart, little tilted: push it left, right or not for 60 steps."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-0.05, 0.05, 2)
        return self.state.astype("float32"), {}

    def step(self, action):
        angle, speed = self.state
        speed += 0.05 * (15.0 * angle + 3.0 * (action - 1))
        self.state = np.array([angle + 0.05 * speed, speed])
        over = abs(angle) > 0.3
        return self.state.astype("float32"), 1.0, bool(over), False, {}


def test_reinforce_balances_a_pole():
    agent = REINFORCE(
        lambda: gym.wrappers.TimeLimit(Pole(), 60), discount=0.95, num_envs=16, seed=0
    )
    before = agent.evaluate(deterministic=False)["return_mean"]
    agent.fit(8_000, verbose=0)
    assert agent.evaluate()["return_mean"] > 2 * before > 20


def test_a2c_learns_in_many_environments_at_once():
    environments = gym.make_vec(
        "CartPole-v1", num_envs=6, vectorization_mode="sync", max_episode_steps=120
    )
    agent = A2C(environments, discount=0.98, seed=0)
    before = agent.evaluate(12)["return_mean"]
    history = agent.fit(6_000, verbose=0).history
    result = agent.evaluate(12)
    assert before + 30 < result["return_mean"] <= 120
    assert max(history["length_mean"]) <= 120


# -- CleanRL's wrappers -------------------------------------------------------------


class Steps(gym.Env):
    """Pays 3 a step, 7 times; seen is how late it is, in hundreds."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return np.array([0.0, 500.0]), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        seen = np.array([100.0 * self.time, 500.0])
        return seen, 3.0, self.time >= 7, False, {}


def test_the_stack_of_wrappers_for_real_actions():
    def make():
        w, environment = gym.wrappers, Steps()
        environment = w.ClipAction(w.RecordEpisodeStatistics(environment))
        environment = w.NormalizeObservation(environment)
        environment = w.TransformObservation(
            environment, lambda x: np.clip(x, -10, 10), environment.observation_space
        )
        environment = w.NormalizeReward(environment, gamma=0.99)
        return w.TransformReward(environment, lambda reward: np.clip(reward, -1, 1))

    # ClipAction takes any action, so the agent is told of the ends
    def bounded():
        inside = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        return gym.wrappers.TransformAction(make(), lambda action: action, inside)

    settings = {"num_envs": 2, "rollout_length": 16, "horizon": 32, "batch_size": 16}
    agent = PPO(bounded, update_epochs=1, seed=0, **settings)
    history = agent.fit(128, verbose=0).history
    assert history["return_mean"][-1] < 7.5  # clipped, in units of their deviation
    result = agent.evaluate(3)
    assert (result["return_mean"], result["length_mean"]) == (21.0, 7.0)


class Screen(gym.Env):
    """Pictures in color; the brighter half says which action pays, and how much."""

    observation_space = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8)
    action_space = gym.spaces.Discrete(2)

    def look(self):
        picture = self.np_random.integers(0, 100, (8, 8, 3)).astype("uint8")
        picture[:, 4 * self.side : 4 * self.side + 4] += 120
        return picture

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.side, self.time = int(self.np_random.integers(2)), 0
        return self.look(), {}

    def step(self, action):
        reward, self.time = 50.0 * (action == self.side), self.time + 1
        return self.look(), reward, False, self.time >= 8, {}


def test_the_stack_of_wrappers_for_pictures():
    def make():
        w = gym.wrappers
        environment = w.MaxAndSkipObservation(w.RecordEpisodeStatistics(Screen()), 2)
        environment = w.ClipReward(w.GrayscaleObservation(environment), -1.0, 1.0)
        return w.FrameStackObservation(environment, 2)

    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((2, 8, 8)),
            layers.Rescaling(1 / 255),
            layers.Permute((2, 3, 1)),
            layers.Conv2D(4, 4, strides=4, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    settings = {"horizon": 32, "learning_starts": 256, "gradient_steps": 32}
    settings |= {"exploration_steps": 1_000, "optimizer": keras.optimizers.Adam(0.01)}
    agent = DQN(make, network=network, discount=0.5, seed=0, **settings)
    agent.fit(2_000, verbose=0)
    assert agent.replay.columns["observation"].dtype == np.uint8
    assert agent.evaluate(8)["return_mean"] > 3.5  # of 4 actions, each held for 2 steps


# -- the first example of Stable-Baselines3 -----------------------------------------


def test_learn_predict_save_and_load(tmp_path):
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    model = A2C(env, rollout_length=64, seed=0)
    assert model.learn(total_timesteps=2_000, progress_bar=False) is model
    model.save(tmp_path / "a2c_cartpole")
    del model
    model = A2C.load(tmp_path / "a2c_cartpole", env=env)
    observation, info = env.reset(seed=1)
    rewards = 0.0
    for _ in range(100):
        action = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        rewards += reward
        if terminated or truncated:
            observation, info = env.reset()
    assert rewards == 100.0
    model.learn(500, log_interval=1_000)
    assert model.steps >= 2_500
