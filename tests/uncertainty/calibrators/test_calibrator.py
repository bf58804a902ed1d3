"""Tests of dlcompanion.uncertainty.calibrators.calibrator."""

import keras
import numpy as np
import pytest

from dlcompanion.uncertainty import (
    BetaCalibration,
    IsotonicCalibration,
    MatrixScaling,
    PlattScaling,
    TemperatureScaling,
    VectorScaling,
    calibrated_model,
)
from dlcompanion.uncertainty.calibrators.calibrator import Calibrator, newton

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype("float32")
Y = RNG.integers(0, 3, 60)
EVERY = {
    "temperature": TemperatureScaling,
    "vector": VectorScaling,
    "matrix": MatrixScaling,
    "platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
}
each = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def network(kind):
    keras.utils.set_random_seed(1)
    if kind == "subclassed":
        return Subclassed()
    if kind == "sequential":
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    inputs = {n: keras.Input((k,), name=n) for n, k in (("a", 2), ("b", 3))}
    joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
    return keras.Model(inputs, keras.layers.Dense(3)(joined))


def test_newton_finds_the_minimum_of_a_convex_function():
    def cosh(theta):
        return np.cosh(theta - 2).sum(), np.sinh(theta - 2), np.diag(np.cosh(theta - 2))

    np.testing.assert_allclose(newton(cosh, np.full(2, -9.0)), 2.0, atol=1e-6)


@each
def test_a_calibrated_model_comes_back_fitted(make, tmp_path):
    model = network("sequential")
    scores = model.predict(X, verbose=0)
    calibrator = make().fit(scores, Y)
    whole = calibrated_model(model, calibrator)
    p = whole.predict(X, verbose=0)
    np.testing.assert_allclose(p, calibrator.predict(scores), atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    whole.save(tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), p, atol=1e-6)


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_any_model_can_be_wrapped(kind):
    model = network(kind)
    x = {"a": X[:, :2], "b": X[:, 2:]} if kind == "functional" else X
    scores = model.predict(x, verbose=0)
    calibrator = TemperatureScaling().fit(scores, Y)
    p = calibrated_model(model, calibrator).predict(x, verbose=0)
    np.testing.assert_allclose(p, calibrator.predict(scores), atol=1e-6)


def test_training_the_model_leaves_the_calibrator_alone():
    model = network("sequential")
    calibrator = VectorScaling().fit(model.predict(X, verbose=0), Y)
    before = calibrator.get_weights()
    whole = calibrated_model(model, calibrator)
    whole.compile("sgd", "sparse_categorical_crossentropy")
    first = model.get_weights()[0]
    whole.fit(X, Y, verbose=0)
    assert np.abs(model.get_weights()[0] - first).max() > 0
    for a, b in zip(before, calibrator.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_calibrator_of_ones_own():
    class Prior(Calibrator):
        """The frequency of each class, whatever the scores say."""

        def build(self, input_shape):
            super().build(input_shape)
            self.p = self.add_parameter("p", (input_shape[-1],), "zeros")

        def call(self, inputs):
            return 0 * inputs + self.p

        def optimum(self, logits, labels):
            return {"p": np.bincount(labels, minlength=logits.shape[1]) / len(labels)}

    p = Prior().fit(np.zeros((4, 2)), [0, 1, 1, 1]).predict(np.ones((1, 2)))
    np.testing.assert_allclose(p, [[0.25, 0.75]])


def test_nan_goes_through_a_call():
    logits = np.array([[1.0, np.nan, 0.0], [1.0, 2.0, 0.0]], "float32")
    for make in EVERY.values():
        p = keras.ops.convert_to_numpy(make()(logits))
        assert np.isnan(p[0]).any() and np.isfinite(p[1]).all()


Z = RNG.normal(size=(6, 3))
P = np.exp(Z) / np.exp(Z).sum(axis=1, keepdims=True)
L = np.array([0, 1, 2, 0, 1, 2])


@each
@pytest.mark.parametrize(
    ("rule", "scores", "labels", "from_logits"),
    [
        ("must have shape", Z[0], L, True),
        ("must have shape", Z[:0], L[:0], True),
        ("finite", np.where(Z == Z[0, 0], np.nan, Z), L, True),
        ("probabilities", P * 1.1, L, False),
        ("probabilities", np.where(P == P[0, 0], np.nan, P), L, False),
        ("probabilities", P - 0.5, L, False),
        ("rounded", np.eye(3)[L], L, False),
        ("labels must be 6", Z, L + 1, True),
        ("labels must be 6", Z, L - 1, True),
        ("labels must be 6", Z, L[:4], True),
        ("labels must be 6", Z, L + 0.5, True),
        ("labels must be 6", Z, np.eye(3)[L], True),
    ],
)
def test_refuses_data(make, rule, scores, labels, from_logits):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        make(from_logits=from_logits).fit(scores, labels)


def test_refuses_other_shapes_and_models():
    with pytest.raises(ValueError, match="from_logits must be.*Received: "):
        TemperatureScaling(from_logits="yes")
    with pytest.raises(ValueError, match="takes scores of shape.*Received: "):
        TemperatureScaling().build((None, 3, 2))
    fitted = VectorScaling().fit(X[:, :3], Y)
    with pytest.raises(ValueError, match="built for 3.*Received: "):
        fitted.fit(X[:, :2], Y % 2)
    for calibrator in (TemperatureScaling(), keras.layers.Dense(3)):
        with pytest.raises(ValueError, match="fitted Calibrator.*Received: "):
            calibrated_model(network("sequential"), calibrator)
