"""Tests of dlcompanion.reinforcement.policy_value."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from toy_networks import softmax

from dlcompanion.reinforcement import (
    PolicyValue,
    outcome_loss,
    policy_value_network,
    search_policy_loss,
)
from dlcompanion.testing import check_model

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


def test_the_default_network_knows_nothing_at_first():
    a, b, c = (policy_value_network((3, 3, 2), 9, seed) for seed in (1, 1, 2))
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (a.get_weights()[0] != c.get_weights()[0]).any()
    boards = RNG.integers(0, 2, (20, 3, 3, 2)).astype("float32")
    logits, values = map(ops.convert_to_numpy, a(boards))
    assert np.abs(logits).max() < 0.5 and np.abs(values).max() < 0.5
