r"""
Stochastic weight averaging (SWA): the mean of SGD's last epochs beats the best of them
=======================================================================================

SGD with a constant learning rate never comes to rest: its weights keep moving around a
minimum. The usual remedy is to lower the learning rate. Stochastic weight averaging
leaves the rate high and takes the mean of the weights at the end of the last epochs,
which lies nearer to the middle of the minimum than any of them. It costs one copy of
the weights and nothing in prediction. Use it at the end of a training with SGD, above
all where the network would overfit; a network whose weights still move far (early in
training) has no minimum to average around. The callback
:class:`~dlcompanion.optimization.SWA` also renews the statistics of BatchNormalization,
which do not fit the averaged weights.

In your own model
-----------------

Add the callback; training ends with the averaged weights:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.optimization import SWA

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   hidden = [keras.layers.Dense(32), keras.layers.BatchNormalization()]
   model = keras.Sequential([keras.Input((5,)), *hidden, keras.layers.Dense(2)])
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
   average = SWA(start=5, data=x)  # from epoch 5 on; x renews BatchNormalization
   model.fit(x, y, epochs=8, callbacks=[average], verbose=0)  # ends with the average

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`.

Neighbors: :doc:`/gallery/optimization/plot_lookahead`,
:doc:`/gallery/uncertainty/plot_swag`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Near a minimum :math:`w^*`, SGD with a constant learning rate is a random walk on a
# spring. Its weights :math:`w_1, \dots, w_n` at the ends of epochs (here called stops)
# scatter around :math:`w^*` with some covariance :math:`\Sigma`. In many dimensions
# nearly all of them lie at a distance from :math:`w^*`, where the loss is higher. Their
# mean
#
# .. math::
#
#    \bar w = \frac1n \sum_{i=1}^n w_i
#
# has the covariance :math:`\Sigma / n` if the stops are independent, so it lies near
# the minimum. One thing has to be repaired: the running mean and variance of a
# BatchNormalization layer belong to the weights along the path; for :math:`\bar w` they
# are computed in one more pass over the data.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.optimization import SWA, refresh_batch_normalization
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())

# %%
# Handwritten digits, and every fifth training label replaced by a random one, so that a
# network can overfit by learning the wrong labels too. The test set is clean.

(x, y_clean), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EPOCHS, START, classes = 32, 16, int(y_clean.max()) + 1


def spoil(labels, rng):
    wrong = rng.random(len(labels)) < 0.2
    return np.where(wrong, rng.integers(0, classes, len(labels)), labels)


def network(learning_rate):
    hidden = [layers.Dense(64, use_bias=False), layers.BatchNormalization()]
    hidden += [layers.ReLU(), layers.Dense(64, use_bias=False)]
    hidden += [layers.BatchNormalization(), layers.ReLU()]
    model = keras.Sequential(
        [keras.Input((x.shape[-1],)), *hidden, layers.Dense(classes)]
    )
    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    model.compile(optimizer, cross_entropy)
    return model


def test_loss(model):
    return float(cross_entropy(y_test, model(x_test)))


# %%
# One callback keeps the stops, and the running statistics of the last one, with which
# the average will be tried, too.


class Stops(keras.callbacks.Callback):
    """Weights and test loss at the end of every epoch."""

    def on_train_begin(self, logs=None):
        self.weights, self.losses = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.losses.append(test_loss(self.model))
        self.weights.append(
            [keras.ops.convert_to_numpy(v) for v in self.model.trainable_variables]
        )
        self.statistics = [
            keras.ops.convert_to_numpy(v) for v in self.model.non_trainable_variables
        ]


def assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


# %%
# Five runs. Each is trained twice from the same weights, on the same labels, in the
# same order: at a constant rate with averaging over the second half, and with a rate
# that falls to zero along a cosine, as one usually does.


steps = EPOCHS * -(-len(x) // 32)
model = network(0.3)
cooled = network(keras.optimizers.schedules.CosineDecay(0.3, steps))


def run(seed):
    y = spoil(y_clean, np.random.default_rng(seed))
    stops, swa = Stops(), SWA(start=START, data=x)
    restart(model, seed)
    first = model.get_weights()
    fit = {"batch_size": 32, "epochs": EPOCHS, "verbose": 0, "seed": seed}
    fit_in_memory(model, x, y, callbacks=[stops, swa], **fit)
    result = {"last": stops.losses[-1], "average": test_loss(model)}
    result["best of the stops"] = np.min(stops.losses[START:])
    assign(model.non_trainable_variables, stops.statistics)
    result["average, stale statistics"] = test_loss(model)

    restart(cooled, weights=first)
    fit_in_memory(cooled, x, y, **fit)
    result["cosine"] = test_loss(cooled)
    return result, stops, swa


runs = [run(seed) for seed in claims.seeds(5)]
results = {key: np.array([r[0][key] for r in runs]) for key in runs[0][0]}
for key, values in results.items():
    print(f"{key:26s} {np.median(values):.3f}  ({values.min():.3f}-{values.max():.3f})")
print(f"{'ten equal guesses':26s} {np.log(classes):.3f}")

# %%
# What it looks like
# ------------------
#
# Left, a plane through the average and the two directions in which the stops of the
# first run scatter most. The background has the color of the test loss there, with
# statistics computed for it; every stop has the color of its own test loss, and is
# projected to the plane. Right, a straight line from the last stop
# (:math:`t = 0`) through the average (:math:`t = 1`) and beyond, for all five runs.

_, stops, swa = runs[0]


def loss_at(vector):
    """Test loss at a point of weight space, with statistics of its own."""
    shapes = [v.shape for v in model.trainable_variables]
    ends = np.cumsum([np.prod(shape) for shape in shapes])[:-1]
    parts = np.split(vector.astype("float32"), ends)
    parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    assign(model.trainable_variables, parts)
    refresh_batch_normalization(model, x, batch_size=len(x))
    return test_loss(model)


def flat(weights):
    return np.concatenate([np.ravel(w) for w in weights]).astype("float64")


path = np.array([flat(w) for w in stops.weights])  # (epochs, weights)
center = flat(swa.average)
directions = np.linalg.svd(path[START:] - center, full_matrices=False)[2][:2]
trail = (path - center) @ directions.T  # (epochs, 2)
reach = 1.25 * np.abs(trail[START:]).max()
grid = np.linspace(-reach, reach, 9)
surface = [
    [loss_at(center + np.array([a, b]) @ directions) for a in grid] for b in grid
]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
levels = np.linspace(0.2, 0.9, 29)
filled = left.contourf(grid, grid, surface, levels, cmap="viridis_r", extend="both")
figure.colorbar(filled, ax=left, label="test loss", ticks=levels[::4])
left.plot(*trail.T, color="white", lw=0.8, alpha=0.7)
marks = {"cmap": filled.cmap, "norm": filled.norm, "edgecolors": "white"}
left.scatter(*trail[START:].T, c=stops.losses[START:], s=60, **marks, label="stops")
left.scatter(*trail[-1], s=160, facecolors="none", edgecolors="red", label="last stop")
left.scatter(0, 0, marker="*", c="gold", s=260, edgecolors="black", label="average")
left.set(xlim=(-reach, reach), ylim=(-reach, reach), title="A plane of weight space")
left.set(xlabel="first direction of the stops", ylabel="second direction")
left.legend(loc="upper right", fontsize="small")

line = np.linspace(-0.25, 2.0, 10)
for number, (_, seen, averager) in enumerate(runs):
    last, mean = flat(seen.weights[-1]), flat(averager.average)
    profile = [loss_at(last + t * (mean - last)) for t in line]
    right.plot(line, profile, label=f"run {number}")
right.axvline(0, color="tab:red", ls=":")
right.axvline(1, color="goldenrod", ls=":")
right.set(xlabel="t, from the last stop to the average", ylabel="test loss")
right.set(title="From the last stop through the average")
right.legend(fontsize="small")
# alt: Left, map of the test loss on a plane of weights, with the epochs of SGD as dots
# and their average as a star; right, test loss on a line from the last epoch through
# the average: lowest near the average, for five runs.
plt.show()

# %%
# What to notice
# --------------
#
# - On the plane the path is a slow drift from one side to the other. The stops have a
#   higher loss than the plane below them, because they are not *on* it: most of the
#   noise is in the thousands of directions that the figure does not show, and the
#   average removes it.
# - The loss on the plane is lowest between the first stops and the average: the longer
#   SGD runs, the more wrong labels it learns.
# - On the line the loss falls from the last stop to the average and rises again
#   behind it. Which stop comes last is chance; the average depends on it much less.
# - New statistics improve the last stop, too: compare the curves at :math:`t = 0` with
#   the table. The greater part of the gain is the averaging.
# - Averaging weights is not averaging predictions (an ensemble). It costs nothing in
#   prediction, and it works because the stops lie in the same valley of the loss.
# - The average with the old statistics of BatchNormalization loses a good part of the
#   gain.
#
# The claims. The baselines are what one would have had without the callback: the
# last stop of the same run, and the same training with a learning rate that falls.

largest = max(
    np.abs(
        np.mean([w[n] for w in seen.weights[START:]], axis=0, dtype="float64") - mean
    ).max()
    for _, seen, averager in runs
    for n, mean in enumerate(averager.average)
)
claim(
    "weights of SWA against the arithmetic mean of the epochs', largest gap",
    largest,
    "<",
    1e-6,
)
claim(
    "test loss of SWA to that of the last epoch, worst run",
    np.max(results["average"] / results["last"]),
    "<",
    0.95,
    seeds=5,
)
claim(
    "test loss of SWA to that of the best epoch averaged, median",
    np.median(results["average"] / results["best of the stops"]),
    "<",
    1.0,
    seeds=5,
)
claim(
    "test loss of SWA to that of cosine decay, median",
    np.median(results["average"] / results["cosine"]),
    "<",
    1.0,
    seeds=5,
)
claim(
    "test loss of SWA, fresh to stale BatchNormalization statistics, median",
    np.median(results["average"] / results["average, stale statistics"]),
    "<",
    0.95,
    seeds=5,
)

# %%
# Try it
# ------
#
# 1. Train on the clean labels. Which of the claims still hold, and by how much?
#
# .. dropdown:: Hint to 1
#
#    Replace ``y = spoil(...)`` by ``y = y_clean``.
#
# 2. Average only two epochs, the last and the one before. How much of the gain is there
#    already, and what does :math:`\Sigma / n` say about it?
#
# .. dropdown:: Hint to 2
#
#    ``SWA(start=EPOCHS - 2, data=x)``: half of the variance is gone if the two are
#    independent.
#
# 3. Give ``SWA`` a cyclic rate, ``every=4`` and ``learning_rate=lambda epoch: 0.3 / (1
#    + epoch % 4)``. Are four good epochs worth more than sixteen bad ones?
#
# .. dropdown:: Hint to 3
#
#    Snapshots are taken at the end of a cycle, where the rate is smallest.
#
# References
# ----------
# :cite:t:`izmailov2018averaging`, algorithm 1. The older idea: Polyak and
# Juditsky, *Acceleration of Stochastic Approximation by Averaging*, SIAM J. Control
# Optim. 30(4), 1992.

# sphinx_gallery_tags = ["callback", "introductory"]
