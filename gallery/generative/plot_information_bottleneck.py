r"""
Information bottleneck: tanh networks compress, and the bins are to blame
=========================================================================

The information bottleneck asks of a representation that it keeps what tells the answer
and forgets the rest, measured by mutual information. In 2017 the information plane
seemed to show that networks do so by themselves: first they fit, then they forget their
input. A year later it was shown that with ReLU nothing is forgotten, and that with tanh
it is the estimate that moves: the activations saturate, and coarse bins no longer tell
them apart. This page measures information where it is known, repeats the experiment,
and repeats it with finer bins. A compression that is one is noisy and paid for, as in
:class:`~dlcompanion.generative.VariationalBottleneck`, a regularizer (regulariser).

In your own model
-----------------

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.generative import VariationalBottleneck

   rng = np.random.default_rng(0)
   x, y = rng.normal(size=(256, 20)).astype("float32"), rng.integers(3, size=256)
   code = VariationalBottleneck(8, beta=1e-2)  # noisy; adds its loss to the model's
   model = keras.Sequential([code, keras.layers.Dense(3, "softmax")])
   model.compile("adam", "sparse_categorical_crossentropy")
   model.fit(x, y, epochs=2, verbose=0)

Prerequisites: :doc:`/gallery/generative/plot_variational_autoencoder`. Notation:
:doc:`/notation`.
"""

# %%
# The idea
# --------
#
# The information of :math:`X` about :math:`T` is what knowing one saves in describing
# the other, and a representation :math:`T` of an input :math:`X` should
#
# .. math::
#
#    \max_{p(t \mid x)} \; I(T; Y) - \beta\, I(X; T), \qquad
#    I(X; T) = H(T) - H(T \mid X) .
#
# A network without noise has :math:`H(T \mid X) = 0`. So :math:`I(X; T) = H(T)`, and if
# no two inputs meet in one point, that is all there is, for ever. To see anything move
# one has to bin the activations, and then one sees the activations *and* the bins.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import claims
from dlcompanion.claims import claim
from dlcompanion.datasets import digits
from dlcompanion.generative import (
    DonskerVaradhanEstimator,
    InfoNCEEstimator,
    InformationPlane,
    VariationalBottleneck,
)
from dlcompanion.generative.information_bottleneck import (
    binned_information,
    discrete_information,
)
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# Information that is known
# -------------------------
#
# A wire that flips a bit with probability :math:`e` passes on
# :math:`1 - h(e)` bits; counting 80,000 of them finds it.

errors = np.array([0.01, 0.05, 0.11, 0.2, 0.35, 0.5])
exact = 1 + sum(q * np.log2(q) for q in (errors, 1 - errors))
sent = rng.integers(0, 2, 80_000)
counted = [
    discrete_information(sent, sent ^ (rng.random(len(sent)) < e)) for e in errors
]
channel = np.abs(counted - exact)

# %%
# Numbers cannot be counted. A network can be trained to tell true pairs from shuffled
# ones, and how well it does bounds the information from below, in nats. Eight
# correlated pairs of normal variables, of known information, and two bounds: the one of
# Donsker and Varadhan, and InfoNCE, which has to pick the partner out of a batch of 64.

BATCH, PAIRS, STEPS = 64, 4, 300
levels = np.array([0.5, 1.0, 2.0, 6.0])


def normals(information, n):
    rho = np.sqrt(1 - np.exp(-2 * information / PAIRS))
    x, noise = rng.normal(size=(2, n, PAIRS))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    return x.astype("float32"), y.astype("float32")


def critic():
    return keras.Sequential(
        [
            keras.Input((2 * PAIRS,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1),
        ]
    )


estimates = {}
for make in (DonskerVaradhanEstimator, InfoNCEEstimator):
    estimator = make(critic())
    rate = keras.optimizers.schedules.CosineDecay(4e-3, STEPS)
    estimator.compile(keras.optimizers.Adam(rate))
    estimator.build([(None, PAIRS), (None, PAIRS)])
    start, found = estimator.get_weights(), []
    for level in levels:
        restart(estimator, weights=start)
        pairs = list(normals(level, STEPS * BATCH))
        fit_in_memory(estimator, pairs, batch_size=BATCH, verbose=0)
        found.append(estimator.estimate(*normals(level, 3_200), batch_size=BATCH))
    estimates[make.__name__] = np.array(found)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
e = np.linspace(1e-4, 0.5, 200)
left.plot(e, 1 + e * np.log2(e) + (1 - e) * np.log2(1 - e), color="0.5", label="exact")
left.plot(errors, counted, "o", label="counted")
left.set(xlabel="share of flipped bits", ylabel="information (bits)")
left.legend()
right.plot(levels, levels, color="0.5", label="exact")
for name, found in estimates.items():
    right.plot(levels, found, "o-", label=name.removesuffix("Estimator"))
right.axhline(np.log(BATCH), color="0.5", ls=":", label="log 64")
right.set(xlabel="information (nats)", ylabel="estimate (nats)")
right.legend()
# alt: Left, information of a binary channel, counted dots on the exact curve; right,
# two estimates against the exact information: InfoNCE levels off below log 64.
plt.show()

# %%
# The experiment of 2017
# ----------------------
#
# Twelve bits, 4,096 inputs, all of them known; the label is the sign of a random
# quadratic form. Five hidden layers of 10, 7, 5, 4 and 3 units. Five networks at once:
# a layer holds the weights of all five side by side, and with Adam none feels the
# others. Activations are binned as in the paper, 30 bins between -1 and 1. ReLU has no
# upper end, so it is measured twice: in bins of the same width, and in 30 bins up to
# the largest activation of the moment.

SEEDS, EPOCHS, UNITS = 5, 100, [10, 7, 5, 4, 3]
x = np.array(np.meshgrid(*[[-1.0, 1.0]] * 12)).reshape(12, -1).T.astype("float32")
score = np.einsum("ni,ij,nj->n", x, rng.normal(size=(12, 12)), x)
score += 3 * x @ rng.normal(size=12)
y = (score > np.median(score)).astype("int32")
names = [[f"seed{s}_layer{i}" for i in range(5)] for s in range(SEEDS)]
every = [name for row in names for name in row]
epochs = sorted({round(e) for e in np.geomspace(1, EPOCHS, 10)})


def five_networks(activation):
    """The networks side by side: weights of shape (seed, in, out)."""
    inputs = keras.Input((12,))
    h, before = keras.layers.RepeatVector(SEEDS)(inputs), 12
    for i, units in enumerate([*UNITS, 1]):
        last = i == len(UNITS)
        h = keras.layers.EinsumDense(
            "bsi,sio->bso",
            (SEEDS, units),
            bias_axes="so",
            activation="sigmoid" if last else activation,
            kernel_initializer=keras.initializers.RandomNormal(stddev=before**-0.5),
        )(h)
        before = units
        if not last:  # by name, so that the callback finds each network's layer
            parts = [
                keras.layers.Identity(name=names[s][i])(h[:, s]) for s in range(SEEDS)
            ]
            h = ops.stack(parts, axis=1)
    return keras.Model(inputs, h)


histories, accuracy = {}, {}
for activation in ("tanh", "relu"):
    keras.utils.set_random_seed(claims.seed())
    model = five_networks(activation)
    model.compile(
        keras.optimizers.Adam(3e-3), "binary_crossentropy", metrics=["accuracy"]
    )
    if activation == "tanh":
        tanh = model
        planes = {"tanh": InformationPlane(x, y, every, -1, 1, epochs=epochs)}
    else:
        planes = {
            "ReLU, same width": InformationPlane(
                x, y, every, 0, 200, bins=3_000, epochs=epochs
            ),
            "ReLU, 30 bins": InformationPlane(x, y, every, low=0, epochs=epochs),
        }
    log = fit_in_memory(
        model, x, np.tile(y[:, None, None], (1, SEEDS, 1)), batch_size=256,
        epochs=EPOCHS, verbose=0, callbacks=list(planes.values()),
    )  # fmt: skip
    accuracy[activation] = log.history["accuracy"][-1]
    for name, plane in planes.items():
        values = np.array([v for _, v in plane.history])  # (epoch, seed * layer, 2)
        histories[name] = values.reshape(len(epochs), SEEDS, 5, 2)

# %%
# The picture that made the story, for the first network of each kind: a dot is a layer
# at an epoch, dark is early and bright is late, and the deepest layer is drawn with a
# line. Below, the information of the deepest layer about the input in all five.

figure, axes = plt.subplots(
    2, 3, figsize=(10, 6), layout="constrained", sharey="row", height_ratios=(1, 0.9)
)
for (top, low), (name, values) in zip(axes.T, histories.items(), strict=True):
    for layer in range(5):
        top.scatter(
            *values[:, 0, layer].T, c=np.arange(len(epochs)), s=18, cmap="inferno"
        )
    top.plot(*values[:, 0, 4].T, color="0.6", lw=0.8, zorder=0)
    top.set(xlabel="I(X; T) (bits)", title=name, xlim=(0, 12.5))
    low.plot(epochs, values[:, :, 4, 0], color="C0", lw=1)
    low.set(xscale="log", xlabel="epoch", ylim=(0, 12.5))
axes[0, 0].set_ylabel("I(T; Y) (bits)")
axes[1, 0].set_ylabel("I(X; T), deepest layer")
# alt: Three information planes over the information of the deepest layer by epoch: with
# tanh it falls by several bits, with ReLU in bins of equal width it does not fall.
plt.show()

# %%
# Now only the ruler is changed. The same tanh networks, before and after training, the
# deepest layer, and bins from coarse to very fine.

inside = keras.Model(
    tanh.inputs, [tanh.get_layer(names[s][4]).output for s in range(SEEDS)]
)
bins = [3, 10, 30, 100, 1_000, 10_000, 1_000_000]


def by_bins(model):
    layers = model.predict(x, batch_size=len(x), verbose=0)
    return np.array(
        [[binned_information(t, y, -1, 1, b)[0] for b in bins] for t in layers]
    )


after = by_bins(inside)
trained = tanh.get_weights()
keras.utils.set_random_seed(claims.seed())
tanh.set_weights(five_networks("tanh").get_weights())
before = by_bins(inside)
tanh.set_weights(trained)
saturated = [
    float((np.abs(t) > 1 - 1 / 15).mean())
    for t in inside.predict(x, batch_size=len(x), verbose=0)
]

figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for found, color, label in ((before, "0.6", "before"), (after, "C3", "after")):
    lines = axis.plot(bins, found.T, color=color, lw=1)
    lines[0].set_label(f"{label} training")
axis.axhline(12, color="0.5", ls=":")
axis.set(xscale="log", xlabel="bins", ylabel="I(X; T), deepest layer (bits)")
axis.legend()
# alt: Information of the deepest tanh layer against the number of bins: after training
# lower than before in coarse bins, equal in a million bins.
plt.show()

# %%
# A bottleneck that is one
# ------------------------
#
# On digits, with a code of eight numbers that is drawn, not computed. Its divergence
# from a fixed normal is an upper bound of its information about the image, and the
# price :math:`\beta` pushes it down. A classifier of ten digits needs
# :math:`\ln 10 = 2.3` nats.

(x_train, y_train), (x_test, y_test) = digits(flat=True, seed=claims.seed())
pixels, classes = x_train.shape[-1], int(y_train.max()) + 1
priced = {}
for beta in (1e-4, 0.1):
    keras.utils.set_random_seed(claims.seed())
    bottleneck = VariationalBottleneck(8, beta=beta)
    body = keras.Sequential([keras.Input((pixels,)), keras.layers.Dense(64, "relu")])
    network = keras.Sequential([body, bottleneck, keras.layers.Dense(classes)])
    network.compile(
        keras.optimizers.Adam(5e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    fit_in_memory(network, x_train, y_train, batch_size=96, epochs=60, verbose=0)
    rates = ops.convert_to_numpy(bottleneck.rate(body(x_test)))
    hit = network.predict(x_test, verbose=0).argmax(axis=1) == y_test
    priced[beta] = float(rates.mean()), float(hit.mean())

print("price      rate (nats)   test accuracy")
for beta, (nats, hit) in priced.items():
    print(f"{beta:<10g}{nats:12.2f}{hit:16.3f}")

# %%
# What to notice
# --------------
#
# - Counting recovers the channel. The bound of Donsker and Varadhan follows the truth
#   up to 6 nats here; InfoNCE falls behind from 2 on and cannot pass
#   :math:`\log 64 = 4.2`.
# - The tanh networks do what the picture promised: while they learn the label, the
#   deepest layer loses bits. It is real, as a statement about bins of width 0.07.
# - ReLU in bins of that width keeps its bits. In 30 bins up to its largest activation
#   it may lose some, because the largest activation grows and the bins grow with it.
#   Two rulers, two stories, one network.
# - In a million bins the trained tanh layer has as much information about its input as
#   the untrained one. Nothing was forgotten; the activations saturate near -1 and 1,
#   where coarse bins cannot tell them apart.
# - The bottleneck with noise cannot lose information by a choice of bins, nor keep it
#   by having none: its rate is a property of the code.

deepest = {name: values[:, :, 4, 0] for name, values in histories.items()}
fall = {name: v.max(axis=0) - v[-1] for name, v in deepest.items()}
print("bits lost by the deepest layer, from its highest point to the end, 5 seeds")
for name, values in fall.items():
    print(f"{name:18s}", *(f"{v:6.2f}" for v in values))
lost_fine = before[:, -1] - after[:, -1]
print("before - after training, a million bins", *(f"{v:6.2f}" for v in lost_fine))
print("share of saturated activations", *(f"{s:5.2f}" for s in saturated))
print("accuracy:", {k: round(float(v), 3) for k, v in accuracy.items()})
print("estimates:", {k: v.round(2).tolist() for k, v in estimates.items()})

claim(
    "information of six binary channels by counting 80,000 bits, largest error",
    channel.max(), "<", 0.02, unit="bit",
)  # fmt: skip
dv, nce = estimates.values()
claim(
    "Donsker-Varadhan and InfoNCE on normals of up to 2 nats, largest error",
    np.abs(np.stack([dv, nce])[:, :3] - levels[:3]).max(), "<", 0.4, unit="nats",
)  # fmt: skip
claim(
    "InfoNCE on normals of 6 nats, against the logarithm of the batch size",
    nce[-1], "<=", np.log(BATCH), unit="nats",
)  # fmt: skip
claim(
    "tanh, 30 bins: bits that the deepest layer loses by the end of training, median",
    np.median(fall["tanh"]), ">", 0.7, unit="bits", seeds=SEEDS,
)  # fmt: skip
claim(
    "ReLU, bins of that width: bits that the deepest layer loses by the end, median",
    np.median(fall["ReLU, same width"]), "<", 0.5, unit="bits", seeds=SEEDS,
)  # fmt: skip
claim(
    "tanh, a million bins: bits that the deepest layer lost by training, median",
    np.median(lost_fine), "<", 0.5, unit="bits", seeds=SEEDS,
)  # fmt: skip
claim(
    "variational bottleneck on digits: rate at beta 0.1 to that at 0.0001",
    priced[0.1][0] / priced[1e-4][0], "<", 0.5,
)  # fmt: skip
claim(
    "variational bottleneck on digits: test accuracy at beta 0.0001 less that at 0.1",
    priced[1e-4][1] - priced[0.1][1], "<", 0.05,
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Add a penalty on the weights of the tanh networks. Do they still compress? What
#    does that say about the cause?
# 2. Give InfoNCE a batch of 1,024. What happens to the estimate at 6 nats, and to the
#    time of a step?
#
# .. dropdown:: Hint to 1
#
#    ``kernel_regularizer="l2"`` in ``EinsumDense``. Small weights keep the activations
#    out of the corners, where bins cannot tell them apart.
#
# .. dropdown:: Hint to 2
#
#    The bound is :math:`\log 1024 = 6.9` nats, so the estimate may rise; the critic
#    sees every pair of the batch, which is 256 times as many.
#
# References
# ----------
# The bottleneck is that of :cite:t:`tishby1999information`, the picture that of
# :cite:t:`shwartzziv2017opening`, the rebuttal that of :cite:t:`saxe2018information`.
# The learned bounds are those of :cite:t:`belghazi2018mutual` and
# :cite:t:`oord2018representation`, the layer that of :cite:t:`alemi2017deep`.

# sphinx_gallery_thumbnail_number = 2
# sphinx_gallery_tags = ["layer", "callback", "intermediate"]
