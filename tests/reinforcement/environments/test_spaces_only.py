"""Tests of dlcompanion.reinforcement.environments.spaces_only."""

import json

import gymnasium as gym
import numpy as np
import pytest

from dlcompanion.reinforcement.environments.spaces_only import (
    config_of,
    space_of,
    spaces_only,
)

pytestmark = pytest.mark.once

SPACES = [
    gym.spaces.Box(0, 255, (84, 84, 4), np.uint8),
    gym.spaces.Box(-np.inf, np.inf, (3,), np.float64),
    gym.spaces.Box(np.array([-1.5, 0.0], "float32"), np.array([2.5, 1e30], "float32")),
    gym.spaces.Discrete(5, start=-2),
    gym.spaces.Discrete(3, dtype=np.int32),
    gym.spaces.MultiDiscrete([2, 7], start=[1, 0]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_from_json(space):
    text = json.dumps(config_of(space))
    again = space_of(json.loads(text))
    assert again == space and again.dtype == space.dtype and len(text) < 400


def test_it_cannot_be_played():
    spaces = {"observations": config_of(SPACES[1]), "actions": config_of(SPACES[3])}
    vector = spaces_only({**spaces, "count": 3})
    assert vector.num_envs == 3 and vector.single_action_space == SPACES[3]
    for environments in (vector, vector.another(2)):
        with pytest.raises(ValueError, match=r"load\(path, .*Received: environment="):
            environments.reset(seed=0)
