"""Self-play: many games at once in which a search plays both sides."""

import functools
from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count
from dlcompanion.reinforcement.games.tree_search import (
    draw_actions,
    tree_search,
    with_noise,
)


class SelfPlay(NamedTuple):
    """What is left of games of self-play: one row for every position.

    Args:
        positions: int8 array ``(n, rows, columns)``, as the player to move saw it.
        policies: float32 array ``(n, actions)``, the share of the search's visits.
        outcomes: float32 array ``(n,)``, how the game ended for the player to move: 1,
            0 or -1.
        results: float32 array ``(games,)``, how it ended for the player who began.

    Example:
        >>> len(SelfPlay(np.zeros((5, 3, 3)), np.zeros((5, 9)), np.zeros(5), None))
        4
    """

    positions: np.ndarray
    policies: np.ndarray
    outcomes: np.ndarray
    results: np.ndarray


def self_play(
    game,
    evaluate,
    games,
    simulations,
    random,
    exploration=1.5,
    noise=0.25,
    exploring_moves=10,
):
    """Play games from the empty board to their end, all moves by search.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`.
        evaluate: As in :func:`~dlcompanion.reinforcement.tree_search`.
        games: Positive integer.
        simulations: Positive integer, of the search before each move.
        random: A ``numpy.random.Generator``.
        exploration: Positive number, as in the search.
        noise: Number in [0, 1], the share of noise in the priors of the roots.
        exploring_moves: Integer of at least 0: that many moves of a game are drawn in
            proportion to the visits, the rest are those visited most.

    Returns:
        :class:`SelfPlay`.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> from dlcompanion.reinforcement.games.tree_search import RandomRollouts
        >>> game, random = TicTacToe(), np.random.default_rng(0)
        >>> played = self_play(game, RandomRollouts(game, 0), 4, 10, random)
        >>> played.policies.shape == (len(played.positions), 9), len(played.results)
        (True, 4)
    """
    with_its_noise = functools.partial(with_noise, random=random, fraction=noise)
    boards = game.start(games)
    playing = np.arange(games)
    results = np.zeros(games, "float32")
    record, sign = [], np.float32(1)  # 1 where who began is to move
    while len(playing):
        found = tree_search(
            game, boards, evaluate, simulations, exploration, with_its_noise
        )
        record.append((boards, found.policies, playing, sign))
        if len(record) <= exploring_moves:
            actions = draw_actions(found.visits, random)
        else:
            actions = found.visits.argmax(axis=1)
        boards, ended, values = game.move(boards, actions)
        sign = -sign
        results[playing[ended]] = sign * values[ended]
        boards, playing = boards[~ended], playing[~ended]
    positions, policies, rows, signs = zip(*record, strict=True)
    outcomes = [s * results[row] for s, row in zip(signs, rows, strict=True)]
    return SelfPlay(
        np.concatenate(positions),
        np.concatenate(policies).astype("float32"),
        np.concatenate(outcomes),
        results,
    )


class PositionMemory:
    """Positions of the last rounds of self-play, to draw batches from.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`.
        window: Positive integer, the rounds that are kept.

    Raises:
        ValueError: If ``window`` is not positive.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> from dlcompanion.reinforcement.games.tree_search import RandomRollouts
        >>> game, random = TicTacToe(), np.random.default_rng(0)
        >>> memory = PositionMemory(game, window=2)
        >>> memory.add(self_play(game, RandomRollouts(game, 0), 4, 10, random))
        >>> observations, (policies, outcomes) = memory.draw(3, 16, random)
        >>> observations.shape, policies.shape, outcomes.shape
        ((3, 16, 3, 3, 2), (3, 16, 9), (3, 16))
    """

    names = ("positions", "policies", "outcomes")

    def __init__(self, game, window):
        self.game = game
        self.window = check_count("window", window)
        self.rounds = []

    def add(self, played):
        """Remember a :class:`SelfPlay`, and forget the oldest beyond the window."""
        self.rounds.append([getattr(played, name) for name in self.names])
        del self.rounds[: -self.window]

    def draw(self, steps, batch_size, random):
        """Positions drawn with replacement, each turned or mirrored at random.

        Args:
            steps: Positive integer.
            batch_size: Positive integer.
            random: A ``numpy.random.Generator``.

        Returns:
            ``(observations, (policies, outcomes))``, each ``(steps, batch_size, ...)``.
        """
        kept = zip(*self.rounds, strict=True)
        positions, policies, outcomes = map(np.concatenate, kept)
        rows = random.integers(len(positions), size=steps * batch_size)
        which = random.integers(self.game.symmetries, size=len(rows))
        turned, policies = self.game.turn(positions[rows], policies[rows], which)

        def by_step(x):
            return x.reshape(steps, batch_size, *x.shape[1:])

        observations = self.game.observe(turned)
        return by_step(observations), (by_step(policies), by_step(outcomes[rows]))

    def arrays(self):
        """All that is remembered, a dict of arrays for a file."""
        if not self.rounds:
            return {}
        parts = map(np.concatenate, zip(*self.rounds, strict=True))
        lengths = np.array([len(positions) for positions, *_ in self.rounds])
        return {**dict(zip(self.names, parts, strict=True)), "lengths": lengths}

    def restore(self, arrays):
        """Remember what :meth:`arrays` gave."""
        if not arrays:
            self.rounds = []
            return
        ends = np.cumsum(arrays["lengths"])[:-1]
        parts = [np.split(arrays[name], ends) for name in self.names]
        self.rounds = [list(one) for one in zip(*parts, strict=True)]
