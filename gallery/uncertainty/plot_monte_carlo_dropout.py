r"""
Monte Carlo dropout (MC dropout): thirty forward passes, and what they are worth
================================================================================

Dropout is usually switched off for predictions. Monte Carlo dropout leaves it on: it
predicts many times with different masks, averages the predictions, and takes their
disagreement as uncertainty. It needs no new training and no change of the model;
:class:`~dlcompanion.uncertainty.MonteCarloDropout` wraps a trained model and keeps
everything else, above all BatchNormalization, as in inference. Use it if a model was
trained with dropout and you need uncertainty at once; it costs as many forward passes
as draws. The question of this page is whether it detects out-of-distribution (OOD)
images better than the largest softmax of the plain network, which costs nothing. It
does, but not by much.

In your own model
-----------------

Wrap a trained model with dropout and draw:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.uncertainty import (
       MonteCarloDropout,
       predictive_entropy,
       predictive_samples,
   )

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   hidden = [keras.layers.Dense(32, activation="relu"), keras.layers.Dropout(0.5)]
   model = keras.Sequential(
       [keras.Input((5,)), *hidden, keras.layers.Dense(2, activation="softmax")]
   )
   model.compile("adam", "sparse_categorical_crossentropy")
   model.fit(x, y, epochs=3, verbose=0)
   draws = predictive_samples(MonteCarloDropout(model), x, samples=30)  # (30, 300, 2)
   uncertainty = predictive_entropy(draws)  # (300,)

Prerequisites: :doc:`/gallery/uncertainty/plot_bayesian_layers`.

Neighbors: :doc:`/gallery/uncertainty/plot_deep_ensembles`,
:doc:`/gallery/regularization/plot_dropblock`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Draw :math:`S` masks :math:`m_s` and average the predictions. The entropy of the mean
# is the total uncertainty. It is the mean entropy of the single draws, which is noise
# of the data (aleatoric), plus the uncertainty about the weights (epistemic),
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

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.training import fit_in_memory, restart
from dlcompanion.uncertainty import (
    MonteCarloDropout,
    mutual_information,
    predictive_entropy,
    predictive_samples,
)

keras.utils.set_random_seed(claims.seed())
SEEDS, DRAWS, HELD_OUT = claims.seeds(5), 30, 7

# %%
# The network learns nine of the ten digits. The test has three kinds of unknown
# (out-of-distribution) images: the tenth digit, letters drawn in the same blurred way,
# and digits whose pixels were put in random order.

(x_train, y_train), (x_test, y_test) = datasets.digits(test=0.5, seed=claims.seed())
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
rng = np.random.default_rng(claims.seed())


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
    "pixels in disorder": rng.permuted(own.reshape(len(own), -1), axis=1).reshape(
        own.shape
    ),
}
foreign = {name: x.astype("float32") for name, x in foreign.items()}

figure, axes = plt.subplots(4, 10, figsize=(9, 3.8), layout="constrained")
for row, (name, pictures) in zip(axes, {"known": own, **foreign}.items(), strict=True):
    step = len(pictures) // 10
    for axis, picture in zip(row, pictures[::step], strict=False):
        axis.imshow(picture[..., 0], cmap="gray_r")
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, fontsize="small")
# alt: Four rows of ten images: known digits, the digit 7, letters, and digits with
# shuffled pixels.
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
            keras.Input(x_train.shape[1:]),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.25),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(int(y_train.max()) + 1, "softmax"),
        ]
    )


model = network()
model.compile(keras.optimizers.Adam(4e-3), "sparse_categorical_crossentropy")
stochastic = MonteCarloDropout(model)
known = len(own)
everything = np.concatenate([own, *foreign.values()])
parts = np.split(
    np.arange(len(everything)),
    np.cumsum([known, *[len(x) for x in foreign.values()]])[:-1],
)

auroc, accuracy, untouched = [], [], []
for seed in SEEDS:
    restart(model, seed)
    fit_in_memory(
        model, x_seen, y_seen, batch_size=128, epochs=30, verbose=0, seed=seed
    )
    before = [np.array(w) for w in model.get_weights()]
    p = model.predict_on_batch(everything)
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
        axis.plot(row, [place] * len(SEEDS), "o", color=f"C{place}", alpha=0.6)
        axis.plot(np.median(row), place, "|", color=f"C{place}", ms=22, mew=2)
    axis.set_yticks(range(len(doubts)), list(doubts), fontsize="small")
    axis.set(title=name, xlabel="AUROC")
axes[0].invert_yaxis()
# alt: AUROC of five uncertainty scores for three kinds of unknown images, five runs
# each as dots with their median: the scores from draws are a little higher than those
# of the plain network.
plt.show()

# %%
# The last network on single images: its draws for the known and the unknown images
# about which it is most and least certain.

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
    column[1].boxplot(
        draws[:, n], positions=range(draws.shape[-1]), widths=0.7, showfliers=False
    )
    column[1].set(ylim=(0, 1.02), xlabel="digit")
axes[1, 0].set_ylabel("probability, 30 draws")
# alt: Above, four images, known and unknown, with low and high entropy; below each, box
# plots of the probabilities of ten digits over thirty draws: narrow for low entropy,
# wide for high.
plt.show()

# %%
# What to notice
# --------------
#
# - The predictive entropy detects unknown images better than the largest softmax of the
#   plain network, by about two hundredths of AUROC: the gain is real, and no larger
#   than the differences between the kinds of images.
# - A small part of it is free: the entropy of the plain network, one pass without
#   noise, is mostly a little better than its largest softmax.
# - The mutual information, which only the draws can give, is the best score on letters.
#   On the other two kinds of images it and the predictive entropy differ little. Which
#   score is best depends on the images that will come.
# - The mean of the draws is no more accurate than the plain network.
# - BatchNormalization is untouched: no weight or statistic of the model has changed.
#
# The trivial baseline is a random score, with an AUROC of 0.5.

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
    "AUROC for unknown images, entropy of 30 draws less largest softmax, median",
    np.median(gain),
    ">",
    0.0,
    seeds=len(SEEDS),
)
claim(
    "AUROC for unknown images, entropy of 30 draws less largest softmax, largest",
    np.max(gain),
    "<",
    0.1,
    seeds=len(SEEDS),
)
claim(
    "AUROC for unknown images, entropy of 30 draws less dropout off, median",
    -np.median(free),
    "<",
    0.05,
    seeds=len(SEEDS),
)
claim(
    "AUROC for unknown images, entropy of 30 draws, median (chance: 0.5)",
    np.median(mean_over_kinds["predictive entropy"]),
    ">",
    0.85,
    seeds=len(SEEDS),
)
claim(
    "largest change of a weight or batch statistic by 30 draws",
    max(untouched),
    "<=",
    0.0,
    seeds=len(SEEDS),
)

# %%
# Try it
# ------
#
# 1. Plot the AUROC against the number of draws. After how many does it stop growing?
#
# .. dropdown:: Hint to 1
#
#    ``draws[:count]`` is enough; nothing has to be drawn again.
#
# 2. Keep only the last dropout layer active, with ``layers=[...]``. The convolutions
#    now need to run only once: how much AUROC is lost?
#
# .. dropdown:: Hint to 2
#
#    ``MonteCarloDropout(model, layers=[...])`` takes the layers that stay random.
#
# 3. Call the model with ``training=True`` instead of wrapping it, and predict one image
#    at a time. What does BatchNormalization do to the predictions?
#
# .. dropdown:: Hint to 3
#
#    With ``training=True`` it normalizes by the batch, which is a single image now.
#
# References
# ----------
# Gal and Ghahramani, *Dropout as a Bayesian Approximation*, 2016,
# https://arxiv.org/abs/1506.02142 (:cite:t:`gal2016dropout`); Houlsby et al.,
# *Bayesian Active Learning for Classification and Preference Learning*, 2011,
# https://arxiv.org/abs/1112.5745 (:cite:t:`houlsby2011bayesian`).

# sphinx_gallery_tags = ["model", "introductory"]
