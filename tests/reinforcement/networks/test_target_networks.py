"""Tests of dlcompanion.reinforcement.networks.target_networks."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from dlcompanion.reinforcement import NoisyDense
from dlcompanion.reinforcement.dqn import DeepQ
from dlcompanion.reinforcement.networks.target_networks import freeze, frozen_copy
from dlcompanion.reinforcement.sac import SoftActorCritic

numpy = ops.convert_to_numpy


def net():
    return keras.Sequential([keras.Input((3,)), NoisyDense(4), layers.Dense(2)])


def critic():
    x, a = keras.Input((3,)), keras.Input((1,))
    return keras.Model([x, a], layers.Dense(1)(layers.Concatenate()([x, a])))


def test_a_copy_says_the_same_and_goes_its_own_way():
    network, x = net(), np.ones((2, 3), "float32")
    copy = frozen_copy(network)
    np.testing.assert_array_equal(numpy(network(x)), numpy(copy(x)))
    before = numpy(copy(x))
    network.set_weights([w + 1 for w in network.get_weights()])
    np.testing.assert_array_equal(numpy(copy(x)), before)
    assert network.trainable_variables and not copy.trainable_variables


def test_freezing_reaches_layers_within_layers():
    network = net()
    freeze(network)
    network.layers[0].trainable = True  # what a caller might thaw
    assert not network.trainable_variables


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeepQ(net()),
        lambda: SoftActorCritic(net(), [critic(), critic()], temperature=0.1),
    ],
)
def test_thawing_leaves_the_targets_frozen(make):
    model = make()
    learning = len(model.trainable_variables)
    model.trainable = False
    assert not model.trainable_variables
    model.trainable = True
    assert len(model.trainable_variables) == learning
    for target in model.target_networks:
        assert not target.trainable_variables
