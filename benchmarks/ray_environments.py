"""When workers on Ray pay: steps of eight environments, here and on two workers.

    python -m benchmarks.ray_environments [--repeats 5]

The environment burns the CPU for a given time in every step, as a simulator does, or
waits as long, as for a simulator elsewhere. The same environments are stepped by the
``SyncVectorEnv`` of gymnasium in this process and by ``ray_environments`` on two
workers, in turn. Unlike the other benchmarks this one counts *wall* seconds, for it is
about doing two things at once: where CPU is burned it needs two cores that have nothing
else to do, and it says how busy the machine was. Starting the workers is off the clock
and printed apart. The times are medians.
"""

import argparse
import functools
import os
import time
from importlib import metadata

from benchmarks import common, record

common.one_thread()

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402

from dlcompanion.reinforcement import ray_environments  # noqa: E402

SOURCES = ["benchmarks.ray_environments"]
ENVIRONMENTS, WORKERS = 8, 2
STEPS = {0: 400, 1: 100, 5: 25, 20: 10}  # milliseconds a step, steps that are timed
CASES = [("burns CPU", t) for t in STEPS] + [("waits", t) for t in STEPS if t]


def simulator(kind, milliseconds):
    """An environment whose step burns the CPU or waits for so long, and no more."""

    class Simulator(gym.Env):
        observation_space = gym.spaces.Box(-1.0, 1.0, (16,), np.float32)
        action_space = gym.spaces.Discrete(2)

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(16, np.float32), {}

        def step(self, action):
            if kind == "waits":
                time.sleep(milliseconds / 1000)
            end = time.process_time() + milliseconds / 1000 * (kind == "burns CPU")
            while time.process_time() < end:
                pass
            return np.zeros(16, np.float32), 1.0, False, False, {}

    return Simulator()


def wall_seconds(vector, steps):
    """Wall seconds of one step of all environments."""
    actions = np.zeros(vector.num_envs, int)
    start = time.perf_counter()
    for _ in range(steps):
        vector.step(actions)
    return (time.perf_counter() - start) / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    rows, opened = [], []
    for kind, milliseconds in CASES:
        steps = STEPS[milliseconds]
        make = functools.partial(simulator, kind, milliseconds)
        here = gym.vector.SyncVectorEnv([make] * ENVIRONMENTS)
        start = time.perf_counter()
        there = ray_environments(make, ENVIRONMENTS, WORKERS)
        opened.append(there)
        print(
            f"{WORKERS} workers started in {time.perf_counter() - start:.1f} s", end=""
        )
        print(", and Ray before them" if len(opened) == 1 else "")
        seconds = {"here": [], "there": []}
        for vector in (here, there):
            vector.reset(seed=0)
            wall_seconds(vector, 5)
        for _ in range(repeats):
            seconds["here"].append(wall_seconds(here, steps))
            seconds["there"].append(wall_seconds(there, steps))
        ratio = common.ratio(seconds["here"], seconds["there"])
        rows.append(
            {
                "a step": kind,
                "ms": milliseconds,
                "environments": ENVIRONMENTS,
                "wall ms SyncVectorEnv": 1000 * np.median(seconds["here"]),
                "workers": WORKERS,
                "wall ms on Ray": 1000 * np.median(seconds["there"]),
                "times as fast": round(ratio["median"], 2),
                "least and most": f"{ratio['min']:.2f}-{ratio['max']:.2f}",
                "load": round(os.getloadavg()[0], 1),
            }
        )
    for vector in opened:
        vector.close()
    common.table(rows)
    ray = {"ray": {"ray": metadata.version("ray")}}
    record.save("ray_environments", rows, SOURCES, ray, used="two used, wall time")


if __name__ == "__main__":
    main()
