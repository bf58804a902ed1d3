"""Tests of dlcompanion.reinforcement.networks.actor."""

import keras
import numpy as np
import pytest
from helpers.toy_networks import net
from keras import ops

from dlcompanion.reinforcement.networks.actor import Actor
from dlcompanion.reinforcement.networks.memory_network import recurrent_network
from dlcompanion.training import CompositeOptimizer, StepModel

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


class Pair(StepModel):
    """Two networks, each with an optimizer of its own or both with one."""

    def __init__(self, policy=None):
        super().__init__()
        self.policy, self.critic = policy or net(4, 2, [5]), net(4, 1)

    def build(self, input_shape):
        pass

    def call(self, inputs):
        return self.policy(inputs), self.critic(inputs)

    def update(self, data):
        x = data[0]
        parts = {"policy": self.policy, "critic": self.critic}
        return {
            name: self.descend(
                lambda part=part: ops.mean(part(x) ** 2), part.trainable_variables
            )
            for name, part in parts.items()
        }

    def optimizer_variables(self):
        return {
            "policy": self.policy.trainable_variables,
            "critic": self.critic.trainable_variables,
        }


def learner(optimizer, policy=None):
    model = Pair(policy)
    model.build(None)
    model.compile(optimizer)
    return model


def composite():
    adam, sgd = keras.optimizers.Adam(0.1), keras.optimizers.SGD(0.1)
    return CompositeOptimizer({"policy": adam, "critic": sgd})


def equal(actor, model):
    for name in ("policy", "critic"):
        want = ops.convert_to_numpy(getattr(model, name)(X))
        if not np.allclose(actor(name, X), want, rtol=1e-5, atol=1e-6):
            return False
    return True


@pytest.mark.parametrize("make", [lambda: keras.optimizers.SGD(0.1), composite])
def test_acts_with_what_was_learned(make):
    model = learner(make())
    actor = Actor(model)
    assert equal(actor, model)
    for _ in range(3):
        before = actor("policy", X), actor("critic", X)
        model.train_on_batch(X, np.zeros(6, "float32"))
        assert equal(actor, model)
        for old, name in zip(before, ("policy", "critic"), strict=True):
            assert np.abs(actor(name, X) - old).max() > 1e-4


def test_compiled_anew_counts_from_0_again():
    model = learner(keras.optimizers.SGD(0.1))
    actor = Actor(model)
    model.train_on_batch(X, np.zeros(6, "float32"))
    assert equal(actor, model)
    before = int(model.optimizer.iterations)
    model.compile(keras.optimizers.SGD(0.1))
    model.train_on_batch(X, np.zeros(6, "float32"))
    assert int(model.optimizer.iterations) == before and equal(actor, model)


def test_held_takes_weights_that_somebody_set_and_keeps_them():
    model = learner(keras.optimizers.SGD(0.1))
    actor = Actor(model)
    actor("policy", X)
    model.policy.set_weights([w + 1 for w in model.policy.get_weights()])
    with actor.held():
        assert equal(actor, model)
        before = actor("policy", X)
        model.train_on_batch(X, np.zeros(6, "float32"))
        with actor.held():  # somebody else's
            assert equal(actor, model)
            before = actor("policy", X)
        np.testing.assert_array_equal(actor("policy", X), before)
    assert equal(actor, model)
    with pytest.raises(KeyError), actor.held():
        raise KeyError
    model.train_on_batch(X, np.zeros(6, "float32"))
    assert equal(actor, model)  # an error does not hold it for ever


def test_steps_with_and_without_a_memory():
    model = learner(keras.optimizers.SGD(0.1))
    outputs, states = Actor(model).step("policy", X)
    assert states is None and outputs.shape == (6, 2)
    memory = recurrent_network((4,), 2, 1.0, seed=0, name="policy")
    model = learner("sgd", memory)
    actor = Actor(model)
    zeros = actor.zeros("policy", 6)
    assert zeros.shape == (6, 64) and not zeros.any()
    first, states = actor.step("policy", X)
    again, _ = actor.step("policy", X, zeros)
    np.testing.assert_array_equal(first, again)
    second, _ = actor.step("policy", X, states)
    want, _ = model.policy([X, states])
    np.testing.assert_allclose(second, ops.convert_to_numpy(want), atol=1e-5)
    assert np.abs(second - first).max() > 1e-3
