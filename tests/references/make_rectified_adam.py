"""Rectified Adam by torch.optim and by optax, 50 steps each.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes rectified_adam.npz beside this file:

in/p0, in/p1    first parameters, (4, 3) and (3,)
in/g0, in/g1    50 gradients of each
out/<case>/0,1  parameters after every step: torch with beta_2 = 0.999 and 0.9, and
                optax with the threshold 4 of the paper, in float64: in float32 it
                takes the small difference of two large numbers for rho
"""

import json
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

STEPS, RATE = 50, 0.05
jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]


def with_torch(**arguments):
    params = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    optimizer, path = torch.optim.RAdam(params, lr=RATE, **arguments), []
    for step in range(STEPS):
        for p, g in zip(params, gradients, strict=True):
            p.grad = torch.tensor(g[step])
        optimizer.step()
        path.append([p.detach().numpy().copy() for p in params])
    return path


def with_optax(**arguments):
    optimizer = optax.radam(RATE, **arguments)
    params = [jnp.array(p, float) for p in start]
    state, path = optimizer.init(params), []
    for step in range(STEPS):
        grads = [jnp.array(g[step], float) for g in gradients]
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.array(p, "float32") for p in params])
    return path


cases = {
    "torch": with_torch(),
    "torch_short": with_torch(betas=(0.8, 0.9)),
    "optax_paper": with_optax(threshold=4.0),
}
arrays = {f"in/p{i}": p for i, p in enumerate(start)}
arrays |= {f"in/g{i}": g for i, g in enumerate(gradients)}
for case, path in cases.items():
    for i in range(len(start)):
        arrays[f"out/{case}/{i}"] = np.stack([step[i] for step in path])
meta = {
    "rate": RATE,
    "epsilon": 1e-8,
    "libraries": {name: version(name) for name in ("optax", "torch")},
}
np.savez_compressed(
    Path(__file__).with_name("rectified_adam.npz"), meta=json.dumps(meta), **arrays
)
