"""How strong AlphaZero gets at Connect Four in some minutes on one core.

Learned from nothing, against OpenSpiel's Monte Carlo tree search in C++ with 1,000
random rollouts a move, from random openings, each played once in each seat::

    KERAS_BACKEND=jax python -m benchmarks.alphazero --agent c4.agent --minutes 4

The agent's file is kept, and a second run goes on where the first ended, up to as many
CPU minutes in all. Ours plays all games at once, so that its milliseconds a move are
those of large batches.
"""

import argparse
import json
import time
from importlib import metadata

from benchmarks import common

common.one_thread()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.tree_search import position_after, random_games  # noqa: E402
from dlcompanion.reinforcement import (  # noqa: E402
    AlphaZero,
    ConnectFour,
    RandomRollouts,
    SearchPlayer,
    policy_value_network,
)

SOURCES = [
    f"dlcompanion/reinforcement/{name}.py"
    for name in (
        "alphazero",
        "games",
        "numpy_policy",
        "policy_value",
        "self_play",
        "tree_search",
    )
] + ["benchmarks/alphazero.py"]


def trained(path, minutes):
    """The agent of a file, trained up to some CPU minutes; and what it has cost."""
    game = ConnectFour()
    record = path + ".seconds"
    try:
        agent = AlphaZero.load(path)
        with open(record, encoding="utf-8") as file:
            seconds = json.load(file)
    except FileNotFoundError:
        network = policy_value_network(game.observation_shape, 7, seed=0, units=256)
        agent, seconds = (
            AlphaZero(
                game,
                network,
                keras.optimizers.Adam(0.001),
                simulations=50,
                exploring_moves=16,
                window=20,
                updates=64,
                batch_size=512,
                seed=0,
            ),
            0.0,
        )
    while seconds < 60 * minutes:
        start = time.process_time()
        history = agent.fit(5, verbose=0).history
        seconds += time.process_time() - start
        agent.save(path)
        with open(record, "w", encoding="utf-8") as file:
            json.dump(seconds, file)
        parts = [f"{k} {history[k][-1]:.3f}" for k in ("policy_loss", "value_loss")]
        print(agent.iterations, f"{seconds:.0f} CPU s", *parts, flush=True)
    return agent, seconds


def match(game, player, rollouts, games, opening, seed=1):
    """Win, draw, loss of ``player`` against OpenSpiel's search; CPU seconds a move."""
    import pyspiel

    spiel = pyspiel.load_game("connect_four")
    evaluator = pyspiel.RandomRolloutEvaluator(1, seed)
    # a game, the evaluator, c, simulations, MB, solve, seed, verbose
    bot = pyspiel.MCTSBot(spiel, evaluator, 2.0, rollouts, 1000, True, seed, False)
    histories = random_games(game, opening, games // 2, np.random.default_rng(seed))
    score = {"win": 0, "draw": 0, "loss": 0}
    ours = theirs = moves_ours = moves_theirs = 0
    playing = []
    for history in histories:
        for seat in range(2):  # the player takes the next move, or the one after
            state = spiel.new_initial_state()
            for action in history:
                state.apply_action(action)
            position = position_after(game, history)
            playing.append([state, position, seat == 0])
    while playing:
        mine = [one for one in playing if one[2]]
        actions = {}
        if mine:
            start = time.process_time()
            chosen = player(np.concatenate([position for _, position, _ in mine]))
            ours += time.process_time() - start
            moves_ours += len(mine)
            actions = {id(one): int(a) for one, a in zip(mine, chosen, strict=True)}
        for one in playing:
            state, position, is_mine = one
            if not is_mine:
                start = time.process_time()
                actions[id(one)] = bot.step(state)
                theirs += time.process_time() - start
                moves_theirs += 1
        for one in playing:
            state, position, is_mine = one
            action = actions[id(one)]
            state.apply_action(action)
            one[1], ended, value = game.step(position, [action])
            assert bool(ended[0]) == state.is_terminal()
            if ended[0]:
                won = value[0] < 0
                score["draw" if not won else "win" if is_mine else "loss"] += 1
            one[2] = not is_mine
        playing = [one for one in playing if not one[0].is_terminal()]
    return {
        **{name: count / games for name, count in score.items()},
        "games": games,
        "CPU ms a move": 1e3 * ours / moves_ours,
        "CPU ms a move, opponent": 1e3 * theirs / moves_theirs,
    }


def strength(path, minutes, games):
    game = ConnectFour()
    agent, seconds = trained(path, minutes)

    def with_search(simulations):
        return lambda positions: agent.move(positions, simulations=simulations)

    players = {
        "network alone": with_search(0),
        "100 simulations": with_search(100),
        "400 simulations": with_search(400),
        "no learning, 400 rollouts": SearchPlayer(game, RandomRollouts(game, 0), 400),
    }
    rows = []
    for name, player in players.items():
        result = match(game, player, 1_000, games, opening=4)
        row = {"player": name, "opponent": "OpenSpiel, 1,000 rollouts"}
        row |= {"training CPU seconds": round(seconds), "iterations": agent.iterations}
        rows.append({**row, **result})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default="connect_four.agent")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--games", type=int, default=100)
    given = parser.parse_args()
    rows = strength(given.agent, given.minutes, given.games)
    common.table(rows)
    peers = {"open_spiel": {"open_spiel": metadata.version("open_spiel")}}
    common.save("alphazero", rows, SOURCES, peers)


if __name__ == "__main__":
    main()
