"""Tests of reinforcement.agents.rollout_agent, with an agent that only watches."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Corridor

from dlcompanion.reinforcement.agents.rollout_agent import RolloutAgent
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.training import StepModel


class Still(StepModel):
    def __init__(self):
        super().__init__()
        inputs = keras.Input((2,))
        self.policy = keras.Model(
            inputs, keras.layers.Dense(2, "tanh", kernel_initializer="ones")(inputs)
        )

    def build(self, input_shape):
        pass

    def call(self, inputs):
        return self.policy(inputs)


class Watcher(RolloutAgent):
    def __init__(
        self, environment=Corridor, num_envs=3, rollout_length=4, horizon=10, seed=0
    ):
        environments = Environments(environment, num_envs)
        super().__init__(environments, seed, horizon, rollout_length, {})
        learner = Still()
        learner.build(None)
        learner.compile("sgd")
        self.attach(learner)
        self.seen = []

    def learn_from_rollout(self, rollout, random):
        self.seen.append((rollout, random.random(), self.played))
        return {"even": len(self.seen)} if len(self.seen) % 2 == 0 else {}


def test_an_epoch_is_played_in_segments():
    agent = Watcher()
    history = agent.fit(36, verbose=0).history
    assert [x.rewards.shape for x, _, _ in agent.seen] == [(4, 3)] * 3
    assert [played for _, _, played in agent.seen] == [12, 24, 36]
    assert history["steps"] == [36] and history["even"] == [2.0]
    # rollouts follow one another, and the random numbers go on
    first, second = agent.seen[0][0], agent.seen[1][0]
    same = first.dones[-1] | (
        first.next_observations[-1] == second.observations[0]
    ).all(axis=1)
    assert same.all() and len({r for _, r, _ in agent.seen}) == 3
    agent.fit(36, verbose=0)
    assert [played for _, _, played in agent.seen[3:]] == [48, 60, 72]


def test_the_same_seed_plays_the_same():
    a, b, c = Watcher(), Watcher(), Watcher(seed=1)
    for agent in (a, b, c):
        agent.fit(60, verbose=0)
    for (x, r, _), (y, q, _) in zip(a.seen, b.seen, strict=True):
        assert r == q
        for left, right in zip(x, y, strict=True):
            np.testing.assert_array_equal(left, right)
    assert a.seen[0][1] != c.seen[0][1]


def test_fit_stops_within_an_epoch():
    agent = Watcher(lambda: gym.wrappers.TimeLimit(Corridor(), 5_000), horizon=None)
    histories = [agent.fit(steps, verbose=0) for steps in (30, 30, 30)]
    assert [h.history["steps"] for h in histories] == [[36], [60], [96]]
    assert [h.epoch for h in histories] == [[0], [1], [2]]
    assert agent.epochs == 0 and agent.steps == 96
    assert all(h.history["length_mean"][0] <= 6 for h in histories)


@pytest.mark.parametrize("own", [True, False])
def test_parts_of_an_epoch_are_the_epoch(own):
    def made():
        if own:
            return Watcher()
        return Watcher(gym.vector.SyncVectorEnv([Corridor] * 3))

    whole, parts = made(), made()
    whole.fit(90, verbose=0)
    for steps in (12, 30, 48):
        parts.fit(steps, verbose=0)
        if not own:  # somebody else plays there between two calls
            parts.environments.vector.reset(seed=9)
    assert (parts.steps, parts.epochs) == (whole.steps, whole.epochs) == (96, 2)
    for (x, r, _), (y, q, _) in zip(whole.seen, parts.seen, strict=True):
        assert r == q
        for left, right in zip(x, y, strict=True):
            np.testing.assert_array_equal(left, right)


def test_an_epoch_that_was_broken_off_begins_anew():
    whole, broken = Watcher(), Watcher()
    whole.fit(36, verbose=0)
    broken.fit(12, verbose=0)
    broken.learn_from_rollout, learn = None, broken.learn_from_rollout
    with pytest.raises(TypeError):
        broken.fit(12, verbose=0)
    broken.learn_from_rollout = learn
    broken.fit(36, verbose=0)
    np.testing.assert_array_equal(broken.seen[1][0].rewards, whole.seen[0][0].rewards)


def test_a_file_with_an_epoch_under_way_meets_other_environments():
    agent, fewer = Watcher(), Watcher(num_envs=2)
    agent.fit(12, verbose=0)
    arrays = agent.arrays()
    assert arrays["epoch.actions"].shape == (4, 3)
    fewer.restore(arrays)
    assert fewer.arrays() == arrays  # nothing is played before it must be
    fewer.fit(24, verbose=0)
    assert fewer.epochs == 1 and len(fewer.seen) == 3  # the epoch begins anew
    assert fewer.arrays() == {}


def test_rejects():
    with pytest.raises(ValueError, match="Received: rollout_length=0"):
        Watcher(rollout_length=0)
    with pytest.raises(NotImplementedError, match="learn_from_rollout"):
        RolloutAgent.learn_from_rollout(None, None, None)
