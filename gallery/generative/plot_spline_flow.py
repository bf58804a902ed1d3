r"""
Neural spline flow: sharp corners where affine couplings only blur
==================================================================

An affine coupling flow such as RealNVP moves a variable by a shift and a scale, so that
corners, gaps and sharp edges of a density have to be put together from many layers. A
neural spline flow keeps the couplings and exchanges what they do: the network gives a
whole increasing curve, a rational-quadratic spline, whose inverse and slope are known
exactly. With as many layers and parameters,
:class:`~dlcompanion.generative.NeuralSplineFlow` comes closer to the data. Use it for
density estimation in few to some hundred dimensions; data must be scaled to lie within
its bound. Where samples and layers are many and the density is smooth, affine couplings
are quicker.

In your own model
-----------------

.. code-block:: python

   import numpy as np

   from dlcompanion.generative import NeuralSplineFlow

   x = np.random.default_rng(0).uniform(-1, 1, size=(512, 4)).astype("float32")
   flow = NeuralSplineFlow(event_size=4, couplings=2, bins=8)
   flow.compile("adam")
   flow.fit(x, epochs=2, verbose=0)
   new = flow.sample(10)
   nats = flow.log_prob(x)

Prerequisites: :doc:`/gallery/generative/plot_normalizing_flows`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_glow`.
"""

# %%
# The idea
# --------
#
# Cut a square :math:`[-B, B]^2` into :math:`K` bins by knots that rise, and give each
# knot a slope. In the bin of width :math:`w`, height :math:`h`, mean slope
# :math:`s = h / w` and slopes :math:`d_0, d_1` at its ends, with
# :math:`\xi = (x - x_0) / w`,
#
# .. math::
#
#    g(x) = y_0 + h \, \frac{s \xi^2 + d_0 \xi (1 - \xi)}
#    {s + (d_0 + d_1 - 2s)\, \xi (1 - \xi)} .
#
# This quotient of two parabolas takes the right values and slopes at both ends and
# never turns back, whatever the positive numbers are. The slope :math:`g'` is again a
# simple quotient, and :math:`g(x) = y` is a quadratic equation for :math:`\xi`. Outside
# the square the curve is the identity. A coupling has one such curve for each moved
# variable,
#
# .. math::
#
#    y_1 = x_1, \qquad y_{2i} = g_{\theta_i(x_1)}(x_{2i}), \qquad
#    \log\left|\det \frac{\partial y}{\partial x}\right|
#    = \sum_i \log g'_{\theta_i(x_1)}(x_{2i}) .

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.mixture import GaussianMixture

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.datasets import two_moons
from dlcompanion.generative import NeuralSplineFlow, RealNVP, rational_quadratic_spline
from dlcompanion.generative.flows.rational_quadratic_spline import spline_bins
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
numpy = keras.ops.convert_to_numpy

# %%
# One spline of six bins, drawn from noise: the curve goes through its knots, its slope
# is continuous and stays positive, and there and back is the identity.

rng = np.random.default_rng(claims.seed())
raw = [rng.normal(size=(1, k)).astype("float32") for k in (6, 6, 5)]
bins = spline_bins(*raw, bound=3.0)
line = np.linspace(-4, 4, 801, dtype="float32")[:, None]
y, log_slope = (numpy(a)[:, 0] for a in rational_quadratic_spline(line, *bins))
back, _ = rational_quadratic_spline(y[:, None], *bins, inverse=True)
mirrored, _ = rational_quadratic_spline(line, *bins, inverse=True)
knots = [np.cumsum(np.append(-3.0, numpy(b)[0])) for b in bins[:2]]

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
axes[0].plot(line, y, label="spline")
axes[0].plot(line, numpy(mirrored), "C2", label="inverse")
axes[0].plot(*knots, "ko", ms=5, label="knots")
axes[0].add_patch(plt.Rectangle((-3, -3), 6, 6, fill=False, ls=":"))
axes[0].set(xlabel="$x$", ylabel="$g(x)$", aspect="equal", title="six bins")
axes[0].legend(fontsize=8)
inner = np.concatenate([[1.0], numpy(bins[2])[0], [1.0]])
axes[1].plot(line, np.exp(log_slope), label="$g'(x)$")
axes[1].plot(knots[0], inner, "ko", ms=5, label="slopes asked for")
axes[1].set(xlabel="$x$", yscale="log", title="its slope")
axes[1].legend(fontsize=8)
# alt: Left, an increasing spline through its knots and its inverse, mirrored; right,
# its slope on a log axis, continuous and positive.
plt.show()

# %%
# Two densities in the plane. The checkerboard is uniform on eight of sixteen squares,
# so that we know what no model can beat: its entropy, :math:`\log 8` nats. Both flows
# have four couplings of two hidden layers; RealNVP has wider ones, so that the numbers
# of parameters agree. Three seeds of each, with one compiled program.

STEPS, BATCH, SIZE = 640, 250, 10_000
seeds = claims.seeds(3)


def checkerboard(size, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, size)
    row = 2 * rng.integers(0, 2, size) + np.floor(x) % 2
    return np.stack([x, row - 2 + rng.uniform(0, 1, size)], axis=1).astype("float32")


def moons(size, seed):
    x, _ = two_moons(size, noise=0.05, seed=seed)
    return ((x - [0.5, 0.25]) / [0.87, 0.5]).astype("float32")


data = {
    title: tuple(draw(SIZE, seed) for seed in seeds[:2])
    for title, draw in (("checkerboard", checkerboard), ("two moons", moons))
}
models = {"RealNVP": (RealNVP, 41), "spline flow": (NeuralSplineFlow, 32)}


def train(flow_class, units):
    """The flow, and for each kind of data the test NLL and weights of each seed."""
    flow = flow_class(2, 4, (units, units), activation="tanh")
    flow.build((None, 2))
    rate = keras.optimizers.schedules.CosineDecay(5e-3, STEPS)
    flow.compile(keras.optimizers.Adam(rate), jit_compile=True)
    ended = {title: [] for title in data}
    for title, (x, x_test) in data.items():
        for seed in seeds:
            restart(flow, seed)
            epochs = STEPS * BATCH // SIZE
            fit_in_memory(flow, x, batch_size=BATCH, epochs=epochs, verbose=0)
            nll = -np.mean(numpy(flow.log_prob(x_test)))
            ended[title].append((nll, flow.get_weights()))
    return flow, ended


trained = {name: train(*model) for name, model in models.items()}
nll = {
    title: {name: [n for n, _ in ended[title]] for name, (_, ended) in trained.items()}
    for title in data
}

# %%
# The data and the two densities, of the first seed. The same grid checks that the
# spline flow's density integrates to one.

side = np.linspace(-3, 3, 301, dtype="float32")
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
extent = [-3, 3, -3, 3]
totals = {}

figure, axes = plt.subplots(2, 3, figsize=(9, 6.1), layout="constrained")
for row, (title, (x, _)) in zip(axes, data.items(), strict=True):
    counts, _, _ = np.histogram2d(*x.T, bins=100, range=[[-3, 3]] * 2, density=True)
    row[0].imshow(counts.T, extent=extent, origin="lower", cmap="magma")
    row[0].set_ylabel(title)
    top = 0.16 if title == "checkerboard" else 0.9
    for axis, (name, (flow, ended)) in zip(row[1:], trained.items(), strict=True):
        flow.set_weights(ended[title][0][1])
        density = np.exp(numpy(flow.log_prob(grid)).astype("float64"))
        totals[name, title] = density.sum() * (side[1] - side[0]) ** 2
        axis.imshow(
            density.reshape(len(side), -1), extent=extent, origin="lower", cmap="magma",
            vmax=top,
        )  # fmt: skip
        axis.set_xlabel(f"{np.median(nll[title][name]):.2f} nats")
for axis, what in zip(axes[0], ["10,000 points", *models], strict=True):
    axis.set_title(what)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
# alt: Two rows, checkerboard and two moons: the points, RealNVP's blurred density, and
# the spline flow's density with sharp edges.
plt.show()

# %%
# What one coupling does. The third coupling of each flow moves one variable by a curve
# that depends on the other; each line is the curve at one value of what is kept.
# RealNVP has straight lines there and nothing else.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for axis, (name, (flow, ended)) in zip(axes, trained.items(), strict=True):
    flow.set_weights(ended["checkerboard"][0][1])
    for kept in np.linspace(-1.9, 1.9, 12, dtype="float32"):
        pairs = np.stack([np.full(len(side), kept), side], axis=1)
        moved, _ = flow.transforms[2](pairs)
        axis.plot(side, numpy(moved)[:, 1], color=plt.cm.viridis((kept + 2) / 4), lw=1)
    axis.set(title=f"third coupling of the {name}", xlabel="$x_2$", ylim=(-4, 4))
axes[0].set_ylabel("where it goes, for twelve $x_1$")
# alt: The third coupling of each flow as curves for twelve values of what is kept:
# straight lines for RealNVP, bent curves for the spline flow.
plt.show()

# %%
# The numbers, with a mixture of sixteen Gaussians with full covariances beside them.

entropy = np.log(8)
mixture = {
    title: -GaussianMixture(16, random_state=claims.seed()).fit(x).score(x_test)
    for title, (x, x_test) in data.items()
}
parameters = {name: flow.count_params() for name, (flow, _) in trained.items()}
print("test NLL in nats: median (worst) of three seeds")
print(f"{'':16}{'parameters':>12}" + "".join(f"{title:>18}" for title in data))
for name in models:
    cells = [f"{np.median(nll[t][name]):.3f} ({max(nll[t][name]):.3f})" for t in data]
    print(f"{name:16}{parameters[name]:>12,}" + "".join(f"{c:>18}" for c in cells))
print(f"{'16 Gaussians':16}{95:>12}" + "".join(f"{v:18.3f}" for v in mixture.values()))
print(f"{'entropy':16}{'':12}{entropy:18.3f}")

# %%
# What to notice
# --------------
#
# - On the checkerboard a RealNVP of the same size pays half a nat for each point more
#   than the entropy; the splines pay less than half of that. Their edges are sharp
#   because a curve may be nearly flat and then steep, which no straight line is.
# - On the moons the splines are ahead too, and every seed ends in the same place, while
#   those of RealNVP scatter. Sixteen Gaussians are still as good there: a mixture can
#   put its components where the points are, and in the plane there are few places.
# - The curves of a coupling differ from one value of the kept variable to the next:
#   that is how the columns of the board are told apart.
# - Nothing outside the square is bent. Data have to be scaled to lie within it, and
#   tails are those of the Gaussian.


def gain(title):
    """Nats between the medians of RealNVP and of the spline flow."""
    return np.median(nll[title]["RealNVP"]) - np.median(nll[title]["spline flow"])


claim(
    "rational-quadratic spline of six bins and back, largest error",
    np.abs(numpy(back) - line).max(), "<", 1e-4,
)  # fmt: skip
claim(
    "rational-quadratic spline of six bins: smallest slope",
    np.exp(log_slope).min(), ">", 0.0,
)  # fmt: skip
claim(
    "spline flow: integral of the density less one, largest of two data sets",
    max(abs(total - 1) for (name, _), total in totals.items() if name != "RealNVP"),
    "<", 0.02,
)  # fmt: skip
claim(
    "parameters of the spline flow to those of RealNVP",
    parameters["spline flow"] / parameters["RealNVP"], "<=", 1.0,
)  # fmt: skip
claim(
    "checkerboard: test NLL of RealNVP less that of the spline flow, medians",
    gain("checkerboard"), ">", 0.2, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "checkerboard: test NLL of sixteen Gaussians less that of the spline flow, median",
    mixture["checkerboard"] - np.median(nll["checkerboard"]["spline flow"]), ">", 0.02,
    unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "two moons: test NLL of RealNVP less that of the spline flow, medians",
    gain("two moons"), ">", 0.03, unit="nats", seeds=len(seeds),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Give RealNVP eight couplings instead of four. How many does it take to reach the
#    splines, and what does a step cost then?
# 2. Two bins, four, sixteen: from how many on does the checkerboard gain nothing more?
# 3. Set ``bound=1.5``, so that a part of the board lies outside. What does the density
#    look like there?
#
# .. dropdown:: Hint to 1
#
#    Set ``couplings=8`` for RealNVP only, and time both with ``time.process_time``.
#
# .. dropdown:: Hint to 2
#
#    ``bins`` is an argument of the flow. A square of the board is as wide as the bound
#    over three.
#
# .. dropdown:: Hint to 3
#
#    Outside the bound the flow is the identity: points there keep the Gaussian's
#    density, unless another layer moves them in.
#
# References
# ----------
# The curve is that of :cite:t:`gregory1982piecewise`, the flow that of
# :cite:t:`durkan2019neural`; the couplings are those of :cite:t:`dinh2017density`.

# sphinx_gallery_thumbnail_number = 2
# sphinx_gallery_tags = ["model", "density", "intermediate"]
