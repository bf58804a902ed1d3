"""Adaptive gradient clipping by optax, before Adam and SGD: 50 steps each.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes adaptive_gradient_clipping.npz beside this file:

in/p0, in/p1, in/p2    first parameters, (4, 3), (2, 2, 3, 5) and (3,)
in/g0, in/g1, in/g2    50 gradients of each, of lengths from 0.01 to 10
out/<case>/0,1,2       parameters after every step
"""

import numpy as np
import optax
from trajectories import with_optax, write

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
    return with_optax(optimizer, start, gradients)


cases = {
    # libraries add epsilon at different places, which a unit near zero would show
    "adam": walk(optax.adam(RATE, eps=1e-20)),
    "sgd": walk(optax.sgd(RATE, momentum=0.9)),
}
write(__file__, ["optax"], start, gradients, cases, rate=RATE, clipping=CLIPPING)
