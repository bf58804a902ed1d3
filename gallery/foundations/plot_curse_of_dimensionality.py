r"""
Curse of dimensionality: all points are far away, orthogonal, and on the surface
================================================================================

Intuition comes from two and three dimensions, and data have many: an image of 8 x 8
pixels is a point in 64. There most intuition is wrong. Random directions are nearly
orthogonal, all distances are nearly equal, and nearly all the volume of a ball is at
its surface. Methods that look for *near* examples (nearest neighbors, kernels,
clustering) suffer first, and each irrelevant column of a table makes it worse. This
page measures how quickly it happens, adds irrelevant columns until the nearest neighbor
fails, and then looks at :func:`~dlcompanion.datasets.digits` to see why learning is
possible nevertheless: real data have fewer dimensions than coordinates.

In your own model
-----------------

Measure whether "near" means anything in your data, before and after a layer that
reduces the dimensions:

.. code-block:: python

   import keras
   import numpy as np

   x = np.random.normal(size=(300, 64)).astype("float32")  # your data


   def near_over_far(x):  # at 1, "near" says nothing
       squares = np.sum((x[:, None] - x) ** 2, axis=-1)
       farthest = squares.max(axis=1)
       np.fill_diagonal(squares, np.inf)
       return float(np.median(np.sqrt(squares.min(axis=1) / farthest)))


   reduced = keras.Sequential([keras.Input((64,)), keras.layers.Dense(8)])
   before, after = near_over_far(x), near_over_far(reduced.predict(x, verbose=0))

Neighbors: :doc:`/gallery/losses/plot_triplet`,
:doc:`/gallery/foundations/plot_backpropagation`. Notation: :doc:`/notation`.
"""

# %%
# Directions and lengths
# ----------------------
#
# Draw :math:`x, x' \sim \mathcal N(0, I)` in :math:`d` dimensions. Their inner product
# is a sum of :math:`d` independent terms of mean zero, so it grows as
# :math:`\sqrt d`, while the squared lengths are sums of :math:`d` positive terms and
# grow as :math:`d`. Hence
#
# .. math::
#
#    \cos \angle(x, x') \approx \pm \frac1{\sqrt d}, \qquad
#    \lVert x \rVert \approx \sqrt d \left(1 \pm \frac1{\sqrt{2d}}\right).
#
# The exact law of the angle is :math:`p(\varphi) \propto \sin^{d-2} \varphi`.

import math

import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.datasets import digits

seeds = claims.seeds(5)
dimensions = [2, 3, 10, 100, 1000]


def angles(d, rng, pairs=4_000):
    x, other = rng.normal(size=(2, pairs, d))
    cosine = np.sum(x * other, axis=1)
    cosine /= np.linalg.norm(x, axis=1) * np.linalg.norm(other, axis=1)
    return np.degrees(np.arccos(cosine))


def spread_of_lengths(d, rng, points=4_000):
    lengths = np.linalg.norm(rng.normal(size=(points, d)), axis=1)
    return lengths.std() / lengths.mean()


angle_spread, length_spread = (
    {d: [measure(d, np.random.default_rng(seed)) for seed in seeds] for d in dimensions}
    for measure in (lambda d, rng: angles(d, rng).std(), spread_of_lengths)
)

# %%
# In the plane all angles are equally likely. In ten dimensions the acute and the obtuse
# ones are rare, in a thousand there are none: the fan closes to a needle. The lengths
# concentrate, too: all points lie near a sphere. Dots are measured, lines are the law.

colors = plt.cm.viridis(np.linspace(0.0, 0.85, len(dimensions)))
figure = plt.figure(figsize=(9, 4), layout="constrained")
fan = figure.add_subplot(1, 2, 1, projection="polar")
shell = figure.add_subplot(1, 2, 2)
phi = np.linspace(0, np.pi, 721)
for i, (d, color) in enumerate(zip(dimensions, colors, strict=True)):
    law = np.sin(phi) ** (d - 2)
    # the petals have very different heights, so each is drawn to a height of its own
    height = 1 + 0.3 * i
    sample = angles(
        d, np.random.default_rng(claims.seed()), pairs=int(200_000 / d**0.5)
    )
    measured, edges = np.histogram(np.radians(sample), bins=36 + 36 * i, density=True)
    centres = (edges[:-1] + edges[1:]) / 2
    fan.fill(phi, height * law, color=color, alpha=0.3, lw=0)
    fan.plot(phi, height * law, color=color, lw=1.5)
    fan.plot(centres, height * measured * law.mean() * np.pi, ".", color=color, ms=4)
    lengths = np.linalg.norm(
        np.random.default_rng(claims.seed()).normal(size=(5_000, d)), axis=1
    ) / np.sqrt(d)
    heights, edges = np.histogram(lengths, bins=60, density=True)
    heights = heights / heights.max()
    shell.stairs(
        0.8 * heights + len(dimensions) - i,
        edges,
        baseline=len(dimensions) - i,
        fill=True,
        color=color,
        alpha=0.85,
    )
    shell.text(2.45, len(dimensions) - i + 0.15, f"$d = {d}$", ha="right", color=color)
fan.set(thetamin=0, thetamax=180, yticks=[], title="angle of two random directions")
fan.grid(alpha=0.3)
shell.set(
    xlim=(0, 2.5),
    xlabel=r"length$\,/\sqrt{d}$",
    yticks=[],
    title="length of a random vector",
)
# alt: Left, a fan of angles between random directions that closes to 90 degrees as
# dimensions grow from 2 to 1000; right, lengths of random vectors gather at one value.
plt.show()

# %%
# Oranges
# -------
#
# A layer of 1 % of the radius is a thin peel. It leaves a ball of :math:`0.99^d` of the
# volume, and so holds :math:`1 - 0.99^d`. And the ball itself vanishes from the cube
# around it: with diameter 1 it has the volume
#
# .. math:: V_d = \frac{\pi^{d/2}}{\Gamma(d/2 + 1)}\, 2^{-d} .
#
# In a hundred dimensions no random point of the cube will ever hit that ball, but the
# volume can be measured one dimension at a time. Take a point of the ball in :math:`d`
# dimensions, add one coordinate from the cube, and ask whether it is still inside: the
# share of those that are is :math:`V_{d+1} / V_d`. Uniform points come from an old
# trick: the first :math:`d` coordinates of a point of the unit *sphere* in :math:`d +
# 2` dimensions are uniform in the unit ball of :math:`d`.

top = 100


def oranges(rng, points=50_000):
    """Share of the 1 % peel, and log10 of the volume, for 1 ... top dimensions."""
    squares = np.cumsum(rng.normal(size=(points, top + 2)) ** 2, axis=1)
    radius = np.sqrt(squares[:, :-2] / squares[:, 2:])  # of the ball of each d
    peel = np.mean(radius > 0.99, axis=0)
    added = rng.uniform(-1, 1, size=(points, top - 1))
    stays = np.mean(radius[:, :-1] ** 2 + added**2 < 1, axis=0)
    return peel, np.concatenate([[0.0], np.cumsum(np.log10(stays))])


peels, volumes = map(
    np.array,
    zip(*[oranges(np.random.default_rng(seed)) for seed in seeds], strict=True),
)
d = np.arange(1, top + 1)
exact = np.array(
    [n / 2 * math.log10(math.pi) - math.lgamma(n / 2 + 1) / math.log(10) for n in d]
)
exact -= d * math.log10(2)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.fill_between(d, 1 - 0.99**d, color="C1", alpha=0.25)
left.plot(d, 1 - 0.99**d, color="C1", label=r"$1 - 0.99^d$")
left.plot(d[4::5], np.median(peels, axis=0)[4::5], "o", ms=4, color="C1", label="drawn")
left.set(xlim=(0, top), ylim=(0, 1), xlabel="dimensions", title="share of a 1 % peel")
left.legend(loc="upper left")
right.plot(d, exact, color="C0", label="formula")
right.plot(
    d[4::5], np.median(volumes, axis=0)[4::5], "o", ms=4, color="C0", label="climbed"
)
right.set(xlim=(0, top), xlabel="dimensions", title="volume of the ball in the cube")
right.set_yticks([0, -20, -40, -60], ["1", "$10^{-20}$", "$10^{-40}$", "$10^{-60}$"])
right.legend(loc="lower left")
# alt: Left, the share of a ball in its outer 1 % grows with the dimensions to 63 % at
# 100; right, the volume of the ball in its cube falls below ten to the minus sixty.
# Dots lie on the formulas.
plt.show()

# %%
# Nearest means nothing
# ---------------------
#
# If all lengths are equal, so are all distances. Divide the distance to the nearest of
# 100 points by that to the farthest: at 0 "near" is a useful word, at 1 it says nothing
# :cite:p:`beyer1999nearest`. We measure it for Gaussian clouds, then for digits, and
# then for digits whose pixels were shuffled, each pixel among the images: every single
# pixel keeps its distribution, and the relations between pixels are lost.


def squared_distances(x, other):
    products = (
        np.sum(x**2, axis=1)[:, None] + np.sum(other**2, axis=1) - 2 * x @ other.T
    )
    return np.maximum(products, 0)


def near_over_far(points, queries):
    squares = squared_distances(queries, points)
    return np.median(np.sqrt(squares.min(axis=1) / squares.max(axis=1)))


def of_gaussians(d, rng):
    return near_over_far(rng.normal(size=(100, d)), rng.normal(size=(200, d)))


def of_digits(rng, seed, shuffled):
    (x, _), (queries, _) = digits(flat=True, seed=seed)
    both = np.concatenate([x[:100], queries[:200]])
    if shuffled:
        both = rng.permuted(both, axis=0)
    return near_over_far(both[:100], both[100:])


many = np.unique(np.geomspace(2, 1000, 24).round().astype(int))
near_far = {
    int(d): [of_gaussians(d, np.random.default_rng(seed)) for seed in seeds]
    for d in many
}
sense, nonsense = (
    [of_digits(np.random.default_rng(seed), seed, shuffled) for seed in seeds]
    for shuffled in (False, True)
)

# %%
# The second experiment gives a classifier what real tables have, columns that do not
# matter. The digits are scaled to unit variance, and beside their 64 pixels stand up to
# 4,096 columns of noise. The nearest neighbor measures distance over all columns. The
# baselines are the most frequent digit, and a linear model with a ridge penalty, which
# may learn that a column is useless.

noise_columns = [0, 16, 64, 256, 1024, 4096]


def nearest_neighbour(x, y, queries):
    return y[squared_distances(queries, x).argmin(axis=1)]


def ridge(x, y, queries, penalty=1_000.0):
    targets = np.eye(int(y.max()) + 1, dtype="float32")[y]
    targets -= targets.mean()
    if x.shape[1] > len(x):  # the same solution, through the smaller matrix
        inner = x @ x.T + penalty * np.eye(len(x), dtype="float32")
        weights = x.T @ np.linalg.solve(inner, targets)
    else:
        inner = x.T @ x + penalty * np.eye(x.shape[1], dtype="float32")
        weights = np.linalg.solve(inner, x.T @ targets)
    return np.argmax(queries @ weights, axis=1)


accuracy = {nearest_neighbour: [], ridge: []}
majority = []
for seed in seeds:
    rng = np.random.default_rng(seed)
    (x, y), (queries, truth) = digits(flat=True, seed=seed)
    mean, scale = x.mean(axis=0), x.std()
    majority.append(np.mean(truth == np.bincount(y).argmax()))
    rows_of_all = len(x) + len(queries)
    noise = rng.standard_normal((rows_of_all, noise_columns[-1]), dtype="float32")
    x, queries = (x - mean) / scale, (queries - mean) / scale
    for classify, rows in accuracy.items():
        rows.append([])
        for columns in noise_columns:
            table = np.concatenate([x, noise[: len(x), :columns]], axis=1)
            asked = np.concatenate([queries, noise[len(x) :, :columns]], axis=1)
            rows[-1].append(np.mean(classify(table, y, asked) == truth))
nearest_accuracy, ridge_accuracy = map(np.array, accuracy.values())

# %%
# Left, the curve of the Gaussians, and where the digits fall on it. They have 64
# coordinates and the distances of a cloud in about a dozen dimensions: the strokes of a
# hand have few degrees of freedom. Shuffled, they behave nearly as their 64 dimensions
# suggest. Right, the nearest neighbor fails.

pixels = digits(flat=True)[0][0].shape[-1]
ratios = np.array(list(near_far.values()))
digit_like = many[np.abs(np.median(ratios, axis=1) - np.median(sense)).argmin()]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
left.plot(many, np.median(ratios, axis=1), color="C0", label="Gaussian clouds")
for value, color, text in [
    (np.median(sense), "C1", "digits"),
    (np.median(nonsense), "C3", "digits, pixels shuffled"),
]:
    twin = np.interp(value, np.median(ratios, axis=1), many)
    left.plot(pixels, value, "o", color=color, ms=8, label=text, zorder=3)
    left.annotate(
        "",
        xy=(twin, value),
        xytext=(0.9 * pixels, value),
        arrowprops={"arrowstyle": "->", "color": color},
    )
left.axvline(pixels, color="0.6", lw=1, ls=":")
left.text(1.03 * pixels, 0.02, f"{pixels} pixels", color="0.4")
left.set(xscale="log", ylim=(0, 1), xlabel="dimensions", title="nearest / farthest")
left.legend()
for values, label, color in [
    (ridge_accuracy, "linear, with ridge", "C2"),
    (nearest_accuracy, "nearest neighbour", "C1"),
]:
    right.plot(noise_columns, np.median(values, axis=0), "o-", label=label, color=color)
    right.fill_between(
        noise_columns, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2
    )
right.axhline(np.median(majority), color="0.4", ls=":", label="most frequent digit")
right.set_xscale("symlog", linthresh=16, linscale=0.5)
right.set_xticks(noise_columns, [f"{n:,}" for n in noise_columns])
right.minorticks_off()
right.set(
    xlim=(-3, 5_000),
    ylim=(0, 1.02),
    xlabel="columns of noise",
    title="accuracy on digits",
)
right.legend(loc="lower left")
# alt: Left, nearest over farthest distance rises with the dimensions; digits lie far
# below their 64, digits with shuffled pixels near it; right, accuracy of the nearest
# neighbor falls with columns of noise, that of ridge hardly.
plt.show()

# %%
# What to notice
# --------------
#
# - Nothing here is about a model. The geometry of the inputs alone decides, before
#   the first weight is drawn.
# - Orthogonality is useful, too: in a thousand dimensions there is room for far more
#   than a thousand nearly orthogonal directions, and networks store features in them.
# - The nearest neighbor is the better classifier of the two at the left end and the
#   worse one at the right end. 64 columns of noise beside 64 pixels are enough
#   to put the linear model ahead.
# - Knowing which columns matter is worth more than data. That is what the first layers
#   of a network learn, and why its last layer may measure distances again.
#
# What the page measured, against its baselines:


def middle(values):
    return float(np.median(values))


print("columns of noise     " + "".join(f"{n:7d}" for n in noise_columns))
print(f"most frequent digit  {middle(majority):7.3f}")
for label, values in [
    ("nearest neighbour", nearest_accuracy),
    ("linear, with ridge", ridge_accuracy),
]:
    print(f"{label:21s}" + "".join(f"{v:7.3f}" for v in np.median(values, axis=0)))
print(f"digits have the distances of a Gaussian cloud of {digit_like} dimensions")

flat, deep = middle(angle_spread[2]), middle(angle_spread[1000])
claim(
    "standard deviation of random angles, 2 dimensions",
    flat,
    ">",
    50,
    "degrees",
    seeds=5,
)
claim(
    "standard deviation of random angles, 1000 dimensions",
    deep,
    "<",
    1.9,
    "degrees",
    seeds=5,
)
flat, deep = middle(length_spread[2]), middle(length_spread[1000])
claim("relative deviation of Gaussian lengths, 2 dimensions", flat, ">", 0.5, seeds=5)
claim(
    "relative deviation of Gaussian lengths, 1000 dimensions", deep, "<", 0.024, seeds=5
)
flat, deep = middle(near_far[2]), middle(near_far[1000])
claim("distance, nearest over farthest of 100, d = 2", flat, "<", 0.1, seeds=5)
claim("distance, nearest over farthest of 100, d = 1000", deep, ">", 0.89, seeds=5)
peel, volume = middle(peels[:, -1]), middle(volumes[:, -1])
claim("share of a ball in its 1 % peel, d = 100", peel, ">", 0.62, seeds=5)
claim("log10 volume of the ball of diameter 1, d = 100", volume, "<", -69.5, seeds=5)
gap = np.abs(np.median(volumes, axis=0) - exact).max()
claim("log10 volume, climbed against formula, largest gap", gap, "<", 0.2, seeds=5)
shares = np.divide(sense, nonsense)
claim(
    "nearest over farthest, digits to digits with shuffled pixels, worst of 5 seeds",
    max(shares),
    "<",
    0.7,
    seeds=5,
)
clean, drowned = middle(nearest_accuracy[:, 0]), nearest_accuracy[:, -1]
claim("accuracy of the nearest neighbour on digits", clean, ">", 0.96, seeds=5)
above = middle(drowned - majority)
claim(
    "accuracy of the nearest neighbour less the majority's, 4,096 columns of noise",
    above,
    "<",
    0.2,
    seeds=5,
)
ahead = min(ridge_accuracy[:, -1] - drowned)
claim(
    "accuracy of ridge less the nearest neighbour's, 4,096 columns, worst seed",
    ahead,
    ">",
    0.25,
    seeds=5,
)

# %%
# Try it
# ------
#
# 1. Scale the noise columns by 0.1. How many of them does it take now to halve the
#    accuracy of the nearest neighbor? Which quantity decides?
#
# .. dropdown:: Hint to 1
#
#    Compare the mean squared distance that the noise adds with that of the pixels.
#
# 2. Draw 1,000 random directions in 100 dimensions. How close is the closest pair to a
#    right angle, and how close the least orthogonal one?
#
# .. dropdown:: Hint to 2
#
#    All cosines are in ``x @ x.T`` of unit vectors; take the smallest and the largest
#    absolute value off the diagonal.
#
# 3. Replace the pixels by the first ten principal components of the training digits.
#    What becomes of nearest over farthest, and of the accuracy?
#
# .. dropdown:: Hint to 3
#
#    ``sklearn.decomposition.PCA(10)``, fitted on the training digits only.
#
# References
# ----------
# The name is from :cite:t:`bellman1961adaptive`.

# sphinx_gallery_tags = ["geometry", "NumPy only", "introductory"]
