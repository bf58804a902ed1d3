"""Tests of dlcompanion.reinforcement.networks.network_checks."""

import keras
import pytest
from keras import layers

from dlcompanion.reinforcement.alphazero import policy_value_network
from dlcompanion.reinforcement.networks.network_checks import (
    check_network,
    check_separate,
)


def net(inputs, outputs):
    return keras.Sequential(
        [keras.Input(inputs), layers.Flatten(), layers.Dense(outputs)], name="net"
    )


def of_two(observations=3, actions=1):
    inputs = [keras.Input((observations,)), keras.Input((actions,))]
    outputs = layers.Dense(1)(layers.Concatenate()(inputs))
    return keras.Model(inputs, outputs, name="of_two")


OBSERVATIONS = {"observations": (4,)}
BOTH = {"observations": (3,), "actions": (1,)}
BOARD, HEADS = {"observations": (3, 3, 2)}, {"logits": (9,), "values": (1,)}


@pytest.mark.parametrize(
    "network, inputs, outputs",
    [
        (net((4,), 2), OBSERVATIONS, (2,)),
        (of_two(), BOTH, (1,)),
        (policy_value_network((3, 3, 2), 9, seed=0), BOARD, HEADS),
    ],
)
def test_takes_what_fits(network, inputs, outputs):
    check_network("policy", network, inputs, outputs)


def test_takes_a_model_without_declared_inputs():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs[..., :2]

    check_network("policy", Subclassed(), OBSERVATIONS, (2,))


@pytest.mark.parametrize(
    "network, inputs, outputs, message",
    [
        ("mlp", OBSERVATIONS, (2,), "must be a keras.Model. Received: policy='mlp'"),
        (
            net((5,), 2),
            OBSERVATIONS,
            (2,),
            r"take observations of shape \(4,\). Received: policy='net', which raised",
        ),
        (
            net((4,), 3),
            OBSERVATIONS,
            (2,),
            r"give \(batch, 2\) for this.*policy='net' with output shape \(batch, 3\)",
        ),
        (
            net((3,), 1),
            BOTH,
            (1,),
            r"\[observations, actions\] of shapes \(3,\) and \(1,\).*it has 1 inputs",
        ),
        (of_two(), {"observations": (3,)}, (1,), "Received: policy='of_two'"),
        (of_two(3, 2), BOTH, (1,), "Received: policy='of_two', which raised"),
        (net((3, 3, 2), 9), BOARD, HEADS, r"a list of logits \(batch, 9\) and values"),
        (
            policy_value_network((3, 3, 2), 9, 0),
            BOARD,
            (9,),
            "Received: policy='network' with outputs in a list, and one tensor is",
        ),
        (
            policy_value_network((3, 3, 2), 7, 0),
            BOARD,
            HEADS,
            r"Received: policy='network' with outputs \[\(7,\), \(1,\)\]",
        ),
    ],
)
def test_refuses_others(network, inputs, outputs, message):
    with pytest.raises(ValueError, match=message):
        check_network("policy", network, inputs, outputs)


def test_says_what_the_outputs_are():
    with pytest.raises(ValueError, match=r"environment, logits of each. Received"):
        check_network("policy", net((4,), 2), OBSERVATIONS, (2, 3), "logits of each")


def test_refuses_shared_layers():
    shared = layers.Dense(2)
    one, two = (
        keras.Sequential([keras.Input((4,)), shared], name=name) for name in "ab"
    )
    check_separate(policy=net((4,), 2), critic=net((4,), 2))
    with pytest.raises(
        ValueError,
        match="policy and critic must not share.*Received: policy='a', critic='b' with",
    ):
        check_separate(policy=one, critic=two)
