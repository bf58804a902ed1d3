"""Tests of dlcompanion.optimization.stochastic_weight_averaging."""

import keras
import numpy as np
import pytest

from dlcompanion.optimization import SWA, refresh_batch_normalization
from dlcompanion.testing import check_callback
from dlcompanion.training import ResumableCheckpoint, fit_in_memory

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, size=(70, 3)).astype("float32")
Y = X[:, :1] + 1


def regression(normalized=True, optimizer=None):
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.2)]
    if normalized:
        hidden.insert(0, keras.layers.BatchNormalization())
        hidden.append(keras.layers.BatchNormalization())
    layers = [keras.Input((3,)), *hidden, keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(optimizer or keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return model


class Snapshots(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights, self.rates = [], []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(arrays(self.model.trainable_variables))
        self.rates.append(float(self.model.optimizer.learning_rate))


def arrays(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


def fit(model, callbacks, epochs, run=fit_in_memory, **arguments):
    arguments = {"batch_size": 32, "verbose": 0, **arguments}
    return run(model, X, Y, epochs=epochs, callbacks=callbacks, **arguments)


def test_contract():
    def make_model():
        model = regression()
        model.run_eagerly = True
        return model

    x, y = X[:32], Y[:32]  # two steps an epoch: its many fits are eager
    check_callback(SWA, {"start": 0, "data": x}, make_model=make_model, data=(x, y))


@pytest.mark.parametrize(
    ("start", "every", "taken"), [(3, 1, [3, 4, 5, 6]), (1, 2, [2, 4, 6])]
)
def test_is_the_arithmetic_mean(start, every, taken):
    model, snapshots = regression(), Snapshots()
    swa = SWA(start, every, data=X)
    fit(model, [snapshots, swa], epochs=7)
    assert swa.count == len(taken)
    kept = [snapshots.weights[epoch] for epoch in taken]
    for n, variable in enumerate(arrays(model.trainable_variables)):
        mean = np.mean([w[n] for w in kept], axis=0, dtype="float64")
        np.testing.assert_allclose(variable, mean, rtol=0, atol=1e-6)
        np.testing.assert_allclose(swa.average[n], mean, rtol=0, atol=1e-6)
        assert np.abs(variable - kept[-1][n]).max() > 1e-4  # not the last iterate


def test_the_statistics_are_those_of_the_data():
    """First layer: mean and variance of all inputs, whatever the batches."""
    model = regression()
    fit(model, [SWA(0, data=X, batch_size=32)], epochs=2)
    first = model.layers[0]
    np.testing.assert_allclose(arrays([first.moving_mean])[0], X.mean(0), rtol=1e-5)
    np.testing.assert_allclose(arrays([first.moving_variance])[0], X.var(0), rtol=1e-4)


def test_refresh_changes_nothing_but_statistics():
    model = regression()
    inner = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    frozen = keras.layers.BatchNormalization(trainable=False)
    nested = keras.Sequential([keras.Input((3,)), inner, frozen, model])
    before = arrays(nested.variables)
    momenta = [layer.momentum for layer in (inner.layers[0], model.layers[0])]
    refresh_batch_normalization(nested, X, batch_size=X.shape[0])
    changed = {
        v.path
        for v, old, new in zip(
            nested.variables, before, arrays(nested.variables), strict=True
        )
        if not np.array_equal(old, new)
    }
    statistics = {
        variable.path
        for layer in (inner.layers[0], model.layers[0], model.layers[3])
        for variable in (layer.moving_mean, layer.moving_variance)
    }
    assert changed == statistics
    assert momenta == [inner.layers[0].momentum, model.layers[0].momentum]
    # the whole data as one batch: inference and training now agree, dropout apart
    model.layers[2].rate = 0.0
    refresh_batch_normalization(nested, X, batch_size=X.shape[0])
    a, b = arrays([nested(X, training=True), nested(X, training=False)])
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_average_of_stale_statistics_is_the_plain_average_without_batch_normalization():
    model = regression(normalized=False)
    others = arrays(model.non_trainable_variables)
    fit(model, [SWA(0)], epochs=1)
    refresh_batch_normalization(model, X)  # has nothing to do
    assert len(others) == len(model.non_trainable_variables)


def test_learning_rate():
    snapshots = Snapshots()
    swa = SWA(2, learning_rate=lambda epoch: 0.1 / epoch, data=X)
    fit(regression(), [swa, snapshots], epochs=5)
    expected = [0.01, 0.01, 0.1 / 2, 0.1 / 3, 0.1 / 4]
    np.testing.assert_allclose(snapshots.rates, expected, rtol=1e-6)
    snapshots = Snapshots()
    fit(regression(), [SWA(1, learning_rate=0.5, data=X), snapshots], epochs=2)
    np.testing.assert_allclose(snapshots.rates, [0.01, 0.5], rtol=1e-6)


def test_resumes_exactly(tmp_path):
    whole, resumed = regression(), regression()
    fit(whole, [SWA(1, data=X)], epochs=5)
    for epochs in (3, 5):  # the first call ends after two of the four snapshots
        resumed = regression()
        swa = SWA(1, data=X)
        keep = ResumableCheckpoint(tmp_path / "run.ckpt", carry=[swa])
        fit(resumed, [swa, keep], epochs=epochs)
    assert swa.count == 4
    for a, b in zip(arrays(whole.variables), arrays(resumed.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_that_ends_before_the_first_snapshot_keeps_its_weights():
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", True)
    )
    snapshots, swa = Snapshots(), SWA(3, data=X)
    model = regression()
    fit(model, [snapshots, stop, swa], epochs=5)
    assert swa.count == 0
    for a, b in zip(
        snapshots.weights[-1], arrays(model.trainable_variables), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1}, "start must be an integer of at least 0"),
        ({"start": 1.5}, "start must be an integer of at least 0"),
        ({"start": 0, "every": 0}, "every must be an integer of at least 1"),
        ({"start": 0, "batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"start": 0, "learning_rate": -0.1}, "learning_rate must be"),
        ({"start": 0, "learning_rate": float("nan")}, "learning_rate must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        SWA(**arguments)


def test_refuses_in_fit():
    with pytest.raises(ValueError, match="pass the training inputs as data"):
        fit(regression(), [SWA(0)], epochs=1)
    with pytest.raises(ValueError, match="first snapshot"):
        fit(regression(), [SWA(3, every=3, data=X)], epochs=5)
    with pytest.raises(ValueError, match="learning_rate must be"):
        fit(regression(), [SWA(0, learning_rate=lambda e: -1.0, data=X)], epochs=1)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model = regression(optimizer=keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match="a schedule of its own"):
        fit(model, [SWA(0, learning_rate=0.1, data=X)], epochs=1)
    with pytest.raises(ValueError, match="at least one example"):
        refresh_batch_normalization(model, X[:0])
