"""Chapter graphs: layers that pass messages along edges."""

from dlcompanion.graphs.graph_convolution import GraphConvolution
from dlcompanion.graphs.message_passing.graph_plan import GraphPlan, join_graphs

__all__ = [
    "GraphConvolution",
    "GraphPlan",
    "join_graphs",
]
