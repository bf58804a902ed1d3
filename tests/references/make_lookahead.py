"""Lookahead around Adam and SGD by pytorch_optimizer and by optax: 50 steps each.

The gradients are fixed, independent of the parameters, so that a trajectory
tests the update rule alone. Writes lookahead.npz beside this file:

in/p0, in/p1    first parameters, (4, 3) and (3,)
in/g0, in/g1    50 gradients of each
out/<case>/0,1  parameters after every step
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytorch_optimizer
import torch
from trajectories import with_torch, write

STEPS, RATE, K, ALPHA = 50, 0.05, 5, 0.5

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]


def by_torch(make_inner):
    def make(params):
        return pytorch_optimizer.Lookahead(make_inner(params), k=K, alpha=ALPHA)

    return with_torch(make, start, gradients)


def by_optax(inner):
    optimizer = optax.lookahead(inner, sync_period=K, slow_step_size=ALPHA)
    params = optax.LookaheadParams.init_synced([jnp.array(p) for p in start])
    state, path = optimizer.init(params), []
    for step in range(STEPS):
        grads = [jnp.array(g[step]) for g in gradients]
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        path.append([np.array(p) for p in params.fast])
    return path


cases = {
    "torch_adam": by_torch(lambda p: torch.optim.Adam(p, lr=RATE)),
    "torch_sgd": by_torch(lambda p: torch.optim.SGD(p, lr=RATE)),
    "optax_adam": by_optax(optax.adam(RATE)),
    "optax_momentum": by_optax(optax.sgd(RATE, momentum=0.9)),
}
libraries = ["optax", "pytorch_optimizer", "torch"]
meta = {"rate": RATE, "k": K, "alpha": ALPHA, "epsilon": 1e-8}
write(__file__, libraries, start, gradients, cases, **meta)
