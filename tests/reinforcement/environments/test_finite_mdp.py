"""Tests of dlcompanion.reinforcement.environments.finite_mdp."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dlcompanion.reinforcement import FiniteMDP, GridWorld, QLearning


def random_mdp():
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.full(4, 0.5), size=(4, 2))
    transitions[0, 1] = [0.5, 0.0, 0.5, 0.0]
    rewards = rng.normal(size=(4, 2, 4))
    return FiniteMDP(transitions, rewards, [0, 0, 0, 1], [0.2, 0.5, 0.3, 0.0])


def test_steps_follow_the_table():
    mdp = random_mdp()
    begins = [mdp.reset()[0] for _ in range(4000)]
    shares = np.bincount(begins, minlength=4) / 4000
    np.testing.assert_allclose(shares, mdp.start, atol=0.032)  # 4 sd
    assert shares[3] == 0
    for state, action in ((0, 1), (1, 0), (2, 1)):
        seen = np.zeros(4)
        for _ in range(4000):
            mdp._state = state  # wherever it is
            after, reward, ended, truncated, info = mdp.step(action)
            seen[after] += 1
            assert reward == mdp.rewards[state, action, after]
            assert ended == (after == 3) and not truncated and info == {}
        share = mdp.transitions[state, action]
        np.testing.assert_allclose(seen / 4000, share, atol=0.032)  # 4 sd
        assert not seen[share == 0].any()


def test_the_seed_decides():
    runs = []
    for seed in (0, 0, 1):
        mdp = random_mdp()
        states = [mdp.reset(seed=seed)[0]]
        for _ in range(30):
            state, _, ended, _, _ = mdp.step(0)
            states.append(mdp.reset()[0] if ended else state)
        runs.append(states)
    assert runs[0] == runs[1] != runs[2]


def test_rewards_by_state_and_action_and_a_start_anywhere():
    mdp = FiniteMDP(np.eye(3)[:, None], [[1.0], [2.0], [3.0]], [0, 1, 0])
    assert mdp.start.tolist() == [0.5, 0.0, 0.5]
    assert mdp.expected_rewards.tolist() == [[1.0], [2.0], [3.0]]
    assert mdp.observation_space == gym.spaces.Discrete(3)
    assert mdp.action_space == gym.spaces.Discrete(1)
    mdp.close()


def test_gymnasiums_table_is_read_as_it_is_played():
    env = gym.make("FrozenLake-v1")
    lake, table = FiniteMDP.of(env), env.unwrapped.P
    assert lake.start.argmax() == 0
    assert np.flatnonzero(lake.terminal).tolist() == [5, 7, 11, 12, 15]
    for s, rows in table.items():
        for a, outcomes in rows.items():
            mean = sum(p * r for p, _, r, _ in outcomes)
            assert lake.expected_rewards[s, a] == pytest.approx(mean)
            for after in range(16):
                p = sum(p for p, t, _, _ in outcomes if t == after)
                assert lake.transitions[s, a, after] == pytest.approx(p)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"transitions": np.ones((2, 2))}, r"\(states, actions, states\).*\(2, 2\)"),
        ({"transitions": np.ones((2, 1, 2))}, "distribution.*sums from 2.0 to 2.0"),
        ({"transitions": [[[2, -1]], [[0, 1]]]}, "smallest entry -1.0"),
        ({"rewards": np.zeros((2, 3))}, r"Received: .*rewards.shape=\(2, 3\)"),
        ({"terminal": [True]}, r"terminal.shape=\(1,\)"),
        ({"start": [0.0, 1.0]}, "start must be.*Received: start="),
        ({"start": [0.5, 0.0]}, "start must be"),
        ({"start": [1.0]}, "start must be"),
        ({"rewards": [[np.nan], [0.0]]}, "finite. Received: nan"),
    ],
)
def test_rejects(arguments, message):
    fit = {"transitions": np.eye(2)[:, None], "rewards": np.zeros((2, 1))}
    with pytest.raises(ValueError, match=message):
        FiniteMDP(**{**fit, "terminal": [False, True], **arguments})


def test_rejects_environments_without_a_fitting_table():
    with pytest.raises(ValueError, match="table P.*Received: environment="):
        FiniteMDP.of("CartPole-v1")
    lake = gym.make("FrozenLake-v1")
    lake.unwrapped.P[0][0] = [(1.0, 4, 0.0, True)]  # elsewhere 4 ends nothing
    with pytest.raises(ValueError, match="Received: state 4 ends it sometimes"):
        FiniteMDP.of(lake)


def test_rejects_a_step_out_of_turn():
    mdp = FiniteMDP([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [0.0]], [0, 1])
    with pytest.raises(ValueError, match="Received: action=0 in state None"):
        mdp.step(0)
    mdp.reset()
    with pytest.raises(ValueError, match="Received: action=1 in state 0"):
        mdp.step(1)
    assert mdp.step(0) == (1, 1.0, True, False, {})
    with pytest.raises(ValueError, match="in state None"):
        mdp.step(0)


def test_as_an_environment_of_gymnasium():
    world = GridWorld(["S..", ".CG"], slip=0.3)
    first, second = world.as_gymnasium(), world.as_gymnasium()
    assert isinstance(first, gym.Env)
    check_env(first, skip_render_check=True)
    actions = np.random.default_rng(0).integers(4, size=30).tolist()

    def walk(environment):
        rows = [environment.reset(seed=3)]
        for action in actions:
            rows.append(environment.step(action))
            if rows[-1][2]:
                rows.append(environment.reset())
        return rows

    assert walk(first) == walk(world) == walk(second)
    first.reset(seed=0)
    before = world._state, second.process._state
    first.step(1)
    assert (world._state, second.process._state) == before  # each goes its own way
    limited = gym.wrappers.TimeLimit(GridWorld.cliff().as_gymnasium(), 7)
    agent = QLearning(limited, seed=0)
    assert agent.fit(70)["lengths"].max() <= 7
