r"""
Distribution heads (mixture density networks): a density where one number would be wrong
========================================================================================

A network trained by the squared error predicts the mean of what may happen. If the same
input can lead to two different outcomes, as at a fork of a road, the mean lies between
them, where there are no data. A distribution head returns the parameters of a
probability density instead, and the loss is the negative log-likelihood (NLL) of the
targets; with a mixture of normals the network is a mixture density network (MDN). Use
it if the target has several peaks, or if you need samples or quantiles; if one normal
is enough, :doc:`/gallery/losses/plot_maximum_likelihood` is simpler.
:class:`~dlcompanion.losses.DistributionHead` is the layer and
:class:`~dlcompanion.losses.NegativeLogLikelihood` the loss; which density it is, a
normal, a mixture, a count, is described by a small *spec* that both share.

In your own model
-----------------

Give head and loss the same spec:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.losses import DistributionHead, NegativeLogLikelihood
   from dlcompanion.probability import MixtureNormalSpec

   x = np.random.uniform(-2, 2, (500, 1)).astype("float32")
   y = np.random.choice([-1.0, 1.0], 500) + 0.1 * np.random.normal(size=500)
   spec = MixtureNormalSpec(2)
   hidden = keras.layers.Dense(32, activation="tanh")
   model = keras.Sequential([keras.Input((1,)), hidden, DistributionHead(spec)])
   model.compile("adam", NegativeLogLikelihood(spec))
   model.fit(x, y.astype("float32"), epochs=3, verbose=0)
   density = spec(model.predict(x, verbose=0))  # a distribution: .prob, .cdf, .sample

Prerequisites: :doc:`/gallery/losses/plot_maximum_likelihood`.

Neighbors: :doc:`/gallery/generative/plot_normalizing_flows` (densities without an
input). Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The last layer gives a vector :math:`\eta(x)`. For a mixture of :math:`K` normals it
# holds logits, means and unconstrained scales,
#
# .. math::
#
#    p(y \mid x) = \sum_{k=1}^K \pi_k(x)\,
#    \mathcal N\bigl(y;\, \mu_k(x),\, \sigma_k(x)^2\bigr), \qquad
#    L = -\frac1n \sum_i \log p(y_i \mid x_i) .
#
# With :math:`K = 1` and a constant :math:`\sigma` this is the squared error again. A
# layer of Keras returns tensors, so the head returns :math:`\eta`, and
# ``spec(eta)`` is the distribution, with its density, its quantiles and its samples.

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.losses import DistributionHead, NegativeLogLikelihood
from dlcompanion.probability import MixtureNormalSpec, NormalSpec
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())

# %%
# The data are drawn from a density that we choose, so the best possible likelihood is
# known. It has two roads. One becomes more likely and wider to the right, the other
# less likely and narrower.


def truth(x):
    """Probability of the upper road; means and spreads of both."""
    upper = 1 / (1 + np.exp(-0.7 * x))
    means = 1.1 + 0.5 * np.sin(1.5 * x), -1.1 + 0.5 * np.cos(1.5 * x)
    return upper, means, (0.22 + 0.06 * x, 0.25 - 0.05 * x)


def true_density(x, y):
    upper, means, spreads = truth(x)
    one, two = (stats.norm(m, s).pdf(y) for m, s in zip(means, spreads, strict=True))
    return upper * one + (1 - upper) * two


def draw(size, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size)
    upper, means, spreads = truth(x)
    on_upper = rng.uniform(size=size) < upper
    y = np.where(on_upper, means[0], means[1])
    y += np.where(on_upper, spreads[0], spreads[1]) * rng.normal(size=size)
    return x[:, None].astype("float32"), y.astype("float32")


*SEEDS, FRESH = claims.seeds(6)
x_test, y_test = draw(20_000, FRESH)
best_nll = -np.mean(np.log(true_density(x_test[:, 0], y_test)))

# %%
# Three networks of the same body: one number and the squared error, one normal, and
# four normals (twice as many as needed, since in practice the number is unknown). Five
# training sets of 10,000 points each, with one compiled program for each network.

across = np.linspace(-2, 2, 161, dtype="float32")[:, None]
STEPS, BATCH, SIZE = 1_000, 200, 10_000


def network(head):
    body = [keras.layers.Dense(32, "tanh") for _ in range(2)]
    return keras.Sequential([keras.Input((1,)), *body, head])


def train(head, loss):
    """Outputs for the test data of each seed, and for the picture of the first."""
    model, ended = network(head), []
    rate = keras.optimizers.schedules.CosineDecay(1e-2, STEPS)
    model.compile(keras.optimizers.Adam(rate), loss)
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        fresh = network(type(head).from_config(head.get_config()))
        restart(model, weights=fresh.get_weights())
        x, y = draw(SIZE, seed)
        epochs = STEPS * BATCH // SIZE
        fit_in_memory(model, x, y, batch_size=BATCH, epochs=epochs, verbose=0)
        ended.append(model.predict_on_batch(np.append(x_test, across, axis=0)))
    ended = np.array(ended)
    return ended[:, : len(x_test)], ended[0, len(x_test) :]


point, line = train(keras.layers.Dense(1), "mse")
specs = {"one normal": NormalSpec(), "four normals": MixtureNormalSpec(4)}
trained = {
    name: train(DistributionHead(spec), NegativeLogLikelihood(spec))
    for name, spec in specs.items()
}


# %%
# The planted density, and what the heads learned from 10,000 points. The white line is
# the network with one output and the squared error.

across, line = across[:, 0], line[:, 0]
up = np.linspace(-2.5, 2.5, 201, dtype="float32")
pictures = {"planted": true_density(across, up[:, None])}
for name, spec in specs.items():
    distribution = spec(trained[name][1])
    # parameters (161, ...), values (201, 161)
    tall = np.repeat(up[:, None], len(across), axis=1)
    pictures[name] = keras.ops.convert_to_numpy(distribution.prob(tall))

figure, axes = plt.subplots(
    1, 3, figsize=(10, 3.6), layout="constrained", sharex=True, sharey=True
)
for axis, (name, density) in zip(axes, pictures.items(), strict=True):
    axis.imshow(
        density, origin="lower", aspect="auto", cmap="magma", vmax=1.6,
        extent=[-2, 2, -2.5, 2.5],
    )  # fmt: skip
    axis.plot(across, line, color="white", lw=1.5, ls="--")
    axis.set(title=name, xlabel="x")
axes[0].set_ylabel("y")
# alt: Three densities of y over x: the planted one and four normals show two separate
# roads, one normal a single wide one; a dashed line, the squared error, runs between
# the roads.
plt.show()

# %%
# Two cuts through the densities. On the right a test that does not need the planted
# density (probability integral transform): put every test point into the distribution
# function that was predicted for it. If the prediction is right, the results are
# uniform.


def ranks(name):
    """Ranks of the test data, ``(seeds, examples)``."""
    distribution = specs[name](trained[name][0])
    return keras.ops.convert_to_numpy(
        distribution.cdf(np.tile(y_test, (len(SEEDS), 1)))
    )


uniformity = {name: ranks(name) for name in specs}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for axis, column in zip(axes, (60, 110), strict=False):
    axis.fill_between(up, pictures["planted"][:, column], color="0.85", label="planted")
    for number, name in enumerate(specs):
        axis.plot(up, pictures[name][:, column], color=f"C{number}", label=name)
    axis.axvline(line[column], color="0.3", ls="--", lw=1, label="squared error")
    axis.set(title=f"p(y | x = {across[column]:.2f})", xlabel="y")
axes[0].legend(fontsize="small")
for number, (name, values) in enumerate(uniformity.items()):
    axes[2].hist(
        values[0], 25, range=(0, 1), density=True, histtype="step", lw=1.5,
        color=f"C{number}", label=name,
    )  # fmt: skip
axes[2].axhline(1, color="0.7", lw=1)
axes[2].set(title="rank of y in its prediction", xlabel="F(y | x)", ylim=(0, None))
# alt: Left and middle, cuts through the densities: four normals follow the two planted
# peaks, one normal covers both; right, histograms of ranks: flat for four normals, two
# humps for one.
plt.show()

# %%
# The scores on 20,000 fresh points. The network with one number gets the best constant
# spread that its own test errors allow.


errors = point[:, :, 0] - y_test  # (seeds, examples)


def nll(name):
    log_prob = specs[name].log_prob(trained[name][0], np.tile(y_test, (len(SEEDS), 1)))
    return -np.mean(keras.ops.convert_to_numpy(log_prob), axis=1)


scores = {
    "one number": np.array([-stats.norm(0, e.std()).logpdf(e).mean() for e in errors])
}
scores |= {name: nll(name) for name in specs}
marginal = stats.gaussian_kde(draw(SIZE, SEEDS[0])[1])
print(f"never looking at x      {-np.mean(marginal.logpdf(y_test[:2_000])):.3f}")
for name, values in scores.items():
    print(f"{name:<22}  {np.median(values):.3f}  (worst {values.max():.3f})")
print(f"planted density         {best_nll:.3f}")

# %%
# Last, the planted density at the prediction of the squared error, relative to its
# highest value at the same :math:`x`. If it is small, there are hardly any data there.

densest = true_density(x_test[:2_000, 0], up[:, None]).max(axis=0)
here = true_density(x_test[:2_000, 0], point[:, :2_000, 0])
relative = np.median(here / densest, axis=1)
deviation = {
    name: np.array([stats.kstest(one, "uniform").statistic for one in values])
    for name, values in uniformity.items()
}

# %%
# What to notice
# --------------
#
# - The number of roads was not given; the two spare normals did no harm.
# - One normal does not help. It learns the right mean and variance at every :math:`x`,
#   is therefore wide where the roads are far apart, and puts most of its mass between
#   them: the two cuts show it.
# - The first line of the table is a density that ignores :math:`x`. It is better than
#   both networks with the wrong shape of density.
# - The ranks are uniform for the mixture. Those of the normal have two humps: its
#   density is highest where there are few data.
# - The logarithm of a density depends on the unit of :math:`y`: with
#   centimeters for meters every score here would rise by :math:`\log 100`. Only
#   *differences* mean something, and the percentage below is of this one planted
#   problem.

claim(
    "test NLL of four normals above that of the planted density, median",
    100 * (np.median(scores["four normals"]) / best_nll - 1),
    "<",
    3.0,
    unit="%",
    seeds=len(SEEDS),
)
claim(
    "test NLL of one normal less that of four normals, worst seed",
    (scores["one normal"] - scores["four normals"]).min(),
    ">",
    0.2,
    unit="nats",
    seeds=len(SEEDS),
)
claim(
    "test NLL of the squared error less that of four normals, worst seed",
    (scores["one number"] - scores["four normals"]).min(),
    ">",
    0.2,
    unit="nats",
    seeds=len(SEEDS),
)
claim(
    "planted density at the squared error's mean to its highest, median, worst seed",
    relative.max(),
    "<",
    0.25,
    seeds=len(SEEDS),
)
claim(
    "ranks under four normals against uniform, largest distance, worst seed",
    deviation["four normals"].max(),
    "<",
    0.03,
    seeds=len(SEEDS),
)
claim(
    "ranks under one normal against uniform, largest distance, best seed",
    deviation["one normal"].min(),
    ">",
    0.05,
    seeds=len(SEEDS),
)

# %%
# Try it
# ------
#
# 1. Use :class:`~dlcompanion.probability.MixtureLogisticSpec`. The components now have
#    the wrong shape. How many of them are needed to be as good?
#
# .. dropdown:: Hint to 1
#
#    Only ``specs`` changes. The planted density is the limit that no number of
#    components passes.
#
# 2. Start the head with ``kernel_initializer="zeros"``: all inputs get the same density
#    at first. Does it learn sooner or later?
#
# .. dropdown:: Hint to 2
#
#    ``DistributionHead(spec, kernel_initializer="zeros")``; compare the first epochs of
#    the history that ``fit_in_memory`` returns.
#
# 3. Train on 100 points. Which head overfits first, and how does its likelihood on
#    fresh points show it?
#
# .. dropdown:: Hint to 3
#
#    ``SIZE = 100`` and ``BATCH = 100``. A component can become very narrow around a
#    single point.
#
# References
# ----------
# The mixture density network is :cite:t:`bishop1994mixture`; that ranks under the
# right prediction are uniform goes back to :cite:t:`rosenblatt1952remarks`.

# sphinx_gallery_tags = ["layer", "loss", "introductory"]
