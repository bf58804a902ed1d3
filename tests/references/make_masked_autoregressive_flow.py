"""One masked autoregressive flow of zuko, both directions, with its gradients.

zuko: MAF of three variables given two, in two transforms, the second in backward
order, with masked MLPs of 8 and 7 ReLU units. A transform is z = x exp(s) + t with the
log-scale softclipped to s / (1 + |s / log(1e-3)|). Every parameter is replaced by
seeded noise; the masks are zuko's. The gradients are those of
sum(log_prob * cos(arange(6))). Writes masked_autoregressive_flow.npz beside this file:

in/x, in/z (6, 3)              data, and noise to be carried to data
in/context (6, 2)
w/<parameter>                  torch Linear weights, of shape (out, in), not masked
w/<layer>.mask                 boolean, of the same shape
out/log_prob (6,), out/noise (6, 3), out/data (6, 3)
g/<parameter, x or context>    gradients
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import zuko

flow = zuko.flows.MAF(3, 2, transforms=2, hidden_features=(8, 7))
draw = torch.Generator().manual_seed(0)
with torch.no_grad():
    for _, parameter in sorted(flow.named_parameters()):
        parameter.copy_(0.4 * torch.randn(parameter.shape, generator=draw))
x, z = (torch.randn(6, 3, generator=draw) for _ in range(2))
context = torch.randn(6, 2, generator=draw)
sources = {"x": x.requires_grad_(), "context": context.requires_grad_()}
sources |= dict(flow.named_parameters())
distribution = flow(context)
log_prob = distribution.log_prob(x)
total = (log_prob * torch.cos(torch.arange(6.0))).sum()
gradients = torch.autograd.grad(total, list(sources.values()))
arrays = {"in/x": x, "in/z": z, "in/context": context}
arrays |= {f"w/{name}": value for name, value in flow.state_dict().items()}
arrays |= {
    "out/log_prob": log_prob,
    "out/noise": distribution.transform(x),
    "out/data": distribution.transform.inv(z),
}
named = zip(sources, gradients, strict=True)
arrays |= {f"g/{name}": gradient for name, gradient in named}
meta = {"zuko": metadata.version("zuko"), "torch": torch.__version__}
np.savez_compressed(
    Path(__file__).with_name("masked_autoregressive_flow.npz"),
    meta=json.dumps(meta),
    **{name: value.detach().numpy() for name, value in arrays.items()},
)
