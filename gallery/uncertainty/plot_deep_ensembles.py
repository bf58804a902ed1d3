r"""
Deep ensembles: five networks together are better than their average member
===========================================================================

A deep ensemble trains the same network several times from different random weights and
averages the predictions. The members agree where there are training data and disagree
elsewhere, so the average has a better likelihood than a member, and the disagreement
points at inputs that are out-of-distribution (OOD). It is the simplest method for
uncertainty and hard to beat; it costs as many networks as it has members, in training
and in prediction. :class:`~dlcompanion.uncertainty.DeepEnsemble` trains all members as
one model. This page trains 25 members, takes them as five ensembles of five, and
compares likelihood and the detection of unseen classes with single members and with one
large network that has as many weights as five members.

In your own model
-----------------

Give a function that builds one network; the ensemble is a Keras model:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import DeepEnsemble, mutual_information


   def network():
       hidden = keras.layers.Dense(32, activation="relu")
       return keras.Sequential(
           [keras.Input((5,)), hidden, keras.layers.Dense(3, activation="softmax")]
       )


   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)
   ensemble = DeepEnsemble(network, members=5)
   ensemble.compile("adam", "sparse_categorical_crossentropy")
   ensemble.fit(x, y, epochs=3, verbose=0)
   mean = ensemble.predict(x, verbose=0)  # (300, 3)
   disagreement = mutual_information(ensemble.predict_members(x))  # (300,)

Prerequisites: :doc:`/gallery/uncertainty/plot_calibration`.

Neighbors: :doc:`/gallery/uncertainty/plot_swag`,
:doc:`/gallery/uncertainty/plot_monte_carlo_dropout`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/deep_ensembles.svg
#    :figclass: drawing
#    :alt: One input goes to three networks with other first weights; their predicted
#       probabilities, three bars each, differ, and the ensemble predicts the mean.
#
# The prediction is the mixture of the members' predictions. The logarithm is concave,
# so for every single example, by Jensen's inequality,
#
# .. math::
#
#    -\log \frac1M \sum_{m=1}^M p(y \mid x, w_m)
#    \;\le\; \frac1M \sum_{m=1}^M -\log p(y \mid x, w_m) .
#
# The mixture is never worse than the *mean member*; how much better it is depends on
# how much the members disagree. Disagreement is measured by the mutual information of
# label and member: the entropy of the mixture less the mean entropy of the members.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import (
    DeepEnsemble,
    ExpectedCalibrationError,
    mutual_information,
    predictive_entropy,
)

keras.utils.set_random_seed(claims.seed())
SEEDS, M = 5, 5

# %%
# The networks see 400 digits from 0 to 7. They are tested on other digits from 0 to 7,
# and on eights and nines, two classes that are not in the training data.

(x_train, y_train), (x_test, y_test) = datasets.digits(
    flat=True, test=0.5, seed=claims.seed()
)
known_classes = 8
known = y_train < known_classes
x_train, y_train = x_train[known][:400], y_train[known][:400]
new = y_test >= known_classes
foreign, x_test, y_test = x_test[new], x_test[~new], y_test[~new]


def network(width):
    return lambda: keras.Sequential(
        [
            keras.Input((x_train.shape[-1],)),
            keras.layers.Dense(width, "relu"),
            keras.layers.Dense(width, "relu"),
            keras.layers.Dense(known_classes, "softmax"),
        ]
    )


def trained(width, members, seed):
    ensemble = DeepEnsemble(network(width), members, seed=seed)
    loss = "sparse_categorical_crossentropy"
    ensemble.compile(keras.optimizers.Adam(3e-3), loss)
    fit_in_memory(
        ensemble, x_train, y_train, batch_size=40, epochs=60, verbose=0, seed=seed
    )
    return ensemble


small = trained(48, SEEDS * M, seed=claims.seed())
wide = trained(
    136, SEEDS, seed=claims.seeds(2)[1]
)  # five networks, each with the weights of M small
sizes = [e.count_params() // e.members for e in (small, wide)]
print(f"{SEEDS * M} members, {small.execution}")
print(f"weights of one: {sizes[0]}, wide: {sizes[1]}")

# %%
# All 25 were one program. The first five are the first ensemble, and so on.


def grouped(ensemble, x):
    """Probabilities (seeds, members, examples, classes)."""
    p = ensemble.predict_members(x)
    return p.reshape(SEEDS, -1, *p.shape[1:])


def nll(p):
    """Mean negative log-likelihood of the test labels; p is (..., examples, 8)."""
    return -np.log(p[..., np.arange(len(y_test)), y_test]).mean(axis=-1)


p, p_foreign = grouped(small, x_test), grouped(small, foreign)
q, q_foreign = grouped(wide, x_test), grouped(wide, foreign)

member_nll = nll(p).mean(axis=1)  # (seeds,)
ensemble_nll = nll(p.mean(axis=1))
wide_nll = nll(q[:, 0])

counts = [1, 2, 3, 5, 8, 12, 25]
every, rng = p.reshape(-1, *p.shape[2:]), np.random.default_rng(claims.seed())
curve = [
    [
        float(nll(every[rng.choice(len(every), count, replace=False)].mean(axis=0)))
        for _ in range(25)
    ]
    for count in counts
]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
axes[0].plot(counts, np.mean(curve, axis=1), "o-", label="ensemble")
low, high = np.quantile(curve, [0.1, 0.9], axis=1)
axes[0].fill_between(counts, low, high, alpha=0.2, label="8 of 10 draws of members")
axes[0].axhline(wide_nll.mean(), color="C1", ls="--", label="one wide network")
axes[0].set(xlabel="members $M$", ylabel="test NLL (nats)", xscale="log")
axes[0].set_xticks(counts, [str(c) for c in counts])
axes[0].legend(fontsize="small")
disagreement = [mutual_information(a) for a in (p[0], p_foreign[0])]
bins = np.linspace(0, max(a.max() for a in disagreement), 30)
for a, label in zip(disagreement, ("digits 0 to 7", "eights and nines"), strict=True):
    axes[1].hist(a, bins, density=True, alpha=0.6, label=label)
axes[1].set(xlabel="disagreement of five members (nats)", yscale="log")
axes[1].set(ylabel="density")
axes[1].legend(fontsize="small")
# alt: Left, test NLL falls with the number of members, most of it up to five, beside
# the line of one wide network; right, histograms of disagreement: unseen digits reach
# further to the right than digits 0 to 7.
plt.show()

# %%
# What the five members of the first ensemble predict for unseen classes. The left half
# of the row holds the images on which they agree most, the right half those on which
# they agree least. Each column of the maps is a class, each row a member.

order = disagreement[1].argsort()
shown = [*order[:4], *order[-4:]]
figure, axes = plt.subplots(2, 8, figsize=(10, 2.7), layout="constrained")
for column, n in enumerate(shown):
    axes[0, column].imshow(foreign[n].reshape(8, 8), cmap="gray_r")
    axes[1, column].imshow(p_foreign[0, :, n], cmap="viridis", vmin=0, vmax=1)
    axes[0, column].set(xticks=[], yticks=[])
    axes[1, column].set(xticks=range(known_classes), yticks=[])
    axes[1, column].tick_params(labelsize=6)
# alt: Eight images of eights and nines above, and below each a map of five members by
# eight classes: on the left all members agree on one class, on the right they differ.
plt.show()

# %%
# Detection of unseen classes (out-of-distribution detection): the area under the ROC
# curve (AUROC) of the entropy of a single member, of the ensemble, and of the wide
# network. A random score has 0.5.


def auroc(score, score_foreign):
    truth = np.repeat([0, 1], [len(score), len(score_foreign)])
    return roc_auc_score(truth, np.concatenate([score, score_foreign]))


def entropies(p, p_foreign):
    return [predictive_entropy(a[None]) for a in (p, p_foreign)]


scores = {"mean member": [], "ensemble": [], "wide network": [], "disagreement": []}
for s in range(SEEDS):
    alone = [auroc(*entropies(p[s, m], p_foreign[s, m])) for m in range(M)]
    scores["mean member"].append(np.mean(alone))
    scores["ensemble"].append(
        auroc(predictive_entropy(p[s]), predictive_entropy(p_foreign[s]))
    )
    scores["wide network"].append(auroc(*entropies(q[s, 0], q_foreign[s, 0])))
    scores["disagreement"].append(
        auroc(mutual_information(p[s]), mutual_information(p_foreign[s]))
    )


def calibration(p):
    metric = ExpectedCalibrationError()
    metric.update_state(y_test, p)
    return float(metric.result())


ece_member = [np.mean([calibration(a) for a in p[s]]) for s in range(SEEDS)]
ece = [calibration(p[s].mean(axis=0)) for s in range(SEEDS)]

# %%
# What to notice
# --------------
#
# - Most of the gain is there with five members; more do no harm.
# - One network with as many weights as five members usually has a worse likelihood than
#   they have together, since its errors are not averaged; on some seeds it is a little
#   better. What the five have in addition is their disagreement.
# - Members can be wrong together: on the images on the left all five agree on a class
#   that is wrong. Disagreement is no guarantee.
# - Calibration may go either way: averaging flattens the probabilities, which helps
#   where members are overconfident and hurts where they are not. The likelihood of the
#   mixture is never worse than the mean of the members'.
#
# The baseline that guesses evenly, then the table (median and standard deviation of
# five ensembles), then the claims.

print(f"{'NLL of an even guess':24s} {np.log(known_classes):.3f}")
for name, values in {
    "NLL, mean member": member_nll,
    "NLL, ensemble": ensemble_nll,
    "NLL, wide network": wide_nll,
    "ECE, mean member": ece_member,
    "ECE, ensemble": ece,
    **{f"AUROC, {k}": v for k, v in scores.items()},
}.items():
    print(f"{name:24s} {np.median(values):.4f} ± {np.std(values, ddof=1):.4f}")

gain, against = member_nll - ensemble_nll, wide_nll - ensemble_nll
print("gain", gain.round(4), "against wide", against.round(4))
claim(
    "test NLL of an ensemble of five to that of its mean member, worst",
    float((ensemble_nll / member_nll).max()),
    "<",
    0.95,
    seeds=SEEDS,
)
claim(
    "test NLL of an ensemble to that of one network with as many weights, median",
    float(np.median(ensemble_nll / wide_nll)),
    "<",
    1.15,
    seeds=SEEDS,
)
better = np.subtract(scores["ensemble"], scores["mean member"])
print("AUROC gained", better.round(4))
claim(
    "AUROC for unseen classes, ensemble less mean member, median",
    float(np.median(better)),
    ">",
    0.0,
    seeds=SEEDS,
)
keras.utils.set_random_seed(small.seeds[3])
alone = network(48)()
alone.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
fit_in_memory(
    alone, x_train, y_train, batch_size=40, epochs=60, verbose=0, seed=claims.seed()
)
gap = np.abs(alone.predict(x_test, verbose=0) - every[3]).max()
claim(
    "prediction of a member against the same network trained alone, largest gap",
    gap,
    "<",
    1e-3,
)

# %%
# Try it
# ------
#
# 1. Give each member a bootstrap sample: arrays of shape ``(examples, members, ...)``.
#    Does bagging help beyond the different starts?
#
# .. dropdown:: Hint to 1
#
#    See the docstring of :class:`~dlcompanion.uncertainty.DeepEnsemble` for data of
#    each member. A bootstrap sample holds 63 % of the examples.
#
# 2. Take the same start for all members, and other orders of the data. How much of the
#    disagreement is left?
#
# .. dropdown:: Hint to 2
#
#    Train five networks one by one, each after ``keras.utils.set_random_seed`` with the
#    same number, and give ``fit_in_memory`` different seeds.
#
# 3. Train ten times as long. Who gains more, the members or the ensemble?
#
# .. dropdown:: Hint to 3
#
#    Look at the NLL, not at the accuracy: overconfident members gain most from being
#    averaged.
#
# References
# ----------
# Lakshminarayanan, Pritzel and Blundell, *Simple and Scalable Predictive Uncertainty
# Estimation using Deep Ensembles*, 2017, https://arxiv.org/abs/1612.01474
# (:cite:t:`lakshminarayanan2017ensembles`).

# sphinx_gallery_tags = ["model", "introductory"]
