"""Tests of dlcompanion.reinforcement.agents.rollout."""

import gymnasium as gym
import numpy as np
import pytest
from helpers.toy_environments import Corridor

from dlcompanion.reinforcement.agents.rollout import RolloutCollector
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments

MODES = gym.vector.AutoresetMode


def first(observations):
    return np.zeros(len(observations), "int64")


def collector_of(mode, count=4, fault=None):
    vector = gym.vector.SyncVectorEnv(
        [lambda: Corridor(fault=fault)] * count, autoreset_mode=mode
    )
    return RolloutCollector(Environments(vector, count=1), seed=3)


@pytest.mark.parametrize("mode", [MODES.NEXT_STEP, MODES.SAME_STEP])
def test_episodes_go_on_from_segment_to_segment(mode):
    collector = collector_of(mode)
    rollouts = [collector.play(first, steps=7) for _ in range(6)]
    joined = [np.concatenate(column) for column in zip(*rollouts, strict=True)]
    observations, actions, rewards, next_observations, terminated, dones, mask = joined
    assert rewards.shape == (42, 4) and actions.dtype == np.int32
    assert (mode == MODES.SAME_STEP) == mask.all()
    lengths, returns = [], []
    for n in range(4):
        time = 0
        for t in range(42):
            if not mask[t, n]:
                assert dones[t - 1, n] and not dones[t, n] and not terminated[t, n]
                continue
            # Corridor shows the steps so far and the length, and pays the steps
            assert observations[t, n, 0] == time
            time += 1
            assert rewards[t, n] == time
            assert next_observations[t, n].tolist() == [time, observations[t, n, 1]]
            assert terminated[t, n] == (time >= next_observations[t, n, 1])
            assert dones[t, n] == (terminated[t, n] or time == 6)  # cut after 6
            if dones[t, n]:
                lengths.append(time)
                returns.append(time * (time + 1) / 2)
                time = 0
        assert collector.unfinished()[1][n] == time
        assert collector.unfinished()[0][n] == time * (time + 1) / 2
    assert sorted(collector.lengths) == sorted(lengths)
    assert sorted(collector.returns) == sorted(returns)
    assert (dones & ~terminated).any() and terminated.any()


def test_the_length_of_a_segment_changes_nothing():
    whole, parts = collector_of(MODES.NEXT_STEP), collector_of(MODES.NEXT_STEP)
    expected = whole.play(first, steps=12)
    played = [parts.play(first, steps=n) for n in (1, 4, 7)]
    for n, column in enumerate(zip(*played, strict=True)):
        np.testing.assert_array_equal(np.concatenate(column), expected[n])


@pytest.mark.parametrize("fault", ["reward", "observation"])
def test_names_what_is_not_finite(fault):
    collector = collector_of(MODES.SAME_STEP, count=2, fault=fault)
    with pytest.raises(ValueError, match=f"{fault}.*nan.* at step [12] of environment"):
        collector.play(first, steps=5)


@pytest.mark.parametrize("mode", [MODES.NEXT_STEP, MODES.SAME_STEP])
def test_no_episode_is_longer_than_the_horizon(mode):
    vector = gym.vector.SyncVectorEnv(
        [lambda: Corridor(limit=99)] * 8, autoreset_mode=mode
    )
    collector = RolloutCollector(Environments(vector, count=1), seed=3, horizon=4)
    rollouts = [collector.play(first, steps=7) for _ in range(3)]
    joined = [np.concatenate(column) for column in zip(*rollouts, strict=True)]
    observations, _, _, following, terminated, dones, mask = joined
    assert observations[mask, 0].max() == 3 and following[mask, 0].max() == 4
    late = mask & (following[..., 0] == 4) & ~terminated
    cut = late.any(axis=1)
    assert 4 <= cut.sum() <= 5 and (dones[cut] == mask[cut]).all()
    assert not observations[1:][cut[:-1], :, 0].any()  # all begin anew after it
    lengths = observations[1:][cut[:-1], :, 1]
    assert len({row.tobytes() for row in lengths}) == len(lengths)  # elsewhere
    # only what ended, or was as long as that, is an episode
    ended = (terminated & mask).sum() + late.sum()
    assert len(collector.lengths) == ended and max(collector.lengths) == 4
    assert (dones & ~late & ~terminated).any()
