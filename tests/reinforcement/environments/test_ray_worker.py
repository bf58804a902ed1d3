"""Tests of dlcompanion.reinforcement.environments.ray_worker."""

import sys

import numpy as np
import pytest
from helpers.toy_environments import Corridor

from dlcompanion.reinforcement.environments.ray_worker import worker_class

pytestmark = pytest.mark.ray


def worker(make=Corridor, count=3):
    """A worker in this process, and what makes its environments."""
    import ray

    made = worker_class()()
    packed = (ray.cloudpickle.dumps(make), sys.path)
    made.spaces = made.build(packed, count)
    return made, packed


def test_builds_and_says_the_spaces():
    made, _ = worker()
    assert made.spaces["action_space"] == Corridor().action_space
    assert len(made.vector.envs) == 3
    with pytest.raises(ValueError, match="must make an environment.*Received: 3"):
        worker(lambda: 3)


def test_replays_the_same_and_refuses_another_world():
    made, packed = worker()
    rng = np.random.default_rng(0)
    calls = [("reset", [5, 6, 7], None)]
    calls += [("step", rng.integers(3, 5, 3), None) for _ in range(12)]
    answers = [made.play(*call) for call in calls]
    outcome, _, digest = worker()[0].replay(packed, 3, calls, answers[-2][2])
    assert digest == answers[-1][2]
    for got, expected in zip(outcome, answers[-1][0], strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(ValueError, match="cannot be replaced.*Received: other"):
        worker()[0].replay(packed, 3, calls, b"of another world")
