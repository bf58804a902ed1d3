"""Tests of dlcompanion.reinforcement.games.minimax."""

import numpy as np
import pytest

from dlcompanion.reinforcement import ConnectFour, LineGame, Minimax, TicTacToe

pytestmark = pytest.mark.once


def negamax(game, position, solved):
    """The definition, one position at a time."""
    key = position.tobytes()
    if key not in solved:
        q = {}
        for action in np.flatnonzero(game.legal(position[None])[0]):
            after, ended, result = game.step(position[None], [action])
            q[action] = -(
                result[0] if ended[0] else max(negamax(game, after[0], solved).values())
            )
        solved[key] = q
    return solved[key]


@pytest.fixture(scope="module")
def solution():
    return Minimax(TicTacToe())


@pytest.mark.parametrize("game", [TicTacToe(), LineGame(3, 4, 3, gravity=True)])
def test_equals_the_recursion_in_every_position(game):
    solution, solved = Minimax(game), {}
    negamax(game, game.start(1)[0], solved)
    assert len(solution.positions) == len(solved)
    q = solution.action_values(solution.positions)
    for position, values in zip(solution.positions, q, strict=True):
        expected = solved[position.tobytes()]
        legal = np.flatnonzero(~np.isnan(values))
        assert dict(zip(legal, values[legal], strict=True)) == expected


def test_known_numbers(solution):
    # of the 5478 positions of tic-tac-toe 958 have ended
    assert len(solution.positions) == 5478 - 958
    game = TicTacToe()
    assert solution.action_values(game.start(1)).tolist() == [[0.0] * 9]
    center, _, _ = game.step(game.start(1), [4])
    q = solution.action_values(center)[0]
    assert np.isnan(q[4])
    assert q[[0, 2, 6, 8]].tolist() == [0.0] * 4  # the corners hold the draw
    assert q[[1, 3, 5, 7]].tolist() == [-1.0] * 4


def test_a_wrong_move_is_worth_less_than_the_best(solution):
    game = solution.game
    center, _, _ = game.step(game.start(1), [4])
    replies = np.array([0, 1, 2, 3, 5, 6, 7, 8])
    wrong = solution.errors(np.repeat(center, 8, axis=0), replies)
    assert replies[wrong].tolist() == [1, 3, 5, 7]


def test_symmetric_positions_have_the_same_values(solution):
    rng = np.random.default_rng(0)
    some = solution.positions[rng.integers(len(solution.positions), size=200)]
    q = solution.action_values(some)
    for which in range(8):
        turned, expected = solution.game.turn(some, q, np.full(200, which))
        np.testing.assert_array_equal(solution.action_values(turned), expected)


def test_the_longer_the_line_the_less_is_won():
    # a complete 3 x 3 board with lines of two is won by whoever begins
    values = [
        Minimax(LineGame(3, 3, n)).values(np.zeros((1, 3, 3), "int8")) for n in (2, 3)
    ]
    assert np.concatenate(values).tolist() == [1.0, 0.0]


def test_perfect_play_passes_the_examination(solution):
    result = solution.examine(solution.best)
    assert not result.errors.any() and result.lost == 0
    assert result.won > 0 and result.drawn > 0
    mine = solution.game.fields(result.positions).sum(axis=1)
    assert {0, -1} == set(mine)  # both seats


def test_the_examination_finds_the_error(solution):
    game = solution.game
    target, _, _ = game.step(game.start(1), [4])

    def errs_once(positions):
        actions = solution.best(positions)
        actions[(positions == target).all(axis=(1, 2))] = 1
        return actions

    result = solution.examine(errs_once)
    assert result.errors.sum() == 1 and result.lost > 0
    np.testing.assert_array_equal(result.positions[result.errors], target)


def test_the_examination_counts_every_end(solution):
    # against a player that takes the first empty field, one game at a time
    game = solution.game

    def first(positions):
        return game.legal(positions).argmax(axis=1)

    ends = set()

    def walk(position, mine):
        legal = np.flatnonzero(game.legal(position)[0])
        for action in legal[:1] if mine else legal:
            after, ended, result = game.step(position, [action])
            if ended[0]:
                ends.add((position.tobytes(), action, mine, result[0]))
            else:
                walk(after, not mine)

    walk(game.start(1), True)
    walk(game.start(1), False)
    result = solution.examine(first)
    counted = [(mine, value) for _, _, mine, value in ends]
    assert result.lost == counted.count((False, -1.0))
    assert result.won == counted.count((True, -1.0))
    assert result.drawn == counted.count((True, 0.0)) + counted.count((False, 0.0))


def test_draws_among_the_best(solution):
    game = solution.game
    many = np.repeat(game.start(1), 500, axis=0)
    drawn = np.bincount(solution.best(many, np.random.default_rng(0)), minlength=9)
    assert drawn.min() > 30
    center, _, _ = game.step(many, np.full(500, 4))
    replies = solution.best(center, np.random.default_rng(0))
    assert set(replies) == {0, 2, 6, 8}


def test_refuses_what_it_cannot_solve(solution):
    with pytest.raises(ValueError, match="at most 39 fields. Received: 6 rows"):
        Minimax(ConnectFour())
    with pytest.raises(ValueError, match="more positions than limit.*limit=100"):
        Minimax(TicTacToe(), limit=100)
    with pytest.raises(ValueError, match="Received: limit=0"):
        Minimax(TicTacToe(), limit=0)


def test_refuses_positions_of_no_game():
    game = LineGame(3, 3, 3, gravity=True)
    # X began, so its stone is the lowest somewhere
    position = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0]], "int8")
    with pytest.raises(ValueError, match=r"a game can come to.*position 0\n. . .\nX"):
        Minimax(game).values(position)
    with pytest.raises(ValueError, match="take turns"):
        Minimax(game).values(np.abs(position))
