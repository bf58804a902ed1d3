r"""
DropBlock: a pixel dropped alone can be read off its neighbors
==============================================================

Dropout sets single values to zero so that a network does not rely on any one of them
(regularization against overfitting). In convolutional layers it works less well,
because neighboring pixels of a feature map carry nearly the same information: what one
pixel lost, the next one still has. :class:`~dlcompanion.regularization.DropBlock2D`
drops squares instead. Use it in convolutional networks of some size, or if parts of the
image may be missing; for dense layers use ``keras.layers.Dropout``. This page measures
how much of a dropped value its neighbors reveal, with dropout and with DropBlock, and
what the difference is worth to a small network: robustness to missing regions, and no
gain in accuracy on clean digits.

In your own model
-----------------

Put the layer behind a convolution; it is active in training only:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.regularization import DropBlock2D

   x = np.random.normal(size=(64, 8, 8, 1)).astype("float32")
   y = (x.mean(axis=(1, 2, 3)) > 0).astype("int32")
   convolution = keras.layers.Conv2D(8, 3, padding="same", activation="relu")
   head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
   model = keras.Sequential(
       [keras.Input((8, 8, 1)), convolution, DropBlock2D(0.1, 3), *head]
   )
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile("adam", loss)
   model.fit(x, y, epochs=3, verbose=0)

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`.

Neighbors: :doc:`/gallery/uncertainty/plot_monte_carlo_dropout`. Notation:
:doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Each position at which a :math:`k \times k` square fits into the map starts one
# with probability :math:`\gamma`, in every channel by itself. What a square covers
# is zero, and the rest is scaled up by the share that was kept:
#
# .. math::
#
#    M_{ij} = 1 - \max_{s \text{ covers } ij} m_s, \quad
#    m_s \sim \mathrm{Bernoulli}(\gamma), \qquad
#    y = x \odot M \cdot \frac{\operatorname{count}(M)}{\operatorname{sum}(M)} .
#
# The paper's :math:`\gamma` counts overlapping squares twice and drops too little.
# Ours solves :math:`\operatorname{mean}_{ij}[1 - (1-\gamma)^{n_{ij}}] = \text{rate}`
# with :math:`n_{ij}` squares that can cover the pixel.

import keras
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.regularization import DropBlock2D
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
RATE = 0.3


def kept(layer, shape):
    """Where a layer keeps maps of ones."""
    return (
        keras.ops.convert_to_numpy(layer(np.ones(shape, "float32"), training=True)) > 0
    )


# %%
# Three ways to drop three tenths of the same four channels. The layer at the right
# is between the other two: :math:`k = 1` is Dropout, and a square as large as the
# map is SpatialDropout.

layers = {
    "Dropout": keras.layers.Dropout(RATE, seed=claims.seed()),
    "SpatialDropout2D": keras.layers.SpatialDropout2D(RATE, seed=claims.seed()),
    "DropBlock2D, k = 5": DropBlock2D(RATE, 5, seed=claims.seed()),
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for axis, (name, layer) in zip(axes, layers.items(), strict=True):
    masks = np.pad(kept(layer, (1, 20, 20, 4))[0].astype(float), ((1,), (1,), (0,)))
    masks[[0, -1]] = masks[:, [0, -1]] = 0.5
    rows = [np.hstack([masks[..., c], masks[..., c + 1]]) for c in (0, 2)]
    axis.imshow(np.vstack(rows), cmap="cividis", vmin=0, vmax=1)
    axis.set_title(name)
    axis.set_axis_off()
# alt: Masks of four channels: Dropout drops scattered pixels, SpatialDropout2D whole
# channels, DropBlock2D squares.
plt.show()

# %%
# The share that is dropped is the rate, whatever the size of the square. The paper's
# formula (dashed) drops too little where squares overlap, and is right again for the
# one square that fills the map.

sizes = [1, 2, 3, 5, 7, 8]
rates = [0.1, 0.3, 0.5]


def paper_share(rate, k, side=8):
    layer = DropBlock2D(rate, k, seed=claims.seed())
    layer.build((None, side, side, 16))
    layer.gamma = min(1.0, rate / k**2 * side**2 / (side - k + 1) ** 2)
    return 1 - kept(layer, (100, side, side, 16)).mean()


shares = {
    (r, k): 1 - kept(DropBlock2D(r, k, seed=claims.seed()), (1_600, 8, 8, 16)).mean()
    for r in rates
    for k in sizes
}
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for color, r in zip(("C0", "C1", "C2"), rates, strict=True):
    ours = [shares[r, k] for k in sizes]
    axis.plot(sizes, ours, "o-", color=color, label=f"rate {r}")
    axis.plot(sizes, [paper_share(r, k) for k in sizes], "--", color=color)
axis.set(xlabel="side of the square $k$, on a map of 8 x 8", ylabel="share dropped")
axis.set(ylim=(0, 0.62))
axis.legend(loc="upper left", ncols=3, fontsize="small")
# alt: Share dropped against the side of the square, for three rates: the layer stays on
# the rate, the dashed lines of the paper's formula lie below it for middle sizes.
plt.show()

# %%
# What the neighbors reveal
# -------------------------
#
# A small network for the 8 x 8 digits, with a place for a layer that drops. First it is
# trained without one, to get feature maps.

(x_train, y_train), (x_test, y_test) = datasets.digits(test=0.5, seed=claims.seed())


def network(make_drop):
    model = keras.Sequential(
        [
            keras.Input(x_train.shape[1:]),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            make_drop(),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            make_drop(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(int(y_train.max()) + 1),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(8e-3), loss)
    return model


def train(model, seed, start=None, examples=300, epochs=35):
    """Train from a new start, or from given weights; what is compiled is kept."""
    restart(model, seed if start is None else None, weights=start)
    chosen = np.random.default_rng(seed).permutation(len(x_train))[:examples]
    x, y = x_train[chosen], y_train[chosen]
    fit_in_memory(model, x, y, batch_size=75, epochs=epochs, verbose=0, seed=seed)


kinds = {
    "nothing dropped": keras.layers.Identity,
    "Dropout": lambda: keras.layers.Dropout(RATE, seed=claims.seed()),
    "DropBlock, k = 3": lambda: DropBlock2D(RATE, 3, seed=claims.seed()),
}
models = {kind: network(make_drop) for kind, make_drop in kinds.items()}
plain = models["nothing dropped"]
train(plain, claims.seed())
first = keras.Sequential(plain.layers[:1])  # the maps after the first convolution
maps = keras.ops.convert_to_numpy(first(x_test))

# %%
# Drop, then guess each dropped value as the mean of what survived around it, near
# ones weighing most. :math:`R^2` is the share of the variance that the guess
# explains; guessing the mean of the channel scores 0.


def guess(values, mask):
    """Fill dropped values with a Gaussian mean of their surviving neighbors."""
    smooth = [gaussian_filter(a, (0, 1, 1, 0)) for a in (values * mask, mask * 1.0)]
    return smooth[0] / np.maximum(smooth[1], 1e-9)


def revealed(layer):
    mask = kept(layer, maps.shape)
    gone = ~mask
    error = ((guess(maps, mask) - maps) ** 2)[gone].sum()
    return 1 - error / ((maps - maps.mean(axis=(0, 1, 2))) ** 2)[gone].sum()


squares = [1, 2, 3, 4, 5]
r2 = [revealed(DropBlock2D(RATE, k, seed=claims.seed())) for k in squares]
r2_dropout = revealed(keras.layers.Dropout(RATE, seed=claims.seed()))

figure, axes = plt.subplots(
    1, 5, figsize=(10, 2.6), layout="constrained", width_ratios=[1, 1, 1, 1, 1.7]
)
channel = int(maps.var(axis=(0, 1, 2)).argmax())
low, high = maps[0, ..., channel].min(), maps[0, ..., channel].max()
for column, (name, layer) in enumerate(
    {
        "Dropout": keras.layers.Dropout(RATE, seed=claims.seed()),
        "DropBlock": DropBlock2D(RATE, 3, seed=claims.seed()),
    }.items()
):
    mask = kept(layer, maps.shape)
    filled = np.where(mask, maps, guess(maps, mask))[0, ..., channel]
    holes = np.where(mask, maps, np.nan)[0, ..., channel]
    for axis, image, what in zip(
        axes[2 * column :], (holes, filled), ("", ", guessed"), strict=False
    ):
        axis.imshow(image, cmap="viridis", vmin=low, vmax=high)
        axis.set_facecolor("0.85")
        axis.set(title=name + what, xticks=[], yticks=[])
axes[4].plot(squares, r2, "o-", label="DropBlock")
axes[4].axhline(r2_dropout, color="C1", ls="--", label="Dropout")
axes[4].set(xlabel="side of the square $k$", ylabel="$R^2$ of the guess")
axes[4].legend(fontsize="small")
# alt: A feature map with holes from Dropout and from DropBlock, each beside its
# reconstruction from neighbors; right, R² of the reconstruction falls with the side of
# the square, below the line of Dropout.
plt.show()

# %%
# What it is worth
# ----------------
#
# Five networks of each kind on 300 digits, each kind from the same five starts. They
# are tested on clean digits and on digits of which a 3 x 3 square was blacked out (four
# random places each), which resembles what DropBlock does inside the network.

x_hidden, y_hidden = np.repeat(x_test, 4, axis=0), np.repeat(y_test, 4)
corners = np.random.default_rng(claims.seed()).integers(0, 6, (len(x_hidden), 2))
for image, (row, column) in zip(x_hidden, corners, strict=True):
    image[row : row + 3, column : column + 3] = 0

clean, hidden = ({kind: [] for kind in kinds} for _ in range(2))
for seed in claims.seeds(5):
    restart(plain, seed)
    start = plain.get_weights()
    for kind, model in models.items():
        train(model, seed, start)
        for scores, x, y in ((clean, x_test, y_test), (hidden, x_hidden, y_hidden)):
            logits = keras.ops.convert_to_numpy(model(x, training=False))
            answers = logits.argmax(axis=1)
            scores[kind].append(float((answers == y).mean()))

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for axis, scores, title in zip(
    axes, (clean, hidden), ("clean digits", "a 3 x 3 square blacked out"), strict=True
):
    for place, kind in enumerate(kinds):
        axis.plot([place] * 5, scores[kind], "o", alpha=0.6, color=f"C{place}")
        axis.plot(place, np.median(scores[kind]), "_", ms=40, mew=2, color=f"C{place}")
    axis.set_xticks(range(3), list(kinds), fontsize="small")
    axis.set(title=title, ylabel="test accuracy", xlim=(-0.5, 2.5))
# alt: Test accuracy of five networks with nothing dropped, Dropout and DropBlock:
# nearly equal on clean digits on the left, higher with DropBlock when a square is
# hidden on the right.
plt.show()

# %%
# What to notice
# --------------
#
# - Dropout of single pixels removes little information: a plain average of the
#   neighbors recovers a good part of a dropped value. With larger squares it recovers
#   less.
# - At :math:`k = 5` the mean of the channel is about as good a guess as the neighbors:
#   the near ones are dropped as well.
# - On clean digits the kinds differ by no more than the seeds do: a network this small
#   does not overfit much.
# - With missing regions DropBlock is better than dropout. This is one small network and
#   one kind of damage, which resembles what it was trained with.
#
# The trivial baseline is the most frequent class; then the claims.

majority = np.bincount(y_train).argmax()
print(f"{'majority class':18s} {np.mean(y_test == majority):.3f}")
print(f"{'':18s} clean   hidden  (median of 5, standard deviation)")
for kind in kinds:
    row = [(np.median(s[kind]), np.std(s[kind], ddof=1)) for s in (clean, hidden)]
    print(f"{kind:18s} " + "  ".join(f"{m:.3f} ± {s:.3f}" for m, s in row))

gap = max(abs(share - rate) for (rate, _), share in shares.items())
claim(
    "share dropped by DropBlock2D against the rate, largest gap",
    100 * gap,
    "<",
    1,
    "points",
)
claim(
    "R² of dropped values guessed from neighbors, DropBlock (k = 3) to Dropout",
    r2[2] / r2_dropout,
    "<",
    0.75,
)
gain = np.subtract(hidden["DropBlock, k = 3"], hidden["nothing dropped"])
against = np.subtract(hidden["DropBlock, k = 3"], hidden["Dropout"])
cost = np.subtract(clean["DropBlock, k = 3"], clean["nothing dropped"])
for name, d in (("gain", gain), ("to Dropout", against), ("clean", cost)):
    print(f"{name:12s} {np.median(d):+.4f}, standard deviation {np.std(d, ddof=1):.4f}")
claim(
    "accuracy with a hidden square, DropBlock less no dropout, median",
    float(np.median(gain)),
    ">",
    0.0,
    seeds=5,
)
claim(
    "accuracy with a hidden square, DropBlock less Dropout, median",
    float(np.median(against)),
    ">",
    0.005,
    seeds=5,
)

# %%
# Try it
# ------
#
# 1. Put DropBlock after the pooling layer. Which side :math:`k` of the square leaves
#    anything to see?
#
# .. dropdown:: Hint to 1
#
#    The map is 4 x 4 there.
#
# 2. Give all channels the same squares. How much of a dropped value do the other
#    channels of the same pixel reveal then, and how much before?
#
# .. dropdown:: Hint to 2
#
#    Guess a dropped value by linear regression on the other channels of its pixel, with
#    independent and with common masks.
#
# 3. The paper raises the rate from 0 during training. Write the callback: what has to
#    be computed anew when the rate changes?
#
# .. dropdown:: Hint to 3
#
#    :math:`\gamma` follows from the rate, and it is computed in ``build``. A compiled
#    program holds it as a constant: train in stages, with ``compile`` after each change
#    of ``layer.gamma``.
#
# References
# ----------
# Ghiasi, Lin and Le, *DropBlock: A regularization method for convolutional networks*,
# 2018, https://arxiv.org/abs/1810.12890 (:cite:t:`ghiasi2018dropblock`).

# sphinx_gallery_tags = ["layer", "introductory"]
