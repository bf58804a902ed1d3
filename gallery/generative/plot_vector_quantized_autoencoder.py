r"""
Vector-quantized autoencoder (VQ-VAE): 20 bits draw a digit better than 4 numbers
=================================================================================

A code of real numbers suits a network, but not what works on symbols: a language model,
a table, a file. The vector-quantized (vector-quantised) autoencoder,
:class:`~dlcompanion.generative.VQVAE`, writes every example as a few entries of a
codebook that it learns along the way. Looking up an entry has no gradient, so two
questions arise: how the encoder learns, and how the codebook does. The first answer is
the straight-through gradient, the second is k-means by running means. Use it to turn
images or sound into tokens, or to compress; where codes should vary smoothly, take a
variational autoencoder.

In your own model
-----------------

.. code-block:: python

   import keras
   import numpy as np

   from dlcompanion.generative import VQVAE, EMAVectorQuantizer

   x = np.random.default_rng(0).normal(size=(256, 20)).astype("float32")
   layers = keras.layers
   encoder = keras.Sequential([layers.Dense(3 * 4), layers.Reshape((3, 4))])
   decoder = keras.Sequential([layers.Flatten(), layers.Dense(20)])
   model = VQVAE(encoder, decoder, EMAVectorQuantizer(codes=16))
   model.compile("adam")
   model.fit(x, epochs=2, verbose=0)
   tokens = model.encode(x)  # (256, 3), integers below 16
   again = model.decode(tokens)

Prerequisites: :doc:`/gallery/generative/plot_variational_autoencoder`,
:doc:`/gallery/generative/plot_reparameterization`. Notation: :doc:`/notation`. Next:
:doc:`/gallery/generative/plot_hierarchical_autoencoder`.
"""

# %%
# The idea
# --------
#
# .. figure:: /drawings/vector_quantized_autoencoder.svg
#    :figclass: drawing
#    :alt: The encoder gives a point z in the plane of the codebook, the nearest of five
#       codes replaces it and goes to the decoder; the gradient goes from decoder to
#       encoder past the lookup.
#
# The encoder gives :math:`m` vectors :math:`z`, each is replaced by the nearest of
# :math:`K` codes, and the decoder sees the codes:
#
# .. math::
#
#    k = \arg\min_j \lVert z - e_j \rVert, \qquad
#    L = \lVert x - \mathrm{decoder}(e_k) \rVert^2
#    + \lVert \mathrm{sg}(z) - e_k \rVert^2
#    + \beta \lVert z - \mathrm{sg}(e_k) \rVert^2 .
#
# The gradient of the first term is handed to :math:`z` as if it had been :math:`e_k`
# (straight-through). The second moves the codes; where it is replaced by running means,
# it is k-means on vectors that move. The third keeps the encoder near its codes. The
# file of an example has :math:`m \log_2 K` bits, here :math:`4 \times 5`.

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from dlcompanion import claims, datasets
from dlcompanion.claims import claim
from dlcompanion.generative import VQVAE, EMAVectorQuantizer, VectorQuantizer
from dlcompanion.plotting import plot_image_grid
from dlcompanion.training import fit_in_memory, restart

keras.utils.set_random_seed(claims.seed())
(x_train, y_train), (x_test, y_test) = datasets.digits(flat=True, seed=claims.seed())
pixels, classes = x_train.shape[-1], int(y_train.max()) + 1
side = int(pixels**0.5)  # of a picture
half = side // 2
PLACES, CODES, EPOCHS, BATCH = 4, 32, 40, 128
whole = len(x_train) // BATCH * BATCH  # a smaller last batch would be compiled too
x_train, y_train = x_train[:whole], y_train[:whole]


def autoencoder(quantizer):
    layers = keras.layers
    encoder = keras.Sequential(
        [
            keras.Input((pixels,)),
            layers.Dense(256, "relu"),
            layers.Dense(8 * PLACES),
            layers.Reshape((PLACES, 8)),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((PLACES, 8)),
            layers.Flatten(),
            layers.Dense(256, "relu"),
            layers.Dense(pixels),
        ]
    )
    return VQVAE(encoder, decoder, quantizer)


def trained(make_quantizer, seeds):
    """One model from several seeds, one after the other in one compiled program."""
    model = autoencoder(make_quantizer())
    rate = keras.optimizers.schedules.CosineDecay(4e-3, EPOCHS * whole // BATCH)
    model.compile(keras.optimizers.Adam(rate))
    model.build(x_train.shape)
    for seed in seeds:
        restart(model, seed)
        history = fit_in_memory(
            model, x_train, batch_size=BATCH, epochs=EPOCHS, verbose=0
        )
        yield model, history.history


def squared_error(found):
    return float(np.mean((ops.convert_to_numpy(found) - x_test) ** 2))


# %%
# Three ways to the list
# ----------------------
#
# Codes as running means, five seeds; codes by gradient, three seeds; and running means
# once more, three seeds, with codes that start ten times farther out than the vectors.
# After each epoch the *perplexity* says how many codes are in use: 32 at best.


def far():
    return EMAVectorQuantizer(
        CODES, initializer=keras.initializers.RandomNormal(stddev=1.0)
    )


error, perplexity, seeds = {}, {}, claims.seeds(5)
for name, make, runs in (
    ("started far out", far, 3),
    ("by gradient", lambda: VectorQuantizer(CODES), 3),
    ("running means", lambda: EMAVectorQuantizer(CODES), 5),
):
    error[name], perplexity[name] = [], []
    for model, history in trained(make, seeds[:runs]):
        error[name].append(squared_error(model.reconstruct(x_test)))
        perplexity[name].append(history["perplexity"])

# %%
# What twenty bits are worth elsewhere. K-means on the four quarters of the picture,
# with 32 centers, is a list of codes as well, without a network. Four principal
# components, each rounded to one of 32 levels that are chosen best, take twenty bits
# too; so that nobody can say that they were rounded badly, they stand here unrounded.


def quarters(x):
    x = x.reshape(-1, 2, half, 2, half).transpose(0, 1, 3, 2, 4)
    return x.reshape(-1, half * half)


k_means = KMeans(CODES, n_init=1, random_state=claims.seed()).fit(quarters(x_train))
parts = k_means.cluster_centers_[k_means.predict(quarters(x_test))]
by_k_means = parts.reshape(-1, 2, 2, half, half).transpose(0, 1, 3, 2, 4)
by_k_means = by_k_means.reshape(-1, pixels)
pca = PCA(4).fit(x_train)
by_pca = pca.inverse_transform(pca.transform(x_test))
baselines = {
    "mean picture": squared_error(np.broadcast_to(x_train.mean(axis=0), x_test.shape)),
    "4 principal components": squared_error(by_pca),
    "k-means of quarters": squared_error(by_k_means),
}
print("squared error of a pixel, test pictures    perplexity at the end")
for name, value in baselines.items():
    print(f"{name:24s} {value:.4f}")
for name, values in error.items():
    used = np.round([p[-1] for p in perplexity[name]], 1)
    print(f"{name:24s} {np.round(values, 4)}  {used}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for number, (name, curves) in enumerate(perplexity.items()):
    left.plot(np.transpose(curves), color=f"C{number}", lw=1)
    left.plot([], [], color=f"C{number}", label=name)
    right.plot(error[name], [number] * len(error[name]), "o", color=f"C{number}")
left.axhline(CODES, color="0.6", ls=":", lw=1)
left.set(xlabel="epoch", ylabel="codes in use (perplexity)", ylim=(0, CODES + 2))
left.legend()
for number, value in enumerate(baselines.values()):
    right.plot(value, 3 + number, "kD")
names = [*error, *baselines]
right.set_yticks(range(len(names)), names)
right.set(xlabel="squared error of a pixel, test pictures", xlim=(0, None))
# alt: Left, codes in use against the epoch: near 30 of 32 for running means, below 12
# when started far out; right, squared errors of all methods, running means lowest.
plt.show()

# %%
# Ten test pictures, and what is left of them after twenty bits, which are written
# below: four numbers of the list.

few = [np.flatnonzero(y_test == digit)[1] for digit in range(classes)]
numbers = ops.convert_to_numpy(model.encode(x_test))
by_vq = ops.convert_to_numpy(model.reconstruct(x_test))
rows = {"given": x_test, "VQ-VAE": by_vq, "k-means": by_k_means, "PCA": by_pca}
figure, panels = plt.subplots(4, classes, figsize=(9.5, 4.2), layout="constrained")
for line, (name, pictures) in zip(panels, rows.items(), strict=True):
    for axes, example in zip(line, few, strict=True):
        picture = pictures[example].reshape(side, side)
        axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        if name == "VQ-VAE":
            axes.set_xlabel(" ".join(map(str, numbers[example])), fontsize="small")
    line[0].set_ylabel(name)
# alt: Four rows of ten digits: given, by VQ-VAE with its four numbers below, by k-means
# of quarters and by four principal components.
plt.show()

# %%
# The list is a language
# ----------------------
#
# What do the codes say? Take the three of the row above and replace one of its four
# numbers by each of the 32, one row for each place. A place is not a region of the
# picture: this encoder sees all of it at once, and made its own division.

changed = np.tile(numbers[few[3]], (PLACES, CODES, 1))
for place in range(PLACES):
    changed[place, :, place] = np.arange(CODES)
drawn = ops.convert_to_numpy(model.decode(changed.reshape(-1, PLACES)))
figure, axes = plt.subplots(figsize=(10, 1.7), layout="constrained")
plot_image_grid(
    drawn.reshape(PLACES, CODES, side, side).clip(0, 1),
    row_labels=["1st", "2nd", "3rd", "4th"], ax=axes,
)  # fmt: skip
middles = np.arange(CODES) * (side + 1) + half - 0.5
axes.set_xticks(middles, range(CODES), fontsize="x-small")
# alt: Four rows of 32 digits: one of the four numbers of a three is replaced by each of
# the 32 codes, and the shape changes.
plt.show()

# %%
# Symbols can be counted. The table of how often code :math:`k` stands at place
# :math:`i` in pictures of class :math:`y` is a classifier (naive Bayes) and a model of
# pictures of that class: draw each number after the one before it, by the counts of
# such pairs in the training pictures, and decode. No network was trained for either.

written = ops.convert_to_numpy(model.encode(x_train))
counts = np.full((classes, PLACES, CODES), 0.5)
for place in range(PLACES):
    np.add.at(counts[:, place], (y_train, written[:, place]), 1.0)
frequency = counts / counts.sum(axis=-1, keepdims=True)
log_p = sum(np.log(frequency[:, i, numbers[:, i]]) for i in range(PLACES))
accuracy = float(np.mean(log_p.argmax(axis=0) == y_test))
majority = float(np.mean(y_test == np.bincount(y_train).argmax()))

rng = np.random.default_rng(claims.seed())


def draw(digit):
    """Four numbers, each after those of training pictures that share the last one."""
    same = written[y_train == digit]
    code = [rng.choice(same[:, 0])]
    for place in range(1, PLACES):
        code.append(rng.choice(same[same[:, place - 1] == code[-1], place]))
    return code


sampled = np.array([[draw(digit) for digit in range(classes)] for _ in range(4)])
pictures = ops.convert_to_numpy(model.decode(sampled.reshape(-1, PLACES)))
figure, axes = plt.subplots(figsize=(7, 2.9), layout="constrained")
plot_image_grid(pictures.reshape(4, classes, side, side).clip(0, 1), ax=axes)
axes.set_xticks(np.arange(classes) * (side + 1) + half - 0.5, range(classes))
axes.set(title="drawn from counts, class by class", xlabel="class")
# alt: Forty digits drawn from counts of codes, ten classes in columns, most of them
# readable.
plt.show()

# %%
# What to notice
# --------------
#
# - The list is used almost evenly although nothing in the loss asks for it. Running
#   means are k-means, and a center goes where the vectors are.
# - Unless it starts where no vector comes: a code that is never nearest is never moved.
#   A handful of codes win at once and the rest of the list is dead, without any error
#   message. Watch the perplexity.
# - Twenty bits, spread by a network, beat four real numbers spread by a matrix. What
#   counts is not the size of the code but what its words may mean.
# - The gradient that the encoder gets is wrong, that of another place. It is right
#   enough while :math:`z` stays close to its code: this is what :math:`\beta` is for.

print(f"naive Bayes on four numbers  {accuracy:.3f}; majority class {majority:.3f}")

claim(
    "VQ-VAE of 20 bits: squared error to that of four principal components, worst seed",
    max(error["running means"]) / baselines["4 principal components"], "<", 0.75,
    seeds=5,
)  # fmt: skip
claim(
    "VQ-VAE: squared error to that of k-means on quarters, 20 bits each, worst seed",
    max(error["running means"]) / baselines["k-means of quarters"], "<", 1, seeds=5,
)  # fmt: skip
claim(
    "VQ-VAE with running means: codes in use (perplexity), of 32, worst seed",
    min(p[-1] for p in perplexity["running means"]), ">", 25, seeds=5,
)  # fmt: skip
claim(
    "VQ-VAE with codes started far out: codes in use at the end, of 32, median seed",
    np.median([p[-1] for p in perplexity["started far out"]]), "<", 18, seeds=3,
)  # fmt: skip
claim(
    "squared error of VQ-VAE, codes by running means to codes by gradient, medians",
    np.median(error["running means"]) / np.median(error["by gradient"]), "<", 1,
    seeds=3,
)  # fmt: skip
claim("naive Bayes on the four numbers of a VQ-VAE: test accuracy", accuracy, ">", 0.6)

# %%
# Try it
# ------
#
# 1. Set ``commitment=0``. How far do the vectors wander from their codes, and what does
#    that do to the error of the decoder?
# 2. Keep twenty bits and change their division: 2 numbers of 1,024, 10 of 4, 20 of 2.
#    Which is best, and which is easiest to count?
# 3. Put unused codes back to use: after each epoch move every code that was never the
#    nearest onto a vector of the encoder. Does the bad start still matter?
#
# .. dropdown:: Hint to 1
#
#    Print the mean of :math:`\lVert z - e_k \rVert` before and after. The gradient is
#    taken at the code and used at the vector.
#
# .. dropdown:: Hint to 2
#
#    Change ``PLACES``, ``CODES`` and, in the sheet of changed numbers, ``row_labels``:
#    one label for each place. With many codes few examples fall on each; with 2 codes a
#    place is a bit. The errors are closer together than one might expect.
#
# .. dropdown:: Hint to 3
#
#    In a callback, at the end of an epoch, find the codes that
#    :class:`~dlcompanion.generative.CodePerplexity` has not counted, and assign rows of
#    ``model.encoder(x)`` to them.
#
# References
# ----------
# The model is that of :cite:t:`oord2017neural`; the straight-through gradient that of
# :cite:t:`bengio2013estimating`.

# sphinx_gallery_thumbnail_number = 2
# sphinx_gallery_tags = ["model", "layer", "metric", "intermediate"]
