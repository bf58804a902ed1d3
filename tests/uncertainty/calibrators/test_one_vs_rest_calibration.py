"""Tests of dlcompanion.uncertainty.calibrators.one_vs_rest_calibration."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import stored

from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import BetaCalibration, IsotonicCalibration, PlattScaling
from dlcompanion.uncertainty.calibrators.one_vs_rest_calibration import log_odds

FILE = Path(__file__).parents[2] / "references/calibration.npz"
EVERY = {
    "platt": PlattScaling,
    "beta": BetaCalibration,
    "isotonic": IsotonicCalibration,
}
each = pytest.mark.parametrize(("name", "make"), EVERY.items(), ids=EVERY)


@pytest.fixture(scope="module")
def vectors():
    return stored(FILE)


@each
def test_contract(name, make):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
    check_layer(make, {}, x, output_shape=x.shape)


@each
def test_is_that_of_the_library(vectors, name, make):
    """scikit-learn's sigmoid and isotonic map, betacal, one class against the rest."""
    logits, labels = vectors["in/logits"], vectors["in/labels"]
    p = make().fit(logits, labels).predict(logits)
    atol = 2e-3 if name == "beta" else 5e-4  # those libraries stop earlier
    np.testing.assert_allclose(p, vectors[f"out/{name}"], atol=atol)


@each
def test_two_classes_are_one_column(name, make):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(300, 2))
    labels = (2 * z + rng.gumbel(size=z.shape)).argmax(axis=1)
    s = z[:, 1:] - z[:, :1]
    two, one = make().fit(z, labels).predict(z), make().fit(s, labels).predict(s)
    np.testing.assert_allclose(two[:, 1:], one, atol=1e-4)


@each
def test_a_map_never_falls(name, make):
    rng = np.random.default_rng(2)
    s = rng.normal(size=(200, 1))
    labels = rng.uniform(size=200) < 0.5 + 0.3 * np.sin(2 * s[:, 0])
    p = make().fit(s, labels).predict(np.linspace(-6, 6, 300)[:, None])
    assert np.diff(p[:, 0]).min() > -1e-6


def test_what_is_calibrated_stays_as_it_is():
    rng = np.random.default_rng(3)
    p = rng.uniform(0.001, 0.999, size=(50_000, 1))
    labels = rng.uniform(size=p.shape) < p
    for make in EVERY.values():
        mapped = make(from_logits=False).fit(p, labels).predict(p)
        assert np.abs(mapped - p).mean() < 0.015


def test_beta_that_would_fall_is_flat():
    rng = np.random.default_rng(4)
    p = rng.uniform(0.01, 0.99, size=(2_000, 1))
    labels = rng.uniform(size=p.shape) < 1 - p
    beta = BetaCalibration(from_logits=False).fit(p, labels)
    a, b = float(beta.a[0]), float(beta.b[0])
    assert a == b == 0
    np.testing.assert_allclose(beta.predict(p), labels.mean(), atol=1e-4)


def test_platt_is_finite_where_classes_are_separated():
    s = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    p = PlattScaling().fit(s, [0, 0, 1, 1]).predict(s)
    assert 0 < p.min() and p.max() < 1
    with pytest.raises(ValueError, match="decided correctly.*Received: "):
        BetaCalibration().fit(s, [0, 0, 1, 1])


def test_isotonic_says_the_same_of_all_classes_where_all_maps_are_zero():
    z = np.array([[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0], [0.1, 0, 0]])
    isotonic = IsotonicCalibration().fit(z, [0, 1, 2, 0])
    p = isotonic.predict(np.zeros((1, 3)))
    assert np.isfinite(p).all() and abs(p.sum() - 1) < 1e-6
    isotonic.knots.assign(0 * isotonic.knots)
    np.testing.assert_allclose(isotonic.predict(z), 1 / 3, atol=1e-6)


def test_log_odds_are_not_rounded():
    z = np.array([[60.0, 0.0, -1.0]], "float32")
    s = keras.ops.convert_to_numpy(log_odds(keras.ops.convert_to_tensor(z)))
    wanted = z - [[np.logaddexp(0, -1), np.logaddexp(60, -1), np.logaddexp(60, 0)]]
    np.testing.assert_allclose(s, wanted, rtol=1e-6)


def test_refuses_a_missing_class_and_a_second_fit():
    z = np.random.default_rng(0).normal(size=(6, 3))
    for make in EVERY.values():
        with pytest.raises(ValueError, match="Every class needs.*Received: "):
            make().fit(z, [0, 1, 0, 1, 0, 1])
        with pytest.raises(ValueError, match="Every class needs.*Received: "):
            make().fit(z[:, :1], [1] * 6)
    isotonic = IsotonicCalibration().fit(z, [0, 1, 2, 0, 1, 2])
    with pytest.raises(ValueError, match="number of knots is fixed.*Received: "):
        isotonic.fit(z, [0, 1, 2, 0, 1, 2])


def test_a_clone_has_as_many_knots():
    s = np.random.default_rng(0).normal(size=(60, 3))
    inputs = keras.Input((3,))
    isotonic = IsotonicCalibration().fit(s, (s.argmax(axis=1) + (s[:, 0] > 1)) % 3)
    model = keras.Model(inputs, isotonic(inputs))
    clone = keras.models.clone_model(model)
    assert isotonic.count > 2
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.predict(s), model.predict(s))
    with pytest.raises(ValueError, match="count must be .* Received: count=1"):
        IsotonicCalibration(count=1)
