r"""
Score-function gradient: a baseline removes nine tenths of REINFORCE's noise
============================================================================

How does one differentiate the mean of a cost whose samples are discrete? The outcome of
a coin toss jumps, and there is no slope to follow. The score-function gradient, also
called REINFORCE or the likelihood-ratio method, needs only the *values* of the cost and
a log-probability that can be differentiated. It is unbiased, and noisy; a baseline,
which is subtracted from the cost, takes most of the noise away. Use it for discrete
choices and for costs without a gradient, as in policy gradients. Where the cost has a
slope, :func:`~dlcompanion.generative.pathwise_gradient` has far less variance.
:func:`~dlcompanion.generative.score_function_gradient` is the estimator of this page.

In your own model
-----------------

.. code-block:: python

   import numpy as np
   from keras import ops

   from dlcompanion.generative import score_function_gradient


   def log_prob(logits, x):  # of coins
       each = x * ops.log_sigmoid(logits) + (1 - x) * ops.log_sigmoid(-logits)
       return ops.sum(each, axis=-1)


   logits = np.zeros(4, "float32")
   samples = np.random.default_rng(0).integers(2, size=(16, 4)).astype("float32")
   gradient = score_function_gradient(
       log_prob, lambda x: ops.sum(x, axis=-1) ** 2, logits, samples, "leave_one_out"
   )

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_reparameterization`.
"""

# %%
# The idea
# --------
#
# The parameters sit in the distribution, :math:`\mathbb E_{x \sim p_\theta}[f(x)]`.
# Because :math:`\nabla p = p \,\nabla \log p`,
#
# .. math::
#
#    \nabla_\theta\, \mathbb E[f(x)] = \mathbb E\bigl[(f(x) - b)\,
#    \nabla_\theta \log p_\theta(x)\bigr]
#    \qquad \text{for every constant } b ,
#
# since :math:`\mathbb E[\nabla \log p] = 0`. Every baseline :math:`b` leaves the mean
# alone; it changes only how far single estimates scatter. *Leave-one-out* takes as
# baseline of each sample the mean cost of the others, which needs no tuning and no
# further evaluation.

import itertools

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import autodiff, backend, claims
from dlcompanion.claims import claim
from dlcompanion.generative import (
    LearnedBaseline,
    pathwise_gradient,
    score_function_gradient,
)
from dlcompanion.generative.score_function import score_function_loss
from dlcompanion.training import restart

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# Bias and variance against enumeration
# -------------------------------------
#
# Six coins and a cost for each of their 64 states: few enough to add up the exact
# gradient, state by state. Fifty such problems are drawn, each with its own coins and
# its own cost. Every estimator gets 1,000 tries of 8 samples in each. All tries run at
# once, as a batch with logits of its own for each.

problems, coins, samples, tries = 50, 6, 8, 1_000
logits = rng.normal(size=(problems, coins)).astype("float32")
weights = rng.normal(size=(problems, coins)).astype("float32")


def cost(x, weights=weights):
    """A parabola in a weighted sum: (..., problems, tries, coins) -> without coins."""
    weighted = ops.multiply(x, weights[:, None])
    return 10.0 + ops.square(ops.sum(weighted, axis=-1) - 1.0)


def log_prob(logits, x):
    each = x * ops.log_sigmoid(logits) + (1.0 - x) * ops.log_sigmoid(-logits)
    return ops.sum(each, axis=-1)


states = np.array(list(itertools.product([0.0, 1.0], repeat=coins)), "float32")
p = 1.0 / (1.0 + np.exp(-logits))[:, None]  # (problems, 1, coins)
state_p = np.prod(np.where(states == 1, p, 1 - p), axis=-1, dtype="float64")
state_cost = ops.convert_to_numpy(cost(states)).astype("float64")  # (problems, states)
exact = np.einsum("ps,psc->pc", state_p * state_cost, states - p)
mean_cost = np.sum(state_p * state_cost, axis=1, keepdims=True)

score = state_p * ((states - p) ** 2).sum(axis=-1)
best_constant = np.sum(score * state_cost, axis=1) / np.sum(score, axis=1)

baselines = {
    "none": "none",
    "constant: mean cost": mean_cost,
    "constant: best": best_constant[:, None],
    "leave-one-out": "leave_one_out",
}


def gradient(logits, x, baseline):
    return score_function_gradient(log_prob, cost, logits, x, baseline)


estimates = {}
for name, baseline in baselines.items():
    x = rng.uniform(size=(samples, problems, tries, coins)) < p
    x, many = x.astype("float32"), np.repeat(logits[:, None], tries, axis=1)
    estimates[name] = ops.convert_to_numpy(gradient(many, x, baseline))

# %%
# The first of the problems, by its first two coins. The exact gradient lies in the
# middle of every cloud: none of them is biased. The clouds differ in width, and that is
# all that a baseline does.


def z_score(found, truth):
    """Largest bias in standard errors; the tries are the last axis but one."""
    error = found.std(axis=-2, ddof=1) / np.sqrt(found.shape[-2])
    return float(np.abs((found.mean(axis=-2) - truth) / error).max())


variance = {k: v.var(axis=1).sum(axis=-1) for k, v in estimates.items()}
figure, axes = plt.subplots(1, 4, figsize=(11, 3.9), layout="constrained", sharey=True)
middle = exact[0]
reach = 4 * estimates["none"][0].std(axis=0)[:2].max()
for axis, (name, found) in zip(axes, estimates.items(), strict=True):
    axis.hexbin(
        *found[0, :, :2].T, gridsize=45, cmap="magma_r", bins="log", mincnt=1,
        extent=(
            middle[0] - reach, middle[0] + reach, middle[1] - reach, middle[1] + reach
        ),
    )  # fmt: skip
    axis.plot(*middle[:2], "+", color="#00b3a4", ms=14, mew=2)
    axis.set_title(f"{name}\nvariance {variance[name][0]:.3g}", fontsize="medium")
    axis.set(xlabel="first logit", aspect="equal")
axes[0].set(ylabel="gradient by second logit")
# alt: Four clouds of gradient estimates around a cross at the exact gradient: widest
# without baseline, narrowest for the best constant and leave-one-out.
plt.show()

# %%
# One sample only
# ---------------
#
# Leave-one-out needs a second sample of the *same* example; an agent does not get it.
# But if the level of the cost can be told from the example, a network can learn it:
# :class:`~dlcompanion.generative.LearnedBaseline`. Each example here has a context
# :math:`c`, and its cost is that of the coins and :math:`15 \sin 3c` besides. Five of
# the problems, with a network for each.


def contextual(problem, size):
    """Contexts, one toss of all coins for each, and the costs."""
    context = rng.uniform(-1, 1, size=(size, 1)).astype("float32")
    x = (rng.uniform(size=(size, coins)) < p[problem]).astype("float32")
    found = ops.convert_to_numpy(cost(x[None], weights[problem : problem + 1]))[0]
    return context, x, found + 15.0 * np.sin(3.0 * context[:, 0])


def learned_baselines(seeds):
    """Baselines, each from a network of its own and 8,000 examples."""
    context, costs = keras.Input((1,)), keras.Input(())
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(32, "tanh"), keras.layers.Dense(1)]
    )
    baseline = LearnedBaseline(network)
    model = keras.Model([context, costs], baseline(context, costs=costs))
    model.compile(keras.optimizers.Adam(0.02))  # the layer brings its own loss
    for problem, seed in enumerate(seeds):
        restart(model, seed)
        c, _, f = contextual(problem, 8_000)
        model.fit([c, f], batch_size=64, epochs=2, verbose=0)
        yield baseline


def one_sample(problem, x, f, baseline):
    """One estimate for each example: its coins have logits of their own."""
    many = np.tile(logits[problem], (len(x), 1))
    found = score_function_gradient(
        log_prob, lambda x: f[None], many, x[None], baseline
    )
    return ops.convert_to_numpy(found)


seeds = claims.seeds(5)
single, single_z = {"none": [], "constant: mean cost": [], "learned": []}, []
for problem, baseline in enumerate(learned_baselines(seeds)):
    context, x, f = contextual(problem, 20_000)
    said = ["none", float(mean_cost[problem, 0]), baseline(context)]
    for name, b in zip(single, said, strict=True):
        found = one_sample(problem, x, f, b)
        single[name].append(found.var(axis=0).sum())
        single_z.append(z_score(found, exact[problem]))

# %%
# Where a slope exists
# --------------------
#
# A normal variable can be written as :math:`\mu + \sigma\varepsilon`, and then the
# derivative goes through the sample. The problem is the same in :math:`d` dimensions,
# cost :math:`\lVert x - 1\rVert^2`, gradient by :math:`\mu`: the score function feels
# the noise of all dimensions in each component, the pathwise gradient only its own.

dimensions, gaussian_tries = [1, 4, 16, 64], 2_000


def squared(x):
    return ops.sum(ops.square(x - 1.0), axis=-1)


def normal(mu, x):
    return -0.5 * ops.sum(ops.square(x - mu), axis=-1)


gaussian, gaussian_z = {}, []
for d in dimensions:
    noise = rng.normal(size=(samples, gaussian_tries, d)).astype("float32")
    mu = np.zeros((gaussian_tries, d), "float32")
    found = {
        k: score_function_gradient(normal, squared, mu, noise, b)
        for k, b in (("none", "none"), ("leave-one-out", "leave_one_out"))
    }
    found["pathwise"] = pathwise_gradient(lambda m, e: m + e, squared, mu, noise)
    found = {k: ops.convert_to_numpy(v) for k, v in found.items()}
    gaussian[d] = {k: float(v.var(axis=0).mean()) for k, v in found.items()}
    # one z for each dimension and estimator, of the mean over the components
    gaussian_z += [z_score(v.mean(axis=1, keepdims=True), -2.0) for v in found.values()]

# %%
# What the noise does to learning
# -------------------------------
#
# A latent class with eight values explains one observation; its posterior is known.
# We fit :math:`q` to it by the ELBO, whose cost
# :math:`f(z) = \log q(z) - \log p(x, z)` depends on the parameters itself, with four
# samples a step: 200 runs at once, each with an observation of its own.
# ``score_function_loss``
# is the loss, and plain gradient descent the optimizer, so that nothing hides noise.
# The cost's own gradient, :math:`\nabla \log q(z)`, has mean zero and may be dropped
# (``whole=False``). Whether it should be, the third curve tells.

classes, runs, steps, rate = 8, 200, 300, 0.3
log_joint = (rng.normal(size=(runs, classes)) * 1.5 - 8.0).astype("float32")
evidence = np.log(np.exp(log_joint.astype("float64")).sum(axis=1))
log_joint = ops.convert_to_tensor(log_joint)


def train(baseline, seed, whole=False):
    generator = keras.random.SeedGenerator(seed)
    theta = keras.Variable(np.zeros((runs, classes), "float32"))

    def elbo_loss(theta):
        log_q = ops.log_softmax(theta)
        z = keras.random.categorical(theta, 4, seed=generator)  # (runs, samples)
        picked = ops.one_hot(ops.transpose(z), classes)  # (samples, runs, classes)
        log_q_z = ops.sum(picked * log_q, axis=-1)
        costs = log_q_z - ops.sum(picked * log_joint, axis=-1)
        costs = costs if whole else ops.stop_gradient(costs)
        return ops.sum(score_function_loss(log_q_z, costs, baseline))

    @backend.compile
    def step():
        theta.assign(theta - rate * autodiff.grad(elbo_loss)(theta.value))
        log_q = ops.log_softmax(theta)
        return ops.sum(ops.exp(log_q) * (log_joint - log_q), axis=-1)

    return np.stack([ops.convert_to_numpy(step()) for _ in range(steps)])


one, two, three = claims.seeds(3)
gaps = {
    "no baseline": evidence - train("none", one),
    "leave-one-out": evidence - train("leave_one_out", two),
    "leave-one-out, whole": evidence - train("leave_one_out", three, whole=True),
}

# %%
# Left: the pathwise gradient keeps its variance whatever the dimension is, the score
# function does not, with or without baseline. Right: the distance of the ELBO from the
# evidence, median and the middle 80 % of 200 runs.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for name in ("none", "leave-one-out", "pathwise"):
    left.plot(dimensions, [gaussian[d][name] for d in dimensions], "o-", label=name)
left.set(xscale="log", yscale="log", xlabel="dimensions", ylabel="variance")
left.set_xticks(dimensions, [str(d) for d in dimensions])
left.minorticks_off()
left.legend(title="gradient by a mean")
for name, gap in gaps.items():
    low, middle, high = np.quantile(gap, [0.1, 0.5, 0.9], axis=1)
    (line,) = right.plot(middle, label=name)
    right.fill_between(range(steps), low, high, color=line.get_color(), alpha=0.2)
right.set(yscale="log", xlabel="step", ylabel="evidence - ELBO (nats)")
right.legend()
# alt: Left, variance against dimensions on log axes, pathwise flat and the score
# function rising; right, distance of the ELBO from the evidence against the step,
# leave-one-out far below no baseline.
plt.show()

# %%
# What to notice
# --------------
#
# - Without a baseline most of the noise comes from the *level* of the cost, the 10.
# - Leave-one-out comes close to the best constant, which nobody knows beforehand.
# - A learned baseline takes away what the context explains, and needs no second sample.
# - In 64 dimensions each component of the score-function gradient still has the noise
#   of the cost of all the other 63, with or without baseline.
# - At the posterior the cost :math:`\log q - \log p` is the *same* for every sample.
#   Leave-one-out then gives zero exactly, and the run comes to rest, unless the term of
#   mean zero is kept (third curve). An unbiased estimator is not yet a good one.

print("variance, 8 samples of 6 coins: median problem        against none")
for name, value in variance.items():
    less = np.median(variance["none"] / value)
    print(f"{name:22s} {np.median(value):20.4f} {less:21.1f} x")
print("one sample an example: variance in each problem")
for name, values in single.items():
    print(f"{name:22s}", *(f"{value:8.2f}" for value in values))
final = {name: float(np.median(gap[-1])) for name, gap in gaps.items()}
uniform = float(np.median(gaps["leave-one-out"][0]))
print(f"evidence - ELBO: {uniform:.2g} after the first step, and at the end")
for name, value in final.items():
    print(f"{name:22s} {value:10.2g}")

all_z = [z_score(found, exact) for found in estimates.values()]
claim(
    "score function, four baselines, and pathwise: largest bias, in standard errors",
    max(all_z + gaussian_z + single_z), "<", 5, seeds=problems,
)  # fmt: skip
claim(
    "variance of REINFORCE without baseline to that with leave-one-out, median problem",
    np.median(variance["none"] / variance["leave-one-out"]), ">", 10, seeds=problems,
)  # fmt: skip
claim(
    "variance with leave-one-out to that with the best constant, median problem",
    np.median(variance["leave-one-out"] / variance["constant: best"]), "<", 1.4,
    seeds=problems,
)  # fmt: skip
claim(
    "one sample an example: variance, learned baseline to mean cost, median problem",
    np.median(np.divide(single["learned"], single["constant: mean cost"])), "<", 0.3,
    seeds=len(seeds),
)  # fmt: skip
claim(
    "64 dimensions: variance of the pathwise gradient to that of leave-one-out",
    gaussian[64]["pathwise"] / gaussian[64]["leave-one-out"], "<", 0.1,
)  # fmt: skip
claim(
    "evidence less ELBO after 300 steps: leave-one-out to no baseline, medians",
    final["leave-one-out"] / final["no baseline"], "<", 0.1, seeds=runs,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Take the 10 out of the cost. What is left of the advantage of leave-one-out, and
#    why?
# 2. Subtract the mean of *all* samples, the one itself included. By which factor is
#    the estimate biased, and is that a reason not to do it?
#
# .. dropdown:: Hint to 1
#
#    Without the level the cost is a square of some units, whose own variance remains.
#    Replace ``10.0 +`` by ``0.0 +`` and read the table.
#
# .. dropdown:: Hint to 2
#
#    The mean of all :math:`n` samples is the leave-one-out mean, moved by :math:`1/n`
#    of the own cost: the estimate shrinks by :math:`(n-1)/n`, which a learning rate can
#    make up for.
#
# References
# ----------
# The estimator: :cite:t:`williams1992simple`; leave-one-out: :cite:t:`kool2019buy`; the
# learned baseline: :cite:t:`mnih2014neural`; pathwise: :cite:t:`kingma2014auto`.

# sphinx_gallery_tags = ["gradients", "intermediate"]
