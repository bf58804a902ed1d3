"""Tests of dlcompanion.uncertainty.stochastic_layers.predictive_samples."""

import keras
import numpy as np
import pytest
from scipy import stats

from dlcompanion.uncertainty import (
    DenseFlipout,
    DenseReparameterization,
    NormalPosterior,
    mutual_information,
    predictive_entropy,
    predictive_samples,
)
from dlcompanion.uncertainty.stochastic_layers.predictive_samples import seed_states

X = np.random.default_rng(0).normal(size=(7, 3)).astype("float32")


def model_of(layer_class=DenseFlipout, seed=0):
    posterior = NormalPosterior(initial_scale=0.5)
    layer = layer_class(2, kernel_posterior=posterior, seed=seed)
    return keras.Sequential([keras.Input((3,)), layer])


def states(model):
    return [keras.ops.convert_to_numpy(s).tolist() for s in seed_states(model)]


def test_draws_are_those_of_repeated_calls():
    model, twin = model_of(), model_of()
    twin.set_weights(model.get_weights())
    drawn = predictive_samples(model, X, samples=3)
    called = [keras.ops.convert_to_numpy(twin(X)) for _ in range(3)]
    np.testing.assert_allclose(drawn, called, rtol=1e-5, atol=1e-6)
    assert states(model) == states(twin)


def test_a_seed_decides_the_draws_and_leaves_the_model_as_it_was():
    model = model_of()
    before = states(model)
    first = predictive_samples(model, X, samples=3, seed=1)
    np.testing.assert_array_equal(first, predictive_samples(model, X, 3, seed=1))
    assert states(model) == before
    assert np.abs(first - predictive_samples(model, X, samples=3, seed=2)).min() > 0
    assert np.abs(np.diff(first, axis=0)).min() > 0
    assert np.abs(first - predictive_samples(model, X, samples=3)).min() > 0


def test_batches_are_evaluated_with_the_same_functions():
    model = model_of(DenseReparameterization)
    whole = predictive_samples(model, X, samples=4, seed=3)
    parts = predictive_samples(model, X, samples=4, batch_size=3, seed=3)
    assert parts.shape == (4, 7, 2)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    slope = whole[:, 1:] - whole[:, :1]  # linear functions of the inputs
    kernel = [np.linalg.lstsq(X[1:] - X[:1], s, rcond=None)[0] for s in slope]
    residual = [(X[1:] - X[:1]) @ k - s for k, s in zip(kernel, slope, strict=True)]
    assert np.abs(residual).max() < 1e-5


def test_several_inputs():
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], DenseFlipout(2, seed=0)(a - b))
    draws = predictive_samples(model, [X, X], samples=2, batch_size=4)
    bias_alone = np.zeros((2, 7, 2))
    np.testing.assert_allclose(draws, bias_alone, atol=1e-6)


def test_entropy_and_information_are_those_of_scipy():
    p = np.random.default_rng(0).dirichlet([0.5] * 4, size=(6, 5))
    total = stats.entropy(p.mean(axis=0), axis=-1)
    within = stats.entropy(p, axis=-1).mean(axis=0)
    np.testing.assert_allclose(predictive_entropy(p), total, rtol=1e-6)
    np.testing.assert_allclose(mutual_information(p), total - within, rtol=1e-6)
    logits = np.log(p) + 3.0
    np.testing.assert_allclose(
        predictive_entropy(logits, from_logits=True), total, rtol=1e-6
    )
    np.testing.assert_allclose(
        mutual_information(logits, from_logits=True), total - within, rtol=1e-5
    )


def test_limits_of_entropy_and_information():
    uniform = np.full((3, 2, 4), 0.25)
    np.testing.assert_allclose(predictive_entropy(uniform), np.log(4))
    np.testing.assert_allclose(mutual_information(uniform), 0, atol=1e-12)
    uniform[0, 0, 0] = np.nan
    assert np.isnan(predictive_entropy(uniform)).tolist() == [True, False]
    assert np.isnan(mutual_information(uniform)).tolist() == [True, False]


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="same.*MonteCarloDropout"):
        plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        predictive_samples(plain, X)
    dropout = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.5)])
    with pytest.raises(ValueError, match="training=False.*MonteCarloDropout.*Received"):
        predictive_samples(dropout, X)
    assert predictive_samples(dropout, X, samples=1).shape == (1, 7, 3)
    assert predictive_samples(model_of(), np.zeros((4, 3)), samples=3).std() == 0.0
    batches = keras.utils.PyDataset()
    for dataset in (batches, iter([X]), "x"):
        with pytest.raises(ValueError, match="must be arrays.*Received: x="):
            predictive_samples(model_of(), dataset)
    for bad in ({"samples": 0}, {"batch_size": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match="must be an integer.*Received: "):
            predictive_samples(model_of(), X, **bad)
    with pytest.raises(ValueError, match="must hold an example"):
        predictive_samples(model_of(), X[:0])
    with pytest.raises(ValueError, match="from_logits=True"):
        predictive_entropy(np.full((2, 2, 2), 3.0))
    with pytest.raises(ValueError, match=r"\(samples, examples, classes\)"):
        mutual_information(np.ones((2, 2)))
