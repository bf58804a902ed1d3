r"""
Stochastic weight averaging-Gaussian (SWAG): its draws disagree where it is wrong
=================================================================================

Stochastic weight averaging (SWA) takes the mean of the weights that SGD visits. SWAG
also keeps their variances and main directions, and predicts with weights drawn from
that normal distribution: an approximate Bayesian posterior, got by a callback in one
training run. Use it if you train with SGD and a constant rate anyway and want
uncertainty estimates from one run. Do not expect a better likelihood than that of plain
SWA: it is about equal for an overconfident network, and worse if training stopped
before overfitting. This page looks at the path of SGD in the plane in which it varies
most, and compares SGD, SWA and :class:`~dlcompanion.uncertainty.SWAG` on digits, some
of which have wrong labels.

In your own model
-----------------

A callback collects the weights, and then draws predictions:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import SWAG

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   model = keras.Sequential(
       [keras.Input((5,)), keras.layers.Dense(2, activation="softmax")]
   )
   model.compile(keras.optimizers.SGD(0.3), "sparse_categorical_crossentropy")
   swag = SWAG(start=4, rank=5)  # moments from epoch 4 on
   model.fit(x, y, epochs=10, callbacks=[swag], verbose=0)
   draws = swag.predict_samples(x, samples=20)  # (20, 300, 2)
   probabilities = draws.mean(axis=0)

Prerequisites: :doc:`/gallery/optimization/plot_stochastic_weight_averaging`.

Neighbors: :doc:`/gallery/uncertainty/plot_deep_ensembles`,
:doc:`/gallery/uncertainty/plot_laplace`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# From snapshots :math:`w_1, w_2, \ldots`, one an epoch, keep the mean
# :math:`\bar w`, the variance :math:`\sigma^2` of each weight, and the last :math:`K`
# deviations from the running mean as columns of :math:`D`. A draw has half its spread
# from each:
#
# .. math::
#
#    w \sim \mathcal N\Bigl(\bar w, \; \tfrac12 \operatorname{diag}(\sigma^2)
#    + \tfrac{1}{2(K-1)} D D^\top\Bigr), \qquad
#    p(y \mid x) \approx \frac1S \sum_s p(y \mid x, w_s) .
#
# Training does not change, and nothing else is fitted: the learning rate, which has to
# stay large, decides how wide the Gaussian is.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import SWAG, mutual_information

keras.utils.set_random_seed(claims.seed())
SEEDS, EXAMPLES, WRONG, RATE = claims.seeds(5), 400, 80, 0.3

(x_digits, y_digits), (x_test, y_test) = datasets.digits(
    flat=True, test=0.5, seed=claims.seed()
)
classes = int(y_digits.max()) + 1


def network():
    return keras.Sequential(
        [
            keras.Input((x_digits.shape[-1],)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(classes, "softmax"),
        ]
    )


def nll(p):
    return float(-np.log(p[np.arange(len(y_test)), y_test]).mean())


class Walk(keras.callbacks.Callback):
    """All weights at the end of every epoch."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())


# %%
# SGD with a large, constant learning rate, where every fifth training label is wrong.
# After 60 epochs the network has not learned most wrong labels; after 150 it has
# learned them by heart. The moments are taken over the second part of each run.

model = network()
model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
names = ("SGD, last epoch", "SWA", "SWAG")
lengths = {150: 75, 60: 20}  # epochs, and the first that counts
scores = {epochs: {name: [] for name in names} for epochs in lengths}
walk, swag, doubt, last_draws = Walk(), SWAG(start=0, rank=20), [], {}


def noisy_digits(seed):
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(y_digits))[:EXAMPLES]
    x, labels = x_digits[chosen], y_digits[chosen].copy()
    labels[:WRONG] = (labels[:WRONG] + rng.integers(1, classes, WRONG)) % classes
    return x, labels


for epochs, swag.start in lengths.items():
    for seed in SEEDS:
        keras.utils.set_random_seed(seed)
        model.set_weights(network().get_weights())
        x_train, y_train = noisy_digits(seed)
        settings = {"batch_size": 20, "epochs": epochs, "verbose": 0, "seed": seed}
        fit_in_memory(model, x_train, y_train, callbacks=[walk, swag], **settings)
        average = model.get_weights()
        draws = swag.predict_samples(x_test, samples=20, seed=seed, batch_size=1000)
        scores[epochs]["SWAG"].append(nll(draws.mean(axis=0)))
        for name, weights in (("SWA", average), (names[0], walk.weights[-1])):
            model.set_weights(weights)
            p = model.predict(x_test, batch_size=1000, verbose=0)
            scores[epochs][name].append(nll(p))
        wrong = draws.mean(axis=0).argmax(axis=1) != y_test
        last_draws[epochs] = draws
        unsure = mutual_information(draws)
        doubt.append(unsure[wrong].mean() / unsure[~wrong].mean())

# %%
# Left, the path of SGD in the last run in the plane of its two widest directions, over
# the training loss in that plane, and draws from the Gaussian. Right, the likelihood of
# the mean over several draws.


def flat(weights):
    return np.concatenate([np.ravel(w) for w in weights])


def unflat(vector):
    sizes = [w.size for w in average]
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return [p.reshape(w.shape) for p, w in zip(parts, average, strict=True)]


center = flat(average)
steps = np.array([flat(w) for w in walk.weights[swag.start :]]) - center
axes_of_plane = np.linalg.svd(steps, full_matrices=False)[2][:2]
path = steps @ axes_of_plane.T
drawn = np.array([flat(swag.sample(s)) - center for s in range(100)]) @ axes_of_plane.T
reach = 1.15 * np.abs(np.concatenate([path, drawn])).max(axis=0)
sides = [np.linspace(-r, r, 13) for r in reach]


def training_loss(a, b):
    model.set_weights(unflat(center + a * axes_of_plane[0] + b * axes_of_plane[1]))
    p = keras.ops.convert_to_numpy(model(x_train, training=False))
    return -np.log(p[np.arange(EXAMPLES), y_train]).mean()


surface = [[training_loss(a, b) for a in sides[0]] for b in sides[1]]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
shown = axes[0].contourf(*sides, surface, 20, cmap="viridis")
axes[0].plot(*path.T, "w-", lw=0.6)
axes[0].plot(*path.T, "w.", ms=5, label="SGD, an epoch a point")
axes[0].plot(*drawn.T, "C1.", ms=4, label="draws")
axes[0].plot(0, 0, "r*", ms=12, label="SWA")
axes[0].set(xlabel="widest direction", ylabel="second widest")
axes[0].legend(fontsize="small", loc="upper right")
figure.colorbar(shown, ax=axes[0], label="training loss (nats)")
for colour, epochs in zip(("C0", "C1"), lengths, strict=True):
    draws = last_draws[epochs]
    together = [nll(draws[:count].mean(axis=0)) for count in range(1, 21)]
    axes[1].plot(
        range(1, 21), together, "o-", ms=3, color=colour, label=f"{epochs} epochs"
    )
    axes[1].axhline(scores[epochs]["SWA"][-1], color=colour, ls="--")
axes[1].set(xlabel="draws", ylabel="test NLL (nats); dashed: SWA")
axes[1].legend(fontsize="small")
# alt: Left, the path of SGD over a map of the training loss, with draws of SWAG around
# it and SWA in the middle; right, test NLL against the number of draws, for 60 and 150
# epochs, beside dashed lines of SWA.
plt.show()

# %%
# What to notice
# --------------
#
# - SGD does not only move around a point: it drifts, and the Gaussian is longest along
#   the drift, above all in the long run.
# - A single draw is no better than the average; the mean over many draws is, where the
#   network is overconfident.
# - SWAG flattens the probabilities. After 150 epochs, with the wrong labels learned by
#   heart (overfitting), this helps a little; after 60, when the network is not yet
#   overconfident, it is too much, and plain SWA has the better likelihood.
# - The draws disagree where the network is wrong. SWA alone has no such measure.
#
# The baseline that guesses evenly, the table (median and standard deviation of five
# seeds), then the claims.

print(f"{'even guess':30s} {np.log(classes):.3f}")
ratio = {}
for epochs, results in scores.items():
    for name, values in results.items():
        spread = np.std(values, ddof=1)
        what = f"{epochs} epochs, {name}"
        print(f"{what:30s} {np.median(values):.4f} ± {spread:.4f}")
    ratio[epochs] = np.divide(results["SWAG"], results["SWA"])
    print("SWAG to SWA", ratio[epochs].round(4))
print("disagreement on wrong answers to that on right ones:", np.round(doubt, 2))
claim(
    "test NLL of SWAG to that of SWA, 150 epochs on wrong labels, median: no worse",
    float(np.median(ratio[150])),
    "<",
    1.02,
    seeds=len(SEEDS),
)
claim(
    "test NLL of SWAG to that of SWA after 60 epochs, median: worse",
    float(np.median(ratio[60])),
    ">",
    1.02,
    seeds=len(SEEDS),
)
last = np.divide(scores[60]["SWAG"], scores[60]["SGD, last epoch"])
print("SWAG to the last epoch, 60 epochs", last.round(3))
claim(
    "test NLL of SWAG to that of SGD after 60 epochs, median",
    np.median(last),
    "<",
    1,
    seeds=len(SEEDS),
)
claim(
    "disagreement of draws, wrong predictions to right ones, smallest ratio",
    float(min(doubt)),
    ">",
    1.2,
    seeds=len(SEEDS),
)

# %%
# Try it
# ------
#
# 1. Multiply the covariance by ``scale=0.25`` or 4. Where is the likelihood best, after
#    60 and after 150 epochs?
#
# .. dropdown:: Hint to 1
#
#    ``swag.predict_samples(..., scale=4.0)``; look at the table for both lengths.
#
# 2. Lower the learning rate by ten. What becomes of the Gaussian, and of the gain?
#
# .. dropdown:: Hint to 2
#
#    Print the mean of the standard deviations of the draws: the spread of SGD at rest
#    grows with the learning rate.
#
# 3. Leave out the diagonal part of the covariance, then the deviations. Which of them
#    does the work?
#
# .. dropdown:: Hint to 3
#
#    ``rank`` sets how many deviations are kept. The training loss of single draws tells
#    which part leaves the minimum.
#
# References
# ----------
# Maddox, Garipov, Izmailov, Vetrov and Wilson, *A Simple Baseline for Bayesian
# Uncertainty in Deep Learning*, 2019, https://arxiv.org/abs/1902.02476
# (:cite:t:`maddox2019simple`).

# sphinx_gallery_tags = ["callback", "intermediate"]
