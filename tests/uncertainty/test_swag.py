"""Tests of dlcompanion.uncertainty.swag."""

import keras
import numpy as np
import pytest

from dlcompanion.testing import check_callback
from dlcompanion.training import ResumableCheckpoint, fit_in_memory
from dlcompanion.uncertainty import SWAG

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, size=(40, 3)).astype("float32")
Y = X[:, :1] + 1


def regression():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "relu"), keras.layers.BatchNormalization()]
    layers = [keras.Input((3,)), *layers, keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.02), "mse")
    return model


def arrays(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def flat(weights):
    return np.concatenate([np.ravel(w) for w in weights]).astype("float64")


class Snapshots(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(flat(arrays(self.model.trainable_variables)))


def fit(model, callbacks, epochs=9):
    return fit_in_memory(
        model, X, Y, batch_size=8, epochs=epochs, callbacks=callbacks, verbose=0, seed=1
    )


@pytest.fixture(scope="module")
def trained():
    model, snapshots = regression(), Snapshots()
    swag = SWAG(2, rank=4, data=X)
    fit(model, [snapshots, swag])
    return model, swag, np.array(snapshots.weights[2:])


def test_contract():
    def make_model():
        model = regression()
        model.run_eagerly = True
        return model

    x, y = X[:32], Y[:32]  # two steps an epoch: its many fits are eager
    arguments = {"start": 0, "rank": 2, "data": x}
    check_callback(SWAG, arguments, make_model=make_model, data=(x, y))


def test_the_moments_are_arithmetic(trained):
    _, swag, snapshots = trained
    assert swag.count == len(snapshots) == 7
    np.testing.assert_allclose(flat(swag.average), snapshots.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(flat(swag.variance), snapshots.var(axis=0), rtol=1e-6)
    for n, deviation in zip(range(3, 7), swag.deviations, strict=True):
        running = snapshots[: n + 1].mean(axis=0)
        np.testing.assert_allclose(
            flat(deviation), snapshots[n] - running, rtol=1e-6, atol=1e-12
        )


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_samples_have_the_covariance_of_the_paper(trained, scale):
    _, swag, _ = trained
    rng = np.random.default_rng(3)
    draws = np.array([flat(swag.sample(rng, scale)) for _ in range(6000)])
    columns = np.array([flat(d) for d in swag.deviations]).T  # (weights, K)
    expected = np.diag(flat(swag.variance)) / 2 + columns @ columns.T / (2 * 3)
    found = np.cov(draws.T)
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(found / size, scale * expected / size, atol=0.08)
    deviation = np.sqrt(np.diag(expected))
    off = np.abs(draws.mean(axis=0) - flat(swag.average)) / deviation
    assert off.max() < 0.07


@pytest.mark.once
def test_the_spread_on_a_parabola_is_the_stationary_one():
    """SGD on (w - y)^2 with fresh y is an autoregression of known variance."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    rate, batch = 0.1, 4
    model.compile(keras.optimizers.SGD(rate), "mse")
    swag = SWAG(0, rank=2)
    swag.set_model(model)
    ones, rng = np.ones((batch, 1), "float32"), np.random.default_rng(0)
    for epoch in range(150):
        for _ in range(6):
            model.train_on_batch(ones, rng.normal(size=(batch, 1)).astype("float32"))
        if epoch >= 5:
            swag.on_epoch_end(epoch)
    expected = rate**2 * 4 / batch / (1 - (1 - 2 * rate) ** 2)
    np.testing.assert_allclose(flat(swag.variance), expected, rtol=0.4)


def test_predictions_are_those_of_the_drawn_weights(trained):
    model, swag, _ = trained
    before = arrays(model.variables)
    draws = swag.predict_samples(X, samples=2, seed=4)
    for a, b in zip(before, arrays(model.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    kernel, bias, gamma, beta, last, last_bias = swag.sample(4)
    hidden = np.maximum(X @ kernel + bias, 0)
    mean, variance = hidden.mean(axis=0), hidden.var(axis=0)  # measured for this draw
    normal = gamma * (hidden - mean) / np.sqrt(variance + 1e-3) + beta
    np.testing.assert_allclose(
        draws[0], normal @ last + last_bias, rtol=1e-3, atol=1e-4
    )
    assert np.abs(draws[0] - draws[1]).max() > 1e-4
    center = swag.predict_samples(X, samples=1, scale=0.0)[0]
    np.testing.assert_allclose(
        center, model.predict(X, verbose=0), rtol=1e-3, atol=1e-4
    )


def test_several_outputs_are_drawn_together():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8)(inputs)
    heads = {
        "one": keras.layers.Dense(1)(hidden),
        "three": keras.layers.Dense(3)(hidden),
    }
    model = keras.Model(inputs, heads)
    model.compile("sgd", {"one": "mse", "three": "mse"})
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y, swag = {"one": x[:, :1], "three": x[:, :3]}, SWAG(1)
    model.fit(x, y, epochs=4, verbose=0, callbacks=[swag])
    draws = swag.predict_samples(x, 5, batch_size=20)
    shapes = {name: array.shape for name, array in draws.items()}
    assert shapes == {"one": (5, 32, 1), "three": (5, 32, 3)}
    again = swag.predict_samples(x, 5, batch_size=32)
    for name, array in draws.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-5, atol=1e-6)
        assert array.std(axis=0).max() > 0


def test_resumes_exactly(trained, tmp_path):
    _, whole, _ = trained
    for epochs in (4, 9):
        swag = SWAG(2, rank=4, data=X)
        checkpoint = ResumableCheckpoint(tmp_path / "run", carry=[swag])
        model = regression()
        fit(model, [swag, checkpoint], epochs)
    np.testing.assert_allclose(flat(swag.sample(1)), flat(whole.sample(1)), rtol=1e-6)


def test_saves_and_loads(trained, tmp_path):
    model, swag, _ = trained
    swag.save(tmp_path / "swag.npz")
    loaded = SWAG(2, rank=4, data=X).load(tmp_path / "swag.npz", model)
    np.testing.assert_array_equal(flat(loaded.sample(7)), flat(swag.sample(7)))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="holds weights of the shapes"):
        SWAG(2).load(tmp_path / "swag.npz", other)


def test_rejects():
    with pytest.raises(ValueError, match="rank must be an integer of at least 2"):
        SWAG(0, rank=1)
    with pytest.raises(ValueError, match="at least two snapshots"):
        SWAG(0).sample()
