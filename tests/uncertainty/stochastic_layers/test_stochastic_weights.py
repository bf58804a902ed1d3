"""Tests of dlcompanion.uncertainty.stochastic_layers.stochastic_weights."""

import keras
import numpy as np
import pytest

from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import (
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
    NormalPosterior,
    set_training_examples,
)
from dlcompanion.uncertainty.stochastic_layers.stochastic_weights import random_signs

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X[:, :1]


def test_signs_are_fair_and_independent():
    signs = random_signs(3000, 65, keras.random.SeedGenerator(0))
    signs = keras.ops.convert_to_numpy(signs)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    noise = 1 / np.sqrt(3000)
    correlation = signs.T @ signs / 3000
    assert np.abs(signs.mean(axis=0)).max() < 5 * noise
    assert np.abs(correlation - np.eye(65)).max() < 5.5 * noise


def frozen_noise(**kwargs):
    """A model whose draws hardly differ, so that its loss shows the divergence."""
    layer = DenseFlipout(
        1, kernel_posterior=NormalPosterior("ones", 2e-5), seed=0, **kwargs
    )
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model, layer


def kl_of(layer):
    divergence = layer.kernel_posterior.divergence(layer.prior, layer.seed_generator)
    return float(keras.ops.convert_to_numpy(divergence))


def test_the_loss_holds_the_divergence_divided_by_the_examples():
    model, layer = frozen_noise()
    mse = float(np.mean((X.sum(axis=1, keepdims=True) - Y) ** 2))
    fits = (
        lambda: model.fit(X, Y, batch_size=4, verbose=0).history["loss"][0],
        lambda: fit_in_memory(model, X, Y, batch_size=4, verbose=0).history["loss"][0],
        lambda: model.evaluate(X, Y, verbose=0),
    )
    for examples in (12, 5):  # told anew after the programs were compiled
        assert set_training_examples(model, examples) == 1
        for fit in fits:
            np.testing.assert_allclose(fit(), mse + kl_of(layer) / examples, rtol=1e-3)


def test_a_model_that_was_not_told_its_examples_refuses_to_train():
    model, _ = frozen_noise()
    model.predict(X, verbose=0)  # needs no divergence
    for train in (
        lambda: model.fit(X, Y, verbose=0),
        lambda: model.evaluate(X, Y, verbose=0),
        lambda: model(X, training=True),
    ):
        with pytest.raises(ValueError, match="set_training_examples.*fit") as caught:
            train()
        assert "training_examples=None" in str(caught.value)


def test_a_layer_called_twice_counts_once_and_a_frozen_one_not_at_all():
    layer = DenseFlipout(3, training_examples=7)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(layer(inputs)))
    model(X)
    found = [float(keras.ops.convert_to_numpy(kl)) for kl in model.losses]
    np.testing.assert_allclose(found, [kl_of(layer) / 7], rtol=1e-5)
    layer.trainable = False
    assert model.losses == []


def test_bias_with_a_posterior_is_drawn_and_penalized():
    for layer_class in (
        DenseFlipout, DenseLocalReparameterization, DenseReparameterization,
    ):  # fmt: skip
        layer = layer_class(
            2,
            bias_posterior=NormalPosterior(initial_scale=0.5),
            training_examples=3,
            seed=0,
        )
        zeros = np.zeros((4, 3), "float32")
        y = keras.ops.convert_to_numpy(layer(zeros))  # nothing but the bias
        mean = keras.ops.convert_to_numpy(layer.bias_posterior.mean())
        assert np.abs(y - mean).min() > 1e-4
        assert len(layer.losses) == 2


def test_nested_models_are_told_and_others_refused():
    inner = keras.Sequential([DenseFlipout(2), DenseFlipout(2)])
    model = keras.Sequential([keras.Input((3,)), inner, DenseFlipout(1)])
    assert set_training_examples(model, 9) == 3
    assert inner.layers[0].training_examples == 9
    assert model.layers[-1].get_config()["training_examples"] == 9
    with pytest.raises(ValueError, match="must have a Bayesian layer"):
        set_training_examples(keras.Sequential([keras.layers.Dense(1)]), 9)
    with pytest.raises(ValueError, match="integer of at least 1"):
        set_training_examples(model, 0)


def test_a_posterior_belongs_to_one_weight():
    shared = NormalPosterior()
    with pytest.raises(ValueError, match="a posterior of its own"):
        keras.Sequential(
            [DenseFlipout(3, kernel_posterior=shared) for _ in range(2)]
        ).build((None, 3))


def test_rejects_what_does_not_fit():
    with pytest.raises(ValueError, match="bias_posterior needs a bias"):
        DenseFlipout(1, use_bias=False, bias_posterior=NormalPosterior())
    with pytest.raises(ValueError, match="kernel_posterior must be a posterior"):
        DenseFlipout(1, kernel_posterior="normal")
    with pytest.raises(ValueError, match="prior must be"):
        DenseFlipout(1, prior=1.0)
    with pytest.raises(ValueError, match="training_examples must be an integer"):
        DenseFlipout(1, training_examples=0.5)
