"""Graphs whose communities are known."""

from typing import NamedTuple

import numpy as np

from dlcompanion.backend import require
from dlcompanion.checks import check_count, check_number, generator


class Graph(NamedTuple):
    """One graph: nodes with features, edges as pairs of nodes, one label a node.

    Args:
        x: Array of shape ``(nodes, features)``, ``float32``.
        edges: Array of shape ``(2, edges)``, ``int32``: row 0 has the sources, row 1
            the targets. An undirected edge stands there twice, once a direction. The
            columns are sorted by target, then by source.
        y: Array of shape ``(nodes,)``, ``int32``.

    Example:
        >>> graph = Graph(np.eye(2), np.array([[1, 0], [0, 1]]), np.array([0, 1]))
        >>> graph.edges.shape
        (2, 2)
    """

    x: np.ndarray
    edges: np.ndarray
    y: np.ndarray


def karate_club():
    """Zachary's karate club: who met whom before the club broke in two.

    The nodes carry no measurement, so the features are the identity matrix: a node
    knows only who it is.

    Returns:
        A :class:`Graph` with ``x`` of shape ``(34, 34)``, ``edges`` of shape
        ``(2, 156)`` (78 friendships, both directions, no loops) and ``y`` of shape
        ``(34,)``: 0 went with the instructor (node 0), 1 with the officer (node 33).

    Raises:
        ImportError: If networkx is missing.

    Example:
        >>> graph = karate_club()
        >>> graph.edges.shape, int(graph.y.sum())
        ((2, 156), 17)

    References:
        Zachary, *An Information Flow Model for Conflict and Fission in Small Groups*,
        Journal of Anthropological Research 33(4), 1977.
    """
    club = require("networkx", "datasets").karate_club_graph()
    y = [club.nodes[node]["club"] != "Mr. Hi" for node in range(len(club))]
    return _graph(np.array(club.edges()).T, np.array(y))


def stochastic_block_model(sizes=(50, 50), p_in=0.1, p_out=0.01, seed=0):
    """A random graph of communities that are denser inside than between.

    Every pair of nodes is joined independently, with probability ``p_in`` within a
    community and ``p_out`` across. The features are the identity matrix, of
    ``nodes ** 2`` entries, and the draw looks at all pairs: meant for some thousands
    of nodes.

    Args:
        sizes: Sequence of integers, the number of nodes of each community.
        p_in: Number in ``[0, 1]``, the probability of an edge within a community.
        p_out: Number in ``[0, 1]``, the probability of an edge between two.
        seed: Integer, fixes the edges.

    Returns:
        A :class:`Graph` with ``x`` of shape ``(nodes, nodes)``, ``edges`` in both
        directions without loops, and ``y`` of shape ``(nodes,)``, the community. The
        nodes stand in the order of their communities.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> graph = stochastic_block_model((3, 3), p_in=1.0, p_out=0.0)
        >>> graph.edges.shape, graph.y
        ((2, 12), array([0, 0, 0, 1, 1, 1], dtype=int32))

    References:
        Holland, Laskey and Leinhardt, *Stochastic Blockmodels: First Steps*, Social
        Networks 5(2), 1983. https://doi.org/10.1016/0378-8733(83)90021-7
    """
    sizes = tuple(sizes) if isinstance(sizes, list | tuple) else (sizes,)
    if not sizes:
        raise ValueError("sizes must name at least one community. Received: sizes=()")
    sizes = [check_count("sizes", size) for size in sizes]
    p_in = check_number("p_in", p_in, 0, 1)
    p_out = check_number("p_out", p_out, 0, 1)
    y = np.repeat(np.arange(len(sizes)), sizes)
    pairs = np.stack(np.triu_indices(len(y), k=1))
    same = y[pairs[0]] == y[pairs[1]]
    joined = generator(seed).uniform(size=len(same)) < np.where(same, p_in, p_out)
    return _graph(pairs[:, joined], y)


def _graph(pairs, y):
    """Give each pair both directions, sorted by target, then source."""
    edges = np.concatenate([pairs, pairs[::-1]], axis=1)
    edges = edges[:, np.lexsort(edges)]
    identity = np.eye(len(y), dtype="float32")
    return Graph(identity, edges.astype("int32"), y.astype("int32"))
