"""Training step of a RealNVP against nflows and zuko, at equal size.

    python -m benchmarks.normalizing_flows --tensorflow PY --jax PY --torch PY

The arguments are the interpreters of three environments, with TensorFlow and TFP,
with JAX and TFP, and with PyTorch, nflows and zuko; each contender is a process of
its own, asked in turn. 16 variables, 8 affine couplings, conditioners with 64 and 64
ReLU units, batches of 512, Adam (PyTorch's fused one). Every contender trains one
epoch of 51,200 shuffled examples a call, that is 100 steps; the table has CPU
milliseconds a step. What imports, builds and compiles comes before and has a column
of its own. ``mean NLL`` after the same number of steps shows that all of them learn.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common

common.one_thread()

SIZE, COUPLINGS, UNITS, BATCH, STEPS = 16, 8, 64, 512, 100
SOURCES = [
    "benchmarks/normalizing_flows.py",
    "dlcompanion/generative/coupling.py",
    "dlcompanion/generative/normalizing_flows.py",
    "dlcompanion/probability/door.py",
    "dlcompanion/training/in_memory.py",
]
PEERS = ("nflows", "zuko")


def data():
    import numpy as np

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(SIZE, SIZE)) / SIZE**0.5
    noise = rng.normal(size=(BATCH * STEPS, SIZE))
    return (np.sin(2 * noise @ mix) + 0.1 * noise).astype("float32")


def ours(way):
    import keras

    from dlcompanion.generative import RealNVP
    from dlcompanion.training import fit_in_memory

    keras.utils.set_random_seed(0)
    flow = RealNVP(SIZE, COUPLINGS, (UNITS, UNITS), seed=0)
    flow.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    x = data()

    def epoch():
        settings = {"batch_size": BATCH, "epochs": 1, "verbose": 0}
        if way == "fit":
            history = flow.fit(x, **settings)
        else:
            history = fit_in_memory(flow, x, **settings)
        return history.history["loss"][-1]

    return epoch, lambda: flow.count_params()


def peer(library):
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if library == "zuko":
        import zuko

        flow = zuko.flows.RealNVP(
            SIZE, 0, transforms=COUPLINGS, hidden_features=(UNITS, UNITS)
        )

        def log_prob(x):
            return flow().log_prob(x)

    else:
        from nflows.distributions import StandardNormal
        from nflows.flows import Flow
        from nflows.nn.nets import MLP
        from nflows.transforms import AffineCouplingTransform, CompositeTransform

        class Conditioner(MLP):
            def forward(self, inputs, context=None):
                return super().forward(inputs)

        def conditioner(inputs, outputs):
            return Conditioner((inputs,), (outputs,), [UNITS, UNITS])

        masks = [[(i + n) % 2 for i in range(SIZE)] for n in range(COUPLINGS)]
        couplings = [AffineCouplingTransform(mask, conditioner) for mask in masks]
        flow = Flow(CompositeTransform(couplings), StandardNormal([SIZE]))
        log_prob = flow.log_prob
    adam = torch.optim.Adam(flow.parameters(), 1e-3, fused=True)
    x = torch.from_numpy(data())

    def epoch():
        order, total = torch.randperm(len(x)), 0.0
        for rows in order.split(BATCH):
            adam.zero_grad()
            loss = -log_prob(x[rows]).mean()
            loss.backward()
            adam.step()
            total += loss.item()
        return total / STEPS

    return epoch, lambda: sum(p.numel() for p in flow.parameters())


def worker(contender, record):
    start = time.process_time()
    epoch, parameters = peer(contender) if contender in PEERS else ours(contender)
    losses = [epoch()]
    facts = {"seconds": time.process_time() - start, "parameters": parameters()}
    facts["loss"] = [losses.append(epoch()) or losses[-1] for _ in range(2)][-1]
    Path(record).write_text(json.dumps(facts))
    common.serve(epoch)


def main():
    parser = argparse.ArgumentParser()
    for name in ("tensorflow", "jax", "torch"):
        parser.add_argument(f"--{name}", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    facts, candidates = {}, {}

    def start(name, python, contender, **environment):
        record = folder / f"{len(candidates)}.json"
        candidates[name] = common.Peer(
            python, __file__, "worker", contender, record, **environment
        )
        facts[name] = json.loads(record.read_text())

    for library in PEERS:
        start(library, options.torch, library)
    for title, backend in (("TensorFlow", "tensorflow"), ("JAX", "jax")):
        python = getattr(options, backend)
        for way in ("fit", "fit_in_memory"):
            start(f"RealNVP, {title}, {way}", python, way, KERAS_BACKEND=backend)
    seconds = common.alternate(candidates, repeats=options.repeats)
    fastest = min(PEERS, key=lambda name: common.summary(seconds[name])["median"])
    rows = []
    for name, values in seconds.items():
        step = common.summary([1e3 * value / STEPS for value in values])
        ratio = common.ratio(values, seconds[fastest])
        rows.append(
            {
                "contender": name,
                "CPU ms a step": round(step["median"], 3),
                "spread": round(step["spread"], 3),
                f"to {fastest}": f"{ratio['median']:.3f} "
                f"({ratio['min']:.3f}-{ratio['max']:.3f})",
                "parameters": facts[name]["parameters"],
                "first epoch, CPU s": round(facts[name]["seconds"], 1),
                "mean NLL, third epoch": round(facts[name]["loss"], 3),
            }
        )
    common.table(rows)
    versions = {name: candidate.versions for name, candidate in candidates.items()}
    for candidate in candidates.values():
        candidate.close()
    common.save("normalizing_flows", rows, SOURCES, versions)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        main()
