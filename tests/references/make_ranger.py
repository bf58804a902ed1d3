"""Ranger by pytorch_optimizer, 50 steps.

With ``degenerated_to_sgd=True``: without it the steps before rectification go up the
gradient. Its arrays have the outputs first. The gradients are fixed, independent of the
parameters, so that a trajectory tests the update rule alone. Writes ranger.npz beside
this file, in Keras's layout, outputs last:

in/p0, in/p1    first parameters, (4, 3) and (3,)
in/g0, in/g1    50 gradients of each
out/<case>/0,1  parameters after every step
"""

import numpy as np
import pytorch_optimizer
from trajectories import with_torch, write

STEPS, RATE = 50, 0.05

rng = np.random.default_rng(0)
start = [rng.normal(size=s).astype("float32") for s in ((4, 3), (3,))]
gradients = [rng.normal(size=(STEPS, *p.shape)).astype("float32") for p in start]


def ranger(params):
    return pytorch_optimizer.Ranger(params, lr=RATE, degenerated_to_sgd=True)


cases = {
    "ranger": with_torch(ranger, start, gradients, lambda x: np.array(x.T)),
}
write(__file__, ["pytorch_optimizer", "torch"], start, gradients, cases, rate=RATE)
