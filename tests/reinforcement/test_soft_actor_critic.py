"""Tests of dlcompanion.reinforcement.soft_actor_critic."""

import keras
import numpy as np
import pytest
from keras import ops
from toy_networks import net

from dlcompanion.reinforcement import (
    SoftActorCritic,
    entropy_temperature_loss,
    soft_critic_loss,
    soft_policy_loss,
    soft_targets,
)
from dlcompanion.testing import check_model
from dlcompanion.training import CompositeOptimizer

numpy = ops.convert_to_numpy


def critic_net(inputs=3, size=2):
    x = [keras.Input((inputs,)), keras.Input((size,))]
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Concatenate()(x)))


def made(rates=(0.1, 0.07, 0.3), steps=1, **kwargs):
    """A learner with linear networks, and a batch for it."""
    learner = SoftActorCritic(net(3, 4), [critic_net(), critic_net()], **kwargs)
    names = ["policy", "critics", "temperature"]
    if kwargs.get("temperature") is not None:
        names.pop()
    optimizers = zip(names, map(keras.optimizers.SGD, rates), strict=False)
    learner.build((None, 3))
    learner.compile(CompositeOptimizer(dict(optimizers)))
    rng = np.random.default_rng(0)
    learner.set_weights([0.3 * rng.normal(size=w.shape) for w in learner.weights])
    x, following = rng.normal(size=(2, steps, 6, 3)).astype("float32")
    actions = rng.uniform(-1, 1, (steps, 6, 2)).astype("float32")
    rewards = rng.normal(size=(steps, 6)).astype("float32")
    discounts = np.array([0.9, 0.0, 0.9, 0.9, 0.0, 0.9], "float32")
    noise = rng.normal(size=(steps, 6, 2, 2)).astype("float32")
    discounts = np.tile(discounts, (steps, 1))
    return learner, (x, (actions, rewards, following, discounts, noise))


def test_contract():
    _, (x, y) = made(steps=2)
    y = tuple(a.reshape(12, *a.shape[2:]) for a in y)
    check_model(
        SoftActorCritic,
        lambda: {"policy": net(3, 4), "critics": [critic_net(), critic_net()]},
        x.reshape(12, 3),
        y,
        compile_kwargs=lambda: {
            "optimizer": CompositeOptimizer(
                {"policy": "adam", "critics": "adam", "temperature": "sgd"}
            )
        },
    )


def draw(weights, x, noise):
    """Squashed actions and their log-densities, the plain way, in 64 bits."""
    outputs = x @ weights[0] + weights[1]
    mean, log_std = outputs[:, :2], outputs[:, 2:]
    u = mean + np.exp(log_std) * noise
    normal = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
    return np.tanh(u), (normal - np.log(1 - np.tanh(u) ** 2)).sum(axis=1)


def value(weights, x, actions):
    return (np.concatenate([x, actions], axis=1) @ weights[0] + weights[1])[:, 0]


def numeric_gradient(f, arrays, step=1e-6):
    gradients = []
    for a in arrays:
        gradient = np.zeros_like(a)
        for i in np.ndindex(*a.shape):
            there = a[i]
            a[i] = there + step
            above = f()
            a[i] = there - step
            gradient[i] = (above - f()) / (2 * step)
            a[i] = there
        gradients.append(gradient)
    return gradients


@pytest.mark.parametrize("goal", [None, 1.5])
def test_one_update_is_the_written_one(goal):
    learner, (x, y) = made(target_rate=0.2, target_entropy=goal)

    def weights(model):
        return [w.astype("float64") for w in model.get_weights()]

    policy = weights(learner.policy)
    critics = [weights(critic) for critic in learner.critics]
    slow = [weights(target) for target in learner.targets]
    assert not np.allclose(critics[0][0], slow[0][0])
    log_temperature = float(numpy(learner.log_temperature))
    alpha = np.exp(log_temperature)
    logs = learner.train_on_batches((x, y))

    x, (actions, rewards, following, discounts, noise) = x[0], [a[0] for a in y]
    after, log_after = draw(policy, following, noise[:, 1])
    worth = np.minimum(*(value(t, following, after) for t in slow))
    expected = rewards + discounts * (worth - alpha * log_after)
    joined, loss = np.concatenate([x, actions], axis=1), 0.0
    for critic in critics:
        error = value(critic, x, actions) - expected
        loss += 0.5 * np.mean(error**2)
        critic[0] -= 0.07 * joined.T @ error[:, None] / 6
        critic[1] -= 0.07 * error.mean()

    def policy_loss():
        drawn, log_probs = draw(policy, x, noise[:, 0])
        worth = np.minimum(*(value(critic, x, drawn) for critic in critics))
        return np.mean(alpha * log_probs - worth)

    entropy = -draw(policy, x, noise[:, 0])[1].mean()
    assert logs["policy_loss"][0] == pytest.approx(policy_loss(), rel=1e-4)
    gradients = numeric_gradient(policy_loss, policy)
    policy = [w - 0.1 * g for w, g in zip(policy, gradients, strict=True)]
    log_temperature -= 0.3 * (entropy - (-2.0 if goal is None else goal))
    slow = [
        [s + 0.2 * (c - s) for s, c in zip(target, critic, strict=True)]
        for target, critic in zip(slow, critics, strict=True)
    ]
    got = [learner.policy, *learner.critics, *learner.targets]
    for model, want in zip(got, [policy, *critics, *slow], strict=True):
        for a, b in zip(model.get_weights(), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert float(numpy(learner.log_temperature)) == pytest.approx(
        log_temperature, abs=1e-4
    )
    assert logs["critic_loss"][0] == pytest.approx(loss, rel=1e-4)
    assert logs["entropy"][0] == pytest.approx(entropy, rel=1e-4)
    assert logs["temperature"][0] == pytest.approx(alpha, rel=1e-4)


@pytest.mark.parametrize("goal, sign", [(5.0, 1), (-9.0, -1)])
def test_the_temperature_rises_while_the_policy_is_too_sure(goal, sign):
    learner, batches = made((0.0, 0.0, 0.3), steps=10, target_entropy=goal)
    logs = learner.train_on_batches(batches)
    assert ((goal - logs["entropy"]) * sign > 0).all()
    assert (np.diff(logs["temperature"]) * sign > 0).all()


def test_a_given_temperature_stays():
    learner, batches = made(steps=3, temperature=0.25)
    assert learner.log_temperature is None and len(learner.trainable_weights) == 6
    logs = learner.train_on_batches(batches)
    np.testing.assert_array_equal(logs["temperature"], np.float32(0.25))
    again = SoftActorCritic.from_config(learner.get_config())
    assert again.temperature == 0.25


def test_targets_are_copies_and_follow_geometrically():
    policy, critics = net(3, 4), [critic_net(), critic_net()]
    learner = SoftActorCritic(policy, critics, target_rate=0.5)
    for critic, target in zip(critics, learner.targets, strict=True):
        for a, b in zip(critic.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    learner, batches = made(steps=20, target_rate=0.5)
    for network in (learner.policy, *learner.critics):
        network.trainable = False
    before = [w.copy() for w in learner.policy.get_weights()]
    learner.train_on_batches(batches)
    for critic, target in zip(learner.critics, learner.targets, strict=True):
        for a, b in zip(critic.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)  # 2 ** -20 of the way is left
    for a, b in zip(before, learner.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_losses_are_the_formulas():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(2, 7)).astype("float32")
    r, logs, y = rng.normal(size=(3, 7)).astype("float32")
    discounts = np.where(r > 0, 0.9, 0.0).astype("float32")
    tensors = map(ops.convert_to_tensor, (q, r, logs, y, discounts))
    tensor_q, tensor_r, tensor_logs, tensor_y, tensor_discounts = tensors

    want = r + discounts * (q.min(axis=0) - 0.3 * logs)
    got = soft_targets(tensor_r, tensor_discounts, tensor_q, tensor_logs, 0.3)
    np.testing.assert_allclose(numpy(got), want, rtol=1e-5)
    want = 0.5 * ((q[0] - y) ** 2).mean() + 0.5 * ((q[1] - y) ** 2).mean()
    got = soft_critic_loss(tensor_q, tensor_y)
    assert float(got) == pytest.approx(want, rel=1e-5)
    want = (0.3 * logs - q.min(axis=0)).mean()
    got = soft_policy_loss(tensor_q, tensor_logs, 0.3)
    assert float(got) == pytest.approx(want, rel=1e-5)
    want = -np.log(0.3) * (logs + 2.0).mean()
    got = entropy_temperature_loss(np.log(0.3), tensor_logs, 2.0)
    assert float(got) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"critics": [critic_net()]}, "list of two models.*Received: critics="),
        ({"temperature": -0.1}, "Received: temperature=-0.1"),
        ({"target_entropy": "auto"}, "Received: target_entropy='auto'"),
        ({"target_rate": 1.5}, "Received: target_rate=1.5"),
    ],
)
def test_rejects(arguments, message):
    networks = {"policy": net(3, 4), "critics": [critic_net(), critic_net()]}
    with pytest.raises(ValueError, match=message):
        SoftActorCritic(**{**networks, **arguments})
