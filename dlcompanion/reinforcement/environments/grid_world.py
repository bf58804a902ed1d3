"""Grid worlds: small places to learn in, drawn as text."""

import numpy as np

from dlcompanion.checks import check_number
from dlcompanion.reinforcement.environments.finite_mdp import FiniteMDP

# The cells one comes to by up, right, down and left.
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
LETTERS = ".SG#CP"
REWARDS = {".": -1.0, "S": -1.0, "G": -1.0, "C": -100.0, "P": -100.0}


class GridWorld(FiniteMDP):
    """Cells to walk between: up, right, down and left, never through a wall.

    Cells are the states, numbered row by row. A move against a wall or the border leads
    back to where it began, and pays what landing there pays.

    Args:
        rows: List of strings of one length, or one string with a row a line. ``S`` is
            where episodes start (any of several), ``G`` a goal and ``P`` a pit: both
            end the episode. ``C`` is a cliff: who steps there finds himself at the
            start. ``#`` is a wall, ``.`` is free.
        rewards: Dict from letter to what a step pays that leads there. By default -1,
            and -100 for ``C`` and ``P``; letters left out keep that.
        slip: Number in [0, 1], the probability that a move goes to one of its two
            sides instead.

    Raises:
        ValueError: If ``rows`` has other letters, rows of several lengths or no start,
            or ``rewards`` or ``slip`` is none of the above.

    Example:
        >>> world = GridWorld(["S.", ".G"])
        >>> world.reset(seed=0)
        (0, {})
        >>> world.step(1)  # right
        (1, -1.0, False, False, {})
        >>> world.step(2)  # down
        (3, -1.0, True, False, {})

    References:
        Sutton and Barto, *Reinforcement Learning*, second edition, 2018, example 6.6,
        is ``GridWorld.cliff()``.
    """

    def __init__(self, rows, rewards=None, slip=0.0):
        rows = rows.split() if isinstance(rows, str) else list(rows)
        letters = "".join(rows)
        if (
            not rows
            or len({len(row) for row in rows}) > 1
            or set(letters) - set(LETTERS)
        ):
            raise ValueError(
                f"A grid has rows of one length, of the letters {' '.join(LETTERS)}. "
                f"Received: rows={rows}"
            )
        if "S" not in letters:
            raise ValueError(f"A grid needs a start, S. Received: rows={rows}")
        rewards = {} if rewards is None else dict(rewards)
        if (
            not set(rewards) <= set(REWARDS)
            or not np.isfinite([*rewards.values()]).all()
        ):
            raise ValueError(
                f"rewards has finite numbers for the letters {' '.join(REWARDS)}. "
                f"Received: rewards={rewards}"
            )
        rewards = REWARDS | rewards
        self.slip = check_number("slip", slip, 0, 1)
        self.shape = (len(rows), len(rows[0]))
        self.cells = np.array([list(row) for row in rows])  # (rows, columns)
        self.starts = np.flatnonzero(self.cells.ravel() == "S")
        start = (self.cells.ravel() == "S") / len(self.starts)
        super().__init__(*self._tables(letters, rewards), start)

    @classmethod
    def cliff(cls):
        """The cliff between start and goal, four rows by twelve."""
        free = "." * 12
        return cls([free, free, free, "S" + "C" * 10 + "G"])

    def _tables(self, letters, rewards):
        states = len(letters)
        transitions = np.zeros((states, 4, states))
        paid = np.zeros_like(transitions)
        for state, letter in enumerate(letters):
            for action in range(4):
                if letter in "G#CP":  # nobody moves from there
                    transitions[state, action, state] = 1
                    continue
                for turn, share in ((0, 1 - self.slip), (1, None), (3, None)):
                    share = self.slip / 2 if share is None else share
                    cell = self._neighbor(state, (action + turn) % 4)
                    fallen = letters[cell] == "C"
                    for after in self.starts if fallen else [cell]:
                        part = share / len(self.starts) if fallen else share
                        transitions[state, action, after] += part
                        paid[state, action, after] += part * rewards[letters[cell]]
        reachable = np.where(transitions > 0, transitions, 1)
        return transitions, paid / reachable, [x in "G#CP" for x in letters]

    def _neighbor(self, state, direction):
        row, column = np.add(divmod(state, self.shape[1]), MOVES[direction])
        inside = 0 <= row < self.shape[0] and 0 <= column < self.shape[1]
        if not inside or self.cells[row, column] == "#":
            return state
        return int(row * self.shape[1] + column)
