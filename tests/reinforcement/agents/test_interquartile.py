"""Tests of dlcompanion.reinforcement.agents.interquartile."""

import numpy as np
import pytest
from scipy.stats import trim_mean

from dlcompanion.reinforcement import bootstrap_interval, interquartile_mean

pytestmark = pytest.mark.once


@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (5,), (11,), (5, 3), (8, 4)])
def test_equals_scipys_trimmed_mean(shape):
    scores = np.random.default_rng(0).normal(size=shape)
    expected = trim_mean(scores, 0.25, axis=None)
    assert interquartile_mean(scores) == pytest.approx(expected, rel=1e-12)


def test_one_collapsed_run_of_five_hardly_matters():
    scores = np.array([480.0, 490.0, 495.0, 500.0, 9.0])
    assert interquartile_mean(scores) > 485 > 400 > scores.mean()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for n in range(200):
        low, high = bootstrap_interval(rng.normal(size=30), resamples=200, seed=n)
        inside += low < 0 < high
    assert 0.88 < inside / 200 < 0.99  # of 30 runs it is a little too narrow


def test_of_a_mean_it_is_the_textbooks():
    scores = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap_interval(scores, np.mean, level=0.9, resamples=4000)
    error = scores.std() / 20
    assert low == pytest.approx(scores.mean() - 1.645 * error, abs=0.1 * error)
    assert high == pytest.approx(scores.mean() + 1.645 * error, abs=0.1 * error)


def test_runs_are_drawn_for_every_task_apart():
    # what differs between tasks is no uncertainty of the mean over them
    scores = np.tile([0.0, 1000.0], (5, 1)) + np.arange(5)[:, None]
    low, high = bootstrap_interval(scores, np.mean)
    assert 500 < low < 502 < high < 504
    seen = []
    bootstrap_interval(scores, lambda x: seen.append(x) or 0.0, resamples=50)
    assert all((x[:, 0] < 10).all() and (x[:, 1] >= 1000).all() for x in seen)
    assert any((x[:, 0] + 1000 != x[:, 1]).any() for x in seen)


def test_the_seed_decides():
    scores = np.random.default_rng(0).normal(size=7)
    assert bootstrap_interval(scores) == bootstrap_interval(scores, seed=0)
    assert bootstrap_interval(scores) != bootstrap_interval(scores, seed=1)
    narrow, wide = (bootstrap_interval(scores, level=x) for x in (0.5, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"scores": []},
        {"scores": [1.0, np.nan]},
        {"scores": np.zeros((2, 2, 2))},
        {"level": 1.0},
        {"resamples": 0},
        {"seed": -1},
    ],
)
def test_rejects(arguments):
    with pytest.raises(ValueError, match=f"Received: {next(iter(arguments))}="):
        bootstrap_interval(**{"scores": [1.0, 2.0], **arguments})
    if "scores" in arguments:
        with pytest.raises(ValueError, match="Received: scores="):
            interquartile_mean(**arguments)
