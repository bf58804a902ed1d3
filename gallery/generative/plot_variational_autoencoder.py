r"""
Variational autoencoder (VAE): two numbers are enough to draw a digit
=====================================================================

A variational autoencoder learns a distribution from examples, without labels, and draws
new ones from it. It is a latent variable model: first a short code :math:`z` is drawn,
then the image, given the code. The codes are never observed, and the sum over all of
them cannot be computed. So a second network, the encoder, guesses the code behind an
image, and both networks are trained on a lower bound of the likelihood, the ELBO, which
can be computed. Use it for generation, compression, or a smooth map of the data; for
sharp images or exact likelihoods take another model of this chapter.
:class:`~dlcompanion.generative.VAE` is built from any encoder and decoder.

In your own model
-----------------

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.generative import VAE

   x = np.random.default_rng(0).uniform(size=(256, 20)).astype("float32")
   encoder = keras.Sequential([keras.Input((20,)), keras.layers.Dense(2 * 3)])
   decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(20)])
   vae = VAE(encoder, decoder, likelihood="gaussian")  # codes of three numbers
   vae.compile("adam")
   vae.fit(x, epochs=2, verbose=0)
   new, bound = vae.sample(5), vae.elbo(x)

Prerequisites: :doc:`/gallery/foundations/plot_backpropagation`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_conditional_autoencoder`; how the
gradient passes the draw: :doc:`/gallery/generative/plot_reparameterization`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/variational_autoencoder.svg
#    :figclass: drawing
#    :alt: The encoder maps an image to mu and sigma, which with noise give the code z;
#       the decoder draws an image from z. The bound asks that both images are alike and
#       that codes stay near a standard normal.
#
# Let :math:`z \sim \mathcal N(0, I)` and let a decoder give :math:`p_\theta(x \mid z)`.
# For any guess :math:`q_\phi(z \mid x)` Jensen's inequality bounds the likelihood from
# below :cite:p:`kingma2014auto`,
#
# .. math::
#
#    \log p_\theta(x) \;\ge\; \mathbb E_{q_\phi(z \mid x)}\bigl[\log p_\theta(x \mid z)
#    \bigr] - \mathrm{KL}\bigl(q_\phi(z \mid x)\,\|\,\mathcal N(0, I)\bigr),
#
# and what is lost is the divergence of the guess from the true posterior. With
# :math:`q_\phi = \mathcal N(\mu, \sigma^2)` and :math:`z = \mu + \sigma \odot
# \varepsilon` the draw of :math:`z` has a gradient, and the second term a closed form.

from statistics import NormalDist

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.decomposition import PCA

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.generative import VAE
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
(x_train, _), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
pixels, BATCH = x_train.shape[-1], 128
size = int(pixels**0.5)  # of a picture
# whole batches: a smaller last one would be compiled for itself
x_train = x_train[: len(x_train) // BATCH * BATCH]


def trained(seeds, rate, epochs, batch_size=BATCH, **settings):
    """One VAE from several seeds, one after the other in one compiled program."""
    steps = epochs * len(x_train) // batch_size
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    vae = VAE.dense(pixels, likelihood="gaussian", **settings)
    vae.compile(keras.optimizers.Adam(schedule))
    vae.build(x_train.shape)
    for seed in seeds:
        restart(vae, seed)
        fit_in_memory(vae, x_train, batch_size=batch_size, epochs=epochs, verbose=0)
        yield vae


def mean(tensor):
    return float(np.mean(ops.convert_to_numpy(tensor)))


# %%
# A code of two numbers
# ---------------------
#
# The same network from five seeds: 64 pixels, 128 and 64 hidden units, two codes. The
# pixels are Gaussian around what the decoder gives, with one standard deviation that is
# learned as well. What the free bits are for is the last section of this page.
#
# Principal components are the baseline at equal size of the code, the best that two
# numbers can do if the decoder is linear; and below both stands one picture, the mean.

seeds = claims.seeds(5)
pca = PCA(2).fit(x_train)
by_pca = pca.inverse_transform(pca.transform(x_test))
error_pca = np.mean((by_pca - x_test) ** 2)
error_vae, elbo, iwae = np.zeros((3, len(seeds)))
settings = {"latent": 2, "hidden": (128, 64), "free_bits": 0.5}
for n, vae in enumerate(trained(seeds, 8e-3, epochs=60, **settings)):
    by_vae = ops.convert_to_numpy(vae.reconstruct(x_test))
    error_vae[n] = np.mean((by_vae - x_test) ** 2)
    elbo[n] = mean(vae.elbo(x_test, samples=16))
    iwae[n] = mean(vae.iwae(x_test, samples=64))

# %%
# Left, the test pictures at the means of their codes; the encoder was trained without
# the classes. Right, the decoder along a grid of codes, spaced such that each picture
# stands for the same share of the prior. No digit here was ever written.

codes, _ = (ops.convert_to_numpy(c) for c in vae.encode(x_test))
side = 16
shares = (np.arange(side) + 0.5) / side
quantiles = [NormalDist().inv_cdf(share) for share in shares]
grid = np.stack(np.meshgrid(quantiles, quantiles[::-1]), axis=-1).reshape(-1, 2)
drawn = ops.convert_to_numpy(vae.decode(grid)).reshape(side, side, size, size)
drawn = np.pad(drawn, ((0, 0), (0, 0), (1, 1), (1, 1)))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
points = left.scatter(*codes.T, c=y_test, cmap="tab10", s=14, vmin=-0.5, vmax=9.5)
figure.colorbar(points, ax=left, ticks=range(10), location="left", label="digit")
left.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal", xlim=(-3.5, 3.5))
left.set_ylim(-3.5, 3.5)
right.imshow(
    drawn.transpose(0, 2, 1, 3).reshape(side * (size + 2), -1),
    cmap="gray_r",
    vmin=0,
    vmax=1,
)
right.set(xticks=[], yticks=[], title="decoded")
# alt: Left, codes of the test digits in the plane, one color a class, classes in
# patches; right, a grid of decoded codes, whose digits change smoothly into each other.
plt.show()

# %%
# Both compress ten pictures that they have not seen, the noise switched off; the last
# row is drawn from the prior.

few = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
rows = {"given": x_test, "VAE": by_vae, "PCA": by_pca}
rows["sampled"] = ops.convert_to_numpy(vae.sample(10))
figure, panels = plt.subplots(4, 10, figsize=(9, 3.9), layout="constrained")
for line, (name, pictures) in zip(panels, rows.items(), strict=True):
    shown = pictures if name == "sampled" else pictures[few]
    for axes, picture in zip(line, shown, strict=True):
        axes.imshow(picture.reshape(size, size), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(name)
# alt: Four rows of ten digits: given, reconstructed by the VAE, reconstructed by two
# principal components, which are more blurred, and drawn from the prior.
plt.show()

# %%
# How far below the likelihood is the bound?
# ------------------------------------------
#
# The decoder's likelihood cannot be computed, but bounds closer to it can: the mean
# weight :math:`p(x, z_k) / q(z_k \mid x)` of :math:`K` draws, *inside* the logarithm
# :cite:p:`burda2016importance`. One draw gives the ELBO, many approach
# :math:`\log p(x)`. The linear model needs no bound, its likelihood has a closed form.

variance = x_train.var(axis=0).mean()
distance = np.sum((x_test - x_train.mean(axis=0)) ** 2, axis=1).mean() / variance
trivial = -0.5 * (pixels * np.log(2 * np.pi * variance) + distance)
print(f"mean picture, one variance     {trivial:.2f} nats")
print(f"probabilistic PCA, two codes   {pca.score(x_test):.2f}")
print(f"VAE, two codes: ELBO           {elbo.round(1)}")
print(f"importance weighted, K = 64    {iwae.round(1)}")

# %%
# The case that can be solved
# ---------------------------
#
# With linear networks and Gaussian noise the model is probabilistic PCA
# :cite:p:`tipping1999probabilistic`. Its likelihood has a closed form, its posterior is
# a Gaussian of the kind that the encoder can express, and so nothing need be lost: the
# ELBO at the optimum *is* the likelihood :cite:p:`lucas2019dont`.

exact = pca.score(x_train)
linear = [
    mean(vae.elbo(x_train, samples=64))
    for vae in trained(seeds[:3], 0.05, 400, len(x_train), latent=2, hidden=())
]
print(f"probabilistic PCA, closed form  {exact:.3f} nats")
print(f"linear VAE, ELBO, each seed     {np.round(linear, 3)}")

# %%
# Codes that fall silent
# ----------------------
#
# Give the network eight codes instead of two, and it may use none. A code that carries
# nothing costs nothing, and early in training, while the pixels are still taken for
# noisy, no code pays its price: the encoder stops using it before the decoder has
# learned what it means (posterior collapse). Free bits take the incentive away: up to
# :math:`\lambda` nats a code are free :cite:p:`kingma2016improved`.

used, bounds = {0.0: [], 0.5: []}, {0.0: [], 0.5: []}
for free in used:
    settings = {"latent": 8, "hidden": (128, 64), "free_bits": free}
    for vae in trained(seeds, 8e-3, epochs=30, **settings):
        divergence = kl_to_standard_normal(*vae.encode(x_test))
        divergence = ops.convert_to_numpy(divergence).mean(axis=0)
        used[free].append(np.sort(divergence)[::-1])
        bounds[free].append(mean(vae.elbo(x_test, samples=16)))
    print(f"free bits {free}: ELBO {np.round(bounds[free], 1)} nats")

figure, axes = plt.subplots(figsize=(6.5, 3), layout="constrained")
for offset, (free, nats) in zip((-0.2, 0.2), used.items(), strict=True):
    for row in nats:
        axes.plot(np.arange(1, 9) + offset, row, "_k", ms=14, lw=1)
    bars = np.mean(nats, axis=0)
    axes.bar(np.arange(1, 9) + offset, bars, 0.4, label=rf"$\lambda = {free}$")
axes.axhline(0.5, color="0.4", ls=":", lw=1)
axes.set(
    xlabel="code, sorted by its divergence",
    ylabel="KL on test pictures [nats]",
)
axes.legend()
# alt: Bars of the divergence of eight codes, sorted, with free bits and without: with
# free bits all carry half a nat or more, without most are near zero.
plt.show()

# %%
# What to notice
# --------------
#
# - The code sorts the digits although it never saw a class: neighbors in the plane
#   draw alike. Where classes meet, the decoder draws something between.
# - The pictures are soft. The decoder gives the mean of all pictures that share a
#   code, and two numbers cannot tell strokes apart. PCA is softer still.
# - Free bits change the loss, not the bound that is reported. It is the plain ELBO that
#   they improve, although they do not train for it: without them training ends in a
#   place that the ELBO itself rates low.
#
# And the claims:

claim(
    "test ELBO of two codes less the likelihood of probabilistic PCA, worst seed",
    elbo.min() - pca.score(x_test),
    ">",
    8.0,
    unit="nats",
    seeds=len(seeds),
)
claim(
    "squared error of two codes to that of two principal components, worst seed",
    error_vae.max() / error_pca,
    "<",
    0.75,
    seeds=len(seeds),
)
claim(
    "importance weighted bound of 64 draws less the ELBO, two codes, worst seed",
    (iwae - elbo).min(),
    ">",
    0.5,
    unit="nats",
    seeds=len(seeds),
)
claim(
    "ELBO of a linear VAE and likelihood of probabilistic PCA, largest difference",
    np.max(np.abs(np.array(linear) - exact)),
    "<",
    0.05,
    unit="nats",
    seeds=3,
)
claim(
    "of eight codes, those of more than 0.1 nats without free bits, median seed",
    np.median(np.sum(np.array(used[0.0]) > 0.1, axis=1)),
    "<=",
    5,
    seeds=len(seeds),
)
claim(
    "free bits of half a nat raise the test ELBO of eight codes by, median seed",
    np.median(np.array(bounds[0.5]) - bounds[0.0]),
    ">",
    5.0,
    unit="nats",
    seeds=len(seeds),
)

# %%
# Try it
# ------
#
# 1. Set ``beta`` to 4 and to 0.25. Which of the two reconstructs better, and for which
#    are samples from the prior as good as the reconstructions? Why is it not the same
#    one?
# 2. Give the decoder a large code and little data. How does the gap between the ELBO
#    of training and test pictures grow, and which of the two networks overfits?
# 3. Start the learned noise small, ``vae.log_scale.assign(-2.0)``, without free bits.
#    Do the codes still fall silent? What does the answer tell about the cause?
#
# .. dropdown:: Hint to 1
#
#    The divergence is a price on information. More of it makes codes fill the prior
#    more evenly, so that samples are like reconstructions; less of it makes
#    reconstructions better.
#
# .. dropdown:: Hint to 2
#
#    Compare ``vae.elbo(x_train).mean()`` with that of the test images. Then refit the
#    encoder alone on the test images (``vae.decoder.trainable = False``): what this
#    wins back was the encoder's part.
#
# .. dropdown:: Hint to 3
#
#    Assign before ``fit``. A small noise makes every error of a pixel costly from the
#    first step, so that codes pay at once.
#
# References
# ----------
# :cite:t:`kingma2014auto`, :cite:t:`higgins2017beta`, :cite:t:`kingma2016improved`,
# :cite:t:`burda2016importance`, :cite:t:`tipping1999probabilistic`,
# :cite:t:`lucas2019dont`.

# sphinx_gallery_tags = ["model", "introductory"]
