"""Tests of dlcompanion.uncertainty.scores.calibration_error."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import stored_with_probabilities

from dlcompanion.testing import check_metric
from dlcompanion.uncertainty import (
    AdaptiveCalibrationError,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    MaximumCalibrationError,
)
from dlcompanion.uncertainty.scores.calibration_error import BinnedCalibration

FILE = Path(__file__).parents[2] / "references/calibration.npz"
EVERY = {
    "ece": (ExpectedCalibrationError, {"bins": 5}),
    "ece mass": (ExpectedCalibrationError, {"bins": 5, "binning": "mass"}),
    "mce": (MaximumCalibrationError, {"bins": 5}),
    "classwise": (ClasswiseCalibrationError, {"classes": 4, "bins": 5}),
    "ace": (AdaptiveCalibrationError, {"classes": 4, "bins": 5}),
}
each = pytest.mark.parametrize(("metric", "kwargs"), EVERY.values(), ids=EVERY)


@pytest.fixture(scope="module")
def vectors():
    return stored_with_probabilities(FILE)


def value(metric, y, p, **kwargs):
    metric.update_state(y, p, **kwargs)
    return float(metric.result())


@each
def test_contract(vectors, metric, kwargs):
    y, p = vectors["in/labels"][:40], vectors["p"][:40].astype("float32")
    check_metric(metric, kwargs, y, p)


def test_is_that_of_torchmetrics_and_netcal(vectors):
    y, p, z = vectors["in/labels"], vectors["p"], vectors["in/logits"]
    for make, norm, netcal in (
        (ExpectedCalibrationError, "l1", "ece"),
        (MaximumCalibrationError, "max", "mce"),
    ):
        found = value(make(bins=15), y, p)
        np.testing.assert_allclose(found, vectors[f"out/torchmetrics/{norm}"], 1e-4)
        np.testing.assert_allclose(found, vectors[f"out/netcal/{netcal}"], 1e-4)
        np.testing.assert_allclose(value(make(from_logits=True), y, z), found, 1e-4)
        binary = value(make(bins=10), (y == 1).astype("int32"), p[:, 1:2])
        wanted = vectors[f"out/torchmetrics/binary/{norm}"]
        np.testing.assert_allclose(binary, wanted, 1e-4)


def in_order(p, y, bins):
    """Bins of equally many examples, by sorting: a list of pairs of means."""
    order = np.argsort(p)
    return [(p[k].mean(), y[k].mean()) for k in np.array_split(order, bins)]


def test_bins_of_equal_mass_are_those_of_sorting(vectors):
    y, p = vectors["in/labels"], vectors["p"]
    gaps = [[abs(a - b) for a, b in in_order(p[:, k], y == k, 8)] for k in range(4)]
    found = value(AdaptiveCalibrationError(classes=4, bins=8), y, p)
    np.testing.assert_allclose(found, np.mean(gaps), rtol=0.02)
    hit = (p.argmax(axis=1) == y).astype("float64")
    gaps = [abs(a - b) for a, b in in_order(p.max(axis=1), hit, 8)]
    for make, wanted in (
        (ExpectedCalibrationError, np.mean(gaps)),
        (MaximumCalibrationError, np.max(gaps)),
    ):
        found = value(make(bins=8, binning="mass"), y, p)
        # one of the 50 examples of a bin may lie in the next one
        np.testing.assert_allclose(found, wanted, atol=0.03)


def test_classwise_is_the_mean_over_the_columns(vectors):
    y, p = vectors["in/labels"], vectors["p"]
    columns = [
        value(ExpectedCalibrationError(bins=10), (y == k).astype(int), p[:, k : k + 1])
        for k in range(4)
    ]
    found = value(ClasswiseCalibrationError(classes=4, bins=10), y, p)
    np.testing.assert_allclose(found, np.mean(columns), rtol=1e-4)


@pytest.mark.once
@pytest.mark.parametrize("binning", ["width", "mass"])
def test_of_calibrated_labels_it_falls_as_the_root_of_their_number(binning):
    rng = np.random.default_rng(0)
    means = []
    for n in (100, 1_600, 25_600):
        values = []
        for _ in range(10):
            p = rng.uniform(size=(n, 1))
            y = (rng.uniform(size=(n, 1)) < p).astype(int)
            values.append(value(ExpectedCalibrationError(10, binning), y, p))
        means.append(np.mean(values))
    # the gap of a bin of m examples is sqrt(2 p (1 - p) / (pi m)) on average
    wanted = np.sqrt(2 / np.pi * 10 / 25_600) * np.pi / 8
    assert abs(means[2] / wanted - 1) < 0.2
    np.testing.assert_allclose(np.array(means[:2]) / means[1:], 4, rtol=0.35)


def test_a_probability_of_one_belongs_to_the_last_bin():
    y, p = np.array([1, 0]), np.array([[1.0], [0.0]])
    for binning in ("width", "mass"):
        for bins in (1, 3):
            assert value(ExpectedCalibrationError(bins, binning), y, p) == 0
            assert value(ExpectedCalibrationError(bins, binning), 1 - y, p) == (
                0 if bins == 1 else 1
            )


def bad_data():
    y, p = np.array([0, 1, 1, 0]), np.array([[0.2, 0.8]] * 4, "float32")
    nan = p.copy()
    nan[1] = np.nan
    return [(y, p * 1.5), (y, p - 0.5), (y, nan), (y + 1, p), (y - 1, p)]


@each
def test_refuses_bad_data_and_says_nan_of_it_in_a_compiled_step(metric, kwargs):
    if "classes" in kwargs:
        kwargs = {**kwargs, "classes": 2}
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    model.compile(metrics=[metric(**kwargs)], loss=lambda y, p: p[:, 0])
    for y, p in bad_data():
        with pytest.raises(ValueError, match="Received: "):
            metric(**kwargs).update_state(y, p)
        logs = model.test_on_batch(p, y, return_dict=True)
        assert np.isnan(logs[metric(**kwargs).name])


def test_refuses_arguments():
    for make, kwargs, rule in (
        (ExpectedCalibrationError, {"bins": 0}, "bins must be"),
        (ExpectedCalibrationError, {"binning": "equal"}, "binning must be"),
        (MaximumCalibrationError, {"from_logits": 1}, "from_logits must be"),
        (ClasswiseCalibrationError, {"classes": 1}, "classes must be"),
        (AdaptiveCalibrationError, {"classes": 2.5}, "classes must be"),
    ):
        with pytest.raises(ValueError, match=f"{rule}.*Received: "):
            make(**kwargs)
        assert issubclass(make, BinnedCalibration)
    y, p = np.array([0, 1]), np.full((2, 2), 0.5)
    with pytest.raises(ValueError, match="shape .batch, classes.*Received: "):
        ClasswiseCalibrationError(classes=3).update_state(y, p)
