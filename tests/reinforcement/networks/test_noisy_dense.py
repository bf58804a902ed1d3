"""Tests of dlcompanion.reinforcement.networks.noisy_dense."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.reinforcement import NoisyDense
from dlcompanion.testing import check_layer


def inputs(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_contract():
    x = inputs(8, 5)
    settings = {"units": 3, "activation": "tanh", "noise": 0.7, "seed": 1}
    check_layer(NoisyDense, settings, x, output_shape=(8, 3))


def test_without_training_it_is_dense():
    x, layer = inputs(4, 5), NoisyDense(3, seed=0)
    y = ops.convert_to_numpy(layer(x))
    kernel, bias = layer.get_weights()[:2]
    np.testing.assert_allclose(y, x @ kernel + bias, rtol=1e-5, atol=1e-6)
    bound = 5**-0.5
    assert np.abs(kernel).max() <= bound and np.abs(bias).max() <= bound
    np.testing.assert_allclose(layer.get_weights()[2], 0.5 * bound, rtol=1e-6)


def test_noise_has_rank_one():
    # of the kernel: the noise of linear outputs is that of one matrix for all rows
    layer = NoisyDense(4, seed=0)
    layer.build((None, 3))
    kernel, bias, kernel_noise, bias_noise = layer.get_weights()
    layer.set_weights([kernel, bias, np.ones_like(kernel_noise), np.ones(4)])
    x = np.vstack([np.zeros((1, 3)), np.eye(3)]).astype("float32")
    noisy = ops.convert_to_numpy(layer(x, training=True))
    noise = noisy - ops.convert_to_numpy(layer(x))
    of_bias, of_kernel = noise[0], noise[1:] - noise[0]
    into = (of_kernel / of_bias).mean(axis=1)
    np.testing.assert_allclose(of_kernel, np.outer(into, of_bias), rtol=1e-3, atol=1e-4)
    assert len(set(np.round(into, 3))) == 3


def test_noise_has_the_moments_of_the_formula():
    # E f(z)^2 = E |z| = sqrt(2 / pi), and f(z) is as often negative as positive
    layer = NoisyDense(20_000, seed=0)
    layer.build((None, 1))
    zero, size = np.zeros((1, 20_000)), np.zeros(20_000)
    layer.set_weights([zero, size, zero, np.full(20_000, 3.0)])
    y = ops.convert_to_numpy(layer(np.ones((1, 1), "float32"), training=True))
    assert np.mean(y) == pytest.approx(0.0, abs=0.08)
    assert np.mean((y / 3) ** 2) == pytest.approx(np.sqrt(2 / np.pi), abs=0.03)


@pytest.mark.once
def test_noise_shrinks_where_it_costs():
    model = keras.Sequential([keras.Input((1,)), NoisyDense(1, seed=0)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x = inputs(256, 1)
    before = np.abs(model.get_weights()[2]).sum()
    model.fit(x, 2 * x, batch_size=8, epochs=3, verbose=0)
    assert np.abs(model.get_weights()[2]).sum() < 0.3 * before


@pytest.mark.parametrize(
    "bad, message",
    [({"units": 0}, "units=0"), ({"units": 1, "noise": -0.1}, "noise=-0.1")],
)
def test_rejects(bad, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        NoisyDense(**bad)
