"""REINFORCE on CartPole-v1: steps and CPU seconds until it balances, seed by seed.

Run it once under each backend::

    KERAS_BACKEND=jax python -m benchmarks.policy_gradient --seeds 5

Every seed trains until two greedy evaluations in a row, of 20 episodes each and with at
least one update between them, reach a mean return of 400, or gives up after 200,000
steps. The evaluations are off the clock; compiling is on it. Because a run stops at its
first two passes, and may have been lucky, the last row of numbers is from 100 other
episodes. Results are kept seed by seed: a second run goes on where the first ended,
unless the sources have changed.
"""

import argparse
import hashlib
import json
import time

from benchmarks import common

common.one_thread()

import keras  # noqa: E402

from dlcompanion.reinforcement import REINFORCE  # noqa: E402

SOURCES = [
    f"dlcompanion/reinforcement/{name}.py"
    for name in (
        "policy_gradient",
        "agent",
        "environments",
        "numpy_policy",
        "returns",
    )
] + ["benchmarks/policy_gradient.py"]
TARGET, EVERY, AT_MOST = 400, 2_000, 200_000


def run(seed):
    """Train one agent; its row."""
    agent, passes, curve, seconds = None, 0, [], 0.0
    while passes < 2 and (agent is None or agent.steps < AT_MOST):
        start = time.process_time()
        if agent is None:
            agent = REINFORCE("CartPole-v1", seed=seed)
        rollouts = agent.rollouts
        while agent.rollouts == rollouts:  # a rollout may be longer than EVERY
            agent.fit(EVERY, verbose=0)
        seconds += time.process_time() - start
        value = agent.evaluate(episodes=20)["return_mean"]
        curve.append([agent.steps, value])
        passes = passes + 1 if value >= TARGET else 0
    return {
        "backend": keras.backend.backend(),
        "seed": seed,
        "solved": passes == 2,
        "steps": agent.steps,
        "updates": agent.rollouts,
        "cpu_seconds": seconds,
        "return_100_others": agent.evaluate(100, seed=12345)["return_mean"],
        "curve": curve,
    }


def kept():
    """Rows of earlier runs, if they measured the sources as they are now."""
    path = common.RESULTS / "policy_gradient.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    for source in SOURCES:
        now = hashlib.sha256((common.ROOT / source).read_bytes()).hexdigest()
        if record["sources"].get(source) != now:
            print(f"{source} has changed: beginning anew")
            return []
    return record["rows"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    rows = kept()
    for seed in range(parser.parse_args().seeds):
        key = (keras.backend.backend(), seed)
        if key not in [(row["backend"], row["seed"]) for row in rows]:
            rows.append({**run(seed), "versions": common.versions()})
            rows.sort(key=lambda row: (row["backend"], row["seed"]))
            common.save("policy_gradient", rows, SOURCES)
    hidden = ("curve", "versions")
    common.table([{k: v for k, v in r.items() if k not in hidden} for r in rows])


if __name__ == "__main__":
    main()
