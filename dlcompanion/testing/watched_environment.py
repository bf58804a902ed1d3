"""Environments that give NaN on demand, or have other spaces than they say."""

import copy
import functools

import numpy as np

from dlcompanion.backend import require


class WatchedEnvironment:
    """Function that makes environments, all of which are spoiled at once.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            or environment, which is copied.
        spaces: Dict with ``"observation_space"`` or ``"action_space"``, to be shown in
            place of the environment's own.

    Attributes:
        fault: ``"reward"`` or ``"observation"`` to be NaN from the second step on that
            is made after :meth:`spoil`, or None.

    Example:
        >>> make = WatchedEnvironment("CartPole-v1")
        >>> environment = make()
        >>> observation, info = environment.reset(seed=0)
        >>> make.spoil("reward")
        >>> [environment.step(0)[1] for _ in range(2)]
        [1.0, nan]
    """

    def __init__(self, environment, spaces=None):
        self.environment = environment
        self.spaces = spaces or {}
        self.spoil(None)

    def spoil(self, fault):
        """From the second step on, give NaN.

        Args:
            fault: ``"reward"``, ``"observation"``, or None for neither.
        """
        self.fault, self.steps = fault, 0

    def __call__(self):
        return _watched()(self, self.made())

    def made(self):
        """A new environment, not watched."""
        if isinstance(self.environment, str):
            return require("gymnasium", "reinforcement").make(self.environment)
        if callable(self.environment):
            return self.environment()
        return copy.deepcopy(self.environment)

    def larger(self):
        """The same environment with larger spaces, one at a time.

        Returns:
            List of :class:`WatchedEnvironment`.
        """
        made = self.made()
        spaces = {
            n: _larger(getattr(made, n)) for n in ("observation_space", "action_space")
        }
        return [
            WatchedEnvironment(self.environment, {name: space})
            for name, space in spaces.items()
            if space is not None
        ]

    def of_text(self):
        """The same environment with observations or actions of text.

        Returns:
            List of :class:`WatchedEnvironment`.
        """
        text = require("gymnasium", "reinforcement").spaces.Text(4)
        names = ("observation_space", "action_space")
        return [WatchedEnvironment(self.environment, {name: text}) for name in names]


def is_environment(environment):
    """Whether this is what :class:`WatchedEnvironment` takes, and no game.

    Args:
        environment: Anything.

    Returns:
        Boolean.
    """
    named = isinstance(environment, str)
    return named or callable(environment) or hasattr(environment, "reset")


def _larger(space):
    """A space with one more of what it has, or None for one of another kind."""
    spaces = require("gymnasium", "reinforcement").spaces
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n) + 1, start=int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete([*space.nvec.ravel(), 2])
    if isinstance(space, spaces.Box):
        shape = (*space.shape[:-1], space.shape[-1] + 1) if space.shape else (2,)
        return spaces.Box(space.low.min(), space.high.max(), shape, space.dtype)
    return None


@functools.cache
def _watched():
    """The class of the environments, made once gymnasium is there."""
    gym = require("gymnasium", "reinforcement")

    class Watched(gym.Env):
        """One environment of a :class:`WatchedEnvironment`."""

        def __init__(self, maker, inner):
            self.maker, self.inner = maker, inner
            own = {n: getattr(inner, n) for n in ("observation_space", "action_space")}
            vars(self).update({**own, **maker.spaces})
            self.metadata = getattr(inner, "metadata", {})
            self.spec = getattr(inner, "spec", None)

        def __getattr__(self, name):
            if name in ("inner", "maker"):
                raise AttributeError(name)
            if isinstance(self.inner, gym.Env):
                return self.inner.get_wrapper_attr(name)
            return getattr(self.inner, name)

        def reset(self, *, seed=None, options=None):
            return self.inner.reset(seed=seed, options=options)

        def step(self, action):
            observation, reward, *rest = self.inner.step(action)
            self.maker.steps += 1
            if self.maker.steps > 1 and self.maker.fault == "reward":
                reward = float("nan")
            if self.maker.steps > 1 and self.maker.fault == "observation":
                observation = np.full_like(observation, np.nan)
            return observation, reward, *rest

        def close(self):
            self.inner.close()

    return Watched
