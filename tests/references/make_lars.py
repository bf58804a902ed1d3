"""LARS by optax, 50 steps: plain, with decay, and with masks for the bias.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes lars.npz beside this file:

in/p0, in/p1, in/p2    first parameters, (4, 3), (2, 3, 5) and (3,), the last a bias
in/g0, in/g1, in/g2    50 gradients of each
out/<case>/0,1,2       parameters after every step
"""

import numpy as np
import optax
from trajectories import with_optax, write

STEPS, RATE, TRUST = 50, 0.5, 0.02

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (2, 3, 5), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]
kernels = [True, True, False]
second = [False, True, False]


def walk(**arguments):
    optimizer = optax.lars(RATE, trust_coefficient=TRUST, **arguments)
    return with_optax(optimizer, start, gradients)


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
write(__file__, ["optax"], start, gradients, cases, rate=RATE, trust=TRUST)
