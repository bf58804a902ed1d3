"""What an agent is compared by, and the agents that its checks share."""

import functools
import inspect

import keras
import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.common import Subject, leaves, to_numpy
from dlcompanion.testing.watched_environment import WatchedEnvironment, is_environment


class AgentSubject(Subject):
    """An agent's class with an environment; three agents are shared by the checks."""

    def __init__(self, agent_class, init_kwargs, environment):
        super().__init__("agent", agent_class, init_kwargs)
        self.playable = is_environment(environment)
        self.environment = environment
        if self.playable:
            self.environment = WatchedEnvironment(environment)
        self.chance = 0

    def make(self, seed=0, environment=None):
        """A new agent: its networks are the same each time, other chances are not."""
        keras.utils.set_random_seed(0)
        kwargs = self.kwargs()
        if not callable(self.init_kwargs):
            kwargs = {key: common.renew(value) for key, value in kwargs.items()}
        self.turn()
        environment = self.environment if environment is None else environment
        return self.component_class(environment, **{**kwargs, "seed": seed})

    def turn(self):
        """Give the global generators a seed that they did not have before."""
        self.chance += 1
        keras.utils.set_random_seed(self.chance)

    def fit(self, agent, steps):
        self.turn()
        fit(agent, steps)

    def evaluate(self, agent, **kwargs):
        self.turn()
        return agent.evaluate(**{**self.evaluate_kwargs, **kwargs})

    @functools.cached_property
    def parts(self):
        """The steps before the file is written, and those after."""
        first = max(1, self.steps * 9 // 20)
        return first, self.steps - first

    @functools.cached_property
    def whole(self):
        """The agent that makes all steps in one fit, and its state after that."""
        agent = self.make()
        self.fit(agent, self.steps)
        return agent, state_of(agent)

    @functools.cached_property
    def parted(self):
        """The agent that makes them in two, with a file between, and its states."""
        agent = self.make()
        states = [state_of(agent)]
        self.fit(agent, self.parts[0])
        states.append(state_of(agent))
        agent.save(self.path)
        self.fit(agent, self.parts[1])
        return agent, [*states, state_of(agent)]

    @functools.cached_property
    def other(self):
        """The agent with another seed, and its state after all steps."""
        agent = self.make(seed=1)
        self.fit(agent, self.steps)
        return agent, state_of(agent)

    @functools.cached_property
    def observation(self):
        """What is seen first in the environment, or None in a game."""
        if not self.playable:
            return None
        made = self.environment.made()
        observation, _ = made.reset(seed=0)
        made.close()
        return observation

    def same(self, got, expected, what, remedy):
        """Fail unless two states agree in every bit."""
        if list(got) != list(expected):
            self.fail(f"{what}: {list(expected)}", f"{list(got)}", remedy)
        for name, array in expected.items():
            if not equal(got[name], array):
                received = f"{common.brief(got[name])} for {common.brief(array)}"
                self.fail(f"{what}, in every bit", f"{name}: {received}", remedy)

    def refused(self, call, what, remedy):
        """Fail unless a call raises a ValueError; return its text."""
        try:
            call()
        except ValueError as error:
            return str(error)
        except Exception as error:
            received = f"{type(error).__name__}: {error}"
            self.fail(f"a ValueError for {what}", received, remedy)
        return self.fail(f"a ValueError for {what}", "no error", remedy)

    def needs_environment(self):
        """Fail where there is a game, which has neither rewards nor spaces."""
        if not self.playable:
            self.fail(
                "an environment of gymnasium",
                f"{type(self.environment).__name__}",
                f"leave the check out with skip=({self.check!r},).",
            )


def fit(agent, steps):
    """Train silently, whether or not ``fit`` has an argument for it.

    Args:
        agent: An agent.
        steps: Positive integer.
    """
    silent = "verbose" in inspect.signature(agent.fit).parameters
    agent.fit(steps, **({"verbose": 0} if silent else {}))


def state_of(agent):
    """What decides how an agent goes on, as far as it is public.

    Args:
        agent: An agent.

    Returns:
        Dict from name to array.
    """
    kinds = (int, np.integer, np.ndarray)
    state = {
        name: np.array(value)
        for name, value in vars(agent).items()
        if isinstance(value, kinds) and not name.startswith("_")
    }
    learner = getattr(agent, "learner", None)
    for owner in ("learner", "optimizer"):
        model = learner if owner == "learner" else getattr(learner, owner, None)
        for number, variable in enumerate(getattr(model, "variables", ())):
            state[f"{owner}, variable {number}"] = to_numpy(variable)
    kept = agent.arrays() if callable(getattr(agent, "arrays", None)) else {}
    return {**state, **{f"arrays, {n}": np.array(a) for n, a in kept.items()}}


def drawn(agent, observation):
    """Actions that are drawn, of an agent whose ``predict`` draws any.

    Args:
        agent: An agent.
        observation: An observation, or None.

    Returns:
        List of arrays.
    """
    parameters = inspect.signature(agent.predict).parameters
    if observation is None or "deterministic" not in parameters:
        return []
    actions = [agent.predict(observation, deterministic=False) for _ in range(8)]
    return [np.array(leaf) for leaf in leaves(actions)]


def resumed(agent_class, path, environment, steps, evaluate_kwargs):
    """In the new process: what an agent becomes and how it is evaluated.

    Args:
        agent_class: The agent's class.
        path: Path of its file.
        environment: As ``load`` takes it.
        steps: Positive integer, how many to go on for.
        evaluate_kwargs: Dictionary of arguments of ``evaluate``.

    Returns:
        What :func:`state_of` returns, and what ``evaluate`` does.
    """
    agent = agent_class.load(path, environment)
    fit(agent, steps)
    return state_of(agent), agent.evaluate(**evaluate_kwargs)


def equal(a, b):
    """Whether two arrays agree in every bit."""
    same = a.shape == b.shape and a.dtype == b.dtype
    return same and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
