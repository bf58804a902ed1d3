"""Tests of dlcompanion.reinforcement.environments.copies."""

import gymnasium as gym
import numpy as np
import pytest
from helpers.toy_environments import Corridor

from dlcompanion.reinforcement import A2C
from dlcompanion.reinforcement.environments.copies import copy_of, to_evaluate
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments

pytestmark = pytest.mark.once


class Plus(gym.RewardWrapper):
    """A wrapper of a user, of which gymnasium does not know the arguments."""

    def __init__(self, env, more):
        super().__init__(env)
        self.more = more

    def reward(self, reward):
        return reward + self.more


class Tape(gym.wrappers.RecordVideo):
    """Writes a file an episode, as its parent does, which needs a package for it."""

    def __init__(self, env, folder):
        gym.Wrapper.__init__(self, env)
        self.folder, self.episode, self.recorded_frames = folder, 0, [np.ones(3)]

    def reset(self, **kwargs):
        (self.folder / f"{self.episode}").write_text("")
        self.episode += 1
        return self.env.reset(**kwargs)

    def step(self, action):
        return self.env.step(action)

    def __del__(self):
        assert not self.recorded_frames or self.recorded_frames[0].any()


def lengths(environment):
    other = Environments(environment, 2).another(3)
    return other.play(lambda x: np.zeros(len(x), int), seed=0, horizon=99)


def test_a_wrapper_of_ones_own_and_what_was_set_by_hand():
    made = Plus(gym.make("CartPole-v1"), more=1.0)
    made.unwrapped.gravity = -60.0  # it is pulled upwards
    made.reset(seed=5)
    found, usual = lengths(made), lengths(gym.make("CartPole-v1"))
    np.testing.assert_array_equal(found.returns, 2 * found.lengths)
    assert not np.array_equal(found.lengths, usual.lengths)
    agent = A2C(made, rollout_length=4, horizon=8, seed=0)
    agent.fit(16, verbose=0)
    result = agent.evaluate(episodes=3)
    assert result["return_mean"] == 2 * result["length_mean"]


@pytest.mark.parametrize("function", [False, True])
def test_an_evaluation_writes_nothing_and_pays_the_true_reward(function, tmp_path):
    def make():
        inner = Plus(Tape(Corridor(), tmp_path), more=1.0)
        scaled = gym.wrappers.NormalizeReward(inner)
        return Plus(gym.wrappers.ClipReward(scaled, -1.0, 1.0), more=0.5)

    found = lengths(make if function else make())
    assert not list(tmp_path.iterdir())
    plain = lengths(Corridor)
    np.testing.assert_array_equal(found.lengths, plain.lengths)
    np.testing.assert_array_equal(found.returns, plain.returns + plain.lengths)


def test_observations_are_normalized_as_in_training():
    def make():
        return gym.wrappers.NormalizeObservation(Corridor())

    for environment in (make, make()):
        environments = Environments(environment, 2)
        environments.reset(seed=0)
        for _ in range(20):
            environments.step(np.zeros(environments.count, int))
        trained = environments.vector.envs[0]
        count = trained.obs_rms.count
        other = environments.another(3)
        played = other.play(lambda x: np.zeros(len(x), int), seed=0, horizon=9)
        here = other.vector.envs[0]
        assert here.obs_rms is not trained.obs_rms
        np.testing.assert_array_equal(here.obs_rms.mean, trained.obs_rms.mean)
        assert here.obs_rms.count == trained.obs_rms.count == count > 20
        # an episode begins with 0, and is played by the environment of that number
        spread = np.sqrt(trained.obs_rms.var + trained.epsilon)
        first = -trained.obs_rms.mean[0] / spread[0]
        assert played.observations[0, 0, 0] == pytest.approx(first)
        assert trained.update_running_mean


def test_a_copy_leaves_the_environment_alone(tmp_path):
    made = Tape(Corridor(), tmp_path)
    made.reset(seed=0)
    other = copy_of(made)
    assert other is not made and other.recorded_frames == []
    assert len(made.recorded_frames) == 1 and other.unwrapped is not made.unwrapped
    inside = to_evaluate(other)
    assert inside is other.unwrapped and made.env is made.unwrapped
