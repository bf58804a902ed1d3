"""Save an agent here, go on with it in another process, and compare bit for bit.

One process serves all the tests of a run, because half of what such a test costs is to
import Keras and its backend. What trained here never was in it: it knows an agent from
its file alone.
"""

import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from keras import ops

from dlcompanion import reinforcement

COUNTERS = ("steps", "rollouts", "episodes", "iterations", "played")


def state_of(agent):
    """What decides how an agent goes on: counters, variables, and what it remembers.

    Args:
        agent: Any agent of the chapter.

    Returns:
        Dict from name to array.
    """
    state = {n: np.array(vars(agent)[n]) for n in COUNTERS if n in vars(agent)}
    if hasattr(agent, "table"):
        return {**state, "table": agent.table, "visits": agent.visits}
    variables = agent.learner.variables + agent.learner.optimizer.variables
    for number, variable in enumerate(variables):
        state[f"variable {number}"] = ops.convert_to_numpy(variable)
    kept = agent.memory if hasattr(agent, "memory") else agent
    return {**state, **kept.arrays()}


def assert_same_state(got, expected):
    """Two results of :func:`state_of` agree in every bit."""
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


def assert_resumes(part, whole, steps, path):
    """``part``, saved and continued in another process, ends as ``whole`` is.

    Args:
        part: An agent that ``steps`` of ``fit`` are missing to be like ``whole``.
        whole: An agent with the same arguments that never was interrupted.
        steps: Integer, what the other process calls ``fit`` with.
        path: Path of the file that ``part`` is saved in.
    """
    part.save(path)
    try:
        end = _process().submit(_resumed, type(part).__name__, path, steps).result(300)
    except BrokenProcessPool:
        _process.cache_clear()  # the test after this one is given another
        raise
    assert_same_state(end, state_of(whole))


@functools.cache
def _process():
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _resumed(kind, path, steps):
    """In the other process: the state after some more steps."""
    agent = getattr(reinforcement, kind).load(path)
    agent.fit(steps, **({} if hasattr(agent, "table") else {"verbose": 0}))
    return state_of(agent)
