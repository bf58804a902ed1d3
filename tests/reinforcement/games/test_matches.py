"""Tests of dlcompanion.reinforcement.games.matches."""

import numpy as np
import pytest

from dlcompanion.reinforcement import (
    ConnectFour,
    LineGame,
    Minimax,
    TicTacToe,
    play_match,
)
from dlcompanion.reinforcement.games.matches import SearchPlayer
from dlcompanion.reinforcement.games.tree_search import RandomRollouts

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def solution():
    return Minimax(TicTacToe())


def test_perfect_players_draw(solution):
    result = play_match(solution.game, solution.best, solution.best, games=21)
    assert result == {"win": 0.0, "draw": 1.0, "loss": 0.0, "games": 21}


def test_random_games_end_as_is_known():
    game = TicTacToe()
    result = play_match(game, game.random_move, game.random_move, games=6_000)
    # in random games the first wins 0.585, the second 0.288: in both seats the mean
    assert result["win"] == pytest.approx((0.585 + 0.288) / 2, abs=0.025)
    assert result["loss"] == pytest.approx((0.585 + 0.288) / 2, abs=0.025)
    assert result["win"] + result["draw"] + result["loss"] == pytest.approx(1.0)


def test_turning_the_players_turns_the_result(solution):
    game = solution.game

    def fixed(positions, random):
        return game.legal(positions).argmax(axis=1)

    one = play_match(game, solution.best, fixed, games=20)
    other = play_match(game, fixed, solution.best, games=20)
    assert one["win"] == other["loss"] > 0 and one["loss"] == other["win"] == 0


def test_both_seats_are_played():
    game = LineGame(2, 2, 2, gravity=True)  # who begins wins

    def any_move(positions, random):
        return game.random_move(positions, random)

    assert play_match(game, any_move, any_move, games=40)["win"] == 0.5
    seats = []

    def watched(positions, random):
        seats.extend(game.fields(positions).sum(axis=1).tolist())
        return game.random_move(positions, random)

    play_match(game, watched, any_move, games=40)
    assert set(seats) == {0, -1}


def test_openings_vary_come_in_pairs_and_go_on():
    game = ConnectFour()
    begun = {True: [], False: []}

    def watched(mine):
        def player(positions, random):
            some = game.fields(np.abs(positions)).sum(axis=1) == 6
            begun[mine].extend(p.tobytes() for p in positions[some])
            return game.legal(positions).argmax(axis=1)

        return player

    play_match(game, watched(True), watched(False), games=60, opening=6)
    assert begun[True] == begun[False] and len(begun[True]) == 30
    assert len(set(begun[True])) > 25


def test_the_same_seed_is_the_same_match():
    game = TicTacToe()
    a, b, c = (
        play_match(game, game.random_move, game.random_move, games=99, seed=seed)
        for seed in (1, 1, 2)
    )
    assert a == b != c


def test_search_beats_chance_and_more_search_less_search():
    game = TicTacToe()
    player = SearchPlayer(game, RandomRollouts(game, 0), simulations=100)
    result = play_match(game, player, game.random_move, games=100)
    assert result["win"] > 0.85 and result["loss"] < 0.05


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"games": 0}, "Received: games=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"opening": -1}, "Received: opening=-1"),
        ({"opening": 9}, "leave moves to make.*Received: opening=9"),
        ({"opponent": lambda p, r: np.full(len(p), 9)}, r"Received: actions\[1\]=9"),
    ],
)
def test_refuses(arguments, message):
    game = TicTacToe()
    players = {"player": game.random_move, "opponent": game.random_move}
    with pytest.raises(ValueError, match=message):
        play_match(game, **{**players, **arguments})


def test_a_search_needs_simulations():
    game = TicTacToe()
    with pytest.raises(ValueError, match="Received: simulations=0"):
        SearchPlayer(game, RandomRollouts(game, 0), simulations=0)
