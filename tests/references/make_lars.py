"""LARS by optax, 50 steps: plain, with decay, and with masks for the bias.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes lars.npz beside this file:

in/p0, in/p1, in/p2    first parameters, (4, 3), (2, 3, 5) and (3,), the last a bias
in/g0, in/g1, in/g2    50 gradients of each
out/<case>/0,1,2       parameters after every step
"""

import json
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

STEPS, RATE, TRUST = 50, 0.5, 0.02

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (2, 3, 5), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]
kernels = [True, True, False]
second = [False, True, False]


def walk(**arguments):
    optimizer = optax.lars(RATE, trust_coefficient=TRUST, **arguments)
    params = [jnp.array(p) for p in start]
    state, path = optimizer.init(params), []
    for step in range(STEPS):
        grads = [jnp.array(g[step]) for g in gradients]
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.array(p) for p in params])
    return path


cases = {
    "plain": walk(trust_ratio_mask=kernels),
    "decay": walk(
        trust_ratio_mask=kernels,
        weight_decay=0.1,
        weight_decay_mask=kernels,
        momentum=0.5,
        eps=0.01,
    ),
    "excluded": walk(
        trust_ratio_mask=second, weight_decay=0.1, weight_decay_mask=second
    ),
}
arrays = {f"in/p{i}": p for i, p in enumerate(start)}
arrays |= {f"in/g{i}": g for i, g in enumerate(gradients)}
for case, path in cases.items():
    for i in range(len(start)):
        arrays[f"out/{case}/{i}"] = np.stack([step[i] for step in path])
meta = {"rate": RATE, "trust": TRUST, "libraries": {"optax": version("optax")}}
np.savez_compressed(
    Path(__file__).with_name("lars.npz"), meta=json.dumps(meta), **arrays
)
