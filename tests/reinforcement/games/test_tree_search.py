"""Tests of dlcompanion.reinforcement.games.tree_search."""

import functools
import math
import zlib

import numpy as np
import pytest

from dlcompanion.reinforcement import (
    ConnectFour,
    LineGame,
    Minimax,
    TicTacToe,
    tree_search,
)
from dlcompanion.reinforcement.games.tree_search import (
    RandomRollouts,
    legal_softmax,
    with_noise,
)

pytestmark = pytest.mark.once

GAMES = [TicTacToe(), ConnectFour(), LineGame(3, 4, 3, gravity=True)]
BY_SHAPE = {"argvalues": GAMES, "ids": lambda g: str(tuple(g.config.values()))}


def board(text):
    return np.array([[{"X": 1, "O": -1, ".": 0}[x] for x in row] for row in text])


def uniform(positions, actions=9):
    return np.zeros((len(positions), actions)), np.zeros(len(positions))


def by_table(game):
    """Logits and values that depend on the position alone, and look like chance."""

    def evaluate(positions):
        seeds = [zlib.crc32(p.tobytes()) for p in positions]
        numbers = [np.random.default_rng(s).random(game.actions + 1) for s in seeds]
        numbers = np.array(numbers, "float32") * 2 - 1
        return 2 * numbers[:, :-1], numbers[:, -1]

    return evaluate


class Plain:
    """The same search in one game, a node at a time, by recursion."""

    def __init__(self, game, position, evaluate, c):
        self.game, self.evaluate, self.c = game, evaluate, c
        self.root = self.expand(position[None])[0]

    def expand(self, position):
        logits, values = self.evaluate(position)
        legal = self.game.legal(position)
        node = {
            "position": position,
            "P": legal_softmax(logits, legal)[0],
            "legal": np.flatnonzero(legal[0]),
            "N": np.zeros(self.game.actions, int),
            "W": np.zeros(self.game.actions, "float32"),
            "children": {},
        }
        return node, np.float32(values[0])

    def simulate(self, node):
        """One simulation from a node: its value for the player to move there."""
        if "result" in node:
            return node["result"]
        spread = np.sqrt(np.float32(1 + node["N"].sum()))
        best, score = None, -math.inf
        for a in node["legal"]:
            n = np.float32(node["N"][a])
            q = node["W"][a] / max(n, np.float32(1))
            u = q + np.float32(self.c * node["P"][a]) * (spread / (1 + n))
            if u > score:
                best, score = a, u
        if best in node["children"]:
            value = -self.simulate(node["children"][best])
        else:
            after, ended, result = self.game.step(node["position"], [best])
            if ended[0]:
                node["children"][best] = {"result": result[0]}
                value = -result[0]
            else:
                node["children"][best], value = self.expand(after)
                value = -value
        node["N"][best] += 1
        node["W"][best] += value
        return value


def some_positions(game, count, seed=0):
    """Positions of all lengths, from random play."""
    rng = np.random.default_rng(seed)
    found = [game.start(1)]
    while len(found) < count:
        actions = (rng.random((1, game.actions)) * game.legal(found[-1])).argmax(1)
        after, ended, _ = game.step(found[-1], actions)
        found.append(game.start(1) if ended[0] else after)
    return np.concatenate(found)


@pytest.mark.parametrize("game", **BY_SHAPE)
def test_equals_the_recursion_visit_for_visit(game):
    positions, evaluate = some_positions(game, 12), by_table(game)
    result = tree_search(game, positions, evaluate, 80, exploration=1.3)
    for n, position in enumerate(positions):
        plain = Plain(game, position, evaluate, 1.3)
        for _ in range(80):
            plain.simulate(plain.root)
        assert result.visits[n].tolist() == plain.root["N"].tolist()
        q = plain.root["W"] / np.maximum(plain.root["N"], 1)
        np.testing.assert_allclose(result.action_values[n], q, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.priors[n], plain.root["P"], rtol=1e-5)


@pytest.mark.parametrize("game", **BY_SHAPE)
def test_visits_sum_to_the_simulations_and_are_legal(game):
    positions = some_positions(game, 20, seed=1)
    result = tree_search(game, positions, by_table(game), 33)
    assert (result.visits.sum(axis=1) == 33).all()
    assert not result.visits[~game.legal(positions)].any()
    np.testing.assert_allclose(result.policies.sum(axis=1), 1.0)
    assert (np.abs(result.values) <= 1).all()


def test_trees_do_not_know_each_other():
    game = TicTacToe()
    positions, evaluate = some_positions(game, 9, seed=2), by_table(game)
    together = tree_search(game, positions, evaluate, 40)
    for n in range(9):
        alone = tree_search(game, positions[n : n + 1], evaluate, 40)
        np.testing.assert_array_equal(alone.visits[0], together.visits[n])


def test_a_tree_written_out():
    # Two free fields for X: number 2 wins, number 5 leaves O the last move, a draw.
    game = TicTacToe()
    position = board(["XX.", "OO.", "XOO"])[None].astype("int8")

    def evaluate(positions):  # prefers 5; all is worth 0.5 to the player to move
        logits = np.tile(np.arange(9.0) == 5, (len(positions), 1))
        return logits, np.full(len(positions), 0.5)

    p5, p2 = math.e / (math.e + 1), 1 / (math.e + 1)
    n5 = n2 = 0
    w5 = w2 = 0.0
    for _ in range(20):
        spread = math.sqrt(1 + n5 + n2)
        u5 = w5 / max(n5, 1) + 1.5 * p5 * spread / (1 + n5)
        u2 = w2 / max(n2, 1) + 1.5 * p2 * spread / (1 + n2)
        if u5 > u2:
            w5 += -0.5 if n5 == 0 else 0.0  # O's opinion at first, then the draw
            n5 += 1
        else:
            w2 += 1.0
            n2 += 1
    result = tree_search(game, position, evaluate, 20)
    assert result.visits[0, [5, 2]].tolist() == [n5, n2] and n5 > 1
    np.testing.assert_allclose(
        result.action_values[0, [5, 2]], [w5 / n5, w2 / n2], rtol=1e-6
    )
    np.testing.assert_allclose(result.priors[0, [5, 2]], [p5, p2], rtol=1e-6)
    assert result.values[0] == pytest.approx((w5 + w2) / 20)
    assert result.evaluations == 2  # the root, and the board with one field left


@pytest.mark.parametrize(
    "text, move",
    [
        (["XX.", "OO.", "..."], 2),  # wins at once
        (["OO.", "X..", "..X"], 2),  # or else the opponent does
        (["X.O", ".O.", "..."], 6),
        (["O..", ".XO", "X.."], 2),
    ],
)
def test_sees_one_move_ahead_without_knowing_anything(text, move):
    position = board(text)[None].astype("int8")
    result = tree_search(TicTacToe(), position, uniform, 100)
    assert result.visits[0].argmax() == move


def test_finds_the_value_of_the_game_in_the_limit():
    game = TicTacToe()
    solution = Minimax(game)
    rng = np.random.default_rng(0)
    few = solution.positions[rng.choice(len(solution.positions), 40, replace=False)]
    result = tree_search(game, few, uniform, 3_000)
    q = solution.action_values(few)
    chosen = q[np.arange(40), result.visits.argmax(axis=1)]
    np.testing.assert_array_equal(chosen, np.nanmax(q, axis=1))
    np.testing.assert_allclose(result.values, np.nanmax(q, axis=1), atol=0.2)


def test_what_has_ended_is_never_evaluated_and_nothing_twice():
    game = LineGame(3, 4, 3, gravity=True)
    asked = []

    def evaluate(positions):
        game.check(positions)  # refuses what has ended
        asked.extend(p.tobytes() for p in positions)
        return uniform(positions, 4)

    # without transpositions: the same board by two ways is two nodes
    result = tree_search(game, game.start(1), evaluate, 500)
    assert result.evaluations == len(asked) <= 501
    asked.clear()
    late = board(["..O.", "XXO.", "OXXO"])[None].astype("int8")
    result = tree_search(game, late, evaluate, 1_000)
    assert result.evaluations == len(asked) < 100 and result.visits.sum() == 1_000


def test_the_prior_decides_first_and_the_values_later():
    game = TicTacToe()
    favorite = np.eye(9)[[7]] * 5

    def evaluate(positions):
        return np.tile(favorite, (len(positions), 1)), np.zeros(len(positions))

    assert tree_search(game, game.start(1), evaluate, 1).visits[0].argmax() == 7
    winning = board(["XX.", "OO.", "..."])[None].astype("int8")
    assert tree_search(game, winning, evaluate, 3).visits[0].argmax() == 7
    assert tree_search(game, winning, evaluate, 200).visits[0].argmax() == 2


def test_noise_mixes_the_priors_of_the_roots_alone():
    rng = np.random.default_rng(0)
    legal = np.tile([True, True, False, True], (20_000, 1))
    priors = np.tile([0.5, 0.3, 0.0, 0.2], (20_000, 1))
    noisy = with_noise(priors, legal, rng, fraction=0.4, concentration=0.7)
    np.testing.assert_allclose(noisy.sum(axis=1), 1.0, rtol=1e-5)
    eta = (noisy[:, legal[0]] - 0.6 * priors[:, legal[0]]) / 0.4
    # of a symmetric Dirichlet over three: mean 1/3, variance (1/3)(2/3)/(3 a + 1)
    np.testing.assert_allclose(eta.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose(eta.var(axis=0), 2 / 9 / 3.1, rtol=0.03)
    assert not noisy[:, 2].any()
    none = with_noise(priors[:1], legal[:1], rng, fraction=0)
    np.testing.assert_allclose(none, priors[:1], rtol=1e-6)

    game = TicTacToe()
    positions = some_positions(game, 10)
    noise = functools.partial(with_noise, random=np.random.default_rng(1))
    result = tree_search(game, positions, by_table(game), 20, root_noise=noise)
    legal = game.legal(positions)
    plain = legal_softmax(by_table(game)(positions)[0], legal)
    expected = with_noise(plain, legal, np.random.default_rng(1))
    np.testing.assert_allclose(result.priors, expected, rtol=1e-4, atol=1e-6)


def test_rollouts_are_worth_what_random_play_is():
    game = LineGame(2, 2, 2, gravity=True)  # whoever begins wins with the second stone
    _, values = RandomRollouts(game, 0, rollouts=50)(game.start(3))
    # the first to move in two columns: O must answer, and X then always has a line
    assert values.tolist() == [1.0] * 3
    game = TicTacToe()
    _, values = RandomRollouts(game, 0, rollouts=4_000)(game.start(1))
    # random games: the first wins 0.585 and the second 0.288 of them
    assert values[0] == pytest.approx(0.585 - 0.288, abs=0.04)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"simulations": 0}, "Received: simulations=0"),
        ({"exploration": 0}, "Received: exploration=0"),
        ({"exploration": -1}, "Received: exploration=-1"),
        ({"positions": np.ones((1, 3, 3), "int8")}, "legal action.*Received: position"),
        (
            {"evaluate": lambda p: (np.zeros((len(p), 8)), np.zeros(len(p)))},
            r"logits \(1, 9\).*Received: shapes \(1, 8\) and \(1,\)",
        ),
        (
            {"evaluate": lambda p: (np.zeros((len(p), 9)), np.zeros((len(p), 1)))},
            r"values \(1,\).*Received: shapes",
        ),
        (
            {"evaluate": lambda p: (np.full((len(p), 9), np.nan), np.zeros(len(p)))},
            "finite numbers;.*Received: a NaN",
        ),
    ],
)
def test_refuses(arguments, message):
    game = TicTacToe()
    settings = {"positions": game.start(1), "evaluate": uniform, "simulations": 5}
    with pytest.raises(ValueError, match=message):
        tree_search(game, **{**settings, **arguments})


def test_refuses_noise_and_rollouts_out_of_range():
    legal, rng = np.ones((1, 4), bool), np.random.default_rng(0)
    with pytest.raises(ValueError, match="Received: fraction=1.5"):
        with_noise(legal / 4, legal, rng, fraction=1.5)
    with pytest.raises(ValueError, match="Received: concentration=0"):
        with_noise(legal / 4, legal, rng, concentration=0)
    with pytest.raises(ValueError, match="Received: rollouts=0"):
        RandomRollouts(TicTacToe(), 0, rollouts=0)
