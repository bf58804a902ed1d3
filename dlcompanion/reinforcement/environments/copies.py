"""Copies of environments to evaluate in: what was set by hand stays, true rewards."""

import copy
import itertools

from dlcompanion.backend import require


def copy_of(environment):
    """A second environment like the first: its wrappers, and what was set by hand.

    Args:
        environment: ``gymnasium.Env``, which stays as it is.

    Returns:
        Another, for :func:`to_evaluate`.

    Raises:
        TypeError: Or another error, if something in it cannot be copied.
    """
    memo = {}
    for wrapper in chain_of(environment)[0]:
        if hasattr(wrapper, "recorded_frames"):  # of a video under way: not needed
            memo[id(wrapper.recorded_frames)] = []
    return copy.deepcopy(environment, memo)


def copies_of(environments):
    """A function that copies one of these environments at each call, in turn.

    Args:
        environments: List of ``gymnasium.Env``, which stay as they are.

    Returns:
        Function without arguments; what it returns pays true rewards.

    Raises:
        ValueError: If something in the first of them cannot be copied.
    """
    try:
        copy_of(environments[0])
    except Exception as error:
        raise ValueError(
            "This needs a second environment, and one that cannot be copied cannot be "
            "made again. Give a function that makes one; a trained agent takes it, "
            "too: save(path), load(path, environment=function). Received: "
            f"environment={environments[0]!r}, {type(error).__name__}: {error}"
        ) from error
    turn = itertools.cycle(environments)
    return lambda: to_evaluate(copy_of(next(turn)))


def chain_of(environment):
    """The wrappers of an environment, the outermost first, and what is inside.

    Args:
        environment: ``gymnasium.Env``.

    Returns:
        ``(wrappers, inside)``.
    """
    gym, wrappers = require("gymnasium", "reinforcement"), []
    while isinstance(environment, gym.Wrapper):
        wrappers.append(environment)
        environment = environment.env
    return wrappers, environment


def set_by_hand(environment, alike):
    """Numbers, strings and booleans of an environment that one made alike has not.

    Args:
        environment: Vector environment that is used.
        alike: Another of the same kind and size, new.

    Returns:
        Dict of names and values.
    """
    new = vars(alike)
    return {
        name: value
        for name, value in vars(environment).items()
        if isinstance(value, bool | int | float | str)
        and not (name.startswith("_") or name == "closed")
        and (name not in new or new[name] != value)
    }


def to_evaluate(environment, trained=None):
    """An environment that pays the true reward and writes no files.

    Of its wrappers ``RecordVideo`` is taken off, which would write over the videos of
    the training, and ``NormalizeReward``, with the wrappers of rewards around it, which
    are meant for its units. ``NormalizeObservation`` stays, since the policy sees
    through it, with the statistics of the training, which do not change any more.

    Args:
        environment: ``gymnasium.Env``, whose wrappers are put together anew.
        trained: Environment of the training, made alike, whose statistics are taken,
            or None.

    Returns:
        ``gymnasium.Env``.
    """
    gym = require("gymnasium", "reinforcement")
    scaled, seen = gym.wrappers.NormalizeReward, gym.wrappers.NormalizeObservation
    wrappers, environment = chain_of(environment)
    learned = [] if trained is None else chain_of(trained)[0]
    learned = [x.obs_rms for x in learned if isinstance(x, seen)]
    own = [x for x in wrappers if isinstance(x, seen)]
    for wrapper, statistics in itertools.zip_longest(own, learned[: len(own)]):
        wrapper.obs_rms = statistics or wrapper.obs_rms
        wrapper.obs_rms = copy.deepcopy(wrapper.obs_rms)
        wrapper.update_running_mean = False
    inner = max((n for n, x in enumerate(wrappers) if isinstance(x, scaled)), default=0)
    for n, wrapper in reversed([*enumerate(wrappers)]):
        off = isinstance(wrapper, (gym.wrappers.RecordVideo, scaled))
        if not off and not (n < inner and isinstance(wrapper, gym.RewardWrapper)):
            wrapper.env = environment
            environment = wrapper
    return environment
