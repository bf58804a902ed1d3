"""Adaptive gradient clipping by optax, before Adam and SGD: 50 steps each.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes adaptive_gradient_clipping.npz beside this file:

in/p0, in/p1, in/p2    first parameters, (4, 3), (2, 2, 3, 5) and (3,)
in/g0, in/g1, in/g2    50 gradients of each, of lengths from 0.01 to 10
out/<case>/0,1,2       parameters after every step
"""

import json
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax

STEPS, RATE, CLIPPING = 50, 0.05, 0.1

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (2, 2, 3, 5), (3,))]
start[0][:, 0] = 0.0  # a unit that begins at zero
sizes = np.geomspace(0.01, 10, STEPS)
gradients = [
    np.stack([size * rng.normal(size=p.shape) for size in sizes]).astype("float32")
    for p in start
]


def walk(inner):
    optimizer = optax.chain(optax.adaptive_grad_clip(CLIPPING), inner)
    params = [jnp.array(p) for p in start]
    state, path = optimizer.init(params), []
    for step in range(STEPS):
        grads = [jnp.array(g[step]) for g in gradients]
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.array(p) for p in params])
    return path


cases = {
    # libraries add epsilon at different places, which a unit near zero would show
    "adam": walk(optax.adam(RATE, eps=1e-20)),
    "sgd": walk(optax.sgd(RATE, momentum=0.9)),
}
arrays = {f"in/p{i}": p for i, p in enumerate(start)}
arrays |= {f"in/g{i}": g for i, g in enumerate(gradients)}
for case, path in cases.items():
    for i in range(len(start)):
        arrays[f"out/{case}/{i}"] = np.stack([step[i] for step in path])
meta = {
    "rate": RATE,
    "clipping": CLIPPING,
    "libraries": {"optax": version("optax")},
}
np.savez_compressed(
    Path(__file__).with_name("adaptive_gradient_clipping.npz"),
    meta=json.dumps(meta),
    **arrays,
)
