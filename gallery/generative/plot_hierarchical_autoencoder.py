r"""
Hierarchical variational autoencoder: the upper level is silent until woken
===========================================================================

A variational autoencoder assumes that its codes are standard normal, and pays whenever
they are not. A hierarchical one *learns* the distribution of its codes, by a second
level of latent variables above the first. On paper the second level can only help. In a
short training it often falls silent (posterior collapse), and what is left is the model
with one level. :class:`~dlcompanion.generative.HierarchicalVAE` has two levels; this
page measures the silence, the remedy (free bits), and what the second level is then
worth: on small digits a fraction of a nat. Use more levels for large images and deep
networks; try a plain VAE first.

In your own model
-----------------

.. code-block:: python

   import numpy as np

   from dlcompanion.generative import HierarchicalVAE

   x = np.random.default_rng(0).uniform(size=(256, 20)).astype("float32")
   model = HierarchicalVAE.dense(20, latent=4, upper=2, hidden=(32,), free_bits=0.3)
   model.compile("adam")
   model.fit(x, epochs=2, verbose=0)
   new = model.sample(5)
   family = model.sample_given(np.zeros((5, 2), "float32"))  # five of one upper code

Prerequisites: :doc:`/gallery/generative/plot_variational_autoencoder`,
:doc:`/gallery/generative/plot_importance_weighted_autoencoder`. Notation:
:doc:`/notation`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/hierarchical_autoencoder.svg
#    :figclass: drawing
#    :alt: Three circles in a row: z2, z1 and x. Generation goes from z2 to z1 to x,
#       inference back from x to z1 to z2; each of the two codes has its divergence.
#
# Draw :math:`z_2 \sim \mathcal N(0, I)`, from it :math:`z_1 \sim \mathcal
# N(\mu_p(z_2), \sigma_p^2(z_2))`, and from that :math:`x`. Inference climbs the same
# ladder, :math:`q(z_1 \mid x)\, q(z_2 \mid z_1)`, and the bound has a price for each
# level:
#
# .. math::
#
#    \log p(x) \ge \mathbb E_q \Bigl[\log p(x \mid z_1)
#    - \underbrace{\log \frac{q(z_1 \mid x)}{p(z_1 \mid z_2)}}_{\mathrm{KL}_1}
#    - \underbrace{\mathrm{KL}\bigl(q(z_2 \mid z_1) \,\|\, \mathcal N(0, I)\bigr)
#    }_{\mathrm{KL}_2}\Bigr] .
#
# What :math:`\mathrm{KL}_2` costs has to be won back, in :math:`\mathrm{KL}_1` or in
# the likelihood. The usual explanation of the silence is how training begins: the lower
# codes carry noise, there is nothing about them to learn, and the cheapest :math:`z_2`
# is one that says nothing.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops

from dlcompanion import backend, claims, datasets
from dlcompanion.claims import claim
from dlcompanion.generative import VAE, HierarchicalVAE
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.plotting import plot_image_grid
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
(x_train, _), (x_test, _) = datasets.digits(flat=True, seed=claims.seed())
pixels, seeds, LATENT, UPPER = x_train.shape[-1], claims.seeds(3), 8, 2
side = int(pixels**0.5)  # of a picture
BATCH = 128
# whole batches: a smaller last one would be compiled for itself
x_train = x_train[: len(x_train) // BATCH * BATCH]

# %%
# Digits of 8 by 8, eight codes, and two codes above them; three seeds. The rival is the
# VAE with one level and as many parameters, 35 800. Each is trained plainly for thirty
# epochs, or *woken*: twenty epochs with free bits, where each code of each level is
# charged for 0.3 nats whether it says something or not, and then ten on the true bound,
# with the last ten of the other's learning rates.


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def make(levels, free_bits=0.0):
    """Networks of equal size: the first layer of the one-level model is wider."""
    settings = {"latent": LATENT, "free_bits": free_bits, "seed": claims.seed()}
    if levels == 1:
        model = VAE.dense(pixels, hidden=(132, 64), **settings)
    else:
        model = HierarchicalVAE.dense(
            pixels, upper=UPPER, hidden=(128, 64), upper_hidden=(32,), **settings
        )
    model.build(x_train.shape)
    return model


def fresh(levels, seed):
    keras.utils.set_random_seed(seed)
    return make(levels).get_weights()


def prepared(model, epochs):
    """The model, compiled with a rate that falls to zero in so many epochs."""
    steps = epochs * len(x_train) // BATCH
    schedule = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(keras.optimizers.Adam(schedule))
    return model


def fitted(model, epochs, starts, done=0):
    """The weights after training from each of the given weights, in one program."""
    ended = []
    for seed, start in zip(seeds, starts, strict=True):
        restart(model, seed, weights=start)
        model.optimizer.iterations.assign(done * len(x_train) // BATCH)
        fit_in_memory(
            model, x_train, batch_size=BATCH, initial_epoch=done, epochs=epochs,
            verbose=0,
        )  # fmt: skip
        ended.append(model.get_weights())
    return ended


weights = {}
for levels, name in ((1, "one level"), (2, "two levels")):
    starts = [fresh(levels, seed) for seed in seeds]
    plain = prepared(make(levels), 30)
    weights[name] = fitted(plain, 30, starts)
    woken = fitted(prepared(make(levels, free_bits=0.3), 20), 20, starts)
    weights[name + ", woken"] = fitted(plain, 30, woken, done=20)
sizes = [make(levels).count_params() for levels in (1, 2)]

# %%
# All are measured on test pictures, by the true bound, on one draw (ELBO) and on
# thirty-two; and so is the price of each level. What the upper code *says* is measured
# too: the pictures that the model draws vary, and a share of their variance lies
# between the means for different :math:`z_2`.

judges = {"one": make(1), "two": make(2)}
one, two = judges.values()
measure = {
    "one": backend.compile(lambda x: (one.elbo(x, 16), one.iwae(x, 32)), jit=False),
    "two": backend.compile(
        lambda x: (two.elbo(x, 16), two.iwae(x, 32), *two.divergences(x, 16)),
        jit=False,
    ),
}
elbo, many, costs, said = {}, {}, {}, {}
rng = np.random.default_rng(claims.seed())
z2 = np.repeat(rng.normal(size=(50, UPPER)), 20, axis=0)
for name, ended in weights.items():
    kind = name[:3]
    found, said[name] = [], []
    for state in ended:
        judges[kind].set_weights(state)
        x = ops.convert_to_tensor(x_test)
        found.append([numbers(part).mean(axis=0) for part in measure[kind](x)])
        if kind == "two":
            drawn = numbers(two.sample_given(z2)).reshape(50, 20, pixels)
            # the share of the variance of samples that z2 explains
            within = drawn.var(axis=1, ddof=1).sum(-1).mean()
            between = drawn.mean(axis=1).var(axis=0, ddof=1).sum() - within / 20
            said[name].append(float(between / (between + within)))
    elbo[name], many[name] = (np.array([f[k] for f in found]) for k in (0, 1))
    if kind == "two":
        costs[name] = np.array([[f[2].sum(), f[3].sum()] for f in found])
    else:
        found = []
        for state in ended:
            one.set_weights(state)
            found.append(numbers(kl_to_standard_normal(*one.encode(x_test))))
        costs[name] = np.array([[kl.mean(axis=0).sum(), 0.0] for kl in found])

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
for number, name in enumerate(weights):
    place = number + 0.22 * (np.arange(len(seeds)) - 1)
    lower, upper = costs[name].T
    left.bar(place, lower, 0.2, color="C0", label=None if number else "lower level")
    left.bar(
        place, upper, 0.2, lower, color="C1", label=None if number else "upper level"
    )
    right.plot(elbo[name], [3 - number] * len(seeds), "o", color="C2")
    right.plot(many[name], [3 - number] * len(seeds), "x", color="C3")
left.set_xticks(range(4), [name.replace(", ", ",\n") for name in weights])
left.set(ylabel="price on test pictures [nats]")
left.set_ylim(0, 3.3)
left.legend(ncols=2)
right.set_yticks(range(4), list(weights)[::-1])
right.set(xlabel="bound on test pictures [nats]; circles 1 draw, crosses 32")
# alt: Left, bars of the KL terms of both levels for each seed: the upper one is thin
# without free bits; right, test bounds of the four models, circles for one draw,
# crosses for 32.
plt.show()

# %%
# Each row has one :math:`z_2`, and ten draws of :math:`z_1` for it. In the model that
# was trained plainly, on the left, every row is a sample of everything. In the woken
# one a row is a family: :math:`z_2` has chosen a kind of picture, and :math:`z_1`
# varies it.

few = np.array([[-1.5, -1.5], [-1.5, 1.5], [0, 0], [1.5, -1.5], [1.5, 1.5]])
figure, panels = plt.subplots(1, 2, figsize=(10, 2.9), layout="constrained")
for axes, name in zip(panels, ("two levels", "two levels, woken"), strict=True):
    two.set_weights(weights[name][-1])
    sheet = numbers(two.sample_given(np.repeat(few, 10, axis=0)))
    plot_image_grid(
        sheet.reshape(len(few), 10, side, side).clip(0, 1),
        row_labels=[f"({a:g}, {b:g})" for a, b in few], ax=axes,
    )  # fmt: skip
    axes.set(title=name, xticks=[], xlabel="draws of $z_1$", ylabel="$z_2$")
# alt: Two sheets of drawn digits, five upper codes in rows: on the left all rows look
# alike, on the right each row has its own kind of digit.
plt.show()

# %%
# What to notice
# --------------
#
# - Trained plainly the upper level falls silent: it costs a small part of a nat, and
#   leaves almost all of the variety of the images to the lower one. The bound of the
#   two-level model is then no better than that of one level.
# - Free bits wake it, and it *stays* in use on the true bound, which no longer rewards
#   free bits: the upper level was worth using, and training had not found it.
# - Free bits help one level as well. The fair rival is therefore the VAE that was
#   trained with them too, and beside it the second level is worth a fraction of a nat,
#   of twenty-five. Its sign depends on the seed and on the length of training.
# - The price of one level has been split rather than cut: the upper level costs most
#   of a nat, the lower one is cheaper by nearly as much.
# - These are eight codes of small images, of which few are used. The gain that the
#   literature has from many levels is one of large images and deep networks, and this
#   page says nothing about it.

print(f"parameters {sizes[0]} and {sizes[1]}; medians of {len(seeds)} seeds, in nats")
print("test pictures         ELBO   32 draws   KL 1   KL 2   variance due to z2")
for name in weights:
    lower, upper = np.median(costs[name], axis=0)
    share = f"{np.median(said[name]):.2f}" if said[name] else "-"
    print(f"{name:18s} {np.median(elbo[name]):7.2f} {np.median(many[name]):10.2f} "
          f"{lower:6.2f} {upper:6.2f} {share:>8s}")  # fmt: skip
for name, found in elbo.items():
    print(f"{name:18s} ELBO of each seed {np.round(found, 2)}")

woken, plain = "two levels, woken", "two levels"
claim(
    "KL of the upper level of a two-level VAE, trained plainly, median seed",
    np.median(costs[plain][:, 1]), "<", 0.6, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "KL of the upper level, free bits first and then the true bound, median seed",
    np.median(costs[woken][:, 1]), ">", 0.3, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "variance of samples due to z2: share after free bits less plain training, medians",
    np.median(said[woken]) - np.median(said[plain]), ">", 0, seeds=len(seeds),
)  # fmt: skip
claim(
    "test ELBO, free bits first: two levels less one level, absolute, median seed",
    abs(np.median(elbo[woken] - elbo["one level, woken"])), "<", 0.8, unit="nats",
    seeds=len(seeds),
)  # fmt: skip
claim(
    "test ELBO, trained plainly: two levels less one level, median seed",
    np.median(elbo[plain] - elbo["one level"]), "<", 1.2, unit="nats",
    seeds=len(seeds),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Wake the lower level only: which of the two levels needs it?
# 2. Raise ``beta`` from 0 to 1 in a few stages in place of free bits. Does the upper
#    level wake too, and does it stay?
# 3. Give the upper level eight codes. How many are used after free bits?
#
# .. dropdown:: Hint to 1
#
#    Free bits of each level are one number in ``make``; subclass the model, or clip the
#    divergence of one level only.
#
# .. dropdown:: Hint to 2
#
#    Compile anew with ``beta`` 0.1, 0.3 and 1, ten epochs each, and keep the weights.
#    Compare the KL of the upper level with that after free bits.
#
# .. dropdown:: Hint to 3
#
#    Set ``UPPER = 8``, give ``few`` six more columns of zeros, label its rows by
#    ``few[:, :2]``, and print the mean over the examples of
#    ``two.divergences(x_test)[1]``: one number for each upper code.
#
# References
# ----------
# Two-level models of this kind are those of :cite:t:`rezende2014stochastic` and
# :cite:t:`burda2016importance`; that their upper levels fall silent, and a way of
# inference that comes down the ladder, is the subject of
# :cite:t:`sonderby2016ladder`; free bits are those of :cite:t:`kingma2016improved`.

# sphinx_gallery_tags = ["model", "advanced"]
