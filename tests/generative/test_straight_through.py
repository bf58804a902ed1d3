"""Tests of dlcompanion.generative.straight_through."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import (
    StraightThrough,
    StraightThroughBernoulli,
    straight_through,
)
from dlcompanion.testing import check_layer

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
WEIGHTS = np.arange(12, dtype="float32").reshape(4, 3)
AS_TENSOR = ops.convert_to_tensor(WEIGHTS)


def numbers(x):
    return ops.convert_to_numpy(x)


@keras.saving.register_keras_serializable(package="test_straight_through")
def nearest_half(x):
    return ops.round(2 * x) / 2


def test_contract_of_the_quantiser():
    # finite differences of a step are not the identity: that is the point
    skip = ("gradient",)
    check_layer(StraightThrough, {"quantizer": nearest_half}, X, skip=skip)


def test_contract_of_the_bits():
    skip = ("gradient",)
    check_layer(StraightThroughBernoulli, {"seed": 1}, X, output_shape=X.shape,
                batch_independent=False, skip=skip)  # fmt: skip


def test_value_of_the_one_and_gradient_of_the_other():
    big = 1e6 * X  # where forward + backward - backward would be rounded
    y = straight_through(X, big)
    np.testing.assert_array_equal(numbers(y), X)

    def loss(forward, backward):
        return ops.sum(AS_TENSOR * straight_through(forward, backward))

    by_forward, by_backward = autodiff.grad(loss, argnums=(0, 1))(X, big)
    np.testing.assert_array_equal(numbers(by_forward), 0 * X)
    np.testing.assert_array_equal(numbers(by_backward), WEIGHTS)


def test_quantiser_has_the_gradient_of_the_identity():
    for quantizer in (nearest_half, keras.layers.Lambda(nearest_half)):
        layer = StraightThrough(quantizer)
        np.testing.assert_array_equal(numbers(layer(X)), np.round(2 * X) / 2)
        gradient = autodiff.grad(lambda x, f=layer: ops.sum(AS_TENSOR * f(x)))(X)
        np.testing.assert_array_equal(numbers(gradient), WEIGHTS)


def test_bits_have_the_frequencies_and_the_gradient_of_their_probabilities():
    logits = np.array([-2.0, 0.0, 1.0], "float32")
    p = 1 / (1 + np.exp(-logits))
    layer = StraightThroughBernoulli(seed=0)
    many = np.tile(logits, (20_000, 1))
    bits = numbers(layer(many))
    assert set(np.unique(bits)) == {0.0, 1.0}
    z = (bits.mean(axis=0) - p) / np.sqrt(p * (1 - p) / len(bits))
    assert np.abs(z).max() < 3

    def linear(logits):
        return ops.sum(AS_TENSOR[1] * layer(logits))

    gradient = numbers(autodiff.grad(linear)(logits))
    np.testing.assert_allclose(gradient, WEIGHTS[1] * p * (1 - p), rtol=1e-5)


def test_nan_stays_nan():
    x = np.array([[np.nan, 100.0]], "float32")
    bits = numbers(StraightThroughBernoulli(seed=0)(x))
    assert np.isnan(bits[0, 0]) and bits[0, 1] == 1
    assert np.isnan(numbers(StraightThrough("hard_tanh")(x))[0, 0])


def test_refuses():
    with pytest.raises(ValueError, match="one shape. Received"):
        straight_through(X, X[:, :1])
    with pytest.raises(ValueError, match="quantizer=None"):
        StraightThrough(None)
    with pytest.raises(ValueError, match="keep the shape.*Received"):
        StraightThrough(keras.layers.Dense(5)).build((None, 3))
