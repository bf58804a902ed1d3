"""One coupling of nflows and one RealNVP of zuko, with all their gradients.

nflows: AffineCouplingTransform of four variables, of which 1 and 3 are kept; its
conditioner is a residual network, its scale sigmoid(s + 2) + 1e-3. zuko: RealNVP of
three variables in two couplings with MLPs of 8 and 8 ReLU units, its log-scale
softclipped to s / (1 + |s / log(1e-3)|); the first keeps 0 and 2, the second 1.
Every parameter is replaced by seeded noise. The gradients are those of
sum(first output * cos(arange(size))). Writes normalizing_flows.npz beside this file:

in/<library>/x                      (6, 4) and (6, 3)
w/<library>/<parameter>             torch Linear weights, of shape (out, in)
out/nflows/z, out/nflows/logdet     and out/zuko/log_prob
g/<library>/<parameter or x>        gradients
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import zuko
from nflows.nn.nets import ResidualNet
from nflows.transforms import AffineCouplingTransform


def perturb(module):
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=draw))


def record(library, module, x, call):
    perturb(module)
    x = x.clone().requires_grad_()
    outputs = call(module, x)
    first = next(iter(outputs.values()))
    cotangent = torch.cos(torch.arange(first.numel(), dtype=first.dtype))
    sources = {"x": x, **dict(module.named_parameters())}
    total = (first * cotangent.reshape(first.shape)).sum()
    gradients = torch.autograd.grad(total, list(sources.values()))
    arrays = {f"in/{library}/x": x}
    arrays |= {f"w/{library}/{k}": v for k, v in module.state_dict().items()}
    arrays |= {f"out/{library}/{k}": v for k, v in outputs.items()}
    named = zip(sources, gradients, strict=True)
    return arrays | {f"g/{library}/{k}": v for k, v in named}


points = torch.randn(6, 4, generator=torch.Generator().manual_seed(7))
coupling = AffineCouplingTransform(
    torch.tensor([1, -1, 1, -1]), lambda i, o: ResidualNet(i, o, 8, num_blocks=1)
)
flow = zuko.flows.RealNVP(3, 0, transforms=2, hidden_features=(8, 8))
arrays = record(
    "nflows",
    coupling,
    points,
    lambda m, x: dict(zip(("z", "logdet"), m(x), strict=True)),
) | record("zuko", flow, points[:, :3], lambda m, x: {"log_prob": m().log_prob(x)})
meta = {
    "nflows": metadata.version("nflows"),
    "zuko": metadata.version("zuko"),
    "torch": torch.__version__,
}
np.savez_compressed(
    Path(__file__).with_name("normalizing_flows.npz"),
    meta=json.dumps(meta),
    **{name: value.detach().numpy() for name, value in arrays.items()},
)
