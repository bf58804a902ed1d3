r"""
Asked for one number, a network answers where there is no data
==============================================================

At a fork one may go left or right, and the mean of the two is the tree in the middle.
A network trained by the squared error predicts that mean, and cannot even say that it
is in doubt. The remedy is thirty years old: let the network return the parameters of a
density, and let the loss be the negative logarithm of it.
:class:`~dlcompanion.losses.DistributionHead` is the layer and
:class:`~dlcompanion.losses.NegativeLogLikelihood` the loss; what they speak of, a
normal, a mixture, a count, is a small *spec* that both share.

Before this page: :ref:`sphx_glr_gallery_generative_plot_normalizing_flows.py` knows a
density without conditions; notation: :doc:`/notation`.
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

from dlcompanion.claims import claim
from dlcompanion.losses import DistributionHead, NegativeLogLikelihood
from dlcompanion.probability import MixtureNormalSpec, NormalSpec
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(0)

# %%
# We plant the truth, so that we know the best likelihood that anybody can reach. Two
# roads lead through the picture. One becomes more likely and wider to the right, the
# other less likely and narrower.


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


x_test, y_test = draw(20_000, seed=100)
best_nll = -np.mean(np.log(true_density(x_test[:, 0], y_test)))

# %%
# Three networks of the same body: one number and the squared error, one normal, and
# four normals (twice as many as there are, since nobody tells us). Five training sets
# of 10,000 points each, with one compiled program for each network.

SEEDS, STEPS, BATCH, SIZE = 5, 1_500, 200, 10_000


def network(head):
    body = [keras.layers.Dense(32, "tanh") for _ in range(2)]
    return keras.Sequential([keras.Input((1,)), *body, head])


def train(head, loss):
    """The network, and its final weights for each seed."""
    model, ended = network(head), []
    rate = keras.optimizers.schedules.CosineDecay(1e-2, STEPS)
    model.compile(keras.optimizers.Adam(rate), loss)
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        fresh = network(type(head).from_config(head.get_config()))
        restart(model, weights=fresh.get_weights())
        x, y = draw(SIZE, seed)
        epochs = STEPS * BATCH // SIZE
        fit_in_memory(model, x, y, batch_size=BATCH, epochs=epochs, verbose=0)
        ended.append(model.get_weights())
    return model, ended


point, point_weights = train(keras.layers.Dense(1), "mse")
specs = {"one normal": NormalSpec(), "four normals": MixtureNormalSpec(4)}
trained = {
    name: train(DistributionHead(spec), NegativeLogLikelihood(spec))
    for name, spec in specs.items()
}


def each_seed(model, ended, measure):
    """What ``measure`` says of the outputs for the test data, seed by seed."""
    values = []
    for weights in ended:
        model.set_weights(weights)
        outputs = model.predict(x_test, batch_size=len(x_test), verbose=0)
        values.append(measure(outputs))
    return np.array(values)


# %%
# The planted density, and what the heads made of 10,000 points. The white line is the
# network that was asked for one number.

across = np.linspace(-2, 2, 161, dtype="float32")
up = np.linspace(-2.5, 2.5, 201, dtype="float32")
pictures = {"planted": true_density(across, up[:, None])}
for name, spec in specs.items():
    model, ended = trained[name]
    model.set_weights(ended[0])
    distribution = spec(model.predict(across[:, None], verbose=0))
    # parameters (161, ...), values (201, 161): TFP broadcasts where it is asked to
    tall = np.repeat(up[:, None], len(across), axis=1)
    pictures[name] = keras.ops.convert_to_numpy(distribution.prob(tall))
point.set_weights(point_weights[0])
line = point.predict(across[:, None], verbose=0)[:, 0]

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
plt.show()

# %%
# Two cuts through the picture. On the right a test that needs no truth: put every test
# point into the distribution function that was predicted for it. If the prediction is
# right, the results are uniform, whatever the shapes are.


def ranks(name):
    spec = specs[name]

    def measure(outputs):
        return keras.ops.convert_to_numpy(spec(outputs).cdf(y_test))

    return each_seed(*trained[name], measure)


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
plt.show()

# %%
# The scores on 20,000 fresh points. The network with one number gets the best constant
# spread that its own test errors allow.


def nll_of_errors(outputs):
    spread = np.std(outputs[:, 0] - y_test)
    return -np.mean(stats.norm(outputs[:, 0], spread).logpdf(y_test))


def nll(name):
    spec = specs[name]

    def measure(outputs):
        return -np.mean(keras.ops.convert_to_numpy(spec.log_prob(outputs, y_test)))

    return each_seed(*trained[name], measure)


scores = {"one number": each_seed(point, point_weights, nll_of_errors)}
scores |= {name: nll(name) for name in specs}
marginal = stats.gaussian_kde(draw(SIZE, 0)[1])
print(f"never looking at x      {-np.mean(marginal.logpdf(y_test[:2_000])):.3f}")
for name, values in scores.items():
    print(f"{name:<22}  {np.median(values):.3f}  (worst {values.max():.3f})")
print(f"planted density         {best_nll:.3f}")

# %%
# And the tree in the middle: how dense is the truth where the squared error points,
# compared with the densest place at the same :math:`x`?

densest = true_density(x_test[:2_000, 0], up[:, None]).max(axis=0)


def emptiness(outputs):
    here = true_density(x_test[:2_000, 0], outputs[:2_000, 0])
    return np.median(here / densest)


relative = each_seed(point, point_weights, emptiness)
deviation = {
    name: np.array([stats.kstest(one, "uniform").statistic for one in values])
    for name, values in uniformity.items()
}

# %%
# What to notice
# --------------
#
# - Nobody told the head how many roads there are; the two spare normals did no harm.
# - One normal is no cure. It learns the right mean and the right variance at every
#   :math:`x`, is therefore wide where the roads are far apart, and puts most of its
#   mass between them: the two cuts show it.
# - The first line of the table is a density that never looks at :math:`x`, and it
#   beats both networks that do: the wrong shape cost them more than :math:`x` told.
# - The ranks are uniform for the mixture. Those of the normal have two humps and a
#   valley: it expects most where there is least. This test needs no truth.
# - The logarithm of a density depends on the unit of :math:`y`: with
#   centimetres for metres every score here would rise by :math:`\log 100`. Only
#   *differences* mean something, and the percentage below is of this one planted
#   problem.

claim(
    "four normals: likelihood above that of the planted density, worst seed",
    100 * (scores["four normals"].max() / best_nll - 1),
    "<",
    2.0,
    unit="%",
    seeds=SEEDS,
)
claim(
    "nats that one normal loses against four, worst seed",
    (scores["one normal"] - scores["four normals"]).min(),
    ">",
    0.2,
    unit="nats",
    seeds=SEEDS,
)
claim(
    "nats that one number loses against four normals, worst seed",
    (scores["one number"] - scores["four normals"]).min(),
    ">",
    0.2,
    unit="nats",
    seeds=SEEDS,
)
claim(
    "true density at the squared error's answer, of the densest, median, worst seed",
    relative.max(),
    "<",
    0.25,
    seeds=SEEDS,
)
claim(
    "ranks of four normals: largest distance from uniform, worst seed",
    deviation["four normals"].max(),
    "<",
    0.03,
    seeds=SEEDS,
)
claim(
    "the same for one normal, best seed",
    deviation["one normal"].min(),
    ">",
    0.05,
    seeds=SEEDS,
)

# %%
# Try it
# ------
#
# 1. Use :class:`~dlcompanion.probability.MixtureLogisticSpec`. The components now have
#    the wrong shape. How many of them buy that back?
# 2. Start the head with ``kernel_initializer="zeros"``: all inputs get the same density
#    at first. Does it learn sooner or later?
# 3. Train on 100 points. Which head overfits first, and how does its
#    likelihood on fresh points say so?
# 4. Make :math:`y` two-dimensional and compare a mixture of diagonal normals with
#    :class:`~dlcompanion.probability.MultivariateNormalTriLSpec`.
#
# References
# ----------
# The mixture density network is :cite:t:`bishop1994mixture`; that ranks under the
# right prediction are uniform goes back to :cite:t:`rosenblatt1952remarks`.

# sphinx_gallery_tags = ["layer", "loss", "density", "TensorFlow and JAX", "beginner"]
