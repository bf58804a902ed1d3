"""n-step returns, lambda-returns, advantages and V-trace of rlax on one rollout.

Writes generalized_advantage.npz beside this file, arrays (time, environments):

in/rewards, in/ratios     of every step
in/values                 (time + 1, environments), of every state
in/terminated             true where an episode ends
out/n_step/<n>            rlax.n_step_bootstrapped_returns
out/lambda/<trace>        rlax.lambda_returns
out/gae/<trace>           rlax.truncated_generalized_advantage_estimation
out/vtrace/<trace>/<rho>/errors, advantages   rlax.vtrace_td_error_and_advantage
"""

import json
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import rlax

TIME, ENVIRONMENTS, DISCOUNT = 12, 5, 0.9

rng = np.random.default_rng(0)
shape = (TIME, ENVIRONMENTS)
rewards = rng.normal(size=shape).astype("float32")
values = rng.normal(size=(TIME + 1, ENVIRONMENTS)).astype("float32")
ratios = np.exp(rng.normal(size=shape)).astype("float32")
terminated = rng.random(shape) < 0.2
discounts = (DISCOUNT * ~terminated).astype("float32")
arrays = {
    "in/rewards": rewards,
    "in/values": values,
    "in/ratios": ratios,
    "in/terminated": terminated,
}


def each(function):
    """Apply to every environment, along the second axis."""
    return jax.vmap(function, in_axes=1, out_axes=1)


for n in (1, 3, 20):
    call = each(lambda r, d, v, n=n: rlax.n_step_bootstrapped_returns(r, d, v, n))
    arrays[f"out/n_step/{n}"] = call(rewards, discounts, values[1:])
for trace in (0.0, 0.7, 1.0):
    call = each(lambda r, d, v, t=trace: rlax.lambda_returns(r, d, v, t))
    arrays[f"out/lambda/{trace}"] = call(rewards, discounts, values[1:])
    call = each(
        lambda r, d, v, t=trace: rlax.truncated_generalized_advantage_estimation(
            r, d, t, v
        )
    )
    arrays[f"out/gae/{trace}"] = call(rewards, discounts, values)
    for largest in (1.0, 2.0):
        call = each(
            lambda v, after, r, d, w, t=trace, c=largest: (
                rlax.vtrace_td_error_and_advantage(
                    v, after, r, d, w, jnp.float32(t), c, c
                )
            )
        )
        out = call(values[:-1], values[1:], rewards, discounts, ratios)
        arrays[f"out/vtrace/{trace}/{largest}/errors"] = out.errors
        arrays[f"out/vtrace/{trace}/{largest}/advantages"] = out.pg_advantage

meta = {"discount": DISCOUNT, "rlax": version("rlax"), "jax": version("jax")}
np.savez_compressed(
    Path(__file__).with_name("generalized_advantage.npz"),
    meta=json.dumps(meta),
    **{name: np.asarray(array) for name, array in arrays.items()},
)
