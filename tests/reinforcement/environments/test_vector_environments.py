"""Tests of dlcompanion.reinforcement.environments.vector_environments."""

import sys

import gymnasium as gym
import numpy as np
import pytest

from dlcompanion.reinforcement.environments import vector_environments as module
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.environments.vector_environments import (
    vector_acrobot,
    vector_pendulum,
)

KINDS = {"Pendulum-v1": vector_pendulum, "Acrobot-v1": vector_acrobot}


def actions_for(vector, steps, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(vector.single_action_space, gym.spaces.Discrete):
        return rng.integers(3, size=(steps, vector.num_envs))
    shape = (steps, vector.num_envs, 1)
    return rng.uniform(-2.5, 2.5, shape).astype("float32")  # some beyond the end


@pytest.mark.parametrize("name", KINDS)
def test_every_step_is_gymnasiums(name):
    ours, theirs = KINDS[name](4), gym.make(name)
    rng = np.random.default_rng(0)
    ours.reset(seed=0)
    for action in actions_for(ours, 300):
        before = ours.states.copy()
        if rng.random() < 0.1:  # from anywhere, several turns away too
            before[:] = rng.uniform(-9, 9, before.shape)
            ours.states = before.copy()
        over = ours.over.copy()
        observations, rewards, terminated, _, _ = ours.step(action)
        for n in np.flatnonzero(~over):
            theirs.reset()
            theirs.unwrapped.state = before[n]
            expected, reward, ended, _, _ = theirs.step(action[n])
            np.testing.assert_allclose(observations[n], expected, atol=1e-5)
            np.testing.assert_allclose(rewards[n], reward, rtol=1e-6)
            assert terminated[n] == ended


@pytest.mark.parametrize("name", KINDS)
def test_a_run_is_gymnasiums_with_resets_and_limits(name):
    ours = KINDS[name](3)
    theirs = gym.make_vec(name, 3, vectorization_mode="sync")
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    np.testing.assert_allclose(ours.reset(seed=5)[0], theirs.reset(seed=5)[0], 1e-6)
    limit = gym.spec(name).max_episode_steps
    actions = actions_for(ours, limit + 5)
    if name == "Acrobot-v1":
        actions[30:] = 1  # so that nobody arrives before the time limit
    for n, action in enumerate(actions):
        mine, others = ours.step(action), theirs.step(np.clip(action, -2, 2))
        # the acrobot magnifies rounding while time passes, and a reset forgets it
        if n < 30 or n >= limit or name == "Pendulum-v1":
            np.testing.assert_allclose(mine[0], others[0], atol=1e-3)
            np.testing.assert_allclose(mine[1], others[1], atol=1e-3)
        for a, b in zip(mine[2:4], others[2:4], strict=True):
            np.testing.assert_array_equal(a, b)
        assert mine[3].all() == (n == limit - 1)
        assert mine[1].any() == (n != limit)  # the reset


def test_acrobot_starts_anew_where_it_arrived():
    acrobots = vector_acrobot(2)
    acrobots.reset(seed=0)
    acrobots.states[0] = [np.pi - 0.1, 0.0, 1.0, 0.0]  # above the line
    _, rewards, terminated, truncated, _ = acrobots.step(np.array([1, 1]))
    assert terminated.tolist() == [True, False] and rewards.tolist() == [0.0, -1.0]
    observations, rewards, terminated, _, _ = acrobots.step(np.array([1, 1]))
    assert not terminated.any() and rewards.tolist() == [0.0, -1.0]
    assert np.abs(acrobots.states[0]).max() < 0.1 and acrobots.steps.tolist() == [0, 2]
    assert observations.dtype == np.float32 and not truncated.any()


def test_energy_is_kept_where_nobody_pushes():
    acrobots = vector_acrobot(5)
    acrobots.reset(seed=0)

    def energy():
        first, second, speed_1, speed_2 = acrobots.states.T
        both = speed_1 + speed_2
        moving = 0.5 * speed_1**2 * 1.25 + 0.5 * both**2 * 1.25
        moving += 0.5 * speed_1 * both * np.cos(second) + 0.5 * speed_1**2
        return moving - 9.8 * (1.5 * np.cos(first) + 0.5 * np.cos(first + second))

    acrobots.states = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 4))
    before = energy()
    for _ in range(20):
        acrobots.step(np.ones(5, int))
    np.testing.assert_allclose(energy(), before, atol=0.05)
    assert np.ptp(before) > 1


@pytest.mark.parametrize("name", KINDS)
def test_environments_use_them(name):
    environments = Environments(name, 2, spaces=("Discrete", "Box"))
    assert hasattr(environments.vector, "states")
    assert environments.time_limit == gym.spec(name).max_episode_steps
    other = environments.another(3)
    assert other.count == 3 and other.vector is not environments.vector
    alone = Environments(name, 1, spaces=("Discrete", "Box"))
    assert not hasattr(alone.vector, "states")


def test_the_seed_decides():
    pendulums = vector_pendulum(2)
    a, b, c = (pendulums.reset(seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a[1], c[0])  # numbered on, as gymnasium does
    goes_on = pendulums.reset()[0]
    assert not np.array_equal(goes_on, c)
    vector_pendulum(2).reset()  # any seed


def test_rejects():
    with pytest.raises(ValueError, match="Received: num_envs=0"):
        vector_pendulum(0)
    acrobots = vector_acrobot(2)
    with pytest.raises(ValueError, match="reset.. comes before step"):
        acrobots.step(np.zeros(2, int))
    with pytest.raises(ValueError, match="no options.*Received: {'low': 0}"):
        acrobots.reset(options={"low": 0})
    acrobots.reset(seed=0)
    with pytest.raises(ValueError, match="0, 1 and 2. Received: actions="):
        acrobots.step(np.array([0, 3]))
    with pytest.raises(ValueError, match=r"shape \(2,\). Received: actions.shape=\(3,"):
        acrobots.step(np.zeros(3, int))


def test_missing_gymnasium_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    module._vector_class.cache_clear()
    with pytest.raises(ImportError, match=r"dlcompanion\[reinforcement\]"):
        vector_pendulum(1)
