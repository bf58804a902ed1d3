"""Tests of dlcompanion.reinforcement.returns."""

import numpy as np
import pytest

from dlcompanion.reinforcement.returns import reward_to_go


def rollout(time=9, environments=4, seed=0):
    rng = np.random.default_rng(seed)
    ends = rng.random((time, environments)) < 0.3
    ends[-1] = True
    return rng.normal(size=ends.shape), ends, rng.normal(size=ends.shape)


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_equals_the_sum_of_the_definition(discount):
    rewards, ends, after = rollout()
    expected = np.zeros_like(rewards)
    for n in range(rewards.shape[1]):
        for t in range(len(rewards)):
            last = t + np.flatnonzero(ends[t:, n])[0]
            powers = discount ** np.arange(last - t + 2)
            terms = [*rewards[t : last + 1, n], after[last, n]]
            expected[t, n] = powers @ terms
    np.testing.assert_allclose(
        reward_to_go(rewards, ends, after, discount), expected, rtol=1e-6
    )


def test_cutting_changes_nothing_where_the_value_is_the_return():
    rewards, ends, after = rollout()
    whole = reward_to_go(rewards, ends, after, 0.9)
    cut, ends_cut = after.copy(), ends.copy()
    cut[4] = np.where(ends[4], after[4], whole[5])
    ends_cut[4] = True
    np.testing.assert_allclose(
        reward_to_go(rewards, ends_cut, cut, 0.9), whole, rtol=1e-6
    )


def test_what_follows_is_read_at_ends_only():
    rewards, ends, after = rollout()
    noisy = np.where(ends, after, np.nan)
    np.testing.assert_array_equal(
        reward_to_go(rewards, ends, noisy, 0.9), reward_to_go(rewards, ends, after, 0.9)
    )


def test_rejects():
    rewards, ends, after = rollout()
    with pytest.raises(ValueError, match=r"one shape.*Received: rewards.shape=\(8, 4"):
        reward_to_go(rewards[1:], ends, after, 0.9)
    with pytest.raises(ValueError, match="one shape"):
        reward_to_go(rewards[:, 0], ends[:, 0], after[:, 0], 0.9)
    with pytest.raises(ValueError, match="Received: discount=1.1"):
        reward_to_go(rewards, ends, after, 1.1)
