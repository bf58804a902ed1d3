"""Tests of dlcompanion.reinforcement.generalized_advantage."""

from pathlib import Path

import numpy as np
import pytest

from dlcompanion.reinforcement import (
    generalized_advantages,
    lambda_returns,
    n_step_returns,
    reward_to_go,
)

REFERENCE = Path(__file__).parents[1] / "references/generalized_advantage.npz"


@pytest.fixture(scope="module")
def rlax():
    with np.load(REFERENCE) as file:
        return dict(file)


def arrays_of(rlax):
    ends = rlax["in/terminated"]
    after = np.where(ends, 0.0, rlax["in/values"][1:])
    return rlax["in/rewards"], after, ends


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_n_step_returns_equal_rlax(rlax, steps):
    got = n_step_returns(*arrays_of(rlax), 0.9, steps)
    np.testing.assert_allclose(got, rlax[f"out/n_step/{steps}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_lambda_returns_and_advantages_equal_rlax(rlax, trace):
    rewards, after, ends = arrays_of(rlax)
    got = lambda_returns(rewards, after, ends, 0.9, trace)
    np.testing.assert_allclose(got, rlax[f"out/lambda/{trace}"], rtol=1e-5, atol=1e-6)
    values = rlax["in/values"][:-1]
    got = generalized_advantages(rewards, values, after, ends, 0.9, trace)
    np.testing.assert_allclose(got, rlax[f"out/gae/{trace}"], rtol=1e-5, atol=1e-6)


def rollout(time=9, environments=6, seed=0):
    """A rollout with ends of both kinds: ``after`` is 0 where one terminated."""
    rng = np.random.default_rng(seed)
    ends = rng.random((time, environments)) < 0.3
    terminated = ends & (rng.random(ends.shape) < 0.5)
    values = rng.normal(size=ends.shape)
    later = np.vstack([values[1:], rng.normal(size=(1, environments))])
    after = np.where(ends, rng.normal(size=ends.shape), later)
    after[terminated] = 0.0
    assert terminated.any() and (ends & ~terminated).any()
    return rng.normal(size=ends.shape), values, after, ends


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_the_limits_of_lambda(discount):
    rewards, values, after, ends = rollout()
    error = rewards + discount * after - values
    got = generalized_advantages(rewards, values, after, ends, discount, 0.0)
    np.testing.assert_array_equal(got, error.astype("float32"))
    closed = ends.copy()
    closed[-1] = True
    whole = reward_to_go(rewards, closed, after, discount)
    got = generalized_advantages(rewards, values, after, ends, discount, 1.0)
    np.testing.assert_allclose(got, whole - values, rtol=1e-5, atol=1e-6)
    for got, expected in (
        (lambda_returns(rewards, after, ends, discount, 0.0), error + values),
        (lambda_returns(rewards, after, ends, discount, 1.0), whole),
        (n_step_returns(rewards, after, ends, discount, 1), error + values),
        (n_step_returns(rewards, after, ends, discount, 99), whole),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_lambda_return_is_the_mean_of_all_n_step_returns():
    rewards, _, after, ends = rollout()
    ends[:] = False  # nine steps, cut at the end
    trace, mean = 0.6, np.zeros(rewards.shape)
    for n in range(1, 9):
        weight = (1 - trace) * trace ** (n - 1)
        mean += weight * n_step_returns(rewards, after, ends, 0.9, n)
    mean += trace**8 * n_step_returns(rewards, after, ends, 0.9, 9)
    np.testing.assert_allclose(
        lambda_returns(rewards, after, ends, 0.9, trace), mean, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_advantage_and_value_are_the_lambda_return(trace):
    rewards, values, after, ends = rollout()
    advantages = generalized_advantages(rewards, values, after, ends, 0.9, trace)
    returns = lambda_returns(rewards, after, ends, 0.9, trace)
    np.testing.assert_allclose(advantages + values, returns, rtol=1e-5, atol=1e-6)


def test_what_comes_after_an_end_does_not_matter():
    rewards, values, after, ends = rollout()
    functions = [
        lambda r, v, a, e: n_step_returns(r, a, e, 0.9, 4),
        lambda r, v, a, e: lambda_returns(r, a, e, 0.9, 0.7),
        lambda r, v, a, e: generalized_advantages(r, v, a, e, 0.9, 0.7),
    ]
    for function in functions:
        whole = function(rewards, values, after, ends)
        for n in range(ends.shape[1]):  # each episode by itself
            begins = [0, *(np.flatnonzero(ends[:-1, n]) + 1)]
            for begin, end in zip(begins, [*begins[1:], 9], strict=True):
                own = [x[begin:end, n : n + 1] for x in (rewards, values, after, ends)]
                np.testing.assert_allclose(
                    function(*own)[:, 0], whole[begin:end, n], rtol=1e-6, atol=1e-6
                )


def test_cut_counts_what_follows_and_terminated_does_not():
    rewards, ends = np.ones((2, 2)), np.array([[False, False], [True, True]])
    after = np.array([[5.0, 5.0], [0.0, 100.0]])  # the second is cut
    for returns in (
        n_step_returns(rewards, after, ends, 0.5, 2),
        lambda_returns(rewards, after, ends, 0.5, 1.0),
        2.0 + generalized_advantages(rewards, 2 * rewards, after, ends, 0.5, 1.0),
    ):
        # the last function's second step begins at v = 2 and not at v' = 5
        assert returns[1].tolist() == [1.0, 51.0]
    assert lambda_returns(rewards, after, ends, 0.5, 1.0)[0].tolist() == [1.5, 26.5]


def test_exact_values_leave_no_advantage_on_average():
    # a chain whose values are known: 4 steps, each pays 1 or 0 by a coin
    rng = np.random.default_rng(0)
    rewards = (rng.random((4, 40_000)) < 0.5).astype(float)
    values = np.array([2.0, 1.5, 1.0, 0.5])[:, None] * np.ones_like(rewards)
    after, ends = np.vstack([values[1:], 0 * values[:1]]), np.zeros(rewards.shape)
    for trace in (0.0, 0.5, 1.0):
        a = generalized_advantages(rewards, values, after, ends, 1.0, trace)
        np.testing.assert_allclose(a.mean(axis=1), 0, atol=4 * 1.0 / 200)
        # the variance is that of a coin, times a geometric series
        series = (trace ** (2 * np.arange(4))).sum()
        assert a[0].var() == pytest.approx(0.25 * series, rel=0.03)


def test_rejects():
    rewards, values, after, ends = rollout()
    with pytest.raises(ValueError, match=r"one shape.*Received: rewards.shape=\(8, 6"):
        generalized_advantages(rewards[1:], values, after, ends, 0.9, 0.5)
    with pytest.raises(ValueError, match="one shape"):
        lambda_returns(rewards[:, 0], after[:, 0], ends[:, 0], 0.9, 0.5)
    with pytest.raises(ValueError, match="Received: discount=1.1"):
        lambda_returns(rewards, after, ends, 1.1, 0.5)
    with pytest.raises(ValueError, match="Received: trace=-1"):
        generalized_advantages(rewards, values, after, ends, 0.9, -1)
    with pytest.raises(ValueError, match="Received: steps=0"):
        n_step_returns(rewards, after, ends, 0.9, 0)
