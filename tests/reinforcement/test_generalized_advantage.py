"""Tests of dlcompanion.reinforcement.generalized_advantage."""

from pathlib import Path

import numpy as np
import pytest

from dlcompanion.reinforcement import (
    generalized_advantages,
    lambda_returns,
    n_step_returns,
    vtrace,
)
from dlcompanion.reinforcement.agents.rollout import Rollout
from dlcompanion.reinforcement.generalized_advantage import (
    Explained,
    advantages_and_returns,
    explained_variance,
    reward_to_go,
)

REFERENCE = Path(__file__).parents[1] / "references/generalized_advantage.npz"


@pytest.fixture(scope="module")
def rlax():
    with np.load(REFERENCE) as file:
        return dict(file)


def arrays_of(rlax):
    dones = rlax["in/terminated"]
    after = np.where(dones, 0.0, rlax["in/values"][1:])
    return rlax["in/rewards"], after, dones


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_n_step_returns_equal_rlax(rlax, steps):
    got = n_step_returns(*arrays_of(rlax), 0.9, steps)
    np.testing.assert_allclose(got, rlax[f"out/n_step/{steps}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
def test_lambda_returns_and_advantages_equal_rlax(rlax, lambda_):
    rewards, after, dones = arrays_of(rlax)
    got = lambda_returns(rewards, after, dones, 0.9, lambda_)
    np.testing.assert_allclose(got, rlax[f"out/lambda/{lambda_}"], rtol=1e-5, atol=1e-6)
    values = rlax["in/values"][:-1]
    got = generalized_advantages(rewards, values, after, dones, 0.9, lambda_)
    np.testing.assert_allclose(got, rlax[f"out/gae/{lambda_}"], rtol=1e-5, atol=1e-6)


def rollout(time=9, environments=6, seed=0):
    """A rollout with ends of both kinds: ``after`` is 0 where one terminated."""
    rng = np.random.default_rng(seed)
    dones = rng.random((time, environments)) < 0.3
    terminated = dones & (rng.random(dones.shape) < 0.5)
    values = rng.normal(size=dones.shape)
    later = np.vstack([values[1:], rng.normal(size=(1, environments))])
    after = np.where(dones, rng.normal(size=dones.shape), later)
    after[terminated] = 0.0
    assert terminated.any() and (dones & ~terminated).any()
    return rng.normal(size=dones.shape), values, after, dones


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_the_limits_of_lambda(discount):
    rewards, values, after, dones = rollout()
    error = rewards + discount * after - values
    got = generalized_advantages(rewards, values, after, dones, discount, 0.0)
    np.testing.assert_array_equal(got, error.astype("float32"))
    closed = dones.copy()
    closed[-1] = True
    whole = reward_to_go(rewards, closed, after, discount)
    got = generalized_advantages(rewards, values, after, dones, discount, 1.0)
    np.testing.assert_allclose(got, whole - values, rtol=1e-5, atol=1e-6)
    for got, expected in (
        (lambda_returns(rewards, after, dones, discount, 0.0), error + values),
        (lambda_returns(rewards, after, dones, discount, 1.0), whole),
        (n_step_returns(rewards, after, dones, discount, 1), error + values),
        (n_step_returns(rewards, after, dones, discount, 99), whole),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_lambda_return_is_the_mean_of_all_n_step_returns():
    rewards, _, after, dones = rollout()
    dones[:] = False  # nine steps, cut at the end
    lambda_, mean = 0.6, np.zeros(rewards.shape)
    for n in range(1, 9):
        weight = (1 - lambda_) * lambda_ ** (n - 1)
        mean += weight * n_step_returns(rewards, after, dones, 0.9, n)
    mean += lambda_**8 * n_step_returns(rewards, after, dones, 0.9, 9)
    np.testing.assert_allclose(
        lambda_returns(rewards, after, dones, 0.9, lambda_), mean, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_advantage_and_value_are_the_lambda_return(lambda_):
    rewards, values, after, dones = rollout()
    advantages = generalized_advantages(rewards, values, after, dones, 0.9, lambda_)
    returns = lambda_returns(rewards, after, dones, 0.9, lambda_)
    np.testing.assert_allclose(advantages + values, returns, rtol=1e-5, atol=1e-6)


def test_what_comes_after_an_end_does_not_matter():
    rewards, values, after, dones = rollout()
    functions = [
        lambda r, v, a, e: n_step_returns(r, a, e, 0.9, 4),
        lambda r, v, a, e: lambda_returns(r, a, e, 0.9, 0.7),
        lambda r, v, a, e: generalized_advantages(r, v, a, e, 0.9, 0.7),
    ]
    for function in functions:
        whole = function(rewards, values, after, dones)
        for n in range(dones.shape[1]):  # each episode by itself
            begins = [0, *(np.flatnonzero(dones[:-1, n]) + 1)]
            for begin, end in zip(begins, [*begins[1:], 9], strict=True):
                own = [x[begin:end, n : n + 1] for x in (rewards, values, after, dones)]
                np.testing.assert_allclose(
                    function(*own)[:, 0], whole[begin:end, n], rtol=1e-6, atol=1e-6
                )


def test_cut_counts_what_follows_and_terminated_does_not():
    rewards, dones = np.ones((2, 2)), np.array([[False, False], [True, True]])
    after = np.array([[5.0, 5.0], [0.0, 100.0]])  # the second is cut
    for returns in (
        n_step_returns(rewards, after, dones, 0.5, 2),
        lambda_returns(rewards, after, dones, 0.5, 1.0),
        2.0 + generalized_advantages(rewards, 2 * rewards, after, dones, 0.5, 1.0),
    ):
        # the last function's second step begins at v = 2 and not at v' = 5
        assert returns[1].tolist() == [1.0, 51.0]
    assert lambda_returns(rewards, after, dones, 0.5, 1.0)[0].tolist() == [1.5, 26.5]


def test_exact_values_leave_no_advantage_on_average():
    # a chain whose values are known: 4 steps, each pays 1 or 0 by a coin
    rng = np.random.default_rng(0)
    rewards = (rng.random((4, 40_000)) < 0.5).astype(float)
    values = np.array([2.0, 1.5, 1.0, 0.5])[:, None] * np.ones_like(rewards)
    after, dones = np.vstack([values[1:], 0 * values[:1]]), np.zeros(rewards.shape)
    for lambda_ in (0.0, 0.5, 1.0):
        a = generalized_advantages(rewards, values, after, dones, 1.0, lambda_)
        np.testing.assert_allclose(a.mean(axis=1), 0, atol=4 * 1.0 / 200)
        # the variance is that of a coin, times a geometric series
        series = (lambda_ ** (2 * np.arange(4))).sum()
        assert a[0].var() == pytest.approx(0.25 * series, rel=0.03)


def test_rejects():
    rewards, values, after, dones = rollout()
    with pytest.raises(ValueError, match=r"one shape.*Received: rewards.shape=\(8, 6"):
        generalized_advantages(rewards[1:], values, after, dones, 0.9, 0.5)
    with pytest.raises(ValueError, match="one shape"):
        lambda_returns(rewards[:, 0], after[:, 0], dones[:, 0], 0.9, 0.5)
    with pytest.raises(ValueError, match="Received: discount=1.1"):
        lambda_returns(rewards, after, dones, 1.1, 0.5)
    with pytest.raises(ValueError, match="Received: gae_lambda=-1"):
        generalized_advantages(rewards, values, after, dones, 0.9, -1)
    with pytest.raises(ValueError, match="Received: steps=0"):
        n_step_returns(rewards, after, dones, 0.9, 0)


def returns_rollout(time=9, environments=4, seed=0):
    rng = np.random.default_rng(seed)
    dones = rng.random((time, environments)) < 0.3
    dones[-1] = True
    return rng.normal(size=dones.shape), dones, rng.normal(size=dones.shape)


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_equals_the_sum_of_the_definition(discount):
    rewards, dones, after = returns_rollout()
    expected = np.zeros_like(rewards)
    for n in range(rewards.shape[1]):
        for t in range(len(rewards)):
            last = t + np.flatnonzero(dones[t:, n])[0]
            powers = discount ** np.arange(last - t + 2)
            terms = [*rewards[t : last + 1, n], after[last, n]]
            expected[t, n] = powers @ terms
    np.testing.assert_allclose(
        reward_to_go(rewards, dones, after, discount), expected, rtol=1e-6
    )


def test_cutting_changes_nothing_where_the_value_is_the_return():
    rewards, dones, after = returns_rollout()
    whole = reward_to_go(rewards, dones, after, 0.9)
    truncated, dones_truncated = after.copy(), dones.copy()
    truncated[4] = np.where(dones[4], after[4], whole[5])
    dones_truncated[4] = True
    np.testing.assert_allclose(
        reward_to_go(rewards, dones_truncated, truncated, 0.9), whole, rtol=1e-6
    )


def test_what_follows_is_read_at_ends_only():
    rewards, dones, after = returns_rollout()
    noisy = np.where(dones, after, np.nan)
    np.testing.assert_array_equal(
        reward_to_go(rewards, dones, noisy, 0.9),
        reward_to_go(rewards, dones, after, 0.9),
    )


def test_returns_rejects():
    rewards, dones, after = returns_rollout()
    with pytest.raises(ValueError, match=r"one shape.*Received: rewards.shape=\(8, 4"):
        reward_to_go(rewards[1:], dones, after, 0.9)
    with pytest.raises(ValueError, match="one shape"):
        reward_to_go(rewards[:, 0], dones[:, 0], after[:, 0], 0.9)
    with pytest.raises(ValueError, match="Received: discount=1.1"):
        reward_to_go(rewards, dones, after, 1.1)


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("largest", [1.0, 2.0])
def test_equals_rlax(lambda_, largest):
    assert REFERENCE.stem == "generalized_advantage"
    with np.load(REFERENCE) as file:
        values, dones = file["in/values"], file["in/terminated"]
        after = np.where(dones, 0.0, values[1:])
        got = vtrace(
            file["in/rewards"],
            values[:-1],
            after,
            dones,
            file["in/ratios"],
            0.9,
            lambda_,
            largest,
        )
        out = {n: file[f"out/vtrace/{lambda_}/{largest}/{n}"] for n in NAMES}
    expected = out["errors"] + values[:-1]
    np.testing.assert_allclose(got.targets, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.advantages, out["advantages"], rtol=1e-5, atol=1e-5)


NAMES = ("errors", "advantages")


@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_of_equal_policies_is_the_lambda_return(lambda_):
    rewards, values, after, dones = rollout()
    got = vtrace(rewards, values, after, dones, np.ones_like(rewards), 0.9, lambda_)
    returns = lambda_returns(rewards, after, dones, 0.9, lambda_)
    np.testing.assert_allclose(got.targets, returns, rtol=1e-5, atol=1e-6)
    advantages = generalized_advantages(rewards, values, after, dones, 0.9, lambda_)
    np.testing.assert_allclose(got.advantages, advantages, rtol=1e-5, atol=1e-6)


def test_no_weight_no_correction():
    rewards, values, after, dones = rollout()
    got = vtrace(rewards, values, after, dones, np.zeros_like(rewards), 0.9)
    np.testing.assert_allclose(got.targets, values, rtol=1e-6)
    assert not got.advantages.any()


def test_with_large_weights_allowed_one_step_is_importance_sampling():
    # E_mu[w f] = E_pi[f]: of two actions, under the policy that played
    mu, pi, paid = np.array([0.8, 0.2]), np.array([0.3, 0.7]), np.array([1.0, 5.0])
    one = np.ones((1, 2))  # both actions, to be weighted by mu
    got = vtrace(paid[None], 0 * one, 0 * one, one, (pi / mu)[None], 0.9, 1.0, 4.0)
    assert mu @ got.targets[0] == pytest.approx(pi @ paid)
    # cut at 1 it is the value of the policy min(mu, pi), up to its sum
    cut = vtrace(paid[None], 0 * one, 0 * one, one, (pi / mu)[None], 0.9)
    assert mu @ cut.targets[0] == pytest.approx(np.minimum(mu, pi) @ paid)


def test_nothing_passes_an_end():
    rewards, values, after, dones = rollout()
    ratios = np.exp(np.random.default_rng(1).normal(size=rewards.shape))
    got = vtrace(rewards, values, after, dones, ratios, 0.9)
    changed = rewards.copy()
    changed[5:] += 7.0
    other = vtrace(changed, values, after, dones, ratios, 0.9)
    closed = dones[:5][::-1].cumsum(axis=0)[::-1] > 0  # an end lies before row 5
    for a, b in zip(got, other, strict=True):
        np.testing.assert_array_equal(a[:5][closed], b[:5][closed])
        assert (a[:5][~closed] != b[:5][~closed]).all()


def test_vtrace_rejects():
    rewards, values, after, dones = rollout()
    one = np.ones_like(rewards)
    with pytest.raises(ValueError, match="at least 0. Received: -1.0"):
        vtrace(rewards, values, after, dones, -one, 0.9)
    with pytest.raises(ValueError, match=r"ratios must have one shape.*\(8, 6\)"):
        vtrace(rewards, values, after, dones, one[1:], 0.9)
    with pytest.raises(ValueError, match="Received: largest_weight=0.5"):
        vtrace(rewards, values, after, dones, one, 0.9, largest_weight=0.5)
    with pytest.raises(ValueError, match="Received: lambda_=2"):
        vtrace(rewards, values, after, dones, one, 0.9, lambda_=2)


RNG = np.random.default_rng(0)


def test_advantages_and_returns_bootstrap_only_where_nothing_terminated():
    values = {0.0: 5.0, 1.0: 7.0, 2.0: 11.0}
    observations = np.array([[[0.0]], [[1.0]]])
    next_observations = np.array([[[1.0]], [[2.0]]])
    no, yes = np.array([[False], [False]]), np.array([[False], [True]])
    rewards, mask = np.ones((2, 1)), np.ones((2, 1), bool)

    def critic(x):
        return np.array([[values[v]] for v in x[:, 0]])

    for terminated, worth in ((no, 11.0), (yes, 0.0)):
        rollout = Rollout(
            observations, None, rewards, next_observations, terminated, yes, mask
        )
        advantages, returns = advantages_and_returns(rollout, critic, 0.9, 0.5)
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
    mask = RNG.random((30, 4)) < 0.8
    explained = Explained()
    for part in (slice(0, 10), slice(10, 30)):
        explained.add(errors[part], targets[part], mask[part])
    whole = explained_variance(errors[mask], targets[mask])
    assert explained.take() == pytest.approx(whole)
    explained.add(0 * errors, targets, mask)  # what was taken is forgotten
    assert explained.take() == 1.0
