r"""
Importance-weighted autoencoder (IWAE): a tighter bound, a worse single guess
=============================================================================

A variational autoencoder is trained on the ELBO, a lower bound of the likelihood that
rests on one guess of the latent code of each image. The bound punishes every guess that
explains the image badly, and in training codes may fall silent (posterior collapse).
The importance-weighted autoencoder draws several codes and trains on the logarithm of
their mean importance weight: one good guess is enough, and the bound is tighter. Use it
where the likelihood of the decoder matters, or with few draws more to *measure* a
likelihood; where the encoder itself is wanted, train on the ELBO. This page measures
both: :class:`~dlcompanion.generative.IWAE` gains in the tight bound and loses in the
ELBO. Against silent codes, free bits do more.

In your own model
-----------------

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.generative import IWAE

   x = np.random.default_rng(0).uniform(size=(256, 20)).astype("float32")
   encoder = keras.Sequential([keras.Input((20,)), keras.layers.Dense(2 * 3)])
   decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(20)])
   model = IWAE(encoder, decoder, samples=5)  # five draws of a code of three numbers
   model.compile("adam")
   model.fit(x, epochs=2, verbose=0)
   likelihood = model.iwae(x, samples=100)  # of each example, a bound in nats

Prerequisites: :doc:`/gallery/generative/plot_variational_autoencoder`. Notation:
:doc:`/notation`. Next: :doc:`/gallery/generative/plot_vector_quantized_autoencoder`.
"""

# %%
# The idea
# --------
#
# The likelihood is a mean, :math:`p(x) = \mathbb E_{q}[w]` with
# :math:`w = p(x \mid z)\, p(z) / q(z \mid x)`. The logarithm of an *average* of
# :math:`K` weights is a bound for every :math:`K`, by Jensen's inequality, and it
# tightens because an average scatters less:
#
# .. math::
#
#    L_1 = \mathrm{ELBO} \;\le\; L_K = \mathbb E \log \frac1K \sum_{k=1}^K w_k
#    \;\le\; L_{K+1} \;\le\; \log p(x) .
#
# Its gradient weighs the draws, :math:`\sum_k \tilde w_k \nabla \log w_k` with
# :math:`\tilde w_k = w_k / \sum_j w_j`: bad guesses are not punished, they are ignored.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.decomposition import PCA

from dlcompanion import backend, claims, datasets
from dlcompanion.claims import claim
from dlcompanion.generative import IWAE, VAE
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
(x_train, _), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
pixels, BATCH = x_train.shape[-1], 128
side = int(pixels**0.5)  # of a picture
# whole batches: a smaller last one would be compiled for itself
x_train = x_train[: len(x_train) // BATCH * BATCH]
seeds, LATENT = claims.seeds(3), 8
SETTINGS = {"latent": LATENT, "hidden": (128, 64), "likelihood": "gaussian"}

# %%
# Digits, eight codes, Gaussian pixels whose standard deviation is learned: the case in
# which the ELBO uses no code at all. Five ways of training, three seeds each. The rival
# is the remedy made for the purpose, *free bits*, and the last two go on from what free
# bits have found, with one draw and with twenty.


def fitted(model, epochs, rate, starts):
    """The weights after training from each of the given weights."""
    schedule = keras.optimizers.schedules.CosineDecay(
        rate, epochs * len(x_train) // BATCH
    )
    model.compile(keras.optimizers.Adam(schedule))
    model.build(x_train.shape)
    ended = []
    for seed, start in zip(seeds, starts, strict=True):
        restart(model, seed, weights=start)
        fit_in_memory(model, x_train, batch_size=BATCH, epochs=epochs, verbose=0)
        ended.append(model.get_weights())
    return ended


def fresh(seed):
    keras.utils.set_random_seed(seed)
    model = VAE.dense(pixels, **SETTINGS)
    model.build(x_train.shape)
    return model.get_weights()


starts = [fresh(seed) for seed in seeds]
weights = {
    f"{draws} draw{'s' * (draws > 1)}": fitted(
        IWAE.dense(pixels, samples=draws, **SETTINGS), 40, 4e-3, starts
    )
    for draws in (1, 20)
}
weights["free bits"] = fitted(
    VAE.dense(pixels, free_bits=0.5, **SETTINGS), 40, 4e-3, starts
)
for draws in (1, 20):
    weights[f"free bits, then {draws}"] = fitted(
        IWAE.dense(pixels, samples=draws, **SETTINGS),
        10,
        2e-3,
        weights["free bits"],
    )

# %%
# Every model is the same kind of thing, whatever it was trained on, and is measured by
# the same bounds: :math:`L_k` on test pictures for 1 to 32 draws. The ELBO, on the
# left, says how good a *single* guess is; the right end comes close to the likelihood.

judge = VAE.dense(pixels, seed=claims.seed(), **SETTINGS)
judge.build(x_train.shape)
counts = [1, 4, 32]
measure = backend.compile(
    lambda x: [judge.elbo(x, 16)] + [judge.iwae(x, k) for k in counts[1:]], jit=False
)
bounds, active = {}, {}
for name, ended in weights.items():
    bounds[name], active[name] = np.zeros((len(seeds), len(counts))), []
    for n, found in enumerate(ended):
        judge.set_weights(found)
        measured = measure(ops.convert_to_tensor(x_test))
        bounds[name][n] = [np.mean(ops.convert_to_numpy(b)) for b in measured]
        divergence = kl_to_standard_normal(*judge.encode(x_test))
        divergence = ops.convert_to_numpy(divergence).mean(axis=0)
        active[name].append(np.sort(divergence)[::-1])
exact = PCA(LATENT).fit(x_train).score(x_test)

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
for number, (name, rows) in enumerate(active.items()):
    place = np.arange(1, LATENT + 1) + 0.16 * (number - 2)
    left.bar(place, np.mean(rows, axis=0), 0.16, color=f"C{number}", label=name)
    right.plot(counts, bounds[name].T, "-", color=f"C{number}", lw=0.8, alpha=0.6)
    right.plot(counts, np.median(bounds[name], axis=0), "o-", color=f"C{number}")
left.set(xlabel="code, sorted", ylabel="KL on test pictures [nats]")
left.set_ylim(0, 0.95)
left.legend(title="trained on", fontsize="small", ncols=2)
right.axhline(exact, color="0.5", ls=":", lw=1)
right.annotate("probabilistic PCA, 8 codes", (1, exact), xytext=(0, 4), color="0.4",
               textcoords="offset points", fontsize="small")  # fmt: skip
right.set(xscale="log", xlabel="draws of the bound that is measured", ylabel="nats")
right.set_xticks(counts, [str(k) for k in counts])
right.minorticks_off()
# alt: Left, divergence of eight codes, sorted, by way of training: high with free bits;
# right, test bound against the number of draws that measure it, one curve a way,
# probabilistic PCA dotted.
plt.show()

# %%
# What the codes are good for: the test pictures drawn again from the means of their
# codes. A model with silent codes has one image for everything.

few = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
figure, panels = plt.subplots(
    1 + len(weights), 10, figsize=(8, 5.2), layout="constrained"
)
rows = {"given": x_test[few]}
for name, ended in weights.items():
    judge.set_weights(ended[0])
    rows[name] = ops.convert_to_numpy(judge.reconstruct(x_test[few]))
for line, (name, pictures) in zip(panels, rows.items(), strict=True):
    for axes, picture in zip(line, pictures, strict=True):
        axes.imshow(picture.reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
# alt: Six rows of ten digits: given, and reconstructed by each way of training; the
# model with silent codes shows one gray shape for all.
plt.show()

# %%
# What to notice
# --------------
#
# - Trained on one draw, codes fall silent. With twenty draws a try that fails costs
#   little, and codes may come into use. It is not certain: for some seeds forty epochs
#   of twenty draws use no code, and no claim below rests on it.
# - The curves of the right-hand figure are not parallel. What is trained on many draws
#   gains most where many draws are measured: its single guess is not a good one, and
#   was not trained to be one. If the *encoder* is what you want, this is a loss.
# - The remedy that is made for silent codes, free bits, uses all of them with every
#   seed, at a fraction of the price. Codes fall silent because of how training begins,
#   and no tighter bound is needed to begin otherwise.
# - Going on from there, twenty draws gain about half a nat over one draw if many draws
#   are measured, and lose more than one if a single guess is. Tighter is not better; it
#   is another aim.
# - Forty epochs are few: probabilistic PCA, whose optimum is found in one step, is
#   printed beside them.

print("test pictures, nats          ELBO    32 draws   codes above 0.1 nats")
print(f"{'probabilistic PCA':24s} {exact:8.2f} {exact:12.2f}")
for name, found in bounds.items():
    used = [int(np.sum(row > 0.1)) for row in active[name]]
    elbo, last = np.median(found, axis=0)[[0, -1]]
    print(f"{name:24s} {elbo:8.2f} {last:12.2f}   {used}")

used = {k: [int(np.sum(row > 0.1)) for row in rows] for k, rows in active.items()}
last = {name: found[:, -1] for name, found in bounds.items()}
elbo = {name: found[:, 0] for name, found in bounds.items()}
claim(
    "VAE trained on one draw: codes above 0.1 nats, of 8, median seed",
    np.median(used["1 draw"]), "<=", 3, seeds=len(seeds),
)  # fmt: skip
claim(
    "VAE trained with free bits of half a nat: codes above 0.1 nats, of 8, worst seed",
    min(used["free bits"]), ">=", 4, seeds=len(seeds),
)  # fmt: skip
claim(
    "test bound of 32 draws: trained on 20 draws less trained on 1, median seed",
    np.median(last["20 draws"] - last["1 draw"]), ">", 0, unit="nats",
    seeds=len(seeds),
)  # fmt: skip
claim(
    "test ELBO: free bits less training on 20 draws, median seed",
    np.median(elbo["free bits"] - elbo["20 draws"]), ">", 0, unit="nats",
    seeds=len(seeds),
)  # fmt: skip
claim(
    "test bound of 32 draws, from free bits: 20 draws less 1 draw, median seed",
    np.median(last["free bits, then 20"] - last["free bits, then 1"]),
    ">", 0, unit="nats", seeds=len(seeds),
)  # fmt: skip
claim(
    "test ELBO, from free bits: training on 1 draw less training on 20, median seed",
    np.median(elbo["free bits, then 1"] - elbo["free bits, then 20"]),
    ">", 0, unit="nats", seeds=len(seeds),
)  # fmt: skip

# %%
# Try it
# ------
#
# 1. Train with one draw of the plain :class:`~dlcompanion.generative.VAE` and with
#    ``samples=1`` here. The means of the two gradients are the same. Which scatters
#    less, and why?
# 2. Look at the effective number of draws, :math:`1 / \sum_k \tilde w_k^2`, on test
#    pictures. How many of the twenty are at work?
# 3. Train the encoder on the ELBO and the decoder on :math:`L_{20}`. Is that better
#    than either?
#
# .. dropdown:: Hint to 1
#
#    Both draw one code. The VAE takes the divergence in closed form, IWAE estimates it
#    from the draw: the difference is noise of mean zero.
#
# .. dropdown:: Hint to 2
#
#    ``model(x)["log_weights"]``, softmax over the draws. An effective number far below
#    20 says that the encoder is a poor proposal.
#
# .. dropdown:: Hint to 3
#
#    Two optimizers, or two models that share layers: :math:`L_1` for the weights of the
#    encoder and :math:`L_{20}` for those of the decoder.
#
# References
# ----------
# The bound is that of :cite:t:`burda2016importance`; why tighter is not always better
# is the subject of :cite:t:`rainforth2018tighter`; free bits are those of
# :cite:t:`kingma2016improved`.

# sphinx_gallery_tags = ["model", "advanced"]
