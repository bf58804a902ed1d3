"""Vector environments of gymnasium, played one whole episode each."""

import copy
import itertools
import numbers
from typing import NamedTuple

import numpy as np

from dlcompanion.backend import require
from dlcompanion.reinforcement.environments.copies import (
    copies_of,
    set_by_hand,
    to_evaluate,
)
from dlcompanion.reinforcement.environments.vector_environments import NATIVE
from dlcompanion.reinforcement.networks.action_distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)


class Episodes(NamedTuple):
    """One episode of each environment, padded to the length of the longest.

    Attributes:
        observations: Float32 array ``(time, environments, ...)``.
        actions: Int32 array ``(time, environments)``, counted from 0; of real actions a
            float32 array ``(time, environments, size)``, in units of the space.
        rewards: Float64 array ``(time, environments)``, 0 after the end.
        playing: Boolean array ``(time, environments)``, false after the end.
        terminated: Boolean array ``(environments,)``: false where the episode was
            truncated.
        last_observations: Float32 array ``(environments, ...)``, seen after the end.

    Example:
        >>> played = np.array([[True, True], [True, False]])  # (time, environments)
        >>> two = Episodes(None, None, 1.0 * played, played, None, None)
        >>> two.returns, two.lengths
        (array([2., 1.]), array([2, 1]))
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    playing: np.ndarray
    terminated: np.ndarray
    last_observations: np.ndarray

    @property
    def returns(self):
        """Undiscounted sum of the rewards of each episode, ``(environments,)``."""
        return self.rewards.sum(axis=0)

    @property
    def lengths(self):
        """Steps of each episode, ``(environments,)``."""
        return self.playing.sum(axis=0)


class Environments:
    """Several environments with Box observations, in step.

    Agents count discrete actions from 0 and give real ones in units of the space, -1
    and 1 at its ends; ``to_environment`` says what the environment calls them.

    Args:
        environment: What to play: the id of a registered environment, a function
            without arguments that makes an environment, an environment (which is then
            the only one), or a vector environment.
        count: Positive integer, the number of environments made of an id or function.
        spaces: Tuple of the action spaces that will do: ``"Discrete"``,
            ``"MultiDiscrete"``, ``"Box"`` with finite bounds.

    Raises:
        ValueError: If the id is unknown, the spaces are others, or the autoreset mode
            of a vector environment is neither ``NEXT_STEP`` nor ``SAME_STEP``.

    Example:
        >>> environments = Environments("CartPole-v1", count=2)
        >>> environments.observation_shape, environments.actions
        ((4,), 2)
        >>> push_right = lambda observations: np.ones(len(observations), "int32")
        >>> episodes = environments.play(push_right, seed=0, horizon=500)
        >>> episodes.lengths.tolist(), episodes.terminated.tolist()
        ([10, 10], [True, True])
    """

    def __init__(self, environment, count, spaces=("Discrete",)):
        gym = require("gymnasium", "reinforcement")
        if (
            not isinstance(count, numbers.Integral)
            or isinstance(count, bool)
            or count < 1
        ):
            raise ValueError(
                "The number of environments must be a positive integer. "
                f"Received: {count!r}"
            )
        self.source = environment
        #: Whether they were made here, and nobody else has them.
        self.own = isinstance(environment, str) or callable(environment)
        self.vector = _vectorized(gym, environment, count)
        self.count = self.vector.num_envs
        observation = self.vector.single_observation_space
        action = self.vector.single_action_space
        if not isinstance(observation, gym.spaces.Box):
            raise ValueError(
                "The observations must come from a Box space; wrap the environment, "
                "for example in gymnasium.wrappers.FlattenObservation. "
                f"Received: observation_space={observation}"
            )
        if 0 in observation.shape:
            raise ValueError(
                "The observations must have an entry at least. "
                f"Received: observation_space={observation}"
            )
        self._take_actions_of(gym, action, spaces)
        modes = gym.vector.AutoresetMode
        mode = self.vector.metadata.get("autoreset_mode")
        if mode not in (modes.NEXT_STEP, modes.SAME_STEP):
            raise ValueError(
                "A vector environment must reset itself: metadata['autoreset_mode'] "
                "NEXT_STEP or SAME_STEP. "
                f"Received: autoreset_mode={mode}"
            )
        self.same_step = mode == modes.SAME_STEP
        self.observation_shape = tuple(observation.shape)
        bytes_only = observation.dtype == np.uint8  # as of images
        self.observation_dtype = "uint8" if bytes_only else "float32"
        #: What brings observations to a size that networks like.
        self.scale = 1 / 255 if bytes_only and observation.high.max() == 255 else 1.0

    def _take_actions_of(self, gym, space, spaces):
        kind = type(space).__name__
        if kind not in spaces:
            remedy = "; REINFORCE, A2C, PPO and DQN choose among actions, PPO and SAC "
            remedy += "give real ones"
            raise ValueError(
                f"The actions must come from a {' or '.join(spaces)} space{remedy}. "
                f"Received: action_space={space}"
            )
        self.spaces, self.actions, self.first_action = spaces, None, 0
        self.space_dtype = space.dtype
        self.low = self.high = None
        self.action_dtype = "float32" if kind == "Box" else "int32"
        if kind == "Discrete":
            self.actions, self.first_action = int(space.n), int(space.start)
            self.distribution = Categorical(self.actions)
        elif kind == "MultiDiscrete":
            if space.nvec.ndim != 1:
                raise ValueError(
                    "A MultiDiscrete space must be a vector of choices. "
                    f"Received: action_space={space}"
                )
            self.distribution = MultiCategorical(space.nvec.tolist())
            self.first_action = space.start
        else:
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise ValueError(
                    "A Box of actions needs finite bounds; name them with "
                    "gymnasium.wrappers.TransformAction(env, lambda action: action, "
                    "gymnasium.spaces.Box(low, high)). "
                    f"Received: action_space={space}"
                )
            self.low, self.high = space.low, space.high
            self.distribution = DiagonalGaussian(int(np.prod(space.shape)))

    def to_environment(self, actions):
        """Actions as the environment calls them.

        Args:
            actions: Integer array ``(batch,)`` or ``(batch, choices)``, counted from 0,
                or float array ``(batch, size)``, where -1 and 1 are the ends of the
                space; what lies outside is taken for the end. Of integers in a Box each
                has the same share of the way.

        Returns:
            Array ``(batch, ...)`` of the space's dtype; each row is in the space.
        """
        if self.low is None:
            return (actions + self.first_action).astype(self.space_dtype)
        low, high = (end.astype("float64") for end in (self.low, self.high))
        share = (np.clip(actions, -1.0, 1.0) + 1.0) / 2.0  # of the way from low to high
        share = share.reshape(-1, *low.shape)
        if self.space_dtype.kind == "f":
            played = (1.0 - share) * low + share * high  # their difference may overflow
            return np.clip(played.astype(self.space_dtype), self.low, self.high)
        # as much of the way for each integer; those beyond 2**53 are rounded in float64
        most = np.where(high > 2.0**53, np.nextafter(high, 0.0), high)
        played = np.minimum(np.floor(low + share * (high - low + 1.0)), most)
        played = np.maximum(played.astype(self.space_dtype), self.low)
        return np.where(share == 1.0, self.high, played)

    @property
    def time_limit(self):
        """Steps after which an episode is truncated, or None if there is no limit."""
        vector = self.vector.unwrapped
        limits = [getattr(vector, "max_episode_steps", None)]
        if hasattr(vector, "call"):  # of single environments, in other processes too
            name = "_max_episode_steps"
            if all(vector.call("has_wrapper_attr", name)):
                limits += vector.call("get_wrapper_attr", name)
        spec = getattr(vector, "spec", None)
        if spec is not None and not any(limits):
            made = spec.kwargs.get("max_episode_steps")
            limits.append(made or spec.max_episode_steps)
        return min(filter(None, limits), default=None)

    def reset(self, seed):
        """Reset all environments.

        Args:
            seed: Integer.

        Returns:
            Float32 array ``(environments, ...)``, of its own.
        """
        observations, _ = self.vector.reset(seed=int(seed))
        return np.array(observations, "float32")  # the environment may reuse it

    def step(self, actions):
        """Make one step in each environment, whatever kind of arrays it answers with.

        Args:
            actions: As :meth:`to_environment` takes them.

        Returns:
            ``(observations, rewards, terminated, truncated, infos)``: a float32 array
            ``(environments, ...)``, a float64 array and two boolean ones
            ``(environments,)``, and what the vector environment adds.

        Raises:
            ValueError: If there is not one reward for each environment.
        """
        observations, rewards, *ends, infos = self.vector.step(
            self.to_environment(actions)
        )
        rewards = np.asarray(rewards, "float64")
        if rewards.size != self.count:
            raise ValueError(
                "A step must give one reward for each environment. "
                f"Received: rewards of shape {rewards.shape}, {self.count} environments"
            )
        terminated, truncated = (np.asarray(x, bool).reshape(-1) for x in ends)
        observations = np.array(observations, "float32")
        return observations, rewards.reshape(-1), terminated, truncated, infos

    def another(self, count):
        """New environments of the same kind, that share nothing with these.

        An environment is copied, with its wrappers and what was set by hand; one that
        a function makes is made again. Either pays its true reward and writes no files
        (``to_evaluate``). A vector environment with a method ``another(count)`` is
        asked; of others the ``spec`` is used. What was set by hand stays: the
        environments of a ``SyncVectorEnv`` are copied in turn, and of one that steps
        all at once its own numbers, strings and booleans are. Of an ``AsyncVectorEnv``,
        whose environments live in other processes, it is lost.

        Args:
            count: Positive integer, how many.

        Returns:
            :class:`Environments`.

        Raises:
            ValueError: If an environment was given that cannot be made again.
        """
        gym = require("gymnasium", "reinforcement")
        if isinstance(self.source, str):
            return Environments(self.source, count, self.spaces)
        if callable(self.source):
            trained = itertools.cycle(getattr(self.vector, "envs", None) or [None])
            return Environments(
                lambda: to_evaluate(self.source(), next(trained)), count, self.spaces
            )
        if isinstance(self.source, gym.vector.VectorWrapper):
            raise ValueError(
                "This needs second environments, and the wrappers of a vector "
                "environment would be lost. Give a function that makes one wrapped "
                f"environment. Received: environment={self.source!r}"
            )
        if hasattr(self.source, "another"):
            return Environments(self.source.another(count), count, self.spaces)
        if isinstance(self.source, gym.Env):
            return Environments(copies_of([self.source]), count, self.spaces)
        if getattr(self.source, "spec", None) is None:
            raise ValueError(
                "This needs a second environment, and one without spec cannot be made "
                "again. Give an id, or a function that makes an environment. "
                f"Received: environment={self.source!r}"
            )
        if isinstance(self.source, gym.vector.SyncVectorEnv):
            return Environments(copies_of(self.source.envs), count, self.spaces)
        spec = copy.deepcopy(self.source.spec)
        spec.kwargs.pop("num_envs", None)
        made = gym.make_vec(spec, num_envs=count)
        if not isinstance(self.source, gym.vector.AsyncVectorEnv):
            alike = gym.make_vec(spec, num_envs=self.count)
            for name, value in set_by_hand(self.source, alike).items():
                setattr(made, name, value)
            alike.close()
        return Environments(made, count, self.spaces)

    def play(self, act, seed, horizon):
        """Play one episode in each environment, from a reset to its end.

        Environments that are through reset themselves and go on until the last one is;
        what they do then, the first row after a reset included, is not ``playing``.

        Args:
            act: Function from float32 observations ``(environments, ...)`` to actions
                ``(environments, ...)``, as ``to_environment`` takes them.
            seed: Integer, seeds the reset: the same seed and actions, the same
                episodes.
            horizon: Positive integer: longer episodes are truncated.

        Returns:
            :class:`Episodes`.

        Raises:
            ValueError: If an observation or reward is not finite; the message names
                the step and the environment.
        """
        observations = self.reset(seed)
        playing = np.ones(self.count, bool)
        terminated = np.zeros(self.count, bool)
        last = np.zeros((self.count, *self.observation_shape), "float32")
        rows = []
        for step in range(horizon):
            seen = observations
            _finite("observation", seen, step)
            actions = act(seen)
            observations, rewards, ended, truncated, infos = self.step(actions)
            _finite("reward", rewards, step)
            over = playing & (ended | truncated)
            if over.any() or step == horizon - 1:
                after = self._after(observations, ended | truncated, infos)
                _finite("observation", after, step + 1)
                leaving = playing if step == horizon - 1 else over
                last[leaving] = after[leaving]
                terminated |= playing & ended
            rows.append((seen, actions, np.where(playing, rewards, 0.0), playing))
            playing = playing & ~over
            if not playing.any():
                break
        columns = [np.stack(column) for column in zip(*rows, strict=True)]
        columns[1] = columns[1].astype(self.action_dtype)
        return Episodes(*columns, terminated, last)

    def _after(self, observations, over, infos):
        """What was seen after this step; a reset in the same step hides it in infos."""
        if not self.same_step or not over.any():
            return observations
        after = observations.copy()
        for i in np.flatnonzero(over):
            after[i] = infos["final_obs"][i]
        return after

    def close(self):
        """Close the environments."""
        self.vector.close()


def _vectorized(gym, environment, count):
    if isinstance(environment, gym.vector.VectorEnv):
        return environment
    if isinstance(environment, gym.Env):
        return gym.vector.SyncVectorEnv([lambda: environment])
    if isinstance(environment, str):
        if environment in NATIVE and count > 1:
            return NATIVE[environment](count)
        try:
            return gym.make_vec(environment, num_envs=count)
        except gym.error.Error as error:
            raise ValueError(
                f"gymnasium cannot make this environment: {error} "
                f"Received: environment={environment!r}"
            ) from error
    if callable(environment):
        return gym.vector.SyncVectorEnv([environment] * count)
    raise ValueError(
        "environment must be the id of a gymnasium environment, an environment, a "
        "vector environment, or a function that makes an environment. "
        f"Received: environment={environment!r}"
    )


def _finite(name, values, step):
    bad = ~np.isfinite(values)
    if bad.any():
        number = int(np.argwhere(bad)[0][0])
        raise ValueError(
            f"Every {name} of an environment must be finite. "
            f"Received: {name}={values[number]} at step {step} of environment {number}"
        )
