"""Models and layers as the tests make and read them."""

import keras
import numpy as np
from keras import ops


def scramble(model, scale=1.0, seed=1):
    """Normal numbers as weights: far from how it starts, on all backends the same."""
    rng = np.random.default_rng(seed)
    model.set_weights([scale * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def echo(columns, layer=keras.layers.Identity):
    """A model whose outputs are its inputs."""
    return keras.Sequential([keras.Input((columns,)), layer()])


def state(model):
    """Copies of all variables of a model and its optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(ops.convert_to_numpy(v)) for v in variables]
