"""Chapter graphs: layers that pass messages along edges."""

from dlcompanion.graphs.graph_convolution import GraphConvolution
from dlcompanion.graphs.graph_plan import GraphPlan, JoinedGraphs, join_graphs

__all__ = ["GraphConvolution", "GraphPlan", "JoinedGraphs", "join_graphs"]
