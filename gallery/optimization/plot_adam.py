r"""
Adam: steps that do not depend on the scale of the gradient, and where that fails
=================================================================================

The gradients of a network differ a lot in size, from layer to layer and from feature to
feature, so one learning rate is too large for some weights and too small for others.
Adam divides the gradient of every weight by its own recent size. A step is then about
as long as the learning rate, whatever the scale of the loss or of the inputs. Use it
as the default when you have no time to tune. On well-scaled data SGD with momentum is
often as good, and there are problems on which Adam goes the wrong way, as the last
experiment of this page shows.

In your own model
-----------------

Name it, or set the learning rate; 0.001 is where most people start:

.. code-block:: python

   import keras
   import numpy as np

   x = np.random.normal(size=(300, 5)).astype("float32")
   y = (x[:, 0] > 0).astype("int32")
   model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
   optimizer = keras.optimizers.Adam(0.001, beta_1=0.9, beta_2=0.999)
   loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
   model.compile(optimizer, loss)
   model.fit(x, y, epochs=3, verbose=0)

Prerequisites: :doc:`/gallery/optimization/plot_momentum`.

Neighbors: :doc:`/gallery/optimization/plot_lookahead`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# Adam keeps two moving averages for each weight, of the gradient :math:`g` and of its
# square:
#
# .. math::
#
#    m_t = \beta_1 m_{t-1} + (1 - \beta_1)\, g_t, \qquad
#    v_t = \beta_2 v_{t-1} + (1 - \beta_2)\, g_t^2 .
#
# Both start at zero and are too small at first. The *bias correction* divides by what
# is missing, and the step is
#
# .. math::
#
#    \hat m_t = \frac{m_t}{1 - \beta_1^t}, \quad
#    \hat v_t = \frac{v_t}{1 - \beta_2^t}, \quad
#    \theta_t = \theta_{t-1} - \eta\,\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon}
#
# :cite:p:`kingma2015adam` (algorithm 1). In the first step :math:`\hat m = g` and
# :math:`\hat v = g^2`: every weight moves by :math:`\eta` against the sign of its
# gradient. Without the correction it would move by
# :math:`(1-\beta_1)/\sqrt{1-\beta_2} = 3.2` times as much.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.neighbors import KNeighborsClassifier

from dlcompanion import backend, claims, datasets
from dlcompanion.claims import claim
from dlcompanion.training import (
    evaluate_members,
    fit_in_memory,
    member_orders,
    restart,
)

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())


def follow(optimizer, gradient, start, steps, limit=None):
    """The path of an optimizer, ``(steps + 1, *start.shape)``."""
    theta = keras.Variable(np.asarray(start, "float32"))
    optimizer.build([theta])

    @backend.compile
    def move(gradient):
        optimizer.apply([gradient], [theta])
        if limit:
            theta.assign(ops.clip(theta, -limit, limit))
        return ops.convert_to_tensor(theta)

    path = [np.asarray(start, "float32")]
    for step in range(steps):
        g = np.asarray(gradient(path[-1], step), "float32")
        path.append(ops.convert_to_numpy(move(ops.convert_to_tensor(g))).copy())
    return np.array(path)


# %%
# Gradients of very different sizes: the first step has the same length for all. And a
# loss multiplied by a thousand changes nothing.

sizes = 10 ** rng.uniform(-1, 3, size=1000) * rng.choice([-1, 1], size=1000)
sizes = sizes.astype("float32")
first = follow(keras.optimizers.Adam(0.01), lambda x, t: sizes, np.zeros(1000), 1)[1]
first_step = np.max(np.abs(first / (-0.01 * np.sign(sizes)) - 1))

curvature = np.geomspace(1, 100, 20)
start = rng.normal(size=20)
paths = [
    follow(
        keras.optimizers.Adam(0.01),
        lambda x, t, scale=scale: scale * curvature * x,
        start,
        100,
    )
    for scale in (1, 1000)
]
scaled = np.max(np.abs(paths[0] - paths[1]))

# %%
# The digits, as they are and with every pixel in another unit: each of the 64 inputs is
# multiplied by its own factor between 1/30 and 30. Five small networks stand side by
# side in one model; each optimizer is tried at five or six learning rates.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
members, epochs, batch = 5, 6, 32
units = (30 ** rng.uniform(-1, 1, size=x_train.shape[-1])).astype("float32")
dense = keras.layers.EinsumDense
model = keras.Sequential(
    [
        keras.Input((members, x_train.shape[-1])),
        dense("bmi,mio->bmo", (members, 32), bias_axes="mo", activation="relu"),
        dense("bmi,mio->bmo", (members, int(y_train.max()) + 1), bias_axes="mo"),
    ]
)
orders = member_orders(len(x_train), members, epochs, rng)
optimizers = {
    "SGD, momentum": keras.optimizers.SGD(0.1, momentum=0.9),
    "Adam": keras.optimizers.Adam(),
}
learning_rates = {
    "SGD, momentum": 0.0005 * 4.0 ** np.arange(6),
    "Adam": 0.0004 * 4.0 ** np.arange(5),
}
losses, hits = {}, {}
for name, rates in learning_rates.items():
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers[name], cross_entropy)
    for scale_name, scale in {"as they are": 1.0, "other units": units}.items():
        for rate in rates:
            restart(model, claims.seed())
            # SGD sees a fifth of a network's gradient, Adam's step is the same
            share = members if name != "Adam" else 1
            model.optimizer.learning_rate = share * rate
            fit_in_memory(
                model,
                (x_train * scale)[orders],
                y_train[orders],
                batch_size=batch,
                shuffle=False,
                verbose=0,
            )
            key = name, scale_name, rate
            losses[key], hits[key] = evaluate_members(model, x_test * scale, y_test)

# %%
# And a problem that Adam gets wrong :cite:p:`reddi2018convergence`. One weight between
# -1 and 1 has the loss :math:`3\theta` in every third step and :math:`-\theta` in the
# other two. The mean slope is positive, so -1 is best. But Adam divides the rare large
# gradient by its size and the frequent small ones by theirs, and two small steps are
# longer than one. AMSGrad keeps the largest :math:`\hat v` so far, and so forgets no
# large gradient.


def gradient(x, step):
    return np.full(x.shape, 3.0 if step % 3 == 0 else -1.0)


starts = rng.uniform(-1, 1, size=5)
wrong = {
    name: follow(
        keras.optimizers.Adam(0.01, beta_1=0.0, beta_2=0.1, amsgrad=amsgrad),
        gradient,
        starts,
        900,
        limit=1,
    )
    for name, amsgrad in [("Adam", False), ("AMSGrad", True)]
}

# %%
# Left, test loss against the learning rate: each line is the median of five networks,
# solid for the digits as they are, dashed in other units. Right, the five starts of the
# last experiment.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
for color, (name, rates) in zip(["C1", "C0"], learning_rates.items(), strict=True):
    for line, data in [("o-", "as they are"), ("s--", "other units")]:
        middle = [np.median(losses[name, data, rate]) for rate in rates]
        left.plot(rates, middle, line, color=color, ms=4, label=f"{name}, {data}")
left.axhline(np.log(y_train.max() + 1), color="0.5", ls=":", label="even guess")
left.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="test loss")
left.set_ylim(0.07, 3)
left.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
left.minorticks_off()
left.legend(fontsize="small")
for color, (name, path) in zip(["C0", "C2"], wrong.items(), strict=True):
    right.plot(path, color=color, lw=1)
    right.plot([], [], color=color, label=name)
right.axhline(-1, color="0.5", ls=":", label="best")
right.set(xlabel="step", ylabel="weight", ylim=(-1.1, 1.1))
right.legend(loc="center right")
# alt: Left, test loss against the learning rate: in other units the best rate of SGD
# with momentum is many times smaller, that of Adam hardly moves; right, five weights
# that Adam carries to 1 and AMSGrad towards the best value, -1.
plt.show()

# %%
# What to notice
# --------------
#
# - When the units of the inputs change, SGD needs another learning rate and still
#   learns less. Adam keeps its rate. This is what adaptive rates are for: text, tables,
#   layers of different kinds, anything where gradients differ in size.
# - Both lose against the digits as they are. Adam adapts to single weights; it cannot
#   undo that 32 hidden units now see mostly the loud pixels. Standardizing the inputs
#   is better than any optimizer.
# - On the digits as they are, SGD with momentum at its best rate is about as good.
# - Keras adds :math:`\epsilon` before the bias correction (the paper's
#   :math:`\hat\epsilon`), so gradients below about :math:`10^{-5}` take shorter steps
#   at the start.
# - When it fails: if large gradients are rare, Adam may drift against the mean
#   gradient. ``amsgrad=True`` repairs the example. A large ``beta_2`` makes it
#   unlikely.
#
# The baselines, then the claims. The nearest neighbor does not like other units either.

for data, scale in {"as they are": 1.0, "other units": units}.items():
    nearest = KNeighborsClassifier(1).fit(x_train * scale, y_train)
    print(
        f"nearest neighbor, {data}   accuracy "
        f"{nearest.score(x_test * scale, y_test):.3f}"
    )
best_rate, best_loss = {}, {}
for name, rates in learning_rates.items():
    for data in ("as they are", "other units"):
        rate = min(rates, key=lambda r: np.median(losses[name, data, r]))
        best_rate[name, data], best_loss[name, data] = rate, losses[name, data, rate]
        print(
            f"{name}, {data}   accuracy {np.median(hits[name, data, rate]):.3f}   "
            f"test loss {np.median(best_loss[name, data]):.3f}   at rate {rate:g}"
        )
kept = {  # what it costs to keep the learning rate when the units change
    name: np.median(losses[name, "other units", best_rate[name, "as they are"]])
    / np.median(best_loss[name, "other units"])
    for name in optimizers
}

# %%
# The claims.

claim(
    "first step of Adam to rate times sign of the gradient, largest relative gap",
    first_step,
    "<",
    1e-4,
)
claim(
    "weights after 100 steps of Adam, loss times 1 and times 1000, largest gap",
    scaled,
    "<",
    1e-4,
)
claim(
    "SGD with momentum, pixels in other units: test loss at the old rate to the best",
    kept["SGD, momentum"],
    ">",
    1.5,
    seeds=members,
)
claim(
    "Adam, pixels in other units: test loss at the old rate to the best",
    kept["Adam"],
    "<",
    2.2,
    seeds=members,
)
claim(
    "pixels in other units: best test loss of Adam to that of SGD, median",
    np.median(best_loss["Adam", "other units"])
    / np.median(best_loss["SGD, momentum", "other units"]),
    "<",
    0.9,
    seeds=members,
)
claim(
    "pixels as they are: best test loss of Adam to that of SGD, median",
    np.median(best_loss["Adam", "as they are"])
    / np.median(best_loss["SGD, momentum", "as they are"]),
    "<",
    1.5,
    seeds=members,
)
claim(
    "counterexample, best at -1: weight after 900 steps of Adam, least",
    np.min(wrong["Adam"][-1]),
    ">",
    0.9,
    seeds=5,
)
claim(
    "counterexample, best at -1: way of AMSGrad in 900 steps, largest",
    np.max(wrong["AMSGrad"][-1] - wrong["AMSGrad"][0]),
    "<",
    0.0,
    seeds=5,
)

# %%
# Try it
# ------
#
# 1. Standardize the digits in other units (subtract the mean, divide by the standard
#    deviation of each pixel). Who gains more?
#
# .. dropdown:: Hint to 1
#
#    Pixels that are always empty have a standard deviation of zero; add a small number.
#
# 2. In the counterexample, raise ``beta_2`` to 0.9. Where does the weight go now?
#
# .. dropdown:: Hint to 2
#
#    :math:`\hat v` is then nearly the same in all three steps, and the large gradient
#    counts as much as it should.
#
# 3. Set ``epsilon`` of Adam to 1. Which optimizer is it now?
#
# .. dropdown:: Hint to 3
#
#    Where :math:`\sqrt{\hat v}` is small against :math:`\epsilon`, the step is
#    :math:`\eta \hat m`: SGD with momentum.
#
# References
# ----------
# :cite:t:`kingma2015adam`, algorithm 1; :cite:t:`reddi2018convergence`, section 3.

# sphinx_gallery_tags = ["optimizer", "introductory"]
