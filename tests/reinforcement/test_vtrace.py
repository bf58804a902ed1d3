"""Tests of dlcompanion.reinforcement.vtrace."""

import numpy as np
import pytest
from test_generalized_advantage import REFERENCE, rollout

from dlcompanion.reinforcement import generalized_advantages, lambda_returns, vtrace


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("largest", [1.0, 2.0])
def test_equals_rlax(trace, largest):
    assert REFERENCE.stem == "generalized_advantage"
    with np.load(REFERENCE) as file:
        values, ends = file["in/values"], file["in/terminated"]
        after = np.where(ends, 0.0, values[1:])
        got = vtrace(
            file["in/rewards"],
            values[:-1],
            after,
            ends,
            file["in/ratios"],
            0.9,
            trace,
            largest,
        )
        out = {n: file[f"out/vtrace/{trace}/{largest}/{n}"] for n in NAMES}
    expected = out["errors"] + values[:-1]
    np.testing.assert_allclose(got.targets, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.advantages, out["advantages"], rtol=1e-5, atol=1e-5)


NAMES = ("errors", "advantages")


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_of_equal_policies_is_the_lambda_return(trace):
    rewards, values, after, ends = rollout()
    got = vtrace(rewards, values, after, ends, np.ones_like(rewards), 0.9, trace)
    returns = lambda_returns(rewards, after, ends, 0.9, trace)
    np.testing.assert_allclose(got.targets, returns, rtol=1e-5, atol=1e-6)
    advantages = generalized_advantages(rewards, values, after, ends, 0.9, trace)
    np.testing.assert_allclose(got.advantages, advantages, rtol=1e-5, atol=1e-6)


def test_no_weight_no_correction():
    rewards, values, after, ends = rollout()
    got = vtrace(rewards, values, after, ends, np.zeros_like(rewards), 0.9)
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
    rewards, values, after, ends = rollout()
    ratios = np.exp(np.random.default_rng(1).normal(size=rewards.shape))
    got = vtrace(rewards, values, after, ends, ratios, 0.9)
    changed = rewards.copy()
    changed[5:] += 7.0
    other = vtrace(changed, values, after, ends, ratios, 0.9)
    closed = ends[:5][::-1].cumsum(axis=0)[::-1] > 0  # an end lies before row 5
    for a, b in zip(got, other, strict=True):
        np.testing.assert_array_equal(a[:5][closed], b[:5][closed])
        assert (a[:5][~closed] != b[:5][~closed]).all()


def test_rejects():
    rewards, values, after, ends = rollout()
    one = np.ones_like(rewards)
    with pytest.raises(ValueError, match="at least 0. Received: -1.0"):
        vtrace(rewards, values, after, ends, -one, 0.9)
    with pytest.raises(ValueError, match=r"ratios must have one shape.*\(8, 6\)"):
        vtrace(rewards, values, after, ends, one[1:], 0.9)
    with pytest.raises(ValueError, match="Received: largest_weight=0.5"):
        vtrace(rewards, values, after, ends, one, 0.9, largest_weight=0.5)
    with pytest.raises(ValueError, match="Received: trace=2"):
        vtrace(rewards, values, after, ends, one, 0.9, trace=2)
