"""Board games on arrays: thousands of positions a step, and none of them remembered."""

import numpy as np

from dlcompanion.checks import check_count


class LineGame:
    r"""Two players put stones on a board; the first with ``length`` in a line wins.

    A game keeps no state. A *position* is an int8 array ``(rows, columns)`` as the
    player sees it whose turn it is: 1 for a stone of one's own, -1 for the opponent's,
    0 for an empty field. A move turns the board around, so the value of a position is
    always that of the player to move, and passing it up a line of play means changing
    its sign. All methods take many positions at once.

    Args:
        rows: Positive integer.
        columns: Positive integer.
        length: Positive integer, the stones in a row, column or diagonal that win. It
            must fit on the board.
        gravity: Boolean. If True an action is a column, and the stone falls to the
            lowest empty field (the last row is the lowest); otherwise an action is a
            field, numbered row by row.

    Raises:
        ValueError: If a size is not positive, or no line of this length fits.

    Example:
        >>> game = LineGame(rows=3, columns=4, length=3, gravity=True)
        >>> positions, ended, values = game.step(game.start(2), [0, 3])
        >>> print(game.render(positions[1]))
        . . . .
        . . . .
        . . . X
        >>> game.legal(positions)[0].tolist()
        [True, True, True, True]
    """

    def __init__(self, rows, columns, length, gravity=False):
        self.rows = check_count("rows", rows)
        self.columns = check_count("columns", columns)
        self.length = check_count("length", length)
        self.gravity = bool(gravity)
        lines = [
            [(r + i * down) * columns + c + i * right for i in range(length)]
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))
            for r in range(rows)
            for c in range(columns)
            if r + (length - 1) * down < rows
            and 0 <= c + (length - 1) * right < columns
        ]
        if not lines:
            raise ValueError(
                f"A line must fit on the board. Received: rows={rows}, "
                f"columns={columns}, length={length}"
            )
        self.actions = columns if gravity else rows * columns
        self.observation_shape = (rows, columns, 2)
        self._lines = np.zeros((rows * columns, len(lines)), "float32")
        for number, line in enumerate(lines):
            self._lines[line, number] = 1.0
        self._turns = self._symmetries()

    @property
    def config(self):
        """The arguments of the constructor, as a dict."""
        names = ("rows", "columns", "length", "gravity")
        return {name: getattr(self, name) for name in names}

    # -- playing --------------------------------------------------------------------

    def start(self, count):
        """``count`` empty boards, int8 ``(count, rows, columns)``."""
        return np.zeros((check_count("count", count), self.rows, self.columns), "int8")

    def legal(self, positions):
        """Which actions are allowed, boolean ``(batch, actions)``."""
        if self.gravity:
            return positions[:, 0] == 0
        return self.fields(positions) == 0

    def step(self, positions, actions):
        """Play one move in every position, none of which may have ended.

        Args:
            positions: int8 array ``(batch, rows, columns)``.
            actions: Integers ``(batch,)``.

        Returns:
            The positions as the opponent sees them, int8 ``(batch, rows, columns)``;
            whether the game has ended, boolean ``(batch,)``; and what it is then
            worth for the player who would be next: -1.0 if the move has won, else
            0.0, float32 ``(batch,)``.

        Raises:
            ValueError: If an action is not on the board, or its field or column full.
        """
        actions = np.asarray(actions)
        each = np.arange(len(positions))
        if actions.shape != each.shape or actions.dtype.kind not in "iu":
            raise ValueError(
                "step takes one integer action for every position. Received: "
                f"actions of shape {actions.shape} and dtype {actions.dtype} for "
                f"{len(positions)} positions"
            )
        inside = (actions >= 0) & (actions < self.actions)
        if not inside.all() or not self.legal(positions)[each, actions].all():
            self._name_the_illegal(positions, actions, inside)
        return self.move(positions, actions)

    def move(self, positions, actions):
        """:meth:`step` without its checks, for a search that knows what is legal."""
        each = np.arange(len(positions))
        if self.gravity:
            height = (positions[each, :, actions] == 0).sum(axis=1)
            actions = (height - 1) * self.columns + actions
        fields = self.fields(positions).copy()
        fields[each, actions] = 1
        won = self._has_line(fields == 1)
        following = -fields.reshape(positions.shape)
        return following, won | (fields != 0).all(axis=1), -won.astype("float32")

    def random_move(self, positions, random):
        """A player that draws among the legal actions.

        Args:
            positions: int8 array ``(batch, rows, columns)``.
            random: A ``numpy.random.Generator``.

        Returns:
            int64 array ``(batch,)``.
        """
        legal = self.legal(positions)
        drawn = random.random(legal.shape, "float32")
        return np.where(legal, drawn, -1.0).argmax(axis=1)

    def check(self, positions):
        """Refuse what is no position with a move to make.

        Args:
            positions: Array ``(batch, rows, columns)`` or ``(rows, columns)``.

        Returns:
            int8 array ``(batch, rows, columns)``.

        Raises:
            ValueError: If the shape is another, a value is not -1, 0 or 1, the
                players did not take turns, a stone hangs in the air, or the game is
                over.
        """
        given = np.asarray(positions)
        single = given.shape == (self.rows, self.columns)
        boards = given[None] if single else given
        if boards.ndim != 3 or boards.shape[1:] != (self.rows, self.columns):
            raise ValueError(
                f"A position has shape {(self.rows, self.columns)}, many have "
                f"(batch, ...). Received: positions.shape={given.shape}"
            )
        if not np.isin(boards, (-1, 0, 1)).all():
            raise ValueError(
                "A position holds 1 (own stone), -1 (the opponent's) and 0. "
                f"Received: values {np.unique(boards)[:5]}"
            )
        boards = boards.astype("int8")
        fields = self.fields(boards)
        rules = {
            # the player to move has as many stones as the opponent, or one fewer
            "the players take turns": ~np.isin(fields.sum(axis=1), (0, -1)),
            "no line is complete and a field is empty": self._has_line(fields == 1)
            | self._has_line(fields == -1)
            | (fields != 0).all(axis=1),
        }
        if self.gravity:
            floating = (boards[:, :-1] != 0) & (boards[:, 1:] == 0)
            rules["every stone lies on another"] = floating.any(axis=(1, 2))
        for rule, broken in rules.items():
            if broken.any():
                worst = broken.argmax()
                raise ValueError(
                    f"In a position with a move to make {rule}. Received: position "
                    f"{worst}\n{self.render(boards[worst])}"
                )
        return boards

    def _has_line(self, stones):
        return (stones.astype("float32") @ self._lines >= self.length).any(axis=1)

    def _name_the_illegal(self, positions, actions, inside):
        legal = self.legal(positions)
        bad = [n for n, a in enumerate(actions) if not inside[n] or not legal[n, a]][0]
        allowed = np.flatnonzero(legal[bad]).tolist()
        raise ValueError(
            f"An action must be one of the legal ones, here {allowed}. "
            f"Received: actions[{bad}]={actions[bad]}\n{self.render(positions[bad])}"
        )

    # -- looking --------------------------------------------------------------------

    def fields(self, positions):
        """The boards as rows of numbers, ``(batch, rows * columns)``."""
        return positions.reshape(len(positions), self.rows * self.columns)

    def observe(self, positions):
        """What a network sees: a plane of one's own stones and one of the opponent's.

        Args:
            positions: int8 array ``(batch, rows, columns)``.

        Returns:
            float32 array ``(batch, rows, columns, 2)``.
        """
        return np.stack([positions == 1, positions == -1], axis=-1).astype("float32")

    @property
    def symmetries(self):
        """Integer, the number of ways to turn and mirror the board, itself included."""
        return len(self._turns)

    def turn(self, positions, policies, which):
        """Turn or mirror every position, and its policy with it.

        Args:
            positions: int8 array ``(batch, rows, columns)``.
            policies: Array ``(batch, actions)``, one number an action.
            which: Integers ``(batch,)`` from 0 to ``symmetries - 1``; 0 leaves all as
                it is.

        Returns:
            Arrays like ``positions`` and ``policies``.
        """
        fields, columns = self._turns[which], self._moves[which]  # where each is from
        flat = self.fields(positions)
        turned = np.take_along_axis(flat, fields, axis=1).reshape(positions.shape)
        return turned, np.take_along_axis(policies, columns, axis=1)

    def _symmetries(self):
        board = np.arange(self.rows * self.columns).reshape(self.rows, self.columns)
        turns = [board, board[:, ::-1]]
        if not self.gravity:
            turns += [np.rot90(b, 2) for b in turns]
            if self.rows == self.columns:
                turns += [np.rot90(b) for b in turns]
        turns = np.stack([b.reshape(-1) for b in turns])
        self._moves = turns[:, : self.columns] if self.gravity else turns
        return turns

    def render(self, position):
        """The board as text; X began, and so moves when both have as many stones.

        Args:
            position: int8 array ``(rows, columns)``.

        Returns:
            String of ``rows`` lines.
        """
        own, other = "XO" if np.sum(position) == 0 else "OX"
        marks = {1: own, -1: other, 0: "."}
        return "\n".join(" ".join(marks[int(x)] for x in row) for row in position)


class TicTacToe(LineGame):
    """Three in a row on three by three fields; a draw if nobody errs.

    Example:
        >>> TicTacToe().actions
        9
    """

    def __init__(self):
        super().__init__(rows=3, columns=3, length=3)


class ConnectFour(LineGame):
    """Four in a row on six by seven fields, where stones fall; the first can win.

    Example:
        >>> ConnectFour().actions
        7
    """

    def __init__(self):
        super().__init__(rows=6, columns=7, length=4, gravity=True)
