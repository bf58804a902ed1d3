r"""
Gradient centralization: it does for the gradient what centering does for inputs
================================================================================

The weights that lead into one unit can grow together. If the inputs have a mean that is
not zero, as pixels have, the loss is much steeper in that direction than in all others,
and it limits the learning rate. Gradient centralization takes the direction out: it
subtracts from the gradient of each unit's weights their mean, before any optimizer sees
it. :class:`~dlcompanion.optimization.GradientCentralization` wraps the optimizer that
you have, costs one mean for each kernel, and has nothing to tune. Use it where inputs
or hidden units are not centered and you cannot change that. With centered inputs it
changes nothing on the digits, as this page measures, and it cannot be used where the
sum of a unit's weights has to change.

In your own model
-----------------

Wrap any Keras optimizer:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.optimization import GradientCentralization

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > x[:, 1]).astype("int32")
   dense = keras.layers.Dense
   model = keras.Sequential([keras.Input((5,)), dense(8, "relu"), dense(2)])
   sgd = keras.optimizers.SGD(0.1, momentum=0.9)  # or any other
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(GradientCentralization(sgd), loss)
   model.fit(x, y, epochs=3, verbose=0)

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`.

Neighbors: :doc:`/gallery/optimization/plot_lookahead`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Let :math:`g_i` be the gradient of the :math:`M` weights that lead into unit
# :math:`i`: a column of the kernel of a Dense layer, a filter of a convolution. The
# optimizer is given
#
# .. math:: \Phi(g_i) = g_i - \frac{1}{M} \sum_{j=1}^{M} g_{ij}
#
# :cite:p:`yong2020centralization` (equation 1). This is a projection: of all directions
# only :math:`(1, \dots, 1)` is lost. With SGD the sum of the weights of each unit
# stays what it was at the start.
#
# Two networks start from the same weights and see the digits in the same order, with
# SGD and with centralized SGD, at the same learning rate and momentum. This is done
# with the pixels as they are, between 0 and 1, and with the mean of each pixel
# subtracted.

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.optimization import GradientCentralization
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
seeds, epochs, rates = claims.seeds(5), 8, [0.03, 0.1]
classes = int(y_train.max()) + 1


def compiled(optimizer):
    dense = keras.layers.Dense
    hidden = [dense(64, "relu"), dense(64, "relu")]
    inputs = keras.Input((x_train.shape[-1],))
    model = keras.Sequential([inputs, *hidden, dense(classes)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def unit_sums(model):
    return keras.ops.convert_to_numpy(model.layers[0].kernel).sum(axis=0)


def train(model, seed, rate, mean):
    """Sums of the weights of each unit after each epoch, test loss, accuracy."""
    restart(model, seed)
    model.optimizer.learning_rate = rate
    sums = [unit_sums(model)]
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: sums.append(unit_sums(model))
    )
    fit_in_memory(
        model,
        whole - mean,
        y_train[: len(whole)],
        epochs=epochs,
        callbacks=[note],
        seed=seed,
        verbose=0,
    )
    log_p = keras.ops.log_softmax(model.predict_on_batch(x_test - mean))
    log_p = keras.ops.convert_to_numpy(log_p)
    loss = -log_p[np.arange(len(y_test)), y_test].mean()
    return np.array(sums), loss, np.mean(log_p.argmax(axis=1) == y_test)


whole = x_train[: len(x_train) // 32 * 32]  # in whole batches
pixels = {"as they are": 0.0, "centered": x_train.mean(axis=0)}
sgd = keras.optimizers.SGD
contenders = {
    "SGD": sgd(0.1, momentum=0.9),
    "centralized SGD": GradientCentralization(sgd(0.1, momentum=0.9)),
}
sums, losses, hits = {}, {}, {}
for name, optimizer in contenders.items():
    model = compiled(optimizer)
    for data, mean in pixels.items():
        for rate in rates:
            runs = [train(model, seed, rate, mean) for seed in seeds]
            key = name, data, rate
            sums[key], losses[key], hits[key] = map(np.array, zip(*runs, strict=True))

# %%
# Left, the sums of the weights of twelve units of the first network, pixels as they
# are, rate 0.1. Right, the test loss of five networks, each a dot, and their median.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
for name, color in zip(contenders, ["C1", "C0"], strict=True):
    for unit, values in enumerate(sums[name, "as they are", 0.1][0, :, :12].T):
        label = name if unit == 0 else None
        left.plot(values, color=color, lw=1.2, alpha=0.8, label=label)
left.set(xlabel="epoch", ylabel="sum of the weights of a unit")
left.legend()
places = [(data, rate) for data in pixels for rate in rates]
for shift, (name, color) in zip(
    [-0.12, 0.12], zip(contenders, ["C1", "C0"], strict=True), strict=True
):
    for at, (data, rate) in enumerate(places):
        values = losses[name, data, rate]
        right.plot(
            [at + shift] * len(values), values, "o", color=color, ms=4, alpha=0.6
        )
        middle = np.median(values)
        right.plot([at + shift - 0.1, at + shift + 0.1], [middle] * 2, color=color)
    right.plot([], [], "o-", color=color, label=name)
right.set(yscale="log", ylabel="test loss")
right.set_yticks([0.05, 0.1, 0.2], ["0.05", "0.1", "0.2"])
right.minorticks_off()
right.set_xticks(
    range(len(places)), [f"{data}\nrate {rate}" for data, rate in places], fontsize=8
)
right.legend()
# alt: Left, sums of the weights of twelve units over the epochs: with SGD they drift,
# centralized they are level lines; right, test loss: centralized SGD is lower with the
# pixels as they are, and the same with centered pixels, which is lower than both.
plt.show()

# %%
# What to notice
# --------------
#
# - The level lines are the whole effect: centralized, the sum of a unit's weights does
#   not move, while SGD changes it by much of its size.
# - With the pixels as they are the test loss falls. The steep direction that made SGD
#   unsteady is gone.
# - With centered pixels there is no such direction, and nothing left to gain. Centering
#   the inputs is better than centralizing the gradient, and free.
# - It fails where the answer is a larger sum. A linear unit that has to add its inputs
#   cannot learn it; see exercise 1.
#
# The baselines, and the table: medians of five seeds.

nearest = KNeighborsClassifier(1).fit(x_train, y_train).score(x_test, y_test)
majority = np.bincount(y_test).max() / len(y_test)
print(f"majority class    accuracy {majority:.3f}")
print(f"nearest neighbor  accuracy {nearest:.3f}")
for (name, data, rate), values in losses.items():
    print(
        f"{name:16s} {data:12s} rate {rate:<5g} test loss {np.median(values):.3f}   "
        f"accuracy {np.median(hits[name, data, rate]):.3f}"
    )


def gain(data, rate):
    """Test loss of centralized SGD to that of SGD, median."""
    one, other = (losses[name, data, rate] for name in contenders)
    return np.median(other / one)


# %%
# The claims.


class Given(GradientCentralization):
    """Keeps what the inner optimizer is given."""

    def transform(self, gradient, variable):
        self.given = super().transform(gradient, variable)
        return self.given


kernel = keras.Variable(np.zeros((64, 32), "float32"), name="kernel")
gradient = np.random.default_rng(claims.seed()).normal(size=(64, 32))
probe = Given(sgd(0.1))
probe.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [kernel])
means = np.abs(keras.ops.convert_to_numpy(probe.given).mean(axis=0)).max()
claim("largest mean of a column of a centralized gradient of size 1", means, "<", 1e-7)
moved = np.abs(np.diff(sums["centralized SGD", "as they are", 0.1], axis=1)).max()
claim(
    "change of the sum of a unit's weights in an epoch of centralized SGD, largest",
    moved,
    "<",
    1e-4,
    seeds=len(seeds),
)
claim(
    "digits, rate 0.1: test loss of centralized SGD to that of SGD, median",
    gain("as they are", 0.1),
    "<",
    1.1,
    seeds=len(seeds),
)
claim(
    "digits, rate 0.03: test loss of centralized SGD to that of SGD, median",
    gain("as they are", 0.03),
    "<",
    1.0,
    seeds=len(seeds),
)
claim(
    "centered digits, rate 0.03: test loss of centralized SGD to SGD, gap to 1",
    abs(gain("centered", 0.03) - 1),
    "<",
    0.15,
    seeds=len(seeds),
)
claim(
    "SGD at rate 0.03: test loss with centered pixels to that with raw pixels, median",
    np.median(losses["SGD", "centered", 0.03] / losses["SGD", "as they are", 0.03]),
    "<",
    1.0,
    seeds=len(seeds),
)

# %%
# Try it
# ------
#
# 1. Let one linear unit without bias learn the sum of its four inputs, from zeros as
#    first weights, with and without centralization. What does each end with?
#
# .. dropdown:: Hint to 1
#
#    The wanted weights are :math:`(1, 1, 1, 1)`, a multiple of the direction that is
#    lost: centralized, they stay at zero.
#
# 2. Replace SGD by :class:`keras.optimizers.Adam`. Are the lines on the left still
#    level?
#
# .. dropdown:: Hint to 2
#
#    Adam divides each entry by its own root, after the mean was taken. A sum of zero
#    does not survive that.
#
# References
# ----------
# :cite:t:`yong2020centralization`, equation (1).

# sphinx_gallery_tags = ["optimizer", "introductory"]
