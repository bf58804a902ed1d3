r"""
Four steps give all derivatives for the price of three forward passes
=====================================================================

A network of 13,000 weights has a loss, and we want to know how the loss changes with
each of them. Trying them one after the other takes 13,000 forward passes.
Backpropagation takes one forward and one backward, which together cost no more than
three: that is why deep learning exists. It also has a price that is paid in memory,
and the price grows with depth. This page writes the four steps out in NumPy, checks
them against finite differences and against
:func:`~dlcompanion.autodiff.value_and_grad`, trains with them, and then counts what
they cost: multiplications and bytes.

Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# A layer takes :math:`h^{(l-1)}` to :math:`z^{(l)} = h^{(l-1)} W^{(l)} + b^{(l)}` and
# :math:`h^{(l)} = \tanh z^{(l)}`; the last one has no :math:`\tanh`, its :math:`z` are
# the scores of the classes. Write
# :math:`\delta^{(l)} = \partial L / \partial z^{(l)}`. The chain rule, read from the
# loss backwards, says
#
# .. math::
#
#    \delta^{(l-1)} = \delta^{(l)} {W^{(l)}}^\top \odot
#       \bigl(1 - h^{(l-1)} \odot h^{(l-1)}\bigr),
#    \qquad
#    \frac{\partial L}{\partial W^{(l)}} = {h^{(l-1)}}^\top \delta^{(l)},
#    \qquad
#    \frac{\partial L}{\partial b^{(l)}} = \sum_i \delta_i^{(l)} .
#
# Everything is in these three formulas. One matrix product takes the error a layer
# back, another gives the derivative of the weights, and both need what the forward
# pass saw: :math:`h^{(l-1)}` must have been kept :cite:p:`rumelhart1986learning`.

import os
import sys
import tracemalloc

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import backend, datasets
from dlcompanion.autodiff import value_and_grad
from dlcompanion.claims import claim

keras.utils.set_random_seed(0)

# %%
# The four steps, on a batch of ``n`` examples. ``weights`` is a list of pairs
# :math:`(W, b)`; there is nothing else.


def forward(x, weights):
    """Step 1: compute, and keep, the activations of every layer."""
    kept = [x]  # (n, width of the layer)
    for W, b in weights[:-1]:
        kept.append(np.tanh(kept[-1] @ W + b))
    W, b = weights[-1]
    return kept, kept[-1] @ W + b


def loss_and_error(scores, y):
    """Step 2: the cross-entropy, and its derivative by the scores."""
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    rows = np.arange(len(y))
    error = np.exp(log_p)
    error[rows, y] -= 1.0  # probabilities minus the truth
    return -log_p[rows, y].mean(), error / len(y)


def backward(kept, error, weights):
    """Step 3: take the error back, layer by layer."""
    gradients = [None] * len(weights)
    for n in reversed(range(len(weights))):
        W, _ = weights[n]
        gradients[n] = (kept[n].T @ error, error.sum(axis=0))
        if n:  # the input has no weights before it
            error = (error @ W.T) * (1.0 - kept[n] ** 2)
    return gradients


def update(weights, gradients, rate):
    """Step 4: move every weight a little against its derivative."""
    return [
        (W - rate * dW, b - rate * db)
        for (W, b), (dW, db) in zip(weights, gradients, strict=True)
    ]


def value_and_gradients(x, y, weights):
    kept, scores = forward(x, weights)
    loss, error = loss_and_error(scores, y)
    return loss, backward(kept, error, weights)


def random_weights(sizes, seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.normal(size=(a, b)) / np.sqrt(a)).astype(dtype),
            rng.normal(size=b).astype(dtype) / 10,
        )
        for a, b in zip(sizes[:-1], sizes[1:], strict=True)
    ]


# %%
# One digit goes through four layers of 64 units, drawn as 8 by 8 pictures. Above,
# what goes forward and has to be kept; below, what comes back: where the loss would
# rise (red) or fall (blue) if that unit were a little larger. The picture on the lower
# left is a gift of the same computation: how the *pixels* should change.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True)
sizes = [64, 64, 64, 64, 10]
weights = random_weights(sizes, seed=0)
kept, scores = forward(x_train[:1], weights)
_, error = loss_and_error(scores, y_train[:1])
errors = [error]
for n in reversed(range(len(weights))):
    slope = 1.0 - kept[n] ** 2 if n else 1.0
    errors.insert(0, (errors[0] @ weights[n][0].T) * slope)

figure, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
titles = ["pixels $x$", "$h^{(1)}$", "$h^{(2)}$", "$h^{(3)}$", "scores $z^{(4)}$"]
for column, (values, back) in enumerate(zip([*kept, scores], errors, strict=True)):
    shape = (8, 8) if values.size == 64 else (1, 10)
    for axis, picture, colours in (
        (axes[0, column], values, "PuOr_r" if column else "gray_r"),
        (axes[1, column], back, "RdBu_r"),
    ):
        limit = np.abs(picture).max()
        low = -limit if colours != "gray_r" else 0
        axis.imshow(picture.reshape(shape), colours, vmin=low, vmax=limit)
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(titles[column])
    axes[1, column].set_xlabel(f"largest {np.abs(back).max():.3f}")
axes[0, 0].set_ylabel("forward →")
axes[1, 0].set_ylabel("← backward")
plt.show()

# %%
# Is it right?
# ------------
#
# The definition of a derivative is the independent witness:
# :math:`(L(\theta + \epsilon) - L(\theta - \epsilon)) / 2 \epsilon`. But with which
# :math:`\epsilon`? A large one measures the curve beside the point, a small one
# drowns in rounding. We try them all, on 60 weights of each kernel.

x, y = x_train[:32], y_train[:32]
steps = 10.0 ** np.arange(-11, 0.1, 0.5)


def worst_difference(dtype, step):
    """Largest gap between backpropagation and finite differences, relative."""
    weights = random_weights(sizes, seed=0, dtype=dtype)
    _, gradients = value_and_gradients(x.astype(dtype), y, weights)
    rng, worst = np.random.default_rng(1), 0.0
    for n, (W, _) in enumerate(weights):
        expected = gradients[n][0]
        for place in rng.choice(W.size, 60, replace=False):
            ends = []
            for sign in (1, -1):
                old = W.flat[place]
                W.flat[place] = old + sign * step
                ends.append(loss_and_error(forward(x.astype(dtype), weights)[1], y)[0])
                W.flat[place] = old
            gap = (float(ends[0]) - float(ends[1])) / (2 * step) - expected.flat[place]
            worst = max(worst, abs(gap) / np.abs(expected).max())
    return worst


gaps = {t: [worst_difference(t, s) for s in steps] for t in ("float32", "float64")}

# %%
# The second witness is the framework. The same network in ``keras.ops``, nothing said
# about derivatives:


def network_loss(weights, x, y):
    h = ops.convert_to_tensor(x)
    for W, b in weights[:-1]:
        h = ops.tanh(ops.matmul(h, W) + b)
    W, b = weights[-1]
    scores = ops.matmul(h, W) + b
    return ops.mean(
        keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True)
    )


by_framework = backend.compile(value_and_grad(network_loss), jit=False)
_, automatic = by_framework(weights, x, y)
_, by_hand = value_and_gradients(x, y, weights)
disagreement = max(
    np.abs(a - ops.convert_to_numpy(b)).max() / np.abs(a).max()
    for pair, other in zip(by_hand, automatic, strict=True)
    for a, b in zip(pair, other, strict=True)
)

figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
for (dtype, gap), colour in zip(gaps.items(), ["C1", "C0"], strict=True):
    axis.loglog(steps, gap, "o-", ms=3, color=colour, label=f"differences, {dtype}")
axis.axhline(disagreement, color="C2", ls="--", label="value_and_grad, float32")
axis.set(
    xlabel=r"step $\epsilon$",
    ylabel="largest relative gap",
    title="Three ways to the same derivative",
    ylim=(1e-11, 1e4),
)
axis.legend()
plt.show()

# %%
# Two slopes and a valley: on the right the error of the formula falls as
# :math:`\epsilon^2`, on the left rounding grows as :math:`1/\epsilon`, until the step
# is lost altogether and the difference is zero. In single precision the best finite
# difference is right to three or four digits, and one must know where to look;
# backpropagation and the framework agree to six. So finite differences are for tests,
# in double precision.

# %%
# Training is the four steps in a loop
# ------------------------------------
#
# Five starts, each trained on digits by hand. Beside the first one runs the framework,
# from the same weights over the same batches.


def train(
    seed, gradient=value_and_gradients, sizes=sizes, epochs=30, batch=64, rate=0.3
):
    rng, weights, losses = np.random.default_rng(seed), random_weights(sizes, seed), []
    for _ in range(epochs):
        order = rng.permutation(len(x_train))
        for rows in np.split(order[: len(order) // batch * batch], len(order) // batch):
            loss, gradients = gradient(x_train[rows], y_train[rows], weights)
            weights = update(weights, gradients, rate)
            losses.append(float(loss))
    return weights, losses


def gradient_of_framework(x, y, weights):
    loss, gradients = by_framework(weights, x, y)
    numpy = ops.convert_to_numpy
    return numpy(loss), [(numpy(W), numpy(b)) for W, b in gradients]


def accuracy(weights):
    return np.mean(forward(x_test, weights)[1].argmax(axis=1) == y_test)


runs = [train(seed) for seed in range(5)]
accuracies = [accuracy(weights) for weights, _ in runs]
linear = max(accuracy(train(seed, sizes=[64, 10])[0]) for seed in range(5))
twin, twin_losses = train(0, gradient=gradient_of_framework)
apart = np.abs(np.subtract(runs[0][1], twin_losses))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for _, losses in runs:
    left.semilogy(np.convolve(losses, np.ones(22) / 22, "valid"), lw=1)
left.set(xlabel="step", ylabel="loss, mean of an epoch", title="By hand, five starts")
right.semilogy(np.maximum(apart, 1e-9), lw=0.6, color="C3")
right.set(
    xlabel="step", ylabel="gap of the losses", title="By hand and by the framework"
)
plt.show()

# %%
# The price in multiplications
# ----------------------------
#
# A matrix product of shapes :math:`(n, a)` and :math:`(a, b)` takes :math:`nab`
# multiplications. We let an array count them while the functions above run.


class Counting(np.ndarray):
    """An array that counts the multiplications of its matrix products."""

    multiplications = 0

    def __matmul__(self, other):
        Counting.multiplications += self.size * other.shape[1]
        return super().__matmul__(other)


def multiplications(f, *args):
    Counting.multiplications = 0
    f(*args)
    return Counting.multiplications


counting = [(W.view(Counting), b) for W, b in weights]
for_value = multiplications(forward, x.view(Counting), counting)
for_gradient = multiplications(value_and_gradients, x.view(Counting), y, counting)
number = sum(W.size + b.size for W, b in weights)
print(f"weights                                  {number:>15,}")
print(f"multiplications, one forward pass        {for_value:>15,}")
print(f"  gradient by backpropagation            {for_gradient:>15,}")
print(f"  gradient by finite differences         {2 * number * for_value:>15,}")

# %%
# The price in bytes
# ------------------
#
# The forward pass alone may forget each layer after the next; for the gradient all of
# them stay. ``tracemalloc`` sees every byte that NumPy allocates, so we can watch the
# peak as the network gets deeper. A third program pays in time instead: it keeps only
# every :math:`\sqrt{\text{depth}}`-th layer and computes the others again when the
# error comes by (:class:`keras.RematScope` does this in Keras).

WIDTH, ROWS = 32, 8_000
activation = WIDTH * ROWS * 4  # bytes of one layer's activations in float32
inputs = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype("float32")
targets = np.zeros(ROWS, "int32")


def forget(x, y, weights):
    for W, b in weights[:-1]:
        x = np.tanh(x @ W + b)
    return loss_and_error(x @ weights[-1][0] + weights[-1][1], y)[0]


def recompute(x, y, weights):
    size = round(np.sqrt(len(weights)))
    blocks = [weights[n : n + size] for n in range(0, len(weights), size)]
    starts = [x]
    for block in blocks[:-1]:
        h = starts[-1]
        for W, b in block:
            h = np.tanh(h @ W + b)
        starts.append(h)
    gradients, error = [], None
    for start, block in zip(reversed(starts), reversed(blocks), strict=True):
        kept, scores = forward(start, block)  # once more, and keep
        if error is None:
            error = loss_and_error(scores, y)[1]
        else:
            error = error * (1.0 - np.tanh(scores) ** 2)
        del scores
        gradients = backward(kept, error, block) + gradients
        for n in reversed(range(len(block))):
            slope = 1.0 - kept[n] ** 2 if n else 1.0
            error = (error @ block[n][0].T) * slope
    return gradients


def peak_bytes(f, depth):
    weights = random_weights([WIDTH] * depth + [10], seed=0)
    tracemalloc.start()
    f(inputs, targets, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / activation


depths = np.array([4, 9, 16, 25, 36, 49, 64])
peaks = {
    name: np.array([peak_bytes(f, d) for d in depths])
    for name, f in {
        "loss only": forget,
        "gradient": value_and_gradients,
        "gradient, recomputing": recompute,
    }.items()
}
# %%
# The framework keeps its own books, in C++, where ``tracemalloc`` does not see them. So
# we ask the operating system for the largest memory that this process ever had, while
# :func:`~dlcompanion.autodiff.value_and_grad` goes through deeper and deeper networks.
# That counts everything, also what is not an activation; what tells is the slope.
# (Windows does not say; there this curve is left out.)

rows_of_process = 2**16
large = np.random.default_rng(0).normal(size=(rows_of_process, WIDTH)).astype("float32")
depths_of_process = np.array([6, 12, 18, 24])
peaks_of_process = []
if os.name == "posix":
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    for depth in depths_of_process:
        deep = random_weights([WIDTH] * depth + [10], seed=0)
        value_and_grad(network_loss)(deep, large, np.zeros(rows_of_process, "int32"))
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        peaks_of_process.append(most / 2**20)


def line(x, y):
    """Slope of the best straight line, and how far the points are off, relative."""
    slope, start = np.polyfit(x, y, 1)
    return slope, np.abs(start + slope * x - y).max() / np.ptp(y)


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for (name, peak), mark in zip(peaks.items(), "sox", strict=True):
    left.plot(depths, peak, mark + "-", ms=4, label=name)
left.set(
    xlabel="depth",
    ylabel="peak memory, layers of activations",
    title="NumPy, every byte counted",
)
left.legend()
if peaks_of_process:
    right.plot(depths_of_process, peaks_of_process, "o-", ms=4, color="C1")
    kept_by_framework = line(depths_of_process, peaks_of_process)[0] * 2**20
    kept_by_framework /= rows_of_process * WIDTH * 4
    right.text(13, 150, f"{kept_by_framework:.1f} activations a layer")
right.set(
    xlabel="depth",
    ylabel="peak memory of the process, MiB",
    title=f"value_and_grad, {keras.backend.backend()}",
    xticks=depths_of_process,
    ylim=(0, None),
)
plt.show()

# %%
# What to notice
# --------------
#
# - The error of a layer costs one matrix product and the gradient of its weights one
#   more: two products backward for one forward. Only the first layer saves one, for
#   nobody asks how the input should change.
# - With the derivatives of thousands of weights come those of all units and pixels, at
#   no extra cost. Attributions, adversarial examples and style transfer live on that.
# - The derivative by the scores is *probabilities minus truth*. Softmax and
#   cross-entropy belong together: apart, each needs the care of a division by
#   something small.
# - Memory grows by exactly one array of activations a layer in our program, since
#   :math:`\tanh'` is written with :math:`h`. A framework that keeps :math:`z` too, or
#   a copy for the bias, has another slope, but a straight line as well. Batch size
#   multiplies the slope: that is why a deep network runs out of memory in training
#   and not in use.
# - By hand and by the framework it is the same training, to the last digits of single
#   precision, through 660 steps. There is no secret in the framework.

majority = np.mean(y_test == np.bincount(y_train).argmax())
gap_float32, gap_float64 = min(gaps["float32"]), min(gaps["float64"])
print(f"always the commonest digit   {majority:.3f}")
print(f"one layer, by hand           {linear:.3f}")
print(f"four layers, by hand         {min(accuracies):.3f} to {max(accuracies):.3f}")

claim("gap to value_and_grad, relative", disagreement, "<", 1e-5)
claim("gap to the best finite difference, double", gap_float64, "<", 1e-7)
claim(
    "single precision: differences are worse by a factor of",
    gap_float32 / disagreement,
    ">",
    10,
)
passes = for_gradient / for_value
claim("the gradient costs, in forward passes", passes, "<=", 3)
claim(
    "finite differences cost more by a factor of",
    2 * number / passes,
    ">",
    1000,
)
per_layer, off = line(depths, peaks["gradient"])
claim("gradient: activations kept for each layer", per_layer, "<", 1.02)
claim("its memory is a straight line in the depth, off by", off, "<", 0.01)
claim(
    "loss only: 64 layers need the memory of 4, times",
    peaks["loss only"][-1] / peaks["loss only"][0],
    "<",
    1.01,
)
claim(
    "recomputing: share of the memory at 64 layers",
    peaks["gradient, recomputing"][-1] / peaks["gradient"][-1],
    "<",
    0.5,
)
if peaks_of_process:
    _, off = line(depths_of_process, np.array(peaks_of_process))
    claim("the process of the framework: straight, off by", off, "<", 0.1)
claim("trained by hand: test accuracy, worst", min(accuracies), ">", 0.9, seeds=5)
claim(
    "and above one layer, smallest gain",
    min(accuracies) - linear,
    ">",
    0.0,
    seeds=5,
)
claim("losses by hand and by the framework, largest gap", apart.max(), "<", 1e-3)

# %%
# Try it
# ------
#
# 1. Replace :math:`\tanh` by a ReLU. Which line of ``backward`` changes, and what has
#    to be kept now: a float for each unit, or one bit?
# 2. Start with all weights zero. Which of the four steps breaks the network?
# 3. Make the network 30 layers deep and print the largest entry of the error of each
#    layer. What must the scale of the weights be for it to arrive at the first layer?
#
# References
# ----------
# Rumelhart, Hinton and Williams, *Learning representations by back-propagating
# errors*, Nature 323, 1986.
#
# Griewank, *Achieving logarithmic growth of temporal and spatial complexity in reverse
# automatic differentiation*, Optimization Methods and Software 1(1), 1992.
#
# Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016.
# https://arxiv.org/abs/1604.06174

# sphinx_gallery_tags = ["infrastructure", "all backends", "introductory"]
