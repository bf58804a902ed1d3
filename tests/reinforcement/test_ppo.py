"""Tests of dlcompanion.reinforcement.ppo."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Aim, Choice, Corridor, Pair, Steer
from helpers.toy_networks import net, softmax
from keras import ops

from dlcompanion import autodiff
from dlcompanion.reinforcement import PPO, RecurrentPPO, ppo
from dlcompanion.reinforcement.networks.action_distributions import (
    Categorical,
    MultiCategorical,
)
from dlcompanion.reinforcement.policy_gradient import policy_gradient_loss
from dlcompanion.reinforcement.ppo import (
    ProximalPolicy,
    clipped_surrogate_loss,
    standardize,
)
from dlcompanion.testing import check_agent, check_model


def zero_net(inputs, outputs):
    zeros = keras.layers.Dense(outputs, kernel_initializer="zeros")
    return keras.Sequential([keras.Input((inputs,)), zeros])


def adam(rate=0.03):
    return keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5)


def small(environment=Choice, **kwargs):
    """An agent whose update compiles quickly."""
    settings = {"seed": 0, "num_envs": 32, "rollout_length": 2, "horizon": 8}
    settings |= {"batch_size": 32, "update_epochs": 4, "optimizer": adam()}
    return PPO(environment, **{**settings, **kwargs})


@pytest.mark.once
@pytest.mark.parametrize("turned", [None, "clipped_surrogate_loss", "squared_error"])
def test_learns_and_each_sign_matters(turned, monkeypatch):
    if turned:
        right = getattr(ppo, turned)
        monkeypatch.setattr(ppo, turned, lambda *args: -right(*args))
    agent = small(policy=zero_net(3, 3), critic=zero_net(3, 1))
    x = np.zeros((1, 3), "float32")
    agent.fit(24 * 32 * 8, verbose=0)
    p = softmax(ops.convert_to_numpy(agent.policy(x)))[0]
    value = ops.convert_to_numpy(agent.learner.critic(x))[0, 0]
    learned = {
        "clipped_surrogate_loss": p[1] > 0.8,
        "squared_error": abs(value - p[1]) < 0.15,
    }
    if turned:
        assert not learned[turned], (p, value)
    else:
        assert all(learned.values()), (p, value)
        assert agent.predict(x[0]) == 1
        assert agent.evaluate(episodes=20)["return_mean"] == 1.0


@pytest.mark.once
@pytest.mark.parametrize("sign", [1, -1])
def test_the_entropy_bonus_keeps_a_policy_undecided(sign, monkeypatch):
    # in the corridor it does not matter what one does
    agent = small(
        Corridor, policy=zero_net(2, 2), critic=zero_net(2, 1), entropy_weight=0.5
    )
    agent.policy.set_weights([np.zeros((2, 2)), np.array([0.0, 1.0])])
    right = agent.learner.distribution.entropy
    monkeypatch.setattr(
        agent.learner.distribution, "entropy", lambda x: sign * right(x)
    )
    before = np.log(2) - 0.111  # of probabilities 0.27 and 0.73
    logged = agent.fit(8 * 32 * 8, verbose=0).history["entropy"]
    assert (sign * logged[-1] > before + 0.05) == (sign == 1)


@pytest.mark.once
def test_learns_real_actions_and_grows_surer():
    # the surer, the smaller the steps: a mean that leaps over its spread is lost
    falling = keras.optimizers.schedules.PolynomialDecay(0.02, 12 * 4 * 8, 0.0)
    agent = small(Aim, optimizer=adam(falling), critic=zero_net(1, 1))
    before = agent.evaluate(episodes=5)["return_mean"]  # aims at the middle, (3, 7)
    agent.fit(12 * 32 * 8, verbose=0)
    action = agent.predict(np.zeros(1, "float32"))
    np.testing.assert_allclose(action, [3, 5], atol=0.3)
    assert action.dtype == np.float32 and before == pytest.approx(-4, abs=0.1)
    spread = ops.convert_to_numpy(agent.policy.layers[-1].log_std)
    assert (spread < -0.5).all(), spread
    drawn = agent.predict(np.zeros((200, 1), "float32"), deterministic=False)
    assert drawn.shape == (200, 2) and drawn.std(axis=0).min() > 0


@pytest.mark.once
def test_learns_several_choices():
    agent = small(Pair, policy=zero_net(1, 5), critic=zero_net(1, 1))
    agent.fit(16 * 32 * 8, verbose=0)
    assert agent.predict(np.zeros(1, "float32")).tolist() == [2, 6]
    assert agent.evaluate(episodes=5)["return_mean"] == 2.0


def test_an_update_phase_goes_over_every_step():
    agent = small(Corridor, num_envs=4, rollout_length=6, horizon=6, batch_size=8)
    seen = []
    agent.learner.train_on_batches = lambda data, rows: (
        seen.append((data, rows)) or {"kl": np.zeros(len(rows))}
    )
    agent.fit(1, verbose=0)
    (x, (actions, behavior, advantages, returns), mask), rows = seen[0]
    assert rows.shape == (4 * 3, 8) and x.shape == (24, 2) and (mask == 0).any()
    for epoch in rows.reshape(4, 24):
        assert sorted(epoch) == list(range(24))
    assert (rows[:3] != rows[3:6]).any()
    logits = ops.convert_to_numpy(agent.policy(x))
    np.testing.assert_allclose(behavior, logits, rtol=1e-4, atol=1e-6)
    values = ops.convert_to_numpy(agent.learner.critic(x))[:, 0]
    np.testing.assert_allclose(returns - advantages, values, rtol=1e-3, atol=1e-4)


@pytest.mark.once
def test_learns_cartpole():
    agent = PPO(
        "CartPole-v1",
        optimizer=adam(1e-3),
        rollout_length=32,
        update_epochs=20,
        discount=0.98,
        gae_lambda=0.8,
        seed=0,
    )
    best, before = 0, agent.evaluate(episodes=20)["return_mean"]
    while best < 300 and agent.steps < 40_000:
        history = agent.fit(4_000, verbose=0).history
        best = max(best, agent.evaluate(episodes=20)["return_mean"])
    assert before < 110 and best >= 300, (before, best)
    logs = {"policy_loss", "value_loss", "entropy", "explained_variance"}
    assert logs | {"kl", "clip_fraction"} < set(history)
    assert 0 < history["kl"][-1] < 0.1 and 0 < history["clip_fraction"][-1] < 0.5


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    schedule = keras.optimizers.schedules.PolynomialDecay
    check_agent(
        PPO,
        lambda: {
            "optimizer": adam(schedule(0.01, 800, 0.005)),
            "clip_range": schedule(0.2, 800, 0.1),
            "num_envs": 8,
            "rollout_length": 4,
            "horizon": 8,
            "batch_size": 16,
            "update_epochs": 4,
        },
        Steer,
        learns=(1_600, -0.8),
        refuses=["FrozenLake-v1"],
    )


def test_an_agent_that_never_learned_is_saved_whole(tmp_path):
    agent = small(Choice)
    agent.save(tmp_path / "agent")
    again = PPO.load(tmp_path / "agent", Choice)  # without a warning
    for each in (agent, again):
        each.fit(200, verbose=0)
    for a, b in zip(agent.learner.weights, again.learner.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (a, b)))


def test_a_file_does_not_go_on_with_actions_of_another_kind(tmp_path):
    class Push(Choice):
        action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    small(Choice, policy=zero_net(3, 3)).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="must give"):  # other numbers of outputs
        PPO.load(tmp_path / "agent", Push)

    class Two(Choice):
        action_space = gym.spaces.Discrete(2)

    agent = small(Two, policy=zero_net(3, 2))
    agent.save(tmp_path / "agent")
    rule = r"another space.*Received: Categorical\(n=2\) in.*DiagonalGaussian\(size=1\)"
    with pytest.raises(ValueError, match=rule):
        PPO.load(tmp_path / "agent", Push)


@pytest.mark.once
@pytest.mark.parametrize("kind", [PPO, RecurrentPPO])
def test_a_file_meets_fewer_environments(kind, tmp_path):
    kind(Choice, rollout_length=16, horizon=16, seed=0).save(tmp_path / "agent")
    one = kind.load(tmp_path / "agent", Choice())
    assert (one.environments.count, one.batch_size) == (1, 16)
    one.fit(16, verbose=0)
    again = kind.load(tmp_path / "agent", Choice)
    assert (again.environments.count, again.batch_size) == (8, 128)


def test_the_default_batch_divides_the_rollout():
    sizes = {
        (8, 128): 256,
        (1, 128): 128,
        (3, 128): 192,
        (8, 5): 40,
    }
    for (count, length), size in sizes.items():
        agent = PPO("CartPole-v1", num_envs=count, rollout_length=length)
        assert agent.batch_size == size and agent.config["batch_size"] is None


def test_the_default_optimizer_is_that_of_the_literature():
    optimizer = PPO("CartPole-v1").learner.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert optimizer.epsilon == 1e-5 and optimizer.global_clipnorm == 0.5
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == np.float32(3e-4)


def test_an_action_without_axes_is_no_integer():
    class Knob(Choice):
        action_space = gym.spaces.Box(-2.0, 1.0, (), np.float32)

    action = small(Knob, critic=zero_net(3, 1)).predict(np.zeros(3))
    assert np.shape(action) == () and action == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 7}, r"rollout_length = 1024. Received: batch_size=7"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"batch_size": 1}, "at least 2. Received: batch_size=1"),
        ({"update_epochs": 0}, "Received: update_epochs=0"),
        ({"clip_range": 0.0}, "Received: clip_range=0"),
        ({"policy": zero_net(4, 3)}, r"give \(batch, 2\).*output shape \(batch, 3\)"),
        ({"critic": zero_net(4, 2)}, r"critic must give \(batch, 1\).*Received"),
        ({"rollout_length": 0}, "Received: rollout_length=0"),
        ({"discount": 1.1}, "Received: discount=1.1"),
        ({"jit_compile": "yes"}, "Received: jit_compile='yes'"),
        ({"gae_lambda": -0.1}, "Received: gae_lambda=-0.1"),
        (
            {"environment": "Pendulum-v1", "policy": zero_net(3, 1)},
            r"give \(batch, 2\)",
        ),
        ({"environment": "NoSuch-v0"}, "Received: environment='NoSuch-v0'"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        PPO(**{"environment": "CartPole-v1", **arguments})


def test_networks_must_not_share_layers():
    inputs = keras.Input((4,))
    trunk = keras.layers.Dense(8, "relu")(inputs)
    policy = keras.Model(inputs, keras.layers.Dense(2)(trunk))
    critic = keras.Model(inputs, keras.layers.Dense(1)(trunk))
    with pytest.raises(ValueError, match="must not share layers.*Received: policy="):
        PPO("CartPole-v1", policy=policy, critic=critic)


numpy = ops.convert_to_numpy


def rollout(n, kind, seed=0):
    """Observations, actions, behavior, advantages, returns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype("float32")
    behavior = rng.normal(size=(n, kind.outputs)).astype("float32")
    actions = kind.sample(behavior, rng)
    actions = actions.astype("int32" if actions.dtype.kind == "i" else "float32")
    advantages, returns = rng.normal(size=(2, n)).astype("float32")
    return x, (actions, behavior, advantages, returns)


def test_contract():
    kind = MultiCategorical([2, 3])
    x, y = rollout(8, kind)
    check_model(
        ProximalPolicy,
        lambda: {
            "policy": net(4, kind.outputs),
            "critic": net(4, 1),
            "distribution": kind,
            "entropy_weight": 0.1,
        },
        x,
        y,
        compile_kwargs=lambda: {"optimizer": keras.optimizers.Adam(0.01)},
        skip=["float64"],  # agents give float32 under any floatx
    )


def test_a_schedule_of_the_clip_range_is_saved(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(0.2, 100, 0.0)
    learner = ProximalPolicy(net(4, 3), net(4, 1), Categorical(3), schedule)
    learner.build((None, 4))
    learner.compile("sgd")
    learner.save(tmp_path / "learner.keras")
    again = keras.saving.load_model(tmp_path / "learner.keras")
    assert again.clip_range.get_config() == schedule.get_config()


def test_one_update_is_the_written_one():
    kind = Categorical(3)
    x, (actions, behavior, advantages, returns) = rollout(64, kind)
    weights = (np.arange(64) % 5 > 0).astype("float32")
    learner = ProximalPolicy(net(4, 3), net(4, 1), kind, 0.2, 0.3, 0.05)
    learner.build((None, 4))
    learner.compile(keras.optimizers.SGD(0.1))
    kernel, bias = learner.policy.get_weights()
    value = learner.critic.get_weights()
    logs = learner.train_on_batch(
        x, (actions, behavior, advantages, returns), weights, return_dict=True
    )
    count = weights.sum()

    def mean(y):
        return (weights * y).sum() / count

    a = advantages - mean(advantages)
    a = a / np.sqrt(mean(a**2))
    p, rows = softmax(x @ kernel + bias), np.arange(64)
    ratio = p[rows, actions] / softmax(behavior)[rows, actions]
    clipped = np.clip(ratio, 0.8, 1.2)
    assert logs["policy_loss"] == pytest.approx(
        -mean(np.minimum(ratio * a, clipped * a)), rel=1e-4
    )
    passes = ratio * a <= clipped * a  # the gradient goes through what is smaller
    assert 0 < (weights * passes).sum() < count
    entropy = -(p * np.log(p)).sum(axis=1, keepdims=True)
    on_logits = (p - np.eye(3)[actions]) * (ratio * a * passes)[:, None]
    on_logits += 0.05 * p * (np.log(p) + entropy)
    on_logits *= weights[:, None] / count
    want = [kernel - 0.1 * x.T @ on_logits, bias - 0.1 * on_logits.sum(0)]
    for got, expected in zip(learner.policy.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    error = (x @ value[0] + value[1])[:, 0] - returns
    on_values = (0.3 * 2 * error * weights / count)[:, None]
    want = [value[0] - 0.1 * x.T @ on_values, value[1] - 0.1 * on_values.sum(0)]
    for got, expected in zip(learner.critic.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert logs["value_loss"] == pytest.approx(mean(error**2), rel=1e-4)
    assert logs["entropy"] == pytest.approx(mean(entropy[:, 0]), rel=1e-4)
    kl = mean(ratio - 1 - np.log(ratio))
    assert logs["kl"] == pytest.approx(kl, rel=1e-3) and kl > 0
    outside = mean((np.abs(ratio - 1) > 0.2).astype("float64"))
    assert logs["clip_fraction"] == pytest.approx(outside, rel=1e-5)


def gradient(f, x):
    return numpy(autodiff.grad(f)(ops.convert_to_tensor(x)))


def test_the_first_step_is_the_policy_gradient():
    # before any step all ratios are 1, and nothing is clipped
    kind = Categorical(3)
    _, (actions, behavior, advantages, _) = rollout(32, kind)
    weights = np.ones(32, "float32")
    before = kind.log_prob(behavior, actions)

    def surrogate(outputs):
        log_ratio = kind.log_prob(outputs, actions) - before
        return clipped_surrogate_loss(log_ratio, advantages, 0.2, weights)

    def plain(outputs):
        return policy_gradient_loss(outputs, actions, advantages, weights)

    got, want = gradient(surrogate, behavior), gradient(plain, behavior)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_what_has_gone_far_enough_is_left_alone_and_a_mistake_is_not():
    log_ratio = np.log(np.array([1.3, 0.7, 1.3, 0.7], "float32"))
    advantages = np.array([1.0, -1.0, -1.0, 1.0], "float32")
    ones = np.ones(4, "float32")

    def loss(x):
        return clipped_surrogate_loss(x, advantages, 0.2, ones)

    # d loss / d log ratio = - ratio A / n where nothing is clipped
    want = [0.0, 0.0, 1.3 / 4, -0.7 / 4]
    np.testing.assert_allclose(gradient(loss, log_ratio), want, rtol=1e-5, atol=1e-8)


def test_standardized_advantages_have_mean_0_and_deviation_1():
    rng = np.random.default_rng(0)
    weights = (rng.random(50) < 0.7).astype("float32")
    x = rng.normal(3, 9, 50).astype("float32")
    got = numpy(standardize(x, weights))[weights > 0]
    assert abs(got.mean()) < 1e-5 and got.std() == pytest.approx(1, rel=1e-5)
    # equal advantages say nothing, and no batch without a step that counts is a NaN
    np.testing.assert_array_equal(numpy(standardize(ops.ones(3), ops.ones(3))), 0)
    assert np.isfinite(numpy(standardize(ops.ones(3), ops.zeros(3)))).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clip_range": 0}, "above 0. Received: clip_range=0"),
        ({"clip_range": -0.2}, "Received: clip_range=-0.2"),
        ({"value_weight": -1}, "Received: value_weight=-1"),
        ({"entropy_weight": "a"}, "Received: entropy_weight='a'"),
    ],
)
def test_proximal_policy_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProximalPolicy(net(4, 3), net(4, 1), Categorical(3), **arguments)
