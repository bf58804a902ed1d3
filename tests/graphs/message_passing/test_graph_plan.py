"""Tests of dlcompanion.graphs.message_passing.graph_plan."""

import json
import warnings

import keras
import networkx
import numpy as np
import pytest
from keras import ops

from dlcompanion.graphs import GraphPlan, join_graphs

EDGES = [[0, 1, 1, 2, 0], [1, 0, 2, 1, 1]]  # 0 -> 1 twice


def by_definition(edges, num_nodes, weights):
    """The normalized adjacency with self loops, entry by entry."""
    a = np.eye(num_nodes)
    for s, t, w in zip(*edges, weights, strict=True):
        a[t, s] += w
    degrees = a.sum(axis=1)
    return a / np.sqrt(degrees[:, None] * degrees[None, :])


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 0.0, 3.0]])
def test_normalized_matrix_is_the_definition(weights):
    plan = GraphPlan(EDGES, 5, weights)
    dense = ops.convert_to_numpy(plan.normalized @ ops.eye(5))
    expected = by_definition(EDGES, 5, np.ones(5) if weights is None else weights)
    np.testing.assert_allclose(dense, expected, rtol=1e-6, atol=1e-7)


def test_a_graph_without_edges_is_the_identity():
    plan = GraphPlan(np.zeros((2, 0), "int32"), 3)
    dense = ops.convert_to_numpy(plan.normalized @ ops.eye(3))
    np.testing.assert_array_equal(dense, np.eye(3))


def test_config_goes_through_json():
    plan = GraphPlan(EDGES, 4, [0.5, 2.0, 1.0, 0.0, 3.0])
    text = json.dumps(keras.saving.serialize_keras_object(plan))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert again.num_nodes == 4
    np.testing.assert_array_equal(again.edges, plan.edges)
    np.testing.assert_array_equal(again.weights, plan.weights)


def test_the_plan_does_not_follow_later_changes_of_the_arrays():
    edges, weights = np.array(EDGES, "int32"), np.ones(5, "float32")
    plan = GraphPlan(edges, 3, weights)
    edges[:], weights[:] = 0, 7
    np.testing.assert_array_equal(plan.edges, EDGES)
    assert plan.weights.max() == 1


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        (r"integer array of shape \(2, edges\)", {"edges": [[0, 1, 2]]}),
        (r"integer array of shape \(2, edges\)", {"edges": [[0, 1], [1, 2], [2, 0]]}),
        (r"integer array of shape \(2, edges\)", {"edges": [[0.0], [1.0]]}),
        (r"integer array of shape \(2, edges\)", {"edges": [[True], [False]]}),
        (r"nodes 0 \.\.\. 2", {"edges": [[0], [3]]}),
        (r"nodes 0 \.\.\. 2", {"edges": [[-1], [0]]}),
        ("one number an edge", {"weights": [1.0]}),
        ("one number an edge", {"weights": np.ones((5, 1))}),
        ("one number an edge", {"weights": ["1"] * 5}),
        ("finite and not negative", {"weights": [1, 1, 1, 1, -1]}),
        ("finite and not negative", {"weights": [1, 1, 1, 1, np.nan]}),
        ("finite and not negative", {"weights": [1, 1, 1, 1, np.inf]}),
        ("num_nodes must be an integer of at least 1", {"num_nodes": 0}),
        ("num_nodes must be an integer of at least 1", {"num_nodes": 3.0}),
        ("num_nodes must be an integer of at least 1", {"num_nodes": True}),
        ("directed must be", {"directed": "yes"}),
    ],
)
def test_refuses(rule, arguments):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        GraphPlan(**{"edges": EDGES, "num_nodes": 3, **arguments})


def graphs():
    x = [np.full((n, 2), n, "float32") for n in (3, 1, 2)]
    edges = [[[0, 1], [1, 2]], np.zeros((2, 0), "int64"), [[0, 1], [1, 0]]]
    return x, edges


def test_joined_graphs_keep_their_edges_apart():
    joined = join_graphs(*graphs(), weights=[[1, 2], [], [3, 4]])
    np.testing.assert_array_equal(joined.x[:, 0], [3, 3, 3, 1, 2, 2])
    np.testing.assert_array_equal(joined.edges, [[0, 1, 4, 5], [1, 2, 5, 4]])
    np.testing.assert_array_equal(joined.weights, [1, 2, 3, 4])
    np.testing.assert_array_equal(joined.graph_index, [0, 0, 0, 1, 2, 2])
    assert [a.dtype for a in joined] == ["float32", "int32", "float32", "int32"]


def test_padding_is_a_graph_of_its_own():
    joined = join_graphs(*graphs(), num_nodes=8, num_edges=6)
    np.testing.assert_array_equal(joined.x[6:], np.zeros((2, 2)))
    np.testing.assert_array_equal(joined.edges[:, 4:], 7)
    np.testing.assert_array_equal(joined.weights, [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(joined.graph_index[6:], 3)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("one at least", lambda x, e: ([], [])),
        ("of the same graphs", lambda x, e: (x[:2], e)),
        ("same features", lambda x, e: ([x[0][:, :1], *x[1:]], e)),
        ("same features", lambda x, e: ([a[:, 0] for a in x], e)),
        (r"nodes 0 \.\.\. 0", lambda x, e: (x, [e[0], e[0], e[2]])),
        ("one node to spare", lambda x, e: (x, e, None, 5)),
        ("one node to spare", lambda x, e: (x, e, None, None, 3)),
        ("one node to spare", lambda x, e: (x, e, None, 6, 9)),
    ],
)
def test_refuses_to_join(rule, change):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        join_graphs(*change(*graphs()))


@pytest.mark.parametrize("kind", ["Graph", "DiGraph", "MultiGraph"])
def test_a_graph_of_networkx_has_the_same_matrix(kind):
    graph = getattr(networkx, kind)()
    graph.add_nodes_from("dcba")
    for n, (u, v) in enumerate(["ab", "cb", "dd", "ab"]):
        graph.add_edge(u, v, strength=n + 1.0)
    for name, plan in (
        (None, GraphPlan.from_networkx(graph)),
        ("strength", GraphPlan.from_networkx(graph, weight="strength")),
    ):
        found = np.zeros((4, 4))
        weights = np.ones(plan.edges.shape[1]) if name is None else plan.weights
        np.add.at(found, tuple(plan.edges), weights)
        expected = networkx.to_numpy_array(graph, weight=name)
        np.testing.assert_allclose(found, expected)


def test_a_graph_of_networkx_is_refused_or_empty():
    with pytest.raises(ValueError, match="graph of networkx.*Received: graph="):
        GraphPlan.from_networkx(networkx.Graph())
    with pytest.raises(ValueError, match="Received: 2 of 4 edges without it"):
        graph = networkx.Graph([(0, 1, {"w": 2.0}), (1, 2)])
        GraphPlan.from_networkx(graph, weight="w")
    graph = networkx.Graph()
    graph.add_nodes_from("ab")
    assert GraphPlan.from_networkx(graph).edges.shape == (2, 0)


ONE_WAY = [[0, 1, 2], [1, 2, 2]]  # 0 -> 1 -> 2, and a loop


def test_edges_in_one_direction_warn_once():
    with pytest.warns(UserWarning, match="No edge has its reverse.*2 edges") as seen:
        plan = GraphPlan(ONE_WAY, 3)
    assert len(seen) == 1 and seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = keras.saving.serialize_keras_object(plan)
        again = keras.saving.deserialize_keras_object(config)
        assert again.directed is None and again.normalized is not None
        del config["config"]["directed"]  # as files from before
        assert keras.saving.deserialize_keras_object(config).directed is None


@pytest.mark.parametrize(
    ("edges", "directed"),
    [
        (ONE_WAY, True),
        ([[0, 1, 1], [1, 0, 2]], None),  # one edge has its reverse
        ([[0, 1], [1, 0]], False),
        ([[2], [2]], None),
        ([[2], [2]], False),
        (np.zeros((2, 0), "int32"), None),
    ],
)
def test_what_is_meant_does_not_warn(edges, directed):
    plan = GraphPlan(edges, 3, directed=directed)
    config = keras.saving.serialize_keras_object(plan)
    assert keras.saving.deserialize_keras_object(config).directed is directed
    np.testing.assert_array_equal(plan.edges, edges)


def test_many_nodes_do_not_overflow():
    edges = np.array([[99_999, 70_000], [70_000, 99_999]], "int32")
    assert GraphPlan(edges, 100_000, directed=False).edges.shape == (2, 2)


def test_undirected_edges_need_their_reverse():
    with pytest.raises(ValueError, match="stand in edges twice.*Received: .*1 edges"):
        GraphPlan([[0, 1, 1], [1, 0, 2]], 3, directed=False)


def test_a_digraph_of_networkx_does_not_warn():
    plan = GraphPlan.from_networkx(networkx.DiGraph([(0, 1), (1, 2)]))
    assert plan.directed is True
    assert GraphPlan.from_networkx(networkx.path_graph(3)).directed is False
