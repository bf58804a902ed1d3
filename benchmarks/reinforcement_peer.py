"""The other side of benchmarks.reinforcement: Stable-Baselines3, or SBX, on JAX."""

import os
import sys
import time

from benchmarks import common

common.one_thread()

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from stable_baselines3 import DQN, PPO, SAC  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402

from benchmarks.reinforcement import TASKS, outcome, serve  # noqa: E402

if os.environ.get("KERAS_BACKEND") == "sbx":  # which twin was asked for
    from sbx import SAC

torch.set_num_threads(1)  # two are slower for networks of this size


def falls(value):
    return lambda left: left * value


def make(task, seed):
    if task == "PPO CartPole-v1":
        return PPO(
            "MlpPolicy",
            make_vec_env("CartPole-v1", 8, seed=seed),
            n_steps=32,
            batch_size=256,
            n_epochs=20,
            gae_lambda=0.8,
            gamma=0.98,
            ent_coef=0.0,
            learning_rate=falls(1e-3),
            clip_range=falls(0.2),
            seed=seed,
            device="cpu",
        )
    if task == "PPO Acrobot-v1":
        return PPO(
            "MlpPolicy",
            make_vec_env("Acrobot-v1", 16, seed=seed),
            n_steps=256,
            batch_size=64,
            n_epochs=4,
            gae_lambda=0.94,
            gamma=0.99,
            ent_coef=0.0,
            seed=seed,
            device="cpu",
        )
    if task == "DQN CartPole-v1":
        return DQN(
            "MlpPolicy",
            make_vec_env("CartPole-v1", 1, seed=seed),
            learning_rate=2.3e-3,
            batch_size=64,
            buffer_size=100_000,
            learning_starts=1000,
            gamma=0.99,
            target_update_interval=10,
            train_freq=256,
            gradient_steps=128,
            exploration_fraction=8_000 / TASKS[task][3],
            exploration_final_eps=0.04,
            policy_kwargs={"net_arch": [256, 256]},
            seed=seed,
            device="cpu",
        )
    if task == "SAC Pendulum-v1":
        kwargs = {} if SAC.__module__.startswith("sbx") else {"device": "cpu"}
        environment = make_vec_env("Pendulum-v1", 1, seed=seed)
        return SAC("MlpPolicy", environment, learning_rate=1e-3, seed=seed, **kwargs)
    return PPO(
        "MlpPolicy",
        make_vec_env("Pendulum-v1", 4, seed=seed),
        n_steps=1024,
        batch_size=64,
        n_epochs=10,
        gae_lambda=0.95,
        gamma=0.9,
        ent_coef=0.0,
        learning_rate=1e-3,
        seed=seed,
        device="cpu",
    )


def evaluate(model, environment, episodes, seed):
    """Mean return of the first episode in each of ``episodes`` environments."""
    vector = gym.make_vec(environment, episodes, vectorization_mode="sync")
    observations, _ = vector.reset(seed=seed)
    playing, returns = np.ones(episodes, bool), np.zeros(episodes)
    while playing.any():
        actions = model.predict(observations, deterministic=True)[0]
        observations, rewards, ended, truncated, _ = vector.step(actions)
        returns += rewards * playing
        playing &= ~(ended | truncated)
    vector.close()
    return float(returns.mean())


class Watch(BaseCallback):
    """Evaluates off the clock, and stops at two passes in a row."""

    def __init__(self, task, start):
        super().__init__()
        self.environment, self.target, self.every, _ = TASKS[task]
        self.start, self.off, self.curve, self.passes = start, 0.0, [], 0

    def _on_step(self):
        if self.num_timesteps >= self.every * (len(self.curve) + 1):
            begin = time.process_time()
            seconds = begin - self.start - self.off
            value = evaluate(self.model, self.environment, 20, 10_000)
            self.curve.append([self.num_timesteps, value, seconds])
            self.passes = self.passes + 1 if value >= self.target else 0
            self.off += time.process_time() - begin
        return self.passes < 2


def run(task, seed):
    start = time.process_time()
    model = make(task, seed)
    watch = Watch(task, start)
    model.learn(TASKS[task][3], callback=watch)
    others = evaluate(model, TASKS[task][0], 100, 12345)
    return outcome(watch.passes == 2, watch.curve, others)


if __name__ == "__main__" and "--serve" in sys.argv:
    serve(run)
