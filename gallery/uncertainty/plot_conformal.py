r"""
Conformal prediction: sets that hold the truth nine times in ten, whatever the network
======================================================================================

A softmax gives probabilities, but nothing guarantees that they are right. Conformal
prediction turns any classifier into one that returns a *set* of classes, and any
regression into one that returns an *interval* (prediction intervals), with a guarantee:
the truth is inside with probability 0.9, or any other level that you choose. It needs a
few hundred held-out examples, no new training, and no assumption about the network;
:class:`~dlcompanion.uncertainty.SplitConformal` and its relatives do it for any Keras
model. Use it if a decision depends on the coverage. Do not use it if new data differ in
distribution from the held-out ones, or if the guarantee must hold for each single
input: it holds on average. This page checks it over fifty splits, and shows what it
does *not* promise.

In your own model
-----------------

Calibrate on held-out examples; ``predict`` then returns sets:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import SplitConformal

   x = np.random.normal(size=(600, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)  # three classes
   model = keras.Sequential(
       [keras.Input((5,)), keras.layers.Dense(3, activation="softmax")]
   )
   model.compile("adam", "sparse_categorical_crossentropy")
   model.fit(x[:300], y[:300], epochs=3, verbose=0)
   predictor = SplitConformal(model, alpha=0.1)
   predictor.calibrate(x[300:500], y[300:500])  # held-out examples
   sets = predictor.predict(x[500:], verbose=0)  # (100, 3), true: in the set

Prerequisites: :doc:`/gallery/uncertainty/plot_calibration`.

Neighbors: :doc:`/gallery/losses/plot_maximum_likelihood` (quantile regression),
:doc:`/gallery/uncertainty/plot_deep_ensembles`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/conformal.svg
#    :figclass: drawing
#    :alt: Above, scores of 19 held-out examples on a line, with a threshold at the
#       18th; below, four classes of a new image at their scores: two left of the
#       threshold are the set, two are left out.
#
# Let the score :math:`s(x, y)` measure how badly :math:`y` fits :math:`x`, in any way,
# for example by :math:`1 - \hat p_y(x)`. If a new example and :math:`n` held-out ones
# are exchangeable, the rank of its score among them is uniform, and
#
# .. math::
#
#    C(x) = \{y : s(x, y) \le \hat q\}, \quad \hat q = \text{the }
#    \lceil (n+1)(1-\alpha) \rceil\text{-th smallest score}
#    \;\Longrightarrow\; P\bigl(y \in C(x)\bigr) \ge 1 - \alpha .

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.datasets import digits
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import (
    AdaptivePredictionSets,
    ClassConditionalConformal,
    ConformalizedQuantileRegression,
    RegularizedPredictionSets,
    SplitConformal,
    SplitConformalRegression,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())
ALPHA, NETWORKS, SPLITS = 0.1, claims.seeds(5), 10

# %%
# An overconfident network on noisy digits
# ----------------------------------------
#
# Three hundred images to train on, which an MLP learns by heart. The other 1,497 are
# split ten times into 500 for calibration and the rest for the test. Five networks,
# each with other training images, make fifty splits.

(x, y), (x_more, y_more) = digits(flat=True, seed=claims.seed())
x, y = np.concatenate([x, x_more]), np.concatenate([y, y_more])
classes = int(y.max()) + 1
x = x + 0.3 * rng.normal(size=x.shape).astype("float32")
network = keras.Sequential(
    [
        keras.Input((x.shape[-1],)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(classes, activation="softmax"),
    ]
)
network.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
predicted = []
for seed in NETWORKS:
    order = rng.permutation(len(y))
    train, rest = order[:300], order[300:]
    restart(network, seed)
    # ten times each: an epoch costs more than a step
    many = np.tile(train, 10)
    fit_in_memory(network, x[many], y[many], batch_size=100, epochs=50, verbose=0)
    p = network.predict_on_batch(x[rest])
    predicted.append((p, y[rest]))
    accuracy, confidence = np.mean(p.argmax(axis=1) == y[rest]), p.max(axis=1).mean()
    print(f"accuracy {accuracy:.3f}, confidence {confidence:.3f}")

# %%
# A network is run once. What is calibrated ten times sits behind it, on an identity
# model that hands its probabilities through. The baseline trusts the softmax: classes
# in falling order until their probabilities sum to 0.9.

CAL = 500


class Given(keras.Sequential):
    """Hands probabilities through, without the cost of ``predict``."""

    def predict(self, p, **kwargs):
        return p


echo = Given([keras.Input((classes,)), keras.layers.Identity()])
predictors = {
    "split conformal": SplitConformal(echo, ALPHA),
    "adaptive (APS)": AdaptivePredictionSets(echo, ALPHA, seed=claims.seed()),
    "regularized (RAPS)": RegularizedPredictionSets(
        echo, ALPHA, penalty=0.1, seed=claims.seed()
    ),
    "by class": ClassConditionalConformal(SplitConformal(echo, ALPHA)),
}


def believe(p):
    order = np.argsort(-p, axis=1)
    before = np.cumsum(np.take_along_axis(p, order, 1), axis=1)
    before -= np.take_along_axis(p, order, 1)  # the mass that stands before a class
    sets = np.zeros(p.shape, bool)
    np.put_along_axis(sets, order, before < 1 - ALPHA, 1)
    return sets


names = ["softmax mass 0.9", *predictors]
coverage = {name: [] for name in names}
sizes = {name: [] for name in names}
by_class = {name: [] for name in names}
easy = []
for p, truth in [one for one in predicted for _ in range(SPLITS)]:
    order = rng.permutation(len(truth))
    cal, test = order[:CAL], order[CAL:]
    asked = truth[test]
    for name in names:
        if name in predictors:
            predictors[name].calibrate(p[cal], truth[cal], batch_size=CAL)
            sets = ops.convert_to_numpy(predictors[name](p[test]))
        else:
            sets = believe(p[test])
        covered = sets[np.arange(len(test)), asked]
        coverage[name].append(covered.mean())
        sizes[name].append(sets.sum(axis=1).mean())
        by_class[name].append([covered[asked == k].mean() for k in range(classes)])
        if name == "split conformal":
            sure = p[test].max(axis=1) > 0.99
            easy.append(sets[sure].sum(axis=1).mean())
by_class = {  # of each network (networks, classes)
    name: np.reshape(rows, (len(NETWORKS), SPLITS, classes)).mean(axis=1)
    for name, rows in by_class.items()
}

# %%
# Left: fifty coverages of each kind. The line is 0.9; the scatter is the price of 500
# calibration examples and of a finite test. Right: the same by digit. On average nine
# in ten are covered, but the easy digits too often and the hard ones too rarely. A
# threshold for each class repairs that, with larger sets.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), layout="constrained", width_ratios=(1, 1.3)
)
left.boxplot([coverage[n] for n in names], orientation="horizontal", tick_labels=names)
left.axvline(1 - ALPHA, color="0.5", lw=1)
left.set(xlabel="coverage", title="50 splits")
left.invert_yaxis()
digit = np.arange(classes)
for shift, name in zip((-0.2, 0.2), ("split conformal", "by class"), strict=True):
    height = by_class[name].mean(axis=0)
    right.bar(digit + shift, height, 0.38, label=name)
right.axhline(1 - ALPHA, color="0.5", lw=1)
right.set(xlabel="digit", ylabel="coverage", ylim=(0.6, 1.0), xticks=digit)
right.legend(loc="lower left")
# alt: Left, box plots of fifty coverages: the softmax sets lie below 0.9, the four
# conformal predictors around it; right, coverage by digit: uneven with one threshold,
# close to 0.9 with one for each class.
plt.show()

# %%
# What sets look like: five that hold one digit, and the five largest.

predictors["split conformal"].calibrate(p[:CAL], truth[:CAL])
sets = predictors["split conformal"].predict(p[CAL:])
count = sets.sum(axis=1)
chosen = [*np.flatnonzero(count == 1)[:5], *np.argsort(-count, kind="stable")[:5]]
side = int(x.shape[-1] ** 0.5)
figure, axes = plt.subplots(1, 10, figsize=(10, 1.6), layout="constrained")
for axis, k in zip(axes, chosen, strict=True):
    axis.imshow(x[rest][CAL + k].reshape(side, side), cmap="gray_r")
    axis.set(xticks=[], yticks=[])
    found = ",".join(str(c) for c in np.flatnonzero(sets[k]))
    axis.set_title(f"{{{found}}}", fontsize="small")
    axis.set_xlabel(f"truth {truth[CAL + k]}", fontsize="small")
# alt: Ten noisy digits with their prediction sets above and the truth below: the first
# five sets hold one digit, the last five are the largest.
plt.show()

# %%
# Intervals
# ---------
#
# A curve whose noise grows with :math:`x`. One network predicts the mean, another two
# quantiles, by the pinball loss. Both are made conformal, and the question is again not
# whether nine in ten are covered, but *which* nine.


def curve(size):
    x = rng.uniform(0, 5, (size, 1))
    noise = (0.05 + 0.2 * x) * rng.normal(size=(size, 1))
    return x.astype("float32"), (np.sin(x) + noise).astype("float32")


def pinball(y, q):
    level = ops.convert_to_tensor([ALPHA / 2, 1 - ALPHA / 2], "float32")
    error = y - q
    return ops.mean(ops.maximum(level * error, (level - 1) * error), axis=-1)


def regression(outputs, loss):
    model = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(64, activation="tanh"),
            keras.layers.Dense(64, activation="tanh"),
            keras.layers.Dense(outputs),
        ]
    )
    rate = keras.optimizers.schedules.CosineDecay(0.01, 800)
    model.compile(keras.optimizers.Adam(rate), loss)
    return model


kinds = {
    "constant width": SplitConformalRegression(regression(1, "mse"), ALPHA),
    "quantiles (CQR)": ConformalizedQuantileRegression(regression(2, pinball), ALPHA),
}
edges = np.linspace(0, 5, 11)
covered, width, conditional, ends = ({name: [] for name in kinds} for _ in range(4))
CURVES = claims.seeds(3)  # data sets
for seed in CURVES:
    (x_fit, y_fit), (x_cal, y_cal), (x_new, y_new) = map(curve, (1_000, 1_000, 20_000))
    bin_ = np.digitize(x_new[:, 0], edges[1:-1])
    many = np.tile(x_fit, (4, 1)), np.tile(y_fit, (4, 1))
    for name, predictor in kinds.items():
        restart(predictor.model, seed)
        fit_in_memory(predictor.model, *many, batch_size=200, epochs=40, verbose=0)
        predictor.calibrate(x_cal, y_cal, batch_size=len(x_cal))
        low, high = predictor.predict(x_new, batch_size=len(x_new)).T
        hit = (low <= y_new[:, 0]) & (y_new[:, 0] <= high)
        covered[name].append(hit.mean())
        conditional[name].append([hit[bin_ == k].mean() for k in range(10)])
        width[name].append((high - low).mean())
        ends[name] = low, high

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
order = np.argsort(x_new[:, 0])
for axis, (name, (low, high)) in zip(axes, ends.items(), strict=False):
    axis.plot(x_new[:600], y_new[:600], ".", ms=2, color="0.5")
    axis.fill_between(x_new[order, 0], low[order], high[order], alpha=0.3)
    axis.set(xlabel="x", ylabel="y", ylim=(-5, 4), title=name)
for name, values in conditional.items():
    middle = np.median(values, axis=0)
    axes[2].plot((edges[1:] + edges[:-1]) / 2, middle, "o-", label=name)
axes[2].axhline(1 - ALPHA, color="0.5", lw=1)
axes[2].set(xlabel="x", ylabel="coverage", ylim=(0.6, 1.02))
axes[2].legend(loc="lower left")
# alt: Left and middle, 90 % intervals of constant width and from quantiles over data
# whose noise grows with x; right, coverage along x: quantiles stay near 0.9, constant
# width falls from 1 to about 0.7.
plt.show()

# %%
# What to notice
# --------------
#
# - The sets of softmax mass 0.9 cover less than 0.9 on average. The conformal sets use
#   the same probabilities; only the threshold was measured instead of assumed.
# - The guarantee is an average. By digit, and by :math:`x`, one threshold covers too
#   often or too rarely, and more data would not change that.
# - Adaptive sets add up probabilities until the class is reached. If the probabilities
#   are wrong, the sets are larger than the plain ones, and not better for every digit.
# - A threshold for each class rests on only some fifty examples: coverage is right for
#   each class, and scatters more.
# - Intervals of constant width are right on average and wrong nearly everywhere: too
#   wide where the noise is small, too narrow where it is large.
# - All of it holds while new data are exchangeable with the calibration data. If the
#   images change (distribution shift), the guarantee is gone.

print(f"{'':20s}{'coverage':>10s}{'worst digit':>13s}{'set size':>10s}")
for name in names:
    worst = np.median(by_class[name].min(axis=1))
    mean, size = np.mean(coverage[name]), np.mean(sizes[name])
    print(f"{name:20s}{mean:10.3f}{worst:13.3f}{size:10.2f}")
print(f"split conformal, confidence above 0.99: {np.mean(easy):.2f} classes")
print(f"{'':20s}{'coverage':>10s}{'worst bin':>13s}{'width':>10s}")
for name in kinds:
    values = covered[name], np.min(conditional[name], axis=1), width[name]
    mean, worst, wide = (np.median(v) for v in values)
    print(f"{name:20s}{mean:10.3f}{worst:13.3f}{wide:10.2f}")

means = [np.mean(coverage[name]) for name in predictors]
worst_bins = {name: np.min(values, axis=1) for name, values in conditional.items()}
gained = worst_bins["quantiles (CQR)"] - worst_bins["constant width"]
claim(
    "mean coverage of four conformal predictors, largest distance from 0.9",
    np.max(np.abs(np.array(means) - 0.9)), "<", 0.02, seeds=50,
)  # fmt: skip
claim(
    "coverage of the classes that hold softmax mass 0.9, mean",
    np.mean(coverage["softmax mass 0.9"]), "<", 0.9, seeds=50,
)  # fmt: skip
claim(
    "size of prediction sets where the softmax is above 0.99, median",
    np.median(easy), "<", 1.2, unit="classes", seeds=50,
)  # fmt: skip
claim(
    "coverage of the worst digit, one threshold for all, median of 5 networks",
    np.median(by_class["split conformal"].min(axis=1)), "<", 0.85, seeds=5,
)  # fmt: skip
claim(
    "coverage of the worst digit, a threshold for each, median of 5 networks",
    np.median(by_class["by class"].min(axis=1)), ">", 0.85, seeds=5,
)  # fmt: skip
claim(
    "coverage in the worst tenth of x, CQR less constant width, median of 3 sets",
    np.median(gained), ">", 0.05, seeds=len(CURVES),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Calibrate on 19 examples and on 9. Draw the histogram of the coverage over many
#    splits, and the Beta density :math:`\mathrm{Beta}(k, n + 1 - k)` on top. What is
#    :math:`k`?
#
# .. dropdown:: Hint to 1
#
#    :math:`k = \lceil (n+1)(1-\alpha) \rceil`; with 9 examples it is 9, the largest
#    score. The number is ``CAL``; take ``"by class"`` out of ``predictors``, since it
#    needs 9 examples of each class.
#
# 2. Put :class:`~dlcompanion.uncertainty.TemperatureScaling` between network and
#    predictor. Does the coverage change? Do the sizes of the sets?
#
# .. dropdown:: Hint to 2
#
#    The theorem holds for any score, so only the sizes can change. One threshold on
#    :math:`1 - \hat p_y` is not invariant to the temperature.
#
# 3. Rotate the test images by ten degrees, and only those. How much coverage is lost?
#
# .. dropdown:: Hint to 3
#
#    ``scipy.ndimage.rotate(images, 10, axes=(1, 2), reshape=False)`` on images of shape
#    ``(-1, 8, 8)``; ``network`` is the last of the five. Calibration and test are not
#    exchangeable any more.
#
# References
# ----------
# A tutorial is :cite:t:`angelopoulos2021gentle`. The smallest sets are those of
# :cite:t:`sadinle2019least`, the adaptive ones those of
# :cite:t:`romano2020classification`, the regularized ones those of
# :cite:t:`angelopoulos2021uncertainty`; guarantees by category are from
# :cite:t:`vovk2012conditional`, conformal quantiles from
# :cite:t:`romano2019conformalized`.

# sphinx_gallery_tags = ["model", "introductory"]
