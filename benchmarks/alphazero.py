"""How strong AlphaZero gets at Connect Four in some minutes on one core.

Learned from nothing, and measured twice: in games against OpenSpiel's Monte Carlo tree
search in C++ with random rollouts, from openings of four random moves, each played
once in each seat; and by an exact solver, bitbully, as the share of moves that keep the
value: a won position stays won, a drawn one drawn. Its positions come from random play.
They are those in which nobody could win at once and some move loses value::

    KERAS_BACKEND=jax python -m benchmarks.alphazero --agent c4.agent --iterations 500

The agent's file is kept, and a run that was interrupted goes on where it ended, also
in the table. Ours plays all games at once, so that its milliseconds a move are those
of large batches.
"""

import argparse
import json
import time
from importlib import metadata

from benchmarks import common, record

common.one_thread()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.tree_search import position_after, random_games  # noqa: E402
from dlcompanion.reinforcement import AlphaZero, ConnectFour  # noqa: E402
from dlcompanion.reinforcement.alphazero import policy_value_network  # noqa: E402
from dlcompanion.reinforcement.games.matches import SearchPlayer  # noqa: E402
from dlcompanion.reinforcement.games.tree_search import RandomRollouts  # noqa: E402

SOURCES = ["benchmarks.alphazero"]
STONES = (8, 12, 16, 20, 24)
ROLLOUTS = (1_000, 10_000)


# -- learning ------------------------------------------------------------------------


def new_agent(game, iterations):
    """The agent before its first game; its rate falls until ``iterations``."""
    gradient_steps = 128
    rate = keras.optimizers.schedules.PolynomialDecay(
        2e-3, iterations * gradient_steps, 1e-4
    )
    return AlphaZero(
        game,
        policy_value_network(game.observation_shape, game.actions, seed=0, units=256),
        keras.optimizers.Adam(rate),
        games=256,
        simulations=50,
        exploration=2.0,
        noise=0.5,
        exploring_moves=42,  # all: who always plays well never sees bad positions
        window=20,
        gradient_steps=gradient_steps,
        batch_size=512,
        seed=0,
    )


def trained(path, game, iterations):
    """The agent of a file, trained up to some iterations; and its CPU seconds."""
    record = path + ".seconds"
    try:
        agent = AlphaZero.load(path)
        with open(record, encoding="utf-8") as file:
            seconds = json.load(file)
    except FileNotFoundError:
        agent, seconds = new_agent(game, iterations), 0.0
    while agent.iterations < iterations:
        start = time.process_time()
        history = agent.fit(min(10, iterations - agent.iterations), verbose=0).history
        seconds += time.process_time() - start
        agent.save(path)
        with open(record, "w", encoding="utf-8") as file:
            json.dump(seconds, file)
        parts = [f"{k} {history[k][-1]:.3f}" for k in ("policy_loss", "value_loss")]
        print(agent.iterations, f"{seconds:.0f} CPU s", *parts, flush=True)
    return agent, seconds


# -- players: functions of OpenSpiel's states and our positions to actions -----------


def open_spiel_player(rollouts, seed):
    """OpenSpiel's search, one position after the other."""
    import pyspiel

    evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
    # the game, the evaluator, c, simulations, MB, solve, seed, verbose
    game = pyspiel.load_game("connect_four")
    bot = pyspiel.MCTSBot(game, evaluator, 2.0, rollouts, 1000, True, seed, False)
    return lambda states, positions: [bot.step(state) for state in states]


def learned_player(agent, simulations):
    return lambda states, positions: agent.move(positions, simulations=simulations)


def rollout_player(game, simulations, seed):
    player = SearchPlayer(game, RandomRollouts(game, seed), simulations)
    return lambda states, positions: player(positions)


def random_player(game, seed):
    random = np.random.default_rng(seed)
    return lambda states, positions: game.random_move(positions, random)


def state_after(history):
    import pyspiel

    state = pyspiel.load_game("connect_four").new_initial_state()
    for action in history:
        state.apply_action(action)
    return state


# -- games ---------------------------------------------------------------------------


def match(game, player, opponent, games, opening=4, seed=1):
    """Games won, drawn and lost by ``player``, and its CPU seconds a move."""
    histories = random_games(game, opening, games // 2, np.random.default_rng(seed))
    playing = []  # a state, its position, whether it is the player's turn
    for history in histories:
        for mine in (True, False):
            position = position_after(game, history)
            playing.append([state_after(history), position, mine])
    score = {"won": 0, "drawn": 0, "lost": 0}
    seconds = moves = 0
    while playing:
        for mine, side in ((True, player), (False, opponent)):
            turn = [one for one in playing if one[2] == mine]
            if not turn:
                continue
            states = [state for state, _, _ in turn]
            positions = np.concatenate([position for _, position, _ in turn])
            start = time.process_time()
            actions = np.asarray(side(states, positions))
            if mine:
                seconds += time.process_time() - start
                moves += len(turn)
            positions, ended, values = game.step(positions, actions)
            for n, one in enumerate(turn):
                state = one[0]
                state.apply_action(int(actions[n]))
                assert bool(ended[n]) == state.is_terminal()
                if ended[n]:
                    won = values[n] < 0
                    score["drawn" if not won else "won" if mine else "lost"] += 1
                one[1:] = positions[n : n + 1], not mine
            playing = [one for one in playing if not one[0].is_terminal()]
    return list(score.values()), seconds / moves


# -- positions whose value is known --------------------------------------------------


def quiet_positions(game, stones, random):
    """Histories and positions of random play in which nobody could win at once."""

    def wins_at_once(positions):
        legal, won = game.legal(positions), np.zeros(len(positions), bool)
        for action in range(game.actions):
            rows = np.flatnonzero(legal[:, action])
            values = game.move(positions[rows], np.full(len(rows), action))[2]
            won[rows] |= values < 0
        return won

    while True:
        positions, histories = game.start(2048), np.empty((2048, 0), int)
        for _ in range(stones):
            actions = game.random_move(positions, random)
            positions, ended, _ = game.move(positions, actions)
            histories = np.column_stack([histories, actions])[~ended]
            positions = positions[~ended]
        quiet = ~(wins_at_once(positions) | wins_at_once(-positions))
        yield from zip(histories[quiet].tolist(), positions[quiet], strict=True)


def solved_positions(game, stones, count, seed=1):
    """States, positions, and which moves keep their value: never all.

    The solver scores every move: positive if it wins, 0 for a draw, negative if it
    loses, all with best play. A move keeps the value if no other has a better sign.
    """
    from bitbully import BitBully, Board

    solver, found = BitBully(), {}
    random = np.random.default_rng([seed, stones])
    for history, position in quiet_positions(game, stones, random):
        scores = solver.score_all_moves(Board(history))
        signs = np.full(game.actions, -2)
        signs[list(scores)] = np.sign(list(scores.values()))
        keeps = signs == signs.max()
        if keeps.sum() < len(scores):
            found[position.tobytes()] = state_after(history), position, keeps
        if len(found) == count:
            states, positions, keeps = zip(*found.values(), strict=True)
            return states, np.stack(positions), np.stack(keeps)


def value_kept(player, solved):
    """Share of moves that keep the value, for each number of stones."""
    shares = {}
    for stones, (states, positions, keeps) in solved.items():
        actions = np.asarray(player(states, positions))
        shares[stones] = float(keeps[np.arange(len(keeps)), actions].mean())
    return shares


# -- the table -----------------------------------------------------------------------


def strength(path, iterations, games, positions):
    """Measure the players that the last result does not hold, and save after each."""
    game = ConnectFour()
    agent, seconds = trained(path, game, iterations)
    solved = {n: solved_positions(game, n, positions) for n in STONES}
    cost = f"{agent.iterations} iterations, {seconds / 60:.1f} CPU minutes"
    learned = {"network alone": 0}
    learned |= {f"{n:,} simulations": n for n in (100, 400, 1_600)}
    players = {name: learned_player(agent, n) for name, n in learned.items()}
    players["no learning, 400 simulations"] = rollout_player(game, 400, seed=0)
    players |= {f"OpenSpiel, {n:,} rollouts": open_spiel_player(n, 2) for n in ROLLOUTS}
    players["random moves"] = random_player(game, seed=0)
    peers = {
        name: {name: metadata.version(name)} for name in ("open_spiel", "bitbully")
    }
    sizes = {"games": games, "positions": positions * len(STONES)}
    before, rows = record.kept("alphazero", SOURCES), []
    for name, player in players.items():
        asked = {"player": name, "training": cost if name in learned else None, **sizes}
        row = next((row for row in before if asked.items() <= row.items()), None)
        rows.append(row or asked | measured(game, player, games, solved))
        record.save("alphazero", rows, SOURCES, peers)
    return rows


def measured(game, player, games, solved):
    row, costs = {}, []
    for rollouts in ROLLOUTS:
        score, seconds = match(game, player, open_spiel_player(rollouts, 1), games)
        row[f"won, drawn, lost against {rollouts:,} rollouts"] = score
        costs.append(1e3 * seconds)
    shares = value_kept(player, solved)
    row["value kept"] = float(np.mean(list(shares.values())))
    row |= {f"{stones} stones": share for stones, share in shares.items()}
    return {**row, "CPU ms a move": min(costs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="connect_four.agent")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--games", type=int, default=100)
    parser.add_argument("--positions", type=int, default=200, help="for each depth")
    given = parser.parse_args()
    rows = strength(given.agent, given.iterations, given.games, given.positions)
    common.table(rows)


if __name__ == "__main__":
    main()
