"""Our tree search beside OpenSpiel's in Python and mctx's, in simulations a CPU second.

The same positions, the same dense network with the same weights, the same number of
simulations, network included, alternately in one run::

    KERAS_BACKEND=jax python -m benchmarks.tree_search

Ours and mctx search from all positions at once, OpenSpiel from one after the other.
mctx was compiled before. It asks its network about positions in which the game has
ended, too; ours does not have to.
"""

import argparse
from importlib import metadata

from benchmarks import common, record

common.one_thread()

import numpy as np  # noqa: E402

from dlcompanion.reinforcement import ConnectFour, TicTacToe, tree_search  # noqa: E402
from dlcompanion.reinforcement.alphazero import policy_value_network  # noqa: E402
from dlcompanion.reinforcement.networks.numpy_network import in_numpy  # noqa: E402

SOURCES = ["benchmarks.tree_search"]
TREES = 128


def random_games(game, moves, count, random):
    """Histories of random openings after which the game goes on."""
    histories = []
    while len(histories) < count:
        position, history, ended = game.start(1), [], [False]
        for _ in range(moves):
            action = game.random_move(position, random)
            position, ended, _ = game.step(position, action)
            history.append(int(action[0]))
            if ended[0]:
                break
        if not ended[0]:
            histories.append(history)
    return histories


def position_after(game, history):
    position = game.start(1)
    for action in history:
        position, _, _ = game.step(position, [action])
    return position


def open_spiel_search(game, name, evaluate, histories, simulations):
    """OpenSpiel's search in Python, one position after the other."""
    import pyspiel
    from open_spiel.python.algorithms import mcts

    # the planes of OpenSpiel's tensors that hold the stones of player 0 and player 1;
    # the first row is the top one of tic-tac-toe, and the lowest of Connect Four
    planes_of = (2, 1) if name == "tic_tac_toe" else (0, 1)

    def observe(state):
        planes = np.array(state.observation_tensor(), "float32")
        planes = planes.reshape(3, game.rows, game.columns)
        if game.gravity:
            planes = planes[:, ::-1]
        player = state.current_player()
        own, other = planes_of[player], planes_of[1 - player]
        return np.stack([planes[own], planes[other]], axis=-1)[None]

    class Evaluator(mcts.Evaluator):
        def _outputs(self, state):
            return evaluate(observe(state))

        def evaluate(self, state):
            value = float(self._outputs(state)[1][0])
            values = np.array([value, -value])
            return values if state.current_player() == 0 else -values

        def prior(self, state):
            legal = state.legal_actions()
            logits = self._outputs(state)[0][0][legal]
            e = np.exp(logits - logits.max())
            return list(zip(legal, e / e.sum(), strict=True))

    spiel = pyspiel.load_game(name)
    states = []
    for history in histories:
        state = spiel.new_initial_state()
        for action in history:
            state.apply_action(action)
        states.append(state)
    for state, history in zip(states, histories, strict=True):  # the same inputs
        expected = game.observe(position_after(game, history))
        np.testing.assert_array_equal(observe(state), expected)
    bot = mcts.MCTSBot(
        spiel,
        1.5,
        simulations,
        Evaluator(),
        solve=False,
        random_state=np.random.RandomState(0),
        child_selection_fn=mcts.SearchNode.puct_value,
    )
    return lambda: [bot.mcts_search(state) for state in states]


def mctx_search(game, network, positions, simulations):
    """The search of mctx, compiled, all positions together."""
    import jax
    import jax.numpy as jnp
    import mctx

    weights = [jnp.asarray(w) for w in network.get_weights()]
    lines = jnp.asarray(game._lines)

    def evaluate(boards):  # (batch, fields)
        x = jnp.stack([boards == 1, boards == -1], axis=-1).astype("float32")
        x = x.reshape(len(boards), -1)
        hidden = jax.nn.relu(x @ weights[0] + weights[1])
        hidden = jax.nn.relu(hidden @ weights[2] + weights[3])
        logits = hidden @ weights[4] + weights[5]
        value = jnp.tanh(hidden @ weights[6] + weights[7])[:, 0]
        full = boards[:, : game.columns] if game.gravity else boards
        return jnp.where(full == 0, logits, -1e9), value

    def recurrent(params, key, action, boards):
        each = jnp.arange(len(boards))
        field = action
        if game.gravity:
            columns = boards.reshape(-1, game.rows, game.columns)[each, :, action]
            field = ((columns == 0).sum(axis=1) - 1) * game.columns + action
        boards = boards.at[each, field].set(1)
        won = ((boards == 1).astype("float32") @ lines >= game.length).any(axis=1)
        ended = won | (boards != 0).all(axis=1)
        boards = -boards
        logits, value = evaluate(boards)
        output = mctx.RecurrentFnOutput(
            reward=won.astype("float32"),
            discount=jnp.where(ended, 0.0, -1.0),
            prior_logits=logits,
            value=jnp.where(ended, 0.0, value),
        )
        return output, boards

    @jax.jit
    def search(boards, key):
        logits, value = evaluate(boards)
        full = boards[:, : game.columns] if game.gravity else boards
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=boards)
        return mctx.muzero_policy(
            (), key, root, recurrent, simulations, full != 0, dirichlet_fraction=0.0
        ).action_weights

    boards = jnp.asarray(game.fields(positions))
    key = jax.random.key(0)
    return lambda: search(boards, key).block_until_ready()


def search_row(game, name, units, simulations, moves, repeats):
    random = np.random.default_rng(0)
    histories = random_games(game, moves, TREES, random)
    positions = np.concatenate([position_after(game, h) for h in histories])
    network = policy_value_network(
        game.observation_shape, game.actions, seed=0, units=units
    )
    outputs = in_numpy(network)

    def evaluate_planes(x):
        logits, values = outputs(x)
        return logits, values[:, 0]

    seconds = common.alternate(
        {
            "ours": lambda: tree_search(
                game,
                positions,
                lambda p: evaluate_planes(game.observe(p)),
                simulations,
            ),
            "OpenSpiel": open_spiel_search(
                game, name, evaluate_planes, histories, simulations
            ),
            "mctx": mctx_search(game, network, positions, simulations),
        },
        repeats,
    )
    count = TREES * simulations
    row = {"game": name, "units": units, "simulations": simulations, "trees": TREES}
    for contender, values in seconds.items():
        speed = count / common.summary(values)["median"]
        row[f"{contender}, simulations a CPU second"] = round(speed)
    for peer in ("OpenSpiel", "mctx"):
        times = common.ratio(seconds[peer], seconds["ours"])
        low, high = times["min"], times["max"]
        row[f"times {peer}"] = f"{times['median']:.1f} ({low:.1f}-{high:.1f})"
    return row


def search(repeats):
    return [
        search_row(TicTacToe(), "tic_tac_toe", 128, 32, 1, repeats),
        search_row(ConnectFour(), "connect_four", 256, 50, 4, repeats),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    rows = search(parser.parse_args().repeats)
    common.table(rows)
    peers = {name: {name: metadata.version(name)} for name in ("open_spiel", "mctx")}
    record.save("tree_search", rows, SOURCES, peers)


if __name__ == "__main__":
    main()
