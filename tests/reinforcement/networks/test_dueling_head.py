"""Tests of dlcompanion.reinforcement.networks.dueling_head."""

import numpy as np
import pytest
from keras import ops

from dlcompanion.reinforcement import DuelingHead
from dlcompanion.testing import check_layer


def inputs(seed=0):
    return np.random.default_rng(seed).normal(size=(6, 5)).astype("float32")


@pytest.mark.parametrize(
    "settings, shape",
    [({}, (6, 3)), ({"atoms": 4, "noisy": True}, (6, 3, 4))],
)
def test_contract(settings, shape):
    settings = {"actions": 3, "seed": 0, **settings}
    check_layer(DuelingHead, settings, inputs(), output_shape=shape)


def test_is_value_and_centered_advantage():
    x, head = inputs(), DuelingHead(3, atoms=4, seed=0)
    got = ops.convert_to_numpy(head(x))
    value, value_bias, advantage, advantage_bias = head.get_weights()
    v = (x @ value + value_bias)[:, None]
    a = (x @ advantage + advantage_bias).reshape(6, 3, 4)
    want = v + a - a.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_the_mean_over_actions_is_the_value():
    x, head = inputs(), DuelingHead(7, seed=0)
    mean = ops.convert_to_numpy(head(x)).mean(axis=1)
    value = ops.convert_to_numpy(head.value(x))[:, 0]
    np.testing.assert_allclose(mean, value, rtol=1e-5, atol=1e-6)


def test_noise_is_for_training():
    x, head = inputs(), DuelingHead(3, noisy=True, seed=0)
    one, two = (ops.convert_to_numpy(head(x, training=True)) for _ in range(2))
    assert (one != two).any()
    np.testing.assert_array_equal(*(ops.convert_to_numpy(head(x)) for _ in range(2)))


@pytest.mark.once
@pytest.mark.parametrize(
    "bad, message", [({"actions": 0}, "actions=0"), ({"atoms": 0}, "atoms=0")]
)
def test_rejects(bad, message):
    with pytest.raises(ValueError, match=f"Received: {message}"):
        DuelingHead(**{"actions": 2, **bad})
