r"""
Reparameterization trick: the slope of the cost is worth ten samples of its value
=================================================================================

To learn a distribution one needs the derivative of a mean with respect to the
distribution's parameters. If the cost can be differentiated at the sample, the sample
is written as a function of the parameters and of noise, and the chain rule does the
rest: the reparameterization (reparameterisation) trick, or pathwise gradient,
:func:`~dlcompanion.generative.pathwise_gradient`. Use it for normal and other
continuous distributions. For discrete samples, relaxations such as
:class:`~dlcompanion.generative.GumbelSoftmax` (the concrete distribution) and
:class:`~dlcompanion.generative.StraightThroughBernoulli` make up a slope at the price
of a bias. This page measures variance and bias where the exact gradient is known.

In your own model
-----------------

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.generative import GumbelSoftmax

   x = np.random.default_rng(0).normal(size=(256, 20)).astype("float32")
   choice = GumbelSoftmax(temperature=0.5)  # hard=True for one-hot vectors
   model = keras.Sequential([keras.layers.Dense(8), choice, keras.layers.Dense(20)])
   model.compile("adam", "mse")
   model.fit(x, x, epochs=2, verbose=0)

Prerequisites: :doc:`/gallery/generative/plot_score_function`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_control_variates`.
"""

# %%
# The idea
# --------
#
# There are three ways to move a derivative into an expectation. With
# :math:`x = g_\theta(\varepsilon)`,
#
# .. math::
#
#    \nabla_\theta\, \mathbb E_{p_\theta}[f(x)]
#    = \underbrace{\mathbb E\bigl[f(x)\, \nabla_\theta \log p_\theta(x)\bigr]}_{
#    \text{score function}}
#    = \underbrace{\mathbb E_\varepsilon\bigl[\nabla_\theta f(g_\theta(\varepsilon))
#    \bigr]}_{\text{pathwise}}
#    = \underbrace{c_\theta \bigl(\mathbb E_{p^+}[f] - \mathbb E_{p^-}[f]\bigr)}_{
#    \text{measure-valued}} .
#
# The first needs the density, the second the slope of the cost, the third two densities
# with the derivative as difference. The mean is the same; the variance is not.

import itertools

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import backend, claims
from dlcompanion.claims import claim
from dlcompanion.generative import (
    GumbelSoftmax,
    StraightThroughBernoulli,
    measure_valued_gradient,
    pathwise_gradient,
    rebar_control,
    relax_gradient,
    score_function_gradient,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())
first, second, third = claims.seeds(3)


def numbers(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def summary(found, exact):
    """Length of the bias and of the standard deviation, and the largest z-score."""
    bias, sd = found.mean(axis=-2) - exact, found.std(axis=-2, ddof=1)
    z = np.abs(bias) / np.maximum(sd / np.sqrt(found.shape[-2]), 1e-12)
    return np.linalg.norm(bias, axis=-1), np.linalg.norm(sd, axis=-1), z.max(axis=-1)


# %%
# A square, whose slope is known
# ------------------------------
#
# :math:`\mathbb E[z^2]` of :math:`z \sim \mathcal N(\mu, \sigma^2)` has the gradient
# :math:`(2\mu, 2\sigma)`. Eight costs an estimate: eight samples for three of the
# estimators, two for the measure-valued one, which takes four costs a sample; 20,000
# estimates of each. The second cost is a step, :math:`\mathbb 1[z > 0]`.

mu, sigma, tries = 1.0, 1.0, 20_000
many = np.tile(np.array([mu, sigma], "float32"), (tries, 1))
noise = rng.normal(size=(8, tries)).astype("float32")


def sampler(params, noise):
    return params[..., 0] + params[..., 1] * noise


def normal(params, z):
    scaled = (z - params[..., 0]) / params[..., 1]
    return -0.5 * ops.square(scaled) - ops.log(params[..., 1])


def step(z):
    return ops.cast(z > 0, "float32") + 0.0 * z


def gaussian_estimates(cost):
    z = sampler(many, noise)
    measure = measure_valued_gradient(
        lambda z: cost(z[..., 0]), many[:, :1], many[:, 1:], samples=2, seed=first
    )
    return {
        "score function": score_function_gradient(normal, cost, many, z),
        "leave-one-out": score_function_gradient(
            normal, cost, many, z, "leave_one_out"
        ),
        "measure-valued": ops.concatenate(measure, axis=-1),
        "pathwise": pathwise_gradient(sampler, cost, many, noise),
    }


density = np.exp(-0.5 * (mu / sigma) ** 2) / np.sqrt(2 * np.pi)
exact = {
    "square": np.array([2 * mu, 2 * sigma]),
    "step": np.array([density / sigma, -mu * density / sigma**2]),
}
gaussian = {
    name: {k: numbers(v) for k, v in gaussian_estimates(cost).items()}
    for name, cost in (("square", ops.square), ("step", step))
}
table = {
    name: {k: summary(v, exact[name]) for k, v in found.items()}
    for name, found in gaussian.items()
}

figure, axes = plt.subplots(2, 4, figsize=(10.5, 5), layout="constrained")
for row, (name, found) in zip(axes, gaussian.items(), strict=True):
    reach = 2.5 * found["score function"].std(axis=0).max()
    for axis, (kind, points) in zip(row, found.items(), strict=True):
        x, y = exact[name]
        axis.hexbin(
            *points.T, gridsize=40, cmap="magma_r", bins="log", mincnt=1,
            extent=(x - reach, x + reach, y - reach, y + reach),
        )  # fmt: skip
        axis.plot(x, y, "+", color="#00b3a4", ms=14, mew=2)
        axis.set(xticks=[], yticks=[], aspect="equal")
        axis.set_title(f"{kind}\nsd {table[name][kind][1]:.2g}", fontsize="medium")
        axis.set(xlim=(x - reach, x + reach), ylim=(y - reach, y + reach))
    row[0].set_ylabel(f"{name}: by $\\sigma$")
for axis in axes[1]:
    axis.set_xlabel(r"by $\mu$")
# alt: Eight clouds of gradient estimates around a cross at the exact gradient: for the
# square pathwise is the tightest; for the step it lies in one point beside the cross.
plt.show()

# %%
# A cliff is a slope without width. Given a width :math:`w`, as
# :math:`1 / (1 + e^{-z/w})`, the step has a slope where the chain rule can find it. The
# narrower it is, the fewer samples meet it: the variance grows like :math:`1/w`.


def softened(width):
    found = pathwise_gradient(sampler, lambda z: ops.sigmoid(z / width), many, noise)
    return summary(numbers(found), exact["step"])


soft = {width: softened(width) for width in (0.3, 0.1, 0.03, 0.01)}

# %%
# Coins, which have no slope
# --------------------------
#
# Six coins, and a parabola in their weighted sum: 64 states, which can be added up. A
# coin is a categorical of two classes with logits :math:`(\ell, 0)`. Twelve such
# problems are drawn, and all numbers are medians over them. Eight samples an estimate,
# all estimates as a batch. The relaxations put values between 0 and 1 into a
# cost that was only meant for 0 and 1, and differentiate that.

problems, coins, samples, tries = 12, 6, 8, 2_000
logits = rng.normal(size=(problems, 1, coins)).astype("float32")
weights = rng.normal(size=(problems, 1, coins)).astype("float32")


def cost(x):
    """(..., problems, tries, coins) -> (..., problems, tries)."""
    return 10.0 + ops.square(ops.sum(ops.multiply(x, weights), axis=-1) - 1.0)


def cost_of_pairs(b):
    """(..., problems, tries, coins, 2): the same for one-hot vectors."""
    return cost(b[..., 0])


def log_prob(logits, x):
    each = x * ops.log_sigmoid(logits) + (1.0 - x) * ops.log_sigmoid(-logits)
    return ops.sum(each, axis=-1)


states = np.array(list(itertools.product([0.0, 1.0], repeat=coins)), "float32")
p = 1.0 / (1.0 + np.exp(-logits))
state_p = np.prod(np.where(states == 1, p, 1 - p), axis=-1, dtype="float64")
exact_coins = np.einsum("ps,psc->pc", state_p * numbers(cost(states)), states - p)

as_batch = np.tile(logits, (1, tries, 1))
as_pairs = np.stack([as_batch, 0 * as_batch], axis=-1)
tosses = (rng.uniform(size=(samples, *as_batch.shape)) < p).astype("float32")
uniform = rng.uniform(1e-6, 1 - 1e-6, size=(2, samples, *as_pairs.shape))
uniform = ops.convert_to_tensor(uniform.astype("float32"))


def through(layer, cost, logits):
    """Gradient by the logits through a layer that draws samples."""

    def sampler(logits, unused):
        return layer(ops.broadcast_to(logits, (samples, *logits.shape)))

    return pathwise_gradient(sampler, cost, logits, np.zeros(samples, "float32"))


def gumbel(temperature, hard=False):
    layer = GumbelSoftmax(temperature, hard=hard, seed=second)
    return through(layer, cost_of_pairs, as_pairs)[..., 0]


def rebar(temperature=0.5):
    control = rebar_control(cost_of_pairs, temperature)
    estimate = backend.compile(
        lambda x, u: relax_gradient(cost_of_pairs, control, x, u)
    )
    return estimate(as_pairs, uniform)[..., 0]


temperatures = [0.1, 0.2, 0.5, 1, 2]
coin_estimates = {
    "score function": score_function_gradient(log_prob, cost, as_batch, tosses),
    "leave-one-out": score_function_gradient(
        log_prob, cost, as_batch, tosses, "leave_one_out"
    ),
    "REBAR": rebar(),
    "straight-through": through(StraightThroughBernoulli(seed=third), cost, as_batch),
    **{f"Gumbel {t}": gumbel(t) for t in temperatures},
    **{f"hard Gumbel {t}": gumbel(t, hard=True) for t in temperatures},
}
coin_table = {k: summary(numbers(v), exact_coins) for k, v in coin_estimates.items()}

# %%
# Left: bias against noise for 8 samples; the unbiased stand at the lower edge. Right:
# the error of more samples: noise falls like :math:`1/\sqrt n`, bias stays.


def error(name, n):
    bias, sd, _ = coin_table[name]
    bias = 0.0 if name in unbiased else bias
    return np.sqrt(bias**2 + sd**2 * samples / np.reshape(n, (-1, 1)))  # (n, problem)


unbiased = ["score function", "leave-one-out", "REBAR"]
floor = 0.01
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
for prefix, colour in (("Gumbel", "C1"), ("hard Gumbel", "C3")):
    rows = np.array(
        [np.median(coin_table[f"{prefix} {t}"], axis=1) for t in temperatures]
    )
    left.plot(rows[:, 1], rows[:, 0], "o-", color=colour, label=prefix)
    for t, (bias, sd, _) in zip(temperatures, rows, strict=True):
        left.annotate(
            rf"$\tau={t}$", (sd, bias), xytext=(6, 2), textcoords="offset points",
            fontsize="x-small", color=colour,
        )  # fmt: skip
colours = {"score function": "C0", "leave-one-out": "C2", "REBAR": "C4"}
for name in [*unbiased, "straight-through"]:
    bias, sd, _ = np.median(coin_table[name], axis=1)
    y, mark = (floor, "v") if name in unbiased else (bias, "s")
    left.plot(sd, y, mark, ms=9, label=name, color=colours.get(name, "C5"))
left.set(
    xscale="log", yscale="log", xlabel="standard deviation, 8 samples",
    ylabel="bias", ylim=(floor * 0.85, 0.5), xlim=(0.02, 8),
)  # fmt: skip
left.legend(fontsize="small", loc="upper right")
n = np.logspace(np.log10(8), 5, 60)
for name in [*unbiased, "straight-through", "Gumbel 0.5", "Gumbel 1"]:
    style = {"ls": "-" if name in unbiased else "--"}
    middle = np.median(error(name, n), axis=1)
    right.plot(n, middle, label=name, color=colours.get(name), **style)
length = np.linalg.norm(exact_coins, axis=1)
right.axhline(np.median(length), color="0.6", lw=1, ls=":")
right.annotate("gradient of zero", (2e3, np.median(length)), fontsize="small")
right.set(xscale="log", yscale="log", xlabel="samples", ylabel="error of the gradient")
right.legend(fontsize="small")
# alt: Left, bias against standard deviation, a curve over temperatures for two
# relaxations; right, error against samples: relaxations level off, the others fall.
plt.show()

# %%
# What to notice
# --------------
#
# - Where the slope is right, nothing beats it: the pathwise gradient of the square has
#   an eighth of the variance of leave-one-out or less. For the step it is always zero,
#   without a warning. Softened to a width of 0.01 the step is seen, with nine times the
#   variance of leave-one-out; at 0.3 the bias is a sixth of the gradient.
# - The measure-valued gradient needs no slope, and :math:`4 d` costs a sample.
# - A relaxation has a temperature, and there is no good one: cold is noisy, warm is
#   biased. With a few samples it has the least error here, with many the largest.

for name, rows in table.items():
    print(f"{name:22s}   bias      sd       z")
    for kind, (bias, sd, z) in rows.items():
        print(f"  {kind:20s} {bias:7.3f} {sd:7.3f} {z:7.1f}")
for width, (bias, sd, z) in soft.items():
    print(f"  softened by {width:<8} {bias:7.3f} {sd:7.3f} {z:7.1f}")
print("coins, median problem      bias      sd       z")
for kind, rows in coin_table.items():
    bias, sd, z = np.median(rows, axis=1)
    print(f"  {kind:20s} {bias:7.3f} {sd:7.3f} {z:7.1f}")
print(f"  {'always zero':20s} {np.median(length):7.3f} {0:7.3f}")

square, steps = table["square"], table["step"]
right_z = [square[k][2] for k in square]
right_z += [steps[k][2] for k in ("score function", "leave-one-out", "measure-valued")]
right_z += [coin_table[k][2].max() for k in unbiased]
relative = [
    np.median(coin_table[f"{kind} {t}"][0] / length)
    for kind in ("Gumbel", "hard Gumbel")
    for t in (0.5, 1)
]


few, lots = (
    np.median(error("Gumbel 0.5", n) / error("leave-one-out", n)) for n in (8, 10_000)
)
claim(
    "ten estimators without bias: largest deviation of a mean, in standard errors",
    max(right_z), "<", 5,
)  # fmt: skip
claim(
    "square of a normal: variance of the score function to that of pathwise",
    (square["score function"][1] / square["pathwise"][1]) ** 2, ">", 9,
)  # fmt: skip
claim(
    "square of a normal: variance, leave-one-out to measure-valued at equal costs",
    (square["leave-one-out"][1] / square["measure-valued"][1]) ** 2, ">", 2.5,
)  # fmt: skip
claim(
    "step softened to 0.01: variance of pathwise to that of leave-one-out on the step",
    (soft[0.01][1] / steps["leave-one-out"][1]) ** 2, ">", 6,
)  # fmt: skip
claim(
    "step softened to 0.3: bias of the pathwise gradient, relative to the gradient",
    soft[0.3][0] / np.linalg.norm(exact["step"]), ">", 0.1,
)  # fmt: skip
claim(
    "six coins: bias of four Gumbel relaxations, least, to the gradient's length",
    min(relative), ">", 0.02, seeds=problems,
)  # fmt: skip
claim(
    "six coins, 8 samples: error of Gumbel 0.5 to leave-one-out's, median problem",
    few, "<", 0.6, seeds=problems,
)  # fmt: skip
claim(
    "six coins, 10,000 samples: error of Gumbel 0.5 to leave-one-out's, median problem",
    lots, ">", 1.2, seeds=problems,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Give the measure-valued gradient independent draws for its two terms. What does
#    sharing them buy?
# 2. Replace the parabola by a cost that is linear in each coin. Which of the biased
#    estimators becomes unbiased, and why that one?
#
# .. dropdown:: Hint to 1
#
#    The two terms of one parameter are costs of similar samples. With shared draws they
#    rise and fall together, and their difference is quiet.
#
# .. dropdown:: Hint to 2
#
#    If the cost is linear, its slope is the difference of its values at 1 and 0: the
#    straight-through estimate is then exact on average.
#
# References
# ----------
# Pathwise: :cite:t:`kingma2014auto`; relaxation: :cite:t:`jang2017categorical` and
# :cite:t:`maddison2017concrete`; straight-through: :cite:t:`bengio2013estimating`;
# REBAR: :cite:t:`tucker2017rebar`; a survey: :cite:t:`mohamed2020monte`.

# sphinx_gallery_tags = ["gradients", "layer", "intermediate"]
