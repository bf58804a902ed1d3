r"""
Momentum: a ravine costs the square root of its condition number
================================================================

Gradient descent swings between the walls of a ravine and creeps along its floor.
Momentum adds a part of the last step to the new one: the swings cancel, and the steps
along the floor add up. On a quadratic loss with condition number :math:`\kappa` this
brings the number of steps from about :math:`\kappa` down to about
:math:`\sqrt\kappa`. Use momentum (0.9 is usual) wherever you use SGD. But compare it
fairly: on a noisy loss with small steps it is the same as a larger learning rate, as
this page measures too.

In your own model
-----------------

Momentum is an argument of :class:`keras.optimizers.SGD`; divide the learning rate by
ten when you set it to 0.9:

.. code-block:: python

   import keras
   import numpy as np

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
   optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True)
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(optimizer, loss)
   model.fit(x, y, epochs=3, verbose=0)

Prerequisites: :doc:`/gallery/optimization/plot_gradient_descent`.

Neighbors: :doc:`/gallery/optimization/plot_lookahead`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The velocity :math:`v` is a sum of the past gradients that forgets slowly, with the
# momentum :math:`\beta` in :math:`[0, 1)`:
#
# .. math::
#
#    v \leftarrow \beta v - \eta\,\nabla \mathcal L(\theta), \qquad
#    \theta \leftarrow \theta + v .
#
# This is Polyak's heavy ball :cite:p:`polyak1964some`. Nesterov's variant takes the
# gradient where the velocity is about to carry the weights, and damps the swings a
# little more :cite:p:`sutskever2013importance`. If the gradient stays the same, the
# velocity grows to :math:`-\eta/(1-\beta)` times the gradient: the *effective* learning
# rate.
#
# On a quadratic whose curvatures lie between :math:`\mu` and :math:`L = \kappa\mu`, the
# best constants of the heavy ball are
#
# .. math::
#
#    \eta = \frac{4}{(\sqrt L + \sqrt\mu)^2}, \qquad
#    \beta = \Bigl(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\Bigr)^2 ,
#
# and the distance falls by the factor :math:`(\sqrt\kappa - 1)/(\sqrt\kappa + 1)` a
# step instead of :math:`(\kappa - 1)/(\kappa + 1)`.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.neighbors import KNeighborsClassifier

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.training import (
    evaluate_members,
    fit_in_memory,
    member_orders,
    restart,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# Steps until the distance to the minimum is one millionth, for gradient descent and
# for momentum, each with its best constants.

conditions = np.array([10, 30, 100, 300, 1000])


def steps_needed(condition, size=10, momentum=True):
    curvature = np.geomspace(1, condition, size)
    root = np.sqrt(condition)
    rate = 4 / (1 + root) ** 2 if momentum else 2 / (1 + condition)
    beta = ((root - 1) / (root + 1)) ** 2 if momentum else 0.0
    theta = first = rng.normal(size=size)
    velocity = np.zeros(size)
    for step in range(1, 20_000):
        velocity = beta * velocity - rate * curvature * theta
        theta = theta + velocity
        if np.linalg.norm(theta) < 1e-6 * np.linalg.norm(first):
            return step
    return np.nan


needed = {
    name: np.array(
        [[steps_needed(c, momentum=m) for c in conditions] for _ in claims.seeds(5)]
    )
    for name, m in [("gradient descent", False), ("momentum", True)]
}
slope = {
    name: [np.polyfit(np.log(conditions), np.log(row), 1)[0] for row in rows]
    for name, rows in needed.items()
}

# %%
# Keras's SGD by hand: 50 steps in a random ravine, the learning rate halved in the
# middle. The learning rate is part of the velocity, so the steps of the past keep their
# size when the rate changes. (In PyTorch it is not, and they shrink at once.)


def by_hand(theta, nesterov, rate_inside):
    velocity = np.zeros_like(theta)
    for step in range(50):
        rate, gradient = 0.05 if step < 25 else 0.025, curvatures * theta
        if rate_inside:
            velocity = 0.9 * velocity - rate * gradient
            theta = theta + (0.9 * velocity - rate * gradient if nesterov else velocity)
        else:
            velocity = 0.9 * velocity + gradient
            theta = theta - rate * (0.9 * velocity + gradient if nesterov else velocity)
    return theta


curvatures = rng.uniform(0.1, 5, size=20).astype("float32")
start = rng.normal(size=20).astype("float32")
gaps = {}
for nesterov in (False, True):
    theta = keras.Variable(start)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=nesterov)
    for step in range(50):
        if step == 25:
            optimizer.learning_rate = 0.025
        optimizer.apply([ops.multiply(curvatures, theta)], [theta])
    end = ops.convert_to_numpy(theta)
    for inside in (True, False):
        gaps[nesterov, inside] = np.max(np.abs(end - by_hand(start, nesterov, inside)))

# %%
# A real network with the noise of minibatches. Five small networks stand side by side
# in one model, each with its own first weights and its own order of the digits. SGD
# with and without momentum is tried at seven effective learning rates.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
members, epochs, batch = 5, 6, 32
dense = keras.layers.EinsumDense
model = keras.Sequential(
    [
        keras.Input((members, x_train.shape[-1])),
        dense("bmi,mio->bmo", (members, 32), bias_axes="mo", activation="relu"),
        dense("bmi,mio->bmo", (members, int(y_train.max()) + 1), bias_axes="mo"),
    ]
)
orders = member_orders(len(x_train), members, epochs, rng)
effective = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
betas = [0.0, 0.9]
losses, hits = {}, {}
for beta in betas:
    model.compile(
        keras.optimizers.SGD(0.1, momentum=beta),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for rate in effective:
        restart(model, claims.seed())
        # the loss is the mean over the networks, so each sees a fifth of its gradient
        model.optimizer.learning_rate = members * rate * (1 - beta)
        fit_in_memory(
            model,
            x_train[orders],
            y_train[orders],
            batch_size=batch,
            shuffle=False,
            verbose=0,
        )
        key = beta, rate
        losses[key], hits[key] = evaluate_members(model, x_test, y_test)

# %%
# Left, 30 steps in a ravine with condition number 40, each method at its best rate;
# right, the steps to one millionth.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
ravine = np.array([1.0, 40.0])
grid = np.meshgrid(np.linspace(-2.4, 0.8, 100), np.linspace(-0.6, 0.6, 100))
height = sum(c * g**2 for c, g in zip(ravine, grid, strict=True))
left.contour(*grid, height, levels=np.geomspace(0.05, 30, 9), colors="0.8", zorder=0)
root = np.sqrt(ravine.max())
ball = 4 / (1 + root) ** 2, ((root - 1) / (root + 1)) ** 2
paths = {"gradient descent": (2 / ravine.sum(), 0.0), "momentum": ball}
for color, (name, (rate, beta)) in zip(["C1", "C0"], paths.items(), strict=True):
    theta, velocity, path = np.array([-2.2, 0.4]), np.zeros(2), []
    for _ in range(31):
        path.append(theta)
        velocity = beta * velocity - rate * ravine * theta
        theta = theta + velocity
    left.plot(*np.transpose(path), "o-", ms=3, lw=1, color=color, label=name)
left.plot(0, 0, "k*", ms=9)
left.set(xlabel="flat direction", ylabel="steep direction")
left.legend(loc="lower right")
for color, (name, rows) in zip(["C1", "C0"], needed.items(), strict=True):
    right.plot(conditions, rows.T, "o", color=color, ms=4)
    exponent = 1 if name == "gradient descent" else 0.5
    line = (conditions / conditions[-1]) ** exponent * np.median(rows[:, -1])
    right.plot(conditions, line, color=color, label=f"{name}, slope {exponent}")
right.set(
    xscale="log",
    yscale="log",
    xlabel="condition number",
    ylabel="steps to one millionth",
)
right.legend()
# alt: Left, contours of a ravine: gradient descent zigzags and has gone half of the way
# after 30 steps, momentum swings wider and is at the minimum; right, steps against the
# condition number, a line of slope one for gradient descent and one half for momentum.
plt.show()

# %%
# The digits: test loss against the effective learning rate. Each mark is the median of
# five networks, the bars reach from the best to the worst.

figure, ax = plt.subplots(figsize=(6.4, 3.9), layout="constrained")
for color, shift, beta in zip(["C1", "C0"], [0.96, 1.04], betas, strict=True):
    values = np.array([losses[beta, rate] for rate in effective])
    middle = np.median(values, axis=1)
    reach = [middle - values.min(axis=1), values.max(axis=1) - middle]
    label = f"SGD, momentum {beta}" if beta else "SGD without momentum"
    at = np.array(effective) * shift
    ax.errorbar(at, middle, reach, marker="o", capsize=2, color=color, label=label)
ax.axhline(np.log(y_train.max() + 1), color="0.5", ls=":", label="even guess")
ax.set(
    xscale="log",
    yscale="log",
    xlabel=r"effective learning rate $\eta\,/\,(1-\beta)$",
    ylabel="test loss",
)
ax.set_xticks(effective, [f"{rate:g}" for rate in effective])
ax.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
ax.minorticks_off()
ax.legend()
# alt: Test loss against the effective learning rate for SGD with and without momentum:
# the two curves lie on each other up to 0.3; at 3 SGD fails and momentum still learns.
plt.show()

# %%
# What to notice
# --------------
#
# - In the ravine momentum needs the square root of the steps: 6,000 become about 250 at
#   a condition number of 1,000.
# - On the digits nothing of this is seen at small learning rates: with the same
#   effective rate :math:`\eta/(1-\beta)` SGD with and without momentum are the same
#   method. A comparison of the two at the same :math:`\eta` compares a learning rate
#   with one ten times as large.
# - The gain is at the other end. Steep directions limit :math:`\eta`, not
#   :math:`\eta/(1-\beta)`, so momentum stands effective rates at which SGD fails.
# - When it fails: near :math:`\beta = 1` the swings take long to die out; the formula
#   for the best :math:`\beta` needs a condition number that nobody knows for a network.
#
# The baselines, then the claims.

nearest = KNeighborsClassifier(1).fit(x_train, y_train).score(x_test, y_test)
majority = np.bincount(y_test).max() / len(y_test)
print(f"majority class              accuracy {majority:.3f}")
print(f"nearest neighbor            accuracy {nearest:.3f}")
best = {}
for beta in betas:
    best[beta] = min(effective, key=lambda rate: np.median(losses[beta, rate]))
    print(
        f"SGD, momentum {beta}           accuracy "
        f"{np.median(hits[beta, best[beta]]):.3f}   at rate {best[beta]:g}"
    )

# %%
# The claims.

claim(
    "gradient descent: steps against condition number, log-log slope, least",
    np.min(slope["gradient descent"]),
    ">",
    0.9,
    seeds=5,
)
claim(
    "momentum: steps against condition number, log-log slope, largest",
    np.max(slope["momentum"]),
    "<",
    0.65,
    seeds=5,
)
claim(
    "50 steps of Keras's SGD with momentum against the formula, largest gap",
    max(gaps[False, True], gaps[True, True]),
    "<",
    1e-5,
)
claim(
    "50 steps of Keras's SGD against PyTorch's rule, rate halved half way: gap",
    min(gaps[False, False], gaps[True, False]),
    ">",
    1e-3,
)
claim(
    "digits, effective rate 0.1: test loss with momentum to without, largest gap to 1",
    np.max(np.abs(losses[0.9, 0.1] / losses[0.0, 0.1] - 1)),
    "<",
    0.15,
    seeds=members,
)
claim(
    "digits, effective rate 3: test accuracy with momentum, median",
    np.median(hits[0.9, 3.0]),
    ">",
    0.75,
    seeds=members,
)
claim(
    "digits, effective rate 3: test accuracy without momentum, median",
    np.median(hits[0.0, 3.0]),
    "<",
    0.5,
    seeds=members,
)
claim(
    "digits, best rate of each: test loss with momentum to without, median",
    np.median(losses[0.9, best[0.9]]) / np.median(losses[0.0, best[0.0]]),
    "<",
    1.15,
    seeds=members,
)

# %%
# Try it
# ------
#
# 1. Set :math:`\beta` to 0.99 at the effective rate 0.3. What changes after 6 epochs,
#    and what after 60?
#
# .. dropdown:: Hint to 1
#
#    The velocity needs :math:`1/(1-\beta)` steps to grow. Six epochs are 270 steps.
#
# 2. Give gradient descent on the ravine the rate :math:`2/L` less one percent, and
#    momentum the same rate. Which one swings longer?
#
# .. dropdown:: Hint to 2
#
#    With momentum the limit of the rate is :math:`2(1+\beta)/L`.
#
# 3. Put ``nesterov=True`` into the model's optimizer. At which effective rates does it
#    differ from the heavy ball?
#
# .. dropdown:: Hint to 3
#
#    Nesterov's gradient is taken one step ahead, which matters where one step is far.
#
# References
# ----------
# :cite:t:`polyak1964some`; :cite:t:`sutskever2013importance`, section 2.

# sphinx_gallery_tags = ["optimizer", "introductory"]
