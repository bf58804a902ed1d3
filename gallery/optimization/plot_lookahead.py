r"""
Lookahead optimizer: it forgives a learning rate that is too large
==================================================================

If the learning rate is too large, an optimizer jumps to and fro across the minimum
instead of reaching it. :class:`~dlcompanion.optimization.Lookahead` wraps the optimizer
that you have: it lets the weights run ahead for :math:`k` steps (fast weights), and
then moves a second copy (slow weights) a part of the way to where they arrived. This
averages out the noise. Use it if you cannot tune the learning rate and it may be too
large. If you can, half the learning rate does nearly the same without a second copy of
the weights, as this page measures.

In your own model
-----------------

Wrap any Keras optimizer:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.optimization import Lookahead

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
   optimizer = Lookahead(keras.optimizers.Adam(0.01))  # around any Keras optimizer
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(optimizer, loss)
   model.fit(x, y, epochs=3, verbose=0)

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`.

Neighbors: :doc:`/gallery/optimization/plot_stochastic_weight_averaging`. Notation:
:doc:`/notation`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/lookahead.svg
#    :figclass: drawing
#    :alt: Fast weights take k noisy steps around a minimum; the slow weights follow on
#       a straight line, half of the way, and there the fast weights start again.
#
# The inner optimizer moves the *fast* weights :math:`\theta`. After :math:`k` steps
# the *slow* weights :math:`\phi` follow, and the fast ones start again from there:
#
# .. math::
#
#    \phi \leftarrow \phi + \alpha\,(\theta_k - \phi), \qquad \theta_0 \leftarrow \phi .
#
# On a quadratic we can say what to expect. Let the loss be
# :math:`\tfrac12 a(\theta - c)^2` with a target :math:`c \sim \mathcal N(0, \sigma^2)`
# drawn anew at every step, and write :math:`r = (1 - \eta a)^k` for what :math:`k`
# steps of SGD leave of the distance. SGD never comes to rest, it keeps a variance
# :math:`V_{\text{SGD}}`, and Lookahead keeps a part of it
# :cite:p:`zhang2019lookahead` (proposition 2, simplified):
#
# .. math:: V = \frac{\alpha\,(1 + r)}{2 - \alpha\,(1 - r)}\; V_{\text{SGD}} .

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.optimization import Lookahead
from dlcompanion.training import (
    evaluate_members,
    fit_in_memory,
    member_orders,
    restart,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# Twenty thousand walkers on that quadratic, each with its own noise, all in one
# weight vector. After a hundred steps their spread is the stationary variance.

walkers, rate, curvature = 20_000, 0.5, 1.0


def variance_at_rest(optimizer, steps=100):
    theta = keras.Variable(np.zeros(walkers, "float32"))
    for _ in range(steps):
        target = rng.normal(size=walkers).astype("float32")
        gradient = curvature * (keras.ops.convert_to_numpy(theta) - target)
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [theta])
    return float(np.var(keras.ops.convert_to_numpy(theta)))


def predicted_ratio(k, alpha, rate):
    r = (1 - rate * curvature) ** k
    return alpha * (1 + r) / (2 - alpha * (1 - r))


alpha, ks = 0.5, [1, 2, 5, 10, 20]
sgd = keras.optimizers.SGD
plain = variance_at_rest(sgd(rate))
measured = [variance_at_rest(Lookahead(sgd(rate), k, alpha)) / plain for k in ks]
predicted = [predicted_ratio(k, alpha, rate) for k in ks]

# %%
# A real network now, with Adam inside. Five small networks stand side by side in
# one model, each with its own first weights and its own order of the digits:
# Adam and Lookahead work weight by weight, so training them together is training
# each alone, five times cheaper.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
members, epochs = 5, 12


def five_networks():
    dense = keras.layers.EinsumDense
    return keras.Sequential(
        [
            keras.Input((members, x_train.shape[-1])),
            dense("bmi,mio->bmo", (members, 32), bias_axes="mo", activation="relu"),
            dense("bmi,mio->bmo", (members, int(y_train.max()) + 1), bias_axes="mo"),
        ]
    )


orders = member_orders(len(x_train), members, epochs, rng)  # (examples, members)


def compiled(optimizer):
    model = five_networks()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def train(model, rate):
    """Test loss and test accuracy of the five, one number a member."""
    restart(model, claims.seed())
    model.optimizer.learning_rate = rate
    x, y = x_train[orders], y_train[orders]
    fit_in_memory(model, x, y, batch_size=32, shuffle=False, verbose=0)
    return evaluate_members(model, x_test, y_test)


adam = keras.optimizers.Adam
alone, inside = compiled(adam()), compiled(Lookahead(adam()))
contenders = {  # a model, and what it takes of the rate
    "Adam": (alone, 1),
    "Lookahead(Adam)": (inside, 1),
    "Adam, half the rate": (alone, 0.5),
}
rates = [0.001, 0.01, 0.03, 0.1]
runs = {
    name: [train(model, share * rate) for rate in rates]
    for name, (model, share) in contenders.items()
}
losses = {name: np.array([loss for loss, _ in rows]) for name, rows in runs.items()}

# %%
# Left, the walkers: every dot is measured, the line is the formula. Right, the
# digits: each mark is the median of five networks, the bars reach from the worst
# to the best.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
grid = np.geomspace(1, 25, 100)
for a, colour in zip([0.2, 0.5, 0.8], ["C2", "C0", "C1"], strict=True):
    left.plot(grid, predicted_ratio(grid, a, rate), color=colour, lw=1.2)
    left.annotate(rf"$\alpha={a}$", (25, predicted_ratio(25, a, rate)), color=colour)
left.plot(ks, measured, "o", color="C0", label="20,000 walkers")
left.axhline(1, color="0.5", ls=":", label="SGD alone")
left.set(
    xscale="log", xlabel="k", ylabel="variance at rest / that of SGD", ylim=(0, 1.1)
)
left.set_xlim(0.9, 45)
left.set_xticks(ks, [str(k) for k in ks])
left.minorticks_off()
left.legend(loc="center left", bbox_to_anchor=(0, 0.8))

for shift, (name, marker) in zip(
    [0.94, 1.0, 1.06], zip(contenders, "so^", strict=True), strict=True
):
    values = losses[name]  # (rates, members)
    middle = np.median(values, axis=1)
    reach = [middle - values.min(axis=1), values.max(axis=1) - middle]
    right.errorbar(
        np.array(rates) * shift, middle, reach, marker=marker, capsize=2, label=name
    )
right.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="test loss")
right.set_xticks(rates, [str(r) for r in rates])
right.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
right.minorticks_off()
right.legend()
# alt: Left, variance at rest against k, dots on the line of the formula, below that of
# SGD alone; right, test loss against the learning rate for Adam, Lookahead and Adam at
# half the rate: Adam is worst at 0.1.
plt.show()

# %%
# What to notice
# --------------
#
# - On the walkers the formula holds up to the noise of the measurement. A larger
#   :math:`k` reduces the variance more, but only until SGD has forgotten its start.
# - At a learning rate that is too large for Adam, Lookahead lowers the test loss a lot,
#   and the five networks differ less.
# - Now look at the triangles. Half the learning rate, which costs no second copy of the
#   weights, does most of the same: with :math:`\alpha = 1/2` and small steps, Lookahead
#   and half the rate agree to about one percent. What remains is insurance against a
#   rate that is too large when you do not know it.
# - Below the best rate the wrapper makes the loss larger, for the same reason.

nearest = KNeighborsClassifier(1).fit(x_train, y_train).score(x_test, y_test)
majority = np.bincount(y_test).max() / len(y_test)
print(f"majority class        accuracy {majority:.3f}")
print(f"nearest neighbour     accuracy {nearest:.3f}")
for name, rows in runs.items():
    accuracy = [f"{np.median(hits):.3f}" for _, hits in rows]
    print(f"{name:21s} accuracy {'  '.join(accuracy)}   at rates {rates}")

# %%
# The claims; the last two show what half the learning rate does.

claim(
    "variance at rest on the quadratic against the formula, largest relative gap",
    np.max(np.abs(np.array(measured) / predicted - 1)),
    "<",
    0.1,
)
claim(
    "variance at rest of Lookahead (k = 5) to that of SGD",
    measured[ks.index(5)],
    "<",
    0.5,
)
large, small = rates.index(0.1), rates.index(0.001)
claim(
    "test loss of Lookahead(Adam) to that of Adam, rate 0.1, median",
    np.median(losses["Lookahead(Adam)"][large] / losses["Adam"][large]),
    "<",
    0.85,
    seeds=members,
)
claim(
    "test loss of Lookahead(Adam) against Adam at half the rate, 0.001, largest gap",
    np.max(
        np.abs(losses["Lookahead(Adam)"] / losses["Adam, half the rate"] - 1)[small]
    ),
    "<",
    0.05,
    seeds=members,
)
claim(
    "test loss of Lookahead(Adam) to that of Adam, rate 0.001, median: worse",
    np.median(losses["Lookahead(Adam)"][small] / losses["Adam"][small]),
    ">",
    1.3,
    seeds=members,
)

# %%
# Try it
# ------
#
# 1. Set the momentum of SGD to 0.99 on a quadratic with curvatures from 1 to 100 and no
#    noise. Which :math:`k` stops the swinging, and why not a larger one?
#
# .. dropdown:: Hint to 1
#
#    A swing has a period; averaging helps if :math:`k` is about half of it.
#
# 2. With :math:`\alpha = 1/2`, at which learning rate of SGD alone is the variance at
#    rest that of Lookahead? Compare the speeds at which both forget the start.
#
# .. dropdown:: Hint to 2
#
#    SGD at rest has the variance :math:`\eta a \sigma^2 / (2 - \eta a)`; Lookahead
#    forgets at the rate :math:`1 - \alpha (1 - r)` in :math:`k` steps.
#
# 3. Wrap :class:`keras.optimizers.SGD` with a cosine schedule. Does anything remain of
#    the gain at the end of training?
#
# .. dropdown:: Hint to 3
#
#    A schedule that ends at zero removes the noise by itself.
#
# References
# ----------
# :cite:t:`zhang2019lookahead`, algorithm 1 and proposition 2.

# sphinx_gallery_tags = ["optimizer", "introductory"]
