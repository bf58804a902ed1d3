"""Graph convolution: every node averages its neighbors, then a linear map."""

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.graphs.message_passing.graph_plan import GraphPlan, check_edges


@keras.saving.register_keras_serializable(package="dlcompanion")
class GraphConvolution(keras.layers.Layer):
    r"""Mixes each node with its neighbors and maps the mixture linearly.

    With the adjacency matrix :math:`A` (row: target, column: source of an edge), self
    loops :math:`\tilde A = A + I` and degrees :math:`\tilde D_{ii} = \sum_j \tilde
    A_{ij}`, a layer of Kipf and Welling computes

    .. math:: Y = \sigma\bigl(\tilde D^{-1/2} \tilde A\, \tilde D^{-1/2} X W + b\bigr).

    The product is associative, so the layer mixes before or after the map, wherever
    there are fewer channels; a first layer that mixes first needs no gradient through
    the graph.

    The graph comes in one of three ways:

    - **One graph for all examples**, ``GraphConvolution(units, graph=plan)``: the
      input is a batch of signals on the nodes of that graph. The fastest way; the
      graph is saved with the model. A single graph is a batch of one, so that
      ``fit(x[None], y[None])`` may shuffle the examples as it likes.
    - **Edges as an input**, ``layer([x, edges])`` or ``layer([x, edges, weights])``:
      one graph a call, or a disjoint batch made by
      :func:`~dlcompanion.graphs.join_graphs`. Weights get gradients. Feed a model of
      this kind from a generator or a ``keras.utils.PyDataset``.
    - **A dense adjacency**, ``layer([x, adjacency])``: a batch of small graphs with
      the same number of nodes; an isolated node of zeros serves as padding.

    On TensorFlow, compile the model with ``jit_compile=True``: XLA makes the step more
    than twice as fast on a CPU.

    Args:
        units: Positive integer, the number of output channels.
        graph: A :class:`~dlcompanion.graphs.GraphPlan`, or ``None`` if the graph is
            part of the input.
        activation: The function :math:`\sigma`, as Keras's layers take it.
        use_bias: Boolean, whether there is a :math:`b`.
        kernel_initializer: Initializer of :math:`W`.
        bias_initializer: Initializer of :math:`b`.
        kernel_regularizer: Regularizer of :math:`W`.
        bias_regularizer: Regularizer of :math:`b`.
        kernel_constraint: Constraint of :math:`W`.
        bias_constraint: Constraint of :math:`b`.
        **kwargs: Passed on to :class:`keras.layers.Layer`.

    Input shape:
        With ``graph``: ``(batch, nodes, features)``. Without: a list of ``x`` of shape
        ``(nodes, features)``, integer ``edges`` of shape ``(2, edges)``, sources above
        targets, and perhaps ``weights`` of shape ``(edges,)``; or a list of ``x`` of
        shape ``(batch, nodes, features)`` and a floating-point ``adjacency`` of shape
        ``(batch, nodes, nodes)``, both with or without the batch axis.

    Output shape:
        That of ``x`` with ``units`` channels.

    Raises:
        ValueError: If ``units < 1``, ``graph`` is not a plan, ``x`` does not have as
            many nodes as the graph, a shape or dtype is none of the above, or NumPy
            edges or weights are what :class:`~dlcompanion.graphs.GraphPlan` refuses.
            Tensors of edges are not checked for their values: TensorFlow and PyTorch
            refuse a node that is not there by themselves, except under XLA, which
            like JAX loses its messages or makes them NaN. A negative weight
            that makes a degree negative gives NaN.

    Example:
        >>> plan = GraphPlan([[0, 1, 1, 2], [1, 0, 2, 1]], num_nodes=4)
        >>> layer = GraphConvolution(units=8, graph=plan, activation="relu")
        >>> tuple(layer(keras.ops.ones((1, 4, 5))).shape)
        (1, 4, 8)

    References:
        Kipf and Welling, *Semi-Supervised Classification with Graph Convolutional
        Networks*, 2017, eq. 2. https://arxiv.org/abs/1609.02907. As in the paper, a
        loop that the edges have already is kept and another one added; PyTorch
        Geometric leaves it at the one.
    """

    def __init__(
        self,
        units,
        graph=None,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_count("units", units)
        if isinstance(graph, dict):
            graph = keras.saving.deserialize_keras_object(graph)
        if graph is not None and not isinstance(graph, GraphPlan):
            raise ValueError(
                "graph must be a GraphPlan, or None if edges come with the input. "
                f"Received: graph={graph!r}"
            )
        self.units = units
        self.graph = graph
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.dense = keras.layers.Dense(
            units,
            use_bias=False,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=kernel_regularizer,
            kernel_constraint=kernel_constraint,
            dtype=self.dtype_policy,
            name="dense",
        )

    def build(self, input_shape):
        shape = input_shape if self.graph else input_shape[0]
        if shape[-1] is None:
            raise ValueError(
                "x must have a known number of features. "
                f"Received: input_shape={input_shape}"
            )
        self.dense.build(shape)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        else:
            self.bias = None

    def __call__(self, inputs, *args, **kwargs):
        several = isinstance(inputs, list | tuple)
        if (len(inputs) if several else 1) not in (
            (2, 3) if self.graph is None else (1,)
        ):
            raise ValueError(
                "The layer needs [x, edges], [x, edges, weights] or [x, adjacency]; "
                "with a graph of its own, x alone. "
                f"Received: graph={self.graph} and inputs={inputs}"
            )
        if several and len(inputs[0].shape) == 2:  # values are checked in NumPy arrays
            x, edges, *weights = inputs
            if isinstance(edges, np.ndarray) and edges.dtype.kind in "iu":
                weights = [w for w in weights if isinstance(w, np.ndarray)]
                check_edges(edges, x.shape[0], *weights)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs):
        x, mix = self._graph_of(inputs)
        if x.shape[-1] <= self.units:
            y = self.dense(mix(x))
        else:
            y = mix(self.dense(x))
        if self.bias is not None:
            y = y + self.bias
        return self.activation(y)

    def _graph_of(self, inputs):
        """The signal ``x``, and the function that mixes it over its graph."""
        if self.graph is not None:
            _check_signal(inputs, self.graph)
            return inputs, lambda h: _mix_by_plan(h, self.graph)
        x, *structure = inputs
        if _is_integer(structure[0]):
            _check_edge_list(x, *structure)
            return x, lambda h: _mix_by_edges(h, *structure)
        _check_adjacency(x, *structure)
        return x, lambda h: _mix_by_adjacency(h, *structure)

    def compute_output_shape(self, input_shape):
        shape = input_shape if self.graph else input_shape[0]
        return (*shape[:-1], self.units)

    def get_config(self):
        dense = self.dense.get_config()
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "units": self.units,
            "graph": None if self.graph is None else serialize(self.graph),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": dense["kernel_initializer"],
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": dense["kernel_regularizer"],
            "bias_regularizer": serialize(self.bias_regularizer),
            "kernel_constraint": dense["kernel_constraint"],
            "bias_constraint": serialize(self.bias_constraint),
        }


def _mix_by_plan(h, graph):
    with_nodes = ops.transpose(backend.widen(h), (1, 0, 2))  # (nodes, batch, channels)
    mixed = graph.normalized @ with_nodes
    return ops.cast(ops.transpose(mixed, (1, 0, 2)), h.dtype)


def _mix_by_edges(h, edges, weights=None):
    sources, targets = edges[0], edges[1]
    num_nodes = ops.shape(h)[0]
    dtype = backend.at_least_float32(h.dtype)
    if weights is None:
        weights = ops.ones_like(targets, dtype=dtype)
    weights = ops.cast(weights, dtype)
    degrees = 1 + backend.segment_sum(weights, targets, num_nodes)

    def add_neighbors(z):  # (nodes, channels)
        messages = ops.take(z, sources, axis=0) * weights[:, None]
        return backend.segment_sum(messages, targets, num_nodes)

    return _normalize(h, degrees, add_neighbors)


def _mix_by_adjacency(h, adjacency):
    adjacency = ops.cast(adjacency, backend.at_least_float32(h.dtype))
    degrees = 1 + ops.sum(adjacency, axis=-1)
    return _normalize(h, degrees, lambda z: ops.matmul(adjacency, z))


def _normalize(h, degrees, add_neighbors):
    scale = ops.rsqrt(degrees)[..., None]
    z = scale * backend.widen(h)
    return ops.cast(scale * (add_neighbors(z) + z), h.dtype)


def _is_integer(x):
    return keras.backend.is_int_dtype(keras.backend.standardize_dtype(x.dtype))


def _check_signal(x, graph):
    if len(x.shape) != 3:
        raise ValueError(
            "With a graph of its own the layer needs x of shape (batch, nodes, "
            "features); a single graph is a batch of one, x[None]. "
            f"Received: x.shape={tuple(x.shape)}"
        )
    if x.shape[1] != graph.num_nodes:
        raise ValueError(
            "x must have one row for each node of the graph. "
            f"Received: x.shape={tuple(x.shape)}, graph={graph}"
        )


def _check_edge_list(x, edges, weights=None):
    if len(x.shape) != 2 or len(edges.shape) != 2 or edges.shape[0] not in (2, None):
        raise ValueError(
            "An edge list needs x of shape (nodes, features) and edges of shape "
            "(2, edges), sources above targets. "
            f"Received: x.shape={tuple(x.shape)}, edges.shape={tuple(edges.shape)}"
        )
    if weights is None:
        return
    if len(weights.shape) != 1 or len({weights.shape[0], edges.shape[1]} - {None}) > 1:
        raise ValueError(
            f"weights must hold one number an edge. Received: "
            f"weights.shape={tuple(weights.shape)}, edges.shape={tuple(edges.shape)}"
        )


def _check_adjacency(x, adjacency, *weights):
    rank = len(x.shape)
    sizes = {*adjacency.shape[-2:], *x.shape[-2:-1]} - {None}
    if weights or rank not in (2, 3) or len(adjacency.shape) != rank or len(sizes) > 1:
        raise ValueError(
            "Floats beside x are a dense adjacency of shape (nodes, nodes) "
            "or (batch, nodes, nodes), alone and with as many nodes as x (edges are "
            f"integers). Received: x.shape={tuple(x.shape)}, "
            f"adjacency.shape={tuple(adjacency.shape)}, {len(weights)} weights"
        )
