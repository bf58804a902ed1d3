"""Tests of dlcompanion.reinforcement.agents.prioritized_replay."""

import numpy as np
import pytest
from scipy import stats

from dlcompanion.reinforcement import PrioritizedReplay

pytestmark = pytest.mark.once


def filled(count, buffer_size, exponent=0.7, seed=0):
    replay = PrioritizedReplay(buffer_size, exponent)
    replay.add(number=np.arange(count))
    errors = np.random.default_rng(seed).exponential(size=len(replay))
    replay.prioritize(np.arange(len(replay)), errors)
    return replay, errors


@pytest.mark.parametrize("count, buffer_size", [(37, 37), (10, 37), (64, 64), (3, 2)])
def test_draws_follow_the_priorities(count, buffer_size):
    replay, errors = filled(count, buffer_size)
    powers = (errors + 1e-6) ** 0.7
    np.testing.assert_allclose(replay.probabilities(), powers / powers.sum(), rtol=1e-9)
    draws = replay.draw((100, 200), np.random.default_rng(1))
    found = np.bincount(draws.ravel(), minlength=len(replay))
    expected = powers / powers.sum() * draws.size
    assert stats.chisquare(found, expected).pvalue > 0.01
    # and the test would notice draws that are uniform
    uniform = np.random.default_rng(1).integers(len(replay), size=draws.shape)
    uniform = np.bincount(uniform.ravel(), minlength=len(replay))
    assert stats.chisquare(uniform, expected).pvalue < 1e-6


def test_sums_are_those_of_the_leaves():
    replay, _ = filled(100, 50)
    rng = np.random.default_rng(2)
    for _ in range(20):
        replay.add(number=np.arange(rng.integers(1, 9)))
        rows = rng.integers(len(replay), size=16)
        replay.prioritize(rows, rng.normal(size=16))
    leaves = replay.sums[replay.leaves :]
    assert (leaves[50:] == 0).all() and (leaves[:50] > 0).all()
    level, width = leaves, replay.leaves
    while width > 1:
        level, width = level[0::2] + level[1::2], width // 2
        np.testing.assert_array_equal(replay.sums[width : 2 * width], level)


def test_new_steps_come_first():
    replay = PrioritizedReplay(8, 1.0)
    replay.add(number=np.arange(3))
    replay.prioritize([0, 1, 2], [5.0, 0.1, 0.1])
    rows = replay.add(number=np.arange(2))
    np.testing.assert_allclose(replay.probabilities()[rows] * replay.sums[1], 5 + 1e-6)


def test_of_a_row_given_twice_the_last_error_counts():
    replay = PrioritizedReplay(4, 1.0)
    replay.add(number=np.arange(2))
    replay.prioritize([[0, 1], [0, 1]], [[9.0, 9.0], [1.0, -3.0]])
    np.testing.assert_allclose(replay.probabilities(), [0.25, 0.75], rtol=1e-5)


def test_weights_undo_the_preference():
    replay, errors = filled(30, 30)
    rows = np.arange(30)
    p, values = replay.probabilities(), np.random.default_rng(3).normal(size=30)
    weights = replay.weights(rows, 1.0)
    assert weights.max() == 1.0
    # the weighted mean under the draws is the mean of all
    assert (p * weights * values).sum() / (p * weights).sum() == pytest.approx(
        values.mean(), rel=1e-5
    )
    np.testing.assert_allclose(
        replay.weights(rows, 0.4), (p / p.min()) ** -0.4, rtol=1e-5
    )
    assert (replay.weights(rows, 0.0) == 1.0).all()


def test_exponent_0_is_uniform():
    replay, _ = filled(12, 12, exponent=0.0)
    np.testing.assert_allclose(replay.probabilities(), 1 / 12, rtol=1e-12)


def test_goes_on_as_it_was():
    replay, _ = filled(50, 37)
    again = PrioritizedReplay(37, 0.7)
    again.restore(replay.arrays())
    np.testing.assert_array_equal(again.sums, replay.sums)
    assert again.largest == replay.largest and len(again) == 37
    draws = [r.draw((9,), np.random.default_rng(0)) for r in (again, replay)]
    np.testing.assert_array_equal(*draws)
    empty = PrioritizedReplay(37, 0.7)
    empty.restore(PrioritizedReplay(37, 0.7).arrays())
    assert len(empty) == 0 == empty.sums[1]


def test_rejects():
    with pytest.raises(ValueError, match="Received: exponent=-1"):
        PrioritizedReplay(4, -1)
    with pytest.raises(ValueError, match="Received: buffer_size=0"):
        PrioritizedReplay(0)
    replay = PrioritizedReplay(4)
    with pytest.raises(ValueError, match="empty replay buffer"):
        replay.draw((2,), np.random.default_rng(0))
    replay.add(number=np.arange(0))
    replay.add(number=np.arange(2))
    with pytest.raises(ValueError, match="must be finite.*Received: nan"):
        replay.prioritize([0], [np.nan])
    with pytest.raises(ValueError, match="Received: exponent=1.5"):
        replay.weights(np.arange(2), 1.5)
