"""One small model of every kind that the book has, for what all of them must do."""

import keras
import numpy as np
from keras import layers

from dlcompanion.generative import (
    IWAE,
    VAE,
    VQVAE,
    ConditionalVAE,
    Glow,
    MaskedAutoregressiveFlow,
    NeuralSplineFlow,
    RealNVP,
    VariationalBottleneck,
    VectorQuantizer,
)
from dlcompanion.graphs import GraphConvolution, GraphPlan
from dlcompanion.losses import GaussianNLL, TripletBatchHard
from dlcompanion.optimization import Lookahead
from dlcompanion.regularization import DropBlock2D
from dlcompanion.uncertainty import (
    DeepEnsemble,
    DenseFlipout,
    SparseGaussianProcess,
    TemperatureScaling,
)

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(16, 4)).astype("float32")
SUMS = ROWS.sum(axis=1, keepdims=True)
BITS = (ROWS > 0).astype("float32")
CLASSES = np.arange(16) // 2 % 4
IMAGES = RNG.normal(size=(16, 6, 6, 2)).astype("float32")


def network(*middle, inputs=4, outputs=1, activation=None):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(6, "tanh"),
            *middle,
            layers.Dense(outputs, activation),
        ]
    )


def compiled(model, *args, **kwargs):
    model.compile(*args, **kwargs)
    return model


def graph_model():
    plan = GraphPlan([[0, 1, 1, 2], [1, 0, 2, 1]], num_nodes=6)
    inputs = keras.Input((6, 12))
    outputs = GraphConvolution(2, plan)(inputs)
    return compiled(keras.Model(inputs, outputs), "sgd", "mse")


def image_model():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, padding="same"),
            DropBlock2D(0.2, block_size=2, seed=0),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(model, "sgd", loss)


def autoencoder():
    encoder, decoder = network(outputs=4), network(inputs=2, outputs=4)
    return compiled(VAE(encoder, decoder, seed=0), "sgd")


def vector_quantized():
    encoder = keras.Sequential([layers.Dense(6), layers.Reshape((3, 2))])
    decoder = keras.Sequential([layers.Flatten(), layers.Dense(4)])
    return compiled(VQVAE(encoder, decoder, VectorQuantizer(codes=4)), "sgd")


def dense(autoencoder, *args, **kwargs):
    made = autoencoder.dense(4, *args, latent=2, hidden=(6,), seed=0, **kwargs)
    return compiled(made, "sgd")


def ensemble():
    return compiled(DeepEnsemble(classifier, members=2), "sgd", CROSS_ENTROPY)


def classifier(*middle):
    return network(*middle, outputs=4, activation="softmax")


def flow(made, shape=(4,)):
    made.build((None, *shape))
    return compiled(made, "sgd")


CROSS_ENTROPY = "sparse_categorical_crossentropy"

#: Name of the kind: what makes a compiled model, its inputs, its targets, and
#: whether a training step draws random numbers.
KINDS = {
    "optimizer wrapper": (
        lambda: compiled(network(), Lookahead(keras.optimizers.SGD(0.1)), "mse"),
        (ROWS, SUMS),
        False,
    ),
    "loss of pairs": (
        lambda: compiled(network(outputs=3), "sgd", TripletBatchHard()),
        (ROWS, CLASSES),
        True,  # random by the devices: each mines the triplets of its own examples
    ),
    "likelihood": (
        lambda: compiled(network(outputs=2), "sgd", GaussianNLL()),
        (ROWS, SUMS),
        False,
    ),
    "random layer": (image_model, (IMAGES, CLASSES), True),
    "graph layer": (
        graph_model,
        (IMAGES.reshape(16, 6, 12), IMAGES[:, :, 0]),
        False,
    ),
    "autoencoder": (autoencoder, (BITS, None), True),
    "weighted autoencoder": (lambda: dense(IWAE, samples=2), (BITS, None), True),
    "conditional autoencoder": (
        lambda: dense(ConditionalVAE, context=4),
        ([BITS, ROWS], None),
        True,
    ),
    "codebook": (vector_quantized, (ROWS, None), False),
    "bottleneck": (
        lambda: compiled(classifier(VariationalBottleneck(2)), "sgd", CROSS_ENTROPY),
        (ROWS, CLASSES),
        True,
    ),
    "Bayesian layer": (
        lambda: compiled(
            classifier(DenseFlipout(3, training_examples=16)), "sgd", CROSS_ENTROPY
        ),
        (ROWS, CLASSES),
        True,
    ),
    "Gaussian process": (
        lambda: compiled(
            network(SparseGaussianProcess(2, 4, training_examples=16)), "sgd", "mse"
        ),
        (ROWS, SUMS),
        False,
    ),
    "calibrated": (
        lambda: compiled(network(TemperatureScaling()), "sgd", "mse"),
        (ROWS, SUMS),
        False,
    ),
    "ensemble": (ensemble, (ROWS, CLASSES), False),
    "autoregressive flow": (
        lambda: flow(MaskedAutoregressiveFlow(4, blocks=2)),
        (ROWS, None),
        False,
    ),
    "flow of pictures": (
        lambda: flow(Glow((6, 6, 2), levels=1, steps=1, filters=3), (6, 6, 2)),
        (np.clip(IMAGES / 8 + 0.5, 0.01, 0.99), None),
        True,  # ActNorm starts from the first batch, each device from its own half
    ),
    "coupling flow": (lambda: flow(RealNVP(4, couplings=2)), (ROWS, None), False),
    "spline flow": (
        lambda: flow(NeuralSplineFlow(4, couplings=2, bins=4)),
        (ROWS, None),
        False,
    ),
}
