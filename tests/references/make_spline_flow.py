"""The rational-quadratic spline of nflows, there and back, with its gradients.

Once with linear tails on [-3, 3] (5 bins, 4 inner slopes, points on both sides of the
border) and once on the unit interval with all 6 slopes; both with the least width,
height and slope of 1e-3. Gradients are those of sum(y * cos(arange(size))) by the
points and the raw parameters. Writes spline_flow.npz beside this file:

in/<kind>/x, w, h, d     (6, 4) points and raw parameters (6, 4, ...)
out/<kind>/y, log_slope  the spline; out/<kind>/x and back_log_slope its inverse at x
g/<kind>/<name>          gradients of y, g/<kind>/back_<name> of the inverse
"""

import json
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from nflows.transforms.splines.rational_quadratic import (
    rational_quadratic_spline,
    unconstrained_rational_quadratic_spline,
)

generator = torch.Generator().manual_seed(8)


def noise(*shape):
    return torch.randn(shape, generator=generator)


def unit(x, w, h, d, inverse=False):
    return rational_quadratic_spline(x, w, h, d, inverse)


def tails(x, w, h, d, inverse=False):
    return unconstrained_rational_quadratic_spline(
        x, w, h, d, inverse, tails="linear", tail_bound=3.0
    )


arrays = {}
for kind, spline, points, slopes in (
    ("tails", tails, 2 * noise(6, 4), 4),
    ("unit", unit, torch.sigmoid(noise(6, 4)), 6),
):
    inputs = {"x": points, "w": noise(6, 4, 5), "h": noise(6, 4, 5)}
    inputs["d"] = 1.5 * noise(6, 4, slopes)
    arrays |= {f"in/{kind}/{name}": value for name, value in inputs.items()}
    for inverse, names, prefix in (
        (False, ("y", "log_slope"), ""),
        (True, ("x", "back_log_slope"), "back_"),
    ):
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        values = spline(**leaves, inverse=inverse)
        cotangent = torch.cos(torch.arange(values[0].numel(), dtype=torch.float32))
        total = (values[0] * cotangent.reshape(values[0].shape)).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
        arrays |= {f"out/{kind}/{n}": v for n, v in zip(names, values, strict=True)}
        named = zip(leaves, gradients, strict=True)
        arrays |= {f"g/{kind}/{prefix}{name}": g for name, g in named}

meta = {"nflows": metadata.version("nflows"), "torch": torch.__version__}
np.savez_compressed(
    Path(__file__).with_name("spline_flow.npz"),
    meta=json.dumps(meta),
    **{name: value.detach().numpy() for name, value in arrays.items()},
)
