"""Finite Markov decision processes: worlds that fit into a table."""

import copy
import functools
from bisect import bisect

import numpy as np

from dlcompanion import backend


class FiniteMDP:
    r"""A Markov decision process with few enough states to write them all down.

    In state :math:`s` the action :math:`a` leads to :math:`s'` with probability
    :math:`p(s' \mid s, a)` and pays :math:`r(s, a, s')`. Nothing is paid after a
    terminal state. It can be solved, and it has the methods of a
    :class:`gymnasium.Env`, so that agents can learn in it.

    Args:
        transitions: Array ``(states, actions, states)``, :math:`p(s' \mid s, a)`.
        rewards: Array of that shape, :math:`r(s, a, s')`, or ``(states, actions)``.
        terminal: Boolean array ``(states,)``.
        start: Array ``(states,)``, the probabilities of the first state. By default
            all that are not terminal are equally likely.

    Raises:
        ValueError: If the shapes do not fit, a row of ``transitions`` is not a
            distribution, or a reward is not finite.

    Example:
        >>> go = np.array([[[0.5, 0.5]], [[0.0, 1.0]]])  # one action: on with 1/2
        >>> mdp = FiniteMDP(go, -np.ones((2, 1)), terminal=[False, True])
        >>> mdp.reset(seed=0)
        (0, {})
        >>> mdp.step(0)  # state, reward, terminated, truncated, infos
        (0, -1.0, False, False, {})

    References:
        Sutton and Barto, *Reinforcement Learning*, second edition, 2018, chapter 3.
    """

    def __init__(self, transitions, rewards, terminal, start=None):
        transitions = np.array(transitions, "float64")
        rewards = np.array(rewards, "float64")
        terminal = np.array(terminal, bool)
        if transitions.ndim != 3 or transitions.shape[0] != transitions.shape[2]:
            raise ValueError(
                "transitions must have shape (states, actions, states). "
                f"Received: transitions.shape={transitions.shape}"
            )
        if rewards.shape == transitions.shape[:2]:
            rewards = np.broadcast_to(rewards[..., None], transitions.shape)
        if rewards.shape != transitions.shape or terminal.shape != rewards.shape[:1]:
            raise ValueError(
                "rewards must have the shape of transitions, or that without its last "
                "axis, and terminal one entry a state. Received: "
                f"transitions.shape={transitions.shape}, "
                f"rewards.shape={rewards.shape}, terminal.shape={terminal.shape}"
            )
        if not np.isfinite(rewards).all():
            raise ValueError(
                "Every reward must be finite. "
                f"Received: {rewards[~np.isfinite(rewards)][0]}"
            )
        sums = transitions.sum(axis=-1)
        whole = np.isclose(sums, 1, rtol=0, atol=1e-9).all()
        if not whole or not (transitions >= 0).all():
            raise ValueError(
                "Every transitions[s, a] must be a distribution: at least 0, and of "
                f"sum 1. Received: sums from {sums.min()} to {sums.max()}, smallest "
                f"entry {transitions.min()}"
            )
        alive = ~terminal
        start = alive / max(1, alive.sum()) if start is None else np.array(start, float)
        if (
            start.shape != alive.shape
            or not (start >= 0).all()
            or start[terminal].any()
            or not np.isclose(start.sum(), 1, rtol=0, atol=1e-9)
        ):
            raise ValueError(
                "start must be a distribution over the states that are not terminal. "
                f"Received: start={start}"
            )
        self.transitions, self.rewards, self.terminal = transitions, rewards, terminal
        self.start = start
        self.states, self.actions = sums.shape
        self.expected_rewards = (transitions * rewards).sum(axis=-1)
        self._begin = start.cumsum()[:-1].tolist()  # bounds of the shares of [0, 1)
        self._known, self._state, self._random = {}, None, None

    @classmethod
    def of(cls, environment):
        """The process behind one of gymnasium's toy texts, from its table ``P``.

        Args:
            environment: Id, ``"CliffWalking-v1"`` for example, or environment.

        Returns:
            :class:`FiniteMDP`.

        Raises:
            ValueError: If the environment has no such table, or an episode ends with
                some steps into a state and goes on after others.
        """
        if isinstance(environment, str):
            environment = backend.require("gymnasium", "reinforcement").make(
                environment
            )
        table = getattr(environment.unwrapped, "P", None)
        if table is None:
            raise ValueError(
                "Only environments with a table P of all transitions are known by "
                f"heart. Received: environment={environment}"
            )
        states, actions = len(table), len(table[0])
        transitions = np.zeros((states, actions, states))
        paid = np.zeros_like(transitions)
        on, ending = np.zeros((2, states, states), bool)  # steps s -> after
        for s, rows in table.items():
            for a, outcomes in rows.items():
                for probability, after, reward, ended in outcomes:
                    transitions[s, a, after] += probability
                    paid[s, a, after] += probability * reward
                    (ending if ended else on)[s, after] |= probability > 0
        ends = ending.any(axis=0)
        start = environment.unwrapped.initial_state_distrib
        visited = start > 0
        for _ in range(states):
            visited = visited | on[visited & ~ends].any(axis=0)
        both = on[visited & ~ends].any(axis=0) & ends
        if both.any():
            raise ValueError(
                "An episode must end with every step into a terminal state. "
                f"Received: state {np.flatnonzero(both)[0]} ends it sometimes"
            )
        reachable = np.where(transitions > 0, transitions, 1)
        return cls(transitions, paid / reachable, ends, start)

    # -- what gymnasium's environments have -----------------------------------------

    @property
    def observation_space(self):
        """Numbers of states, as a ``gymnasium.spaces.Discrete``."""
        return backend.require("gymnasium", "reinforcement").spaces.Discrete(
            self.states
        )

    @property
    def action_space(self):
        """Numbers of actions, as a ``gymnasium.spaces.Discrete``."""
        return backend.require("gymnasium", "reinforcement").spaces.Discrete(
            self.actions
        )

    def reset(self, seed=None, options=None):
        """Begin an episode.

        Args:
            seed: Integer, or None to go on with the random numbers of before.
            options: Ignored.

        Returns:
            The number of the state, and an empty dict.
        """
        if seed is not None or self._random is None:
            self._random = np.random.default_rng(seed)
        number = bisect(self._begin, self._random.random())
        self._state = int(min(number, self.states - 1))
        return self._state, {}

    def step(self, action):
        """Take an action.

        Args:
            action: Integer, counted from 0.

        Returns:
            The number of the state, the reward, whether the episode ended, False, and
            an empty dict.

        Raises:
            ValueError: If ``action`` is another, or no episode has begun.
        """
        if self._state is None or action not in range(self.actions):
            raise ValueError(
                f"After reset() an action is an integer from 0 to {self.actions - 1}. "
                f"Received: action={action!r} in state {self._state}"
            )
        after, bounds, rewards = self._outcomes(self._state, int(action))
        n = bisect(bounds, self._random.random()) if len(after) > 1 else 0
        ended = bool(self.terminal[after[n]])
        self._state = None if ended else after[n]
        return after[n], rewards[n], ended, False, {}

    def _outcomes(self, state, action):
        """States that may follow, bounds of their shares of [0, 1), and rewards."""
        if (state, action) not in self._known:
            p = self.transitions[state, action]
            after = np.flatnonzero(p)
            bounds = p[after].cumsum()[:-1].tolist()
            paid = self.rewards[state, action, after].tolist()
            self._known[state, action] = after.tolist(), bounds, paid
        return self._known[state, action]

    def close(self):
        """Nothing to close."""

    def as_gymnasium(self):
        """The process as a ``gymnasium.Env``, for wrappers and agents that want one.

        Returns:
            A new ``gymnasium.Env`` with Discrete observations and actions, which goes
            its own way.

        Example:
            >>> import gymnasium as gym
            >>> from dlcompanion.reinforcement import DQN, GridWorld
            >>> def cliff():  # the state as a vector with a 1 in one place
            ...     walk = gym.wrappers.TimeLimit(GridWorld.cliff().as_gymnasium(), 99)
            ...     return gym.wrappers.FlattenObservation(walk)
            >>> DQN(cliff, seed=0).environments.observation_shape
            (48,)
        """
        process = copy.copy(self)
        process._state = process._random = None
        return _environment_class()(process)


@functools.cache
def _environment_class():
    """The class, made once gymnasium is wanted."""
    gym = backend.require("gymnasium", "reinforcement")

    class FiniteEnvironment(gym.Env):
        """A finite Markov decision process; ``process`` has its tables."""

        metadata = {"render_modes": []}

        def __init__(self, process):
            self.process, self.render_mode = process, None
            self.observation_space = process.observation_space
            self.action_space = process.action_space

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.process.reset(seed)

        def step(self, action):
            return self.process.step(action)

    return FiniteEnvironment
