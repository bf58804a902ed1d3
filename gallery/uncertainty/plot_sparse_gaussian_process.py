r"""
Sparse Gaussian processes: thirty inducing points do the work of six hundred examples
=====================================================================================

A Gaussian process (GP) is a regression model that returns a mean and a standard
deviation at every input, and the deviation grows where there are no data. Its price is
a matrix with a row for every example, which has to be inverted. A sparse Gaussian
process replaces the examples by a few inducing points, whose places and values are
learned with any optimizer, on minibatches. Use
:class:`~dlcompanion.uncertainty.SparseGaussianProcess` for smooth functions of few
variables, alone or as the last layer of a network (deep kernel learning); with fewer
than about a thousand examples the exact process is simpler, and for images a network is
better. This page compares it with scikit-learn's exact process.

In your own model
-----------------

The process is a layer, and ``GaussianNLL`` its loss:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.losses import GaussianNLL
   from dlcompanion.uncertainty import SparseGaussianProcess

   x = np.random.uniform(-2, 2, (500, 1)).astype("float32")
   y = np.sin(3 * x) + 0.1 * np.random.normal(size=x.shape).astype("float32")
   layer = SparseGaussianProcess(inducing_points=20, training_examples=len(x))
   model = keras.Sequential([keras.Input((1,)), layer])
   layer.place_inducing_points(x)
   model.compile(keras.optimizers.Adam(0.03), GaussianNLL())
   model.fit(x, y, batch_size=100, epochs=3, verbose=0)
   mean, rho = model.predict(x, verbose=0).T
   deviation = np.logaddexp(0, rho)  # with the noise

Prerequisites: :doc:`/gallery/losses/plot_maximum_likelihood`.

Neighbors: :doc:`/gallery/uncertainty/plot_laplace`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Let :math:`u = f(Z)` be the values at :math:`M` inducing points. Give them a normal
# distribution :math:`q(u)` to be trained; given :math:`u`, all other values follow the
# prior. The evidence is then bounded from below,
#
# .. math::
#
#    \log p(y) \ge
#    \sum_i \mathbb E_{q}\bigl[\log \mathcal N(y_i; f(x_i), \sigma^2)\bigr]
#    - \operatorname{KL}\bigl(q(u) \,\Vert\, p(u)\bigr) .
#
# The bound is a sum over examples, so minibatches estimate it. The inducing points are
# parameters of :math:`q` and not of the model: more of them can only tighten the
# bound, never overfit.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.losses import GaussianNLL
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import SparseGaussianProcess

keras.utils.set_random_seed(claims.seed())

# %%
# Three data sets of six hundred noisy points of a wave that is rougher on its right
# half, with a gap in the middle. The exact process is scikit-learn's, with kernel and
# noise fitted by the evidence.

SIZE, STEPS, BATCH = 600, 450, 200
*SEEDS, FRESH = claims.seeds(4)
counts = [5, 10, 30]


def wave(x):
    return np.sin(4 * x) + 0.5 * np.sin(9 * x) * (x > 0)


def draw(size, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.3, 2, (size, 1)) * rng.choice([-1, 1], (size, 1))
    y = wave(x) + 0.2 * rng.normal(size=x.shape)
    return x.astype("float32"), y.astype("float32")


x_test, y_test = draw(1_000, FRESH)


def nll(mean, scale):
    z = (y_test[:, 0] - mean) / scale
    return float(np.mean(0.5 * z**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)))


def exact(x, y, kernel=None):
    start = ConstantKernel(1.0) * RBF(0.5) + WhiteKernel(0.1)
    optimizer = "fmin_l_bfgs_b" if kernel is None else None
    process = GaussianProcessRegressor(kernel or start, alpha=0, optimizer=optimizer)
    return process.fit(x, y[:, 0])


# %%
# The sparse process is a layer and ``GaussianNLL`` its loss. In training the layer adds
# what is missing of the bound; in inference it returns the prediction.


def process(count):
    layer = SparseGaussianProcess(
        inducing_points=count, training_examples=SIZE, lengthscale=0.5, noise=0.3
    )
    model = keras.Sequential([keras.Input((1,)), layer])
    rate = keras.optimizers.schedules.CosineDecay(5e-2, STEPS)
    model.compile(keras.optimizers.Adam(rate), GaussianNLL())
    return model


def sparse(model, x, y, seed):
    """Train anew; the bound on the evidence, an example."""
    layer = model.layers[-1]
    restart(model, seed)
    layer.place_inducing_points(x, seed=seed)
    # ten times the points an epoch, which costs more than a step
    many = np.tile(x, (10, 1)), np.tile(y, (10, 1))
    epochs = STEPS * BATCH // len(many[0])
    fit_in_memory(model, *many, batch_size=BATCH, epochs=epochs, verbose=0)
    loss = GaussianNLL()(y, layer(x, training=True)) + layer.losses[0]
    return -float(keras.ops.convert_to_numpy(loss))


def predict(model, x):
    params = model.predict_on_batch(x)
    return params[:, 0], np.logaddexp(0, params[:, 1]) + 1e-5


grid = np.linspace(-2.6, 2.6, 400, dtype="float32")[:, None]
processes = {count: process(count) for count in counts}
rows = []
for seed in SEEDS:
    keras.utils.set_random_seed(seed)
    x, y = draw(SIZE, seed)
    full = exact(x, y)
    few = np.random.default_rng(seed).permutation(SIZE)[: counts[-1]]
    subset = exact(x[few], y[few], full.kernel_)  # the right kernel, for nothing
    row = {
        "exact": nll(*full.predict(x_test, return_std=True)),
        "subset": nll(*subset.predict(x_test, return_std=True)),
        "evidence": full.log_marginal_likelihood_value_ / SIZE,
    }
    for count, model in processes.items():
        row["bound", count] = sparse(model, x, y, seed)
        mean, scale = predict(model, np.concatenate([x_test, grid]))
        row[count] = nll(mean[: len(x_test)], scale[: len(x_test)])
        inducing = keras.ops.convert_to_numpy(model.layers[-1].inducing)[:, 0]
        row["curve", count] = mean[len(x_test) :], scale[len(x_test) :], inducing
    row["exact curve"] = full.predict(grid, return_std=True)
    rows.append(row)

# %%
# One of the three data sets. The marks at the bottom are the inducing points. Ten of
# them are too few for the rough half; with thirty no difference from the exact process
# is visible where there are data. In the gap, where there are none, the band widens.

x, y = draw(SIZE, SEEDS[0])
figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained", sharey=True)
for axis, count in zip(axes[:2], counts[1:], strict=True):
    mean, scale, inducing = rows[0]["curve", count]
    axis.scatter(inducing, np.full_like(inducing, -2.4), marker="|", color="C3")
    axis.plot(grid, mean, color="C0")
    axis.fill_between(
        grid[:, 0], mean - 2 * scale, mean + 2 * scale, alpha=0.25, color="C0"
    )
    axis.set(title=f"{count} inducing points")
mean, scale = rows[0]["exact curve"]
axes[2].plot(grid, mean, color="C1")
axes[2].fill_between(
    grid[:, 0], mean - 2 * scale, mean + 2 * scale, alpha=0.25, color="C1"
)
axes[2].set(title="exact, 600 points")
for axis in axes:
    axis.scatter(x, y, s=3, color="0.6", zorder=0)
    axis.set(xlabel="x", ylim=(-2.6, 2.6))
# alt: Three regressions on the same points: with ten inducing points the rough right
# half is missed, with thirty the curve and its band look like those of the exact
# process, which is the third.
plt.show()

# %%
# Left, the bound approaches the evidence from below. Right, the negative log-likelihood
# of fresh points. The dashed line is the exact process on thirty of the examples,
# chosen at random, which costs about as little.

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for row in rows:
    left.plot(counts, [row["bound", c] for c in counts], "o-", color="C0", lw=0.8)
    left.axhline(row["evidence"], color="C1", lw=0.8)
    right.plot(counts, [row[c] for c in counts], "o-", color="C0", lw=0.8)
    right.axhline(row["exact"], color="C1", lw=0.8)
    right.axhline(row["subset"], color="0.5", ls="--", lw=0.8)
right.plot([], [], "o-", color="C0", label="sparse")
right.plot([], [], color="C1", label="exact, 600 points")
right.plot([], [], "--", color="0.5", label="exact, 30 points")
right.legend(fontsize="small")
left.set(title="bound and evidence, an example", xlabel="inducing points")
right.set(title="test NLL (nats)", xlabel="inducing points")
# alt: Left, the bound against the number of inducing points, rising to the line of the
# exact evidence; right, the test NLL falling to that of the exact process, below an
# exact process on thirty examples.
plt.show()

print(f"a constant and its spread   {nll(y_test.mean(), y_test.std()):.3f}")
for name in ("subset", *counts, "exact"):
    values = [row[name] for row in rows]
    print(f"{name!s:>8}  test NLL {np.median(values):.3f}  (worst {max(values):.3f})")

# %%
# What to notice
# --------------
#
# - The bound is useful by itself: when more points no longer raise it, there are
#   enough.
# - Beyond the data and in the gap the sparse band widens, too, though less than the
#   exact one. A network that predicts its spread (GaussianNLL alone) has no such band.
# - One lengthscale for all of :math:`x` is wrong here, since the right half is rougher.
#   That is an error of the model, not of the approximation: both processes have it.

above = max(row["bound", c] - row["evidence"] for row in rows for c in counts)
claim(
    "lower bound less exact evidence, nats an example, largest of 9 processes",
    above, "<", 0.0,
)  # fmt: skip
claim(
    "test NLL of 30 inducing points less that of the exact process, worst seed",
    max(row[30] - row["exact"] for row in rows), "<", 0.12,
    unit="nats", seeds=len(SEEDS),
)  # fmt: skip
claim(
    "test NLL of an exact process on 30 examples less 30 inducing points, median",
    np.median([row["subset"] - row[30] for row in rows]), ">", 0.1,
    unit="nats", seeds=len(SEEDS),
)  # fmt: skip
claim(
    "test NLL of 5 inducing points less that of the exact process: worse, best seed",
    min(row[5] - row["exact"] for row in rows), ">", 0.1, unit="nats", seeds=len(SEEDS),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Put ``keras.layers.Dense(16, "tanh")`` and ``keras.layers.Dense(2)`` before the
#    layer. What happens to the band in the gap?
#
# .. dropdown:: Hint to 1
#
#    The inducing points live in the space of the features now: place them with the
#    features of ``x``. Points of the gap may have features like those of data.
#
# 2. Make ``inducing`` not trainable and put the points on a grid. How many points does
#    that cost?
#
# .. dropdown:: Hint to 2
#
#    ``layer.inducing.trainable = False`` before ``compile``, and
#    ``layer.inducing.assign`` with a ``linspace`` of shape ``(count, 1)`` in place of
#    ``place_inducing_points``.
#
# 3. Set ``training_examples`` to a tenth. Which term of the bound changes, and what
#    does the band do?
#
# .. dropdown:: Hint to 3
#
#    The KL term is divided by ``training_examples``: ten times as much weight pulls
#    :math:`q(u)` to the prior.
#
# References
# ----------
# The bound is from :cite:t:`titsias2009variational`; that it can be trained on
# minibatches from :cite:t:`hensman2013gaussian`.

# sphinx_gallery_tags = ["layer", "regression", "intermediate"]
