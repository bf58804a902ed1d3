"""Rollouts: a fixed number of steps of a vector environment, across episodes."""

from typing import NamedTuple

import numpy as np

from dlcompanion.reinforcement.environments.gymnasium_environments import _finite


class Rollout(NamedTuple):
    """Some steps of all environments.

    Attributes:
        observations: Float32 array ``(time, environments, ...)``.
        actions: Int32 array ``(time, environments)``, counted from 0, with an axis of
            choices if there are several; of real actions a float32 array
            ``(time, environments, size)``, in units of the space.
        rewards: Float64 array ``(time, environments)``.
        next_observations: Float32 array ``(time, environments, ...)``,
            after each step, at the end of an episode before the reset.
        terminated: Boolean array ``(time, environments)``.
        dones: Boolean array ``(time, environments)``, terminated or truncated.
        mask: Boolean array ``(time, environments)``: false where an environment did
            nothing but reset itself.

    Example:
        >>> Rollout(*[np.zeros((3, 2))] * 7).rewards.shape
        (3, 2)
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    next_observations: np.ndarray
    terminated: np.ndarray
    dones: np.ndarray
    mask: np.ndarray


class RolloutCollector:
    """Environments that are reset once, and then go on from rollout to rollout.

    Args:
        environments: ``Environments``.
        seed: Integer, seeds the reset.
        horizon: Positive integer: where an episode has as many steps it is truncated,
            and with it all others, since only all environments together can be reset.
            None for no such number.

    Attributes:
        returns: List of the undiscounted returns of the episodes that have ended; those
            that were truncated only because another one was are none of them.
        lengths: List of their lengths.
        actions: List of arrays ``(environments, ...)``, the actions of every step.
        begins: Boolean array ``(environments,)``, true where what is seen next does not
            follow from what was seen before: after a reset, and while an environment
            does nothing but reset itself.

    Example:
        >>> from dlcompanion.reinforcement.environments.gymnasium_environments import (
        ...     Environments,
        ... )
        >>> collector = RolloutCollector(Environments("CartPole-v1", count=2), seed=0)
        >>> push_right = lambda observations: np.ones(len(observations), "int32")
        >>> collector.play(push_right, steps=8).dones.any(), collector.lengths
        (np.False_, [])
        >>> collector.play(push_right, steps=8).dones.sum(axis=0), collector.lengths
        (array([1, 1]), [10, 10])
    """

    def __init__(self, environments, seed, horizon=None):
        self.environments = environments
        self.horizon = np.inf if horizon is None else horizon
        self.returns, self.lengths, self.actions = [], [], []
        self._step, self._seed = 0, seed
        self._reset(seed)

    def _reset(self, seed):
        count = self.environments.count
        self.observations = self.environments.reset(seed)
        self.begins = np.ones(count, bool)
        self._resetting = np.zeros(count, bool)
        self._total, self._length = np.zeros(count), np.zeros(count, int)

    def play(self, act, steps):
        """Play on.

        Args:
            act: Function from float32 observations ``(environments, ...)`` to actions
                ``(environments, ...)``, as ``Environments.to_environment`` takes them.
            steps: Positive integer.

        Returns:
            :class:`Rollout`.

        Raises:
            ValueError: If an observation or reward is not finite; the message names
                the step and the environment.
        """
        environments = self.environments
        rows = []
        for _ in range(steps):
            seen = self.observations
            _finite("observation", seen, self._step)
            actions = np.asarray(act(seen))
            self.observations, rewards, terminated, truncated, infos = (
                environments.step(actions)
            )
            _finite("reward", rewards, self._step)
            self._step += 1
            mask = ~self._resetting
            terminated, dones = mask & terminated, mask & (terminated | truncated)
            next_observations = environments._after(self.observations, dones, infos)
            _finite("observation", next_observations, self._step)
            self._count(np.where(mask, rewards, 0.0), mask)
            late = mask & ~dones & (self._length >= self.horizon)
            self._end(dones | late)
            if late.any():
                dones = mask
                seed = np.random.SeedSequence([self._seed, self._step])
                self._reset(seed.generate_state(1)[0])
            else:
                self.begins = dones | ~mask
                if not environments.same_step:
                    self._resetting = dones
            self.actions.append(actions)
            rows.append(
                (seen, actions, rewards, next_observations, terminated, dones, mask)
            )
        columns = [np.stack(column) for column in zip(*rows, strict=True)]
        columns[1] = columns[1].astype(environments.action_dtype)
        return Rollout(*columns)

    def _count(self, rewards, mask):
        self._total += rewards
        self._length += mask

    def _end(self, dones):
        self.returns += self._total[dones].tolist()
        self.lengths += self._length[dones].tolist()
        self._total[dones], self._length[dones] = 0, 0

    def take(self):
        """Returns and lengths of the episodes that ended since the last call.

        Returns:
            Two arrays; if none ended, what those under way have so far.
        """
        ended = (self.returns, self.lengths) if self.returns else self.unfinished()
        self.returns, self.lengths = [], []
        return np.array(ended[0]), np.array(ended[1])

    def unfinished(self):
        """Returns and lengths of the episodes that are under way.

        Returns:
            Two lists, one entry an environment.
        """
        return self._total.tolist(), self._length.tolist()


def rows_of(x):
    """``(time, environments, ...)`` to ``(time * environments, ...)``.

    Args:
        x: Array.

    Returns:
        Array.

    Example:
        >>> rows_of(np.zeros((3, 2, 4))).shape
        (6, 4)
    """
    return x.reshape(-1, *x.shape[2:])
