r"""
Masked autoregressive flow (MAF): a density in one pass, samples one by one
===========================================================================

Any density is a product of conditional densities, one variable given those before it.
An autoregressive model learns these conditionals. :class:`~dlcompanion.generative.MADE`
gets all of them from one network, by masking the connections that would let an output
see its own input, and :class:`~dlcompanion.generative.MaskedAutoregressiveFlow` stacks
such layers to a normalizing flow: the density takes one pass, a sample one pass for
each variable, because each waits for those before it.
:class:`~dlcompanion.generative.InverseAutoregressiveFlow` (IAF) is the same layer run
the other way, with quick samples and slow densities. Use MAF for density estimation,
IAF for variational posteriors, and couplings where both must be quick.

In your own model
-----------------

.. code-block:: python

   import numpy as np

   from dlcompanion.generative import MaskedAutoregressiveFlow

   x = np.random.default_rng(0).normal(size=(512, 4)).astype("float32")
   flow = MaskedAutoregressiveFlow(event_size=4, blocks=2, hidden_units=(32,))
   flow.compile("adam")
   flow.fit(x, epochs=2, verbose=0)
   nats = flow.log_prob(x)  # one pass
   new = flow.sample(10)  # four passes a block

Prerequisites: :doc:`/gallery/generative/plot_normalizing_flows`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_spline_flow`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/masked_autoregressive_flow.svg
#    :figclass: drawing
#    :alt: Density: each u depends on its own x and on those before, all computed in one
#       pass. Sample: each x needs its own u and the x before it, so three variables
#       take three passes.
#
# A layer of the flow carries data to noise by
#
# .. math::
#
#    u_i = \bigl(x_i - \mu_i(x_{1:i-1})\bigr)\, e^{-\alpha_i(x_{1:i-1})} ,
#    \qquad \log \left| \det \frac{\partial u}{\partial x} \right|
#    = -\sum_i \alpha_i(x_{1:i-1}) .
#
# The Jacobian is triangular, whatever the networks are. Forward, everything on the
# right is known: one pass. Backward, :math:`x_i = u_i e^{\alpha_i} + \mu_i` needs
# :math:`x_{1:i-1}` first: :math:`D` passes. The next layer takes the variables in
# the opposite order.

import time

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from dlcompanion import autodiff, claims
from dlcompanion.claims import claim
from dlcompanion.generative import (
    MADE,
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
    RealNVP,
)
from dlcompanion.generative.masked_autoregressive_flow import MaskedAutoregressive
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
seeds = claims.seeds(3)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


# %%
# The triangle
# ------------
#
# One layer of ten variables with random weights. On the left its Jacobian: above the
# diagonal there is nothing, not small numbers but zeros. On the right the inverse,
# found by brute force: start from zeros, compute all parameters, invert all variables,
# repeat. After the :math:`k`-th pass the first :math:`k` variables are right and stay
# right, because they depend on nothing that is still wrong.

SIZE = 10
layer = MaskedAutoregressive(MADE(2, hidden_units=(40,), activation="tanh"))
layer.build((None, SIZE))
rng = np.random.default_rng(claims.seed())
layer.set_weights([0.8 * rng.normal(size=w.shape) for w in layer.get_weights()])
x = rng.normal(size=(1, SIZE)).astype("float32")
jacobian = numpy(autodiff.jacobian(lambda x: layer(x)[0][0])(x))[:, 0]
above = jacobian[np.triu_indices(SIZE, 1)]

u, _ = layer(x)
guess, errors = np.zeros_like(x), []
for _ in range(SIZE + 1):
    errors.append(np.abs(guess - x)[0])
    guess = numpy(layer.move(u, layer.conditioner(guess), inverse=True)[0])
errors = np.array(errors)  # (passes, variables)
passes = 1 + np.max(np.flatnonzero(errors.max(axis=1) > 1e-3))

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
limit = np.abs(jacobian).max()
shown = np.where(jacobian == 0, np.nan, jacobian)
picture = axes[0].imshow(shown, cmap="RdBu", vmin=-limit, vmax=limit)
figure.colorbar(picture, ax=axes[0], shrink=0.8)
axes[0].set(
    title=r"$\partial u_i / \partial x_j$; white: exactly 0",
    xlabel="input $j$", ylabel="output $i$",
)  # fmt: skip
picture = axes[1].imshow(np.log10(errors.T + 1e-7), cmap="magma", aspect="auto")
figure.colorbar(picture, ax=axes[1], shrink=0.8, label="log10 of the error")
axes[1].set(title="the inverse, pass by pass", xlabel="passes", ylabel="variable")
# alt: Left, a lower triangular Jacobian, white above the diagonal; right, error of ten
# variables by pass of the inverse: a dark staircase, one more variable a pass.
plt.show()

# %%
# What each direction costs
# -------------------------
#
# CPU time of 500 densities and of 500 samples, for flows of two layers and of more and
# more variables. Compiled once, then the fastest of five runs.

SIZES, ROWS = [4, 16, 64], 500


def fastest(run):
    run()  # compiles
    seconds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(3):
            numpy(run())
        seconds.append((time.process_time() - start) / 3)
    return 1e3 * min(seconds)


costs = {}
for name, flow_class in [
    ("MAF", MaskedAutoregressiveFlow),
    ("IAF", InverseAutoregressiveFlow),
]:
    for size in SIZES:
        flow = flow_class(size, blocks=2, hidden_units=(64,))
        points = rng.normal(size=(ROWS, size)).astype("float32")
        costs[name, "density", size] = fastest(lambda: flow.log_prob(points))  # noqa: B023
        costs[name, "sample", size] = fastest(lambda: flow.sample(ROWS))  # noqa: B023

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for axis, name in zip(axes, ["MAF", "IAF"], strict=True):
    for what in ("density", "sample"):
        values = [costs[name, what, size] for size in SIZES]
        axis.plot(SIZES, values, "o-", label=what)
    axis.set(xscale="log", yscale="log", title=name, xlabel="variables")
    axis.set_xticks(SIZES, [str(size) for size in SIZES])
    axis.minorticks_off()
    axis.legend()
axes[0].set_ylabel(f"CPU ms for {ROWS} points")
# alt: CPU time of a density and of a sample against the number of variables, log axes:
# for MAF the sample is the slow one, for IAF the density.
plt.show()

print("CPU ms   " + "".join(f"{size:>4} variables" for size in SIZES))
for name in ("MAF", "IAF"):
    for what in ("density", "sample"):
        row = "".join(f"{costs[name, what, size]:14.2f}" for size in SIZES)
        print(f"{name} {what:8}{row}")

# %%
# Is the density any good?
# ------------------------
#
# A chain of eight variables, each a sine of the one before plus noise, and then
# shuffled, so that no model is told the order. The truth is known, which tells how
# many nats are still missing. Rivals: one Gaussian with full covariance, and RealNVP
# with about as many weights. Three seeds, each with an order of its own, and one
# compiled program for each model.

LINKS, NOISE = 8, 0.35


def draw(size, shuffled):
    chain = [rng.normal(size=size)]
    for _ in range(LINKS - 1):
        chain.append(1.5 * np.sin(2 * chain[-1]) + NOISE * rng.normal(size=size))
    return np.stack(chain, axis=1)[:, shuffled].astype("float32")


def true_log_prob(x, shuffled):
    chain = x[:, np.argsort(shuffled)]
    steps = stats.norm.logpdf(chain[:, 1:], 1.5 * np.sin(2 * chain[:, :-1]), NOISE)
    return stats.norm.logpdf(chain[:, 0]) + steps.sum(axis=1)


orders = [rng.permutation(LINKS) for _ in seeds]
train, test = ([draw(n, order) for order in orders] for n in (6_000, 4_000))
EPOCHS, BATCH = 25, 250


normals = [stats.multivariate_normal(x.mean(axis=0), np.cov(x.T)) for x in train]
truth = np.mean([-true_log_prob(*z).mean() for z in zip(test, orders, strict=True)])
nll = {
    "one Gaussian": [-n.logpdf(x).mean() for n, x in zip(normals, test, strict=True)]
}
trained = {}
for name, flow in (
    ("RealNVP", RealNVP(LINKS, 6, (40, 40), "tanh")),
    ("MAF", MaskedAutoregressiveFlow(LINKS, 4, (48, 48), "tanh")),
):
    nll[name] = []
    rate = keras.optimizers.schedules.CosineDecay(5e-3, EPOCHS * len(train[0]) // BATCH)
    flow.build((None, LINKS))
    flow.compile(keras.optimizers.Adam(rate))
    for seed, x, x_test in zip(seeds, train, test, strict=True):
        restart(flow, seed)
        fit_in_memory(flow, x, batch_size=BATCH, epochs=EPOCHS, verbose=0)
        nll[name].append(-float(np.mean(numpy(flow.log_prob(x_test)))))
    trained[name] = flow

print(f"{'':14}   weights   test NLL, best and worst    above the truth ({truth:.2f})")
for name, values in nll.items():
    weights = trained[name].count_params() if name in trained else normals[0].cov.size
    best, worst = min(values), max(values)
    print(f"{name:14}{weights:10}{best:15.2f}{worst:8.2f}{worst - truth:17.2f}")

# %%
# Two links of the chain that are neighbors in truth: the data, and what each model
# draws.

place = np.argsort(orders[-1])
clouds = {
    "data": test[-1][:2_000],
    "one Gaussian": normals[-1].rvs(2_000, random_state=claims.seed()),
    "RealNVP": numpy(trained["RealNVP"].sample(2_000, seed=claims.seed())),
    "MAF": numpy(trained["MAF"].sample(2_000, seed=claims.seed())),
}
figure, axes = plt.subplots(
    1, 4, figsize=(11, 3.3), layout="constrained", sharex=True, sharey=True
)
for axis, (name, cloud) in zip(axes, clouds.items(), strict=True):
    axis.scatter(*cloud[:, place[4:6]].T, s=2, alpha=0.5, linewidths=0)
    axis.set(title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
axes[0].set(xlabel="link 5", ylabel="link 6")
# alt: Four scatter plots of two neighboring links of the chain: data on a sine curve,
# one Gaussian an ellipse, RealNVP and MAF near the curve.
plt.show()

# %%
# What to notice
# --------------
#
# - The zeros are exact, because the mask multiplies the kernel: no penalty, no
#   approximation, whatever is inside.
# - A pass of the inverse fixes at least one variable more, so that ten are enough. The
#   samples of the masked flow and the densities of the inverse flow grow with the
#   number of variables, their other directions hardly.
# - So maximum likelihood takes the masked flow, which needs densities of data; and
#   variational inference takes the inverse one, which needs many samples and only the
#   densities of those, known as they are made. For images of thousands of pixels
#   neither is practical in its slow direction; couplings are quick in both.
# - Cheapness has its price too. A coupling conditions on half of the variables, an
#   autoregressive layer on all before. With as many weights the masked flow is as close
#   to the truth or closer, by an amount that depends on the order of the variables. It
#   still misses much: it has to find the shuffled chain.

masked, inverse = (
    costs[name, dear, SIZES[-1]] / costs[name, cheap, SIZES[-1]]
    for name, dear, cheap in [
        ("MAF", "sample", "density"),
        ("IAF", "density", "sample"),
    ]
)
claim(
    "Jacobian of a masked autoregressive layer: largest entry above the diagonal",
    np.abs(above).max(), "==", 0,
)  # fmt: skip
claim(
    "passes after which the inverse of ten variables is found to 0.001",
    passes, "<=", SIZE,
)  # fmt: skip
claim(
    "MAF of 64 variables: CPU time of a sample to that of a density",
    masked, ">", 3,
)  # fmt: skip
claim(
    "IAF of 64 variables: CPU time of a density to that of a sample",
    inverse, ">", 2.5,
)  # fmt: skip
claim(
    "shuffled chain of eight variables: test NLL of RealNVP less MAF's, median shuffle",
    np.median(np.subtract(nll["RealNVP"], nll["MAF"])), ">", -0.3, unit="nats",
    seeds=len(seeds),
)  # fmt: skip
claim(
    "shuffled chain of eight variables: test NLL of one Gaussian less MAF's, median",
    np.median(np.subtract(nll["one Gaussian"], nll["MAF"])), ">", 3, unit="nats",
    seeds=len(seeds),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Undo the shuffling. How much of what is missing does one layer in the right order
#    find, and one in the wrong order?
# 2. Train the inverse flow by ``fit``. It works; how long does an epoch take?
# 3. Use :class:`~dlcompanion.generative.MADE` alone, with one output for each pixel,
#    as a model of binarized digits (the logits of a Bernoulli), and draw from it.
#
# .. dropdown:: Hint to 1
#
#    ``orders = [np.arange(LINKS)]``, and the same reversed, with ``blocks=1``. In the
#    right order each conditional is a sine of one variable.
#
# .. dropdown:: Hint to 2
#
#    Each density of a training point takes as many passes as there are variables:
#    compare the CPU times above.
#
# .. dropdown:: Hint to 3
#
#    ``MADE(1)`` and a binary cross-entropy from logits; to draw, fill in the pixels one
#    after the other.
#
# References
# ----------
# The masks are those of :cite:t:`germain2015made`; the flows are from
# :cite:t:`papamakarios2017masked` and :cite:t:`kingma2016improved`.

# sphinx_gallery_thumbnail_number = 1
# sphinx_gallery_tags = ["model", "density", "intermediate"]
