"""Centralized gradients by optax, before Adam and SGD: 50 steps each.

optax takes the mean over all axes but the first: its arrays have the outputs there.
The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes gradient_centralization.npz beside this file, in Keras's
layout, outputs last:

in/p0, in/p1, in/p2    first parameters, (3, 4), (2, 3, 5) and (4,)
in/g0, in/g1, in/g2    50 gradients of each
out/<case>/0,1,2       parameters after every step
"""

import jax.numpy as jnp
import numpy as np
import optax
from trajectories import with_optax, write

STEPS, RATE = 50, 0.05

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((3, 4), (2, 3, 5), (4,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]


def outputs_first(x):
    return jnp.array(np.moveaxis(x, -1, 0))


def outputs_last(x):
    return np.moveaxis(np.array(x), 0, -1)


def walk(inner):
    optimizer = optax.chain(optax.centralize(), inner)
    return with_optax(optimizer, start, gradients, outputs_first, outputs_last)


cases = {"adam": walk(optax.adam(RATE)), "sgd": walk(optax.sgd(RATE, momentum=0.9))}
write(__file__, ["optax"], start, gradients, cases, rate=RATE)
