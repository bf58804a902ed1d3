"""Networks whose gradients can be written down, and what their logits stand for."""

import keras
import scipy.special


def net(inputs, outputs, units=()):
    """One affine map, after hidden layers of ``units`` where they are given."""
    hidden = [keras.layers.Dense(n, "relu") for n in units]
    last = keras.layers.Dense(outputs)
    return keras.Sequential([keras.Input((inputs,)), *hidden, last])


def softmax(logits):
    """Probabilities along the last axis, as SciPy knows them."""
    return scipy.special.softmax(logits, axis=-1)
