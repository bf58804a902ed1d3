"""Graph convolution by torch_geometric's GCNConv, weighted and not, with gradients.

Twelve nodes, of which node 11 has no incoming edge. The gradients are those of
sum(out * cos(arange(out.size))). Writes graph_convolution.npz beside this file:

in/x, in/edge_index, in/edge_weight     edge_index: row 0 source, row 1 target
w/lin.weight, w/bias                    lin.weight of shape (out, in)
out/weighted, out/unweighted            outputs with and without edge_weight
g/<case>/<name>                         gradients by x, lin.weight, bias, edge_weight
"""

import json
from pathlib import Path

import numpy as np
import torch
import torch_geometric
from torch_geometric.nn import GCNConv

NODES, EDGES, FEATURES, UNITS = 12, 40, 5, 6

draw = torch.Generator().manual_seed(2)
edges = torch.randint(0, NODES, (2, EDGES), generator=draw)
edges = torch.unique(edges[:, edges[0] != edges[1]], dim=1)
edges = edges[:, edges[1] != NODES - 1]
layer = GCNConv(FEATURES, UNITS)
with torch.no_grad():
    for parameter in layer.parameters():
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=draw))
weight = torch.rand(edges.shape[1], generator=draw) + 0.1
x = torch.randn(NODES, FEATURES, generator=draw)

arrays = {"in/x": x, "in/edge_index": edges, "in/edge_weight": weight}
arrays |= {f"w/{name}": value for name, value in layer.state_dict().items()}
for case, with_weight in (("weighted", True), ("unweighted", False)):
    sources = {"x": x.clone().requires_grad_(), **dict(layer.named_parameters())}
    if with_weight:
        sources["edge_weight"] = weight.clone().requires_grad_()
    out = layer(sources["x"], edges, sources.get("edge_weight"))
    cotangent = torch.cos(torch.arange(out.numel(), dtype=out.dtype))
    total = (out * cotangent.reshape(out.shape)).sum()
    gradients = torch.autograd.grad(total, list(sources.values()))
    arrays[f"out/{case}"] = out
    names = zip(sources, gradients, strict=True)
    arrays |= {f"g/{case}/{name}": gradient for name, gradient in names}

meta = {
    "class": "torch_geometric.nn.GCNConv",
    "torch_geometric": torch_geometric.__version__,
    "torch": torch.__version__,
}
np.savez_compressed(
    Path(__file__).with_name("graph_convolution.npz"),
    meta=json.dumps(meta),
    **{name: value.detach().numpy() for name, value in arrays.items()},
)
