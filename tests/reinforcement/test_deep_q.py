"""Tests of dlcompanion.reinforcement.deep_q."""

import keras
import numpy as np
import pytest
from keras import ops
from toy_networks import net

from dlcompanion.reinforcement import (
    DeepQ,
    q_learning_loss,
    q_learning_targets,
    values_taken,
)
from dlcompanion.testing import check_model


def batch(count=8, inputs=3, actions=2, seed=0):
    rng = np.random.default_rng(seed)
    x, following = rng.normal(size=(2, count, inputs)).astype("float32")
    rewards = (3 * rng.normal(size=count)).astype("float32")
    discounts = (0.9 * (rng.random(count) < 0.7)).astype("float32")
    return x, (
        rng.integers(0, actions, count).astype("int32"),
        rewards,
        following,
        discounts,
    )


def test_contract():
    x, y = batch()
    check_model(
        DeepQ,
        lambda: {"network": net(3, 2), "double": True, "target_every": 2, "delta": 2.0},
        x,
        y,
        compile_kwargs={"optimizer": "adam"},
    )


def test_targets_are_those_worked_out_by_hand():
    rewards, discounts = np.array([1.0, -1.0, 2.0]), np.array([0.9, 0.5, 0.0])
    following = np.array([[1.0, 2.0, 3.0], [4.0, 0.0, -1.0], [7.0, 8.0, 9.0]])
    choice = np.array([[0.0, 9.0, 1.0], [-3.0, -2.0, -1.0], [1.0, 0.0, 0.0]])
    got = ops.convert_to_numpy(q_learning_targets(rewards, discounts, following))
    np.testing.assert_allclose(got, [3.7, 1.0, 2.0], rtol=1e-6)
    got = q_learning_targets(rewards, discounts, following, choice)
    np.testing.assert_allclose(ops.convert_to_numpy(got), [2.8, -1.5, 2.0], rtol=1e-6)


def test_double_targets_are_less_hopeful():
    # all actions are worth 0, and two networks say so with independent errors
    following, choice = np.random.default_rng(0).normal(size=(2, 4000, 4))
    zero, one = np.zeros(4000), np.ones(4000)
    single = ops.convert_to_numpy(q_learning_targets(zero, one, following)).mean()
    double = ops.convert_to_numpy(q_learning_targets(zero, one, following, choice))
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
    learner = DeepQ(net(3, 2), double=double, target_every=every)
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
        now, (actions, rewards, following, discounts) = keras.tree.map_structure(
            lambda a, n=step: a[n], shaped
        )
        if step % every == 0:
            old = kernel, bias
        after = following @ old[0] + old[1]
        best = (following @ kernel + bias if double else after).argmax(1)
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


def test_rejects():
    with pytest.raises(ValueError, match="Received: target_every=0"):
        DeepQ(net(3, 2), target_every=0)
    with pytest.raises(ValueError, match="delta must be positive. Received: delta=0"):
        DeepQ(net(3, 2), delta=0)
