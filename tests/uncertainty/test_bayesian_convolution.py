"""Tests of dlcompanion.uncertainty.bayesian_convolution."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.autodiff import value_and_grad
from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import (
    Conv1DFlipout,
    Conv1DLocalReparameterization,
    Conv1DReparameterization,
    Conv2DFlipout,
    Conv2DLocalReparameterization,
    Conv2DReparameterization,
    Conv3DFlipout,
    Conv3DLocalReparameterization,
    Conv3DReparameterization,
    NormalPosterior,
    predictive_samples,
)
from dlcompanion.uncertainty.bayesian_convolution import BayesianConvolution

VECTORS = Path(__file__).parents[1] / "references" / "bayesian_layers.npz"
FLIPOUT = [Conv1DFlipout, Conv2DFlipout, Conv3DFlipout]
SHARED = [Conv1DReparameterization, Conv2DReparameterization, Conv3DReparameterization]
LOCAL = [
    Conv1DLocalReparameterization,
    Conv2DLocalReparameterization,
    Conv3DLocalReparameterization,
]
KERAS = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D, 3: keras.layers.Conv3D}


def maps(rank, channels=3, batch=4, seed=0):
    shape = (batch, 5, *[4] * (rank - 1), channels)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize("layer_class", [Conv2DFlipout, LOCAL[0], SHARED[2]])
def test_contract(layer_class):
    settings = {"filters": 2, "kernel_size": 2, "activation": "tanh", "seed": 1}
    settings |= {"strides": 2, "padding": "same", "training_examples": 20}
    check_layer(layer_class, settings, maps(layer_class.rank))


@pytest.mark.parametrize("layer_class", [*FLIPOUT, *SHARED])
def test_divergence_and_draws_of_tfp(layer_class):
    with np.load(VECTORS) as stored:
        key = f"{layer_class.__name__}/"
        v = {k.removeprefix(key): stored[k] for k in stored.files if key in k}
    layer = layer_class(2, 2, training_examples=1)
    layer.build(v["x"].shape)
    layer.kernel_posterior.set_weights([v["loc"], v["rho"]])
    layer.bias.assign(v["bias"])
    posterior = layer.kernel_posterior
    total, gradients = value_and_grad(
        lambda: sum(layer.losses), variables=posterior.trainable_variables
    )()
    np.testing.assert_allclose(numpy(total), v["kl"], rtol=1e-4)  # its scale floor
    np.testing.assert_allclose(numpy(gradients[0]), v["kl_loc"], rtol=1e-5)
    np.testing.assert_allclose(numpy(gradients[1]), v["kl_rho"], atol=1e-4)
    draws = predictive_samples(layer, v["x"], samples=500, seed=0)
    error = v["std"] * np.sqrt(1 / 500 + 1 / 4000)
    assert np.all(np.abs(draws.mean(axis=0) - v["mean"]) < 4.5 * error)
    np.testing.assert_allclose(draws.std(axis=0), v["std"], rtol=0.2)


@pytest.mark.once
@pytest.mark.parametrize("layer_class", [FLIPOUT[1], SHARED[1], LOCAL[0], LOCAL[2]])
def test_draws_have_the_mean_and_variance_of_two_convolutions(layer_class):
    posterior = NormalPosterior("random_normal", initial_scale=0.3)
    layer = layer_class(3, 2, kernel_posterior=posterior, seed=0)
    x = maps(layer.rank, batch=2)
    layer.build(x.shape)
    convolution = KERAS[layer.rank](3, 2, use_bias=False)
    convolution.build(x.shape)
    convolution.set_weights([numpy(posterior.mean())])
    mean = numpy(convolution(x))
    convolution.set_weights([numpy(posterior.stddev()) ** 2])
    std = np.sqrt(numpy(convolution(x**2)))
    draws = predictive_samples(layer, x, samples=400, seed=0)
    assert np.abs(draws.mean(axis=0) - mean).max() < 5 * std.max() / np.sqrt(400)
    np.testing.assert_allclose(draws.std(axis=0), std, rtol=0.2)


def silent(layer_class, **settings):
    """A layer whose draws are its mean, and Keras's layer with the same kernel."""
    layer = layer_class(
        6, 3, kernel_posterior=NormalPosterior(initial_scale=1.1e-5), **settings
    )
    same = KERAS[layer.rank](6, 3, **settings)
    return layer, same


@pytest.mark.parametrize(
    "layer_class, settings",
    [
        (Conv1DFlipout, {"padding": "causal", "dilation_rate": 2}),
        (Conv2DFlipout, {"padding": "same", "strides": (2, 1), "groups": 2}),
        (Conv2DLocalReparameterization, {"data_format": "channels_first"}),
        (Conv2DFlipout, {"data_format": "channels_first", "padding": "same"}),
    ],
)
def test_is_keras_convolution_where_there_is_no_noise(layer_class, settings):
    layer, same = silent(layer_class, **settings)
    x = maps(layer.rank, channels=4)
    layer.build(x.shape)
    same.build(x.shape)
    bias = np.arange(6, dtype="float32")
    layer.bias.assign(bias)
    same.set_weights([numpy(layer.kernel_posterior.mean()), bias])
    np.testing.assert_allclose(numpy(layer(x)), numpy(same(x)), atol=1e-3)
    assert layer.compute_output_shape(x.shape) == tuple(same(x).shape)


@pytest.mark.once
def test_examples_of_a_batch_see_kernels_that_do_not_correlate():
    twice = np.repeat(maps(2, batch=1), 2, axis=0)
    for layer_class in (Conv2DFlipout, Conv2DLocalReparameterization):
        layer = layer_class(2, 2, seed=0)
        draws = predictive_samples(layer, twice, samples=500)
        draws -= draws.mean(axis=0)
        scale = draws[:, 0].std(axis=0) * draws[:, 1].std(axis=0)
        correlation = np.mean(draws[:, 0] * draws[:, 1], axis=0) / scale
        assert np.abs(correlation).max() < 5 / np.sqrt(500)


def test_rejects_what_keras_rejects():
    assert all(issubclass(k, BayesianConvolution) for k in FLIPOUT + SHARED + LOCAL)
    with pytest.raises(ValueError, match="kernel_size"):
        Conv2DFlipout(2, (3, 3, 3))
    with pytest.raises(ValueError, match="filters"):
        Conv2DFlipout(0, 3)
    with pytest.raises(ValueError, match="multiple of groups.*Received: input_shape"):
        Conv2DFlipout(2, 2, groups=2).build((None, 5, 5, 3))
    with pytest.raises(ValueError, match="known"):
        Conv2DFlipout(2, 2).build((None, 5, 5, None))
