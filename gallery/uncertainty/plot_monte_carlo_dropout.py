r"""
Dropout at test time: a second opinion, and whether it is worth thirty forward passes
=====================================================================================

A network trained with dropout is really many networks, one for each mask. In inference
they are averaged into one, and their disagreement is thrown away.
:class:`~dlcompanion.uncertainty.MonteCarloDropout` keeps it: it wraps a model that is
already trained, leaves the dropout on, and everything else, BatchNormalization above
all, as in inference. The question of this page is whether the disagreement finds
foreign pictures better than the largest softmax of the plain network, which is free.

Before this page: :ref:`sphx_glr_gallery_uncertainty_plot_bayesian_layers.py`;
notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Draw :math:`S` masks :math:`m_s` and average the predictions. The entropy of the mean
# is all the doubt there is; what is left of it when the mean entropy of the single
# draws is taken off is the doubt that comes from not knowing the weights,
#
# .. math::
#
#    \bar p = \frac1S \sum_s p_s, \qquad
#    \underbrace{H[\bar p]}_{\text{predictive entropy}} =
#    \underbrace{\frac1S \sum_s H[p_s]}_{\text{noise of the data}} +
#    \underbrace{I}_{\text{mutual information}} .

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from dlcompanion import datasets
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import (
    MonteCarloDropout,
    mutual_information,
    predictive_entropy,
    predictive_samples,
)

keras.utils.set_random_seed(0)
SEEDS, DRAWS, HELD_OUT = 5, 30, 7

# %%
# The network learns nine of the ten digits. Three kinds of foreign pictures come in
# the test: the digit it never saw, shapes that are drawn like letters and printed in
# the same blurred way, and digits whose pixels were put in random order.

(x_train, y_train), (x_test, y_test) = datasets.digits(test=0.5, seed=0)
x_seen, y_seen = x_train[y_train != HELD_OUT], y_train[y_train != HELD_OUT]
own = x_test[y_test != HELD_OUT]
y_own = y_test[y_test != HELD_OUT]
every = np.concatenate([x_train, x_test])
never_seen = every[np.concatenate([y_train, y_test]) == HELD_OUT]

LETTERS = {
    "A": "..##.. .#..#. #....# ###### #....# #....#",
    "E": "###### #..... ####.. #..... #..... ######",
    "H": "#....# #....# ###### #....# #....# #....#",
    "K": "#...#. #..#.. ###... #..#.. #...#. #....#",
    "T": "###### ..##.. ..##.. ..##.. ..##.. ..##..",
    "V": "#....# #....# #....# .#..#. .#..#. ..##..",
    "X": "#....# .#..#. ..##.. ..##.. .#..#. #....#",
    "F": "###### #..... ####.. #..... #..... #.....",
}
rng = np.random.default_rng(0)


def letter(rows):
    """One letter of 6 x 6, moved, faded and blurred a little: (8, 8, 1)."""
    picture = np.zeros((8, 8))
    ink = np.array([[c == "#" for c in row] for row in rows.split()], float)
    top, left = rng.integers(0, 3, 2)
    picture[top : top + 6, left : left + 6] = ink * rng.uniform(0.7, 1.0, (6, 6))
    near = np.pad(picture, 1)
    around = near[:-2, 1:-1] + near[2:, 1:-1] + near[1:-1, :-2] + near[1:-1, 2:]
    return np.clip(picture + 0.15 * around, 0, 1)[..., None]


foreign = {
    f"the digit {HELD_OUT}": never_seen,
    "letters": np.stack([letter(r) for r in LETTERS.values() for _ in range(25)]),
    "pixels in disorder": rng.permuted(own.reshape(-1, 64), axis=1).reshape(own.shape),
}
foreign = {name: x.astype("float32") for name, x in foreign.items()}

figure, axes = plt.subplots(4, 10, figsize=(9, 3.8), layout="constrained")
for row, (name, pictures) in zip(axes, {"known": own, **foreign}.items(), strict=True):
    step = len(pictures) // 10
    for axis, picture in zip(row, pictures[::step], strict=False):
        axis.imshow(picture[..., 0], cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, fontsize="small")
plt.show()

# %%
# Five networks
# -------------
#
# A small convolutional network with BatchNormalization and dropout. The wrapper is
# made once, from the model; both share the weights.


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.25, seed=1),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5, seed=2),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dropout(0.5, seed=3),
            keras.layers.Dense(10, "softmax"),
        ]
    )


model = network()
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
stochastic = MonteCarloDropout(model)
known = len(own)
everything = np.concatenate([own, *foreign.values()])
parts = np.split(
    np.arange(len(everything)),
    np.cumsum([known, *[len(x) for x in foreign.values()]])[:-1],
)

auroc, accuracy, untouched = [], [], []
for seed in range(SEEDS):
    keras.utils.set_random_seed(seed)
    restart(model, weights=network().get_weights())
    fit_in_memory(model, x_seen, y_seen, batch_size=64, epochs=40, verbose=0, seed=seed)
    before = [np.array(w) for w in model.get_weights()]
    p = model.predict(everything, batch_size=len(everything), verbose=0)
    draws = predictive_samples(
        stochastic, everything, DRAWS, batch_size=len(everything), seed=seed
    )
    after = model.get_weights()
    untouched.append(
        max(np.abs(a - b).max() for a, b in zip(before, after, strict=True))
    )
    doubts = {
        "1 - largest softmax": 1 - p.max(axis=1),
        "entropy, dropout off": predictive_entropy(p[None]),
        "1 - largest mean of draws": 1 - draws.mean(axis=0).max(axis=1),
        "predictive entropy": predictive_entropy(draws),
        "mutual information": mutual_information(draws),
    }
    auroc.append(
        [
            [
                roc_auc_score(
                    np.repeat([0, 1], [known, len(part)]),
                    np.concatenate([doubt[:known], doubt[part]]),
                )
                for part in parts[1:]
            ]
            for doubt in doubts.values()
        ]
    )
    answers = p[:known].argmax(axis=1), draws.mean(axis=0)[:known].argmax(axis=1)
    accuracy.append([np.mean(a == y_own) for a in answers])
auroc = np.array(auroc)  # (seeds, doubts, kinds of foreign pictures)

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained", sharey=True)
for axis, name, values in zip(axes, foreign, auroc.transpose(2, 1, 0), strict=True):
    for place, row in enumerate(values):
        axis.plot(row, [place] * SEEDS, "o", color=f"C{place}", alpha=0.6)
        axis.plot(np.median(row), place, "|", color=f"C{place}", ms=22, mew=2)
    axis.set_yticks(range(len(doubts)), list(doubts), fontsize="small")
    axis.set(title=name, xlabel="AUROC")
axes[0].invert_yaxis()
plt.show()

# %%
# The last network, picture by picture: what its draws say about one digit it knows and
# the foreign pictures that it is surest and least sure about.

entropy = predictive_entropy(draws)
far = np.arange(known, len(everything))
examples = {
    "known": int(np.argmin(entropy[:known])),
    "known, in doubt": int(np.argmax(entropy[:known])),
    "foreign, taken for known": int(far[np.argmin(entropy[far])]),
    "foreign, found": int(far[np.argmax(entropy[far])]),
}
figure, axes = plt.subplots(2, 4, figsize=(9, 3.8), layout="constrained")
for column, (name, n) in zip(axes.T, examples.items(), strict=True):
    column[0].imshow(everything[n, ..., 0], cmap="gray_r")
    column[0].set(title=name, xticks=[], yticks=[])
    column[1].boxplot(draws[:, n], positions=range(10), widths=0.7, showfliers=False)
    column[1].set(ylim=(0, 1.02), xlabel="digit")
axes[1, 0].set_ylabel("probability, 30 draws")
plt.show()

# %%
# What to notice
# --------------
#
# - The predictive entropy finds foreign pictures better than the largest softmax of
#   the plain network, by about one hundredth of AUROC: the promise holds, and it is
#   small beside what the kinds of pictures differ by.
# - A part of that hundredth is free: the entropy of the plain network, one pass and
#   no noise, beats its own largest softmax on two of the three kinds.
# - What only the draws can tell, the mutual information, is the best of all on
#   letters and falls behind on pixels in disorder, where the draws agree that they do
#   not know. There is no best score without knowing what will come. With a network
#   trained for half as long it fell far behind: disagreement has to be learned.
# - The mean of the draws is no more accurate than the plain network.
# - BatchNormalization is untouched: not one number of the model has moved.
#
# The trivial baseline finds foreign pictures at random, with an AUROC of 0.5.

table = np.median(auroc, axis=0)
print(f"{'AUROC, medians of 5':28s}" + "  ".join(f"{n:>18s}" for n in foreign))
for name, row in zip(doubts, table, strict=True):
    print(f"{name:28s}" + "  ".join(f"{value:18.3f}" for value in row))
plain, drawn = np.median(accuracy, axis=0)
print(f"accuracy {plain:.3f} plain, {drawn:.3f} by the mean of {DRAWS} draws")

mean_over_kinds = dict(zip(doubts, auroc.mean(axis=2).T, strict=True))
gain = mean_over_kinds["predictive entropy"] - mean_over_kinds["1 - largest softmax"]
free = mean_over_kinds["entropy, dropout off"] - mean_over_kinds["predictive entropy"]
in_disorder = auroc[:, 4, 2] - auroc[:, 1, 2]
for name, d in (
    ("predictive entropy less largest softmax", gain),
    ("plain entropy less predictive entropy", free),
    ("mutual information less plain entropy, disorder", in_disorder),
):
    print(f"{name}: {np.median(d):+.4f}, standard deviation {np.std(d, ddof=1):.4f}")

claim(
    "AUROC gained by predictive entropy over the largest softmax, median",
    np.median(gain),
    ">",
    0.0,
    seeds=SEEDS,
)
claim(
    "the same gain: it is small, largest",
    np.max(gain),
    "<",
    0.05,
    seeds=SEEDS,
)
claim(
    "AUROC lost by the plain network's entropy against predictive entropy, median",
    -np.median(free),
    "<",
    0.02,
    seeds=SEEDS,
)
claim(
    "AUROC of predictive entropy over all foreign pictures, median (chance: 0.5)",
    np.median(mean_over_kinds["predictive entropy"]),
    ">",
    0.85,
    seeds=SEEDS,
)
claim(
    "largest change of a weight or a batch statistic by all the draws",
    max(untouched),
    "<=",
    0.0,
    seeds=SEEDS,
)

# %%
# Try it
# ------
#
# 1. Plot the AUROC against the number of draws. After how many does it stand still?
# 2. Keep only the last dropout layer active, with ``layers=[...]``. The convolutions
#    now need to run only once: how much is lost?
# 3. Call the model with ``training=True`` instead of wrapping it, and test one
#    picture at a time. What does BatchNormalization do to the predictions?
#
# References
# ----------
# Gal and Ghahramani, *Dropout as a Bayesian Approximation*, 2016,
# https://arxiv.org/abs/1506.02142 (:cite:t:`gal2016dropout`); Houlsby et al.,
# *Bayesian Active Learning for Classification and Preference Learning*, 2011,
# https://arxiv.org/abs/1112.5745 (:cite:t:`houlsby2011bayesian`).

# sphinx_gallery_tags = ["model", "all backends", "beginner"]
