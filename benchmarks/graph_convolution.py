"""Forward and backward of a two-layer GCN against PyTorch Geometric.

    python -m benchmarks.graph_convolution --tensorflow PY --jax PY --torch PY --pyg PY

The arguments are the interpreters of environments with Keras on TensorFlow, on JAX and
on PyTorch, and with PyTorch Geometric; each contender is a process of its own, asked in
turn. 20,000 nodes, 200,000 random edges and the self loops, 64 -> 64 -> 16 channels,
mean squared error, gradients of the four parameters. All start from the same weights;
the loss in the table shows that all compute the same. A call is ``STEPS`` steps.

PyTorch Geometric runs three ways: an edge_index, normalized in every step (its
default); the same with ``cached=True``; and a compressed sparse adjacency, normalized
beforehand, which its documentation recommends for speed. Ours has a GraphPlan; on
TensorFlow it is compiled with XLA (the row without says what that is worth).

The second table takes our step apart: the products with the normalized adjacency
(one 64 channels wide, forwards; 16 wide, forwards and backwards), and the dense
products.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks import common, record

common.one_thread()

NODES, EDGES, WIDE, NARROW, STEPS = 20_000, 200_000, 64, 16, 5
SOURCES = ["benchmarks.graph_convolution"]


def data():
    import numpy as np

    rng = np.random.default_rng(0)
    edges = rng.integers(0, NODES, (2, EDGES))
    x, y = (rng.normal(size=(NODES, n)).astype("float32") for n in (WIDE, NARROW))
    shapes = ((WIDE, WIDE), (WIDE,), (WIDE, NARROW), (NARROW,))
    weights = [0.1 * rng.normal(size=shape).astype("float32") for shape in shapes]
    return edges, x, y, weights


def ours(way):
    """A function that makes one step, or one part of it, and waits for the result."""
    import keras
    from keras import ops

    from dlcompanion import autodiff, backend
    from dlcompanion.graphs import GraphConvolution, GraphPlan

    edges, x, y, (w1, b1, w2, b2) = data()
    plan = GraphPlan(edges, NODES)
    layers = [
        GraphConvolution(WIDE, plan, activation="relu"),
        GraphConvolution(NARROW, plan),
    ]
    x, y = ops.convert_to_tensor(x[None]), ops.convert_to_tensor(y[None])
    for layer, kernel, bias in zip(layers, (w1, w2), (b1, b2), strict=True):
        layer.build(x.shape)
        layer.dense.kernel.assign(kernel)
        layer.bias.assign(bias)
    variables = [v for layer in layers for v in layer.trainable_variables]

    def loss():
        return ops.mean(ops.square(layers[1](layers[0](x)) - y))

    def mix_wide():
        return plan.normalized @ x[0]

    def mix_narrow():
        return autodiff.grad(lambda h: ops.sum(ops.square(plan.normalized @ h)))(y[0])

    def dense():
        def total(w1, w2):
            h = ops.relu(ops.matmul(x[0], w1))
            return ops.sum(ops.square(ops.matmul(h, w2)))

        kernels = [layer.dense.kernel.value for layer in layers]
        return autodiff.grad(total, argnums=(0, 1))(*kernels)

    parts = {
        "step": lambda: autodiff.value_and_grad(loss, variables=variables)(),
        "step without XLA": lambda: autodiff.value_and_grad(
            loss, variables=variables
        )(),
        "wide": mix_wide,
        "narrow": mix_narrow,
        "dense": dense,
    }
    compiled = backend.compile(parts[way], jit=way != "step without XLA")

    def step():
        result = compiled()
        if keras.backend.backend() == "jax":
            keras.tree.flatten(result)[-1].block_until_ready()
        return result

    return step, lambda: float(ops.convert_to_numpy(step()[0]))


def peer(way):
    import torch
    from torch_geometric.nn import GCNConv
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    torch.set_num_threads(1)
    edges, x, y, weights = data()
    edges, x, y = (torch.from_numpy(a) for a in (edges, x, y))
    graph = edges
    settings = {"cached": way == "cached", "normalize": way != "csr"}
    if way == "csr":
        loops, values = gcn_norm(edges, num_nodes=NODES)
        graph = torch.sparse_coo_tensor(loops.flip(0), values, (NODES, NODES))
        graph = graph.coalesce().to_sparse_csr()
    layers = [GCNConv(WIDE, WIDE, **settings), GCNConv(WIDE, NARROW, **settings)]
    parameters = [p for c in layers for p in (c.lin.weight, c.bias)]
    with torch.no_grad():
        for parameter, value in zip(parameters, weights, strict=True):
            parameter.copy_(torch.from_numpy(value.T))

    def step():
        h = torch.relu(layers[0](x, graph))
        loss = torch.mean((layers[1](h, graph) - y) ** 2)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        return loss

    return step, lambda: step().item()


def worker(kind, way, record):
    step, loss = peer(way) if kind == "pyg" else ours(way)
    Path(record).write_text(json.dumps(loss() if way not in PARTS else None))

    def steps():
        for _ in range(STEPS):
            step()

    common.serve(steps)


PARTS = ("wide", "narrow", "dense")
STEP = {
    "PyG, edge_index (default)": ("pyg", "pyg", "default"),
    "PyG, edge_index, cached": ("pyg", "pyg", "cached"),
    "PyG, CSR adjacency": ("pyg", "pyg", "csr"),
    "GraphConvolution, TensorFlow": ("tensorflow", "ours", "step"),
    "GraphConvolution, TensorFlow without XLA": (
        "tensorflow",
        "ours",
        "step without XLA",
    ),
    "GraphConvolution, JAX": ("jax", "ours", "step"),
    "GraphConvolution, PyTorch": ("torch", "ours", "step"),
}


def measure(contenders, options, folder):
    """CPU milliseconds a step of each contender, its loss, and its versions."""
    peers, losses = {}, {}
    for name, (environment, kind, way) in contenders.items():
        record = folder / f"{len(peers)}.json"
        python = getattr(options, environment)
        settings = {} if kind == "pyg" else {"KERAS_BACKEND": environment}
        peers[name] = common.Peer(
            python, __file__, "worker", kind, way, record, **settings
        )
        losses[name] = json.loads(record.read_text())
    seconds = common.alternate(peers, repeats=options.repeats)
    versions = {name: candidate.versions for name, candidate in peers.items()}
    for candidate in peers.values():
        candidate.close()
    return (
        {k: [1e3 * t / STEPS for t in v] for k, v in seconds.items()},
        losses,
        versions,
    )


def main():
    parser = argparse.ArgumentParser()
    for name in ("tensorflow", "jax", "torch", "pyg"):
        parser.add_argument(f"--{name}", default=sys.executable)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())

    times, losses, versions = measure(STEP, options, folder)
    default, _, csr = (times[name] for name in list(STEP)[:3])
    rows = []
    for name, values in times.items():
        summary = common.summary(values)
        row = {"contender": name, "CPU ms a step": round(summary["median"], 2)}
        row["spread"] = round(summary["spread"], 2)
        for title, other in (("default", default), ("CSR", csr)):
            r = common.ratio(values, other)
            row[f"to PyG {title}"] = (
                f"{r['median']:.2f} ({r['min']:.2f}-{r['max']:.2f})"
            )
        rows.append({**row, "loss": f"{losses[name]:.6f}"})
    common.table(rows)

    parts = {
        f"{title}, {part}": (environment, "ours", part)
        for title, environment in (("TensorFlow", "tensorflow"), ("PyTorch", "torch"))
        for part in PARTS
    }
    times, _, _ = measure(parts, options, folder)
    apart = [
        {"part": name, "CPU ms": round(common.summary(values)["median"], 2)}
        for name, values in times.items()
    ]
    print()
    common.table(apart)
    record.save("graph_convolution", [*rows, *apart], SOURCES, versions)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(*sys.argv[2:])
    else:
        main()
