r"""
Backpropagation: all derivatives for the price of three forward passes
======================================================================

To train a network we need the derivative of the loss by every weight (the gradient).
Changing the weights one after the other would take one forward pass for each of them.
Backpropagation (reverse-mode automatic differentiation) applies the chain rule from the
loss backwards and gets all of them for the price of about three forward passes; the
other price is memory, since the activations of every layer must be kept. Every
framework does it for you. This page writes it out in NumPy, in four steps, so that you
see what it does and costs: it checks them against finite differences and
:func:`~dlcompanion.autodiff.value_and_grad`, trains with them, and counts
multiplications and bytes.

In your own model
-----------------

You rarely call backpropagation yourself: ``fit`` does. Where you do, this is one step
of training on every backend:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.autodiff import value_and_grad

   x = np.random.normal(size=(32, 5)).astype("float32")
   y = x[:, :1]
   model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])


   def loss():
       return keras.ops.mean(keras.losses.mean_squared_error(y, model(x)))


   gradient_of = value_and_grad(loss, variables=model.trainable_variables)
   value, gradients = gradient_of()  # on every backend
   optimizer = keras.optimizers.SGD(0.1)
   optimizer.apply(gradients, model.trainable_variables)

Neighbors: :doc:`/gallery/optimization/plot_lookahead`,
:doc:`/gallery/foundations/plot_curse_of_dimensionality`. Notation: :doc:`/notation`.
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
# One matrix product takes the error a layer back, another gives the derivative of the
# weights, and both need the activations of the forward pass: :math:`h^{(l-1)}` must
# have been kept :cite:p:`rumelhart1986learning`.

import tracemalloc

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import backend, claims, datasets
from dlcompanion.autodiff import value_and_grad
from dlcompanion.claims import claim

keras.utils.set_random_seed(claims.seed())

# %%
# The four steps. ``weights`` is a list of pairs :math:`(W, b)`; there is nothing else.


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
    pairs = zip(weights, gradients, strict=True)
    return [(W - rate * dW, b - rate * db) for (W, b), (dW, db) in pairs]


def value_and_gradients(x, y, weights):
    kept, scores = forward(x, weights)
    loss, error = loss_and_error(scores, y)
    return loss, backward(kept, error, weights)


def random_weights(sizes, seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    shapes = zip(sizes[:-1], sizes[1:], strict=True)
    pairs = [
        (rng.normal(size=s) / np.sqrt(s[0]), rng.normal(size=s[1])) for s in shapes
    ]
    return [(W.astype(dtype), b.astype(dtype) / 10) for W, b in pairs]


# %%
# One digit goes through four layers of 64 units, drawn as 8 by 8 pictures. Above, what
# goes forward and has to be kept; below, what comes back: where the loss would rise
# (red) or fall (blue) if that unit were a little larger. The image on the lower left is
# the derivative by the *pixels*.

(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
sizes = [x_train.shape[-1], 64, 64, 64, int(y_train.max()) + 1]
weights = random_weights(sizes, claims.seed())
kept, scores = forward(x_train[:1], weights)
_, error = loss_and_error(scores, y_train[:1])
errors = [error]
for n in reversed(range(len(weights))):
    slope = 1.0 - kept[n] ** 2 if n else 1.0
    errors.insert(0, (errors[0] @ weights[n][0].T) * slope)

figure, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
titles = ["pixels $x$", "$h^{(1)}$", "$h^{(2)}$", "$h^{(3)}$", "scores $z^{(4)}$"]
for pictures, row, colours in zip(
    [[*kept, scores], errors], axes, ["PuOr_r", "RdBu_r"], strict=True
):
    for picture, axis in zip(pictures, row, strict=True):
        shape, top = ((8, 8) if picture.size == 64 else (1, 10)), np.abs(picture).max()
        axis.imshow(picture.reshape(shape), colours, vmin=-top, vmax=top)
        axis.set(xticks=[], yticks=[], xlabel=f"largest {top:.2f}")
for axis, title in zip(axes[0], titles, strict=True):
    axis.set_title(title)
axes[0, 0].set_ylabel("forward →")
axes[1, 0].set_ylabel("← backward")
# alt: One digit going through four layers as 8 by 8 pictures above, and the errors that
# come back below, red where the loss would rise, blue where it would fall.
plt.show()

# %%
# Is it right?
# ------------
#
# The definition of a derivative is an independent check:
# :math:`(L(\theta + \epsilon) - L(\theta - \epsilon)) / 2 \epsilon`. But with which
# :math:`\epsilon`? With a large one the curvature makes an error, with a small one
# rounding does. We try them all, on 60 weights of each kernel.

x, y = x_train[:32], y_train[:32]
steps = 10.0 ** np.arange(-11, 0.1, 0.5)


def worst_difference(dtype, step):
    """Largest gap between backpropagation and finite differences, relative."""
    inputs, weights = x.astype(dtype), random_weights(sizes, claims.seed(), dtype)
    _, gradients = value_and_gradients(inputs, y, weights)
    rng, worst = np.random.default_rng(claims.seed()), 0.0
    for (W, _), (dW, _) in zip(weights, gradients, strict=True):
        for place in rng.choice(W.size, 60, replace=False):
            old, losses = W.flat[place], []
            for W.flat[place] in (old + step, old - step):
                losses.append(float(loss_and_error(forward(inputs, weights)[1], y)[0]))
            W.flat[place] = old
            slope = (losses[0] - losses[1]) / (2 * step)
            worst = max(worst, abs(slope - dW.flat[place]) / np.abs(dW).max())
    return worst


gaps = {t: [worst_difference(t, s) for s in steps] for t in ("float32", "float64")}

# %%
# The second check is the framework: the same network in ``keras.ops``, without any
# derivatives written out.


def network_loss(x, y, weights):
    h = ops.convert_to_tensor(x)
    for W, b in weights[:-1]:
        h = ops.tanh(ops.matmul(h, W) + b)
    W, b = weights[-1]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return loss(y, ops.matmul(h, W) + b)


by_framework = backend.compile(value_and_grad(network_loss, argnums=2), jit=False)
_, automatic = by_framework(x, y, weights)
_, by_hand = value_and_gradients(x, y, weights)
disagreement = max(
    np.abs(a - ops.convert_to_numpy(b)).max() / np.abs(a).max()
    for pair, other in zip(by_hand, automatic, strict=True)
    for a, b in zip(pair, other, strict=True)
)

figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
for dtype, gap in gaps.items():
    axis.loglog(steps, gap, "o-", ms=3, label=f"differences, {dtype}")
axis.axhline(disagreement, color="C2", ls="--", label="value_and_grad, float32")
axis.set(xlabel=r"step $\epsilon$", ylabel="largest relative gap", ylim=(1e-11, 1e4))
axis.legend()
# alt: Relative gap of finite differences against their step, for float32 and float64: V
# shapes with a lowest point; the line of the framework's gradient in float32 lies far
# below that of float32.
plt.show()

# %%
# Two slopes and a valley: on the right the error of the formula falls as
# :math:`\epsilon^2`, on the left rounding grows as :math:`1/\epsilon`, until the step
# is lost altogether and the difference is zero. In single precision the best finite
# difference is right to three or four digits, and one must know where to look;
# backpropagation and the framework agree to six. So finite differences are for tests,
# in double precision.
#
# Training is the four steps in a loop
# ------------------------------------
#
# Five starts, trained by hand, and beside the first one the framework.


batches = len(x_train) // 64


def train(seed, gradient=value_and_gradients, sizes=sizes, array=np.asarray):
    rng, losses = np.random.default_rng(seed), []
    weights = [(array(W), array(b)) for W, b in random_weights(sizes, seed)]
    for _ in range(30):  # epochs
        order = rng.permutation(len(x_train))[: batches * 64]
        for rows in order.reshape(batches, 64):
            loss, gradients = gradient(x_train[rows], y_train[rows], weights)
            weights = update(weights, gradients, 0.3)
            losses.append(float(loss))
    return weights, losses


def accuracy(weights):
    return np.mean(forward(x_test, weights)[1].argmax(axis=1) == y_test)


runs = [train(seed) for seed in claims.seeds(5)]
accuracies = [accuracy(weights) for weights, _ in runs]
linear = [
    accuracy(train(seed, sizes=[sizes[0], sizes[-1]])[0]) for seed in claims.seeds(5)
]
twin, twin_losses = train(claims.seed(), by_framework, array=ops.convert_to_tensor)
apart = np.abs(np.subtract(runs[0][1], twin_losses))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for _, losses in runs:
    left.semilogy(np.convolve(losses, np.ones(batches) / batches, "valid"), lw=1)
left.set(xlabel="step", ylabel="loss, mean of an epoch", title="By hand, five starts")
right.semilogy(np.maximum(apart, 1e-9), lw=0.6, color="C3")
right.set(xlabel="step", ylabel="gap of the losses", title="By hand and framework")
# alt: Left, training loss of five starts, falling; right, gap between the loss by hand
# and the framework's, below one millionth.
plt.show()

# %%
# The price in multiplications
# ----------------------------
#
# A matrix product of shapes :math:`(n, a)` and :math:`(a, b)` takes :math:`nab`
# multiplications, and nearly all the time goes there. An array counts them.


class Counting(np.ndarray):
    """An array that counts the multiplications of its matrix products."""

    multiplications = 0

    def __matmul__(self, other):
        Counting.multiplications += self.size * other.shape[1]
        return super().__matmul__(other)


counting = [(W.view(Counting), b) for W, b in weights]
kept, scores = forward(x.view(Counting), counting)
for_value = Counting.multiplications
backward(kept, loss_and_error(scores, y)[1], counting)
for_gradient = Counting.multiplications  # of both passes
number = sum(W.size + b.size for W, b in weights)
print(f"one forward pass, {number:,} weights      {for_value:>15,}")
print(f"gradient by backpropagation           {for_gradient:>15,}")
print(f"gradient by finite differences        {2 * number * for_value:>15,}")

# %%
# The price in bytes
# ------------------
#
# The forward pass alone may forget each layer after the next; for the gradient all of
# them stay. ``tracemalloc`` sees every byte that NumPy allocates, so the peak of a run
# can be read as the network gets deeper. A third program trades time for memory: it
# keeps every eighth layer and computes the others once more when the backward pass
# reaches them (:class:`keras.RematScope` is for that in Keras).

WIDTH, ROWS = 32, 8_000
inputs = (
    np.random.default_rng(claims.seed()).normal(size=(ROWS, WIDTH)).astype("float32")
)
targets = np.zeros(ROWS, "int32")


def forget(x, y, weights):
    for W, b in weights[:-1]:
        x = np.tanh(x @ W + b)
    return loss_and_error(x @ weights[-1][0] + weights[-1][1], y)[0]


def recompute(x, y, weights, every=8):
    starts = [x]
    for n, (W, b) in enumerate(weights[:-1], start=1):
        x = np.tanh(x @ W + b)
        if n % every == 0:
            starts.append(x)
    error = loss_and_error(x @ weights[-1][0] + weights[-1][1], y)[1]
    gradients = []
    for n in reversed(range(len(starts))):
        block = weights[n * every : (n + 1) * every]
        kept, _ = forward(starts[n], block)  # once more
        gradients = backward(kept, error, block) + gradients
        for (W, _), h in zip(reversed(block), reversed(kept), strict=True):
            error = (error @ W.T) * (1.0 - h**2)
    return gradients


def peak_bytes(f, depth):
    weights = random_weights([WIDTH] * depth + [10], claims.seed())
    tracemalloc.start()
    f(inputs, targets, weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / inputs.nbytes  # in arrays of activations


depths = np.array([4, 8, 16, 32, 64])
peaks, peaks_of_loss, peaks_of_recomputing = (
    np.array([peak_bytes(f, depth) for depth in depths])
    for f in (value_and_gradients, forget, recompute)
)


def line(x, y):  # slope of the best straight line, and how far the points are off
    slope, start = np.polyfit(x, y, 1)
    return slope, np.abs(start + slope * x - y).max() / np.ptp(y)


figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
axis.plot(depths, peaks, "o-", label="gradient")
axis.plot(depths, peaks_of_recomputing, "x-", label="gradient, recomputing")
axis.plot(depths, peaks_of_loss, "s-", label="loss only")
axis.set(xlabel="depth", ylabel="peak memory, in layers of activations")
axis.legend()
# alt: Peak memory against depth: the gradient's grows linearly, with recomputing it
# grows slowly, and for the loss alone it is constant.
plt.show()

# %%
# What to notice
# --------------
#
# - The error of a layer costs one matrix product and the gradient of its weights one
#   more: two backward for one forward. Only the first layer saves one.
# - With the derivatives of all weights come those of all units, and for one product
#   more those of the pixels: attributions and adversarial examples use them.
# - The derivative by the scores is *probabilities minus truth*: softmax and
#   cross-entropy belong together.
# - Memory grows by one array of activations a layer, since :math:`\tanh'` is written
#   with :math:`h`; keeping :math:`z` too would take twice as much. Memory is
#   proportional to the batch size: deep networks run out of memory in training, not in
#   prediction.
# - By hand and by the framework it is the same training, through all 660 steps.

majority = np.mean(y_test == np.bincount(y_train).argmax())
one_layer = np.median(linear)
print(f"always the commonest digit {majority:.3f}, one layer by hand {one_layer:.3f},")
print(f"four layers by hand {min(accuracies):.3f} to {max(accuracies):.3f}")

claim(
    "hand-written gradient against `autodiff.value_and_grad`, largest relative gap",
    disagreement,
    "<",
    1e-5,
)
claim(
    "hand-written gradient against the best finite difference, float64, relative gap",
    min(gaps["float64"]),
    "<",
    1e-7,
)
worse = min(gaps["float32"]) / disagreement
claim(
    "error of finite differences to that of backpropagation, float32, best step",
    worse,
    ">",
    10,
)
passes = for_gradient / for_value
claim("multiplications of a gradient, in forward passes", passes, "<=", 3)
claim(
    "multiplications of finite differences to those of backpropagation",
    2 * number / passes,
    ">",
    1000,
)
per_layer, off = line(depths, peaks)
claim("activations kept by each layer for the gradient", per_layer, "<", 1.02)
claim(
    "memory of a gradient against a straight line in the depth, largest gap",
    off,
    "<",
    0.01,
)
growth = peaks_of_loss[-1] / peaks_of_loss[0]
claim("memory of the loss alone, 64 layers to 4", growth, "<", 1.01)
share = peaks_of_recomputing[-1] / peaks[-1]
claim("memory with recomputed layers to that without, 64 layers", share, "<", 0.5)
claim(
    "test accuracy of the network trained by hand, worst of 5 seeds",
    min(accuracies),
    ">",
    0.9,
    seeds=5,
)
claim(
    "test accuracy of the network trained by hand less that of the majority, worst",
    min(accuracies) - majority,
    ">",
    0.7,
    seeds=5,
)
claim(
    "training loss by hand against the framework's, 660 steps, largest gap",
    apart.max(),
    "<",
    1e-3,
)

# %%
# Try it
# ------
#
# 1. Replace :math:`\tanh` by a ReLU. Which line of ``backward`` changes, and what has
#    to be kept now: a float for each unit, or one bit?
#
# .. dropdown:: Hint to 1
#
#    The derivative is 1 where the unit is active and 0 elsewhere.
#
# 2. Make the network 30 layers deep and print the largest entry of the error of each
#    layer. What must the scale of the weights be for it to arrive at the first layer?
#
# .. dropdown:: Hint to 2
#
#    Each step back multiplies by the weights and by a slope of at most 1; the loop that
#    fills ``errors`` has the numbers.
#
# 3. Recomputing keeps every eighth layer. Which number is best for 64 layers, and how
#    does the smallest possible memory grow with depth?
#
# .. dropdown:: Hint to 3
#
#    With every :math:`m`-th of :math:`L` layers kept, memory is about :math:`L/m + m`.
#
# References
# ----------
# Rumelhart, Hinton and Williams, *Learning representations by back-propagating
# errors*, Nature 323, 1986.
#
# Chen, Xu, Zhang and Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016.
# https://arxiv.org/abs/1604.06174

# sphinx_gallery_tags = ["infrastructure", "introductory"]
