"""Minimax: a small game solved to its end, and players held against the solution."""

from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count


class Examination(NamedTuple):
    """What became of a player that met every possible reply, in both seats.

    Args:
        positions: int8 array ``(n, rows, columns)``, all those in which it had to move.
        errors: Boolean array ``(n,)``, whether its move was worth less than the best.
        lost: Integer, the moves of opponents that beat it.
        won: Integer, its own moves that ended a game with a win.
        drawn: Integer, the moves of either that filled the board.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> solution = Minimax(TicTacToe())
        >>> solution.examine(solution.best).lost
        0
    """

    positions: np.ndarray
    errors: np.ndarray
    lost: int
    won: int
    drawn: int


class Minimax:
    r"""The exact value of every position that can be reached from the empty board.

    .. math:: v(s) = \max_a \, q(s, a), \qquad q(s, a) = \begin{cases}
        -v(s') & \text{if the game goes on in } s' \\
        \text{result} & \text{else} \end{cases}

    Positions with the same number of stones are found together, move by move, and
    valued together on the way back.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`, of at most 39
            fields.
        limit: Positive integer, the number of positions beyond which it gives up.

    Raises:
        ValueError: If the game is too large.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> game = TicTacToe()
        >>> solution = Minimax(game)
        >>> len(solution.positions), solution.values(game.start(1)).item()
        (4520, 0.0)
    """

    def __init__(self, game, limit=2_000_000):
        check_count("limit", limit)
        if game.rows * game.columns > 39:  # more fields than an int64 has trits
            raise ValueError(
                "Minimax solves games of at most 39 fields. "
                f"Received: {game.rows} rows of {game.columns} columns"
            )
        self.game = game
        self._weights = 3 ** np.arange(game.rows * game.columns, dtype="int64")
        layers, positions, total = [], game.start(1), 0
        while len(positions):
            total += len(positions)
            if total > limit:
                raise ValueError(
                    f"The game has more positions than limit. Received: limit={limit}"
                )
            state, action = np.nonzero(game.legal(positions))
            after, ended, result = game.move(positions[state], action)
            codes, first = np.unique(self._codes(after[~ended]), return_index=True)
            layers.append((positions, state, action, ended, result, self._codes(after)))
            positions = after[~ended][first]
        known = np.zeros(0, "int64"), np.zeros(0, "float32")
        tables = []
        for positions, state, action, ended, result, after in reversed(layers):
            q = np.full((len(positions), game.actions), np.nan, "float32")
            where = np.searchsorted(known[0], after[~ended])
            result[~ended] = known[1][where]
            q[state, action] = -result
            codes = self._codes(positions)
            order = np.argsort(codes)
            known = codes[order], np.nanmax(q, axis=1)[order]
            tables.append((codes, positions, q))
        codes, positions, q = (np.concatenate(x) for x in zip(*tables, strict=True))
        order = np.argsort(codes)
        self._known, self.positions, self._q = codes[order], positions[order], q[order]

    def action_values(self, positions):
        """What each move is worth if nobody errs afterwards.

        Args:
            positions: int8 array ``(batch, rows, columns)``.

        Returns:
            float32 array ``(batch, actions)`` of -1, 0 and 1; NaN for illegal moves.

        Raises:
            ValueError: If a position is none that can be reached and moved in.
        """
        positions = self.game.check(positions)
        codes = self._codes(positions)
        rows = np.searchsorted(self._known, codes)
        found = self._known[np.minimum(rows, len(self._known) - 1)] == codes
        if not found.all():
            lost = np.flatnonzero(~found)[0]
            raise ValueError(
                "A position must be one that a game can come to. Received: position "
                f"{lost}\n{self.game.render(positions[lost])}"
            )
        return self._q[rows]

    def values(self, positions):
        """What each position is worth for the player to move, ``(batch,)``."""
        return np.nanmax(self.action_values(positions), axis=1)

    def best(self, positions, random=None):
        """A best move in every position: perfect play.

        Args:
            positions: int8 array ``(batch, rows, columns)``.
            random: A ``numpy.random.Generator`` to draw among equally good moves with.
                By default the first of them.

        Returns:
            int64 array ``(batch,)``.
        """
        q = self.action_values(positions)
        good = q == np.nanmax(q, axis=1, keepdims=True)
        if random is None:
            return good.argmax(axis=1)
        return (good * (1.0 - random.random(good.shape))).argmax(axis=1)

    def errors(self, positions, actions):
        """Which moves are worth less than the best.

        Args:
            positions: int8 array ``(batch, rows, columns)``.
            actions: Integers ``(batch,)``, legal ones.

        Returns:
            Boolean array ``(batch,)``.
        """
        q = self.action_values(positions)
        return q[np.arange(len(q)), actions] < np.nanmax(q, axis=1)

    def examine(self, player):
        """Let a player meet every reply, in both seats.

        Args:
            player: Function of positions ``(batch, rows, columns)`` to actions. It must
                always move the same way in the same position.

        Returns:
            ``Examination``.
        """
        game = self.game
        positions, errors = [], []
        lost = won = drawn = 0
        # The two seats meet positions with an even and an odd number of stones.
        turn, waiting = game.start(1), self._replies(game.start(1))[0]
        while len(turn) or len(waiting):
            if len(turn):
                actions = np.asarray(player(turn))
                after, ended, result = game.step(turn, actions)
                positions.append(turn)
                errors.append(self.errors(turn, actions))
                won += int((result < 0).sum())
                drawn += int((ended & (result == 0)).sum())
                replied, beaten, full = self._replies(after[~ended])
                lost, drawn = lost + beaten, drawn + full
            else:
                replied = turn
            turn, waiting = waiting, replied
        return Examination(
            np.concatenate(positions), np.concatenate(errors), lost, won, drawn
        )

    def _replies(self, positions):
        """Positions after every reply, how many replies won, how many filled it."""
        state, action = np.nonzero(self.game.legal(positions))
        after, ended, result = self.game.move(positions[state], action)
        _, first = np.unique(self._codes(after[~ended]), return_index=True)
        full = int((ended & (result == 0)).sum())
        return after[~ended][first], int((result < 0).sum()), full

    def _codes(self, positions):
        """One integer a position."""
        fields = self.game.fields(positions).astype("int64") + 1
        return fields @ self._weights
