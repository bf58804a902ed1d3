"""Agents beside Stable-Baselines3: steps and CPU seconds to a target, seed by seed.

    python -m benchmarks.reinforcement --tensorflow PY --jax PY --sb3 PY --sbx PY
        [--seeds 5] [--only "PPO CartPole-v1" ...]

The arguments are interpreters of environments with Keras on TensorFlow, on JAX, with
Stable-Baselines3 on PyTorch, and with SBX, its JAX twin, which is asked for SAC alone;
what is not given is left out. Each contender is one process with one thread, and
they are asked in turn, seed by seed. Hyper-parameters are the same on both sides, those
of rl-zoo3. A run trains until two greedy evaluations in a row, of 20 episodes each and
with learning between them, reach the target, or until its steps are used up. CPU
seconds are of training alone: compiling counts, evaluating does not. "Warm" is the
time of one environment step in the second half of the run. Because a run stops at its
first two passes and may have been lucky, one column is from 100 other episodes.

Results are kept run by run: a second start goes on where the first ended, unless the
sources have changed.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # also as the script of a worker, outside of the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common

SOURCES = [
    f"dlcompanion/reinforcement/{name}.py"
    for name in (
        "actor_critic",
        "agent",
        "deep_q",
        "dqn",
        "environments",
        "numpy_policy",
        "ppo",
        "proximal_policy",
        "replay_buffer",
        "sac",
        "segment_agent",
        "segments",
        "soft_actor_critic",
    )
] + [
    "dlcompanion/backend/phases.py",
    "benchmarks/reinforcement.py",
    "benchmarks/reinforcement_peer.py",
]
# environment, target, steps between evaluations, most steps
TASKS = {
    "PPO CartPole-v1": ("CartPole-v1", 475, 4_096, 100_000),
    "PPO Acrobot-v1": ("Acrobot-v1", -100, 8_192, 300_000),
    "PPO Pendulum-v1": ("Pendulum-v1", -200, 8_192, 300_000),
    "DQN CartPole-v1": ("CartPole-v1", 475, 4_096, 100_000),
    "SAC Pendulum-v1": ("Pendulum-v1", -200, 600, 12_000),
    "A2C CartPole-v1": ("CartPole-v1", 475, 8_192, 300_000),
}
NO_PEER = ("A2C CartPole-v1",)  # no hyper-parameters that both are known to learn with


def make(task, seed):
    """Our agent for a task."""

    def adam(rate, **kwargs):
        return keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5, **kwargs)

    if task == "PPO CartPole-v1":
        falls, phases = keras.optimizers.schedules.PolynomialDecay, 100_000 // 256
        return PPO(
            "CartPole-v1",
            optimizer=adam(falls(1e-3, phases * 20, 0.0)),
            clip_range=falls(0.2, phases * 20, 0.0),
            rollout_length=32,
            batch_size=256,
            epochs=20,
            discount=0.98,
            trace=0.8,
            num_envs=8,
            horizon=512,
            seed=seed,
        )
    if task == "PPO Acrobot-v1":
        return PPO(
            "Acrobot-v1",
            optimizer=adam(3e-4),
            rollout_length=256,
            batch_size=64,
            epochs=4,
            discount=0.99,
            trace=0.94,
            num_envs=16,
            horizon=512,
            seed=seed,
        )
    if task == "DQN CartPole-v1":
        return DQN(
            "CartPole-v1",
            network=relu_network(4, 2, seed),
            batch_size=64,
            rollout_length=32,
            gradient_steps=128,
            num_envs=8,
            horizon=512,
            seed=seed,
        )
    if task == "SAC Pendulum-v1":
        return SAC(
            "Pendulum-v1",
            policy=relu_network(3, 2, seed),
            critics=[relu_critic(3, 1, 2 * seed + n) for n in range(2)],
            batch_size=256,
            rollout_length=8,
            seed=seed,
        )
    if task == "A2C CartPole-v1":
        falls = keras.optimizers.schedules.PolynomialDecay
        return A2C(
            "CartPole-v1",
            optimizer=keras.optimizers.Adam(falls(5e-3, 300_000 // 256, 0.0)),
            discount=0.98,
            horizon=512,
            seed=seed,
        )
    return PPO(
        "Pendulum-v1",
        optimizer=adam(1e-3),
        rollout_length=1024,
        batch_size=64,
        epochs=10,
        discount=0.9,
        trace=0.95,
        num_envs=4,
        horizon=1024,
        seed=seed,
    )


def relu_network(inputs, outputs, seed):
    """Two hidden layers of 256, as the peer's."""
    seeds = iter(range(1000 * seed, 1000 * seed + 3))

    def dense(units, activation=None):
        start = keras.initializers.GlorotUniform(seed=next(seeds))
        return keras.layers.Dense(units, activation, kernel_initializer=start)

    return keras.Sequential(
        [keras.Input((inputs,)), dense(256, "relu"), dense(256, "relu"), dense(outputs)]
    )


def relu_critic(observations, actions, seed):
    inputs = [keras.Input((observations,)), keras.Input((actions,))]
    network = relu_network(observations + actions, 1, 100 + seed)
    return keras.Model(inputs, network(keras.layers.Concatenate()(inputs)))


def run(task, seed):
    """Train one agent of ours; what became of it."""
    _, target, every, most = TASKS[task]
    start = time.process_time()
    agent = make(task, seed)
    seconds = time.process_time() - start
    passes, curve = 0, []
    while passes < 2 and agent.steps < most:
        start = time.process_time()
        agent.fit(every, verbose=0)
        seconds += time.process_time() - start
        value = agent.evaluate(episodes=20)["return_mean"]
        curve.append([agent.steps, value, seconds])
        passes = passes + 1 if value >= target else 0
    others = agent.evaluate(100, seed=12345)["return_mean"]
    return outcome(passes == 2, curve, others)


def outcome(solved, curve, others):
    """The row of a run, from its evaluations ``[steps, return, CPU seconds]``."""
    half = curve[max(len(curve) // 2 - 1, 0)]
    steps, seconds = curve[-1][0] - half[0], curve[-1][2] - half[2]
    return {
        "solved": solved,
        "steps": curve[-1][0],
        "cpu_seconds": curve[-1][2],
        "warm_microseconds": 1e6 * seconds / steps if steps else None,
        "return_100_others": others,
        "curve": [[step, value] for step, value, _ in curve],
    }


def serve(run):
    """Answer each line ``{"task": ..., "seed": ...}`` with the row of that run."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        row = {**asked, **run(asked["task"], asked["seed"])}
        print(json.dumps({**row, "versions": common.versions()}), file=answers)
        answers.flush()


class Worker:
    """A contender in a process of its own, started when it is first asked."""

    def __init__(self, python, script, backend):
        self.command, self.backend, self.process = [python, script], backend, None

    def ask(self, task, seed):
        if self.process is None:
            self.process = subprocess.Popen(
                [*self.command, "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": str(common.ROOT),
                    "KERAS_BACKEND": self.backend,
                    "JAX_PLATFORMS": "cpu",
                },
            )
        self.process.stdin.write(json.dumps({"task": task, "seed": seed}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"A contender ended: {self.command}")
        return json.loads(line)


def kept():
    """Rows of earlier runs, if they measured the sources as they are now."""
    path = common.RESULTS / "reinforcement.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    for source in SOURCES:
        now = hashlib.sha256((common.ROOT / source).read_bytes()).hexdigest()
        if record["sources"].get(source) != now:
            print(f"{source} has changed: beginning anew")
            return []
    return record["runs"]


def interquartile_mean(values):
    """Mean of the middle half."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return statistics.mean(ordered[cut : len(ordered) - cut])


def summary(runs):
    """One row for each task and contender, with ratios to the peer's."""
    rows = []
    for task in TASKS:
        of_peer = [r for r in runs if (r["task"], r["contender"]) == (task, "SB3")]
        for contender in ("SB3", "SBX", "TensorFlow", "JAX"):
            mine = [r for r in runs if (r["task"], r["contender"]) == (task, contender)]
            if not mine:
                continue
            row = {
                "task": task,
                "contender": contender,
                "solved": f"{sum(r['solved'] for r in mine)} of {len(mine)}",
                "worst of 100 others": min(r["return_100_others"] for r in mine),
            }
            for name, key in (
                ("steps", "steps"),
                ("CPU s", "cpu_seconds"),
                ("warm us a step", "warm_microseconds"),
            ):
                values = [r[key] for r in mine if r[key] is not None]
                theirs = [r[key] for r in of_peer if r[key] is not None]
                mean = interquartile_mean(values) if values else float("nan")
                row[name] = mean
                row[f"{name} / SB3"] = (
                    mean / interquartile_mean(theirs) if theirs else "-"
                )
            rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("tensorflow", "jax", "sb3", "sbx"):
        parser.add_argument(f"--{name}", metavar="PY")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(TASKS), choices=list(TASKS))
    options = parser.parse_args()
    peer = str(Path(__file__).with_name("reinforcement_peer.py"))
    workers = {
        name: Worker(python, script, backend)
        for name, python, script, backend in (
            ("SB3", options.sb3, peer, "sb3"),
            ("SBX", options.sbx, peer, "sbx"),
            ("TensorFlow", options.tensorflow, __file__, "tensorflow"),
            ("JAX", options.jax, __file__, "jax"),
        )
        if python
    }
    runs = kept()
    for task in options.only:
        for seed in range(options.seeds):
            for name, worker in workers.items():
                key = (task, seed, name)
                if name == "SBX" and task != "SAC Pendulum-v1":
                    continue
                if name in ("SB3", "SBX") and task in NO_PEER:
                    continue
                if key in [(r["task"], r["seed"], r["contender"]) for r in runs]:
                    continue
                runs.append({"contender": name, **worker.ask(task, seed)})
                shown = {k: v for k, v in runs[-1].items() if k != "versions"}
                print(json.dumps(shown), flush=True)
                peers = {r["contender"]: r["versions"] for r in runs}
                common.save("reinforcement", summary(runs), SOURCES, peers, runs=runs)
    common.table(summary(runs))


if __name__ == "__main__" and "--serve" in sys.argv:
    common.one_thread()
    import keras

    from dlcompanion.reinforcement import A2C, DQN, PPO, SAC

    keras.ops.ones(()) + 1  # starts the backend, off the clock
    serve(run)
elif __name__ == "__main__":
    main()
