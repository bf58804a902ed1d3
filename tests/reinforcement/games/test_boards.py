"""Tests of dlcompanion.reinforcement.games.boards."""

import numpy as np
import pytest

from dlcompanion.reinforcement import ConnectFour, LineGame, TicTacToe

pytestmark = pytest.mark.once

GAMES = [
    TicTacToe(),
    ConnectFour(),
    LineGame(3, 5, 3),
    LineGame(4, 4, 3, gravity=True),
]
BY_SHAPE = {"argvalues": GAMES, "ids": lambda g: str(tuple(g.config.values()))}


class Plain:
    """The rules once more: one board, two colors, loops."""

    def __init__(self, game):
        self.game, self.player, self.board = game, 0, {}

    def allowed(self):
        fields = [divmod(a, self.game.columns) for a in range(self.game.actions)]
        if self.game.gravity:
            fields = [(0, a) for a in range(self.game.actions)]
        return [field not in self.board for field in fields]

    def play(self, action):
        r, c = divmod(action, self.game.columns)
        if self.game.gravity:
            r, c = self.game.rows - 1, action
            while (r, c) in self.board:
                r -= 1
        self.board[r, c] = self.player
        won = any(
            all(
                self.board.get((i + k * down, j + k * right)) == self.player
                for k in range(self.game.length)
            )
            for i in range(self.game.rows)
            for j in range(self.game.columns)
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))
        )
        self.player = 1 - self.player
        return won, won or len(self.board) == self.game.rows * self.game.columns

    def position(self):
        array = np.zeros((self.game.rows, self.game.columns), "int8")
        for field, owner in self.board.items():
            array[field] = 1 if owner == self.player else -1
        return array


@pytest.mark.parametrize("game", **BY_SHAPE)
def test_equals_plain_rules_move_by_move(game):
    rng = np.random.default_rng(0)
    results = []
    for _ in range(30):
        plain, position, ended = Plain(game), game.start(1), False
        while not ended:
            legal = game.legal(position)[0]
            assert legal.tolist() == plain.allowed()
            action = rng.choice(np.flatnonzero(legal))
            (won, ended), (position, over, value) = (
                plain.play(action),
                game.step(position, [action]),
            )
            np.testing.assert_array_equal(position[0], plain.position())
            assert over[0] == ended and value[0] == (-1.0 if won else 0.0)
        results.append(won)
    assert 0 < sum(results)  # some games were won


@pytest.mark.parametrize("game", **BY_SHAPE)
def test_many_positions_are_as_good_as_one(game):
    rng = np.random.default_rng(1)
    positions = game.start(40)
    for _ in range(4):
        actions = (rng.random((40, game.actions)) * game.legal(positions)).argmax(1)
        together = game.step(positions, actions)
        for n in range(40):
            alone = game.step(positions[n : n + 1], actions[n : n + 1])
            for a, b in zip(together, alone, strict=True):
                np.testing.assert_array_equal(a[n], b[0])
        positions = together[0][~together[1]][np.arange(40) % (~together[1]).sum()]


@pytest.mark.parametrize("game", **BY_SHAPE)
def test_turning_and_moving_commute(game):
    assert game.symmetries == (
        2 if game.gravity else 8 if game.rows == game.columns else 4
    )
    rng = np.random.default_rng(2)
    seen = set()
    for which in range(game.symmetries):
        position = game.start(1)
        for _ in range(5):
            action = rng.choice(np.flatnonzero(game.legal(position)[0]))
            chosen = np.eye(game.actions)[[action]]
            turned, policy = game.turn(position, chosen, [which])
            np.testing.assert_array_equal(
                game.legal(turned)[0],
                game.turn(position, game.legal(position), [which])[1][0],
            )
            after = game.step(position, [action])
            also = game.step(turned, policy.argmax(axis=1))
            expected, _ = game.turn(after[0], chosen, [which])
            np.testing.assert_array_equal(also[0], expected)
            assert (also[1], also[2]) == (after[1], after[2])
            if after[1][0]:
                break
            position = after[0]
        board = np.arange(game.rows * game.columns).reshape(1, game.rows, game.columns)
        seen.add(game.turn(board, chosen, [which])[0].tobytes())
    assert len(seen) == game.symmetries
    same, _ = game.turn(board, chosen, [0])
    np.testing.assert_array_equal(same, board)


def test_what_a_network_sees_is_the_players_view():
    game = TicTacToe()
    position, _, _ = game.step(game.start(1), [4])
    planes = game.observe(position)
    assert planes.shape == (1, *game.observation_shape) and planes.dtype == "float32"
    assert planes[0, 1, 1].tolist() == [0.0, 1.0] and planes.sum() == 1


def test_random_moves_are_legal_and_equally_likely():
    game = TicTacToe()
    position, _, _ = game.step(game.start(1), [4])
    drawn = game.random_move(
        np.repeat(position, 8_000, axis=0), np.random.default_rng(0)
    )
    counts = np.bincount(drawn, minlength=9)
    assert counts[4] == 0 and np.abs(np.delete(counts, 4) - 1_000).max() < 150


def test_a_board_as_text():
    game = TicTacToe()
    position = game.start(1)
    assert game.render(position[0]) == ". . .\n. . .\n. . ."
    for action in (4, 0, 8):
        position, _, _ = game.step(position, [action])
    assert game.render(position[0]) == "O . .\n. X .\n. . X"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 3, 3), "Received: rows=0"),
        ((3, 2.5, 3), "Received: columns=2.5"),
        ((3, 3, 4), "must fit on the board. Received: rows=3, columns=3, length=4"),
    ],
)
def test_refuses_boards(arguments, message):
    with pytest.raises(ValueError, match=message):
        LineGame(*arguments)


@pytest.mark.parametrize(
    "actions, message",
    [
        ([4], r"legal ones, here \[0, 1, 2, 3, 5.*Received: actions\[0\]=4"),
        ([9], r"Received: actions\[0\]=9"),
        ([-1], r"Received: actions\[0\]=-1"),
        ([1, 2], r"Received: actions of shape \(2,\)"),
        ([1.0], "dtype float64"),
    ],
)
def test_refuses_illegal_moves(actions, message):
    game = TicTacToe()
    position, _, _ = game.step(game.start(1), [4])
    with pytest.raises(ValueError, match=message):
        game.step(position, actions)


def test_refuses_a_full_column():
    game = LineGame(2, 3, 2, gravity=True)
    position = game.start(1)
    for _ in range(2):
        position, _, _ = game.step(position, [1])
    with pytest.raises(ValueError, match=r"here \[0, 2\].*Received: actions\[0\]=1"):
        game.step(position, [1])


def board(text):
    return np.array([[{"X": 1, "O": -1, ".": 0}[x] for x in row] for row in text])


@pytest.mark.parametrize(
    "position, message",
    [
        (np.zeros((3, 4)), r"shape \(3, 3\).*Received: positions.shape=\(3, 4\)"),
        (np.full((3, 3), 2), "1 .own stone.*Received: values"),
        (np.full((3, 3), np.nan), "Received: values"),
        (board(["XX.", "...", "..."]), "take turns.*Received: position 0"),
        (board(["OO.", "...", "..."]), "take turns"),
        (board(["OOO", "XX.", "..."]), "no line is complete"),
        (board(["XOX", "XOO", "OXO"]), "a field is empty"),
    ],
)
def test_refuses_what_is_no_position(position, message):
    with pytest.raises(ValueError, match=message):
        TicTacToe().check(position)
    with pytest.raises(ValueError, match="every stone lies on another"):
        LineGame(3, 3, 3, gravity=True).check(board(["O..", "...", "..."]))


def test_takes_positions_one_by_one_or_many():
    game = TicTacToe()
    one = game.check(board(["X..", ".O.", "..."]))
    assert one.shape == (1, 3, 3) and one.dtype == "int8"
    assert game.check(np.concatenate([one, one])).shape == (2, 3, 3)
