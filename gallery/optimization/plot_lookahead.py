r"""
Lookahead forgives a learning rate that is too large
====================================================

Every optimizer has a learning rate that is nearly too large: steps that cross the
valley instead of walking down it, weights that rattle around the minimum and never
settle. :class:`~dlcompanion.optimization.Lookahead` wraps the optimizer you have,
lets it run ahead for :math:`k` steps, and then moves only a part of the way to
where it arrived. This page measures what that buys, and what half the learning
rate would have bought for nothing.

Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
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

from dlcompanion import datasets
from dlcompanion.claims import claim
from dlcompanion.optimization import Lookahead

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)

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

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True)
members, epochs = 5, 12


def five_networks():
    keras.utils.set_random_seed(0)
    dense = keras.layers.EinsumDense
    return keras.Sequential(
        [
            keras.Input((members, 64)),
            dense("bmi,mio->bmo", (members, 32), bias_axes="mo", activation="relu"),
            dense("bmi,mio->bmo", (members, 10), bias_axes="mo"),
        ]
    )


def new_order():
    return np.stack([rng.permutation(len(x_train)) for _ in range(members)], axis=1)


orders = np.concatenate([new_order() for _ in range(epochs)])  # (examples, members)


def train(optimizer):
    """Test loss and test accuracy of the five, one number a member."""
    model = five_networks()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    x, y = x_train[orders], y_train[orders]
    model.fit(x, y, batch_size=32, shuffle=False, verbose=0)
    logits = model.predict(np.repeat(x_test[:, None], members, 1), verbose=0)
    log_p = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits))
    nll = -np.take_along_axis(log_p, y_test[:, None, None], axis=2)[..., 0]
    hits = logits.argmax(axis=2) == y_test[:, None]
    return nll.mean(axis=0), hits.mean(axis=0)


adam = keras.optimizers.Adam
contenders = {
    "Adam": lambda rate: adam(rate),
    "Lookahead(Adam)": lambda rate: Lookahead(adam(rate)),
    "Adam, half the rate": lambda rate: adam(rate / 2),
}
rates = [0.001, 0.01, 0.03, 0.1]
runs = {name: [train(make(r)) for r in rates] for name, make in contenders.items()}
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
plt.show()

# %%
# What to notice
# --------------
#
# - On the walkers the formula holds to the noise of the measurement. A larger
#   :math:`k` calms more, but only until SGD has forgotten where it started.
# - At a learning rate that is too large for Adam, Lookahead more than halves the
#   test loss, and the networks agree with one another again.
# - Now look at the triangles. Half the learning rate, which costs no second copy
#   of the weights, does most of the same: with :math:`\alpha = 1/2` Lookahead *is*
#   half the rate as long as the steps are small, to the third digit. What remains
#   is insurance: the rate that you would have had to halve is the one that you did
#   not know.
# - Below the best rate the wrapper makes things worse, for the same reason.

nearest = KNeighborsClassifier(1).fit(x_train, y_train).score(x_test, y_test)
majority = np.bincount(y_test).max() / len(y_test)
print(f"majority class        accuracy {majority:.3f}")
print(f"nearest neighbour     accuracy {nearest:.3f}")
for name, rows in runs.items():
    accuracy = [f"{np.median(hits):.3f}" for _, hits in rows]
    print(f"{name:21s} accuracy {'  '.join(accuracy)}   at rates {rates}")

# %%
# The claims, the last two being the reason to read the small print.

claim(
    "the variance at rest is the predicted one, largest relative gap",
    np.max(np.abs(np.array(measured) / predicted - 1)),
    "<",
    0.06,
)
claim(
    "with k=5 it keeps less than half of SGD's variance, ratio",
    measured[ks.index(5)],
    "<",
    0.5,
)
large, small = rates.index(0.1), rates.index(0.001)
claim(
    "at rate 0.1 Lookahead lowers Adam's test loss, median ratio",
    np.median(losses["Lookahead(Adam)"][large] / losses["Adam"][large]),
    "<",
    0.75,
    seeds=members,
)
claim(
    "at rate 0.001 it is Adam at half the rate, largest relative gap",
    np.max(
        np.abs(losses["Lookahead(Adam)"] / losses["Adam, half the rate"] - 1)[small]
    ),
    "<",
    0.05,
    seeds=members,
)
claim(
    "and there it is worse than Adam alone, median ratio",
    np.median(losses["Lookahead(Adam)"][small] / losses["Adam"][small]),
    ">",
    1.3,
    seeds=members,
)

# %%
# Try it
# ------
#
# 1. Set the momentum of SGD to 0.99 on a quadratic with curvatures from 1 to 100
#    and no noise. Which :math:`k` stops the swinging, and why not a larger one?
# 2. With :math:`\alpha = 1/2`, at which learning rate of SGD alone is the variance
#    at rest that of Lookahead? Compare the speeds at which both forget the start.
# 3. Wrap :class:`keras.optimizers.SGD` with a cosine schedule. Does anything
#    remain of the gain at the end of training?
#
# References
# ----------
# :cite:t:`zhang2019lookahead`, algorithm 1 and proposition 2.

# sphinx_gallery_tags = ["optimizer", "all backends", "beginner"]
