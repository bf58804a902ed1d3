r"""
Gradient descent: it diverges above the learning rate 2/L, and networks go there
================================================================================

Gradient descent moves all weights a little against the gradient of the loss, again and
again. The learning rate says how far. Too small, and training takes forever; too large,
and the loss explodes. On a quadratic loss the limit is known exactly: two divided by
the largest curvature :math:`L`, the largest eigenvalue of the Hessian. This page
measures that limit, and then follows the curvature while a neural network is trained:
it rises until the learning rate is just too large, and stays there (the *edge of
stability*). Use plain gradient descent to understand the others; for real training use
momentum or Adam with minibatches.

In your own model
-----------------

Full-batch gradient descent is :class:`keras.optimizers.SGD` with all data in one batch.
To find the largest learning rate that works, try rates that differ by a factor:

.. code-block:: python

   import keras
   import numpy as np

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = x @ np.ones((5, 1), "float32")
   for rate in (0.01, 0.1, 0.3, 1.0):
       model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
       model.compile(keras.optimizers.SGD(rate), "mse")
       history = model.fit(x, y, batch_size=len(x), epochs=20, verbose=0)
       print(rate, history.history["loss"][-1])  # the last one explodes

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`.

Neighbors: :doc:`/gallery/optimization/plot_lookahead`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# One step with learning rate :math:`\eta` is
#
# .. math:: \theta \leftarrow \theta - \eta\,\nabla \mathcal L(\theta) .
#
# Near a minimum the loss is a quadratic with Hessian :math:`H`. In the direction of an
# eigenvector with eigenvalue (curvature) :math:`\lambda`, a step multiplies the
# distance to the minimum by :math:`1 - \eta\lambda`. It shrinks if
# :math:`|1 - \eta\lambda| < 1`. So all directions converge if and only if
#
# .. math:: \eta < \frac{2}{L}, \qquad L = \lambda_{\max}(H) .
#
# The flattest direction, with curvature :math:`\mu`, is then the slow one. The best
# rate for both ends is :math:`\eta = 2/(L+\mu)`; the number of steps grows as the
# *condition number* :math:`\kappa = L/\mu`
# :cite:p:`goodfellow2016deep` (chapter 4.3).

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import autodiff, backend, claims, datasets
from dlcompanion.claims import claim

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# Keras's SGD is this step: on a random quadratic in ten dimensions, 50 steps by Keras
# and by the formula.


def random_hessians(count, size=10):
    """Symmetric matrices with random directions and curvatures between 0.1 and L."""
    basis, _ = np.linalg.qr(rng.normal(size=(count, size, size)))
    curvature = rng.uniform(0.1, 1, size=(count, size)) * rng.uniform(
        1, 4, size=(count, 1)
    )
    return np.einsum("nij,nj,nkj->nik", basis, curvature, basis)


hessian = random_hessians(1)[0].astype("float32")
start = rng.normal(size=len(hessian)).astype("float32")
theta, by_hand = keras.Variable(start), start.copy()
sgd = keras.optimizers.SGD(0.3)
for _ in range(50):
    sgd.apply([ops.matmul(hessian, theta)], [theta])
    by_hand = by_hand - 0.3 * hessian @ by_hand
same = np.max(np.abs(ops.convert_to_numpy(theta) - by_hand))

# %%
# Where does it begin to diverge? Twenty random quadratics, and for each a sweep of 300
# learning rates with 400 steps each. The edge is the smallest rate that leaves the loss
# above its start.

hessians = random_hessians(20)
largest = np.linalg.eigvalsh(hessians)[:, -1]
rates = np.geomspace(0.3, 3, 300)
starts = rng.normal(size=(20, 1, 10)) * np.ones((1, len(rates), 1))
thetas = starts.copy()
with np.errstate(over="ignore", invalid="ignore"):
    for _ in range(400):
        thetas = np.clip(thetas - rates[:, None] * thetas @ hessians, -1e100, 1e100)


def quadratic(thetas):
    return np.einsum("nri,nij,nrj->nr", thetas, hessians, thetas) / 2


ratio = quadratic(thetas) / quadratic(starts)
edges = np.array([rates[np.argmax(row > 1)] for row in ratio])

# %%
# How many steps does the best rate need? The distance to the minimum is to fall by a
# factor of a million, on quadratics whose curvatures lie between 1 and
# :math:`\kappa`.

conditions = np.array([3, 10, 30, 100, 300, 1000])


def steps_needed(condition, size=10):
    curvature = np.geomspace(1, condition, size)
    distance = first = rng.normal(size=size)
    for step in range(1, 20_000):
        distance = distance * (1 - 2 / (1 + condition) * curvature)
        if np.linalg.norm(distance) < 1e-6 * np.linalg.norm(first):
            return step
    return np.nan


needed = np.array([[steps_needed(c) for c in conditions] for _ in claims.seeds(5)])
slopes = [np.polyfit(np.log(conditions), np.log(n), 1)[0] for n in needed]

# %%
# A network next: 64 pixels, 32 tanh units, ten outputs, the squared error on 300
# digits. Five networks with different first weights stand side by side in one array, so
# that one program trains all five. At some steps their curvature is measured: power
# iteration with :func:`~dlcompanion.autodiff.hessian_vector_product` gives the largest
# eigenvalue of the Hessian (the *sharpness*) without the Hessian.

members, hidden, examples, steps, every = 5, 32, 300, 1200, 40
(x, labels), _ = datasets.digits(flat=True, seed=claims.seed())
x = (x - x.mean(axis=0))[:examples]
y = np.eye(int(labels.max()) + 1, dtype="float32")[labels[:examples]]


def weights(rows, columns):
    scale = rows**-0.5
    return scale * rng.normal(size=(members, rows, columns)).astype("float32")


first_weights = [
    weights(x.shape[1], hidden),
    np.zeros((members, 1, hidden), "float32"),
    weights(hidden, y.shape[1]),
    np.zeros((members, 1, y.shape[1]), "float32"),
]


def losses(w):
    """Squared error of each network, ``(members,)``."""
    h = ops.tanh(ops.matmul(x, w[0]) + w[1])  # (members, examples, hidden)
    error = ops.subtract(ops.matmul(h, w[2]) + w[3], y)
    return ops.mean(ops.sum(ops.square(error), axis=2), axis=1) / 2


def total(w):
    return ops.sum(losses(w))


@backend.compile
def step(w, rate):
    loss, gradient = losses(w), autodiff.grad(total)(w)
    new = [a - rate * g for a, g in zip(w, gradient, strict=True)]
    return [ops.stop_gradient(a) for a in new], ops.stop_gradient(loss)


@backend.compile
def power_iteration(w, v):
    product = autodiff.hessian_vector_product(total)(w, v)  # of each network apart
    norm = ops.sqrt(sum(ops.sum(a * a, axis=(1, 2), keepdims=True) for a in product))
    return [ops.stop_gradient(a / norm) for a in product], ops.stop_gradient(norm)


def train(rate):
    """Loss at every step and sharpness at some, each with one column a network."""
    w = [ops.convert_to_tensor(a) for a in first_weights]
    v = [
        ops.convert_to_tensor(rng.normal(size=a.shape).astype("float32"))
        for a in first_weights
    ]
    loss, sharpness = [], []
    for number in range(steps + 1):
        if number % every == 0:
            for _ in range(8 if number else 60):  # goes on from the last direction
                v, norm = power_iteration(w, v)
            sharpness.append(ops.convert_to_numpy(norm)[:, 0, 0])
        w, now = step(w, rate)
        loss.append(ops.convert_to_numpy(now))
    return np.array(loss), np.array(sharpness)


learning_rates = [0.2, 0.5, 0.6]
runs = {rate: train(rate) for rate in learning_rates}

# %%
# Left, three paths of 25 steps in a ravine; middle, the twenty quadratics: what 400
# steps leave of the loss, against the learning rate in units of :math:`1/L`; right, the
# price of a ravine.

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.8), layout="tight")
ravine = np.array([1.0, 12.0])
grid = np.meshgrid(np.linspace(-2.4, 1.2, 100), np.linspace(-1.1, 1.1, 100))
height = sum(c * g**2 for c, g in zip(ravine, grid, strict=True))
left.contour(*grid, height, levels=np.geomspace(0.05, 20, 9), colors="0.8", zorder=0)
for share, color in [(0.2, "C3"), (1.85, "C0"), (2.03, "C1")]:
    path = [np.array([-2.2, 0.35])]
    for _ in range(25):
        path.append(path[-1] * (1 - share / ravine.max() * ravine))
    left.plot(*np.transpose(path), "o-", ms=3, lw=1, color=color, label=f"{share}/L")
left.plot(0, 0, "k*", ms=9)
left.set(xlabel="flat direction", ylabel="steep direction", ylim=(-1.1, 1.1))
left.legend(title="learning rate", loc="lower right")
for row, big in zip(ratio, largest, strict=True):
    middle.plot(rates * big, np.clip(row, 1e-40, 1e40), color="C0", lw=0.6)
middle.axvline(2, color="C1", ls="--", label="2/L")
middle.axhline(1, color="0.5", ls=":", label="loss at the start")
middle.set(
    xlim=(1.8, 2.2),
    yscale="log",
    ylim=(1e-20, 1e20),
    xlabel="learning rate x L",
    ylabel="loss after 400 steps / loss at the start",
)
middle.legend(loc="upper left")
right.plot(conditions, needed.T, "o", color="C0", ms=4)
right.plot(conditions, 7 * conditions, color="C1", label="proportional")
right.set(
    xscale="log",
    yscale="log",
    xlabel="condition number",
    ylabel="steps to one millionth",
)
right.legend()
# alt: Left, three paths in a ravine: a small rate creeps, a rate below 2/L swings and
# arrives, one above it swings ever wider; middle, twenty curves of the loss that all
# cross 1 at the rate 2/L; right, steps proportional to the condition number.
plt.show()

# %%
# The networks: the sharpness rises by itself, up to the dashed line :math:`2/\eta` of
# its own learning rate, and no farther. There the loss goes down with jumps upwards.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
at = np.arange(0, steps + 1, every)
for color, (rate, (loss, sharpness)) in zip(
    ["C3", "C0", "C1"], runs.items(), strict=True
):
    left.plot(at, sharpness, color=color, lw=0.9)
    left.plot([], [], color=color, label=f"rate {rate}")
    right.plot(loss[:, 0], color=color, lw=1, label=f"rate {rate}")
    if 2 / rate < 6:
        left.axhline(2 / rate, color=color, ls="--", lw=1)
        left.annotate(f"2/{rate}", (steps, 2 / rate), color=color, va="bottom")
left.set(xlabel="step", ylabel="largest eigenvalue of the Hessian", ylim=(2, 6))
left.legend()
right.set(xlabel="step", ylabel="loss of the first network", yscale="log")
right.legend()
# alt: Left, the largest eigenvalue against the step, five networks for each of three
# rates: it rises and stops at the dashed line of two divided by the rate; right, the
# loss against the step: smooth at rate 0.2, falling with peaks at the larger rates.
plt.show()

# %%
# What to notice
# --------------
#
# - On a quadratic the edge is sharp: one percent below :math:`2/L` training converges,
#   one percent above it explodes. Only the steepest direction decides.
# - Near the edge the path swings from wall to wall. This is what a loss that goes up
#   and down in full-batch training means.
# - The flat direction sets the number of steps. Momentum, adaptive rates and
#   normalization all attack the condition number.
# - The networks do not stay where they are stable. Their sharpness grows during
#   training until :math:`2/\eta`, so the curvature adapts to the learning rate, not
#   only the other way round :cite:p:`cohen2021edge`. That is why a rate that is a
#   little too large often works in practice, and why the Hessian at the start says
#   little about the best rate.
# - This is full-batch training with the squared error. With minibatches the sharpness
#   stops below :math:`2/\eta`.
#
# The trivial baseline is the best constant prediction, the mean of the targets.

constant = np.mean(np.sum((y - y.mean(axis=0)) ** 2, axis=1)) / 2
print(f"loss of the best constant    {constant:.3f}")
late = at >= 2 * steps / 3
edge = {}
for rate, (loss, sharpness) in runs.items():
    edge[rate] = np.median(sharpness[late], axis=0) * rate / 2
    ups = np.mean(np.diff(loss, axis=0) > 0)
    print(
        f"rate {rate}   loss {np.median(loss[-1]):.3f}   "
        f"sharpness x rate / 2: {np.median(edge[rate]):.2f}   "
        f"steps upwards: {100 * ups:.0f} %"
    )

# %%
# The claims.

claim(
    "weights after 50 steps of Keras's SGD against the formula, largest gap",
    same,
    "<",
    1e-5,
)
claim(
    "learning rate at which 20 random quadratics diverge against 2/L, largest gap",
    np.max(np.abs(edges * largest / 2 - 1)),
    "<",
    0.02,
)
claim(
    "steps against the condition number, slope in the log-log plot, largest gap to 1",
    np.max(np.abs(np.array(slopes) - 1)),
    "<",
    0.1,
    seeds=5,
)
claim(
    "network at rate 0.5: sharpness to 2/rate in the last third, largest gap to 1",
    np.max(np.abs(edge[0.5] - 1)),
    "<",
    0.1,
    seeds=members,
)
claim(
    "network at rate 0.6: sharpness to 2/rate in the last third, largest gap to 1",
    np.max(np.abs(edge[0.6] - 1)),
    "<",
    0.1,
    seeds=members,
)
claim(
    "network: sharpness at the end to sharpness at the start, rate 0.2, worst",
    np.min(runs[0.2][1][-1] / runs[0.2][1][0]),
    ">",
    1.1,
    seeds=members,
)
claim(
    "loss of the network at rate 0.5 to that of the best constant, worst",
    np.max(runs[0.5][0][-1]) / constant,
    "<",
    0.3,
    seeds=members,
)

# %%
# Try it
# ------
#
# 1. Train at the rate 1, where :math:`2/\eta` lies below the sharpness at the start.
#    Does it diverge?
#
# .. dropdown:: Hint to 1
#
#    No: the first steps carry the weights to a flatter place. Within 40 steps the
#    sharpness falls from about 2.9 to 2.
#
# 2. Lower the learning rate from 0.6 to 0.3 in the middle of training. What does the
#    sharpness do?
#
# .. dropdown:: Hint to 2
#
#    It has a new edge, at 6.7, and begins to rise again.
#
# 3. Replace ``ops.tanh`` by ``ops.relu``. Does the picture change?
#
# .. dropdown:: Hint to 3
#
#    The edge is the same; the swings around it are wilder.
#
# References
# ----------
# :cite:t:`goodfellow2016deep`, chapter 4.3; :cite:t:`cohen2021edge`.

# sphinx_gallery_tags = ["optimizer", "introductory"]
