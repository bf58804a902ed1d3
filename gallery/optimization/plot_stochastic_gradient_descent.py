r"""
Stochastic gradient descent (SGD): noise that falls as one over the batch size
==============================================================================

The gradient of the loss is a mean over all training data, and most of that mean can be
had from a few examples. Stochastic gradient descent takes the gradient of a small
random batch (a minibatch) instead. It is noisy but right on average, and a hundred
times cheaper, so that the weights have moved far before gradient descent has taken its
first step. This is how nearly every network is trained. The noise has a price: with a
constant learning rate the loss does not come to rest at the minimum. Lower the rate at
the end, or take larger batches.

In your own model
-----------------

``batch_size`` of ``fit`` is the minibatch; Keras shuffles the examples anew in every
epoch, so each one is used once an epoch:

.. code-block:: python

   import keras
   import numpy as np

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(keras.optimizers.SGD(0.1), loss)
   model.fit(x, y, batch_size=32, epochs=3, shuffle=True, verbose=0)

Prerequisites: :doc:`/gallery/optimization/plot_gradient_descent`.

Neighbors: :doc:`/gallery/optimization/plot_momentum`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Let :math:`g_n` be the gradient of the loss of example :math:`n`, and
# :math:`g = \frac1N\sum_n g_n` the full gradient. A batch of :math:`B` examples drawn
# at random gives :math:`\hat g = \frac1B\sum_{n\in\text{batch}} g_n`, with
#
# .. math::
#
#    \mathbb E\,\hat g = g, \qquad
#    \mathbb E\,\lVert \hat g - g\rVert^2 = \frac{V}{B}\;
#    \underbrace{\frac{N - B}{N - 1}}_{\text{without replacement}}, \qquad
#    V = \frac1N\sum_n \lVert g_n - g\rVert^2 .
#
# The last factor is 1 if the examples of a batch are drawn with replacement. Without
# replacement, as ``fit`` does it, the batches of one epoch have the full gradient as
# their exact mean (as long as the weights stand still). Half the noise costs four times
# the examples :cite:p:`bottou2018optimization` (section 4.2).

import keras
import matplotlib.pyplot as plt
import numpy as np

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
# The gradients of single examples, for a softmax regression on the digits at random
# weights: 1,438 gradients of 650 numbers each, by the formula
# :math:`g_n = x_n (p_n - y_n)^\top`. Then 300 batches of each size.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
examples, classes = len(x_train), int(y_train.max()) + 1
with_ones = np.concatenate([x_train, np.ones((examples, 1), "float32")], axis=1)
one_hot = np.eye(classes)[y_train]


def example_gradients(weights):
    logits = with_ones @ weights
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return np.einsum("ni,nk->nik", with_ones, p - one_hot).reshape(examples, -1)


gradients = example_gradients(0.1 * rng.normal(size=(with_ones.shape[1], classes)))
full = gradients.mean(axis=0)
spread = np.mean(np.sum((gradients - full) ** 2, axis=1))  # V
sizes = np.array([1, 4, 16, 64, 256, 1024])


def noise(size, replace, batches=300):
    """Mean squared distance of a batch's gradient from the full one, in units of V."""
    total = 0.0
    for _ in range(batches):
        if replace:
            chosen = rng.integers(0, examples, size=size)
        else:
            chosen = rng.permutation(examples)[:size]
        total += np.sum((gradients[chosen].mean(axis=0) - full) ** 2)
    return total / batches / spread


measured = {replace: [noise(s, replace) for s in sizes] for replace in (True, False)}
expected = (examples - sizes) / (examples - 1) / sizes
slope = np.polyfit(np.log(sizes), np.log(measured[True]), 1)[0]
order = rng.permutation(examples)
batches = np.array_split(order, examples // 32)
weights = [len(b) / examples for b in batches]
epoch = np.einsum("b,bi->i", weights, [gradients[b].mean(axis=0) for b in batches])

# %%
# A network with 32 hidden units. Each batch size gets the same number of examples to
# look at, ten epochs, and the best of four learning rates. Five networks stand side by
# side, each with its own first weights and its own order of the digits.

members, epochs = 5, 10
dense = keras.layers.EinsumDense
model = keras.Sequential(
    [
        keras.Input((members, x_train.shape[-1])),
        dense("bmi,mio->bmo", (members, 32), bias_axes="mo", activation="relu"),
        dense("bmi,mio->bmo", (members, classes), bias_axes="mo"),
    ]
)
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(0.1), cross_entropy)
examples = len(x_train) // 32 * 32
orders = member_orders(examples, members, epochs, rng)
batch_sizes, rates = [16, 64, 256, examples], [0.1, 0.3, 1.0, 3.0]
losses = {}
for size in batch_sizes:
    for rate in rates:
        restart(model, claims.seed())
        # the loss is the mean over the networks, so each sees a fifth of its gradient
        model.optimizer.learning_rate = members * rate
        fit_in_memory(
            model,
            x_train[orders],
            y_train[orders],
            batch_size=size,
            shuffle=False,
            verbose=0,
        )
        losses[size, rate], _ = evaluate_members(model, x_test, y_test)

# %%
# Left, the noise of the gradient against the batch size: dots are measured, the lines
# are the formula. Right, the test loss after ten epochs: each mark is the median of
# five networks, the bars reach from the best to the worst.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
grid = np.geomspace(1, examples, 200)
for color, replace in (("C1", True), ("C0", False)):
    name = "with replacement" if replace else "without replacement"
    factor = 1 if replace else (len(x_train) - grid) / (len(x_train) - 1)
    left.plot(grid, factor / grid, color=color, lw=1)
    left.plot(sizes, measured[replace], "o", color=color, ms=5, label=name)
left.set(
    xscale="log",
    yscale="log",
    xlabel="batch size",
    ylabel="squared error of the gradient / V",
    ylim=(1e-4, 2),
)
left.legend()
for color, size in zip(["C0", "C2", "C1", "C4"], batch_sizes, strict=True):
    values = np.array([losses[size, rate] for rate in rates])
    middle = np.median(values, axis=1)
    reach = [middle - values.min(axis=1), values.max(axis=1) - middle]
    name = f"batch {size}" if size < examples else "all at once"
    right.errorbar(
        rates, middle, reach, fmt="o-", ms=4, capsize=2, color=color, label=name
    )
right.axhline(np.log(classes), color="0.5", ls=":", label="even guess")
right.set(
    xscale="log",
    yscale="log",
    xlabel="learning rate",
    ylabel="test loss after ten epochs",
    ylim=(0.04, 3),
)
right.set_xticks(rates, [f"{rate:g}" for rate in rates])
right.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
right.minorticks_off()
right.legend(fontsize="small", loc="lower left")
# alt: Left, squared error of the gradient against the batch size, a line of slope minus
# one; without replacement it falls faster near the full set; right, test loss against
# the learning rate: small batches reach 0.15, all examples at once stay above 1.
plt.show()

# %%
# What to notice
# --------------
#
# - The noise is known before training: one over the batch size, less if the batch is a
#   large part of the data. The loss does not come into it.
# - After the same number of examples small batches are far ahead, since they took
#   many more steps (880 of 16, 10 of all at once). The noise hardly hurts while there
#   is still far to go.
# - The larger the batch, the larger the best learning rate, up to the rate at which all
#   diverge, and that one does not grow with the batch. Beyond it larger batches buy
#   nothing but time on parallel hardware.
# - One epoch costs the same arithmetic whatever the batch; a larger batch uses a GPU
#   better. That is the usual reason for 64 or 256 instead of 1.
# - When it fails: at a constant rate the noise keeps the weights from coming to rest.
#   :doc:`Lookahead </gallery/optimization/plot_lookahead>` has the formula and a
#   remedy.
#
# The baselines, then the claims.

majority = np.bincount(y_test).max() / len(y_test)
print(f"majority class  accuracy {majority:.3f}   test loss {np.log(classes):.3f}")
best = {}
for size in batch_sizes:
    rate = min(rates, key=lambda r: np.median(losses[size, r]))
    best[size] = losses[size, rate]
    steps = epochs * examples // size
    print(
        f"batch {size:4d}   {steps:4d} steps   best rate {rate:g}   "
        f"test loss {np.median(best[size]):.3f}"
    )

# %%
# The claims.

claim(
    "noise of the gradient, drawn with replacement: log-log slope to -1, gap",
    abs(slope + 1),
    "<",
    0.1,
)
claim(
    "noise of the gradient without replacement to the formula, largest relative gap",
    np.max(np.abs(np.array(measured[False]) / expected - 1)),
    "<",
    0.25,
)
claim(
    "mean of the batch gradients of one epoch against the full gradient, largest gap",
    np.max(np.abs(epoch - full)),
    "<",
    1e-6,
)
claim(
    "test loss after ten epochs, all examples at once to batches of 64, median",
    np.median(best[examples] / best[64]),
    ">",
    2.5,
    seeds=members,
)
claim(
    "test loss after ten epochs, batches of 16 to batches of 64, median",
    np.median(best[16] / best[64]),
    "<",
    1.3,
    seeds=members,
)

# %%
# Try it
# ------
#
# 1. Train with ``batch_size=1`` for one epoch at rates from 0.001 to 0.1. How far
#    does it get?
#
# .. dropdown:: Hint to 1
#
#    The best rate is smaller, since the noise is larger. One epoch takes 1,408 steps.
#
# 2. Give all examples at once a hundred epochs instead of ten. Does it reach the test
#    loss of batches of 64?
#
# .. dropdown:: Hint to 2
#
#    It takes as many steps then as batches of 128 in ten epochs, and ten times the
#    time.
#
# 3. Compute the noise at the end of training instead of at random weights. Is :math:`V`
#    larger or smaller, and the slope?
#
# .. dropdown:: Hint to 3
#
#    Where most examples are classified well, most of the :math:`g_n` are near zero.
#
# References
# ----------
# :cite:t:`robbins1951stochastic`; :cite:t:`bottou2018optimization`, section 4.2.

# sphinx_gallery_tags = ["optimizer", "introductory"]
