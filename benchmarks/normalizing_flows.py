"""Training steps and sampling of three flows against nflows, zuko and normflows.

    python -m benchmarks.normalizing_flows --tensorflow PY --jax PY --torch PY

The arguments are the interpreters of environments with Keras on TensorFlow, on JAX,
and with PyTorch, nflows, zuko and normflows; each contender is a process of its own,
asked in turn, flow by flow. 16 variables and 8 layers of each flow, conditioners with
64 and 64 ReLU units: RealNVP (affine couplings), MAF (MADE with an affine map), spline
(couplings with 8 bins on [-3, 3]). All libraries are built of the same pieces; the
number of parameters is in the table.

Training: batches of 512, Adam (PyTorch's fused one), one epoch of 51,200 shuffled
examples a call, that is 100 steps; the table has CPU milliseconds a step. What imports,
builds and compiles comes before and has a column of its own. The mean NLL of the third
epoch shows that all of them learn. Sampling: 10,000 points a call, compiled where there
is a compiler, without gradients; CPU milliseconds a call.
"""

import argparse
import functools
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common, record

common.one_thread()

SIZE, LAYERS, UNITS, BINS, BATCH, STEPS = 16, 8, 64, 8, 512, 100
POINTS = 10_000
FLOWS = ("RealNVP", "MAF", "spline")
PEERS = ("nflows", "zuko", "normflows")
SOURCES = ["benchmarks.normalizing_flows"]


def data():
    import numpy as np

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(SIZE, SIZE)) / SIZE**0.5
    noise = rng.normal(size=(BATCH * STEPS, SIZE))
    return (np.sin(2 * noise @ mix) + 0.1 * noise).astype("float32")


# -- ours -----------------------------------------------------------------------------


def ours(flow_name, way):
    """What to time, and the number of parameters."""
    import keras

    from dlcompanion.generative import (
        MaskedAutoregressiveFlow,
        NeuralSplineFlow,
        RealNVP,
    )
    from dlcompanion.training import fit_in_memory

    classes = (RealNVP, MaskedAutoregressiveFlow, NeuralSplineFlow)
    keras.utils.set_random_seed(0)
    flow = dict(zip(FLOWS, classes, strict=True))[flow_name](
        SIZE, LAYERS, (UNITS, UNITS), seed=0
    )
    flow.build((None, SIZE))
    flow.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    x = data()

    def epoch():
        settings = {"batch_size": BATCH, "epochs": 1, "verbose": 0}
        if way == "fit":
            history = flow.fit(x, **settings)
        else:
            history = fit_in_memory(flow, x, **settings)
        return history.history["loss"][-1]

    def sample():
        return keras.ops.convert_to_numpy(flow.sample(POINTS))

    return (sample if way == "sample" else epoch), flow.count_params()


# -- the peers ------------------------------------------------------------------------


def peer(library, flow_name, way):
    """What to time, and the number of parameters."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    make = {"nflows": of_nflows, "zuko": of_zuko, "normflows": of_normflows}
    flow, log_prob, draw = make[library](flow_name)
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

    def sample():
        with torch.no_grad():
            return draw()

    parameters = sum(p.numel() for p in flow.parameters())
    return (sample if way == "sample" else epoch), parameters


def network(inputs, outputs):
    """The conditioner of a coupling, which takes a context and forgets it."""
    from torch import nn

    class Network(nn.Sequential):
        def forward(self, inputs, context=None):
            return super().forward(inputs)

    return Network(
        nn.Linear(inputs, UNITS), nn.ReLU(),
        nn.Linear(UNITS, UNITS), nn.ReLU(),
        nn.Linear(UNITS, outputs),
    )  # fmt: skip


def of_nflows(flow_name):
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    layers = []
    for number in range(LAYERS):
        mask = [(i + number) % 2 for i in range(SIZE)]
        if flow_name == "RealNVP":
            layers.append(transforms.AffineCouplingTransform(mask, network))
        elif flow_name == "spline":
            layers.append(
                transforms.PiecewiseRationalQuadraticCouplingTransform(
                    mask, network, num_bins=BINS, tails="linear", tail_bound=3.0
                )
            )
        else:
            layers += [
                transforms.MaskedAffineAutoregressiveTransform(
                    SIZE, UNITS, num_blocks=1, use_residual_blocks=False
                ),
                transforms.ReversePermutation(SIZE),
            ]
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([SIZE]))
    return flow, flow.log_prob, lambda: flow.sample(POINTS)


def of_zuko(flow_name):
    import zuko

    sizes = {"transforms": LAYERS, "hidden_features": (UNITS, UNITS)}
    if flow_name == "RealNVP":
        flow = zuko.flows.RealNVP(SIZE, 0, **sizes)
    elif flow_name == "MAF":
        flow = zuko.flows.MAF(SIZE, 0, **sizes)
    else:  # zuko's RealNVP is the coupling flow of any curve
        from zuko.transforms import MonotonicRQSTransform

        curve = functools.partial(MonotonicRQSTransform, slope=1e-3, bound=3.0)
        shapes = [(BINS,), (BINS,), (BINS - 1,)]
        flow = zuko.flows.RealNVP(SIZE, 0, univariate=curve, shapes=shapes, **sizes)
    return flow, lambda x: flow().log_prob(x), lambda: flow().sample((POINTS,))


def of_normflows(flow_name):
    import normflows as nf
    import torch
    from normflows.flows.neural_spline.coupling import (
        PiecewiseRationalQuadraticCoupling,
    )

    class Spline(nf.flows.Flow):
        """As normflows wraps it, with a conditioner of the same size as the others."""

        def __init__(self, mask):
            super().__init__()
            self.coupling = PiecewiseRationalQuadraticCoupling(
                torch.tensor(mask), network, BINS, tails="linear", tail_bound=3.0
            )

        def forward(self, z):
            z, log_det = self.coupling.inverse(z)
            return z, log_det.view(-1)

        def inverse(self, z):
            z, log_det = self.coupling(z)
            return z, log_det.view(-1)

    layers = []
    for number in range(LAYERS):
        if flow_name == "RealNVP":
            half = SIZE // 2
            net = nf.nets.MLP([half, UNITS, UNITS, 2 * half], init_zeros=True)
            layers += [
                nf.flows.AffineCouplingBlock(net),
                nf.flows.Permute(SIZE, "swap"),
            ]
        elif flow_name == "spline":
            layers.append(Spline([(i + number) % 2 for i in range(SIZE)]))
        else:
            layers += [
                nf.flows.MaskedAffineAutoregressive(
                    SIZE, UNITS, num_blocks=1, use_residual_blocks=False
                ),
                nf.flows.Permute(SIZE, "swap"),
            ]
    base = nf.distributions.DiagGaussian(SIZE, trainable=False)
    flow = nf.NormalizingFlow(base, layers)
    return flow, flow.log_prob, lambda: flow.sample(POINTS)


# -- the contest ----------------------------------------------------------------------


def worker(contender, flow_name, way, record):
    start = time.process_time()
    if contender in PEERS:
        run, parameters = peer(contender, flow_name, way)
    else:
        run, parameters = ours(flow_name, way)
    results = [run()]
    facts = {"seconds": time.process_time() - start, "parameters": parameters}
    if way != "sample":
        facts["loss"] = [results.append(run()) or results[-1] for _ in range(2)][-1]
    Path(record).write_text(json.dumps(facts))
    common.serve(run)


def contest(flow_name, way, options, versions):
    """CPU seconds a call of each contender, and its facts."""
    folder, facts, candidates = Path(tempfile.mkdtemp()), {}, {}
    contenders = [(library, options.torch, library, way, {}) for library in PEERS]
    for title, name in (("TensorFlow", "tensorflow"), ("JAX", "jax")):
        for own in ("sample",) if way == "sample" else ("fit", "fit_in_memory"):
            contenders.append(
                (
                    f"{title}, {own}",
                    getattr(options, name),
                    "dlcompanion",
                    own,
                    {"KERAS_BACKEND": name},
                )
            )
    for title, python, contender, own, environment in contenders:
        record = folder / f"{len(candidates)}.json"
        arguments = ("worker", contender, flow_name, own, record)
        candidates[title] = common.Peer(python, __file__, *arguments, **environment)
        facts[title] = json.loads(record.read_text())
        versions[title] = candidates[title].versions
    seconds = common.alternate(candidates, repeats=options.repeats)
    for candidate in candidates.values():
        candidate.close()
    return seconds, facts


def tabulate(flow_name, way, seconds, facts):
    """Rows of one contest; ratios are to the fastest of the peers."""
    each = POINTS if way == "sample" else STEPS
    fastest = min(PEERS, key=lambda name: common.summary(seconds[name])["median"])
    rows = []
    for name, values in seconds.items():
        scale = 1e3 if way == "sample" else 1e3 / each
        time_of = common.summary([scale * value for value in values])
        ratio = common.ratio(values, seconds[fastest])
        unit = "CPU ms for 10,000 points" if way == "sample" else "CPU ms a step"
        row = {
            "flow": flow_name,
            "contender": name,
            unit: round(time_of["median"], 3),
            "spread": round(time_of["spread"], 3),
            "to the fastest peer": f"{ratio['median']:.3f} "
            f"({ratio['min']:.3f}-{ratio['max']:.3f})",
            "parameters": facts[name]["parameters"],
            "first call, CPU s": round(facts[name]["seconds"], 1),
        }
        if way != "sample":
            row["mean NLL, third epoch"] = round(facts[name]["loss"], 3)
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser()
    for name in ("tensorflow", "jax", "torch"):
        parser.add_argument(f"--{name}", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    versions, tables = {}, []
    for way in ("train", "sample"):
        rows = []
        for flow_name in FLOWS:
            rows += tabulate(
                flow_name, way, *contest(flow_name, way, options, versions)
            )
        common.table(rows)
        print()
        tables += rows
    record.save("normalizing_flows", tables, SOURCES, versions)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        main()
