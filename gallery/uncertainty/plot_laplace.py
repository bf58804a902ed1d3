r"""
Laplace approximation: uncertainty for a trained network, without any training
==============================================================================

Training ends at one set of weights, although others would fit the data almost as well.
The Laplace approximation measures how many: it takes the curvature of the loss at the
trained weights and puts a normal distribution there. Where the loss is flat, the
weights are uncertain, and so are the predictions. For the last layer this costs one
pass over the training data and no training at all, and for a linear model it is exact
Bayesian inference. Use :class:`~dlcompanion.uncertainty.LastLayerLaplace` to add error
bars to a Keras model that you already have; choose its prior on held-out data, since
its own rule (the evidence) can make the likelihood worse. This page measures it on a
regression with a gap in its data, on a classifier far from its data
(out-of-distribution), and on digits.

In your own model
-----------------

Train as usual, then fit the posterior on the same data:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import LastLayerLaplace

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
   hidden = keras.layers.Dense(32, activation="tanh")
   model = keras.Sequential([keras.Input((5,)), hidden, keras.layers.Dense(3)])
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile("adam", loss)
   model.fit(x[:200], y[:200], epochs=3, verbose=0)
   posterior = LastLayerLaplace(model, prior_precision=10.0)
   posterior.fit(x[:200], y[:200])  # one pass over the training data
   probabilities = posterior.predict(x[200:], verbose=0)  # (100, 3)

Prerequisites: :doc:`/gallery/uncertainty/plot_calibration`.

Neighbors: :doc:`/gallery/uncertainty/plot_bayesian_layers`,
:doc:`/gallery/uncertainty/plot_swag`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Around the trained weights :math:`\hat\theta` of the last layer the log-posterior is a
# parabola. With features :math:`\phi` and the curvature :math:`\Lambda` of the loss in
# the outputs the posterior is a normal distribution of precision
#
# .. math::
#
#    \Sigma^{-1} = \alpha I + \sum_n \phi_n \phi_n^\top \otimes \Lambda_n,
#    \qquad S(x) = (\phi \otimes I)^\top \Sigma\, (\phi \otimes I)
#
# is the covariance of the outputs at :math:`x`. The precision :math:`\alpha` of the
# prior and the noise are found by maximizing the evidence, on the training data alone.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import KroneckerLaplace, LastLayerLaplace

keras.utils.set_random_seed(claims.seed())


def network(inputs, widths, outputs, activation="tanh"):
    hidden = [keras.layers.Dense(width, activation) for width in widths]
    return keras.Sequential(
        [keras.Input((inputs,)), *hidden, keras.layers.Dense(outputs)]
    )


# %%
# Exact where it can be: a straight line
# --------------------------------------
#
# Linear regression has a posterior in closed form. Put its mean into a Dense layer, and
# the Laplace approximation has to return its covariance.

rng = np.random.default_rng(claims.seed())
x_line = rng.uniform(-1, 1, (25, 1)).astype("float32")
y_line = 0.8 * x_line + 0.3 * rng.normal(size=(25, 1))
design = np.hstack([x_line, np.ones_like(x_line)]).astype("float64")
prior, noise = 2.0, 0.3
covariance = np.linalg.inv(prior * np.eye(2) + design.T @ design / noise**2)
weights = covariance @ design.T @ y_line / noise**2

line = network(1, [], 1)
line.set_weights([weights[:1], weights[1]])
posterior = LastLayerLaplace(line, "regression", prior, noise).fit(x_line, y_line)
found = keras.ops.convert_to_numpy(posterior.covariance)[:, 0, :, 0]
exact_gap = np.abs(found / covariance - 1).max()
print(f"largest relative difference of the covariances: {exact_gap:.1e}")

# %%
# A gap in the data
# -----------------
#
# Forty points of a sine, none in the middle. The network predicts one curve in the gap,
# although others would fit as well. The band is two standard deviations, the
# darker part without the noise.

x = np.concatenate([rng.uniform(-3, -1, 20), rng.uniform(1, 3, 20)])[:, None]
y = np.sin(1.5 * x) + 0.15 * rng.normal(size=x.shape)
x, y = x.astype("float32"), y.astype("float32")
curve = network(1, [40, 40], 1)
curve.compile(keras.optimizers.Adam(5e-3), "mse")
# twenty steps an epoch: an epoch costs more than a step
many = np.tile(x, (20, 1)), np.tile(y, (20, 1))
fit_in_memory(curve, *many, batch_size=len(x), epochs=30, shuffle=False, verbose=0)
bands = LastLayerLaplace(curve, "regression").fit(x, y)
sigma = float(bands.noise_scale)
print(
    f"noise found {sigma:.3f}, planted 0.150; prior precision {float(bands.prior):.3f}"
)

grid = np.linspace(-5, 5, 201, dtype="float32")[:, None]
mean, variance = np.split(bands.predict(grid), 2, axis=1)
inner = np.sqrt(np.maximum(variance - sigma**2, 0))[:, 0]
outer, mean = np.sqrt(variance)[:, 0], mean[:, 0]

# %%
# Two moons, and the plane around them
# ------------------------------------
#
# The same for a classifier: probability of the predicted class, over a square much
# larger than the data. The trained network is certain everywhere but on its decision
# boundary, also far from all data.

x_moons, y_moons = datasets.two_moons(200, noise=0.15, seed=claims.seed())
moons = network(2, [24, 24], 2, "relu")
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
moons.compile(keras.optimizers.Adam(1e-2), loss)
many = np.tile(x_moons, (10, 1)), np.tile(y_moons, 10)
fit_in_memory(moons, *many, batch_size=50, epochs=20, verbose=0)
around = LastLayerLaplace(moons).fit(x_moons, y_moons)


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


side = np.linspace(-6, 6, 81)
plane = np.stack(np.meshgrid(side + 0.5, side), axis=-1).reshape(-1, 2)
plane = plane.astype("float32")
trained = softmax(moons.predict_on_batch(plane)).max(axis=1)
doubting = around.predict(plane, batch_size=len(plane)).max(axis=1)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
axes[0].plot(grid, np.sin(1.5 * grid), "k:", lw=1)
axes[0].fill_between(grid[:, 0], mean - 2 * outer, mean + 2 * outer, alpha=0.2)
axes[0].fill_between(
    grid[:, 0], mean - 2 * inner, mean + 2 * inner, alpha=0.3, color="C0"
)
axes[0].plot(grid, mean)
axes[0].plot(x, y, "k.", ms=3)
axes[0].set(ylim=(-3, 3), title="regression with a hole")
for axis, p, title in zip(
    axes[1:], (trained, doubting), ("trained network", "with Laplace"), strict=True
):
    shown = axis.imshow(
        p.reshape(len(side), -1),
        extent=(-5.5, 6.5, -6, 6),
        origin="lower",
        vmin=0.5,
        vmax=1,
    )
    axis.scatter(*x_moons.T, c=y_moons, cmap="coolwarm", s=2)
    axis.set(title=title, xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[1:], label="probability of the answer")
# alt: Left, regression whose band widens in the gap of the data; middle, the trained
# classifier is certain nearly everywhere around two moons; right, with Laplace its
# certainty falls away from the data.
plt.show()

distance = np.min(np.linalg.norm(plane[:, None] - x_moons[None], axis=-1), axis=1)
far = distance > 3
print(
    f"mean confidence far away: {trained[far].mean():.3f}, {doubting[far].mean():.3f}"
)

# %%
# Digits
# ------
#
# Five networks on 300 digits with right labels, and five on 300 of which every fifth
# has a wrong label that the network learns by heart. For every prior precision, the
# likelihood of the right labels of the test part; the crosses are the precisions that
# the evidence chooses. The second way to choose is by held-out data: 150 more digits,
# labeled as the training digits are, and the precision under which they are most
# likely.

(x_digits, y_digits), (x_test, y_test) = datasets.digits(
    flat=True, test=0.3, seed=claims.seed()
)
classes = int(y_digits.max()) + 1
model = network(x_digits.shape[-1], [32], classes, "relu")
model.compile(keras.optimizers.Adam(1e-2), loss)
full, factored = LastLayerLaplace(model), KroneckerLaplace(model)
PRECISIONS = [1.0, 4.0, 16.0, 64.0]


def nll(p, labels):
    return float(-np.log(p[np.arange(len(labels)), labels]).mean())


def one_network(seed, share):
    """NLL of the test digits: trained, by precision, by evidence and by looking."""
    restart(model, seed)
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(y_digits))[:450]
    x, labels = x_digits[chosen], y_digits[chosen].copy()
    wrong = draw.random(450) < share
    labels[wrong] = (labels[wrong] + draw.integers(1, classes, wrong.sum())) % classes
    many = np.tile(x[:300], (10, 1)), np.tile(labels[:300], 10)
    fit_in_memory(model, *many, batch_size=50, epochs=16, verbose=0, seed=seed)
    both = np.concatenate([x[300:], x_test])
    result = {"trained": nll(softmax(model.predict_on_batch(both))[150:], y_test)}
    held_out, result["curve"] = [], []
    for precision in PRECISIONS:
        full.prior_precision = precision
        p = full.fit(x[:300], labels[:300], 300).predict_on_batch(both)
        held_out.append(nll(p[:150], labels[300:]))
        result["curve"].append(nll(p[150:], y_test))
    result["held out"] = result["curve"][int(np.argmin(held_out))]
    full.prior_precision = None
    for name, posterior in (("evidence", full), ("Kronecker", factored)):
        p = posterior.fit(x[:300], labels[:300], 300).predict_on_batch(both)
        result[name] = nll(p[150:], y_test)
    result["prior"] = float(full.prior)
    return result


runs = {
    "right labels": [one_network(seed, 0.0) for seed in claims.seeds(5)],
    "every fifth label wrong": [one_network(seed, 0.2) for seed in claims.seeds(5)],
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
for axis, (title, results) in zip(axes, runs.items(), strict=True):
    for n, r in enumerate(results):
        axis.plot(PRECISIONS, r["curve"], "-", color=f"C{n}", lw=1)
        axis.axhline(r["trained"], color=f"C{n}", ls=":", lw=1)
        axis.plot(r["prior"], r["evidence"], "x", color=f"C{n}", ms=8, mew=2)
    axis.set(xscale="log", xlabel=r"prior precision $\alpha$", title=title)
axes[0].set(ylabel="test NLL (nats)")
axes[1].plot([], [], "k:", lw=1, label="trained network")
axes[1].plot([], [], "kx", label="chosen by the evidence")
axes[1].legend(fontsize="small")
# alt: Test NLL against the prior precision, five runs, for right labels on the left and
# partly wrong labels on the right; dotted lines are the trained networks, crosses what
# the evidence chooses.
plt.show()

# %%
# What to notice
# --------------
#
# - In the gap the band widens, though the network's own curve shows no uncertainty. The
#   noise is found as well, from the training data.
# - The band does not grow far outside: tanh features saturate there, and the last layer
#   is uncertain only about what its features distinguish.
# - The classifier loses its certainty where there are no data.
# - With wrong labels learned by heart (overfitting) it mostly gains. With right
#   labels the evidence chooses too wide a posterior, and the likelihood is *worse* than
#   without: a trained network is no linear model, and its features were fitted to the
#   same 300 digits. "Never worse than the point estimate" is false with this prior.
# - With a precision chosen on held-out digits the likelihood is no worse.
#
# The baseline that guesses evenly, the table (median and standard deviation of five
# seeds), then the claims.

print(f"{'even guess':32s} {np.log(classes):.3f}")
ratios = {}
for title, results in runs.items():
    for name in ("trained", "evidence", "Kronecker", "held out"):
        values = np.array([r[name] for r in results])
        ratios[title, name] = values / [r["trained"] for r in results]
        print(
            f"{title + ', ' + name:36s} {np.median(values):.3f} ± "
            f"{values.std(ddof=1):.3f}, to trained {ratios[title, name].round(2)}"
        )
claim(
    "covariance of a linear model against the exact posterior's, relative gap",
    exact_gap,
    "<",
    1e-3,
)
hole = inner[np.abs(grid[:, 0]) < 0.3].mean()
data = inner[(np.abs(grid[:, 0]) > 1.2) & (np.abs(grid[:, 0]) < 2.8)].mean()
claim(
    "width of the regression's band in the gap of the data to that on the data",
    hole / data,
    ">",
    2,
)
claim(
    "mean confidence of the trained network far from two moons",
    trained[far].mean(),
    ">",
    0.98,
)
claim(
    "mean confidence of the Laplace approximation far from two moons",
    doubting[far].mean(),
    "<",
    0.92,
)
claim(
    "test NLL, Kronecker Laplace to trained network, wrong labels learned, median",
    np.median(ratios["every fifth label wrong", "Kronecker"]),
    "<",
    1.15,
    seeds=5,
)
claim(
    "test NLL, evidence's Laplace to trained network, right labels, median: worse",
    np.median(ratios["right labels", "evidence"]),
    ">",
    1.3,
    seeds=5,
)
for title in runs:
    claim(
        f"test NLL, Laplace, held-out precision, to trained network, {title}, median",
        np.median(ratios[title, "held out"]),
        "<",
        1.05,
        seeds=5,
    )

# %%
# Try it
# ------
#
# 1. Train the digits ten times as long. What does the evidence do with the prior?
#
# .. dropdown:: Hint to 1
#
#    Print ``r["prior"]``. Longer training makes the weights larger, and the evidence
#    then finds a smaller precision: a wider posterior.
#
# 2. Plot evidence and test likelihood against ``prior_precision`` from 0.01 to 100. Do
#    they agree on the best?
#
# .. dropdown:: Hint to 2
#
#    The attribute is ``prior_precision``; ``fit`` again after each change, as
#    ``one_network`` does.
#
# 3. Replace tanh by ReLU in the regression. How does the band grow outside the data
#    now?
#
# .. dropdown:: Hint to 3
#
#    The features of ReLU grow linearly with :math:`x`, those of tanh are bounded, and
#    :math:`S(x)` is quadratic in the features.
#
# References
# ----------
# MacKay, *A Practical Bayesian Framework for Backpropagation Networks*, 1992,
# https://doi.org/10.1162/neco.1992.4.3.448 (:cite:t:`mackay1992practical`);
# Daxberger et al., *Laplace Redux*, 2021, https://arxiv.org/abs/2106.14806
# (:cite:t:`daxberger2021laplace`).

# sphinx_gallery_tags = ["model", "intermediate"]
