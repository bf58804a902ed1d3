"""Tests of dlcompanion.uncertainty.scores.smooth_calibration_error."""

from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import stored_with_probabilities

from dlcompanion.testing import check_metric
from dlcompanion.uncertainty import ExpectedCalibrationError, SmoothCalibrationError

FILE = Path(__file__).parents[2] / "references/calibration.npz"


@pytest.fixture(scope="module")
def vectors():
    return stored_with_probabilities(FILE)


def value(y, p):
    metric = SmoothCalibrationError()
    metric.update_state(y, p)
    return float(metric.result())


def test_contract(vectors):
    y, p = vectors["in/labels"][:40], vectors["p"][:40].astype("float32")
    check_metric(SmoothCalibrationError, {}, y, p)


def test_is_that_of_its_authors(vectors):
    """Their package finds the width on a grid of 2^-10 and rounds probabilities."""
    y, p = vectors["in/labels"], vectors["p"]
    found = value((y == 1).astype(int), p[:, 1:2])
    np.testing.assert_allclose(found, vectors["out/smooth"], atol=1.5e-3)
    np.testing.assert_allclose(value(y, p), vectors["out/smooth/top"], atol=1.5e-3)


def test_is_the_fixed_point_of_the_smoothed_residual(vectors):
    """The definition, with the kernel's reflections written out."""
    y, p = (vectors["in/labels"] == 1).astype(int), vectors["p"][:, 1]
    sigma = value(y, p[:, None])
    t = (np.arange(2_000) + 0.5) / 2_000
    images = [2 * m + s * p[:, None] for m in range(-2, 3) for s in (1, -1)]
    kernel = sum(np.exp(-0.5 * ((t - image) / sigma) ** 2) for image in images)
    kernel /= sigma * np.sqrt(2 * np.pi)
    smoothed = np.abs((y - p) @ kernel / len(y)).mean()
    np.testing.assert_allclose(smoothed, sigma, rtol=1e-3)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.2])
def test_of_a_constant_error_it_is_that_error(shift):
    p = np.full((1_000, 1), 0.5)
    y = (np.arange(1_000) < 1_000 * (0.5 + shift)).astype(int)
    np.testing.assert_allclose(value(y, p), abs(shift), atol=1e-4)


def test_it_does_not_jump():
    """Probabilities that change sides of a bin's edge make a binned error 0.5."""
    y = np.array([1, 0] * 50)
    below, above = (np.full((100, 1), 0.5 + e) for e in (-1e-4, 1e-4))
    mixed = np.where(y[:, None] == 1, below, above)
    binned = ExpectedCalibrationError(bins=10)
    binned.update_state(y, mixed)
    assert float(binned.result()) > 0.49
    for p in (below, above, mixed):
        assert value(y, p) < 0.01


def test_refuses():
    with pytest.raises(ValueError, match="from_logits must be.*Received: "):
        SmoothCalibrationError(from_logits=None)
    for y, p in (([0, 2], [[0.5], [0.5]]), ([0, 1], [[0.5], [1.5]])):
        with pytest.raises(ValueError, match="Received: "):
            SmoothCalibrationError().update_state(np.array(y), np.array(p))
