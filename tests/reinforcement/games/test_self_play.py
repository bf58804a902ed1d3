"""Tests of dlcompanion.reinforcement.games.self_play."""

import numpy as np
import pytest

from dlcompanion.reinforcement import ConnectFour, LineGame, TicTacToe
from dlcompanion.reinforcement.games.self_play import (
    PositionMemory,
    SelfPlay,
    self_play,
)
from dlcompanion.reinforcement.games.tree_search import RandomRollouts

pytestmark = pytest.mark.once


def uniform(game):
    return lambda p: (np.zeros((len(p), game.actions)), np.zeros(len(p)))


def play(game, seed=0, **kwargs):
    settings = {"games": 12, "simulations": 20, "random": np.random.default_rng(seed)}
    return self_play(game, uniform(game), **{**settings, **kwargs})


@pytest.mark.parametrize("seed", range(10))
def test_a_game_ends_as_its_last_move_says(seed):
    game = TicTacToe()
    played = play(game, seed, games=1, exploring_moves=2)
    signs = (-1.0) ** np.arange(len(played.positions))
    np.testing.assert_array_equal(played.outcomes, signs * played.results[0])
    action = played.policies[-1].argmax()
    _, ended, values = game.step(played.positions[-1:], [action])
    assert ended[0] and played.outcomes[-1] == -values[0]


@pytest.mark.parametrize("game", [TicTacToe(), ConnectFour(), LineGame(3, 5, 3)])
def test_every_position_has_the_end_of_its_own_game(game):
    played = play(game, games=30)
    np.testing.assert_array_equal(played.outcomes[:30], played.results)
    stones = np.abs(game.fields(played.positions)).sum(axis=1)
    state, action = np.nonzero(game.legal(played.positions))
    after, ended, _ = game.step(played.positions[state], action)
    came_from = {}
    for row, position in zip(state[~ended], after[~ended], strict=True):
        came_from.setdefault(position.tobytes(), []).append(row)
    checked = 0
    for row in np.flatnonzero(stones > 0):
        before = came_from[played.positions[row].tobytes()]
        if len(before) == 1:  # else several games could have come here
            assert played.outcomes[row] == -played.outcomes[before[0]]
            checked += 1
    assert checked > 30 and len(set(played.results)) > 1


def test_policies_are_shares_of_the_visits():
    game = TicTacToe()
    played = play(game, simulations=25)
    np.testing.assert_allclose(played.policies.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(played.policies * 25 % 1 % 0.9999, 0, atol=1e-3)
    assert not played.policies[~game.legal(played.positions)].any()
    assert played.policies.dtype == played.outcomes.dtype == "float32"


def test_without_noise_and_drawing_all_games_are_the_same():
    game = TicTacToe()
    played = play(game, games=5, noise=0.0, exploring_moves=0)
    by_game = played.positions.reshape(-1, 5, 3, 3)
    np.testing.assert_array_equal(by_game, np.repeat(by_game[:, :1], 5, axis=1))
    varied = play(game, games=5, noise=0.0, exploring_moves=1)
    second = varied.positions[5:10]
    assert len({p.tobytes() for p in second}) > 1
    noisy = play(game, games=20, noise=1.0, exploring_moves=0)
    assert len({p.tobytes() for p in noisy.positions[20:40]}) > 1


def test_the_generator_decides():
    game = TicTacToe()
    a, b, c = (play(game, seed) for seed in (1, 1, 2))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert len(a.positions) != len(c.positions) or (a.positions != c.positions).any()


def numbered(game, first, count):
    """Rows that can be told apart: the policy says which it is, and so the outcome."""
    positions = np.zeros((count, game.rows, game.columns), "int8")
    positions[:, 0, 0] = 1
    policies = np.zeros((count, game.actions), "float32")
    policies[:, 0] = np.arange(first, first + count)
    outcomes = np.arange(first, first + count, dtype="float32")
    return SelfPlay(positions, policies, outcomes, np.zeros(1))


def test_batches_are_whole_rows_turned():
    game = LineGame(2, 3, 2)
    memory = PositionMemory(game, window=3)
    memory.add(numbered(game, 1, 50))
    x, (policies, outcomes) = memory.draw(40, 25, np.random.default_rng(0))
    assert x.shape == (40, 25, 2, 3, 2)
    stones = x[..., 0].reshape(1_000, 6)
    assert (stones.sum(axis=1) == 1).all() and not x[..., 1].any()
    corner = stones.argmax(axis=1)
    counts = np.bincount(corner, minlength=6)
    assert counts[[1, 4]].sum() == 0 and counts[[0, 2, 3, 5]].min() > 180
    # the policy is turned as the board is, and the outcome is that of the row
    policies, outcomes = policies.reshape(1_000, 6), outcomes.reshape(1_000)
    np.testing.assert_array_equal(policies[np.arange(1_000), corner], outcomes)
    assert (policies.sum(axis=1) == outcomes).all()
    assert set(outcomes) == set(range(1, 51))


def test_forgets_what_is_older_than_the_window():
    game = LineGame(2, 3, 2)
    memory = PositionMemory(game, window=2)
    for first in (0, 100, 200):
        memory.add(numbered(game, first, 10))
    _, (_, outcomes) = memory.draw(1, 500, np.random.default_rng(0))
    assert set(outcomes[0]) == {*range(100, 110), *range(200, 210)}


def test_is_restored_round_by_round():
    game = LineGame(2, 3, 2)
    memory, again = (PositionMemory(game, window=2) for _ in range(2))
    again.restore(memory.arrays())
    assert again.rounds == []
    memory.add(numbered(game, 0, 7))
    memory.add(numbered(game, 50, 4))
    again.restore(memory.arrays())
    for each in (memory, again):
        each.add(numbered(game, 90, 5))  # the first round is forgotten, not some rows
    for a, b in zip(memory.rounds, again.rounds, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
    assert [len(one[0]) for one in again.rounds] == [4, 5]


def test_refuses():
    with pytest.raises(ValueError, match="Received: window=0"):
        PositionMemory(TicTacToe(), window=0)
    with pytest.raises(ValueError, match="Received: simulations=0"):
        play(TicTacToe(), simulations=0)
    game = TicTacToe()
    with pytest.raises(ValueError, match="Received: count=0"):
        self_play(game, RandomRollouts(game, 0), 0, 5, np.random.default_rng(0))
