"""Tests of dlcompanion.reinforcement.alphazero."""

import keras
import numpy as np
import pytest
from helpers.toy_networks import softmax
from keras import layers, ops

from dlcompanion.reinforcement import (
    A2C,
    AlphaZero,
    LineGame,
    Minimax,
    TicTacToe,
    alphazero,
)
from dlcompanion.reinforcement.alphazero import (
    PolicyValue,
    outcome_loss,
    policy_value_network,
    search_policy_loss,
)
from dlcompanion.testing import check_agent, check_model
from dlcompanion.testing.agent_states import state_of

# Three in a row on three by four fields, where stones fall: 1 or 2 moves decide.
SMALL = LineGame(3, 4, 3, gravity=True)


SETTINGS = {"games": 16, "simulations": 12, "gradient_steps": 4, "batch_size": 32}


def small(game=SMALL, **kwargs):
    """An agent whose iteration takes some milliseconds."""
    return AlphaZero(game, **{**SETTINGS, "seed": 0, "window": 2, **kwargs})


def assert_same_state(a, b):
    """Two agents agree in every bit of what they are, and remember."""
    got, expected = ({**state_of(x), **x.memory.arrays()} for x in (a, b))
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name, strict=True)


# -- learning -----------------------------------------------------------------------


@pytest.mark.once
def test_never_loses_tic_tac_toe_again_and_again():
    game = TicTacToe()
    solution = Minimax(game)
    agent = AlphaZero(game, noise=0.75, exploration=2.0, seed=0)

    def exam(simulations):
        return solution.examine(lambda p: agent.move(p, simulations=simulations))

    before, passes = exam(0), 0
    while passes < 3 and agent.iterations < 60:
        agent.fit(4, verbose=0)
        passes = passes + 1 if exam(64).lost == 0 else 0
    assert passes == 3
    assert before.lost > 50 and exam(0).errors.mean() < 0.05 < before.errors.mean()
    settings = {"games": 100, "simulations": 64}
    assert agent.evaluate(**settings)["loss"] == 0.0
    against_perfect = agent.evaluate(solution.best, **settings)
    assert against_perfect == {"win": 0.0, "draw": 1.0, "loss": 0.0, "games": 100}


@pytest.mark.once
@pytest.mark.parametrize("turned", [None, "search_policy_loss", "outcome_loss"])
def test_learns_and_each_sign_matters(turned, monkeypatch):
    if turned:
        right = getattr(alphazero, turned)
        monkeypatch.setattr(alphazero, turned, lambda *args: -right(*args))
    agent = small(games=32, gradient_steps=16, window=4)
    agent.fit(12, verbose=0)
    solution = Minimax(SMALL)
    positions = np.concatenate([one[0] for one in agent.memory.rounds])
    q = solution.action_values(positions)
    policies, values = agent.priors_and_values(positions)
    # what the moves are worth that the network alone would draw, of the best
    worth = (policies * np.nan_to_num(q)).sum(axis=1)
    uniform = (SMALL.legal(positions) * np.nan_to_num(q)).sum(axis=1)
    uniform /= SMALL.legal(positions).sum(axis=1)
    best = np.nanmax(q, axis=1)
    learned = {
        "search_policy_loss": np.mean(best - worth) < 0.6 * np.mean(best - uniform),
        "outcome_loss": np.mean((values - best) ** 2) < 0.7 * np.mean(best**2),
    }
    if turned:
        assert not learned[turned]
    else:
        assert all(learned.values())
        each = np.arange(len(positions))  # and symmetric positions look alike
        mirrored, other = SMALL.turn(positions, policies, np.ones_like(each))
        seen, same = agent.priors_and_values(mirrored)
        assert np.corrcoef(values, same)[0, 1] > 0.8
        assert np.corrcoef(other.ravel(), seen.ravel())[0, 1] > 0.8


@pytest.mark.once
def test_what_fit_says_and_callbacks_see(capsys):
    seen = []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, set(logs)))
            self.model.stop_training = epoch == 4

    agent = small()
    history = agent.fit(3, verbose=0)
    assert history.epoch == [0, 1, 2]
    logs = history.history
    assert set(logs) == {
        *("loss", "policy_loss", "value_loss", "game_length", "draws", "games"),
        "simulations_per_second",
    }
    assert logs["games"] == [16, 32, 48]
    assert all(5 <= n <= 12 for n in logs["game_length"])
    # the loss is the mean over the updates, regularizers included
    parts = np.array(logs["policy_loss"]) + np.array(logs["value_loss"])
    assert (np.array(logs["loss"]) > parts).all()
    # a second call goes on, until a callback stops it
    assert agent.fit(5, callbacks=[Stop()], verbose=2).epoch == [3, 4]
    assert seen == [(3, set(logs)), (4, set(logs))]
    assert agent.iterations == 5 and agent.played == 80
    assert capsys.readouterr().out.count("Iteration ") == 2


# -- the same seed, and going on ----------------------------------------------------


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    check_agent(
        AlphaZero,
        {**SETTINGS, "window": 3},
        SMALL,
        steps=5,
        learns=(6, 0.8),
        evaluate_kwargs={"games": 40},
        score="win",
        skip=("spaces", "finite"),  # a game has neither spaces nor rewards
    )


def test_goes_on_from_a_file_as_it_was(tmp_path):
    whole, part = small(), small()
    whole.fit(4, verbose=0)
    part.save(tmp_path / "fresh")  # before the first iteration, too
    part = AlphaZero.load(tmp_path / "fresh")
    part.fit(3, verbose=0)
    part.save(tmp_path / "agent")
    again = AlphaZero.load(tmp_path / "agent")
    assert again.played == 48 and again.config == part.config
    assert again.game.config == SMALL.config
    again.fit(1, verbose=0)
    assert_same_state(again, whole)


def test_refuses_broken_and_foreign_files(tmp_path):
    agent = small()
    path = tmp_path / "agent"
    agent.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="not a whole file.*Received: "):
        AlphaZero.load(path)
    agent.save(path)
    with pytest.raises(ValueError, match="holds another agent. Received: AlphaZero"):
        A2C.load(path)


class Wrapped:
    """A game that is no LineGame."""

    def __init__(self, game):
        self.game = game

    def __getattr__(self, name):
        return getattr(self.game, name)


def test_a_game_of_ones_own_is_passed_to_load(tmp_path):
    agent = small(Wrapped(SMALL))
    agent.save(tmp_path / "agent")
    with pytest.raises(ValueError, match="load.path, game=.*Received: game=None"):
        AlphaZero.load(tmp_path / "agent")
    again = AlphaZero.load(tmp_path / "agent", Wrapped(SMALL))
    assert_same_state(again, agent)


# -- networks -----------------------------------------------------------------------


def convolutional():
    inputs = keras.Input(SMALL.observation_shape)
    hidden = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    hidden = layers.Flatten()(hidden)
    return keras.Model(
        inputs, [layers.Dense(4)(hidden), layers.Dense(1, "tanh")(hidden)]
    )


def test_takes_any_network_with_two_heads(tmp_path):
    keras.utils.set_random_seed(0)
    agent = small(network=convolutional(), simulations=6, games=6)
    assert agent.fit(2, verbose=0).history["loss"][-1] > 0
    agent.save(tmp_path / "agent")
    again = AlphaZero.load(tmp_path / "agent")
    for each in (agent, again):
        each.fit(1, verbose=0)
    assert_same_state(agent, again)


def test_numpy_plays_as_keras_does():
    agent = small()
    agent.network.set_weights([w + 0.05 for w in agent.network.get_weights()])
    positions = Minimax(SMALL).positions[::500]
    logits, values = agent.network(SMALL.observe(positions))
    logits = np.where(SMALL.legal(positions), ops.convert_to_numpy(logits), -np.inf)
    e = np.exp(logits)
    policies, got = agent.priors_and_values(positions)
    np.testing.assert_allclose(policies, e / e.sum(axis=1, keepdims=True), rtol=1e-4)
    values = ops.convert_to_numpy(values)[:, 0]
    np.testing.assert_allclose(got, values, rtol=1e-4, atol=1e-6)


# -- playing ------------------------------------------------------------------------


def test_predicts_for_one_position_and_for_many():
    agent = small()
    # X has two on the floor; the third wins, and O would take the same field
    position = np.zeros((3, 4), "int8")
    position[2, :2], position[1, :2] = 1, -1
    action = agent.predict(position, simulations=60)
    assert isinstance(action, int) and action == 2
    many = agent.predict(np.stack([position] * 3), simulations=60)
    assert many.tolist() == [2, 2, 2]
    result = agent.search(position, simulations=60)
    assert result.visits.sum() == 60 and result.visits[0].argmax() == 2
    np.testing.assert_array_equal(agent.search(position).visits.sum(), 12)


def test_draws_in_proportion_to_the_visits():
    agent = small()
    start = SMALL.start(4_000)
    shares = agent.search(SMALL.start(1)).policies[0]
    drawn = np.bincount(agent.predict(start, deterministic=False), minlength=4) / 4_000
    np.testing.assert_allclose(drawn, shares, atol=0.03)
    best = agent.move(start, np.random.default_rng(0), simulations=6)
    ties = agent.search(SMALL.start(1), simulations=6).visits[0]
    assert set(best) == set(np.flatnonzero(ties == ties.max()))
    policies, _ = agent.priors_and_values(SMALL.start(1))
    drawn = agent.predict(start, deterministic=False, simulations=0)
    drawn = np.bincount(drawn, minlength=4) / 4_000
    np.testing.assert_allclose(drawn, policies[0], atol=0.03)


def test_evaluates_in_both_seats_the_same_way_twice():
    agent = small()
    one, two = (agent.evaluate(games=40) for _ in range(2))
    assert one == two and one["games"] == 40
    assert agent.evaluate(games=40, seed=5) != one
    assert one["win"] + one["draw"] + one["loss"] == pytest.approx(1.0)
    itself = agent.evaluate(lambda p, random: agent.move(p), games=40, opening=2)
    assert itself["win"] == itself["loss"]  # every opening, once in each seat


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"games": 0}, "Received: games=0"),
        ({"simulations": 0}, "Received: simulations=0"),
        ({"exploration": 0}, "Received: exploration=0"),
        ({"noise": 1.5}, "Received: noise=1.5"),
        ({"exploring_moves": -1}, "Received: exploring_moves=-1"),
        ({"window": 0}, "Received: window=0"),
        ({"gradient_steps": 0}, "Received: gradient_steps=0"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"seed": -1}, "Received: seed=-1"),
        ({"network": policy_value_network((3, 4, 2), 5, 0)}, r"logits \(batch, 4\)"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        AlphaZero(SMALL, **arguments)


def test_refuses_positions_and_arguments_of_fit():
    agent = small()
    with pytest.raises(ValueError, match="every stone lies on another"):
        agent.predict(np.array([[0, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="Received: iterations=0"):
        agent.fit(0)
    with pytest.raises(ValueError, match="Received: verbose=3"):
        agent.fit(1, verbose=3)
    with pytest.raises(ValueError, match="Received: games=0"):
        agent.evaluate(games=0)


@pytest.mark.once
def test_says_when_it_diverged():
    agent = small(optimizer=keras.optimizers.SGD(1e30))
    with pytest.raises(ValueError, match="smaller learning rate. Received"):
        agent.fit(5, verbose=0)


RNG = np.random.default_rng(0)


def two_heads(inputs=4, actions=3, regularizer=None):
    x = keras.Input((inputs,))
    heads = layers.Dense(actions, kernel_regularizer=regularizer), layers.Dense(1)
    return keras.Model(x, [head(x) for head in heads])


def some_data(count=8):
    x = RNG.normal(size=(count, 4)).astype("float32")
    policies = softmax(RNG.normal(size=(count, 3))).astype("float32")
    return x, policies, RNG.choice([-1, 0, 1], count).astype("float32")


def test_contract():
    x, policies, outcomes = some_data()
    check_model(
        PolicyValue,
        lambda: {"network": two_heads()},
        x,
        (policies, outcomes),
        compile_kwargs=lambda: {"optimizer": "adam"},
    )


def test_losses_are_the_formulas():
    logits = RNG.normal(size=(5, 3)).astype("float32")
    _, policies, outcomes = some_data(5)
    want = -(policies * np.log(softmax(logits))).sum(axis=1).mean()
    assert float(search_policy_loss(logits, policies)) == pytest.approx(want, rel=1e-5)
    values = RNG.normal(size=5).astype("float32")
    want = ((values - outcomes) ** 2).mean()
    assert float(outcome_loss(values, outcomes)) == pytest.approx(want, rel=1e-5)


def test_the_policy_of_the_search_is_the_least_loss():
    _, policies, _ = some_data(5)
    entropy = -(policies * np.log(policies)).sum(axis=1).mean()
    least = float(search_policy_loss(np.log(policies) + 7.0, policies))
    assert least == pytest.approx(entropy, rel=1e-5)
    for _ in range(5):
        others = np.log(policies) + RNG.normal(size=policies.shape).astype("float32")
        assert float(search_policy_loss(others, policies)) > least


def test_one_update_is_the_written_one():
    network = two_heads(regularizer=keras.regularizers.L2(0.3))
    learner = PolicyValue(network)
    learner.compile(keras.optimizers.SGD(0.1))
    x, policies, outcomes = some_data()
    kernel, bias, value_kernel, value_bias = network.get_weights()
    logs = learner.train_on_batches((x[None], (policies[None], outcomes[None])))
    p, v = softmax(x @ kernel + bias), (x @ value_kernel + value_bias)[:, 0]
    on_logits, on_values = (p - policies) / 8, 2 * (v - outcomes)[:, None] / 8
    expected = [
        kernel - 0.1 * (x.T @ on_logits + 0.6 * kernel),
        bias - 0.1 * on_logits.sum(axis=0),
        value_kernel - 0.1 * x.T @ on_values,
        value_bias - 0.1 * on_values.sum(axis=0),
    ]
    for got, want in zip(network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    parts = -(policies * np.log(p)).sum(axis=1).mean(), ((v - outcomes) ** 2).mean()
    assert logs["policy_loss"][0] == pytest.approx(parts[0], rel=1e-4)
    assert logs["value_loss"][0] == pytest.approx(parts[1], rel=1e-4)
    total = sum(parts) + 0.3 * (kernel**2).sum()
    assert logs["loss"][0] == pytest.approx(total, rel=1e-4)


def test_a_frozen_network_stays():
    network = two_heads()
    network.trainable = False
    learner = PolicyValue(network)
    learner.compile("sgd")
    x, policies, outcomes = some_data()
    before = network.get_weights()
    logs = learner.train_on_batches((x[None], (policies[None], outcomes[None])))
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert logs["loss"][0] > 0


@pytest.mark.once
def test_the_default_network_knows_nothing_at_first():
    a, b, c = (policy_value_network((3, 3, 2), 9, seed) for seed in (1, 1, 2))
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (a.get_weights()[0] != c.get_weights()[0]).any()
    boards = RNG.integers(0, 2, (20, 3, 3, 2)).astype("float32")
    logits, values = map(ops.convert_to_numpy, a(boards))
    assert np.abs(logits).max() < 0.5 and np.abs(values).max() < 0.5
