r"""
Normalizing flows (NICE, RealNVP): a Gaussian bent into moons, with exact density
=================================================================================

A normalizing (normalising) flow is a generative model with an exact density. It turns
noise into data by layers that can be inverted and whose change of volume is known, so
that the log-likelihood of any point is a formula, and a sample is one pass.
:class:`~dlcompanion.generative.RealNVP` is built of affine couplings: it moves half of
the variables by amounts that depend on the other half, and then the halves swap roles;
no network has to be inverted. Use flows for density estimation, as flexible posteriors,
and where likelihoods must be compared. They need as many noise variables as data, keep
the topology of the noise (a thread remains between two clusters), and in few dimensions
a mixture of Gaussians may be as good.

In your own model
-----------------

.. code-block:: python

   import numpy as np

   from dlcompanion.generative import RealNVP

   x = np.random.default_rng(0).normal(size=(512, 4)).astype("float32")
   flow = RealNVP(event_size=4, couplings=2)  # scale your data to about unit variance
   flow.compile("adam")
   flow.fit(x, epochs=2, verbose=0)
   new = flow.sample(10)
   nats = flow.log_prob(x)

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_spline_flow`,
:doc:`/gallery/generative/plot_masked_autoregressive_flow`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/normalizing_flows.svg
#    :figclass: drawing
#    :alt: A coupling: x1 passes unchanged and enters any network, which gives s and t;
#       x2 is multiplied by the exponential of s, t is added, and that is y2.
#
# If an invertible :math:`f` carries data :math:`x` to noise :math:`z = f(x)`, then
#
# .. math::
#
#    \log p(x) = \log \mathcal N(f(x); 0, I)
#    + \log \left| \det \frac{\partial f}{\partial x} \right| .
#
# A coupling keeps :math:`x_1` and sends :math:`x_2` to
# :math:`x_2 \odot e^{s(x_1)} + t(x_1)`. Its Jacobian is triangular, so the determinant
# costs nothing, :math:`\log\det = \sum_i s_i(x_1)`, and so does the inverse: subtract,
# divide. The networks :math:`s` and :math:`t` may be anything.

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from scipy.spatial import cKDTree
from sklearn.mixture import GaussianMixture

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.datasets import two_moons
from dlcompanion.generative import RealNVP
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
chance = iter(claims.seeds(8))  # one for each pair of moons

# %%
# Two moons, and then a harder relative: three pairs of moons at once, independent of
# each other, in six dimensions. All abscissas come first, then all ordinates, so that
# each half of a coupling holds one coordinate of each pair.


def draw(pairs, size):
    """Points, and which moon of the first pair they belong to."""
    moons = [two_moons(size, noise=0.05, seed=next(chance)) for _ in range(pairs)]
    x = np.stack([m for m, _ in moons], axis=2).reshape(size, -1)
    # every pair of moons has this mean and this standard deviation
    x = (x - np.repeat([0.5, 0.25], pairs)) / np.repeat([0.87, 0.5], pairs)
    return x.astype("float32"), moons[0][1]


drawn = {pairs: (draw(pairs, 4_000), draw(pairs, 4_000)) for pairs in (1, 3)}
data = {pairs: (train[0], test[0]) for pairs, (train, test) in drawn.items()}

# %%
# Three seeds of each, trained from new weights with the same compiled program. The
# conditioners have tanh units, because ReLU would put kinks into the density.

STEPS, BATCH = 560, 250
seeds = claims.seeds(3)


def train(x):
    """A trained flow, and the final weights of each seed."""
    flow, ended = RealNVP(x.shape[1], couplings=4, activation="tanh"), []
    flow.build(x.shape)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, STEPS)
    flow.compile(keras.optimizers.Adam(rate))
    for seed in seeds:
        restart(flow, seed)
        epochs = STEPS * BATCH // len(x)
        fit_in_memory(flow, x, batch_size=BATCH, epochs=epochs, verbose=0)
        ended.append(flow.get_weights())
    return flow, ended


trained = {pairs: train(data[pairs][0]) for pairs in data}

# %%
# What it learned in the plane: the data, fresh samples, the density, and where the
# flow squeezes space (the logarithm of the determinant). The grid also answers a
# question that a bound cannot be asked: does the density integrate to one?

flow = trained[1][0]
side = np.linspace(-3.2, 3.2, 321, dtype="float32")
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
log_density = keras.ops.convert_to_numpy(flow.log_prob(grid))
total = np.exp(log_density).sum() * (side[1] - side[0]) ** 2
_, squeezed = flow.to_noise(grid)

figure, axes = plt.subplots(
    2, 2, figsize=(8, 7.2), layout="constrained", sharex=True, sharey=True
)
extent = [side[0], side[-1], side[0], side[-1]]
sample = keras.ops.convert_to_numpy(flow.sample(4_000, seed=claims.seed()))
for axis, points, what in [
    (axes[0, 0], data[1][0], "to learn"),
    (axes[0, 1], sample, "drawn"),
]:
    axis.scatter(*points.T, s=2, alpha=0.5, linewidths=0)
    axis.set(title=f"4,000 points {what}", aspect="equal")
picture = axes[1, 0].imshow(
    np.exp(log_density).reshape(len(side), -1),
    extent=extent, origin="lower", cmap="magma",
)  # fmt: skip
figure.colorbar(picture, ax=axes[1, 0], shrink=0.8)
axes[1, 0].set(title="learned density")
picture = axes[1, 1].imshow(
    keras.ops.convert_to_numpy(squeezed).reshape(len(side), -1),
    extent=extent, origin="lower", cmap="viridis",
)  # fmt: skip
figure.colorbar(picture, ax=axes[1, 1], shrink=0.8)
axes[1, 1].set(title=r"$\log|\det|$: how much the noise was squeezed")
axes[0, 0].set(xlim=side[[0, -1]], ylim=side[[0, -1]])
# alt: Four panels in the plane: points of two moons, points drawn from the flow, the
# learned density with a faint thread between the moons, and the logarithm of the
# determinant.
plt.show()

# %%
# The warp itself. Noise goes through the four couplings backwards, one after the
# other; each moves points along one axis only. The color is the place of a point in
# the noise, and it stays with it: the flow tears nothing, so a thread of points must
# remain between the moons.

noise = np.random.default_rng(claims.seed()).normal(size=(3_000, 2)).astype("float32")
states = [noise]
for transform in flow.transforms[::-1]:
    states.append(keras.ops.convert_to_numpy(transform(states[-1], inverse=True)[0]))
frames = 10  # for each coupling
angle, radius = np.arctan2(*noise.T), np.hypot(*noise.T)
colours = plt.get_cmap("hsv")((angle + np.pi) / (2 * np.pi))
colours[:, :3] *= (0.35 + 0.5 * np.minimum(radius / 2, 1))[:, None]

film, axis = plt.subplots(figsize=(4.6, 4.6), layout="constrained")
dots = axis.scatter(*noise.T, s=5, c=colours, linewidths=0)
axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])


def show(frame):
    step, part = divmod(min(frame, frames * (len(states) - 1) - 1), frames)
    part = (part + 1) / frames
    dots.set_offsets((1 - part) * states[step] + part * states[step + 1])
    axis.set_title(f"coupling {step + 1} of {len(states) - 1}")
    return [dots]


animation = FuncAnimation(
    film, show, frames=frames * (len(states) - 1) + 15, interval=60
)
# alt: Film: a colored disk of noise is moved by four couplings, one axis at a time,
# into two moons.
plt.show()

# %%
# The rival that everybody knows is the mixture of Gaussians, with full covariances.
# We give it every advantage: four sizes, and the best one is chosen *on the test
# data*. Lower is better; nats for each point of the test data.

sizes = [1, 4, 16, 64]
mixtures, flows = {}, {}
for pairs, (x, x_test) in data.items():
    mixtures[pairs] = [
        -GaussianMixture(k, random_state=claims.seed()).fit(x).score(x_test)
        for k in sizes
    ]
    flow, ended = trained[pairs]
    flows[pairs] = []
    for weights in ended:
        flow.set_weights(weights)
        flows[pairs].append(-np.mean(keras.ops.convert_to_numpy(flow.log_prob(x_test))))

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for axis, pairs in zip(axes, data, strict=True):
    axis.plot(sizes, mixtures[pairs], "o-", label="mixture of Gaussians")
    for number, value in enumerate(flows[pairs]):
        axis.axhline(value, color="C1", label=None if number else "RealNVP, each seed")
    axis.set(xscale="log", xlabel="components", ylabel="test NLL (nats)")
    axis.set_xticks(sizes, [str(k) for k in sizes])
    axis.minorticks_off()
    axis.set_title(f"{2 * pairs} dimensions")
axes[0].legend()
# alt: Test negative log-likelihood of mixtures against their size, the flow as
# horizontal lines: in two dimensions 16 Gaussians are better, in six the flow is below
# all mixtures.
plt.show()

print("test NLL        1 Gaussian    best mixture    RealNVP, median (worst)")
for pairs, values in mixtures.items():
    best = f"{min(values):.2f} ({sizes[np.argmin(values)]})"
    found = f"{np.median(flows[pairs]):.2f} ({max(flows[pairs]):.2f})"
    print(f"{2 * pairs} dimensions{values[0]:14.2f}{best:>16}{found:>27}")

# %%
# Given a context
# ---------------
#
# A conditional flow is the same chain, whose networks have one more input: with a
# context :math:`c` it gives :math:`p(x \mid c)`. Here the context says which moon a
# point belongs to. One blob now has to become one moon at a time, so nothing is torn;
# each of the two densities is normalized by itself. We count the strays: points drawn
# from the model that are further than a tenth of a moon's radius from all data.

x, labels = drawn[1][0]
kinds = np.eye(labels.max() + 1, dtype="float32")
keras.utils.set_random_seed(claims.seed())
told = RealNVP(x.shape[1], couplings=4, activation="tanh", context_size=len(kinds))
told.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, STEPS)))
epochs = STEPS * BATCH // len(x)
fit_in_memory(told, (x, kinds[labels]), batch_size=BATCH, epochs=epochs, verbose=0)

densities = [
    np.exp(keras.ops.convert_to_numpy(told.log_prob(grid, context)))
    for context in kinds
]
totals = np.sum(densities, axis=1) * (side[1] - side[0]) ** 2


def strays(points):
    points = keras.ops.convert_to_numpy(points)
    return np.mean(cKDTree(x / [1.15, 2]).query(points / [1.15, 2])[0] > 0.1)


flow, ended = trained[1]
without = []
for weights in ended:
    flow.set_weights(weights)
    without.append(strays(flow.sample(10_000, seed=claims.seed())))
either = kinds[np.arange(10_000) % len(kinds)]
with_context = strays(told.sample(10_000, either, seed=claims.seed()))
print(
    f"strays: median {np.median(without):.1%} without, {with_context:.1%} with context"
)

figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for axis, density, title in zip(
    axes,
    [*densities, np.mean(densities, axis=0)],
    ["given the first moon", "given the second", "either"],
    strict=True,
):
    picture = density.reshape(len(side), -1)
    axis.imshow(picture, extent=extent, origin="lower", cmap="magma")
    axis.set(title=title, xticks=[], yticks=[])
# alt: Three densities: given the first moon, given the second, and their mean, without
# a thread between them.
plt.show()

# %%
# What to notice
# --------------
#
# - In the plane the flow is far better than four Gaussians, and *not* better than
#   sixteen: a mixture can put its components where the points are. Three pairs of
#   moons have 16 x 16 x 16 such places, and there the flow, which learns the bend
#   once for each pair, leaves every mixture behind.
# - The thread between the moons is not a fault of training. A continuous map of one
#   blob onto two cannot avoid it; only its weight can shrink.
# - The ends of the moons fray into tails: the tails of the Gaussian have to go
#   somewhere, and a few points are drawn where no data ever were.
# - All numbers are exact likelihoods. They can be compared between models of any
#   kind, and they are strict: one test point of tiny density costs many nats.
# - Given the moon as context, the flow needs no thread. The price is two more inputs
#   for each network and nothing else.
# - The six dimensions were arranged so that the halves suit the data. Rotate them,
#   and the couplings have to find that first.

x_test = data[1][1]
flow = trained[1][0]
there, _ = flow.to_noise(x_test)
back = keras.ops.convert_to_numpy(flow.to_data(there)[0])
claim(
    "RealNVP of four couplings: data to noise and back, largest error",
    np.abs(back - x_test).max(), "<", 1e-4,
)  # fmt: skip
claim(
    "RealNVP on two moons: integral of the density less one, absolute",
    abs(total - 1), "<", 0.02,
)  # fmt: skip
claim(
    "two moons: RealNVP's test NLL below a mixture of four Gaussians, median seed",
    mixtures[1][sizes.index(4)] - np.median(flows[1]), ">", 0.2, unit="nats",
    seeds=len(seeds),
)  # fmt: skip
claim(
    "three pairs of moons in 6-D: RealNVP's test NLL below the best mixture, median",
    min(mixtures[3]) - np.median(flows[3]), ">", 0.1, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "conditional RealNVP: integral of the density less one, worst context",
    np.abs(totals - 1).max(), "<", 0.02,
)  # fmt: skip
claim(
    "points drawn far from all data: share with context to share without, median seed",
    with_context / np.median(without), "<", 0.9, seeds=len(seeds),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Use :class:`~dlcompanion.generative.NICE`, whose couplings cannot squeeze. How
#    does it make the moons dense, and what does its picture of
#    :math:`\log|\det|` look like?
# 2. Turn the six-dimensional data by a random rotation. How many couplings buy back
#    what is lost?
# 3. Start from noise with two humps (a mixture as base). Where does the thread go?
#
# .. dropdown:: Hint to 1
#
#    Its log-determinant is the same number everywhere, but for one scale at the end:
#    dense places are made by folding many points of the noise near each other.
#
# .. dropdown:: Hint to 2
#
#    ``np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]`` is a rotation.
#    Double the couplings and compare the test NLL.
#
# .. dropdown:: Hint to 3
#
#    With two humps in the noise the gap between the moons can come from the gap between
#    the humps. Give half of the noise vectors a shift of 2, the others of -2.
#
# References
# ----------
# The couplings are those of :cite:t:`dinh2014nice` and :cite:t:`dinh2017density`; a
# survey is :cite:t:`papamakarios2021flows`.

# sphinx_gallery_thumbnail_number = 1
# sphinx_gallery_tags = ["model", "density", "intermediate"]
