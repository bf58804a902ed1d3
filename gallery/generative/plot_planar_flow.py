r"""
Planar and radial flows: eight layers bend one Gaussian into two valleys
========================================================================

Sometimes there are no data, only an energy :math:`U(x)`: a posterior up to its
constant, a molecule, a lattice; and one wants to draw from :math:`e^{-U} / Z`. The
first normalizing flows were made for this problem, variational inference. Each layer of
a :class:`~dlcompanion.generative.PlanarFlow` has one hidden unit and pushes points away
from a plane or towards it; each of a :class:`~dlcompanion.generative.RadialFlow` does
so with a center (centre). :class:`~dlcompanion.generative.FreeEnergy` trains them on
noise alone. Use them in few dimensions, as the smallest flows there are; couplings and
splines fit more with the same work.

In your own model
-----------------

.. code-block:: python

   import numpy as np
   from keras import ops

   from dlcompanion.generative import FreeEnergy, PlanarFlow


   def energy(x):  # of a ring
       return 2 * (ops.sqrt(ops.sum(x**2, axis=-1) + 1e-6) - 2) ** 2


   flow = PlanarFlow(event_size=2, length=2)
   model = FreeEnergy(flow, energy)
   model.compile("adam")
   noise = np.random.default_rng(0).normal(size=(512, 2)).astype("float32")
   model.fit(noise, epochs=2, verbose=0)
   x, log_prob = flow.sample_and_log_prob(100)

Prerequisites: :doc:`/gallery/generative/plot_normalizing_flows`. Notation:
:doc:`/notation`.
"""

# %%
# The idea
# --------
#
# A planar layer is :math:`y = x + \hat u \tanh(w^\top x + b)`, with the determinant
# :math:`1 + (1 - \tanh^2(w^\top x + b))\, w^\top \hat u`. If :math:`w^\top \hat u \le
# -1` it folds space over itself. So the learned :math:`u` is moved along :math:`w`
# until :math:`w^\top \hat u = \log(1 + e^{w^\top u}) - 1`, and then no weights whatever
# can fold.
#
# The flow's density :math:`q` is known for everything that the flow draws, and
#
# .. math::
#
#    F = \mathbb E_{x \sim q} \bigl[\log q(x) + U(x)\bigr]
#      = \operatorname{KL}\bigl(q \,\|\, e^{-U} / Z\bigr) - \log Z
#
# can be minimized by gradients that go through the samples.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from scipy.optimize import minimize

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.generative import FreeEnergy, PlanarFlow
from dlcompanion.generative.planar_flow import Planar, Radial
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())


def numpy(x):
    return ops.convert_to_numpy(x)


# %%
# One layer
# ---------
#
# What a single layer does to a Gaussian, and then two hundred layers of each kind
# with wild random weights: the smallest determinant that any point meets, and what it
# would be for planar layers if :math:`u` were used as it is.

rng = np.random.default_rng(claims.seed())
points = rng.normal(size=(3_000, 2)).astype("float32")
planar, radial = Planar(), Radial()
for layer in (planar, radial):
    layer.build((None, 2))

figure, axes = plt.subplots(
    1, 4, figsize=(11, 3), layout="constrained", sharex=True, sharey=True
)
shows = [
    (planar, [np.array([3.0, 0]), np.array([2.0, 0.5]), 0.0], "planar, pushed away"),
    (planar, [np.array([0, 2.0]), np.array([0, -9.0]), 0.0], "planar, pulled in"),
    (radial, [np.array([0.5, 0.5]), 0.5, 4.0], "radial, pushed away"),
    (radial, [np.array([0.5, 0.5]), 2.0, -4.0], "radial, pulled in"),
]
for axis, (layer, weights, title) in zip(axes, shows, strict=True):
    layer.set_weights([np.array(w) for w in weights])
    axis.scatter(*numpy(layer(points)[0]).T, s=2, alpha=0.4, linewidths=0)
    axis.set(title=title, aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
# alt: Four clouds: one planar layer pushes points away from a line or pulls them to it,
# one radial layer does so with a center.
plt.show()

smallest = {"planar": np.inf, "radial": np.inf, "planar, u as it is": np.inf}
for _ in range(200):
    for name, layer in (("planar", planar), ("radial", radial)):
        layer.set_weights([3 * rng.normal(size=w.shape) for w in layer.get_weights()])
        found = np.exp(numpy(layer(points)[1]).min())
        smallest[name] = min(smallest[name], found)
    w, u, b = planar.get_weights()
    bare = 1 + (1 - np.tanh(points @ w + b) ** 2) * (w @ u)
    smallest["planar, u as it is"] = min(smallest["planar, u as it is"], bare.min())
for name, value in smallest.items():
    print(f"smallest determinant, {name:20}{value:12.2g}")

# %%
# Four energies
# -------------
#
# The four of the paper's third figure: two valleys on a ring; a winding valley; one
# that forks in two ways. The last three go on for ever to the left and right; where the
# paper's picture ends, we put a wall. All four are in one layer with a switch, so that
# they are trained by one compiled program.


def energies(x, m=ops):
    """The four energies, ``(batch, 4)``, by keras.ops or by NumPy."""

    def bell(distance, width):
        return -0.5 * (distance / width) ** 2

    a, b = x[:, 0], x[:, 1]
    wave = m.sin(np.pi * a / 2)
    bump = 3 * m.exp(bell(a - 1, 0.6))
    step = 3 / (1 + m.exp(-(a - 1) / 0.3))
    ring = bell(m.sqrt(a**2 + b**2 + 1e-12) - 2, 0.4)
    wall = -bell(m.maximum(m.abs(a) - 4, 0), 0.4)
    return m.stack(
        [
            -ring - m.logaddexp(bell(a - 2, 0.6), bell(a + 2, 0.6)),
            wall - bell(b - wave, 0.4),
            wall - m.logaddexp(bell(b - wave, 0.35), bell(b - wave + bump, 0.35)),
            wall - m.logaddexp(bell(b - wave, 0.4), bell(b - wave + step, 0.35)),
        ],
        axis=-1,
    )


class Energies(keras.layers.Layer):
    """The energy that the switch is on."""

    def build(self, input_shape):
        self.switch = self.add_weight((4,), "zeros", trainable=False)

    def call(self, x):
        return ops.sum(energies(x) * self.switch, axis=-1)


side = np.linspace(-5.5, 5.5, 161, dtype="float32")
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
target = np.exp(-energies(grid.astype("float64"), np))
constant = target.sum(axis=0) * (side[1] - side[0]) ** 2  # Z
target /= constant

# %%
# Flows of two and of eight layers, three seeds each, on 20,000 draws of noise. The
# divergence is :math:`F + \log Z`, on noise that was not trained on.

LENGTHS, STEPS, BATCH = [2, 8], 400, 200
seeds = claims.seeds(3)
noise = rng.normal(size=(STEPS * BATCH // 4, 2)).astype("float32")  # four epochs
fresh = rng.normal(size=(10_000, 2)).astype("float32")
divergence = np.zeros((4, len(LENGTHS), len(seeds)))
learned = {}
for column, length in enumerate(LENGTHS):
    flow, energy, best = PlanarFlow(2, length), Energies(), {}
    model = FreeEnergy(flow, energy)
    rate = keras.optimizers.schedules.CosineDecay(0.02, STEPS)
    model.compile(keras.optimizers.Adam(rate), jit_compile=True)
    model.build((None, 2))
    starts = []
    for seed in seeds:
        restart(model, seed)
        starts.append(model.get_weights())
    for number in range(4):
        for n, start in enumerate(starts):
            restart(model, weights=start)
            energy.switch.assign(np.eye(4)[number])
            fit_in_memory(model, noise, batch_size=BATCH, epochs=4, verbose=0)
            found = numpy(model(fresh)).mean() + np.log(constant[number])
            divergence[number, column, n] = found
            if found <= divergence[number, column, : n + 1].min():
                best[number] = flow.get_weights()
    for number, weights in best.items():
        flow.set_weights(weights)
        learned[number, length] = np.exp(numpy(flow.log_prob(grid)))

# %%
# The baseline is the best that one Gaussian can do: mean and covariance minimize the
# same :math:`F`, from four starts.

cloud = rng.normal(size=(1_000, 2))


def gaussian_divergence(theta, number):
    scale = np.array([[np.exp(theta[2]), 0], [theta[3], np.exp(theta[4])]])
    log_q = -np.log(2 * np.pi) - 0.5 * (cloud**2).sum(axis=1) - theta[2] - theta[4]
    energy = energies(theta[:2] + cloud @ scale.T, np)[:, number]
    return np.mean(log_q + energy) + np.log(constant[number])


gaussian = []
for number in range(4):
    starts = [[x, 0, s, 0, s] for x in (0, 2) for s in (0, -1)]
    fits = [
        minimize(gaussian_divergence, s, (number,), method="Nelder-Mead")
        for s in starts
    ]
    gaussian.append(min(fits, key=lambda fit: fit.fun))

figure, axes = plt.subplots(
    4, 4, figsize=(8.5, 8.6), layout="constrained", sharex=True, sharey=True
)
for row, number in zip(axes, range(4), strict=True):
    x, y, s, t, v = gaussian[number].x
    factor = np.array([[np.exp(s), 0], [t, np.exp(v)]])
    white = np.linalg.solve(factor, (grid - [x, y]).T)
    bell = np.exp(-0.5 * (white**2).sum(axis=0)) / (2 * np.pi * np.exp(s + v))
    panels = [target[:, number], bell, learned[number, 2], learned[number, 8]]
    for axis, panel in zip(row, panels, strict=True):
        axis.imshow(
            panel.reshape(len(side), -1), origin="lower", cmap="magma",
            extent=[side[0], side[-1]] * 2, vmax=1.3 * target[:, number].max(),
        )  # fmt: skip
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(f"energy {number + 1}")
for axis, title in zip(
    axes[0], ["target", "best Gaussian", "2 layers", "8 layers"], strict=True
):
    axis.set_title(title)
# alt: Four energies in rows: target density, best Gaussian, flow of two layers, flow of
# eight layers, which covers more of the target.
plt.show()

figure, axes = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained", sharey=True)
for number, axis in enumerate(axes):
    axis.plot(LENGTHS, divergence[number], "o", color="C0", alpha=0.6)
    axis.plot(LENGTHS, np.median(divergence[number], axis=1), color="C0")
    axis.axhline(gaussian[number].fun, color="C1", label="best Gaussian")
    axis.set(title=f"energy {number + 1}", xlabel="layers", ylim=(0, 1.7))
    axis.set_xticks(LENGTHS)
axes[0].set_ylabel("divergence (nats)")
axes[0].legend()
# alt: Divergence in nats for two and eight layers, four energies, a dot a seed, and the
# best Gaussian as a line: eight layers are lower.
plt.show()

print("divergence, nats    best Gaussian" + "".join(f"{n:>9} layers" for n in LENGTHS))
for number in range(4):
    row = "".join(f"{value:16.2f}" for value in np.median(divergence[number], axis=1))
    print(f"energy {number + 1}{gaussian[number].fun:25.2f}{row}")

# %%
# What to notice
# --------------
#
# - The correction of :math:`u` costs nothing and needs no penalty: the determinant
#   stays positive, where the bare formula folds space.
# - One Gaussian takes the better half of what it cannot cover: the reverse divergence
#   punishes being where the target is not. It is *mode seeking*, and so are the flows:
#   look at the fourth energy, whose lower branch is forgotten.
# - Two layers cannot do the ring: on the first energy they are no better than one
#   Gaussian. More
#   layers come closer, slowly. Each bends along one direction only, and each seed finds
#   other bends. That is why couplings and splines replaced these flows, as soon as
#   there were any; they remain the smallest flow that there is.
# - The pictures needed the density of given points, hence inverses. A planar layer has
#   no formula for it; thirty halvings of an interval do.

medians = np.median(divergence, axis=2)  # (energies, lengths)
best_gaussian = np.array([fit.fun for fit in gaussian])
claim(
    "200 planar and 200 radial layers of random weights: smallest determinant",
    min(smallest["planar"], smallest["radial"]), ">", 0,
)  # fmt: skip
claim(
    "200 planar layers of random weights, u not corrected: smallest determinant",
    smallest["planar, u as it is"], "<", -1,
)  # fmt: skip
claim(
    "two valleys: divergence of the best Gaussian less that of 8 layers, median seed",
    best_gaussian[0] - medians[0, -1], ">", 0.2, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "four energies: best Gaussian less 8 layers, mean of the median divergences",
    (best_gaussian - medians[:, -1]).mean(), ">", 0.2, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "divergence of 8 planar layers to that of 2, mean of four energies",
    np.mean(medians[:, -1] / medians[:, 0]), "<", 0.9, seeds=len(seeds),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Use :class:`~dlcompanion.generative.RadialFlow`. Which energy suits it?
# 2. Use :class:`~dlcompanion.generative.InverseAutoregressiveFlow` with as many
#    weights. How much is left of the divergence?
# 3. Multiply the energy by a number that grows from 0.1 to 1 in the course of training,
#    as the paper does. Which valleys come back?
#
# .. dropdown:: Hint to 1
#
#    A ring is made by pushing points away from a center: look at the first energy.
#
# .. dropdown:: Hint to 2
#
#    Give it two blocks and few hidden units, and compare ``count_params()``.
#
# .. dropdown:: Hint to 3
#
#    Multiply ``energies`` by a weight of the layer, and raise it in a callback at the
#    end of each epoch. Early, the valleys are shallow, and the flow covers them all.
#
# References
# ----------
# Flows, energies and corrections are those of :cite:t:`rezende2015variational`; a
# survey is :cite:t:`papamakarios2021flows`.

# sphinx_gallery_thumbnail_number = 2
# sphinx_gallery_tags = ["model", "density", "intermediate"]
