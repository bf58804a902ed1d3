"""Tests of dlcompanion.reinforcement.tabular."""

import gymnasium as gym
import numpy as np
import pytest
from helpers.toy_environments import Corridor

from dlcompanion.reinforcement import (
    SARSA,
    ExpectedSARSA,
    FiniteMDP,
    GridWorld,
    QLearning,
    policy_values,
    value_iteration,
)
from dlcompanion.testing import check_agent

AGENTS = [QLearning, SARSA, ExpectedSARSA]


def soft_optimum(mdp, discount, exploration):
    """Action values of the best policy that explores, by iteration."""
    q = np.zeros((mdp.states, mdp.actions))
    for _ in range(2000):
        v = (1 - exploration) * q.max(axis=1) + exploration * q.mean(axis=1)
        q = mdp.expected_rewards + discount * mdp.transitions @ v
        q = np.where(mdp.terminal[:, None], 0.0, q)
    return q


class Recorded(GridWorld):
    """Keeps what happened."""

    def reset(self, seed=None, options=None):
        self.log = [super().reset(seed)]
        return self.log[0]

    def step(self, action):
        self.log.append((action, *super().step(action)))
        return self.log[-1][1:]


@pytest.mark.parametrize("agent", AGENTS)
def test_an_episode_is_the_rule_of_the_book(agent):
    world = Recorded(["S..", "..P", "C.G"], slip=0.2)
    learner = agent(world, 0.9, 0.3, step_decay=0.5, exploration=0.4, seed=3)
    rng = np.random.default_rng(0)
    learner.table = rng.normal(size=(9, 4))
    q, visits = learner.table.copy(), np.zeros((9, 4))
    learner.fit(1)
    (state, _), *steps = world.log
    assert len(steps) > 2
    for n, (action, after, reward, ended, *_) in enumerate(steps):
        target = reward
        if not ended and agent is QLearning:
            target += 0.9 * q[after].max()
        elif not ended and agent is SARSA and n + 1 < len(steps):
            target += 0.9 * q[after, steps[n + 1][0]]
        elif not ended and agent is ExpectedSARSA:
            target += 0.9 * (0.6 * q[after].max() + 0.4 * q[after].mean())
        visits[state, action] += 1
        size = 0.3 / np.sqrt(visits[state, action])
        q[state, action] += size * (target - q[state, action])
        state = after
    np.testing.assert_allclose(learner.table, q, rtol=1e-12)
    np.testing.assert_array_equal(learner.visits, visits)


@pytest.mark.once
def test_q_learning_finds_the_fixed_point_of_value_iteration():
    rng = np.random.default_rng(1)
    by_chance = rng.dirichlet(np.ones(3), size=(3, 2))
    around = np.eye(3)[(np.arange(3)[:, None] + [1, 2]) % 3]  # on, or back
    transitions = 0.9 * around + 0.1 * by_chance
    world = FiniteMDP(transitions, rng.normal(size=(3, 2)), [0, 0, 0])
    agent = QLearning(world, 0.3, 1.0, step_decay=0.9, exploration=1.0, seed=0)
    exact = value_iteration(world, 0.3).action_values
    errors = []
    for steps in (1_000, 20_000, 100_000):
        agent.fit(steps)
        errors.append(np.abs(agent.table - exact).max())
    print(errors)
    assert errors[0] > 2e-3  # it is not there from the start
    assert errors[2] < 1e-3
    # without noise the first of Bellman's equations is exact after enough visits
    still = GridWorld(["S..", ".#.", "..G"])
    agent = QLearning(still, step_size=1.0, exploration=0.5, seed=0)
    agent.fit(4_000)
    free = ~still.terminal
    np.testing.assert_array_equal(
        agent.table[free], value_iteration(still, 1.0).action_values[free]
    )


@pytest.mark.once
@pytest.mark.parametrize("agent", [SARSA, ExpectedSARSA])
def test_sarsa_finds_the_best_policy_that_explores(agent):
    world = GridWorld(["S..", "CC.", "..G"])
    exact = soft_optimum(world, 0.9, 0.3)
    learner = agent(world, 0.9, 1.0, step_decay=0.8, exploration=0.3, seed=0)
    learner.fit(60_000)
    visited = learner.visits > 300
    assert visited.sum() > 12
    gap = np.abs(learner.table - exact)[visited].max()
    best = value_iteration(world, 0.9).action_values
    assert gap < 0.2 * np.abs(exact - best)[visited].max()


def path(world, policy):
    state, cells = world.reset(seed=0)[0], []
    while True:
        cells.append(divmod(state, 12))
        state, _, ended, _, _ = world.step(policy[state])
        if ended or len(cells) > 50:
            return cells


def test_on_the_cliff_sarsa_is_safe_and_q_learning_short():
    # Sutton and Barto, example 6.6: the greedy policies, and what they cost meanwhile
    world = GridWorld.cliff()
    agents = {agent: agent(world, exploration=0.1, seed=0) for agent in AGENTS}
    online = {a: agents[a].fit(25_000)["returns"][-300:].mean() for a in AGENTS}
    short, safe = (
        path(world, agents[QLearning].policy),
        path(world, agents[SARSA].policy),
    )
    assert len(short) == 13 and {row for row, _ in short} == {2, 3}
    assert len(safe) > 13 and min(row for row, _ in safe) <= 1
    assert agents[QLearning].evaluate(3)["return_mean"] == -13.0
    assert online[SARSA] > online[QLearning] + 10
    assert online[ExpectedSARSA] > online[QLearning] + 10
    # exactly: what each greedy policy is worth while it explores
    soft = {
        a: policy_values(world, 0.9 * np.eye(4)[agents[a].policy] + 0.025, 1.0)[36]
        for a in (QLearning, ExpectedSARSA)
    }
    assert soft[ExpectedSARSA] > soft[QLearning] + 10


class Bell(gym.Env):
    """One state that pays 1 a step, and is cut (or ends) after three."""

    observation_space = action_space = gym.spaces.Discrete(1)

    def __init__(self, ends=False):
        self.ends = ends

    def reset(self, seed=None, options=None):
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        over = self.time == 3
        return 0, 1.0, over and self.ends, over and not self.ends, {}


@pytest.mark.parametrize("agent", AGENTS)
def test_cut_is_not_ended(agent):
    settings = {"discount": 0.9, "step_size": 1.0, "step_decay": 0.6, "seed": 0}
    cut = agent(Bell, **settings)
    cut.fit(6_000)
    assert cut.table[0, 0] == pytest.approx(10.0, rel=0.01)  # 1 / (1 - 0.9)
    by_horizon = agent(Bell, horizon=2, **settings)
    assert by_horizon.fit(6_000)["lengths"].tolist() == [2] * 3_000
    assert by_horizon.table[0, 0] == pytest.approx(10.0, rel=0.01)
    ended = agent(lambda: Bell(ends=True), **settings)
    ended.fit(6_000)
    # one step of three ends: q = 1 + 0.9 * 2/3 * q
    assert ended.table[0, 0] == pytest.approx(2.5, rel=0.05)


@pytest.mark.once
@pytest.mark.parametrize("agent", AGENTS)
def test_among_equal_actions_one_is_drawn(agent):
    lake = gym.make("FrozenLake-v1", is_slippery=False)
    settings = {"step_size": 0.8, "discount": 0.95, "exploration": 0.1}
    for seed in range(3):  # with the first of them no goal is ever seen
        returns = agent(lake, seed=seed, **settings).fit(20_000)["returns"]
        assert returns.sum() > 1_000
    four = agent(GridWorld(["....", ".S.G", "...."]), exploration=0.0, seed=0)
    drawn = [
        four._explore([0.0, 1.0, 1.0, 0.5], four.random(9, n).random)
        for n in range(400)
    ]
    counts = np.bincount(drawn, minlength=4)
    assert counts[[0, 3]].tolist() == [0, 0] and abs(counts[1] - 200) < 40  # 4 sd
    assert four._explore([0.0, 3.0, 1.0, 0.5], four.random(9, 0).random) == 1


def meadow():
    return GridWorld(["S...", "....", "...G"])


@pytest.mark.once
@pytest.mark.slow  # the new process imports Keras and its backend
@pytest.mark.parametrize("agent", AGENTS)
def test_contract_of_the_agent(agent):
    check_agent(
        agent,
        {"step_decay": 0.1},
        meadow,
        steps=2_000,
        learns=(4_000, -8),
        refuses=[Corridor],
    )


def test_an_environment_with_an_id_is_made_again(tmp_path):
    agent = SARSA("CliffWalking-v1", step_decay=0.5, seed=7)
    agent.fit(1)
    agent.fit(1_999)
    agent.save(tmp_path / "agent")
    again = SARSA.load(tmp_path / "agent")
    for each in (agent, again):
        each.fit(3_000)
    assert (again.steps, again.episodes) == (agent.steps, agent.episodes)
    np.testing.assert_array_equal(again.table, agent.table)
    np.testing.assert_array_equal(again.visits, agent.visits)


def test_a_seed_is_drawn_where_none_is_given():
    assert QLearning(GridWorld.cliff()).seed != QLearning(GridWorld.cliff()).seed


@pytest.mark.once
def test_predict_and_evaluate():
    agent = QLearning("FrozenLake-v1", exploration=1.0, discount=0.99, seed=0)
    lake = FiniteMDP.of("FrozenLake-v1")
    agent.table = value_iteration(lake, 0.99).action_values
    assert agent.predict(0) == 0 and type(agent.predict(0)) is int
    assert agent.predict(np.array([[0, 14]])).shape == (1, 2)
    result = agent.evaluate(episodes=400)
    # cut after 100 steps, the optimum crosses 3 times in 4
    assert result["return_mean"] == pytest.approx(0.74, abs=0.09)  # 4 sd
    assert result == agent.evaluate(episodes=400)
    assert result != agent.evaluate(episodes=400, seed=1)
    assert agent.steps == 0
    for state in (-1, 16, 0.5):
        with pytest.raises(ValueError, match="from 0 to 15. Received: state="):
            agent.predict(state)
    with pytest.raises(ValueError, match="Received: episodes=0"):
        agent.evaluate(0)


def test_refuses_foreign_files(tmp_path):
    path = tmp_path / "agent"
    agent = SARSA(GridWorld.cliff(), seed=0)
    agent.save(path)
    with pytest.raises(ValueError, match="another agent. Received: SARSA in the file"):
        QLearning.load(path, GridWorld.cliff())
    with pytest.raises(ValueError, match="as many states.*Received: "):
        SARSA.load(path, GridWorld("SG"))
    with pytest.raises(ValueError, match="environment=....*Received: environment=None"):
        SARSA.load(path)  # made with an environment that has no id
    whole = path.read_bytes()
    for broken in (whole[:-9], b"", b"no agent"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not a whole file.*Received: "):
            SARSA.load(path, GridWorld.cliff())


class Faulty(Bell):
    def step(self, action):
        return 0, float("nan"), False, False, {}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"discount": 1.1}, "Received: discount=1.1"),
        ({"step_size": 0}, "positive. Received: step_size=0"),
        ({"step_decay": 2}, "Received: step_decay=2"),
        ({"exploration": -1}, "Received: exploration=-1"),
        ({"horizon": 0}, "Received: horizon=0"),
        ({"seed": "0"}, "Received: seed='0'"),
        ({"environment": "Cliff-v9"}, "Received: environment='Cliff-v9'"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        SARSA(**{"environment": "CliffWalking-v1", **arguments})


def test_rejects_in_fit():
    with pytest.raises(ValueError, match="Received: steps=0"):
        SARSA(Bell).fit(0)
    with pytest.raises(ValueError, match="Received: nan for action 0 in state 0"):
        SARSA(Faulty).fit(1)


class Blocks(gym.Env):
    """A place in a room of two by three by two, and a way to its last corner."""

    observation_space = gym.spaces.Tuple([gym.spaces.Discrete(n) for n in (2, 3, 2)])
    action_space = gym.spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.integers([2, 3, 1])
        return tuple(self.place), {}

    def step(self, action):
        self.place[action] = min(self.place[action] + 1, (1, 2, 1)[action])
        over = self.place.tolist() == [1, 2, 1]
        return tuple(self.place), -1.0, over, False, {}


@pytest.mark.once
def test_states_that_are_tuples(tmp_path):
    agent = QLearning(Blocks, exploration=0.5, seed=0)
    agent.fit(4_000)
    assert agent.table.shape == (12, 3)
    places = np.stack(np.unravel_index(np.arange(12), (2, 3, 2)), axis=-1)
    to_go = (np.array([1, 2, 1]) - places).sum(axis=1)
    np.testing.assert_allclose(agent.table.max(axis=1), -to_go, atol=1e-6)
    np.testing.assert_array_equal(agent.predict(places), agent.policy)
    assert agent.predict((1, 2, 0)) == 2 and agent.predict(np.array([1, 0, 1])) == 1
    result = agent.evaluate(50)
    assert -4 <= result["return_mean"] == -result["length_mean"] <= -2
    agent.save(tmp_path / "agent")
    loaded = QLearning.load(tmp_path / "agent", env=Blocks)
    assert repr(loaded).startswith("QLearning(environment=Blocks, steps=400")
    assert loaded.predict((0, 2, 1)) == 0
    for wrong in (3, (1, 2), (0, 3, 0), (0.5, 0, 0), (-1, 0, 0)):
        with pytest.raises(ValueError, match="tuple of 3 integers.*Received: state="):
            agent.predict(wrong)
    short = SARSA(Blocks, exploration=0.01, seed=0)
    assert short.fit(500)["returns"][-5:].mean() > -5
    assert ExpectedSARSA(Blocks, seed=0).fit(500)["returns"][-5:].mean() > -5
