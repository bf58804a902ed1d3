r"""
Triplet loss: a learned distance works for classes it has never seen
====================================================================

Nearest neighbors, search and face recognition need a distance between examples, and the
distance between pixels measures the wrong thing as soon as something irrelevant varies,
such as the light. The triplet loss learns an embedding (metric learning): an anchor
should be nearer to an example of its class than to one of another class, by a margin.
The classes of the test need not be in the training data. Use it if there are many
classes, or new ones after training; for a few fixed classes a softmax classifier is
simpler. :class:`~dlcompanion.losses.TripletBatchHard`,
:class:`~dlcompanion.losses.TripletSemiHard` and :class:`~dlcompanion.losses.TripletAll`
differ in which triplets of a batch they use. Here six digits are for training and the
other four for the test.

In your own model
-----------------

The targets are integer classes, and the outputs are the embedding:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.losses import TripletSemiHard

   x = np.random.normal(size=(256, 10)).astype("float32")
   y = (x[:, 0] > 0).astype("int32") + (x[:, 1] > 0)  # classes, as integers
   hidden = keras.layers.Dense(32, activation="relu")
   model = keras.Sequential([keras.Input((10,)), hidden, keras.layers.Dense(8)])
   model.compile("adam", TripletSemiHard(margin=1.0))
   model.fit(x, y, batch_size=64, epochs=3, verbose=0)  # several of a class per batch
   embedding = model.predict(x, verbose=0)  # (256, 8): near means alike

Neighbors: :doc:`/gallery/losses/plot_maximum_likelihood`,
:doc:`/gallery/foundations/plot_curse_of_dimensionality`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Map an image :math:`x` to an embedding :math:`f_\theta(x)`, and write
# :math:`D_{ij}` for the distance of two embeddings. An anchor :math:`a` should be
# nearer to each positive :math:`p` (same class) than to each negative :math:`n`, by a
# margin:
#
# .. math:: \bigl[\, m + D_{ap} - D_{an} \,\bigr]_+ .
#
# A batch of :math:`b` images has on the order of :math:`b^3` triplets, and soon nearly
# all of them have a loss of zero. The losses differ in which ones they take (triplet
# mining). *Batch all* takes every one whose loss is positive; *batch hard* the farthest
# positive and the
# nearest negative of each anchor :cite:p:`hermans2017defense`; *semi-hard*, for each
# positive, the nearest negative that is farther away :cite:p:`schroff2015facenet`.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.losses import TripletAll, TripletBatchHard, TripletSemiHard
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())

# %%
# Every digit gets its own light: a brightness and a slope in two directions, drawn
# from normal distributions, independent of the class.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
digits, labels = np.vstack([x_train, x_test]), np.append(y_train, y_test)
side = int(digits.shape[-1] ** 0.5)
rows, columns = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
light = np.stack([np.ones(side**2), rows.ravel(), columns.ravel()])  # (3, pixels)


def lit(images, seed):
    amounts = np.random.default_rng(seed).normal(size=(len(images), 3))
    return (images + amounts @ light).astype("float32")


def split(seed):
    """Which digits are held out."""
    return np.random.default_rng(seed).permutation(int(labels.max()) + 1)[:4]


def neighbors(x):
    """Index of the nearest other example."""
    squares = (x**2).sum(axis=1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(axis=1)


def recall(x, y):
    """Recall@1: how often the nearest other example is of the same class."""
    return float(np.mean(y[neighbors(x)] == y))


# %%
# The network is a single matrix, from 64 pixels to 32 numbers: what is learned is a
# Mahalanobis distance. Fifteen epochs with each of the three losses, for five ways to
# hold out four digits, and once more without the light.

minings = {
    "batch hard": TripletBatchHard,
    "semi-hard": TripletSemiHard,
    "batch all": TripletAll,
}


class ActiveShare(keras.callbacks.Callback):
    """Share of all triplets of some images that still cost something."""

    def __init__(self, x, y, margin):
        super().__init__()
        self.x, self.margin, self.shares = x, margin, []
        same = y[:, None] == y
        positive = same & ~np.eye(len(y), dtype=bool)
        self.triplets = positive[:, :, None] & ~same[:, None, :]

    def on_train_begin(self, logs=None):
        self.on_epoch_end(-1)

    def on_epoch_end(self, epoch, logs=None):
        f = self.x @ self.model.get_weights()[0]
        distances = np.linalg.norm(f[:, None] - f, axis=-1)
        costs = self.margin + distances[:, :, None] - distances[:, None, :]
        self.shares.append(np.mean(costs[self.triplets] > 0))


def network(mining):
    model = keras.Sequential(
        [keras.Input((digits.shape[-1],)), keras.layers.Dense(32, use_bias=False)]
    )
    model.compile(keras.optimizers.Adam(3e-3), mining(margin=1.0))
    return model


def learn(model, x, y, seed):
    """Train anew on 1,024 images: as many each time, so that nothing is recompiled."""
    restart(model, seed)
    x, y = x[:1024], y[:1024]
    watch = ActiveShare(x[:80], y[:80], margin=1.0)
    fit_in_memory(
        model, x, y, batch_size=64, epochs=15, verbose=0, seed=seed, callbacks=[watch]
    )
    return model.get_weights()[0], watch.shares


seeds = claims.seeds(5)
scores = {name: [] for name in ["pixels", "discriminant", *minings]}
scores_without_light = {"pixels": [], "semi-hard": []}
models = {name: network(mining) for name, mining in minings.items()}
shares, matrices = ({name: [] for name in minings} for _ in range(2))
for seed in seeds:
    new = np.isin(labels, split(seed))
    x, y = lit(digits, seed), labels
    scores["pixels"].append(recall(x[new], y[new]))
    discriminant = LinearDiscriminantAnalysis().fit(x[~new], y[~new])
    scores["discriminant"].append(recall(discriminant.transform(x[new]), y[new]))
    for name, model in models.items():
        matrix, share = learn(model, x[~new], y[~new], seed)
        scores[name].append(recall(x[new] @ matrix, y[new]))
        shares[name].append(share)
        matrices[name].append(matrix)
    matrix, _ = learn(models["semi-hard"], digits[~new], y[~new], seed)
    scores_without_light["pixels"].append(recall(digits[new], y[new]))
    scores_without_light["semi-hard"].append(recall(digits[new] @ matrix, y[new]))

# %%
# The nearest neighbors of nine images of held-out digits, drawn at random: in pixels
# one with the same light, in the embedding one with the same digit. A dashed frame
# marks another digit.

new = np.isin(labels, split(seeds[0]))
x, y, matrix = lit(digits, seeds[0])[new], labels[new], matrices["semi-hard"][0]
chosen = np.random.default_rng(seeds[0]).permutation(len(x))[:9]
table = {
    "image": chosen,
    "nearest\nin pixels": neighbors(x)[chosen],
    "nearest in\nembedding": neighbors(x @ matrix)[chosen],
}
figure, axes = plt.subplots(3, 9, figsize=(9, 3.4), layout="constrained")
for line, (name, indices) in zip(axes, table.items(), strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axis, i, anchor in zip(line, indices, chosen, strict=True):
        axis.imshow(x[i].reshape(side, side), cmap="gray")
        axis.set(xticks=[], yticks=[])
        if y[i] != y[anchor]:
            axis.spines[:].set(color="C1", linewidth=4, linestyle="--", visible=True)
# alt: Nine held-out digits above, their nearest neighbors in pixels in the middle and
# in the embedding below: in pixels often another digit with the same light, marked by a
# frame, in the embedding mostly the same digit.
plt.show()

# %%
# All images of the four held-out digits, on their first two principal components.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for axis, (name, f) in zip(
    axes, {"pixels": x, "embedding": x @ matrix}.items(), strict=True
):
    plane = PCA(2).fit_transform(f)
    for digit in np.unique(y):
        axis.scatter(*plane[y == digit].T, s=8, alpha=0.7, label=str(digit))
    axis.set(title=name, xticks=[], yticks=[])
axes[1].legend(title="held out")
# alt: Held-out digits on two principal components: mixed in pixels on the left, four
# groups in the embedding on the right.
plt.show()

# %%
# The share of triplets whose loss is positive (active triplets), on images of the
# training digits: the five runs, and their mean.

figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
for color, (name, runs) in zip(("C0", "C1", "C2"), shares.items(), strict=True):
    axis.plot(np.transpose(runs), color=color, lw=0.6, alpha=0.6)
    axis.plot(np.mean(runs, axis=0), "o-", color=color, ms=3, label=name)
axis.set(xlabel="epoch", ylabel="share of active triplets", ylim=(0, None))
axis.legend()
# alt: Share of active triplets over the epochs for five runs of three losses: semi-hard
# and batch all fall low, batch hard stays near one half.
plt.show()

# %%
# What to notice
# --------------
#
# - The digits of the test are not in the training data. What carries over is what the
#   six others taught about the light.
# - The light is a three-dimensional subspace of the pixels. The matrix has learned to
#   ignore it; a discriminant analysis on the same images, with its five directions for
#   six classes, keeps too little of the rest.
# - Without the light there is nothing to learn here, and the pixels are better: these
#   digits are few, clean and centered. A learned distance removes irrelevant variation;
#   it is no free improvement.
# - With semi-hard and batch all ever fewer triplets are active, and a mean over all
#   triplets would go to zero: the losses divide by the number of those that they use.
#   Batch hard leaves about half of them, and its neighbors are as good: its
#   triplets are too hard to be satisfied, so all distances become smaller, and compared
#   with a small distance the margin is large. Nearest neighbors depend on the order of
#   distances only. The share of active triplets does not tell how good an embedding is.

everything = scores | {
    f"{name}, no light": value for name, value in scores_without_light.items()
}
for name, values in everything.items():
    print(f"{name:20s} recall@1  " + "  ".join(f"{v:.3f}" for v in values))

size = {
    name: np.array([np.sqrt((digits @ matrix).var(axis=0).mean()) for matrix in runs])
    for name, runs in matrices.items()
}
for name, values in size.items():
    print(f"{name:20s} size of embedding  {values.round(2)}")

# %%
# The claims; the last one shows where the method does not help.

gains = {name: np.subtract(scores[name], scores["pixels"]) for name in minings}
for name in minings:
    claim(
        f"recall@1 on held-out classes, {name} less pixels, worst seed",
        gains[name].min(),
        ">",
        0.15,
        seeds=len(seeds),
    )
claim(
    "recall@1 on held-out classes, worst of three losses and five seeds",
    min(min(scores[name]) for name in minings),
    ">",
    0.9,
    seeds=len(seeds),
)
last = {name: np.array(runs)[:, -1] for name, runs in shares.items()}
claim(
    "share of active triplets after semi-hard or batch all, largest",
    max(last["semi-hard"].max(), last["batch all"].max()),
    "<",
    0.35,
    seeds=len(seeds),
)
claim(
    "share of active triplets after batch hard, median",
    np.median(last["batch hard"]),
    ">",
    0.25,
    seeds=len(seeds),
)
claim(
    "size of the embedding, batch hard to batch all, largest ratio",
    max(size["batch hard"] / size["batch all"]),
    "<",
    0.85,
    seeds=len(seeds),
)
claim(
    "recall@1 without varying light, pixels less semi-hard: better, median",
    np.median(
        np.subtract(scores_without_light["pixels"], scores_without_light["semi-hard"])
    ),
    ">",
    0,
    seeds=len(seeds),
)

# %%
# Try it
# ------
#
# 1. Put a ReLU layer of 128 units in front and end in
#    :class:`keras.layers.UnitNormalization`, with ``margin=0.2``. Compare the recall on
#    the six training digits and on the four others with that of the single matrix.
#
# .. dropdown:: Hint to 1
#
#    ``recall`` on ``x[~new]`` and on ``x[new]``. ``learn`` returns a matrix: let it
#    return the model, and use ``model.predict``.
#
# 2. Raise the learning rate with batch hard until the loss stays at the margin. Where
#    are all embeddings then, and what is the gradient there?
#
# .. dropdown:: Hint to 2
#
#    If all embeddings are equal, each hinge is exactly the margin, whatever the labels
#    are.
#
# 3. Subtract from each image the plane that fits it best, and use pixels. What did the
#    matrix have to find out?
#
# .. dropdown:: Hint to 3
#
#    Least squares on ``light.T``: ``x - x @ np.linalg.pinv(light) @ light``.
#
# References
# ----------
# :cite:t:`hermans2017defense`, section 2; :cite:t:`schroff2015facenet`, section 3.2.

# sphinx_gallery_tags = ["loss", "introductory"]
