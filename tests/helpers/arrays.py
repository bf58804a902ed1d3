"""Arrays as the tests make and read them."""

import numpy as np
from keras import ops


def numpy(x):
    """A tensor or variable as an array."""
    return ops.convert_to_numpy(x)


def numbers(x):
    """A tensor or variable as an array in float64, to compute on with."""
    return ops.convert_to_numpy(x).astype("float64")


def normal(*shape, seed=0):
    """Standard normal numbers in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def stored(path):
    """The arrays of a file of references, by name."""
    with np.load(path) as file:
        return dict(file)


def stored_with_probabilities(path):
    """The same with those of the logits in it, ``p``."""
    arrays = stored(path)
    z = arrays["in/logits"].astype("float64")
    return {**arrays, "p": np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)}
