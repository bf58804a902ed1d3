r"""
The way of SGD around a minimum is worth keeping
================================================

Averaging the weights that SGD visits (SWA) gives one good network and throws the rest
of the walk away. But how far the walk strays, and in which directions, says which
weights the data hold fast and which they do not mind. SWAG keeps the first two moments
of the walk and predicts with draws from that Gaussian. This page looks at such a walk
in the plane where it strays most, and compares the likelihood of SGD, of its average,
and of :class:`~dlcompanion.uncertainty.SWAG` on digits of which some were labelled
wrongly.

Before this page:
:ref:`sphx_glr_gallery_optimization_plot_stochastic_weight_averaging.py`;
notation: :doc:`/notation`.
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
# No step of training changes, and nothing is fitted: the learning rate, which has to
# stay large, decides how wide the Gaussian is.

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import datasets
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import SWAG, mutual_information

keras.utils.set_random_seed(0)
SEEDS, EXAMPLES, WRONG, RATE = 5, 400, 80, 0.3

(x_digits, y_digits), (x_test, y_test) = datasets.digits(flat=True, test=0.5, seed=0)


def network():
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(10, "softmax"),
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
# One network, several starts: 60 epochs of SGD with a large, constant learning rate;
# the moments are taken over the last 40. Every fifth training label is wrong.

model = network()
model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
scores = {"SGD, last epoch": [], "SWA": [], "SWAG": []}
walk, swag, doubt = Walk(), SWAG(start=20, rank=20), []
for seed in range(SEEDS):
    keras.utils.set_random_seed(seed)
    model.set_weights(network().get_weights())
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(y_digits))[:EXAMPLES]
    x_train, y_train = x_digits[chosen], y_digits[chosen].copy()
    y_train[:WRONG] = (y_train[:WRONG] + rng.integers(1, 10, WRONG)) % 10
    fit_in_memory(
        model,
        x_train,
        y_train,
        batch_size=20,
        epochs=60,
        callbacks=[walk, swag],
        verbose=0,
        seed=seed,
    )
    average = model.get_weights()
    scores["SWA"].append(nll(model.predict(x_test, verbose=0)))
    draws = swag.predict_samples(x_test, samples=30, seed=seed)
    scores["SWAG"].append(nll(draws.mean(axis=0)))
    model.set_weights(walk.weights[-1])
    scores["SGD, last epoch"].append(nll(model.predict(x_test, verbose=0)))
    wrong = draws.mean(axis=0).argmax(axis=1) != y_test
    unsure = mutual_information(draws)
    doubt.append(unsure[wrong].mean() / unsure[~wrong].mean())

# %%
# The walk of the last run in the plane of its two widest directions, over the training
# loss in that plane, and draws from the Gaussian, seen in the same plane. To the right,
# what the draws are worth together.


def flat(weights):
    return np.concatenate([np.ravel(w) for w in weights])


def unflat(vector):
    sizes = [w.size for w in average]
    parts = np.split(vector, np.cumsum(sizes)[:-1])
    return [p.reshape(w.shape) for p, w in zip(parts, average, strict=True)]


center = flat(average)
steps = np.array([flat(w) for w in walk.weights[20:]]) - center
axes_of_plane = np.linalg.svd(steps, full_matrices=False)[2][:2]
path = steps @ axes_of_plane.T
drawn = np.array([flat(swag.sample(s)) - center for s in range(100)]) @ axes_of_plane.T
reach = 1.2 * max(np.abs(path).max(), np.abs(drawn).max())
side = np.linspace(-reach, reach, 13)


def training_loss(a, b):
    model.set_weights(unflat(center + a * axes_of_plane[0] + b * axes_of_plane[1]))
    p = np.array(model(x_train, training=False))
    return -np.log(p[np.arange(EXAMPLES), y_train]).mean()


surface = [[training_loss(a, b) for a in side] for b in side]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), layout="constrained")
shown = axes[0].contourf(side, side, surface, 20, cmap="viridis")
axes[0].plot(*path.T, "w-", lw=0.6)
axes[0].plot(*path.T, "w.", ms=5, label="SGD, an epoch a point")
axes[0].plot(*drawn.T, "C1.", ms=4, label="draws")
axes[0].plot(0, 0, "r*", ms=12, label="SWA")
axes[0].set(xlabel="widest direction", ylabel="second widest")
axes[0].legend(fontsize="small", loc="upper right")
figure.colorbar(shown, ax=axes[0], label="training loss (nats)")
together = [nll(draws[:count].mean(axis=0)) for count in range(1, 31)]
axes[1].plot(range(1, 31), together, "o-", ms=3, label="SWAG")
axes[1].axhline(scores["SWA"][-1], color="r", ls="--", label="SWA")
axes[1].axhline(scores["SGD, last epoch"][-1], color="0.5", ls=":", label="SGD")
axes[1].set(xlabel="draws", ylabel="test NLL (nats)")
axes[1].legend(fontsize="small")
plt.show()

# %%
# What to notice
# --------------
#
# - SWA lies inside, where the loss is lower than anywhere on the walk.
# - A single draw is worse than the average of the weights; many draws together are not
#   one network, and make up for it.
# - The draws disagree about what the network gets wrong. SWA alone cannot say so.
#
# The baseline that guesses evenly, the table (median and standard deviation of five
# seeds), then the claims.

print(f"{'even guess':18s} {np.log(10):.3f}")
for name, values in scores.items():
    print(f"{name:18s} {np.median(values):.4f} ± {np.std(values, ddof=1):.4f}")
print("disagreement on wrong answers to that on right ones:", np.round(doubt, 2))
ratio = np.divide(scores["SWAG"], scores["SWA"])
print("SWAG to SWA", ratio.round(4))
claim(
    "NLL of SWAG to that of SWA, median", float(np.median(ratio)), "<", 1, seeds=SEEDS
)
claim(
    "NLL of SWAG to that of the last epoch, worst",
    float(np.divide(scores["SWAG"], scores["SGD, last epoch"]).max()),
    "<",
    0.9,
    seeds=SEEDS,
)
claim(
    "disagreement where SWAG is wrong to where it is right, smallest",
    float(min(doubt)),
    ">",
    1.5,
    seeds=SEEDS,
)
claim(
    "training loss at the average to the lowest on the walk",
    training_loss(0, 0) / min(training_loss(*p) for p in path),
    "<",
    1.0,
)

# %%
# Try it
# ------
#
# 1. Multiply the covariance by ``scale=0.25`` or 4. Where is the likelihood best?
# 2. Lower the learning rate by ten. What becomes of the Gaussian, and of the gain?
# 3. Leave out the diagonal part, then the deviations. Which of them does the work?
#
# References
# ----------
# Maddox, Garipov, Izmailov, Vetrov and Wilson, *A Simple Baseline for Bayesian
# Uncertainty in Deep Learning*, 2019, https://arxiv.org/abs/1902.02476
# (:cite:t:`maddox2019simple`).

# sphinx_gallery_tags = ["callback", "all backends"]
