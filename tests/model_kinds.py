"""One small model of every kind that the book has, for what all of them must do."""

import keras
import numpy as np
from keras import layers

from dlcompanion.generative import VAE, NeuralSplineFlow, RealNVP
from dlcompanion.graphs import GraphConvolution, GraphPlan
from dlcompanion.losses import GaussianNLL, TripletBatchHard
from dlcompanion.optimization import Lookahead
from dlcompanion.regularization import DropBlock2D

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


def flow(made):
    made.build((None, 4))
    return compiled(made, "sgd")


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
    "coupling flow": (lambda: flow(RealNVP(4, couplings=2)), (ROWS, None), False),
    "spline flow": (
        lambda: flow(NeuralSplineFlow(4, couplings=2, bins=4)),
        (ROWS, None),
        False,
    ),
}
