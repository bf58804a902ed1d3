"""Projections of distributions onto a grid by rlax, and its categorical TD targets.

Writes categorical_returns.npz beside this file:

in/<grid>/support         the grid, even or uneven
in/values, probabilities  (batch, atoms), some values outside the grid
out/<grid>/projected      rlax.categorical_l2_project
in/rewards, discounts, actions, logits, following, choice   of a batch of steps
out/cross_entropy         rlax.categorical_q_learning, one an example
out/double                rlax.categorical_double_q_learning
"""

import json
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import rlax

BATCH, ATOMS, ACTIONS = 16, 7, 3

rng = np.random.default_rng(0)
values = (4 * rng.normal(size=(BATCH, ATOMS))).astype("float32")
values[0, :3] = [-2.0, 0.0, 3.0]  # on the grid
probabilities = rng.dirichlet(np.ones(ATOMS), size=BATCH).astype("float32")
arrays = {"in/values": values, "in/probabilities": probabilities}
grids = {
    "even": np.linspace(-3, 3, ATOMS),
    "uneven": np.array([-4.0, -2.0, -0.5, 0.0, 1.0, 3.0, 6.0]),
}
for name, grid in grids.items():
    grid = grid.astype("float32")
    project = jax.vmap(lambda z, p, g=grid: rlax.categorical_l2_project(z, p, g))
    arrays[f"in/{name}/support"] = grid
    arrays[f"out/{name}/projected"] = project(values, probabilities)

grid = arrays["in/even/support"]
logits, following, choice = rng.normal(size=(3, BATCH, ACTIONS, ATOMS)).astype(
    "float32"
)
rewards = rng.normal(size=BATCH).astype("float32")
discounts = (0.9 * (rng.random(BATCH) < 0.7)).astype("float32")
actions = rng.integers(0, ACTIONS, BATCH).astype("int32")
arrays |= {
    "in/rewards": rewards,
    "in/discounts": discounts,
    "in/actions": actions,
    "in/logits": logits,
    "in/following": following,
    "in/choice": choice,
}


def single(now, action, reward, discount, after):
    return rlax.categorical_q_learning(grid, now, action, reward, discount, grid, after)


def double(now, action, reward, discount, after, chosen):
    q = (jax.nn.softmax(chosen) * grid).sum(-1)
    return rlax.categorical_double_q_learning(
        grid, now, action, reward, discount, grid, after, q
    )


steps = (logits, actions, rewards, discounts, following)
arrays["out/cross_entropy"] = jax.vmap(single)(*steps)
arrays["out/double"] = jax.vmap(double)(*steps, choice)

meta = {"rlax": version("rlax"), "jax": version("jax")}
np.savez_compressed(
    Path(__file__).with_name("categorical_returns.npz"),
    meta=json.dumps(meta),
    **{name: np.asarray(array) for name, array in arrays.items()},
)
