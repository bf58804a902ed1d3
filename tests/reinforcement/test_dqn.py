"""Tests of dlcompanion.reinforcement.dqn."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Choice, Corridor, Later, Signs
from helpers.toy_networks import net
from keras import ops

from dlcompanion.reinforcement import DQN
from dlcompanion.reinforcement import dqn as module
from dlcompanion.reinforcement.dqn import (
    DeepQ,
    q_learning_loss,
    q_learning_targets,
    values_taken,
)
from dlcompanion.testing import check_agent, check_model

SETTINGS = {
    "num_envs": 8,
    "rollout_length": 4,
    "horizon": 8,
    "batch_size": 16,
    "gradient_steps": 8,
    "target_update_interval": 8,
    "learning_starts": 32,
    "exploration_steps": 1_000,
}


def small(environment=Choice, **kwargs):
    """An agent whose update compiles quickly."""
    return DQN(environment, **{"seed": 0, **SETTINGS, **kwargs})


def turn(function, sign):
    """The same function with one term turned round."""
    if sign == "loss":
        return lambda *args: -function(*args)
    return lambda rewards, discounts, *rest: function(rewards, -discounts, *rest)


FAULTS = {"loss": "q_learning_loss", "bootstrap": "q_learning_targets"}


@pytest.mark.once
@pytest.mark.parametrize(
    "fault, double", [(None, False), (None, True), *((name, False) for name in FAULTS)]
)
def test_learns_to_wait_and_each_sign_matters(fault, double, monkeypatch):
    if fault:
        name = FAULTS[fault]
        monkeypatch.setattr(module, name, turn(getattr(module, name), fault))
    agent = small(
        Later,
        network=net(2, 2),
        optimizer=keras.optimizers.Adam(0.05),
        discount=0.9,
        double=double,
        rollout_length=8,
        horizon=32,
    )
    agent.fit(2_000, verbose=0)
    values = ops.convert_to_numpy(agent.policy(np.array([[0, 1], [1, 1]], "float32")))
    right = np.allclose(values[0], [0.9 * 2.0, 1.0], atol=0.1)
    right &= np.allclose(values[1], 2.0, atol=0.1)
    if fault:
        assert not right
    else:
        assert right, values
        assert agent.evaluate(episodes=5)["return_mean"] == 2.0


@pytest.mark.once
def test_learns_the_choice():
    agent = small(network=net(3, 3), optimizer=keras.optimizers.Adam(0.02))
    agent.fit(2_000, verbose=0)
    assert agent.evaluate(episodes=20)["return_mean"] == 1.0
    # while exploring it takes another one of the three now and then
    agent.final_exploration = 0.6
    found = agent.evaluate(episodes=200, deterministic=False)["return_mean"]
    assert found == pytest.approx(1 - 0.6 * 2 / 3, abs=0.12)


@pytest.mark.once
def test_what_is_cut_goes_on_and_what_terminates_does_not():
    agent = small(Corridor, network=net(2, 2), discount=0.5)
    agent.fit(60, verbose=0)
    columns = agent.replay.columns
    many = len(agent.replay)
    ended = (
        columns["next_observation"][:many, 0] >= columns["next_observation"][:many, 1]
    )
    truncated = columns["next_observation"][:many, 0] >= 6
    assert ended.any() and (truncated & ~ended).any()
    discounts = columns["discount"][:many]
    assert (discounts[ended] == 0).all() and (discounts[~ended] == 0.5).all()
    np.testing.assert_array_equal(
        columns["reward"][:many], columns["next_observation"][:many, 0]
    )


def test_exploration_falls_with_the_steps_played():
    agent = small(
        num_envs=2,
        horizon=8,
        rollout_length=4,
        exploration_steps=32,
        final_exploration=0.1,
        network=net(3, 3),
    )
    assert agent.epsilon == 1.0
    history = agent.fit(48, verbose=0).history
    # at 8 and 16, at 24 and 32, and later: what an epoch logs is the mean of two
    want = [1 - 0.9 * np.mean([0.25, 0.5]), 1 - 0.9 * np.mean([0.75, 1.0]), 0.1]
    np.testing.assert_allclose(history["epsilon"], want, rtol=1e-6)
    assert agent.epsilon == pytest.approx(0.1)


@pytest.mark.once
def test_learning_starts_when_it_is_told_to():
    agent = small(network=net(3, 3), learning_starts=200, horizon=16)
    # Choice resets after each step: half of 128 count
    logs = agent.fit(1, verbose=0).history
    assert np.isnan([*logs["loss"], *logs["value_mean"]]).all()
    assert int(agent.learner.updates) == 0 < len(agent.replay) < 200
    agent.fit(600, verbose=0)
    assert int(agent.learner.updates) > 0
    assert int(agent.learner.updates) % agent.gradient_steps == 0


@pytest.mark.once
def test_learns_cartpole():
    agent = DQN(
        "CartPole-v1",
        optimizer=keras.optimizers.Adam(0.001, global_clipnorm=10.0),
        rollout_length=8,
        gradient_steps=16,
        target_update_interval=64,
        delta=10.0,
        exploration_steps=4_000,
        seed=0,
    )
    before, best = agent.evaluate(episodes=20)["return_mean"], 0
    while best < 150 and agent.steps < 20_000:
        history = agent.fit(4_000, verbose=0).history
        best = agent.evaluate(episodes=20)["return_mean"]
    assert before < 110 and best >= 150
    assert {"loss", "value_mean", "epsilon", "return_mean"} < set(history)


@pytest.mark.once
def test_remembers_images_as_the_bytes_they_are():
    seen = []

    class Pixels(Choice):
        observation_space = gym.spaces.Box(0, 255, (2, 2, 1), np.uint8)

        def observation(self):
            seen.append(self.np_random.integers(0, 256, (2, 2, 1)).astype("uint8"))
            return seen[-1]

    parts = [keras.layers.Flatten(), keras.layers.Dense(3)]
    network = keras.Sequential([keras.Input((2, 2, 1)), *parts])
    agent = small(Pixels, network=network, num_envs=1)
    agent.fit(1, verbose=0)
    kept = agent.replay.take(np.arange(4))
    for name in ("observation", "next_observation"):
        assert kept[name].dtype == np.uint8
    assert any((kept["observation"][0] == x).all() for x in seen)
    agent.fit(600, verbose=0)
    assert int(agent.learner.updates) > 0


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    check_agent(
        DQN,
        lambda: {
            **SETTINGS,
            "optimizer": keras.optimizers.Adam(0.01),
            "discount": 0.5,
            "target_update_interval": 11,  # saved in the middle of a target's life
            "buffer_size": 90,  # and of a ring
        },
        Signs,
        learns=(800, 1.2),
        refuses=["Pendulum-v1"],
    )


def test_takes_any_network_and_goes_on_from_a_file(tmp_path):
    inputs = keras.Input((3,))
    trunk = keras.layers.LayerNormalization()(keras.layers.Dense(8, "relu")(inputs))
    agent = small(network=keras.Model(inputs, keras.layers.Dense(3)(trunk)))
    agent.fit(100, verbose=0)
    agent.save(tmp_path / "agent")
    again = DQN.load(tmp_path / "agent", Choice)
    assert again.epsilon == agent.epsilon < 1
    for each in (agent, again):
        each.fit(300, verbose=0)
    for a, b in zip(agent.learner.weights, again.learner.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (a, b)))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"network": net(4, 3)}, r"give \(batch, 2\).*output shape \(batch, 3\)"),
        ({"network": "mlp"}, "must be a keras.Model. Received: network='mlp'"),
        ({"discount": 1.1}, "Received: discount=1.1"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"buffer_size": 10}, "at least batch_size.*: buffer_size=10, batch_size=64"),
        ({"learning_starts": 63}, "Received: learning_starts=63, batch_size=64"),
        ({"learning_starts": 100.0}, "Received: learning_starts=100.0"),
        ({"rollout_length": 0}, "Received: rollout_length=0"),
        ({"gradient_steps": 0}, "Received: gradient_steps=0"),
        ({"target_update_interval": 0}, "Received: target_update_interval=0"),
        ({"delta": -1.0}, "Received: delta=-1.0"),
        ({"jit_compile": "yes"}, "Received: jit_compile='yes'"),
        ({"exploration_steps": 0}, "Received: exploration_steps=0"),
        ({"final_exploration": 1.5}, "Received: final_exploration=1.5"),
        ({"num_envs": 0}, "Received: 0"),
        ({"horizon": 0}, "Received: horizon=0"),
        ({"seed": "0"}, "Received: seed='0'"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        DQN(**{"environment": "CartPole-v1", **arguments})


def batch(count=8, inputs=3, actions=2, seed=0):
    rng = np.random.default_rng(seed)
    x, next_observations = rng.normal(size=(2, count, inputs)).astype("float32")
    rewards = (3 * rng.normal(size=count)).astype("float32")
    discounts = (0.9 * (rng.random(count) < 0.7)).astype("float32")
    return x, (
        rng.integers(0, actions, count).astype("int32"),
        rewards,
        next_observations,
        discounts,
    )


def test_contract():
    x, y = batch()
    check_model(
        DeepQ,
        lambda: {
            "network": net(3, 2),
            "double": True,
            "target_update_interval": 2,
            "delta": 2.0,
        },
        x,
        y,
        compile_kwargs={"optimizer": "adam"},
    )


def test_targets_are_those_worked_out_by_hand():
    rewards, discounts = np.array([1.0, -1.0, 2.0]), np.array([0.9, 0.5, 0.0])
    next_values = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, -1.0], [7.0, 8.0, 9.0]])
    choice = np.array([[0.0, 9.0, 1.0], [-3.0, -2.0, -1.0], [1.0, 0.0, 0.0]])
    got = ops.convert_to_numpy(q_learning_targets(rewards, discounts, next_values))
    np.testing.assert_allclose(got, [3.7, 1.0, 2.0], rtol=1e-6)
    got = q_learning_targets(rewards, discounts, next_values, choice)
    np.testing.assert_allclose(ops.convert_to_numpy(got), [2.8, -1.5, 2.0], rtol=1e-6)


def test_double_targets_are_less_hopeful():
    # all actions are worth 0, and two networks say so with independent errors
    next_values, choice = np.random.default_rng(0).normal(size=(2, 4000, 4))
    zero, one = np.zeros(4000), np.ones(4000)
    single = ops.convert_to_numpy(q_learning_targets(zero, one, next_values)).mean()
    double = ops.convert_to_numpy(q_learning_targets(zero, one, next_values, choice))
    # the expected maximum of four normal numbers is 1.0294
    assert single == pytest.approx(1.0294, abs=0.04)
    assert double.mean() == pytest.approx(0.0, abs=0.06)


def test_loss_is_the_formula():
    values = np.array([[1.0, 5.0], [2.0, 2.0], [0.0, -4.0]], "float32")
    targets, weights = np.array([0.5, 4.0, -4.0]), np.array([1.0, 0.5, 2.0])
    each = np.array([0.125, 1.5, 0.0])  # errors of -0.5, 2 and 0
    loss = q_learning_loss(values, [0, 1, 1], targets)
    assert float(loss) == pytest.approx(each.mean(), rel=1e-6)
    loss = q_learning_loss(values, [0, 1, 1], targets, weights)
    assert float(loss) == pytest.approx((weights * each).mean(), rel=1e-6)
    each = np.array([0.125, 2.0, 0.0])
    loss = q_learning_loss(values, [0, 1, 1], targets, delta=3.0)
    assert float(loss) == pytest.approx(each.mean(), rel=1e-6)
    taken = ops.convert_to_numpy(values_taken(values, [0, 1, 1]))
    assert taken.tolist() == [1.0, 2.0, -4.0]


@pytest.mark.parametrize("double", [False, True])
def test_steps_are_those_of_numpy(double):
    steps, every, rate = 5, 2, 0.3
    learner = DeepQ(net(3, 2), double=double, target_update_interval=every)
    learner.build((None, 3))
    learner.compile(keras.optimizers.SGD(rate))
    kernel, bias = learner.network.get_weights()
    x, y = batch(steps * 8)
    shaped = keras.tree.map_structure(
        lambda a: a.reshape(steps, 8, *a.shape[1:]), (x, y)
    )
    logs = learner.train_on_batches(shaped)

    old, losses, means = None, [], []
    for step in range(steps):
        now, (actions, rewards, next_observations, discounts) = (
            keras.tree.map_structure(lambda a, n=step: a[n], shaped)
        )
        if step % every == 0:
            old = kernel, bias
        after = next_observations @ old[0] + old[1]
        best = (next_observations @ kernel + bias if double else after).argmax(1)
        targets = rewards + discounts * after[np.arange(8), best]
        taken = (now @ kernel + bias)[np.arange(8), actions]
        error = taken - targets
        size = np.abs(error)
        losses.append(np.where(size <= 1, size**2 / 2, size - 0.5).mean())
        means.append(taken.mean())
        slope = np.eye(2)[actions] * np.clip(error, -1, 1)[:, None] / 8
        kernel = kernel - rate * now.T @ slope
        bias = bias - rate * slope.sum(0)
    close = {"rtol": 1e-5, "atol": 1e-6}
    for got, want in zip(learner.network.get_weights(), (kernel, bias), strict=True):
        np.testing.assert_allclose(got, want, **close)
    for got, want in zip(learner.target_network.get_weights(), old, strict=True):
        np.testing.assert_allclose(got, want, **close)
    np.testing.assert_allclose(logs["value_mean"], means, **close)
    assert logs["loss"][-1] == pytest.approx(np.mean(losses), rel=1e-5)
    assert int(learner.updates) == steps


@pytest.mark.once
def test_a_small_delta_learns_the_median():
    targets = np.array([20.0] * 9 + [0.0], "float32")  # one in ten falls
    y = np.zeros(10, "int32"), targets, np.ones((10, 1), "float32"), 0 * targets
    learned = {}
    for delta in (1.0, 100.0):
        learner = DeepQ(net(1, 1), delta=delta)
        learner.build((None, 1))
        learner.compile(keras.optimizers.SGD(0.5))
        many = keras.tree.map_structure(
            lambda a: np.stack([a] * 200), (np.ones((10, 1), "float32"), y)
        )
        learner.train_on_batches(many)
        value = ops.convert_to_numpy(learner(np.ones((1, 1), "float32")))
        learned[delta] = value.item()
    assert learned[1.0] > 19.5
    assert learned[100.0] == pytest.approx(18.0, abs=0.01)


def test_a_frozen_network_stays():
    learner = DeepQ(net(3, 2))
    learner.network.trainable = False
    learner.build((None, 3))
    learner.compile("adam")
    before = learner.network.get_weights()
    x, y = batch()
    learner.train_on_batch(x, y)
    for a, b in zip(before, learner.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_copy_shares_nothing():
    learner = DeepQ(net(3, 2))
    old, new = learner.target_network, learner.network
    assert not {id(v) for v in old.variables} & {id(v) for v in new.variables}
    for a, b in zip(old.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(learner.trainable_variables) == 2


def test_deep_q_rejects():
    with pytest.raises(ValueError, match="Received: target_update_interval=0"):
        DeepQ(net(3, 2), target_update_interval=0)
    with pytest.raises(ValueError, match="delta must be positive. Received: delta=0"):
        DeepQ(net(3, 2), delta=0)
