"""Players of board games, and what becomes of one against another.

A player is a function of positions ``(batch, rows, columns)`` and a
``numpy.random.Generator`` to actions ``(batch,)``. ``game.random_move`` is one, so is
``Minimax(game).best``, and so is ``AlphaZero(game).move``.
"""

import numpy as np

from dlcompanion.checks import check_count, generator
from dlcompanion.reinforcement.games.tree_search import tree_search


class SearchPlayer:
    """Plays what a tree search looked at most often, with any evaluation of positions.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`.
        evaluate: As in :func:`~dlcompanion.reinforcement.tree_search`, for example
            ``RandomRollouts``.
        simulations: Positive integer.
        exploration: Positive number, as in the search.

    Raises:
        ValueError: If ``simulations`` is not positive.

    Example:
        >>> from dlcompanion.reinforcement import TicTacToe
        >>> from dlcompanion.reinforcement.games.tree_search import RandomRollouts
        >>> game = TicTacToe()
        >>> player = SearchPlayer(game, RandomRollouts(game, seed=0), simulations=200)
        >>> player(game.start(1)).tolist()
        [4]
    """

    def __init__(self, game, evaluate, simulations, exploration=1.5):
        self.game, self.evaluate = game, evaluate
        self.simulations = check_count("simulations", simulations)
        self.exploration = exploration

    def __call__(self, positions, random=None):
        result = tree_search(
            self.game, positions, self.evaluate, self.simulations, self.exploration
        )
        return result.visits.argmax(axis=1)


def play_match(game, player, opponent, games=200, seed=0, opening=0):
    """Play many games at once; ``player`` begins in every second one.

    Args:
        game: A game like :class:`~dlcompanion.reinforcement.LineGame`.
        player: Function of positions and a ``numpy.random.Generator`` to actions.
        opponent: Another such function.
        games: Positive integer.
        seed: Integer of at least 0, for what is drawn.
        opening: Integer of at least 0, the moves that are drawn at random before the
            players take over: two players that draw nothing would play the same game
            again and again. Two games in a row have the same opening, one for each
            seat. An opening that ends the game is drawn anew.

    Returns:
        Dict with ``"win"``, ``"draw"`` and ``"loss"`` of ``player``, shares that sum
        to 1, and ``"games"``.

    Raises:
        ValueError: If a number is out of its range, or a player makes an illegal move.

    Example:
        >>> from dlcompanion.reinforcement import Minimax, TicTacToe
        >>> game = TicTacToe()
        >>> play_match(game, Minimax(game).best, game.random_move, games=50)["loss"]
        0.0
    """
    check_count("games", games)
    check_count("opening", opening, least=0)
    random = generator(seed)
    positions = np.repeat(_openings(game, -(-games // 2), opening, random), 2, axis=0)
    positions, playing = positions[:games], np.arange(games)
    first = np.arange(games) % 2 == 0  # where the player is the next to move
    results = np.zeros(games)
    while len(playing):
        actions = np.zeros(len(playing), "int64")
        for who, mine in ((player, first[playing]), (opponent, ~first[playing])):
            if mine.any():
                actions[mine] = who(positions[mine], random)
        positions, ended, values = game.step(positions, actions)
        mover = np.where(first[playing], 1.0, -1.0)
        results[playing[ended]] = (-values * mover)[ended]
        first[playing] = ~first[playing]
        positions, playing = positions[~ended], playing[~ended]
    shares = {"win": results > 0, "draw": results == 0, "loss": results < 0}
    return {**{k: float(v.mean()) for k, v in shares.items()}, "games": games}


def _openings(game, count, moves, random):
    """Positions after ``moves`` random moves, in all of which the game goes on."""
    found = np.zeros((0, game.rows, game.columns), "int8")
    for _ in range(1_000):
        positions = game.start(count)
        for _ in range(moves):
            actions = game.random_move(positions, random)
            positions, ended, _ = game.move(positions, actions)
            positions = positions[~ended]
        found = np.concatenate([found, positions])[:count]
        if len(found) == count:
            return found
    raise ValueError(
        "An opening must leave moves to make, and random play of this many nearly "
        f"always ends the game. Received: opening={moves}"
    )
