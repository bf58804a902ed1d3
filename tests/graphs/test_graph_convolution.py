"""Tests of dlcompanion.graphs.graph_convolution."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion import autodiff
from dlcompanion.graphs import GraphConvolution, GraphPlan, join_graphs
from dlcompanion.testing import check_layer

REFERENCE = np.load(Path(__file__).parents[1] / "references/graph_convolution.npz")
X, EDGES, WEIGHTS = (REFERENCE[f"in/{k}"] for k in ("x", "edge_index", "edge_weight"))
NODES, FEATURES = X.shape


def dense_adjacency(edges, num_nodes, weights):
    adjacency = np.zeros((num_nodes, num_nodes), "float32")
    np.add.at(adjacency, (edges[1], edges[0]), weights)
    return adjacency


def random_graph(num_nodes=9, num_edges=30, seed=0):
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, num_nodes - 1, (2, num_edges))  # the last one is isolated
    weights = rng.uniform(0.1, 2, num_edges).astype("float32")
    return rng.normal(size=(num_nodes, 4)).astype("float32"), edges, weights


def run(layer, inputs):
    return ops.convert_to_numpy(layer(inputs))


def three_forms(x, edges, weights):
    """Arguments and inputs of the same convolution, in the three forms of graphs."""
    plan = GraphPlan(edges, len(x), weights)
    return {
        "plan": ({"graph": plan}, x[None]),
        "edges": ({}, [x, edges, weights]),
        "dense": ({}, [x, dense_adjacency(edges, len(x), weights)]),
    }


def test_contract_with_a_plan():
    signals = np.random.default_rng(0).normal(size=(3, NODES, FEATURES))
    check_layer(
        GraphConvolution,
        {"units": 3, "graph": GraphPlan(EDGES, NODES, WEIGHTS)},
        signals.astype("float32"),
        output_shape=(3, NODES, 3),
    )


def test_contract_with_edges():
    check_layer(
        GraphConvolution,
        {"units": 3, "activation": "tanh", "kernel_regularizer": "l2"},
        [X, EDGES.astype("int32"), WEIGHTS],
        output_shape=(NODES, 3),
        batch_independent=False,
        symbolic_shapes=[(None, FEATURES), (2, None), (None,)],
    )


def test_contract_with_adjacency():
    adjacency = dense_adjacency(EDGES, NODES, WEIGHTS)
    check_layer(
        GraphConvolution,
        {"units": 3, "use_bias": False},
        [np.stack([X, -X]), np.stack([adjacency, adjacency.T])],
        output_shape=(2, NODES, 3),
    )


@pytest.mark.parametrize("case", ["weighted", "unweighted"])
@pytest.mark.parametrize("form", ["plan", "edges", "dense"])
def test_equals_torch_geometric_with_gradients(case, form):
    weights = WEIGHTS if case == "weighted" else np.ones_like(WEIGHTS)
    arguments, inputs = three_forms(X, EDGES, weights)[form]
    if form == "edges" and case == "unweighted":
        inputs = inputs[:2]
    layer = GraphConvolution(units=6, **arguments)
    layer(inputs)
    layer.dense.kernel.assign(REFERENCE["w/lin.weight"].T)
    layer.bias.assign(REFERENCE["w/bias"])
    out = run(layer, inputs).reshape(NODES, 6)
    np.testing.assert_allclose(out, REFERENCE[f"out/{case}"], rtol=1e-5, atol=1e-6)

    cotangent = ops.cos(ops.arange(out.size, dtype="float32"))
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    x, *graph = inputs if isinstance(inputs, list) else [inputs]

    def total(x):
        y = layer([x, *graph] if graph else x)
        return ops.sum(ops.reshape(y, (-1,)) * cotangent)

    by_x = ops.convert_to_numpy(autodiff.grad(total)(x)).reshape(X.shape)
    expected = REFERENCE[f"g/{case}/x"]
    np.testing.assert_allclose(by_x, expected, rtol=1e-4, atol=1e-5)
    variables = [layer.dense.kernel, layer.bias]
    _, found = autodiff.value_and_grad(lambda: total(x), variables=variables)()
    by_kernel, by_bias = (ops.convert_to_numpy(g) for g in found)
    expected = REFERENCE[f"g/{case}/lin.weight"].T
    np.testing.assert_allclose(by_kernel, expected, rtol=1e-4, atol=1e-5)
    expected = REFERENCE[f"g/{case}/bias"]
    np.testing.assert_allclose(by_bias, expected, rtol=1e-4, atol=1e-5)


def test_edge_weights_get_the_gradients_of_torch_geometric():
    layer = GraphConvolution(units=6)
    layer([X, EDGES, WEIGHTS])
    layer.dense.kernel.assign(REFERENCE["w/lin.weight"].T)
    layer.bias.assign(REFERENCE["w/bias"])
    x, edges, weights = map(ops.convert_to_tensor, (X, EDGES, WEIGHTS))
    cotangent = ops.cos(ops.arange(NODES * 6, dtype="float32"))
    cotangent = ops.reshape(cotangent, (NODES, 6))
    gradient = autodiff.grad(lambda w: ops.sum(layer([x, edges, w]) * cotangent))
    np.testing.assert_allclose(
        ops.convert_to_numpy(gradient(weights)),
        REFERENCE["g/weighted/edge_weight"],
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("units", [3, 5])  # of 4 features: map first, or mix first
def test_the_three_forms_agree(units):
    outputs = {}
    for form, (arguments, inputs) in three_forms(*random_graph()).items():
        keras.utils.set_random_seed(1)
        layer = GraphConvolution(units, activation="tanh", **arguments)
        outputs[form] = run(layer, inputs).reshape(9, units)
    np.testing.assert_allclose(outputs["plan"], outputs["dense"], atol=1e-5)
    np.testing.assert_allclose(outputs["edges"], outputs["dense"], atol=1e-5)


@pytest.mark.parametrize("form", ["plan", "edges"])
def test_gradients_have_gradients(form):
    """d/dx of |d/dx of sum(y^3)|^2 against the dense form, where Keras does it all."""
    x, edges, weights = random_graph()

    def second(form):
        keras.utils.set_random_seed(1)
        arguments, inputs = three_forms(x, edges, weights)[form]
        layer = GraphConvolution(units=2, **arguments)
        layer(inputs)
        graph = [ops.convert_to_tensor(a) for a in inputs[1:]] if form != "plan" else []

        def cubes(z):
            y = layer([z, *graph]) if graph else layer(z[None])
            return ops.sum(y * y * y)

        first = autodiff.grad(cubes)
        outer = autodiff.grad(lambda z: ops.sum(ops.square(first(z))))
        return ops.convert_to_numpy(outer(ops.convert_to_tensor(x)))

    expected = second("dense")
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(second(form), expected, rtol=1e-3, atol=1e-3)


def test_renaming_the_nodes_renames_the_output():
    x, edges, weights = random_graph()
    order = np.random.default_rng(3).permutation(9)  # new node i was node order[i]
    keras.utils.set_random_seed(1)
    y = run(GraphConvolution(5, GraphPlan(edges, 9, weights)), x[None])
    keras.utils.set_random_seed(1)
    renamed = GraphPlan(np.argsort(order)[edges], 9, weights)
    y_renamed = run(GraphConvolution(5, renamed), x[None, order])
    np.testing.assert_allclose(y_renamed, y[:, order], atol=1e-5)


def test_joined_graphs_are_the_separate_graphs():
    graphs = [random_graph(n, 2 * n, seed=n) for n in (3, 8)]
    joined = join_graphs(*zip(*graphs, strict=True), num_nodes=20, num_edges=40)
    layer = GraphConvolution(6, activation="relu")
    together = run(layer, [joined.x, joined.edges, joined.weights])
    for index, graph in enumerate(graphs):
        alone = run(layer, list(graph))
        np.testing.assert_allclose(
            together[joined.graph_index == index], alone, atol=1e-5
        )


def test_a_constant_stays_constant_on_a_regular_graph():
    ring = np.arange(10)
    edges = np.stack([np.tile(ring, 2), np.concatenate([ring - 1, ring + 1]) % 10])
    layer = GraphConvolution(2, GraphPlan(edges, 10))
    y = run(layer, np.full((1, 10, 3), 0.7, "float32"))
    kernel = ops.convert_to_numpy(layer.dense.kernel)
    np.testing.assert_allclose(y[0], np.tile(0.7 * kernel.sum(0), (10, 1)), rtol=1e-5)


def test_an_isolated_node_keeps_to_itself():
    x, edges, weights = random_graph()
    layer = GraphConvolution(4, GraphPlan(edges, 9, weights))
    y = run(layer, x[None])
    kernel = ops.convert_to_numpy(layer.dense.kernel)
    np.testing.assert_allclose(y[0, -1], x[-1] @ kernel, rtol=1e-5)


def test_a_hub_of_many_neighbors_survives_half_precision():
    leaves = np.arange(1, 3000)
    edges = np.stack([leaves, np.zeros_like(leaves)])
    plan = GraphPlan(edges, 3000, directed=True)
    layer = GraphConvolution(1, plan, dtype="mixed_float16")
    layer.build((None, 3000, 1))
    layer.dense.kernel.assign([[1.0]])
    y = run(layer, np.full((1, 3000, 1), 30, "float32"))
    # one float16 sum of 3,000 thirties overflows
    np.testing.assert_allclose(y[0, 0, 0], (2999 * 3000**-0.5 + 1 / 3000) * 30, 1e-3)


def test_fit_shuffles_graphs_not_nodes():
    x, edges, weights = random_graph()
    plan = GraphPlan(edges, 9, weights)
    model = keras.Sequential([keras.Input((9, 4)), GraphConvolution(2, plan)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    signals = np.stack([x, 2 * x, 3 * x])
    targets = model.predict_on_batch(signals)
    history = model.fit(signals, targets, batch_size=2, epochs=2, verbose=0)
    assert max(history.history["loss"]) < 1e-10


X4, E9, W9 = random_graph()
PLAN = GraphPlan(E9, 9)
ADJACENCY = dense_adjacency(E9, 9, W9)


@pytest.mark.parametrize(
    ("rule", "arguments", "inputs"),
    [
        ("batch of one", {"graph": PLAN}, X4),
        ("x alone", {"graph": PLAN}, [X4, E9]),
        ("one row for each node", {"graph": PLAN}, X4[None, 1:]),
        ("needs \\[x, edges\\]", {}, X4),
        ("needs \\[x, edges\\]", {}, [X4]),
        ("needs \\[x, edges\\]", {}, [X4, E9, W9, W9]),
        ("shape \\(2, edges\\)", {}, [X4, E9.T]),
        ("nodes 0 ... 3", {}, [X4[:4], E9]),
        ("x of shape \\(nodes, features\\)", {}, [X4[None], E9]),
        ("one number an edge", {}, [X4, E9, W9[:3]]),
        ("one number an edge", {}, [X4, ops.convert_to_tensor(E9), W9[:3]]),
        ("finite and not negative", {}, [X4, E9, -W9]),
        ("dense adjacency", {}, [X4, ADJACENCY[:, 1:]]),
        ("dense adjacency", {}, [X4, ADJACENCY, W9]),
        ("dense adjacency", {}, [X4, E9.astype("float32")]),
        ("dense adjacency", {}, [X4[None], ADJACENCY]),
    ],
)
def test_refuses_inputs(rule, arguments, inputs):
    with pytest.raises(ValueError, match=f"{rule}(.|\n)*Received: "):
        GraphConvolution(units=2, **arguments)(inputs)


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("units must be an integer of at least 1", {"units": 0}),
        ("units must be an integer of at least 1", {"units": 2.0}),
        ("graph must be a GraphPlan", {"units": 2, "graph": E9}),
    ],
)
def test_refuses_arguments(rule, arguments):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        GraphConvolution(**arguments)
