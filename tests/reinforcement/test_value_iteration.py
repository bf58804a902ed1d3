"""Tests of dlcompanion.reinforcement.value_iteration."""

import gymnasium as gym
import numpy as np
import pytest

from dlcompanion.reinforcement import FiniteMDP, policy_values, value_iteration


def random_mdp(states=12, actions=3, seed=0):
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.full(states, 0.3), size=(states, actions))
    rewards = rng.normal(size=(states, actions, states))
    return FiniteMDP(transitions, rewards, rng.random(states) < 0.2)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.99])
def test_the_fixed_point_is_bellmans_equation_and_a_linear_system(discount):
    mdp = random_mdp()
    solution = value_iteration(mdp, discount)
    right = np.zeros((12, 3))
    for s in np.flatnonzero(~mdp.terminal):
        for a in range(3):
            for t in range(12):
                worth = mdp.rewards[s, a, t] + discount * solution.values[t]
                right[s, a] += mdp.transitions[s, a, t] * worth
    np.testing.assert_allclose(solution.values, right.max(axis=1), atol=1e-12)
    np.testing.assert_allclose(solution.action_values, right, atol=1e-12)
    assert (solution.policy == right.argmax(axis=1)).all()
    assert mdp.terminal.any() and not solution.values[mdp.terminal].any()
    by_solving = policy_values(mdp, solution.policy, discount)
    np.testing.assert_allclose(solution.values, by_solving, atol=1e-11)


def test_no_policy_is_better():
    mdp = random_mdp(states=4, actions=2, seed=1)
    best = value_iteration(mdp, 0.9).values
    for number in range(2**4):
        policy = [number >> s & 1 for s in range(4)]
        assert (policy_values(mdp, policy, 0.9) <= best + 1e-11).all()
    half = policy_values(mdp, np.full((4, 2), 0.5), 0.9)
    assert (half <= best + 1e-11).all()


def test_a_sweep_contracts_by_the_discount():
    mdp, exact = random_mdp(), value_iteration(random_mdp(), 0.9).values
    few = [value_iteration(mdp, 0.9, tolerance=10.0**-n) for n in range(1, 9)]
    errors = [np.abs(s.values - exact).max() for s in few]
    sweeps = [s.sweeps for s in few]
    for n in range(7):
        assert errors[n + 1] <= errors[n] * 0.9 ** (sweeps[n + 1] - sweeps[n]) + 1e-13
    assert errors[-1] < 1e-6


def test_a_policys_values_are_the_mean_of_its_returns():
    mdp, policy = random_mdp(seed=2), np.random.default_rng(0).integers(3, size=12)
    values = np.zeros(12)
    chain = mdp.transitions[np.arange(12), policy] * ~mdp.terminal[:, None]
    paid = mdp.expected_rewards[np.arange(12), policy] * ~mdp.terminal
    for _ in range(400):  # 0.9^400 is 5e-19
        values = paid + 0.9 * chain @ values
    np.testing.assert_allclose(policy_values(mdp, policy, 0.9), values, atol=1e-12)


def test_the_tables_of_gymnasium():
    # published: without a discount the slippery lake is crossed 14 times in 17
    lake = value_iteration(FiniteMDP.of("FrozenLake-v1"), 1.0)
    assert lake.values[0] == pytest.approx(14 / 17, abs=1e-9)
    taxi = FiniteMDP.of(gym.make("Taxi-v4"))  # has ends that one can only drive from
    assert (taxi.states, taxi.actions, taxi.terminal.sum()) == (500, 6, 4)
    # at the passenger, who wants to a corner nine steps away: 20 - 1 - 9
    solution = value_iteration(taxi, 1.0)
    env = gym.make("Taxi-v4").unwrapped
    state = env.encode(0, 0, 0, 2)  # from the red corner to the yellow one
    length, total = 0, 0
    while not taxi.terminal[state]:
        action = solution.policy[state]
        after = taxi.transitions[state, action].argmax()
        total, length = total + taxi.rewards[state, action, after], length + 1
        state = after
    assert length == 6  # pick up, four steps, drop
    assert total == solution.values[env.encode(0, 0, 0, 2)] == 20 - 5


def test_rejects_what_has_no_solution():
    for_ever = FiniteMDP(np.ones((1, 1, 1)), [[1.0]], [False])
    with pytest.raises(ValueError, match="not settled.*sweeps=50, last change 1"):
        value_iteration(for_ever, 1.0, sweeps=50)
    with pytest.raises(ValueError, match="Received: discount=1.0"):
        policy_values(for_ever, [0], 1.0)
    with pytest.raises(ValueError, match="Received: discount=1.5"):
        value_iteration(for_ever, 1.5)
    for policy in ([1], [[0.5]], [[0.5, 0.5]], [[np.nan]]):
        with pytest.raises(ValueError, match="Received: policy.shape="):
            policy_values(for_ever, policy, 0.5)
