"""Tests of dlcompanion.reinforcement.sac."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Steer
from helpers.toy_networks import net
from keras import ops

from dlcompanion.reinforcement import SAC
from dlcompanion.reinforcement import sac as module
from dlcompanion.reinforcement.sac import (
    SoftActorCritic,
    entropy_temperature_loss,
    soft_critic_loss,
    soft_policy_loss,
    soft_targets,
)
from dlcompanion.testing import check_agent, check_model
from dlcompanion.training import CompositeOptimizer

numpy = ops.convert_to_numpy


class Dart(gym.Env):
    """One step an episode: minus four times the squared distance to 2.8.

    Actions are between 2 and 4, so that 2.8 is -0.2 in units of the space. Where
    ``steps`` is given the episode is that long, then truncated if ``truncated``.
    """

    action_space = gym.spaces.Box(2.0, 4.0, (1,), np.float32)

    def __init__(self, steps=1, truncated=False, shape=(1,)):
        self.steps, self.truncated = steps, truncated
        self.observation_space = gym.spaces.Box(-99.0, 99.0, shape, np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.time += 1
        reward = -4.0 * float((action[0] - 2.8) ** 2)
        over = self.time >= self.steps
        return self.observation(), reward, over and not self.truncated, over, {}

    def observation(self):
        return np.full(self.observation_space.shape, self.time, np.float32)


def critic_net(inputs=1):
    """Quadratic, so that it can be right, and is so soon."""
    x = [keras.Input((inputs,)), keras.Input((1,))]
    joined = keras.layers.Concatenate()(x)
    twice = [keras.layers.Dense(8)(joined) for _ in range(2)]
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Multiply()(twice)))


def small(environment=Dart, **kwargs):
    """An agent whose update compiles quickly."""
    settings = {
        "policy": net(1, 2),
        "critics": [critic_net(), critic_net()],
        "seed": 0,
        "num_envs": 16,
        "rollout_length": 2,
        "gradient_steps": 4,
        "batch_size": 64,
        "horizon": 20,
        "learning_starts": 32,
    }
    return SAC(environment, **{**settings, **kwargs})


LOSSES = ["soft_critic_loss", "soft_policy_loss", "entropy_temperature_loss"]


@pytest.mark.once
@pytest.mark.parametrize("turned", [None, *LOSSES])
def test_learns_and_each_sign_matters(turned, monkeypatch):
    if turned:
        right = getattr(module, turned)
        monkeypatch.setattr(module, turned, lambda *args: -right(*args))
    agent = small(
        target_entropy=0.0,
        gradient_steps=10,
        optimizer=keras.optimizers.Adam(0.02),
        critic_optimizer=keras.optimizers.Adam(0.02),
        temperature_optimizer=keras.optimizers.Adam(0.04),
    )
    if turned:
        agent._finite_outputs = lambda x: np.nan_to_num(agent._outputs(x))
    history = agent.fit(16 * 20 * 3, verbose=0).history
    x = np.zeros((1, 1), "float32")
    median = agent.predict(x[0])[0]
    value = float(numpy(agent.learner(x)[1])[0])
    learned = {
        "soft_critic_loss": abs(value) < 0.2,
        "soft_policy_loss": abs(median - 2.8) < 0.15,
        "entropy_temperature_loss": abs(history["entropy"][-1]) < 0.2,
    }
    if turned:
        assert not learned[turned]
        return
    assert all(learned.values()), (median, value, history)
    # of a parabola -4 (a - m)^2 the soft policy is a normal of variance alpha / 8
    # and one of entropy 0 has a variance of 1 / (2 pi e)
    assert history["temperature"][-1] == pytest.approx(8 / (2 * np.pi * np.e), rel=0.3)
    assert agent.evaluate(episodes=20)["return_mean"] > -0.1
    assert agent.evaluate(20, deterministic=False)["return_mean"] < -0.1
    drawn = [agent.predict(x[0], deterministic=False)[0] for _ in range(3)]
    assert len(set(drawn)) == 3 and all(2 < a < 4 for a in drawn)


@pytest.mark.parametrize("truncated", [True, False])
def test_only_what_terminates_is_worth_nothing_afterwards(truncated):
    agent = small(
        lambda: Dart(steps=3, truncated=truncated),
        num_envs=2,
        horizon=8,
        learning_starts=99,
    )
    agent.fit(2 * 8, verbose=0)
    columns = agent.replay.take(np.arange(len(agent.replay)))
    # of nine rows one is a reset: it is not remembered
    assert len(agent.replay) == agent.replay.added == 2 * 6
    last = columns["next_observation"][:, 0] == 3
    assert last.sum() == 4
    np.testing.assert_allclose(
        columns["discount"], np.where(last & (not truncated), 0.0, 0.99)
    )
    np.testing.assert_allclose(  # actions are remembered in units of the space
        columns["reward"], -4.0 * (columns["action"][:, 0] + 0.2) ** 2, atol=1e-5
    )


@pytest.mark.once
def test_the_beginning_is_random():
    agent = small(num_envs=4, learning_starts=400, horizon=100)
    agent.policy.set_weights([np.zeros((1, 2)), np.array([3.0, -3.0])])
    history = agent.fit(400, verbose=0).history
    actions = agent.replay.columns["action"][: len(agent.replay), 0]
    assert np.abs(actions).max() < 1 and abs(actions.mean()) < 0.15
    assert actions.std() == pytest.approx(1 / np.sqrt(3), abs=0.06)
    # the last of the rollouts is the first to learn
    assert int(agent.learner.optimizer["critics"].iterations) == 4
    agent.fit(400, verbose=0)
    actions = agent.replay.columns["action"][len(actions) : len(agent.replay), 0]
    assert (actions[:8] > 0.9).all()
    assert "critic_loss" in history


@pytest.mark.once
def test_as_many_updates_as_steps():
    agent = small(num_envs=3, gradient_steps=None, rollout_length=4, horizon=8)
    agent.fit(48, verbose=0)
    # rollouts of 12 steps; the third is the first after 32 steps
    assert agent.gradient_steps == 12
    assert int(agent.learner.optimizer["policy"].iterations) == 2 * 12


@pytest.mark.once
def test_the_default_networks_take_any_observation():
    agent = SAC(lambda: Dart(steps=9, shape=(2, 3)), horizon=8, seed=0)
    agent.fit(8, verbose=0)
    assert agent.learner.critics[0].count_params() == 7 * 64 + 64 + 64 * 65 + 65
    assert agent.predict(np.zeros((2, 3))).shape == (1,)
    first, second = (critic.get_weights()[0] for critic in agent.learner.critics)
    assert (first != second).any()  # twins, but not the same


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    check_agent(
        SAC,
        lambda: {
            "policy": net(1, 2),
            "critics": [critic_net(), critic_net()],
            "optimizer": keras.optimizers.Adam(0.02),
            "critic_optimizer": keras.optimizers.Adam(0.02),
            "temperature_optimizer": keras.optimizers.Adam(0.04),
            "discount": 0.5,
            "tau": 0.1,
            "num_envs": 8,
            "rollout_length": 4,
            "horizon": 8,
            "batch_size": 32,
            "gradient_steps": 8,
            "learning_starts": 32,
            "buffer_size": 90,  # full when it is saved
        },
        Steer,
        learns=(600, -0.8),
        refuses=["CartPole-v1"],
    )


def test_a_given_temperature_and_any_policy_go_on_from_a_file(tmp_path):
    inputs = keras.Input((1,))
    hidden = keras.layers.LayerNormalization()(keras.layers.Dense(8, "relu")(inputs))
    policy = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    agent = small(policy=policy, temperature=0.5)
    agent.fit(320, verbose=0)
    slow, quick = agent.learner.targets[0], agent.learner.critics[0]
    assert (slow.get_weights()[0] != quick.get_weights()[0]).any()
    agent.save(tmp_path / "agent")
    again = SAC.load(tmp_path / "agent", Dart)
    assert again.learner.temperature == 0.5
    for each in (agent, again):
        history = each.fit(320, verbose=0).history
    assert history["temperature"] == [0.5]
    for a, b in zip(agent.learner.weights, again.learner.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))
    critic = critic_net()
    with pytest.raises(ValueError, match="must not share layers.*Received"):
        small(critics=[critic, critic])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"environment": "CartPole-v1"}, "Box space.*PPO and DQN choose.*Received: ac"),
        ({"policy": "mlp"}, "must be a keras.Model. Received: policy='mlp'"),
        ({"policy": net(3, 2)}, "policy must take.*Received"),
        ({"policy": critic_net()}, "policy must take.*Received"),
        ({"critics": [net(1, 2), net(1, 2)]}, r"take \[observations, actions\]"),
        ({"critics": [critic_net(2), critic_net()]}, "Received: critic="),
        ({"critics": ["a", "b"]}, "two models, keras.Model.*Received: critics="),
        ({"critics": critic_net()}, "list of two models"),
        ({"temperature": -1.0}, "Received: temperature=-1"),
        ({"tau": 2}, "Received: tau=2"),
        ({"target_entropy": "auto"}, "Received: target_entropy='auto'"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"buffer_size": 0}, "Received: buffer_size=0"),
        ({"learning_starts": -1}, "Received: learning_starts=-1"),
        ({"rollout_length": 0}, "Received: rollout_length=0"),
        ({"gradient_steps": 0}, "Received: gradient_steps=0"),
        ({"discount": 1.5}, "Received: discount=1.5"),
        ({"jit_compile": "yes"}, "Received: jit_compile='yes'"),
        ({"num_envs": 0}, "Received: 0"),
        ({"seed": -1}, "Received: seed=-1"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        SAC(**{"environment": Dart, **arguments})


def line_critic(inputs=3, size=2):
    x = [keras.Input((inputs,)), keras.Input((size,))]
    return keras.Model(x, keras.layers.Dense(1)(keras.layers.Concatenate()(x)))


def made(rates=(0.1, 0.07, 0.3), steps=1, **kwargs):
    """A learner with linear networks, and a batch for it."""
    learner = SoftActorCritic(
        net(3, 4),
        [line_critic(), line_critic()],
        **kwargs,
    )
    names = ["policy", "critics", "temperature"]
    if kwargs.get("temperature") is not None:
        names.pop()
    optimizers = zip(names, map(keras.optimizers.SGD, rates), strict=False)
    learner.build((None, 3))
    learner.compile(CompositeOptimizer(dict(optimizers)))
    rng = np.random.default_rng(0)
    learner.set_weights([0.3 * rng.normal(size=w.shape) for w in learner.weights])
    x, next_observations = rng.normal(size=(2, steps, 6, 3)).astype("float32")
    actions = rng.uniform(-1, 1, (steps, 6, 2)).astype("float32")
    rewards = rng.normal(size=(steps, 6)).astype("float32")
    discounts = np.array([0.9, 0.0, 0.9, 0.9, 0.0, 0.9], "float32")
    noise = rng.normal(size=(steps, 6, 2, 2)).astype("float32")
    discounts = np.tile(discounts, (steps, 1))
    return learner, (x, (actions, rewards, next_observations, discounts, noise))


def test_contract():
    _, (x, y) = made(steps=2)
    y = tuple(a.reshape(12, *a.shape[2:]) for a in y)
    check_model(
        SoftActorCritic,
        lambda: {
            "policy": net(3, 4),
            "critics": [line_critic(), line_critic()],
        },
        x.reshape(12, 3),
        y,
        compile_kwargs=lambda: {
            "optimizer": CompositeOptimizer(
                {"policy": "adam", "critics": "adam", "temperature": "sgd"}
            )
        },
        skip=["float64"],  # agents give float32 under any floatx
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
    learner, (x, y) = made(tau=0.2, target_entropy=goal)

    def weights(model):
        return [w.astype("float64") for w in model.get_weights()]

    policy = weights(learner.policy)
    critics = [weights(critic) for critic in learner.critics]
    slow = [weights(target) for target in learner.targets]
    assert not np.allclose(critics[0][0], slow[0][0])
    log_temperature = float(numpy(learner.log_temperature))
    alpha = np.exp(log_temperature)
    logs = learner.train_on_batches((x, y))

    x, (actions, rewards, next_observations, discounts, noise) = x[0], [a[0] for a in y]
    after, log_after = draw(policy, next_observations, noise[:, 1])
    worth = np.minimum(*(value(t, next_observations, after) for t in slow))
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
    policy, critics = (
        net(3, 4),
        [line_critic(), line_critic()],
    )
    learner = SoftActorCritic(policy, critics, tau=0.5)
    for critic, target in zip(critics, learner.targets, strict=True):
        for a, b in zip(critic.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    learner, batches = made(steps=20, tau=0.5)
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
        (
            {"critics": [line_critic()]},
            "list of two models.*Received: critics=",
        ),
        ({"temperature": -0.1}, "Received: temperature=-0.1"),
        ({"target_entropy": "auto"}, "Received: target_entropy='auto'"),
        ({"tau": 1.5}, "Received: tau=1.5"),
    ],
)
def test_soft_actor_critic_rejects(arguments, message):
    networks = {
        "policy": net(3, 4),
        "critics": [line_critic(), line_critic()],
    }
    with pytest.raises(ValueError, match=message):
        SoftActorCritic(**{**networks, **arguments})
