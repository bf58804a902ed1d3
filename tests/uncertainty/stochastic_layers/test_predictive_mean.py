"""Tests of dlcompanion.uncertainty.stochastic_layers.predictive_mean."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.testing import check_model
from dlcompanion.uncertainty import (
    DenseFlipout,
    DenseReparameterization,
    MonteCarloDropout,
    NormalPosterior,
    PredictiveMean,
    SplitConformalRegression,
)

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
L = keras.layers


def bayesian(layer_class=DenseFlipout):
    posterior = NormalPosterior(initial_scale=0.5)
    layer = layer_class(1, kernel_posterior=posterior, training_examples=8, seed=0)
    return keras.Sequential([keras.Input((3,)), layer])


def test_contract():
    check_model(
        PredictiveMean,
        lambda: {"model": bayesian(), "samples": 3},
        X,
        X[:, :1],
        # on TensorFlow, XLA draws other numbers from a seed than the eager call does
        compile_kwargs={"optimizer": "adam", "loss": "mse", "jit_compile": "auto"},
        output_shape=(8, 1),
    )


def test_is_the_mean_of_the_draws_that_the_model_makes_next():
    mean, model = PredictiveMean(bayesian(), samples=4), bayesian()
    model.set_weights(mean.model.get_weights())
    draws = [numpy(model(X)) for _ in range(4)]
    assert np.std(draws, axis=0).min() > 0
    np.testing.assert_allclose(numpy(mean(X)), np.mean(draws, axis=0), rtol=1e-5)
    again = [numpy(model(X)) for _ in range(4)]
    np.testing.assert_allclose(numpy(mean(X)), np.mean(again, axis=0), rtol=1e-5)


def test_noise_falls_with_the_root_of_the_samples():
    model = bayesian(DenseReparameterization)
    spread = [
        np.std([numpy(PredictiveMean(model, s)(X[:1])) for _ in range(60)])
        for s in (1, 16)
    ]
    assert 2.5 < spread[0] / spread[1] < 6


def test_a_conformal_predictor_sees_the_mean():
    layers = [keras.Input((3,)), L.Dropout(0.5, seed=1), L.Dense(1)]
    model = keras.Sequential(layers)
    y = X @ [1.0, -1.0, 0.5]
    widths = []
    for samples in (1, 32):
        mean = PredictiveMean(MonteCarloDropout(model), samples)
        predictor = SplitConformalRegression(mean, alpha=0.3).calibrate(X, y)
        low, high = predictor.predict(X).T
        assert np.std(high - low) < 1e-4
        widths.append(float(predictor.threshold))
    assert widths[0] != widths[1]


@pytest.mark.parametrize(
    "bad, rule",
    [
        ({"model": L.Dense(1)}, "model must be a Keras model"),
        ({"samples": 0}, "samples must be"),
        ({"model": keras.Sequential([keras.Input((3,)), L.Dense(1)])}, "be the same"),
    ],
)
def test_refuses(bad, rule):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        PredictiveMean(**{"model": bayesian(), **bad})
