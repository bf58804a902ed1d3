"""Spaces without an environment: all that an agent needs to predict."""

import functools

import numpy as np

from dlcompanion.backend import require


def config_of(space):
    """A space as JSON can hold it.

    Args:
        space: Box, Discrete or MultiDiscrete of gymnasium.

    Returns:
        Dict, for :func:`space_of`.

    Example:
        >>> import gymnasium as gym
        >>> config_of(gym.spaces.Discrete(3, start=1))
        {'kind': 'Discrete', 'n': 3, 'start': 1, 'dtype': 'int64'}
    """
    config = {"kind": type(space).__name__}
    for name in ("low", "high", "n", "nvec", "start"):
        if hasattr(space, name):
            x = np.asarray(getattr(space, name))
            same = config["kind"] == "Box" and (x == x.flat[0]).all()  # as of an image
            config[name] = x.flat[0].item() if same else x.tolist()
    if config["kind"] == "Box":
        config["shape"] = list(space.shape)
    return {**config, "dtype": str(space.dtype)}


def space_of(config):
    """The space of :func:`config_of`.

    Args:
        config: Dict.

    Returns:
        A space of gymnasium.

    Example:
        >>> space_of(config_of(space_of({"kind": "Discrete", "n": 2})))
        Discrete(2)
    """
    arguments = {k: x for k, x in config.items() if k not in ("kind", "dtype")}
    dtype = np.dtype(config.get("dtype", "int64")).type
    if config["kind"] == "Box":
        for name in ("low", "high"):
            x = np.asarray(arguments[name], dtype)
            arguments[name] = np.broadcast_to(x, arguments["shape"])
    spaces = require("gymnasium", "reinforcement").spaces
    return getattr(spaces, config["kind"])(**arguments, dtype=dtype)


def spaces_only(config):
    """What stands for environments of which the spaces are known, and nothing else.

    Args:
        config: Dict of ``observations`` and ``actions``, each as of :func:`config_of`,
            and ``count``, the number of environments.

    Returns:
        A ``gymnasium.vector.VectorEnv`` that refuses to be played.
    """
    gym = require("gymnasium", "reinforcement")
    spaces = [space_of(config[name]) for name in ("observations", "actions")]
    made = [lambda: _stand_in()(*spaces)] * config["count"]
    vector = gym.vector.SyncVectorEnv(made)
    vector.another = lambda count: spaces_only({**config, "count": count})
    vector.spaces_only = True
    return vector


@functools.cache
def _stand_in():
    gym = require("gymnasium", "reinforcement")

    class StandIn(gym.Env):
        """Has spaces, and cannot be played."""

        def __init__(self, observations, actions):
            self.observation_space, self.action_space = observations, actions

        def reset(self, seed=None, options=None):
            raise ValueError(
                "This agent was loaded to predict. To train or evaluate it pass "
                "load(path, environment=...). Received: environment=None"
            )

    return StandIn
