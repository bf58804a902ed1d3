"""Tests of dlcompanion.uncertainty.scores.brier_score."""

from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import stored_with_probabilities

from dlcompanion.testing import check_metric
from dlcompanion.uncertainty import BrierScore

FILE = Path(__file__).parents[2] / "references/calibration.npz"
TERMS = ("reliability", "resolution", "uncertainty", "within_bins")


@pytest.fixture(scope="module")
def vectors():
    return stored_with_probabilities(FILE)


def measured(y, p, **kwargs):
    metric = BrierScore(classes=p.shape[1], **kwargs)
    for rows in np.array_split(np.arange(len(y)), 4):
        metric.update_state(y[rows], p[rows])
    return float(metric.result()), [metric.decomposition()[name] for name in TERMS]


def test_contract(vectors):
    y, p = vectors["in/labels"][:40], vectors["p"][:40].astype("float32")
    check_metric(BrierScore, {"classes": 4, "bins": 5}, y, p)


def test_is_that_of_scikit_learn(vectors):
    y, p = vectors["in/labels"], vectors["p"]
    np.testing.assert_allclose(measured(y, p)[0], vectors["out/brier"], rtol=1e-5)
    binary = measured((y == 1).astype(int), p[:, 1:2])[0]
    np.testing.assert_allclose(binary, vectors["out/brier/binary"], rtol=1e-5)
    of_logits = measured(y, vectors["in/logits"], from_logits=True)[0]
    np.testing.assert_allclose(of_logits, vectors["out/brier"], rtol=1e-5)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_its_parts_sum_to_it(vectors, bins):
    for y, p in (
        (vectors["in/labels"], vectors["p"]),
        (vectors["in/labels"] == 1, vectors["p"][:, 1:2]),
    ):
        score, parts = measured(np.array(y, int), p, bins=bins)
        reliability, resolution, uncertainty, within = parts
        total = reliability - resolution + uncertainty + within
        np.testing.assert_allclose(total, score, rtol=1e-5)


def test_parts_are_murphys_where_forecasts_are_few():
    rng = np.random.default_rng(0)
    p = rng.choice([0.1, 0.3, 0.8], size=(300, 1))
    y = (rng.uniform(size=300) < 0.9 * p[:, 0] + 0.1).astype(int)
    _, parts = measured(y, p, bins=10)
    reliability = resolution = 0.0
    for forecast in (0.1, 0.3, 0.8):
        share, there = np.mean(p == forecast), y[p[:, 0] == forecast].mean()
        reliability += share * (forecast - there) ** 2
        resolution += share * (there - y.mean()) ** 2
    wanted = [reliability, resolution, y.mean() * (1 - y.mean()), 0.0]
    np.testing.assert_allclose(parts, wanted, atol=1e-6)


def test_nothing_beats_the_true_probabilities():
    rng = np.random.default_rng(1)
    p = rng.uniform(size=(20_000, 1))
    y = (rng.uniform(size=20_000) < p[:, 0]).astype(int)
    best = measured(y, p)[0]
    np.testing.assert_allclose(best, (p * (1 - p)).mean(), atol=5e-3)
    for other in (p**1.3, 0.5 + 0.8 * (p - 0.5), np.full_like(p, y.mean())):
        assert measured(y, other)[0] > best + 1e-4


def test_refuses():
    with pytest.raises(ValueError, match="classes must be.*Received: "):
        BrierScore(classes=0)
    with pytest.raises(ValueError, match="bins must be.*Received: "):
        BrierScore(classes=2, bins=0)
    with pytest.raises(ValueError, match="from_logits must be.*Received: "):
        BrierScore(classes=2, from_logits="no")
    p = np.full((2, 2), 0.5)
    with pytest.raises(ValueError, match="one column.*Received: "):
        BrierScore(classes=1).update_state(np.array([0, 1]), p)
    for y, bad in (([0, 2], p), ([0, 1], 2 * p), ([0, 1], p * np.nan)):
        with pytest.raises(ValueError, match="Received: "):
            BrierScore(classes=2).update_state(np.array(y), bad)
