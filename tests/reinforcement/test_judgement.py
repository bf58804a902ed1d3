"""Tests of dlcompanion.reinforcement.judgement."""

import numpy as np
import pytest

from dlcompanion.reinforcement import Segment, explained_variance, judge
from dlcompanion.reinforcement.judgement import Explained

RNG = np.random.default_rng(0)


def test_judge_knows_the_ends():
    values = {0.0: 5.0, 1.0: 7.0, 2.0: 11.0}
    observations = np.array([[[0.0]], [[1.0]]])
    following = np.array([[[1.0]], [[2.0]]])
    no, yes = np.array([[False], [False]]), np.array([[False], [True]])
    rewards, played = np.ones((2, 1)), np.ones((2, 1), bool)

    def critic(x):
        return np.array([[values[v]] for v in x[:, 0]])

    for terminated, worth in ((no, 11.0), (yes, 0.0)):
        segment = Segment(
            observations, None, rewards, following, terminated, yes, played
        )
        advantages, returns = judge(segment, critic, 0.9, 0.5)
        last = 1 + 0.9 * worth - 7
        first = 1 + 0.9 * 7 - 5 + 0.9 * 0.5 * last
        np.testing.assert_allclose(advantages[:, 0], [first, last], rtol=1e-6)
        np.testing.assert_allclose(returns[:, 0], [first + 5, last + 7], rtol=1e-6)


def test_explained_variance():
    x = np.random.default_rng(0).normal(size=1000)
    assert explained_variance(0 * x, x) == 1.0
    assert explained_variance(x - x.mean(), x) == pytest.approx(0.0)
    assert explained_variance(2 * x, x) < -2


def test_the_share_is_that_of_all_that_was_added():
    errors, targets = RNG.normal(size=(2, 30, 4))
    played = RNG.random((30, 4)) < 0.8
    explained = Explained()
    for part in (slice(0, 10), slice(10, 30)):
        explained.add(errors[part], targets[part], played[part])
    whole = explained_variance(errors[played], targets[played])
    assert explained.take() == pytest.approx(whole)
    explained.add(0 * errors, targets, played)  # what was taken is forgotten
    assert explained.take() == 1.0
