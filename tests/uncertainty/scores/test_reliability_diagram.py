"""Tests of dlcompanion.uncertainty.scores.reliability_diagram."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from dlcompanion.uncertainty import reliability_diagram


def drawn(y, p, **kwargs):
    """Points of the curve, and the band as two arrays over them."""
    axes = reliability_diagram(y, p, axes=Figure().add_subplot(), **kwargs)
    x, f = axes.lines[1].get_data()
    corners = axes.collections[0].get_paths()[0].vertices
    band = [np.sort(corners[np.isclose(corners[:, 0], a), 1])[[0, -1]] for a in x]
    return x, f, np.array(band).T


def test_points_are_means_of_bins():
    p = np.array([[0.1], [0.15], [0.7], [1.0]])
    x, f, _ = drawn(np.array([0, 1, 1, 0]), p, bins=5)
    np.testing.assert_allclose(x, [0.125, 0.7, 1.0])
    np.testing.assert_allclose(f, [0.5, 1.0, 0.0])


def test_of_several_classes_the_decision_counts():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    x, f, _ = drawn(np.array([0, 0]), p, bins=2)
    np.testing.assert_allclose([x, f], [[0.7], [0.5]])


@pytest.mark.once
def test_the_band_holds_calibrated_points_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(30_000, 1))
    y = (rng.uniform(size=p.shape) < p).astype(int)
    _, f, (low, high) = drawn(y, p, bins=100, level=0.8)
    inside = np.mean((low <= f) & (f <= high))
    assert abs(inside - 0.8) < 0.12  # three standard errors of 100 bins
    _, f, (low, high) = drawn((y + 1) % 2, p, bins=100, level=0.8)
    assert np.mean((low <= f) & (f <= high)) < 0.1


@pytest.mark.parametrize(
    ("y", "p", "kwargs"),
    [
        ([0, 1], [[0.5], [1.5]], {}),
        ([0, 2], [[0.5], [0.5]], {}),
        ([0, 1], [0.5, 0.5], {}),
        ([0, 1], [[0.5], [0.5]], {"bins": 0}),
        ([0, 1], [[0.5], [0.5]], {"level": 1}),
        ([0, 1], [[0.5], [0.5]], {"seed": -1}),
    ],
)
def test_refuses(y, p, kwargs):
    with pytest.raises(ValueError, match="Received: "):
        reliability_diagram(np.array(y), np.array(p), **kwargs)
