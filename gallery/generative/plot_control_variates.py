r"""
Control variates (REBAR, RELAX): a learned control lowers variance without bias
===============================================================================

The gradient of a mean over discrete choices can be estimated in two ways: a relaxation
has little noise and a bias, the score function (REINFORCE) no bias and much noise. A
control variate combines them: subtract from the noisy estimate something that
*predicts* it, and add back the mean of what was subtracted. The variance falls as far
as the prediction is good, and the mean is right however bad it is. The control may be
the relaxed cost itself (REBAR) or a network that is trained for it (RELAX);
:func:`~dlcompanion.generative.relax_gradient` takes any function. Use it where each
evaluation of the cost is expensive; where several samples are cheap, leave-one-out is
simpler and about as good.

In your own model
-----------------

.. code-block:: python

   import numpy as np
   from keras import ops

   from dlcompanion.generative import rebar_control, relax_gradient


   def cost(b):  # of one-hot choices, (samples, 5, 3) -> (samples,)
       return ops.sum(b * ops.arange(3, dtype="float32"), axis=(1, 2)) ** 2


   logits = np.zeros((5, 3), "float32")  # five choices among three
   noise = np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, (2, 8, 5, 3))
   control = rebar_control(cost, temperature=0.5)
   gradient = relax_gradient(cost, control, logits, noise.astype("float32"))

Prerequisites: :doc:`/gallery/generative/plot_score_function`,
:doc:`/gallery/generative/plot_reparameterization`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Let :math:`z = \log p_\theta + g` be Gumbels, whose largest entry is the sample
# :math:`b`, and :math:`\tilde z` a second draw of them *given* :math:`b`. Then
#
# .. math::
#
#    \hat g = \bigl(f(b) - c(\tilde z)\bigr) \nabla \log p_\theta(b)
#    + \nabla c(z) - \nabla c(\tilde z)
#
# has the right mean for every :math:`c`. Given :math:`b`, the term
# :math:`c(\tilde z) \nabla \log p(b) + \nabla c(\tilde z)` is an estimate of
# :math:`\nabla \mathbb E[c(z)]`, and so is :math:`\nabla c(z)`: the two cancel on
# average. And since the mean does not depend on :math:`c`, descent on
# :math:`\lVert \hat g\rVert^2` *is* descent on the variance.

import itertools

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import autodiff, backend, claims
from dlcompanion.claims import claim
from dlcompanion.generative import (
    rebar_control,
    relax_gradient,
    score_function_gradient,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# Six coins again, each a categorical of two classes with logits :math:`(\ell, 0)`, and
# a parabola in their weighted sum. All 64 states can be added up, so that the exact
# gradient is known. The level of 10 has no gradient and is nothing but noise. Eleven
# such problems are drawn, with other coins and another cost each.

PROBLEMS, coins = 11, 6
logits = rng.normal(size=(PROBLEMS, 1, coins)).astype("float32")
weights = rng.normal(size=(PROBLEMS, 1, coins)).astype("float32")


def cost(x):
    """(..., problems, tries, coins) -> (..., problems, tries)"""
    return 10.0 + ops.square(ops.sum(ops.multiply(x, weights), axis=-1) - 1.0)


def cost_of_pairs(b):
    """(..., problems, tries, coins, 2) -> (..., problems, tries)"""
    return cost(b[..., 0])


def log_prob(logits, x):
    each = x * ops.log_sigmoid(logits) + (1.0 - x) * ops.log_sigmoid(-logits)
    return ops.sum(each, axis=-1)


states = np.array(list(itertools.product([0.0, 1.0], repeat=coins)), "float32")
p = 1.0 / (1.0 + np.exp(-logits))
state_p = np.prod(np.where(states == 1, p, 1 - p), axis=-1, dtype="float64")
state_cost = ops.convert_to_numpy(cost(states)).astype("float64")
exact = np.einsum("ps,psc->pc", state_p * state_cost, states - p)
mean_cost = np.sum(state_p * state_cost, axis=1, keepdims=True)


def batch(tries):
    """Logits of that many tries of each problem, each try with its own."""
    one = np.stack([logits, 0 * logits], axis=-1)
    return ops.convert_to_tensor(np.tile(one, (1, tries, 1, 1)))


def uniforms(tries, seed):
    shape = (2, 1, PROBLEMS, tries, coins, 2)
    return keras.random.uniform(shape, 1e-7, 1.0 - 1e-6, seed=seed)


# %%
# Learning the control
# --------------------
#
# The network sees the relaxed sample and is trained on the square of the very estimates
# that a learner would use anyway, 64 of one sample each a step: the cost is never
# asked again. Each problem has a network of its own; a layer holds the weights of all
# of them, and with Adam none feels the others. Beside it a control that starts from
# REBAR and adds a network; that one evaluates the cost at the two relaxed samples too.

STEPS, TRIES = 300, 2_000


def network():
    layer = keras.layers.EinsumDense
    return keras.Sequential(
        [
            keras.Input((PROBLEMS, coins)),
            layer("bpi,pio->bpo", (PROBLEMS, 32), bias_axes="po", activation="tanh",
                  kernel_initializer=keras.initializers.RandomNormal(stddev=0.25)),
            layer("bpi,pio->bpo", (PROBLEMS, 1), bias_axes="po",
                  kernel_initializer=keras.initializers.RandomNormal(stddev=0.25)),
        ]
    )  # fmt: skip


def with_network(net, relaxed):
    """A control: the network of relaxed coins, alone or added to the relaxed cost."""

    def control(z):
        heads = ops.sigmoid(z[..., 0] - z[..., 1])[0]  # one sample a try
        value = ops.transpose(net(ops.transpose(heads, (1, 0, 2)))[..., 0])[None]
        return value + rebar_control(cost_of_pairs)(z) if relaxed else value

    return control


def trained(relaxed):
    """Variance of each problem on the way, and estimates at the end."""
    net = network()
    control = with_network(net, relaxed)
    optimizer = keras.optimizers.Adam(0.015)
    optimizer.build(net.trainable_variables)
    many, generator = batch(64), keras.random.SeedGenerator(claims.seed())

    def estimate(logits, noise):
        return relax_gradient(cost_of_pairs, control, logits, noise)

    @backend.compile
    def step():
        noise = uniforms(64, generator)

        def square():
            found = estimate(many, noise)[..., 0]
            each = ops.mean(ops.sum(ops.square(found), axis=-1), axis=1)
            return ops.sum(each), each

        (_, each), gradients = autodiff.value_and_grad(
            square, variables=net.trainable_variables, has_aux=True
        )()
        optimizer.apply(gradients, net.trainable_variables)
        return each

    curve = np.array([ops.convert_to_numpy(step()) for _ in range(STEPS)])
    found = backend.compile(estimate)(batch(TRIES), uniforms(TRIES, generator))
    found = ops.convert_to_numpy(found)[..., 0].astype("float64")
    return curve - np.sum(exact**2, axis=1), found


learned = {
    "RELAX, network": trained(relaxed=False),
    "RELAX, relaxed cost + network": trained(relaxed=True),
}

# %%
# What needs no learning: the score function with one sample, with the best guess of a
# constant, with leave-one-out of two and of three samples, and REBAR.


def by_score(samples, baseline):
    many = np.tile(logits, (1, TRIES, 1))
    x = (rng.uniform(size=(samples, *many.shape)) < p).astype("float32")
    found = score_function_gradient(log_prob, cost, many, x, baseline)
    return ops.convert_to_numpy(found).astype("float64")


rebar = backend.compile(
    lambda x, u: relax_gradient(cost_of_pairs, rebar_control(cost_of_pairs), x, u)
)
estimates = {
    "score function": (1, by_score(1, "none")),
    "mean cost as baseline": (1, by_score(1, mean_cost)),
    "RELAX, network": (1, learned["RELAX, network"][1]),
    "leave-one-out of 2": (2, by_score(2, "leave_one_out")),
    "leave-one-out of 3": (3, by_score(3, "leave_one_out")),
    "REBAR": (
        3,
        ops.convert_to_numpy(rebar(batch(TRIES), uniforms(TRIES, claims.seed())))[
            ..., 0
        ],
    ),
    "RELAX, relaxed cost + network": (3, learned["RELAX, relaxed cost + network"][1]),
}


def z_score(found):
    error = found.std(axis=1, ddof=1) / np.sqrt(TRIES)
    return float(np.abs((found.mean(axis=1) - exact) / error).max())


variance = {k: found.var(axis=1).sum(axis=-1) for k, (_, found) in estimates.items()}
scores = {k: z_score(found) for k, (_, found) in estimates.items()}
baseline = variance["mean cost as baseline"]
relative = {k: found / baseline for k, found in variance.items()}  # of each problem
median = {k: float(np.median(v)) for k, v in relative.items()}

# %%
# All variances are divided by that of the mean cost as baseline, problem by problem.
# Left, the variance while the network learns, each problem and their median. Right,
# what an estimate costs and how much it scatters; along a dotted line one could as well
# average several of one kind.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
colours = {"RELAX, network": "C3", "RELAX, relaxed cost + network": "C4"}
for name, (curve, _) in learned.items():
    curves = (curve / baseline).T
    smooth = np.array([np.convolve(c, np.ones(15) / 15, "valid") for c in curves])
    left.plot(smooth.T, color=colours[name], lw=0.8, alpha=0.5)
    left.plot(np.median(smooth, axis=0), color=colours[name], lw=2, label=name)
for name, style in (("mean cost as baseline", "--"), ("leave-one-out of 3", ":")):
    left.axhline(median[name], color="0.3", ls=style, label=name)
left.set(yscale="log", xlabel="step of 64 samples", ylabel="relative variance")
left.legend(fontsize="small")
heights = {"mean cost as baseline": 9, "leave-one-out of 2": 6, "REBAR": 11}
heights |= {"leave-one-out of 3": 0, "RELAX, relaxed cost + network": -11}
for name, (costs, _) in estimates.items():
    colour = colours.get(name, "C0")
    right.plot([costs] * PROBLEMS, relative[name], "o", color=colour, alpha=0.5)
    right.annotate(
        name, (costs, median[name]), fontsize="small", color=colour, va="center",
        xytext=(8, heights.get(name, -3)), textcoords="offset points",
    )  # fmt: skip
grid = np.array([0.9, 9.0])
for level in (0.3, 1, 3, 10, 30):
    right.plot(grid, level / grid, ":", color="0.75", lw=1, zorder=0)
right.set(xscale="log", yscale="log", xlabel="evaluations of the cost", xlim=grid)
right.set_xticks([1, 2, 3], ["1", "2", "3"])
right.minorticks_off()
right.set(ylabel="relative variance")
# alt: Left, variance relative to the mean-cost baseline while two controls learn, thin
# curves for problems, falling below one; right, relative variance against evaluations
# of the cost, for seven estimators.
plt.show()

# %%
# What to notice
# --------------
#
# - The network never sees more of the cost than REINFORCE does. With it one evaluation
#   is worth about as much as three are with leave-one-out.
# - REBAR needs a cost that can be evaluated between the corners, and evaluates it three
#   times. At equal numbers of evaluations leave-one-out of three is a match for it: a
#   control has to be paid for, and a baseline from samples of one's own is cheap.
# - In the beginning the network is a bad control, and the variance is larger than with
#   a constant. No bias comes of it at any time.
# - While the logits move, the control has to follow. It learns from estimates that are
#   made anyway, but it does cost a second backward pass a step.

print("                                costs  variance  largest z   (median problem)")
for name, (costs, _) in estimates.items():
    print(f"{name:32s} {costs:4d} {median[name]:9.3f} {scores[name]:10.1f}")

own = variance["RELAX, network"]
claim(
    "seven estimators: largest bias, in standard errors",
    max(scores.values()), "<", 5, seeds=PROBLEMS,
)  # fmt: skip
claim(
    "variance of REINFORCE to that of a learned control, one cost each, median problem",
    np.median(variance["score function"] / own), ">", 10, seeds=PROBLEMS,
)  # fmt: skip
claim(
    "variance with the mean cost as baseline to a learned control's, median problem",
    np.median(baseline / own), ">", 1.3, seeds=PROBLEMS,
)  # fmt: skip
claim(
    "variance of a learned control, one cost, to leave-one-out of three costs, median",
    np.median(own / variance["leave-one-out of 3"]), "<", 2, seeds=PROBLEMS,
)  # fmt: skip
claim(
    "variance of REBAR to that of leave-one-out of three, three costs each, median",
    np.median(variance["REBAR"] / variance["leave-one-out of 3"]), ">", 0.5,
    seeds=PROBLEMS,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Train the temperature and the scale of REBAR as well, as its paper does. How much
#    of what the network adds is already in these two numbers?
# 2. Make the cost a black box, for instance a parity of the coins. Which of the
#    controls can still be used, and does the network find the parity?
# 3. Replace :math:`\tilde z` by an independent draw of :math:`z`. The mean stays right.
#    What happens to the variance, and why?
#
# .. dropdown:: Hint to 1
#
#    Make the two numbers ``keras.Variable`` and pass them to ``rebar_control``; descend
#    on the same square.
#
# .. dropdown:: Hint to 2
#
#    The relaxed cost of a parity says nothing about the coins between the corners, so
#    REBAR loses its ground. A network is trained on values at the corners only, too.
#
# .. dropdown:: Hint to 3
#
#    An independent draw predicts the cost only by its mean. Call ``relaxed_samples``
#    twice with other noise.
#
# References
# ----------
# REBAR is that of :cite:t:`tucker2017rebar`, RELAX that of
# :cite:t:`grathwohl2018backpropagation`, leave-one-out that of :cite:t:`kool2019buy`.

# sphinx_gallery_tags = ["gradients", "advanced"]
