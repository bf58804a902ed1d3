"""Glow's matrix by its factors from normflows and nflows, and normflows's squeeze.

normflows counts from noise to data, so what it calls inverse is ours forwards:
Invertible1x1Conv with LU factors on (2, 4, 3, 3) pictures, and Squeeze on (2, 2, 4, 4).
nflows: LULinear of 4 variables, y = L U x + b, with the parameters as they are. Every
parameter is seeded noise; gradients are those of sum(y * cos(arange(size))).
Pictures are stored with the channels last. Writes glow.npz beside this file:

in/<layer>/x, out/<layer>/y and log_det, w/<layer>/<parameter>, g/<layer>/<name>
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from nflows.transforms.lu import LULinear
from normflows.flows import Invertible1x1Conv
from normflows.flows.reshape import Squeeze

torch.manual_seed(0)
generator = torch.Generator().manual_seed(9)


def noise(*shape):
    return torch.randn(shape, generator=generator)


def record(name, module, x, call):
    with torch.no_grad():
        for _, parameter in sorted(module.named_parameters()):
            parameter.copy_(0.4 * noise(*parameter.shape))
    x = x.clone().requires_grad_()
    y, log_det = call(module, x)
    sources = {"x": x, **dict(module.named_parameters())}
    pictures = y.dim() == 4
    flat = (y.permute(0, 2, 3, 1) if pictures else y).reshape(-1)  # channels last
    total = (flat * torch.cos(torch.arange(len(flat), dtype=y.dtype))).sum()
    found = torch.autograd.grad(total, list(sources.values()), allow_unused=True)
    gradients = dict(zip(sources, found, strict=True))
    if pictures:
        x, y = x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1)
        gradients["x"] = gradients["x"].permute(0, 2, 3, 1)
    arrays = {f"in/{name}/x": x, f"out/{name}/y": y}
    arrays[f"out/{name}/log_det"] = torch.as_tensor(log_det)
    arrays |= {f"w/{name}/{k}": v for k, v in module.state_dict().items()}
    return arrays | {f"g/{name}/{k}": v for k, v in gradients.items() if v is not None}


arrays = record(
    "convolution",
    Invertible1x1Conv(4, use_lu=True),
    noise(2, 4, 3, 3),
    lambda module, x: module.inverse(x),
)
arrays |= record("squeeze", Squeeze(), noise(2, 2, 4, 4), lambda m, x: m.inverse(x))
linear = LULinear(4)
arrays |= record("linear", linear, noise(6, 4), lambda module, x: module(x))
lower, upper = linear._create_lower_upper()
arrays |= {"w/linear/lower": lower, "w/linear/upper": upper}

names = ("nflows", "normflows", "torch")
np.savez_compressed(
    Path(__file__).with_name("glow.npz"),
    meta=json.dumps({name: metadata.version(name) for name in names}),
    **{name: value.detach().numpy() for name, value in arrays.items()},
)
