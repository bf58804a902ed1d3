"""Tests of dlcompanion.uncertainty.calibration."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy, stored

from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import MatrixScaling, TemperatureScaling, VectorScaling

FILE = Path(__file__).parents[1] / "references/calibration.npz"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("float32")


@pytest.fixture(scope="module")
def vectors():
    return stored(FILE)


def planted(n, temperature, classes=4, seed=0):
    """Logits whose labels are drawn from their softmax at a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, classes))
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits / temperature + noise).argmax(axis=1)


def nll(p, labels):
    return -np.log(p[np.arange(len(p)), labels].astype("float64")).mean()


@pytest.mark.parametrize(
    ("layer", "kwargs"),
    [
        (TemperatureScaling, {}),
        (VectorScaling, {}),
        (MatrixScaling, {"penalty": 0.1}),
    ],
)
def test_contract(layer, kwargs):
    check_layer(layer, kwargs, X, output_shape=X.shape)


@pytest.mark.parametrize(
    ("calibrator", "name"),
    [
        (TemperatureScaling(), "temperature"),
        (VectorScaling(), "vector"),
        (MatrixScaling(penalty=0.01), "matrix"),
    ],
)
def test_is_scipys_optimum(vectors, calibrator, name):
    logits, labels = vectors["in/logits"], vectors["in/labels"]
    p = calibrator.fit(logits, labels).predict(logits)
    np.testing.assert_allclose(p, vectors[f"out/{name}"], atol=3e-5)


def test_temperature_is_that_of_netcal_and_scipy(vectors):
    scaling = TemperatureScaling().fit(vectors["in/logits"], vectors["in/labels"])
    found = float(scaling.temperature)
    np.testing.assert_allclose(found, vectors["out/T"], rtol=1e-5)
    np.testing.assert_allclose(found, vectors["out/netcal/T"], rtol=1e-2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    logits, labels = planted(20_000, temperature)
    scaling = TemperatureScaling().fit(logits, labels)
    assert abs(float(scaling.temperature) / temperature - 1) < 0.03


def test_temperature_changes_no_decision_and_never_the_likelihood_for_the_worse():
    for seed in range(5):
        logits, labels = planted(200, 2.0, seed=seed)
        scaling = TemperatureScaling()
        before = scaling.predict(logits)
        after = scaling.fit(logits, labels).predict(logits)
        np.testing.assert_array_equal(before.argmax(1), after.argmax(1))
        values = [nll(before, labels), nll(after, labels)]
        for calibrator in (VectorScaling(), MatrixScaling()):
            p = calibrator.fit(logits, labels).predict(logits)
            values.append(nll(p, labels))
        # each one has the one before as a special case
        assert np.all(np.diff(values) < 1e-6)


def test_heavier_penalties_lead_to_a_vector_without_offsets():
    logits, labels = planted(500, 2.0)
    scaling = MatrixScaling(penalty=1e4).fit(logits, labels)
    kernel = keras.ops.convert_to_numpy(scaling.kernel)
    assert np.abs(kernel - np.diag(np.diag(kernel))).max() < 1e-3
    assert np.abs(keras.ops.convert_to_numpy(scaling.offset)).max() < 1e-3


def test_one_column_is_two_classes():
    logits, labels = planted(500, 2.0, classes=2)
    two = TemperatureScaling().fit(logits, labels)
    one = TemperatureScaling().fit(logits[:, 1:] - logits[:, :1], labels)
    np.testing.assert_allclose(two.temperature, one.temperature, rtol=1e-5)
    p = one.predict(logits[:, 1:] - logits[:, :1])
    np.testing.assert_allclose(p, two.predict(logits)[:, 1:], atol=1e-6)


@pytest.mark.parametrize("make", [TemperatureScaling, VectorScaling, MatrixScaling])
def test_probabilities_are_logits_without_a_constant(make):
    logits, labels = planted(300, 2.0, classes=3)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    of_logits = make().fit(np.log(p), labels).predict(np.log(p))
    of_p = make(from_logits=False).fit(p, labels).predict(p)
    np.testing.assert_allclose(of_p, of_logits, atol=1e-5)


@pytest.mark.parametrize("kind", [TemperatureScaling, VectorScaling, MatrixScaling])
def test_a_probability_of_0_or_1_is_calibrated_to_a_finite_one(kind):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(3, 0.7), size=400).clip(1e-4, 1)
    p /= p.sum(axis=1, keepdims=True)
    y = np.array([rng.choice(3, p=q) for q in p])
    calibrator = kind(from_logits=False).fit(p, y)
    found = numpy(calibrator.predict(np.eye(3)))
    assert np.isfinite(found).all() and (found.argmax(axis=1) == np.arange(3)).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-6)
    nearly = np.full((3, 3), 1e-37) + np.eye(3)
    np.testing.assert_allclose(numpy(calibrator.predict(nearly)), found, atol=0.02)


def test_refuses_what_has_no_optimum():
    logits, _ = planted(50, 1.0)
    for make in (TemperatureScaling, VectorScaling, MatrixScaling):
        with pytest.raises(ValueError, match="decided correctly.*Received: "):
            make().fit(logits, logits.argmax(axis=1))
    MatrixScaling(penalty=1e-3).fit(logits, logits.argmax(axis=1))
    noise = RNG.gumbel(size=logits.shape)
    with pytest.raises(ValueError, match="less about the labels.*Received: "):
        TemperatureScaling().fit(logits, (-logits / 5 + noise).argmax(axis=1))


def test_refuses_arguments_and_one_class():
    for penalty in (-1, np.nan, "much"):
        with pytest.raises(ValueError, match="penalty must be.*Received: "):
            MatrixScaling(penalty=penalty)
    for make in (VectorScaling, MatrixScaling):
        with pytest.raises(ValueError, match="at least two classes.*Received: "):
            make().build((None, 1))
        with pytest.raises(ValueError, match="at least two classes.*Received: "):
            make().fit(np.ones((3, 1)), [0, 1, 0])
