"""Ranger by pytorch_optimizer, 50 steps.

With ``degenerated_to_sgd=True``: without it the steps before rectification go up the
gradient. Its arrays have the outputs first. The gradients are fixed, independent of the
parameters, so that a trajectory tests the update rule alone. Writes ranger.npz beside
this file, in Keras's layout, outputs last:

in/p0, in/p1    first parameters, (4, 3) and (3,)
in/g0, in/g1    50 gradients of each
out/<case>/0,1  parameters after every step
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytorch_optimizer
import torch

STEPS, RATE = 50, 0.05

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]


def walk(**arguments):
    params = [torch.nn.Parameter(torch.tensor(p.T.copy())) for p in start]
    optimizer = pytorch_optimizer.Ranger(
        params, lr=RATE, degenerated_to_sgd=True, **arguments
    )
    path = []
    for step in range(STEPS):
        for p, g in zip(params, gradients, strict=True):
            p.grad = torch.tensor(g[step].T.copy())
        optimizer.step()
        path.append([p.detach().numpy().T.copy() for p in params])
    return path


cases = {"ranger": walk()}
arrays = {f"in/p{i}": p for i, p in enumerate(start)}
arrays |= {f"in/g{i}": g for i, g in enumerate(gradients)}
for case, path in cases.items():
    for i in range(len(start)):
        arrays[f"out/{case}/{i}"] = np.stack([step[i] for step in path])
meta = {
    "rate": RATE,
    "libraries": {name: version(name) for name in ("pytorch_optimizer", "torch")},
}
np.savez_compressed(
    Path(__file__).with_name("ranger.npz"), meta=json.dumps(meta), **arrays
)
