"""Q-learning, SARSA and expected SARSA: learning a table of action values."""

import math

import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count, check_number
from dlcompanion.reinforcement.agents.base_agent import BaseAgent

# What random numbers are for: each purpose has its own stream.
RESETS, ACTIONS, EVALUATION = range(3)


class TabularAgent(BaseAgent):
    r"""Action values in a table, corrected after every step.

    After each step from :math:`s` to :math:`s'`, with reward :math:`r`,

    .. math:: q(s, a) \leftarrow q(s, a) + \alpha_n
        \bigl(r + \gamma\, \hat v(s') - q(s, a)\bigr), \qquad
        \alpha_n = \alpha\, n^{-\omega},

    where :math:`n` counts the visits of :math:`(s, a)` and :math:`\hat v(s')` is 0
    after a terminal state. A subclass defines :math:`\hat v` by ``next_value``. The
    target is bootstrapped where the environment or ``horizon`` truncates an episode.
    With :math:`1/2 < \omega \le 1` the table converges; with :math:`\omega = 0` it
    follows an environment that changes.

    All that is random follows from ``seed`` and the number of the episode, so the
    table, the visits and three counters are the whole state of an agent.

    Args:
        environment: Id of a gymnasium environment, function that makes an environment,
            or environment, with Discrete actions and Discrete states, counted from 0,
            or states that are a Tuple of such: they are numbered in the order of
            ``numpy.ravel_multi_index``. A
            :class:`~dlcompanion.reinforcement.GridWorld` is one.
        discount: Number :math:`\gamma` in [0, 1].
        step_size: Number :math:`\alpha` in (0, 1].
        step_decay: Number :math:`\omega` in [0, 1].
        exploration: Number in [0, 1], the probability of an action drawn at random
            instead of the best one. Among equally good ones one is drawn, too.
        horizon: Positive integer, the steps after which an episode is truncated.
        seed: Integer of at least 0, or None for one that is drawn.

    Raises:
        ValueError: If an argument is none of the above.

    Example:
        >>> from dlcompanion.reinforcement import GridWorld
        >>> isinstance(QLearning(GridWorld.cliff(), seed=0), TabularAgent)
        True
    """

    counters = ("steps", "episodes", "_overshoot")

    def __init__(
        self,
        environment,
        discount=1.0,
        step_size=0.5,
        step_decay=0.0,
        exploration=0.1,
        horizon=1000,
        seed=None,
    ):
        self.discount = check_number("discount", discount, 0, 1)
        self.step_size = check_number("step_size", step_size, 0, 1)
        if self.step_size == 0:
            raise ValueError("step_size must be positive. Received: step_size=0")
        self.step_decay = check_number("step_decay", step_decay, 0, 1)
        self.exploration = check_number("exploration", exploration, 0, 1)
        self.horizon = check_count("horizon", horizon)
        names = ("discount", "step_size", "step_decay", "exploration", "horizon")
        super().__init__(seed, {name: getattr(self, name) for name in names})
        self.source = environment
        self.environment = _made(environment)
        self._sizes, actions = (
            _sizes(name, getattr(self.environment, name, None))
            for name in ("observation_space", "action_space")
        )
        shape = math.prod(self._sizes), *actions
        self.table = np.zeros(shape)
        self.visits = np.zeros(shape, "int64")
        self.steps = 0
        self.episodes = 0
        self._overshoot = 0  # steps beyond what the last fit was asked for

    def next_value(self, row, action):
        """Estimated value of the next state.

        Args:
            row: List, the action values of the state it led to.
            action: Integer, the action that will be taken there.

        Returns:
            Number.
        """
        raise NotImplementedError("a subclass must define next_value(row, action)")

    # -- learning -------------------------------------------------------------------

    def fit(self, steps):
        """Play and learn until ``steps`` more steps were made.

        Episodes are never shortened for it, so a few more are made; the next call
        makes as many fewer.

        Args:
            steps: Positive integer.

        Returns:
            Dict with ``returns`` and ``lengths``, arrays with one entry an episode.

        Raises:
            ValueError: If ``steps`` is no positive integer, or a reward not finite.
        """
        target = self.steps - self._overshoot + check_count("steps", steps)
        # single entries of Python's lists are read several times faster than NumPy's
        table, visits = self.table.tolist(), self.visits.tolist()
        returns, lengths = [], []
        try:
            while self.steps < target:
                total, length = self._episode(table, visits)
                returns.append(total)
                lengths.append(length)
                self.steps += length
                self.episodes += 1
        finally:
            self.table, self.visits = np.array(table), np.array(visits)
        self._overshoot = self.steps - target
        return {"returns": np.array(returns), "lengths": np.array(lengths, int)}

    def _episode(self, table, visits):
        reset = int(self.random(RESETS, self.episodes).integers(2**31))
        random = self.random(ACTIONS, self.episodes).random
        state = self._number(self.environment.reset(seed=reset)[0])
        action = self._explore(table[state], random)
        total, length, power = 0.0, 0, -self.step_decay
        over = False
        while not over and length < self.horizon:
            after, reward, ended, truncated, _ = self.environment.step(action)
            after, reward = self._number(after), float(reward)
            if not np.isfinite(reward):
                raise ValueError(
                    "A reward must be finite. "
                    f"Received: {reward} for action {action} in state {state}"
                )
            next_action = self._explore(table[after], random)
            target = reward
            if not ended:
                target += self.discount * self.next_value(table[after], next_action)
            visits[state][action] += 1
            size = self.step_size * visits[state][action] ** power
            table[state][action] += size * (target - table[state][action])
            state, action = after, next_action
            total, length, over = total + reward, length + 1, ended or truncated
        return total, length

    def _number(self, state):
        """The row of a state in the table."""
        if len(self._sizes) == 1:
            return state
        number = 0
        for part, size in zip(state, self._sizes, strict=True):
            number = number * size + int(part)
        return number

    def _explore(self, row, random):
        if random() < self.exploration:
            return int(random() * len(row))
        best = max(row)
        ties = row.count(best)
        if ties == 1:
            return row.index(best)
        # one of them at random: the first is no better, and may lead nowhere
        equal = [action for action, value in enumerate(row) if value == best]
        return equal[int(random() * ties)]

    # -- acting ---------------------------------------------------------------------

    @property
    def policy(self):
        """Best action of each state, ``(states,)``; of several, the first."""
        return self.table.argmax(axis=1)

    def predict(self, state):
        """The best action in a state, or actions in an array of them.

        Args:
            state: Integer or array of integers; where states are tuples a tuple, or an
                array of them ``(..., parts)``.

        Returns:
            Integer, or array of the shape of ``state``.

        Raises:
            ValueError: If there is no such state.
        """
        states = np.asarray(state)
        if len(self._sizes) > 1:
            try:
                parts = np.moveaxis(states.astype(int, casting="safe"), -1, 0)
                states = np.ravel_multi_index([*parts], self._sizes)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"A state is a tuple of {len(self._sizes)} integers, counted from "
                    f"0, below {self._sizes}. Received: state={state}"
                ) from error
        if not np.isin(states, range(len(self.table))).all():
            raise ValueError(
                f"A state is an integer from 0 to {len(self.table) - 1}. "
                f"Received: state={state}"
            )
        best = self.policy[states.astype(int)]
        return int(best) if best.ndim == 0 else best

    def evaluate(self, episodes=20, seed=None):
        """Play whole episodes with the best actions, without learning.

        Args:
            episodes: Positive integer.
            seed: Integer, for other episodes; by default it follows from the agent's.

        Returns:
            Dict with ``return_mean``, ``return_std``, ``length_mean``, ``episodes``.

        Raises:
            ValueError: If ``episodes`` is no positive integer.
        """
        best, returns, lengths = self.policy.tolist(), [], []
        for n in range(check_count("episodes", episodes)):
            random = self.random(EVALUATION, n) if seed is None else None
            random = random or np.random.default_rng([seed, n])
            begin, _ = self.environment.reset(seed=int(random.integers(2**31)))
            state = self._number(begin)
            total, length, over = 0.0, 0, False
            while not over and length < self.horizon:
                after, reward, ended, truncated, _ = self.environment.step(best[state])
                state = self._number(after)
                total, length = total + float(reward), length + 1
                over = ended or truncated
            returns.append(total)
            lengths.append(length)
        return {
            "return_mean": float(np.mean(returns)),
            "return_std": float(np.std(returns)),
            "length_mean": float(np.mean(lengths)),
            "episodes": episodes,
        }

    # -- keeping --------------------------------------------------------------------

    def arrays(self):
        """The table, and how often each entry was corrected."""
        return {"table": self.table, "visits": self.visits}

    def restore(self, arrays):
        """Take back what :meth:`arrays` gave.

        Args:
            arrays: Dict from name to NumPy array.

        Raises:
            ValueError: If the environment has other numbers of states or actions.
        """
        if arrays["table"].shape != self.table.shape:
            raise ValueError(
                f"The environment must have as many states and actions as the table. "
                f"Received: {self.table.shape}, in the file {arrays['table'].shape}"
            )
        self.table, self.visits = arrays["table"], arrays["visits"]

    def world_config(self):
        """The id of the environment, or None if it was made with anything else."""
        return self.source if isinstance(self.source, str) else None


class QLearning(TabularAgent):
    r"""Off-policy learning of the values of the best policy.

    .. math:: \hat v(s') = \max_{a'} q(s', a')

    Args:
        *args: As of ``TabularAgent``.
        **kwargs: As of ``TabularAgent``.

    Example:
        >>> from dlcompanion.reinforcement import GridWorld
        >>> agent = QLearning(GridWorld(["S..G"]), step_size=1.0, seed=0)
        >>> history = agent.fit(steps=500)
        >>> agent.table.max(axis=1).tolist()  # steps to go
        [-3.0, -2.0, -1.0, 0.0]
        >>> agent.evaluate(episodes=1)["return_mean"]
        -3.0

    References:
        Watkins and Dayan, *Q-learning*, 1992. https://doi.org/10.1007/BF00992698
    """

    def next_value(self, row, action):
        return max(row)


class SARSA(TabularAgent):
    r"""On-policy learning of the values of the exploring policy.

    .. math:: \hat v(s') = q(s', a')

    with the action :math:`a'` that it takes next.

    Args:
        *args: As of ``TabularAgent``.
        **kwargs: As of ``TabularAgent``.

    Example:
        >>> from dlcompanion.reinforcement import GridWorld
        >>> agent = SARSA(GridWorld(["S..G"]), exploration=0.0, seed=0)
        >>> history = agent.fit(steps=500)
        >>> agent.table.max(axis=1).round(3).tolist()
        [-3.0, -2.0, -1.0, 0.0]

    References:
        Rummery and Niranjan, *On-Line Q-Learning Using Connectionist Systems*, 1994.
    """

    def next_value(self, row, action):
        return row[action]


class ExpectedSARSA(TabularAgent):
    r"""SARSA without the noise of the next action.

    .. math:: \hat v(s') = \sum_{a'} \pi(a' \mid s')\, q(s', a')

    Args:
        *args: As of ``TabularAgent``.
        **kwargs: As of ``TabularAgent``.

    Example:
        >>> from dlcompanion.reinforcement import GridWorld
        >>> agent = ExpectedSARSA(GridWorld(["SG"]), exploration=0.2, seed=0)
        >>> round(agent.next_value([0.0, 10.0, 0.0, 0.0], action=0), 6)
        8.5

    References:
        van Seijen, van Hasselt, Whiteson and Wiering, *A Theoretical and Empirical
        Analysis of Expected Sarsa*, 2009.
    """

    def next_value(self, row, action):
        mean = sum(row) / len(row)
        return (1 - self.exploration) * max(row) + self.exploration * mean


def _made(environment):
    gym = backend.require("gymnasium", "reinforcement")
    if isinstance(environment, str):
        try:
            return gym.make(environment)
        except gym.error.Error as error:
            raise ValueError(
                f"gymnasium cannot make this environment: {error} "
                f"Received: environment={environment!r}"
            ) from error
    if callable(environment):
        return environment()
    return environment


def _sizes(name, space):
    """The numbers of entries of a Discrete space that counts from 0, or of several."""
    spaces = backend.require("gymnasium", "reinforcement").spaces
    several = name == "observation_space" and isinstance(space, spaces.Tuple)
    parts = list(space) if several else [space]
    if not parts or not all(isinstance(x, spaces.Discrete) for x in parts):
        parts = [None]
    if any(x is None or x.start != 0 for x in parts):
        raise ValueError(
            "A table needs an environment with Discrete states and actions, counted "
            "from 0; states may be a Tuple of Discrete ones. "
            f"Received: {name}={space}"
        )
    return [int(x.n) for x in parts]
