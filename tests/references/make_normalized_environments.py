"""What VecNormalize of stable_baselines3 makes of pendulums that are cut early.

Writes normalized_environments.npz beside this file, arrays (time, environments):

in/observations           (time, environments, 3), in which an action was chosen
in/rewards                of every step
in/ends                   true where an episode ends
in/fresh                  (environments, 3), to be normalized in the end
out/seen/mean, var        of the observations
out/returns/mean, var     of the discounted sums of rewards
out/rewards               normalized, each with the statistics up to its step
out/fresh                 normalized with all statistics

VecNormalize begins its statistics with a pseudo-count of 1e-4 and adds an epsilon to
the variance. Both are 0 here, so that its statistics are those of what was seen. It
counts an observation when it is shown, before an action is chosen in it; the last one
shown, in/fresh, is therefore taken out of its statistics.
"""

import json
from importlib.metadata import version
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

STEPS, ENVIRONMENTS, DISCOUNT, CLIP = 90, 3, 0.9, 2.0


def make():
    return gym.make("Pendulum-v1", max_episode_steps=20)


wrapped = VecNormalize(
    DummyVecEnv([make] * ENVIRONMENTS),
    gamma=DISCOUNT,
    clip_obs=CLIP,
    clip_reward=CLIP,
    epsilon=0.0,
)
wrapped.obs_rms = RunningMeanStd(epsilon=0.0, shape=(3,))
wrapped.ret_rms = RunningMeanStd(epsilon=0.0, shape=())
wrapped.seed(0)
rng = np.random.default_rng(0)
wrapped.reset()
columns = {name: [] for name in ("observations", "rewards", "ends", "scaled")}
for _ in range(STEPS):
    columns["observations"].append(wrapped.get_original_obs())
    before = (wrapped.obs_rms.mean.copy(), wrapped.obs_rms.var.copy())
    actions = rng.uniform(-2, 2, size=(ENVIRONMENTS, 1)).astype("float32")
    _, scaled, ends, _ = wrapped.step(actions)
    columns["rewards"].append(wrapped.get_original_reward())
    columns["ends"].append(ends)
    columns["scaled"].append(scaled)
fresh = wrapped.get_original_obs()
wrapped.obs_rms.mean, wrapped.obs_rms.var = before
arrays = {name: np.stack(column) for name, column in columns.items()}
meta = {"discount": DISCOUNT, "clip": CLIP}
meta |= {"stable_baselines3": version("stable_baselines3")}
np.savez_compressed(
    Path(__file__).with_name("normalized_environments.npz"),
    meta=json.dumps(meta),
    **{
        "in/observations": arrays["observations"],
        "in/rewards": arrays["rewards"],
        "in/ends": arrays["ends"],
        "in/fresh": fresh,
        "out/seen/mean": before[0],
        "out/seen/var": before[1],
        "out/returns/mean": wrapped.ret_rms.mean,
        "out/returns/var": wrapped.ret_rms.var,
        "out/rewards": arrays["scaled"],
        "out/fresh": wrapped.normalize_obs(fresh),
    },
)
