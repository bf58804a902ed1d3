"""Tests of dlcompanion.reinforcement.networks.action_mask."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_networks import net
from keras import ops

from dlcompanion import autodiff
from dlcompanion.reinforcement import (
    A2C,
    DQN,
    PPO,
    ActionMask,
    Normalizer,
    Rainbow,
    RecurrentPPO,
)
from dlcompanion.reinforcement.networks.action_distributions import Categorical
from dlcompanion.reinforcement.networks.action_mask import mask_entries
from dlcompanion.testing import check_layer


def test_contract():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4)).astype("float32")
    mask = (rng.random((6, 4)) < 0.7).astype("float32")
    mask[:, 0] = 1.0
    # beside -1e9 no finite difference is left in float32; the gradient is tested below
    skip = ("gradient",)
    check_layer(ActionMask, {}, [logits, mask], output_shape=(6, 4), skip=skip)


def test_a_forbidden_action_has_probability_zero_and_no_gradient():
    logits = np.array([[3.0, 90.0, 1.0]], "float32")
    mask = np.array([[1.0, 0.0, 1.0]], "float32")
    layer, kind = ActionMask(), Categorical(3)
    masked = layer([logits, mask])
    p = ops.convert_to_numpy(ops.softmax(masked))[0]
    want = np.exp([3.0, 1.0]) / np.exp([3.0, 1.0]).sum()
    np.testing.assert_allclose(p[[0, 2]], want, rtol=1e-6)
    assert p[1] == 0.0
    many = np.repeat(ops.convert_to_numpy(masked), 10_000, axis=0)
    assert set(kind.sample(many, np.random.default_rng(0))) == {0, 2}
    # the entropy is that of the actions that are left
    entropy = -(want * np.log(want)).sum()
    assert float(kind.entropy(masked)[0]) == pytest.approx(entropy, rel=1e-5)

    def objective(x):
        out = layer([x, mask])
        return ops.sum(2.0 * kind.log_prob(out, [0]) + kind.entropy(out))

    gradient = ops.convert_to_numpy(
        autodiff.grad(objective)(ops.convert_to_tensor(logits))
    )[0]
    assert gradient[1] == 0.0 and np.isfinite(gradient).all() and gradient[0] > 0


class OneLeft(gym.Env):
    """One step: the reward is the action's number, and the highest are forbidden."""

    observation_space = gym.spaces.Box(0.0, 1.0, (4,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        allowed = self.np_random.integers(1, 5)
        self.mask = (np.arange(4) < allowed).astype("float32")
        return self.mask, {}

    def step(self, action):
        assert self.mask[action] == 1.0, "a forbidden action was played"
        return self.mask, float(action), True, False, {}


def test_an_agent_never_plays_what_is_forbidden():
    inputs = keras.Input((4,))
    logits = keras.layers.Dense(4, kernel_initializer="zeros")(inputs)
    policy = keras.Model(inputs, ActionMask()([logits, inputs]))
    agent = PPO(
        OneLeft,
        policy=policy,
        critic=net(4, 1),
        optimizer=keras.optimizers.Adam(0.05),
        rollout_length=2,
        batch_size=64,
        update_epochs=2,
        num_envs=32,
        horizon=8,
        seed=0,
    )
    agent.fit(2_000, verbose=0)
    masks = np.tri(4, dtype="float32")
    assert agent.predict(masks).tolist() == [0, 1, 2, 3]


@pytest.mark.once
@pytest.mark.parametrize("kind", [DQN, Rainbow])
def test_what_is_forbidden_is_not_explored(kind):
    inputs = keras.Input((4,))
    network = keras.Model(inputs, ActionMask()([keras.layers.Dense(4)(inputs), inputs]))
    more = {"noisy": False, "atoms": None} if kind is Rainbow else {}
    agent = kind(
        OneLeft,
        network=network,
        horizon=8,
        num_envs=32,
        rollout_length=4,
        learning_starts=256,
        gradient_steps=4,
        seed=0,
        **more,
    )
    agent.fit(1_000, verbose=0)
    assert agent.epsilon > 0.8
    masks = np.tile(np.tri(4, dtype="float32"), (500, 1))
    drawn = agent.predict(masks, deterministic=False).reshape(500, 4)
    counts = [np.bincount(drawn[:, n], minlength=4) for n in range(4)]
    assert all((counts[n] > 0).tolist() == (masks[n] > 0).tolist() for n in range(4))


class Counted(OneLeft):
    """How often each action may still be played: the last one always."""

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.mask = np.array([*self.np_random.integers(0, 3, 3), 1], "float32")
        return self.mask, {}

    def step(self, action):
        assert self.mask[action] > 0, "a forbidden action was played"
        return super().reset()[0], float(action), True, False, {}


def masked(agent_class):
    inputs = [keras.Input((4,)), keras.Input((3,))][: 1 + (agent_class is RecurrentPPO)]
    y, new = keras.layers.Dense(4, kernel_initializer="zeros")(inputs[0]), inputs[1:]
    outputs = [ActionMask()([y, inputs[0]]), *new]
    return keras.Model(inputs if new else inputs[0], outputs if new else outputs[0])


@pytest.mark.parametrize("agent_class", [A2C, PPO, RecurrentPPO])
def test_a_normalizer_leaves_the_mask_alone(agent_class):
    more = {"batch_size": 16, "update_epochs": 1} if agent_class is not A2C else {}
    if agent_class is RecurrentPPO:
        x, h = keras.Input((4,)), keras.Input((3,))
        more["critic"] = keras.Model([x, h], [keras.layers.Dense(1)(x), h])
    agent = agent_class(
        Counted,
        policy=masked(agent_class),
        rollout_length=2,
        horizon=8,
        seed=0,
        normalizer=Normalizer(),
        **more,
    )
    agent.fit(128, verbose=0)  # where a forbidden action is played it fails
    assert agent.normalizer.raw.all() and agent.normalizer.seen.count
    counts = np.array([[2, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1]], "float32")
    outputs, _ = agent._outputs(counts)
    assert ((outputs > -1e8) == (counts > 0)).all()


def test_which_entries_the_mask_is_made_of():
    x = keras.Input((2, 3))
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    either = keras.ops.cast(x[:, 1] + x[:, 0, :1] > 0, "float32")
    found = mask_entries(keras.Model(x, ActionMask()([logits, either])), (2, 3))
    assert found.tolist() == [[True, False, False], [True, True, True]]
    assert not mask_entries(net(3, 2), (3,)).any()
    inner = masked(PPO)
    hidden = keras.Sequential([keras.Input((4,)), inner])
    with pytest.raises(ValueError, match="must be seen.*Received: policy="):
        PPO(Counted, policy=hidden, normalizer=Normalizer())
    PPO(Counted, policy=hidden, normalizer=Normalizer(observations=False))


def test_rejects():
    with pytest.raises(ValueError, match="of one shape.*Received: input_shape="):
        ActionMask()([np.zeros((2, 3)), np.zeros((2, 4))])
