"""Tests of dlcompanion.uncertainty.monte_carlo_dropout."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.regularization import DropBlock2D
from dlcompanion.testing import check_model
from dlcompanion.uncertainty import (
    MonteCarloDropout,
    PredictiveMean,
    predictive_samples,
)
from dlcompanion.uncertainty.stochastic_layers.predictive_samples import seed_states

X = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")


def network(rate=0.5):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(6, "relu"),
            keras.layers.Dropout(rate, seed=1),
            keras.layers.Dense(3, "softmax"),
        ]
    )


def test_contract():
    y = np.eye(3, dtype="float32")[np.arange(8) % 3]
    # with XLA, TensorFlow's dropout draws other masks from the same state
    settings = {"optimizer": "adam", "loss": "mse", "jit_compile": "auto"}
    check_model(
        MonteCarloDropout,
        lambda: {"model": network()},
        X,
        y,
        compile_kwargs=settings,
        output_shape=(8, 3),
    )


def test_draws_equal_those_of_a_network_written_out():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dropout(0.4, seed=3), keras.layers.Dense(2)]
    )
    dropout = keras.layers.Dropout(0.4, seed=3)
    kernel, bias = model.get_weights()
    expected = [numpy(dropout(X, training=True)) @ kernel + bias for _ in range(3)]
    drawn = predictive_samples(MonteCarloDropout(model), X, samples=3)
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-5)


def test_mean_over_masks_of_a_linear_network_is_its_prediction():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dropout(0.4, seed=3), keras.layers.Dense(2)]
    )
    drawn = predictive_samples(MonteCarloDropout(model), X, samples=1500)
    error = drawn.std(axis=0) / np.sqrt(1500)
    assert np.all(np.abs(drawn.mean(axis=0) - numpy(model(X))) < 5 * error)
    # the variance of the sum over inputs is known as well
    kernel = model.get_weights()[0]
    variance = (X**2) @ (kernel**2) * 0.4 / 0.6
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.2)


def test_rate_zero_is_the_model_itself():
    model = network(rate=0.0)
    np.testing.assert_array_equal(
        numpy(MonteCarloDropout(model)(X)), numpy(model(X, training=False))
    )


def test_batch_statistics_are_used_and_left_as_they_are():
    model = network()
    model.compile("sgd", "mse")
    model.fit(X, np.ones((8, 3)), epochs=2, verbose=0)  # statistics of their own
    before = [numpy(w).copy() for w in model.weights]
    wrapped = MonteCarloDropout(model)
    far = X[:1] * 100  # a batch whose own statistics would say nothing
    alone = predictive_samples(wrapped, far, samples=5)
    assert np.ptp(alone, axis=0).max() > 0
    assert np.abs(numpy(model.layers[0](far))).max() > 10  # not normalized by itself
    for w, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(w), old)
    first = numpy(model(X))  # and the model is deterministic as before
    np.testing.assert_array_equal(first, numpy(model(X)))


def attention():
    query = keras.Input((4, 6))
    y = keras.layers.MultiHeadAttention(2, 3, dropout=0.5, seed=0)(query, query)
    return keras.Model(query, y)


def sequence(layer):
    return lambda: keras.Sequential([keras.Input((4, 6)), layer()])


def picture(layer):
    return lambda: keras.Sequential(
        [keras.Input((4, 6)), keras.layers.Reshape((4, 6, 1)), layer()]
    )


class Custom(keras.Model):
    def __init__(self):
        super().__init__()
        self.drop = keras.layers.Dropout(0.5, seed=0)

    def call(self, inputs, training=None):
        return self.drop(inputs, training=training)


@pytest.mark.parametrize(
    "make",
    [
        sequence(lambda: keras.layers.SpatialDropout1D(0.5)),
        sequence(lambda: keras.layers.AlphaDropout(0.5)),
        sequence(lambda: keras.layers.GaussianDropout(0.5)),
        sequence(lambda: keras.layers.LSTM(3, recurrent_dropout=0.5)),
        sequence(lambda: keras.layers.Bidirectional(keras.layers.GRU(3, dropout=0.5))),
        picture(lambda: DropBlock2D(0.5, 2)),
        attention,
        Custom,
    ],
)
def test_every_kind_of_dropout_stays_on(make):
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
    model = make()
    quiet = numpy(model(x, training=False))
    wrapped = MonteCarloDropout(model)
    one, two = numpy(wrapped(x)), numpy(wrapped(x, training=False))
    assert np.any(one != two)
    np.testing.assert_allclose(numpy(model(x, training=False)), quiet, rtol=1e-6)


def test_only_the_layers_that_are_named():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.GaussianNoise(1.0, name="noise"),
            keras.layers.Dropout(0.5, name="drop"),
        ]
    )
    dropped = numpy(MonteCarloDropout(model)(X))
    assert np.all((dropped == 0) | (np.abs(dropped - 2 * X) < 1e-5))
    noisy = numpy(MonteCarloDropout(model, layers=["noise"])(X))
    assert np.all(noisy != 0) and np.abs(noisy - X).max() > 0.1
    with pytest.raises(ValueError, match=r"Received: unknown \['droop'\]"):
        MonteCarloDropout(model, layers=["droop"])


def test_a_saved_model_goes_on_with_the_same_masks(tmp_path):
    wrapped = MonteCarloDropout(network())
    wrapped(X)
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for _ in range(2):
        np.testing.assert_array_equal(numpy(wrapped(X)), numpy(loaded(X)))
    assert seed_states(loaded)


def test_exported_model_draws_masks(tmp_path, backend):
    wrapped = MonteCarloDropout(network())
    one, two = numpy(wrapped(X)), numpy(wrapped(X))
    if backend == "tensorflow":
        wrapped.export(tmp_path / "exported", verbose=False)
        served = keras.layers.TFSMLayer(tmp_path / "exported", call_endpoint="serve")
        one, two = numpy(served(X)), numpy(served(X))
    assert one.shape == (8, 3) and np.any(one != two)


def test_a_seed_decides_the_draws_also_of_dropout_without_one():
    wrapped = MonteCarloDropout(sequence(lambda: keras.layers.Dropout(0.5))())
    x = np.ones((3, 4, 6), "float32")
    first = predictive_samples(wrapped, x, samples=2, seed=1)
    predictive_samples(wrapped, x, samples=2)
    np.testing.assert_array_equal(first, predictive_samples(wrapped, x, 2, seed=1))
    assert np.any(first != predictive_samples(wrapped, x, samples=2, seed=2))


def test_rejects_a_model_without_dropout():
    with pytest.raises(ValueError, match="must have a layer of dropout.*Received"):
        MonteCarloDropout(keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]))


@pytest.mark.parametrize("wrap", [MonteCarloDropout, lambda m: PredictiveMean(m, 3)])
def test_masked_steps_count_neither_in_training_nor_in_evaluation(wrap):
    """Targets of padded steps may be anything."""
    L = keras.layers
    x = X[:, :4].reshape(8, 4, 1) + 3  # nothing is 0, the value that is masked
    x[:, 2:] = 0
    y = np.ones((8, 4, 1), "float32")
    far = np.where(x == 0, 1e3, y)
    logs, weights = [], []
    for targets in (y, far):
        keras.utils.set_random_seed(0)
        layers = [L.Masking(), L.Dense(3, "tanh"), L.Dropout(0.3, seed=1), L.Dense(1)]
        model = keras.Sequential([keras.Input((4, 1)), *layers])
        inner = MonteCarloDropout(model)
        wrapper = inner if wrap is MonteCarloDropout else wrap(inner)
        wrapper.compile("sgd", "mse", weighted_metrics=["mae"])
        held_out = (x, targets)
        history = wrapper.fit(x, targets, validation_data=held_out, verbose=0).history
        logs.append(history)
        weights.append(wrapper.get_weights())
    assert set(logs[0]) == {"loss", "mae", "val_loss", "val_mae"}
    for name, value in logs[0].items():
        assert 0 < value[0] < 1e3
        if name == "mae" and keras.backend.backend() == "jax":
            continue  # Keras's own metrics see no mask in a training step on JAX
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-5, err_msg=name)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
