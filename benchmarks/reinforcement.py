"""Agents beside Stable-Baselines3: steps and CPU seconds to a target, seed by seed.

    python -m benchmarks.reinforcement --tensorflow PY --jax PY --pytorch PY --sb3 PY
        --sbx PY [--seeds 5] [--only "PPO CartPole-v1" ...]

The arguments are interpreters of environments with Keras on TensorFlow, on JAX, on
PyTorch (asked for the first seed alone), with Stable-Baselines3, and with SBX, its JAX
twin, which is asked for SAC alone; what is not given is left out. Each contender is one
process with one thread, and they are asked in turn, seed by seed.

PPO has the same hyper-parameters on both sides, those of rl-zoo3. So have SAC and DQN,
but for this: our SAC makes eight steps and then eight updates where the peers make one
and one; our DQN plays in eight environments instead of one, its rate falls to zero, and
its loss is the square up to an error of 10, where the peer's is Huber's up to 1 and
cannot be set. The peer keeps its rate, for it learned less surely with a falling one.

A run trains until two greedy evaluations in a row, of 20 episodes each and with
learning between them, reach the target, or until its steps are used up. CPU seconds
are of training alone: compiling counts, evaluating does not. "Warm" is the time of one
environment step in the second half of the run. Because a run stops at its first two
passes and may have been lucky, one column is from 100 other episodes.

Results are kept run by run: a second start goes on where the first ended, unless the
sources have changed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # also as the script of a worker, outside of the package
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import common, record

SOURCES = ["benchmarks.reinforcement", "benchmarks.reinforcement_peer"]
# environment, target, steps between evaluations, most steps
TASKS = {
    "PPO CartPole-v1": ("CartPole-v1", 475, 4_096, 100_000),
    "PPO Acrobot-v1": ("Acrobot-v1", -100, 8_192, 300_000),
    "PPO Pendulum-v1": ("Pendulum-v1", -200, 8_192, 300_000),
    "DQN CartPole-v1": ("CartPole-v1", 475, 4_096, 100_000),
    "SAC Pendulum-v1": ("Pendulum-v1", -200, 600, 12_000),
    "Rainbow CartPole-v1": ("CartPole-v1", 475, 4_096, 100_000),
    "A2C CartPole-v1": ("CartPole-v1", 475, 8_192, 300_000),
    "REINFORCE CartPole-v1": ("CartPole-v1", 400, 2_000, 200_000),
}
CONTENDERS = ("SB3", "SBX", "TensorFlow", "JAX", "PyTorch")
# hyper-parameters with which both sides are known to learn
WITH_PEER = [task for task in TASKS if task.startswith(("PPO", "DQN", "SAC"))]


def make(task, seed):
    """Our agent for a task."""
    algorithm, environment = task.split()
    agent = {
        "PPO": PPO,
        "DQN": DQN,
        "SAC": SAC,
        "Rainbow": Rainbow,
        "A2C": A2C,
        "REINFORCE": REINFORCE,
    }[algorithm]
    return agent(environment, seed=seed, **hyper_parameters(task, seed))


def hyper_parameters(task, seed):
    def adam(rate):
        return keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5)

    def falling(rate, updates):
        return keras.optimizers.schedules.PolynomialDecay(rate, updates, 0.0)

    most = TASKS[task][3]
    if task == "PPO CartPole-v1":
        updates = most // 256 * 20
        return {
            "optimizer": adam(falling(1e-3, updates)),
            "clip_range": falling(0.2, updates),
            "rollout_length": 32,
            "batch_size": 256,
            "update_epochs": 20,
            "discount": 0.98,
            "gae_lambda": 0.8,
            "num_envs": 8,
            "horizon": 512,
        }
    if task == "PPO Acrobot-v1":
        return {
            "optimizer": adam(3e-4),
            "rollout_length": 256,
            "batch_size": 64,
            "update_epochs": 4,
            "discount": 0.99,
            "gae_lambda": 0.94,
            "num_envs": 16,
            "horizon": 512,
        }
    if task == "PPO Pendulum-v1":
        return {
            "optimizer": adam(1e-3),
            "rollout_length": 1024,
            "batch_size": 64,
            "update_epochs": 10,
            "discount": 0.9,
            "gae_lambda": 0.95,
            "num_envs": 4,
            "horizon": 1024,
        }
    if task == "DQN CartPole-v1":
        rate = falling(2.3e-3, most // 2)
        return {
            "network": relu_network(4, 2, seed),
            "optimizer": keras.optimizers.Adam(rate, global_clipnorm=10.0),
            "delta": 10.0,
            "jit_compile": True,
            "batch_size": 64,
            "rollout_length": 32,
            "gradient_steps": 128,
            "num_envs": 8,
            "horizon": 512,
        }
    if task == "SAC Pendulum-v1":
        return {
            "policy": relu_network(3, 2, seed),
            "critics": [relu_critic(3, 1, 2 * seed + n) for n in range(2)],
            "batch_size": 256,
            "rollout_length": 8,
        }
    if task == "Rainbow CartPole-v1":
        rate = falling(2e-3, most // 2)
        return {
            "optimizer": keras.optimizers.Adam(rate, global_clipnorm=10.0),
            "value_range": (0.0, 100.0),
            "n_step": 20,
            "batch_size": 128,
            "jit_compile": True,
            "horizon": 512,
        }
    if task == "A2C CartPole-v1":
        updates = most // 256
        return {
            "optimizer": keras.optimizers.Adam(falling(3e-3, updates)),
            "critic_optimizer": keras.optimizers.Adam(falling(1e-2, 5 * updates)),
            "entropy_weight": 0.0,
            "horizon": 512,
        }
    return {}  # REINFORCE as it is


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
        epochs = agent.epochs
        while agent.epochs == epochs:  # one may be longer than ``every``
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


def summary(runs):
    """One row for each task and contender, with ratios to the peer's."""
    from dlcompanion.reinforcement import bootstrap_interval, interquartile_mean

    rows = []
    for task in TASKS:
        of_peer = [r for r in runs if (r["task"], r["contender"]) == (task, "SB3")]
        for contender in CONTENDERS:
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
                row[name] = mean = interquartile_mean(values)
                low, high = bootstrap_interval(values)
                row[f"{name}, 95 %"] = f"{low:.3g} to {high:.3g}"
                ratio = mean / interquartile_mean(theirs) if theirs else "-"
                row[f"{name} / SB3"] = ratio
            rows.append(row)
    return rows


def wanted(task, seed, contender):
    """Whether a contender is asked for this run."""
    if contender == "PyTorch":
        return seed == 0
    if contender == "SBX":
        return task == "SAC Pendulum-v1"
    return contender != "SB3" or task in WITH_PEER


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in CONTENDERS:
        parser.add_argument(f"--{name.lower()}", dest=name, metavar="PY")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=list(TASKS), choices=list(TASKS))
    options = vars(parser.parse_args())
    peer = str(Path(__file__).with_name("reinforcement_peer.py"))
    backends = {"PyTorch": "torch"}
    workers = {
        name: Worker(
            options[name],
            peer if name in ("SB3", "SBX") else __file__,
            backends.get(name, name.lower()),
        )
        for name in CONTENDERS
        if options[name]
    }
    runs = record.kept("reinforcement", SOURCES, "runs")
    done = {(r["task"], r["seed"], r["contender"]) for r in runs}
    for task in options["only"]:
        for seed in range(options["seeds"]):
            for name, worker in workers.items():
                if (task, seed, name) in done or not wanted(task, seed, name):
                    continue
                runs.append({"contender": name, **worker.ask(task, seed)})
                shown = {k: v for k, v in runs[-1].items() if k != "versions"}
                print(json.dumps(shown), flush=True)
                peers = {r["contender"]: r["versions"] for r in runs}
                record.save("reinforcement", summary(runs), SOURCES, peers, runs=runs)
    common.table(summary(runs))


if __name__ == "__main__" and "--serve" in sys.argv:
    common.one_thread()
    import keras

    from dlcompanion.reinforcement import A2C, DQN, PPO, REINFORCE, SAC, Rainbow

    keras.ops.ones(()) + 1  # starts the backend, off the clock
    serve(run)
elif __name__ == "__main__":
    main()
