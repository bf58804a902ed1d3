"""Rectified Adam by torch.optim and by optax, 50 steps each.

The gradients are fixed, independent of the parameters, so that a trajectory tests the
update rule alone. Writes rectified_adam.npz beside this file:

in/p0, in/p1    first parameters, (4, 3) and (3,)
in/g0, in/g1    50 gradients of each
out/<case>/0,1  parameters after every step: torch with beta_2 = 0.999 and 0.9, and
                optax with the threshold 4 of the paper, in float64: in float32 it
                takes the small difference of two large numbers for rho
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from trajectories import with_optax, with_torch, write

STEPS, RATE = 50, 0.05
jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]


def by_torch(**arguments):
    def make(params):
        return torch.optim.RAdam(params, lr=RATE, **arguments)

    return with_torch(make, start, gradients)


def double(x):
    return jnp.array(x, float)


def single(x):
    return np.array(x, "float32")


paper = optax.radam(RATE, threshold=4.0)
cases = {
    "torch": by_torch(),
    "torch_short": by_torch(betas=(0.8, 0.9)),
    "optax_paper": with_optax(paper, start, gradients, double, single),
}
libraries = ["optax", "torch"]
write(__file__, libraries, start, gradients, cases, rate=RATE, epsilon=1e-8)
