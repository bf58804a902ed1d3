"""One planar and one radial layer of normflows, with their gradients.

normflows: Planar (tanh) and Radial of four variables, with seeded parameters. Radial
has alpha = |a| where ours has softplus(a), and the same beta = softplus(c) - alpha.
The gradients are those of sum(z * cos(arange(24)).reshape(6, 4)) + sum(logdet). Writes
planar_flow.npz beside this file:

in/x (6, 4)
w/planar/u, w/planar/w (1, 4), w/planar/b (1,)
w/radial/z_0 (1, 4), w/radial/alpha, w/radial/beta (1,)
out/<layer>/z (6, 4), out/<layer>/logdet (6,)
g/<layer>/<parameter or x>
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from normflows.flows import Planar, Radial

draw = torch.Generator().manual_seed(0)
points = torch.randn(6, 4, generator=draw)
arrays = {"in/x": points}
for name, layer in {"planar": Planar((4,)), "radial": Radial((4,))}.items():
    with torch.no_grad():
        for _, parameter in sorted(layer.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    x = points.clone().requires_grad_()
    z, log_det = layer(x)
    cotangent = torch.cos(torch.arange(24.0)).reshape(6, 4)
    sources = {"x": x, **dict(layer.named_parameters())}
    total = (z * cotangent).sum() + log_det.sum()
    gradients = torch.autograd.grad(total, list(sources.values()))
    arrays |= {f"w/{name}/{k}": v for k, v in layer.named_parameters()}
    arrays |= {f"out/{name}/z": z, f"out/{name}/logdet": log_det}
    named = zip(sources, gradients, strict=True)
    arrays |= {f"g/{name}/{k}": v for k, v in named}
meta = {"normflows": metadata.version("normflows"), "torch": torch.__version__}
np.savez_compressed(
    Path(__file__).with_name("planar_flow.npz"),
    meta=json.dumps(meta),
    **{name: value.detach().numpy() for name, value in arrays.items()},
)
