"""Tests of dlcompanion.reinforcement.bandits."""

import numpy as np
import pytest

from dlcompanion.reinforcement import (
    UCB1,
    BernoulliBandits,
    EpsilonGreedy,
    Greedy,
    ThompsonSampling,
)

pytestmark = pytest.mark.once

COUNTS = np.array([[3, 5, 2], [10, 0, 4], [1, 1, 1]])
SUMS = np.array([[2.0, 3.0, 0.0], [9.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def rng():
    return np.random.default_rng(0)


def test_greedy_takes_the_best_so_far_after_one_try_of_each():
    assert Greedy()(COUNTS, SUMS, rng()).tolist() == [0, 1, 0]
    strategy = EpsilonGreedy(exploration=0.3)
    counts, sums = np.tile(COUNTS[:1], (9000, 1)), np.tile(SUMS[:1], (9000, 1))
    shares = np.bincount(strategy(counts, sums, rng()), minlength=3) / 9000
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.017)  # 4 sd


def test_ucb_is_the_written_bound():
    bounds = SUMS[0] / COUNTS[0] + np.sqrt(2 * np.log(10) / COUNTS[0])
    assert bounds.argmax() == 0
    assert UCB1()(COUNTS, SUMS, rng()).tolist() == [0, 1, 0]
    # (0.5 + 0.6069 against 0 + 1.5174): nobody knows the second arm well enough
    counts, sums = np.array([[25, 4]]), np.array([[12.5, 0.0]])
    assert np.sqrt(2 * np.log(29) / 4) > 0.5 + np.sqrt(2 * np.log(29) / 25)
    assert UCB1()(counts, sums, rng()).tolist() == [1]


def test_thompson_pulls_as_often_as_it_believes():
    # P(Beta(1, 2) > Beta(2, 1)) = integral of 2x * (1-x)^2 over [0, 1] = 1/6
    counts, sums = np.ones((12000, 2), int), np.tile([0.0, 1.0], (12000, 1))
    first = (ThompsonSampling()(counts, sums, rng()) == 0).mean()
    assert first == pytest.approx(1 / 6, abs=0.0137)  # 4 sd


def test_regret_is_what_was_lost():
    means = np.array([[0.2, 0.7, 0.4], [0.9, 0.1, 0.5]])
    bandits = BernoulliBandits(means, seed=0)
    pulls = bandits.play(EpsilonGreedy(1.0), steps=400)
    lost = means.max(axis=1) - np.take_along_axis(means, pulls.arms.T, axis=1).T
    np.testing.assert_allclose(pulls.regret, lost.cumsum(axis=0), rtol=1e-12)
    for b in range(2):
        for a in range(3):
            pulled = pulls.arms[:, b] == a
            assert bandits.counts[b, a] == pulled.sum()
            assert bandits.sums[b, a] == pulls.rewards[pulled, b].sum()
    paid = bandits.sums / bandits.counts
    np.testing.assert_allclose(paid, means, atol=0.18)  # 4 sd of the worst


GAPS = np.array([0.0, 0.1, 0.2, 0.3])


@pytest.fixture(scope="module")
def regret():
    """Of 60 times the same bandit, ``(steps,)``."""
    bandits = BernoulliBandits(np.tile(0.6 - GAPS, (60, 1)), seed=0)
    return bandits.play(UCB1(), steps=4_000).regret.mean(axis=1)


def test_ucb_keeps_the_bound_of_its_theorem(regret):
    # Auer et al. 2002, theorem 1
    n = np.arange(1, 4_001)
    bound = 8 * (np.log(n)[:, None] / GAPS[1:]).sum(axis=1)
    bound = bound + (1 + np.pi**2 / 3) * GAPS.sum()
    assert (regret <= bound).all()


def test_ucb_grows_like_the_logarithm(regret):
    n = np.arange(1, 4_001)
    doublings = [regret[2 * m - 1] - regret[m - 1] for m in (500, 1000, 2000)]
    assert max(doublings) < 1.6 * min(doublings)  # linear growth would be 4
    late = slice(400, None)
    assert np.corrcoef(np.log(n[late]), regret[late])[0, 1] > 0.99


def test_no_strategy_beats_the_lower_bound_for_long():
    # Lai and Robbins 1985: regret / log n tends to no less than sum of gap / KL
    p, q = 0.6 - GAPS[1:], 0.6
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    least = (GAPS[1:] / kl).sum()
    bandits = BernoulliBandits(np.tile(0.6 - GAPS, (200, 1)), seed=0)
    pulls = bandits.play(ThompsonSampling(), steps=2_000).regret.mean(axis=1)
    slope = (pulls[-1] - pulls[199]) / np.log(2_000 / 200)
    assert 0.5 * least < slope < 2.5 * least


@pytest.mark.parametrize("strategy", [UCB1(), ThompsonSampling()])
def test_exploring_costs_less_than_greed(strategy):
    means = np.tile([0.5, 0.6], (200, 1))
    greed, other = (
        BernoulliBandits(means, seed=0).play(s, steps=3_000).regret[-1]
        for s in (Greedy(), strategy)
    )
    difference = greed - other
    assert difference.mean() > 3 * difference.std() / np.sqrt(200)


@pytest.mark.parametrize("strategy", [Greedy(), EpsilonGreedy(0.0), UCB1()])
@pytest.mark.parametrize("pulled", [0, 7])
def test_among_equal_arms_one_is_drawn(strategy, pulled):
    counts = np.full((4_000, 4), pulled)
    arms = strategy(counts, counts * 0.5, rng())
    np.testing.assert_allclose(np.bincount(arms) / 4_000, 0.25, atol=0.03)  # 4 sd


def test_resumes_bit_for_bit(tmp_path):
    means = rng().random((7, 3))
    whole, part = (BernoulliBandits(means, seed=5) for _ in range(2))
    expected = whole.play(ThompsonSampling(), steps=60)
    part.play(ThompsonSampling(), steps=25)
    part.save(tmp_path / "bandits")
    again = BernoulliBandits.load(tmp_path / "bandits")
    pulls = again.play(ThompsonSampling(), steps=35)
    np.testing.assert_array_equal(pulls.arms, expected.arms[25:])
    np.testing.assert_array_equal(pulls.rewards, expected.rewards[25:])
    np.testing.assert_allclose(pulls.regret, expected.regret[25:], rtol=1e-12)


@pytest.mark.parametrize("means", [[0.5], [[1.5]], [[np.nan]], [[]]])
def test_rejects_means(means):
    with pytest.raises(ValueError, match="Received: means.shape="):
        BernoulliBandits(means, seed=0)


def test_rejects():
    bandits = BernoulliBandits([[0.5, 0.5]], seed=0)
    with pytest.raises(ValueError, match="Received: steps=0"):
        bandits.play(Greedy(), steps=0)
    for arm in ([2], [-1], 0):
        with pytest.raises(ValueError, match="one arm a bandit.*of 2 arms"):
            bandits.play(lambda *_, arm=arm: arm, steps=1)
    with pytest.raises(ValueError, match="Received: exploration=2"):
        EpsilonGreedy(2)
    with pytest.raises(ValueError, match="Received: seed=-1"):
        BernoulliBandits([[0.5]], seed=-1)
