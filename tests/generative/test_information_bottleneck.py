"""Tests of dlcompanion.generative.information_bottleneck."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.generative import (
    InformationPlane,
    VariationalBottleneck,
    binned_information,
)
from dlcompanion.testing import check_callback, check_layer
from dlcompanion.training import ResumableCheckpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


def numbers(x):
    return ops.convert_to_numpy(x).astype("float64")


def network():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh", name="first"),
            keras.layers.Dense(2, "tanh", name="second"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"])
    return model


def test_contract():
    check_layer(
        VariationalBottleneck, {"latent": 2, "beta": 0.1}, X[:6], output_shape=(6, 2)
    )


def test_loss_is_beta_times_the_divergence_and_rate_its_terms():
    layer = VariationalBottleneck(2, beta=0.3, seed=0)
    code = numbers(layer(X))
    mean, log_variance = np.split(numbers(layer.dense(X)), 2, axis=1)
    np.testing.assert_allclose(code, mean, rtol=1e-5)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    np.testing.assert_allclose(numbers(layer.rate(X)), kl, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(numbers(layer.losses[0]), 0.3 * kl.mean(), rtol=1e-4)


def test_code_in_training_is_the_normal_of_the_equation():
    layer = VariationalBottleneck(2, seed=0)
    one = np.repeat(X[:1], 20_000, axis=0)
    code = numbers(layer(one, training=True))
    mean, log_variance = np.split(numbers(layer.dense(X[:1]))[0], 2)
    scale = np.exp(0.5 * log_variance)
    np.testing.assert_allclose(code.mean(axis=0), mean, atol=4 * scale.max() / 141)
    np.testing.assert_allclose(code.std(axis=0), scale, rtol=0.03)


def test_a_high_price_leaves_nothing_and_a_low_one_what_the_target_needs():
    found = {}
    for beta in (1e-3, 10.0):
        keras.utils.set_random_seed(0)
        layer = VariationalBottleneck(1, beta=beta, seed=0)
        model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.05), loss)
        model.fit(X, Y, batch_size=32, epochs=150, verbose=0)
        found[beta] = numbers(layer.rate(X)).mean()
    assert found[10.0] < 0.01 < 0.5 < found[1e-3]


def test_resumes_its_noise(tmp_path):
    def ready():
        keras.utils.set_random_seed(0)
        layer = VariationalBottleneck(2, beta=0.1, seed=3)
        model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.05), "mse")
        return model

    whole, half = ready(), ready()
    whole.fit(X, Y, epochs=4, shuffle=False, verbose=0)
    half.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    half.save(tmp_path / "half.keras")
    rest = keras.saving.load_model(tmp_path / "half.keras")
    rest.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(whole.get_weights(), rest.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def plane(**kwargs):
    return InformationPlane(X, Y, ["first", "second"], **kwargs)


def test_callback_contract():
    check_callback(plane, {}, make_model=network, data=(X, Y[:, None]))


def test_values_are_those_of_the_activations():
    model, seen = network(), plane(low=-1, high=1, bins=5, epochs=[1, 3])
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[seen])
    assert [epoch for epoch, _ in seen.history] == [1, 3]
    first = numbers(model.layers[0](X))
    for row, t in enumerate((first, numbers(model.layers[1](first)))):
        wanted = binned_information(t, Y, -1, 1, 5)
        np.testing.assert_allclose(seen.history[-1][1][row], wanted, atol=1e-6)


def test_bins_without_ends_reach_from_the_smallest_to_the_largest():
    model, seen = network(), plane(bins=7)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[seen])
    t = numbers(model.layers[0](X))
    wanted = binned_information(t, Y, t.min(), t.max(), 7)
    np.testing.assert_allclose(seen.history[0][1][0], wanted, atol=0.1)


def test_history_is_carried_on(tmp_path):
    def fit(epochs, seen, folder):
        carry = ResumableCheckpoint(tmp_path / folder, carry=[seen])
        network().fit(X, Y, epochs=epochs, verbose=0, callbacks=[seen, carry])
        return seen.history

    whole = fit(4, plane(), "whole")
    fit(2, plane(), "half")
    rest = fit(4, plane(), "half")
    assert [epoch for epoch, _ in rest] == [1, 2, 3, 4]
    np.testing.assert_allclose([v for _, v in rest], [v for _, v in whole], atol=1e-5)


def test_refuses():
    for kwargs in ({"latent": 0}, {"latent": 2, "beta": -1}):
        with pytest.raises(ValueError, match="Received: "):
            VariationalBottleneck(**kwargs)
    layer = VariationalBottleneck(2)
    layer(X)
    with pytest.raises(ValueError, match="built for 3 features.*Received: "):
        layer.rate(X[:, :2])
    with pytest.raises(ValueError, match="Every input needs.*Received: "):
        InformationPlane(X, Y[:3], ["first"])
    with pytest.raises(ValueError, match="bins must be.*Received: "):
        plane(bins=0)
    with pytest.raises(ValueError, match="layers must be among.*Received: "):
        wrong = InformationPlane(X, Y, ["third"])
        network().fit(X, Y, verbose=0, callbacks=[wrong])
    with pytest.raises(ValueError, match="between low and high.*Received: "):
        network().fit(X, Y, verbose=0, callbacks=[plane(low=0, high=0.01)])
