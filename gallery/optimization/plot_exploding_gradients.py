r"""
Exploding gradients and clipping: one wrong step, and how to survive it
=======================================================================

In a deep or recurrent network the gradient is a product of many matrices. If each makes
it a little longer, it grows with the power of the depth: it explodes, one step carries
the weights far away, and the loss is NaN. Gradient clipping limits the length of a
step. Clip by the norm of the whole gradient (``global_clipnorm``): it keeps the
direction. Adaptive gradient clipping
(:class:`~dlcompanion.optimization.AdaptiveGradientClipping`) limits each unit's step to
a share of its weights, and needs no guess of the gradient's size. Use one of them in
every recurrent network and transformer. Clipping does not help against gradients that
vanish.

In your own model
-----------------

One argument of any Keras optimizer, or a wrapper around it:

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.optimization import AdaptiveGradientClipping

   x = np.random.normal(size=(200, 12, 2)).astype("float32")
   y = x[:, :, 0].sum(axis=1, keepdims=True)
   rnn = keras.layers.SimpleRNN(8)
   model = keras.Sequential([keras.Input((12, 2)), rnn, keras.layers.Dense(1)])
   model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), "mse")
   model.fit(x, y, epochs=2, verbose=0)
   model.compile(AdaptiveGradientClipping(keras.optimizers.Adam(0.01)), "mse")
   model.fit(x, y, epochs=2, verbose=0)

Prerequisites: :doc:`/gallery/optimization/plot_gradient_descent`.

Neighbors: :doc:`/gallery/optimization/plot_momentum`,
:doc:`/gallery/optimization/plot_adam`. Notation: :doc:`/notation`.
"""

# %%
# The idea
# --------
#
# A recurrent network computes :math:`h_t = \phi(W h_{t-1} + U x_t)`, and the gradient
# travels back through
#
# .. math::
#
#    \frac{\partial h_T}{\partial h_0} = \prod_{t=1}^{T} D_t W, \qquad
#    D_t = \operatorname{diag} \phi'(\cdot) .
#
# Let :math:`W` be an orthogonal matrix times :math:`r`, so that its spectral radius is
# :math:`r`, and :math:`\phi` the ReLU. About half of the units are off, so a step
# multiplies the squared length by about :math:`r^2/2`, and the gradient grows or
# shrinks as :math:`(r/\sqrt2)^T`.
#
# Clipping by the global norm at :math:`c` replaces the gradient :math:`g` of all
# weights by :math:`g \min(1, c/\lVert g\rVert)` :cite:p:`pascanu2013difficulty`.
# Adaptive clipping does it for the weights :math:`w_i` that lead into each unit, with
# its own limit :math:`\lambda \max(\lVert w_i\rVert, 10^{-3})` :cite:p:`brock2021high`
# (equation 3).

import keras
import matplotlib.pyplot as plt
import numpy as np

from dlcompanion import autodiff, claims, datasets
from dlcompanion.claims import claim
from dlcompanion.optimization import AdaptiveGradientClipping
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
rng = np.random.default_rng(claims.seed())

# %%
# The length of a vector that travels back through 60 steps, for 20 random networks with
# each of three spectral radii.

units, steps, copies = 100, 60, 20
radii = [0.9, 2**0.5, 1.8]


def journey(radius):
    """Length after each step back, ``(copies, steps + 1)``, in units of the first."""
    lengths = []
    for _ in range(copies):
        w = radius * np.linalg.qr(rng.normal(size=(units, units)))[0]
        h, masks = np.abs(rng.normal(size=units)), []
        for _ in range(steps):
            h = np.maximum(w @ h + rng.normal(size=units) * np.sqrt(np.mean(h**2)), 0)
            masks.append(h > 0)
        v = rng.normal(size=units)
        norms = [np.linalg.norm(v)]
        for mask in reversed(masks):
            v = w.T @ (mask * v)
            norms.append(np.linalg.norm(v))
        lengths.append(np.array(norms) / norms[0])
    return np.array(lengths)


lengths = {radius: journey(radius) for radius in radii}
growth = {radius: np.median(v[:, -1]) ** (1 / steps) for radius, v in lengths.items()}

# %%
# A network that explodes: 48 ReLU units with spectral radius 1.5 learn to add two
# marked numbers in a sequence of 24. Four ways to train it, five networks each: 480
# steps of SGD with momentum. The trivial baseline, always 1, has a mean squared error
# of 1/6.

length = 24
x, y = datasets.adding(2000, length, seed=claims.seed())
x_test, y_test = datasets.adding(500, length, seed=claims.seeds(2)[1])
recurrent = keras.initializers.Orthogonal(1.5)
model = keras.Sequential(
    [
        keras.Input((length, 2)),
        keras.layers.SimpleRNN(48, "relu", recurrent_initializer=recurrent),
        keras.layers.Dense(1),
    ]
)


def sgd(**clipping):
    return keras.optimizers.SGD(0.05, momentum=0.9, **clipping)


ways = {
    "no clipping": sgd(),
    "clipvalue=0.1": sgd(clipvalue=0.1),
    "global_clipnorm=1": sgd(global_clipnorm=1.0),
    "adaptive, 0.05": AdaptiveGradientClipping(sgd(), 0.05),
}
many = np.tile(x, (12, 1, 1)), np.tile(y, (12, 1))
errors = {}
for name, optimizer in ways.items():
    model.compile(optimizer, "mse")
    errors[name] = []
    for seed in claims.seeds(5):
        restart(model, seed)
        fit_in_memory(model, *many, batch_size=50, epochs=1, verbose=0, seed=seed)
        predicted = keras.ops.convert_to_numpy(model.predict_on_batch(x_test))
        errors[name].append(np.mean((predicted - y_test) ** 2))
    errors[name] = np.array(errors[name])
baseline = np.mean((y_test - 1) ** 2)

# %%
# What clipping does to the direction: the gradient of a new network, clipped by value
# and by norm, and the cosine of the angle to what it was.

restart(model, claims.seed())
weights = model.trainable_variables
_, gradient = autodiff.value_and_grad(
    lambda: keras.ops.mean(keras.ops.square(model(x[:200]) - y[:200])),
    variables=weights,
)()
whole = np.concatenate([keras.ops.convert_to_numpy(g).ravel() for g in gradient])
norm = np.linalg.norm(whole)
limit = np.abs(whole).max() / 100
by_value, by_norm = np.clip(whole, -limit, limit), whole * min(1, 1 / norm)


def cosine(clipped):
    return whole @ clipped / norm / np.linalg.norm(clipped)


# %%
# Left, the way back; the dashed lines are the formula. Right, the test error of the
# five networks of each kind, on top those that ended in NaN.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9), layout="constrained")
for color, radius in zip(["C3", "C0", "C1"], radii, strict=True):
    left.plot(lengths[radius].T, color=color, lw=0.5, alpha=0.6)
    at = np.arange(steps + 1)
    left.plot(at, (radius / 2**0.5) ** at, "--", color=color, lw=2)
    left.plot([], [], color=color, label=f"spectral radius {radius:.2f}")
left.set(yscale="log", xlabel="steps back", ylabel="length of the gradient")
left.legend(loc="lower left")
top = 30.0
for at, values in enumerate(errors.values()):
    shown = np.where(values < top, values, top)
    jitter = np.linspace(-0.15, 0.15, len(shown))
    right.plot(at + jitter, shown, "o", ms=5)
right.axhline(baseline, color="0.5", ls=":", label="always 1")
right.set(yscale="log", ylabel="test error", ylim=(0.01, 60))
right.set_xticks(
    range(len(ways)), [n.replace("=", "\n").replace(", ", "\n") for n in ways]
)
right.set_yticks([0.01, 0.1, 1, top], ["0.01", "0.1", "1", "NaN"])
right.minorticks_off()
right.legend()
# alt: Left, the length of the gradient against the steps back on a log scale: falling
# at radius 0.9, level at 1.41, rising at 1.8, along dashed lines; right, test error:
# most networks without clipping are NaN, those clipped are mostly below the baseline.
plt.show()

# %%
# What to notice
# --------------
#
# - A gradient does not explode at radius 1: with ReLU the border is :math:`\sqrt2`.
# - Without clipping most networks end in NaN: one large gradient is enough. With it
#   nothing happens but that this step is short.
# - Clipping by value cuts each number for itself, and so turns the gradient. Clipping
#   by norm keeps the direction.
# - Adaptive clipping does as well here, without a number that depends on the scale of
#   the loss.
# - When it fails: clipping hides what is wrong. If most steps are clipped, the learning
#   rate is too large or the initialization is wrong; count them.

for name, values in errors.items():
    lost = np.sum(~(values < 10 * baseline))
    print(f"{name:20s} test errors {np.sort(values).round(3)}   diverged {lost} of 5")
print(f"always 1             test error {baseline:.3f}")
for radius, factor in growth.items():
    print(
        f"radius {radius:.2f}: times {factor:.3f} a step, formula {radius / 2**0.5:.3f}"
    )

# %%
# The claims.

claim(
    "growth of the gradient in a step back through ReLU to radius / 1.414, largest gap",
    max(abs(growth[r] / (r / 2**0.5) - 1) for r in radii),
    "<",
    0.1,
)
claim(
    "networks of spectral radius 1.5 that diverge without clipping, share",
    np.mean(~(errors["no clipping"] < 10 * baseline)),
    ">=",
    0.4,
    seeds=5,
)
claim(
    "networks of spectral radius 1.5 that diverge clipped by norm or adaptively, share",
    np.mean(
        [~(errors[n] < 10 * baseline) for n in ("global_clipnorm=1", "adaptive, 0.05")]
    ),
    "==",
    0.0,
    seeds=5,
)
claim(
    "adding, clipped by global norm: test error to that of always 1, median",
    np.median(errors["global_clipnorm=1"]) / baseline,
    "<",
    0.9,
    seeds=5,
)
claim(
    "adding, adaptive gradient clipping: test error to that of always 1, median",
    np.median(errors["adaptive, 0.05"]) / baseline,
    "<",
    0.8,
    seeds=5,
)
claim(
    "cosine between a gradient and the same clipped by global norm",
    cosine(by_norm),
    ">",
    0.9999,
)
claim(
    "cosine between a gradient and the same clipped at 1 % of its largest entry",
    cosine(by_value),
    "<",
    0.9,
)

# %%
# Try it
# ------
#
# 1. Start with spectral radius 1 (``Orthogonal(1.0)``) and no clipping. Does it
#    diverge, and does it learn?
#
# .. dropdown:: Hint to 1
#
#    The gradient shrinks on its way back, and nothing diverges. But in 480 steps the
#    error hardly gets below the baseline (0.15); with ``global_clipnorm=1`` it comes to
#    about 0.06.
#
# 2. Multiply the loss by 100 (``y`` by 10). Which of the clipped ways changes most?
#
# .. dropdown:: Hint to 2
#
#    A limit of 1 on the norm is a hundred times smaller than before, measured by the
#    gradient; the limits of adaptive clipping are measured by the weights.
#
# 3. Replace SGD by Adam. Is clipping still needed?
#
# .. dropdown:: Hint to 3
#
#    A step of Adam has a limited length anyway. But one huge gradient stays in its
#    second moment for a thousand steps, and makes all of them short.
#
# References
# ----------
# :cite:t:`pascanu2013difficulty`; :cite:t:`brock2021high`, equation 3.

# sphinx_gallery_tags = ["optimizer", "intermediate"]
