"""Graph plans: edges checked, sorted and normalized outside the step."""

import functools
import warnings
from typing import NamedTuple

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_boolean, check_count


@keras.saving.register_keras_serializable(package="dlcompanion")
class GraphPlan:
    r"""One fixed graph, checked and prepared once for all layers that walk on it.

    Graph layers multiply by the same sparse matrix in every step, forwards by the
    matrix and backwards by its transpose. Checking, normalizing and sorting the edges
    is work that none of these steps has to repeat: the plan does it once, on first
    use, and every layer that is given the plan shares the result. Plans are saved
    with the model.

    Args:
        edges: Integer array of shape ``(2, edges)``: row 0 has the source of each
            edge, row 1 its target. Messages flow from source to target, so an
            undirected edge stands there twice. Edges that occur twice add up.
        num_nodes: Positive integer. Nodes without an edge are nodes as well.
        weights: Array of shape ``(edges,)`` with finite weights of at least 0, or
            ``None`` for ones.
        directed: ``True`` for edges in one direction; with ``False`` every edge must
            stand there in both. By default both are taken, with a warning where no
            edge has its reverse, as in a list of undirected edges.

    Raises:
        ValueError: If ``edges`` is not an integer array of shape ``(2, edges)`` with
            entries in ``0 ... num_nodes - 1``, if a weight is missing, negative or
            not finite, or if an edge has no reverse with ``directed=False``. A negative
            weight could make a degree 0 or negative, where :math:`D^{-1/2}` has no
            real value.

    Example:
        >>> plan = GraphPlan([[0, 1, 1, 2], [1, 0, 2, 1]], num_nodes=4)
        >>> plan
        GraphPlan(nodes=4, edges=4, weighted=False)
        >>> plan.degrees
        array([2., 3., 2., 1.], dtype=float32)
    """

    def __init__(self, edges, num_nodes, weights=None, directed=None):
        check_count("num_nodes", num_nodes)
        edges = np.asarray(edges)
        weights = None if weights is None else np.asarray(weights)
        check_edges(edges, num_nodes, weights)
        if directed is not None:
            directed = check_boolean("directed", directed)
        if not directed:
            _check_directions(edges.astype("int64"), num_nodes, directed)
        self.directed = directed
        self.num_nodes = int(num_nodes)
        self.edges = edges.astype("int32")
        self.weights = None if weights is None else weights.astype("float32")

    @classmethod
    def from_networkx(cls, graph, weight=None):
        """The plan of a graph of networkx, its nodes numbered in their order there.

        Rows of features follow the same order, ``list(graph.nodes)``. An edge of an
        undirected graph becomes two, one in each direction; a self loop stays one.

        Args:
            graph: ``networkx.Graph`` or ``DiGraph``, also a multigraph.
            weight: String, the attribute of the edges that holds their weights, or
                ``None`` for a plan without weights.

        Returns:
            A :class:`GraphPlan`.

        Raises:
            ValueError: If ``graph`` is no graph of networkx or has no node, or an edge
                has no such attribute.

        Example:
            >>> import networkx
            >>> plan = GraphPlan.from_networkx(networkx.path_graph(["a", "b", "c"]))
            >>> plan.edges.tolist()
            [[0, 1, 1, 2], [1, 2, 0, 1]]
        """
        if not hasattr(graph, "is_directed") or len(graph) == 0:
            raise ValueError(
                "graph must be a graph of networkx with at least one node. "
                f"Received: graph={graph!r}"
            )
        number = {node: n for n, node in enumerate(graph.nodes)}
        found = [(number[u], number[v], data) for u, v, data in graph.edges(data=True)]
        if not graph.is_directed():
            found += [(v, u, data) for u, v, data in found if u != v]
        edges = np.array([[u, v] for u, v, _ in found], "int32").reshape(-1, 2).T
        directed = graph.is_directed()
        if weight is None:
            return cls(edges, len(graph), directed=directed)
        missing = sum(weight not in data for _, _, data in found)
        if missing:
            raise ValueError(
                f"Every edge needs the attribute {weight!r}. "
                f"Received: {missing} of {len(found)} edges without it"
            )
        weights = [data[weight] for _, _, data in found]
        return cls(edges, len(graph), weights, directed)

    @functools.cached_property
    def degrees(self):
        """Weighted in-degree of each node in the graph with self loops, ``float32``."""
        ones = np.ones(self.edges.shape[1])
        weights = ones if self.weights is None else self.weights
        sums = np.bincount(self.edges[1], weights, self.num_nodes)
        return (sums + 1).astype("float32")

    @functools.cached_property
    def normalized(self):
        r"""The sparse matrix :math:`\tilde D^{-1/2} (A + I)\, \tilde D^{-1/2}`."""
        loops = np.arange(self.num_nodes, dtype="int32")
        sources, targets = np.concatenate([self.edges, [loops, loops]], axis=1)
        values = np.ones(len(sources), "float32")
        if self.weights is not None:
            values[: len(self.weights)] = self.weights
        values /= np.sqrt(self.degrees[sources] * self.degrees[targets])
        shape = (self.num_nodes, self.num_nodes)
        return backend.SparseMatrix(targets, sources, values, shape)

    def get_config(self):
        return {
            "edges": self.edges,
            "num_nodes": self.num_nodes,
            "weights": self.weights,
            "directed": self.directed,
        }

    @classmethod
    def from_config(cls, config):
        values = {
            name: keras.saving.deserialize_keras_object(value)
            for name, value in config.items()
        }
        plan = cls(**{**values, "directed": True})  # it has warned when it was made
        plan.directed = values.get("directed")
        return plan

    def __repr__(self):
        return (
            f"GraphPlan(nodes={self.num_nodes}, edges={self.edges.shape[1]}, "
            f"weighted={self.weights is not None})"
        )


def _check_directions(edges, num_nodes, directed):
    """Warn if no edge has its reverse; with ``directed=False`` refuse one without."""
    sources, targets = edges[:, edges[0] != edges[1]]
    forth, back = sources * num_nodes + targets, targets * num_nodes + sources
    alone = int(np.sum(~np.isin(back, forth)))
    if directed is False and alone:
        raise ValueError(
            "Every edge of an undirected graph must stand in edges twice, once in each "
            f"direction. Received: directed=False, and {alone} edges without reverse"
        )
    if alone and alone == len(forth):
        warnings.warn(
            "No edge has its reverse, so that messages flow in one direction only. For "
            "an undirected graph give each edge twice, as np.concatenate([edges, "
            "edges[::-1]], axis=1) does; for a directed one give directed=True. "
            f"Received: {alone} edges",
            stacklevel=3,
        )


def check_edges(edges, num_nodes, weights=None):
    """Refuse edges or weights that no graph has.

    Args:
        edges: NumPy array, should be integers of shape ``(2, edges)``.
        num_nodes: Integer, the number of nodes.
        weights: ``None``, or a NumPy array that should have shape ``(edges,)``.

    Raises:
        ValueError: If they are not what :class:`GraphPlan` asks for.

    Example:
        >>> check_edges(np.array([[0, 1], [1, 2]]), num_nodes=2)
        Traceback (most recent call last):
        ...
        ValueError: edges must name nodes 0 ... 1. Received: edges with entries 0 ... 2
    """
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise ValueError(
            "edges must be an integer array of shape (2, edges), sources above "
            f"targets. Received: edges.shape={edges.shape}, dtype={edges.dtype}"
        )
    if edges.size and not 0 <= edges.min() <= edges.max() < num_nodes:
        raise ValueError(
            f"edges must name nodes 0 ... {num_nodes - 1}. "
            f"Received: edges with entries {edges.min()} ... {edges.max()}"
        )
    if weights is None:
        return
    if weights.shape != edges.shape[1:] or weights.dtype.kind not in "iuf":
        raise ValueError(
            f"weights must hold one number an edge, shape {edges.shape[1:]}. "
            f"Received: weights.shape={weights.shape}, dtype={weights.dtype}"
        )
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError(
            "weights must be finite and not negative. "
            f"Received: weights with entries {weights.min()} ... {weights.max()}"
        )


class JoinedGraphs(NamedTuple):
    """Several graphs as one graph of several components.

    Args:
        x: Array of shape ``(nodes, features)``, ``float32``: all nodes, graph after
            graph, then the padding.
        edges: Array of shape ``(2, edges)``, ``int32``, renumbered.
        weights: Array of shape ``(edges,)``, ``float32``; padding edges weigh 0.
        graph_index: Array of shape ``(nodes,)``, ``int32``: to which graph a node
            belongs. Padding nodes belong to one more graph, after the last.

    Example:
        >>> JoinedGraphs(np.ones((2, 1)), None, None, np.zeros(2)).graph_index
        array([0., 0.])
    """

    x: np.ndarray
    edges: np.ndarray
    weights: np.ndarray
    graph_index: np.ndarray


def join_graphs(x, edges, weights=None, num_nodes=None, num_edges=None):
    """Join a batch of graphs into one disjoint graph.

    Graphs of different sizes do not stack, but they can stand side by side in one
    graph without an edge between them: nothing flows from one to another, and a graph
    layer treats the whole batch in one go. JAX and XLA compile anew for every shape:
    give ``num_nodes`` and ``num_edges`` that are large enough for every batch, and all
    batches have one shape.

    Args:
        x: Sequence of arrays of shape ``(nodes_i, features)``, the nodes of each graph.
        edges: Sequence of integer arrays of shape ``(2, edges_i)``, numbered from 0 in
            each graph.
        weights: Sequence of arrays of shape ``(edges_i,)``, or ``None`` for ones.
        num_nodes: Integer, pad to so many nodes, with zeros as features. At least one
            node of padding is needed where edges are padded.
        num_edges: Integer, pad to so many edges, loops of weight 0 at the last node.

    Returns:
        A ``JoinedGraphs``.

    Raises:
        ValueError: If the sequences have different lengths or are empty, a graph has
            edges that it cannot have, features differ in number, or the padded size is
            too small.

    Example:
        >>> triangle = [[0, 1, 2], [1, 2, 0]]
        >>> pair = [[0, 1], [1, 0]]
        >>> joined = join_graphs([np.ones((3, 4)), np.ones((2, 4))], [triangle, pair])
        >>> joined.edges
        array([[0, 1, 2, 3, 4],
               [1, 2, 0, 4, 3]], dtype=int32)
        >>> joined.graph_index
        array([0, 0, 0, 1, 1], dtype=int32)
    """
    x, edges = [np.asarray(a) for a in x], [np.asarray(a) for a in edges]
    if weights is None:
        weights = [np.ones(e.shape[-1:], "float32") for e in edges]
    weights = [np.asarray(a) for a in weights]
    if not len(x) == len(edges) == len(weights) > 0:
        raise ValueError(
            "join_graphs needs x, edges and weights of the same graphs, one at least. "
            f"Received: {len(x)}, {len(edges)} and {len(weights)} of them"
        )
    for nodes, pairs, weight in zip(x, edges, weights, strict=True):
        if nodes.ndim != 2 or nodes.shape[1] != x[0].shape[-1]:
            raise ValueError(
                "Every graph needs an x of shape (nodes, features), with the same "
                f"features. Received: shapes {[a.shape for a in x]}"
            )
        check_edges(pairs, len(nodes), weight)
    sizes = [len(nodes) for nodes in x]
    offsets = np.cumsum([0, *sizes[:-1]])
    joined = JoinedGraphs(
        np.concatenate(x).astype("float32"),
        np.concatenate(
            [e + o for e, o in zip(edges, offsets, strict=True)], axis=1
        ).astype("int32"),
        np.concatenate(weights).astype("float32"),
        np.repeat(np.arange(len(x), dtype="int32"), sizes),
    )
    return _pad(joined, len(x), num_nodes, num_edges)


def _pad(joined, num_graphs, num_nodes, num_edges):
    nodes = 0 if num_nodes is None else num_nodes - len(joined.x)
    edges = 0 if num_edges is None else num_edges - len(joined.weights)
    if nodes < 0 or edges < 0 or (edges > 0 and nodes == 0):
        raise ValueError(
            "num_nodes and num_edges must hold the whole batch, with one node to "
            f"spare if edges are padded. Received: num_nodes={num_nodes}, "
            f"num_edges={num_edges} for {len(joined.x)} nodes and "
            f"{len(joined.weights)} edges"
        )
    last = len(joined.x) + nodes - 1
    return JoinedGraphs(
        np.pad(joined.x, ((0, nodes), (0, 0))),
        np.pad(joined.edges, ((0, 0), (0, edges)), constant_values=last),
        np.pad(joined.weights, (0, edges)),
        np.pad(joined.graph_index, (0, nodes), constant_values=num_graphs),
    )
