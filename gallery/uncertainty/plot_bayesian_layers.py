r"""
Bayesian neural network layers: divide the KL term by the number of examples
============================================================================

An ordinary network has one number for each weight, and its predictions do not show how
uncertain they are. A Bayesian neural network (BNN) learns a probability distribution
over its weights instead. Each draw of the weights gives a prediction; where the draws
disagree, the prediction is uncertain. Bayes by backprop (variational inference) trains
this distribution with the usual optimizer. Use it if you have few data and need
uncertainty from a single model; where accuracy is all that counts, or where you can
afford several networks, :doc:`/gallery/uncertainty/plot_deep_ensembles` is simpler and
often better.
This page compares :class:`~dlcompanion.uncertainty.DenseFlipout` and its relatives with
a posterior that is known exactly, shows the most common mistake, measures what flipout
is for, and tests a Bayesian convolutional network on digits and on out-of-distribution
images.

In your own model
-----------------

Replace ``Dense`` by ``DenseFlipout``, tell the model how many training examples there
are, and draw predictions:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import (
       DenseFlipout,
       predictive_samples,
       set_training_examples,
   )

   x = np.linspace(-2, 2, 100, dtype="float32")[:, None]
   y = np.sin(2 * x)
   model = keras.Sequential(
       [keras.Input((1,)), DenseFlipout(32, "tanh"), DenseFlipout(1)]
   )
   set_training_examples(model, len(x))  # the N of the formula below
   model.compile("adam", "mse")
   model.fit(x, y, epochs=3, verbose=0)
   draws = predictive_samples(model, x, samples=10)  # (10, 100, 1)
   mean, deviation = draws.mean(axis=0), draws.std(axis=0)

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`.

Neighbors: :doc:`/gallery/uncertainty/plot_monte_carlo_dropout`,
:doc:`/gallery/uncertainty/plot_laplace`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Every weight has a mean and a standard deviation, :math:`q(w) = \prod_i \mathcal
# N(w_i; \mu_i, \sigma_i^2)`. Of all such :math:`q` the one nearest to the posterior
# maximizes the bound on the evidence. As a loss of one example out of :math:`N`,
#
# .. math::
#
#    -\mathbb E_{w \sim q} \log p(y_n \mid x_n, w)
#    + \frac1N \mathrm{KL}\left(q(w) \,\|\, p(w)\right),
#    \qquad w = \mu + \sigma \odot \varepsilon .
#
# The KL divergence from the prior belongs to the whole training set, and the loss is an
# average over examples, hence the :math:`1/N`. ``fit`` has no access to :math:`N`, so a
# layer whose ``training_examples`` are not set raises an error in training.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from dlcompanion import backend, claims, datasets
from dlcompanion.autodiff import value_and_grad
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import (
    Conv2DFlipout,
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
    NormalPosterior,
    NormalPrior,
    predictive_entropy,
    predictive_samples,
    set_training_examples,
)

keras.utils.set_random_seed(claims.seed())
NOISE, SEEDS = 0.2, claims.seeds(5)


def target(x):
    return np.sin(2 * x) + 0.3 * x


rng = np.random.default_rng(claims.seed())
x_seen = np.concatenate([rng.uniform(-3, -1, 30), rng.uniform(0.8, 2, 20)])
y_seen = target(x_seen) + NOISE * rng.normal(size=50)
grid = np.linspace(-4.5, 4.5, 181)


def gaussian_loss(y, prediction):
    """Negative log-likelihood of a normal with known noise, without its constant."""
    return 0.5 * keras.ops.mean((y - prediction) ** 2, axis=-1) / NOISE**2


# %%
# A posterior that is known
# -------------------------
#
# Linear regression on fixed features :math:`\phi(x)`, here 12 Gaussian bumps, has the
# posterior :math:`\mathcal N(m, S)` with :math:`S^{-1} = I + \Phi^\top \Phi /
# \sigma^2` and :math:`m = S \Phi^\top y / \sigma^2`. Independent weights cannot follow
# its correlations, so we turn the features to the directions in which it has none, the
# eigenvectors of :math:`\Phi^\top \Phi`; a rotation leaves the prior as it is. Now
# the layer can be exact, and we can see whether it is, from five starts. All begin with
# small deviations: with large ones the first gradients are so noisy that Adam, which
# averages over the last thousand steps, hardly moves.

centers = np.linspace(-4, 4, 12)


def bumps(x):
    return np.exp(-0.5 * ((x[:, None] - centers) / 0.7) ** 2)


directions = np.linalg.eigh(bumps(x_seen).T @ bumps(x_seen))[1]
features = (bumps(x_seen) @ directions).astype("float32")
covariance = np.linalg.inv(np.eye(12) + features.T @ features / NOISE**2)
exact_mean = covariance @ features.T @ y_seen / NOISE**2
exact_std = np.sqrt(np.diag(covariance))

layer = DenseLocalReparameterization(
    1, use_bias=False, kernel_posterior=NormalPosterior(initial_scale=0.3)
)
model = keras.Sequential([keras.Input((12,)), layer])
set_training_examples(model, len(x_seen))
# ten steps an epoch, and in each of them every point twenty times: less noise a step
many = np.tile(features, (200, 1)), np.tile(y_seen, 200)[:, None]
steps = {"shuffle": False, "verbose": 0}
rate = keras.optimizers.schedules.CosineDecay(0.1, 300)
model.compile(keras.optimizers.Adam(rate), gaussian_loss)
means, stds = [], []
for seed in SEEDS:
    keras.utils.set_random_seed(seed)
    loc = 0.3 * np.random.normal(size=(12, 1))
    restart(model, weights=[loc, np.full((12, 1), -3.0)])
    fit_in_memory(model, *many, batch_size=1000, epochs=30, **steps)
    means.append(keras.ops.convert_to_numpy(layer.kernel_posterior.mean())[:, 0])
    stds.append(keras.ops.convert_to_numpy(layer.kernel_posterior.stddev())[:, 0])
mean_errors = [
    np.linalg.norm(m - exact_mean) / np.linalg.norm(exact_mean) for m in means
]
std_errors = [np.max(np.abs(s / exact_std - 1)) for s in stds]

phi = (bumps(grid) @ directions).astype("float32")
draws = predictive_samples(model, phi, samples=400, seed=claims.seed())[..., 0]
exact_band = np.sqrt(np.einsum("ni,ij,nj->n", phi, covariance, phi))
figure, axes = plt.subplots(
    1, 2, figsize=(10, 3.6), layout="constrained", width_ratios=[1, 1.7]
)
axes[0].errorbar(exact_mean, means[-1], stds[-1], fmt="o", ms=4)
axes[0].plot([-2.5, 2.5], [-2.5, 2.5], color="0.6", lw=1, zorder=0)
axes[0].set(xlabel="mean of a weight, exact", ylabel="learned, with its deviation")
axes[0].axis("equal")
center = phi @ exact_mean
axes[1].fill_between(
    grid, center - 2 * exact_band, center + 2 * exact_band, color="C0", alpha=0.25,
    label="exact: two deviations",
)  # fmt: skip
for sign in (-2, 2):
    axes[1].plot(
        grid, draws.mean(axis=0) + sign * draws.std(axis=0), "C1--", lw=1.2,
        label="learned" if sign == 2 else None,
    )  # fmt: skip
axes[1].plot(grid, target(grid), "k:", lw=1, label="truth")
axes[1].plot(x_seen, y_seen, "k.", ms=4)
axes[1].set(ylim=(-4, 4), xlabel="$x$")
axes[1].legend(fontsize="small", ncols=3, loc="upper center")
# alt: Left, learned means of twelve weights against the exact ones, with deviations, on
# the diagonal; right, the learned band of two deviations lies on the exact one and
# widens where there are no points.
plt.show()

# %%
# What goes wrong without 1/N
# ---------------------------
#
# A small network on the same points, trained in three ways: with the divergence divided
# by the 50 examples; undivided, as if the factor had been forgotten; and divided by far
# too much. With flipout every point of a curve has its own draw of the weights. To draw
# whole functions, the trained posterior is copied to layers that draw one kernel a
# call.


def curve_network(layer):
    def wide():
        return NormalPosterior(keras.initializers.RandomNormal(stddev=2.0))

    prior = NormalPrior(2.0)
    first = layer(
        40, "tanh", kernel_posterior=wide(), bias_posterior=wide(), prior=prior
    )
    return keras.Sequential([keras.Input((1,)), first, layer(1)])


curve, functions = curve_network(DenseFlipout), curve_network(DenseReparameterization)
curve.compile(keras.optimizers.Adam(0.03), gaussian_loss)
columns = [np.tile(a, 20)[:, None].astype("float32") for a in (x_seen, y_seen)]
column = grid[:, None].astype("float32")
cases = {"divided by N = 50": 50, "not divided": 1, "divided by 1,000,000": 10**6}
near = (grid > -3) & (grid < -1) | (grid > 0.8) & (grid < 2)
bands, errors, spreads = {}, {}, {}
for name, examples in cases.items():
    set_training_examples(curve, examples)
    errors[name], spreads[name] = [], []
    for seed in SEEDS[: 1 if examples > 50 else 3]:
        restart(curve, seed)
        fit_in_memory(curve, *columns, batch_size=len(x_seen), epochs=25, **steps)
        functions.set_weights(curve.get_weights())
        bands[name] = predictive_samples(functions, column, 50, seed=seed)[..., 0]
        miss = bands[name].mean(axis=0) - target(grid)
        errors[name].append(np.sqrt(np.mean(miss[near] ** 2)))
        spreads[name].append([bands[name].std(axis=0)[m].mean() for m in (near, ~near)])

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
for axis, (name, drawn) in zip(axes, bands.items(), strict=True):
    center, spread = drawn.mean(axis=0), drawn.std(axis=0)
    axis.fill_between(grid, center - 2 * spread, center + 2 * spread, alpha=0.25)
    axis.plot(grid, drawn[:6].T, "C0", lw=0.4)
    axis.plot(grid, center, "C0")
    axis.plot(grid, target(grid), "k:", lw=1)
    axis.plot(x_seen, y_seen, "k.", ms=3)
    axis.set(title=name, ylim=(-4, 4), xlabel="$x$")
# alt: Three regressions with their bands: with the KL term divided by 50 the curve
# follows the points; undivided it is flat with a wide band; divided by a million all
# draws agree.
plt.show()
print(f"{'':24s} RMSE   deviation of the draws, near and far from data (medians)")
for name in cases:
    near_far = np.median(spreads[name], axis=0)
    print(f"{name:24s} {np.median(errors[name]):.3f}  {near_far.round(3)}")

# %%
# What flipout is for
# -------------------
#
# With one draw of the kernel for the whole batch, the noise is the same for all
# examples, and the gradient stays noisy however large the batch is. Flipout gives each
# example a draw of its own, for the price of a second matrix product.

sizes = [1, 8, 64, 256]
kinds = {
    "one kernel a batch": DenseReparameterization,
    "flipout": DenseFlipout,
    "local reparameterization": DenseLocalReparameterization,
}
variance = {kind: [] for kind in kinds}
for kind, layer_class in kinds.items():
    dense = layer_class(
        8,
        kernel_posterior=NormalPosterior("zeros", 0.3),
        training_examples=1,
        seed=claims.seed(),
    )
    dense.build((None, 16))

    def loss(batch, dense=dense):
        return keras.ops.mean(keras.ops.sum((dense(batch) - 1.0) ** 2, axis=-1))

    by_mean = value_and_grad(loss, argnums=(), variables=[dense.kernel_posterior.loc])
    gradient = backend.compile(by_mean, jit=False)
    for size in sizes:
        batch = keras.ops.convert_to_tensor(rng.normal(size=(size, 16)), "float32")
        drawn = [keras.ops.convert_to_numpy(gradient(batch)[1][0]) for _ in range(30)]
        variance[kind].append(np.var(drawn, axis=0).mean())

figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for kind, values in variance.items():
    axis.loglog(sizes, values, "o-", label=kind)
axis.set(xlabel="examples in a batch", ylabel="variance of the gradient by $\\mu$")
axis.legend()
# alt: Variance of the gradient against the batch size, logarithmic: for one kernel a
# batch it hardly falls, for flipout and local reparameterization it falls with the
# batch.
plt.show()

# %%
# Digits, 300 to learn from
# -------------------------
#
# The same small convolutional network with Keras's layers and with
# :class:`~dlcompanion.uncertainty.Conv2DFlipout`. The Bayesian one predicts by the
# mean of ten draws. The out-of-distribution images are digits with shuffled pixels.

(x_train, y_train), (x_test, y_test) = datasets.digits(test=0.3, seed=claims.seed())
shuffled = rng.permuted(x_test.reshape(len(x_test), -1), axis=1)
foreign = shuffled.reshape(x_test.shape)  # the pixels of each digit, in random order


def digit_network(convolution, dense):
    return keras.Sequential(
        [
            keras.Input(x_train.shape[1:]),
            convolution(16, 3, activation="relu", padding="same"),
            keras.layers.MaxPooling2D(),
            convolution(16, 3, activation="relu"),
            keras.layers.Flatten(),
            dense(int(y_train.max()) + 1),
        ]
    )


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


kinds_of_layers = {
    "point": (keras.layers.Conv2D, keras.layers.Dense),
    "Bayesian": (Conv2DFlipout, DenseFlipout),
}
both = np.concatenate([x_test, foreign])
is_foreign = np.repeat([0, 1], len(x_test))
scores = {}
for kind, layers in kinds_of_layers.items():
    network = digit_network(*layers)
    if kind == "Bayesian":
        set_training_examples(network, 300)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-2), cross_entropy)
    scores[kind] = []
    for seed in SEEDS:
        restart(network, seed)
        chosen = np.random.default_rng(seed).permutation(len(x_train))[:300]
        x, y = x_train[chosen], y_train[chosen]
        fit_in_memory(network, x, y, batch_size=75, epochs=40, verbose=0, seed=seed)
        if kind == "point":
            p = softmax(keras.ops.convert_to_numpy(network(both)))[None]
        else:
            p = softmax(predictive_samples(network, both, 10, batch_size=len(both)))
        mean, doubt = p.mean(axis=0)[: len(x_test)], predictive_entropy(p)
        right = mean[np.arange(len(y_test)), y_test]
        scores[kind].append(
            (
                np.mean(mean.argmax(axis=1) == y_test),
                -np.log(right + 1e-12).mean(),
                np.exp(-doubt[is_foreign == 1]).mean(),
                roc_auc_score(is_foreign, doubt),
            )
        )
scores = {kind: np.array(rows) for kind, rows in scores.items()}

figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
titles = ("accuracy", "loss a digit", "certainty on foreign", "foreign found (AUROC)")
for n, (axis, title) in enumerate(zip(axes, titles, strict=True)):
    for place, kind in enumerate(scores):
        values = scores[kind][:, n]
        axis.plot([place] * len(SEEDS), values, "o", color=f"C{place}", alpha=0.6)
        axis.plot(place, np.median(values), "_", color=f"C{place}", ms=36, mew=2)
    axis.set_xticks(range(2), list(scores))
    axis.set(title=title, xlim=(-0.6, 1.6))
# alt: Accuracy, loss, certainty on out-of-distribution images and AUROC, five runs each
# of a point network and a Bayesian one.
plt.show()

# %%
# What to notice
# --------------
#
# - The layer finds the exact posterior of the regression, mean and deviation, and its
#   band widens in the gap and outside as it must. That took features in which the
#   weights are independent: a posterior with correlations needs
#   :class:`~dlcompanion.uncertainty.SpecPosterior`, or comes out too narrow.
# - Without the :math:`1/N` the prior counts fifty times: the curve is flat, the draws
#   are those of the prior, and no error is raised. Divided by too much, the draws agree
#   everywhere, and the network is overconfident.
# - The band of the small network hardly widens away from the data: a posterior with
#   independent weights cannot well represent certainty at two places and uncertainty
#   between them.
# - The noise of one kernel a batch does not average out. With flipout it does, as with
#   separate noise for each output (local reparameterization).
# - On digits the Bayesian network is a little less accurate and its loss is larger:
#   with 300 examples the prior of thousands of weights weighs more than the data. It is
#   far less certain about out-of-distribution images, but also about digits; so what
#   counts is the last panel (AUROC), which measures how well the two are separated: no
#   worse, and mostly a little better.
#
# The trivial baseline is the most frequent class; then the claims.

majority = np.mean(y_test == np.bincount(y_train).argmax())
print(f"{'':10s} accuracy  loss   certainty on foreign  AUROC  (medians of 5)")
print(f"{'majority':10s} {majority:.3f}")
for kind, rows in scores.items():
    print(f"{kind:10s} " + "   ".join(f"{v:.3f}" for v in np.median(rows, axis=0)))
difference = scores["Bayesian"] - scores["point"]
print("difference, standard deviation", difference.std(axis=0, ddof=1).round(3))

near_band, far_band = [draws.std(axis=0)[m].mean() for m in (near, ~near)]
harm = np.divide(errors["not divided"], errors["divided by N = 50"]).min()
calmer = variance["flipout"][-1] / variance["one kernel a batch"][-1]
_, worse, surer, found = np.median(difference, axis=0)
claim(
    "learned means of a linear model against the exact posterior's, worst",
    100 * max(mean_errors), "<", 2, "%", seeds=5,
)  # fmt: skip
claim(
    "learned deviations of a linear model against the exact posterior's, worst",
    100 * max(std_errors), "<", 10, "%", seeds=5,
)  # fmt: skip
claim(
    "band of the linear model away from the data to its band at the data",
    far_band / near_band, ">", 2,
)  # fmt: skip
claim(
    "error of a network whose KL is not divided by N to one whose is, least of 3",
    harm, ">", 1.5, seeds=3,
)  # fmt: skip
claim(
    "variance of the gradient of 256 examples, flipout to one kernel for all",
    calmer, "<", 0.2,
)  # fmt: skip
claim(
    "test NLL of a Bayesian network less that of a point network: worse, median",
    worse, ">", 0.0, "nats", seeds=5,
)  # fmt: skip
claim(
    "certainty about out-of-distribution images, Bayesian less point network, median",
    surer, "<", -0.15, seeds=5,
)  # fmt: skip
claim(
    "AUROC for out-of-distribution images, Bayesian less point network, median",
    found, ">", -0.02, seeds=5,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Leave the features as they are, without turning them to their eigenvectors. Which
#    deviations come out too small, and why never too large?
#
# .. dropdown:: Hint to 1
#
#    Replace ``directions`` by ``np.eye(12)``. The best independent normal has the
#    precisions of the diagonal of :math:`S^{-1}`, and :math:`1 / (S^{-1})_{ii} \le
#    S_{ii}`.
#
# 2. Repeat every example of the digits ten times and keep ``training_examples`` at 300.
#    What changes, and what if it is 3,000?
#
# .. dropdown:: Hint to 2
#
#    ``training_examples`` is the :math:`N` of the bound. Ten copies of an example count
#    as ten independent ones only if :math:`N` counts them.
#
# 3. Give the convolutions a prior with the scale of their initializer, or a
#    :class:`~dlcompanion.uncertainty.SpecPrior` of two normals, one of them narrow.
#    Does the loss on digits fall?
#
# .. dropdown:: Hint to 3
#
#    The argument is ``prior``; Glorot's deviation is :math:`\sqrt{2 / (n_{in} +
#    n_{out})}`.
#
# References
# ----------
# Blundell et al., *Weight Uncertainty in Neural Networks*, 2015,
# https://arxiv.org/abs/1505.05424 (:cite:t:`blundell2015weight`); Kingma, Salimans and
# Welling, *Variational Dropout and the Local Reparameterization Trick*, 2015,
# https://arxiv.org/abs/1506.02557 (:cite:t:`kingma2015variational`); Wen et al.,
# *Flipout*, 2018, https://arxiv.org/abs/1803.04386 (:cite:t:`wen2018flipout`); Foong
# et al., *On the Expressiveness of Approximate Inference in Bayesian Neural Networks*,
# 2020, https://arxiv.org/abs/1909.00719 (:cite:t:`foong2020expressiveness`), on what
# independent weights cannot express.

# sphinx_gallery_tags = ["layer", "intermediate"]
