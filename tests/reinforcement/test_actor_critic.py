"""Tests of dlcompanion.reinforcement.actor_critic."""

import keras
import numpy as np
import pytest
from helpers.toy_environments import Choice, Corridor, Signs
from helpers.toy_networks import net, softmax
from keras import ops

from dlcompanion.reinforcement import A2C
from dlcompanion.reinforcement import actor_critic as module
from dlcompanion.reinforcement.actor_critic import ActorCritic
from dlcompanion.reinforcement.agents.rollout import Rollout, RolloutCollector
from dlcompanion.testing import check_agent, check_model
from dlcompanion.training import CompositeOptimizer


def test_contract():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4)).astype("float32")
    numbers = rng.normal(size=(2, 8)).astype("float32")
    check_model(
        ActorCritic,
        lambda: {"policy": net(4, 3), "critic": net(4, 1), "entropy_weight": 0.1},
        x,
        (rng.integers(0, 3, 8).astype("int32"), *numbers),
        compile_kwargs=lambda: {
            "optimizer": CompositeOptimizer({"policy": "adam", "critic": "sgd"})
        },
    )


def test_entropy_is_the_formula():
    logits = np.array([[0.0, 0.0], [1.0, -1.0], [9.0, 0.0]], "float32")
    p = softmax(logits)
    each = -(p * np.log(p)).sum(axis=-1)
    got = module.mean_entropy(logits, np.array([1.0, 1.0, 0.0]))
    assert float(got) == pytest.approx(each[:2].mean(), rel=1e-5)


def small(environment=Choice, **kwargs):
    """An agent whose update compiles quickly."""
    settings = {"seed": 0, "num_envs": 32, "rollout_length": 2, "horizon": 8}
    return A2C(environment, **{**settings, **kwargs})


def test_a_rollout_whose_mask_is_empty_changes_nothing():
    # Choice only resets itself in every second step
    agent = small(num_envs=2, rollout_length=1, horizon=6)
    before = agent.policy.get_weights()
    history = agent.fit(12, verbose=0).history
    assert np.isfinite([*history["policy_loss"], *history["entropy"]]).all()
    after = agent.policy.get_weights()
    moved = [np.abs(a - b).max() for a, b in zip(before, after, strict=True)]
    assert max(moved) > 0


def test_one_update_is_the_written_one():
    agent = small(
        Corridor,
        num_envs=3,
        rollout_length=9,
        discount=0.9,
        gae_lambda=0.8,
        entropy_weight=0.2,
        optimizer=keras.optimizers.SGD(0.1),
        critic_optimizer=keras.optimizers.SGD(0.07),
        policy=net(2, 2),
        critic=net(2, 1),
        critic_steps=2,
    )
    kernel, bias = agent.policy.get_weights()
    value = agent.learner.critic.get_weights()
    collector = RolloutCollector(agent.environments, 5)
    rollout = collector.play(lambda x: np.arange(len(x)) % 2, 9)
    assert rollout.terminated.any() and (rollout.dones & ~rollout.terminated).any()
    assert not rollout.mask.all()
    logs = agent.learn_from(rollout, *agent.advantages_and_returns(rollout))

    x, a, advantages, returns = [], [], [], []
    for n in range(3):
        later = 0.0
        for t in reversed(range(9)):
            o, after = rollout.observations[t, n], rollout.next_observations[t, n]
            v, v_after = ((y @ value[0] + value[1])[0] for y in (o, after))
            v_after = 0.0 if rollout.terminated[t, n] else v_after
            later = 0.0 if rollout.dones[t, n] else later
            later *= 0.9 * 0.8
            later += rollout.rewards[t, n] + 0.9 * v_after - v
            if rollout.mask[t, n]:
                x.append(o)
                a.append(rollout.actions[t, n])
                advantages.append(later)
                returns.append(later + v)
    x, advantages = np.array(x), np.array(advantages)
    p = softmax(x @ kernel + bias)
    logs_p = np.log(p)
    entropy = -(p * logs_p).sum(axis=1, keepdims=True)
    on_logits = (p - np.eye(2)[a]) * advantages[:, None]
    on_logits += 0.2 * p * (logs_p + entropy)  # minus the derivative of the entropy
    count = len(x)
    want = [kernel - 0.1 * x.T @ on_logits / count, bias - 0.1 * on_logits.mean(0)]
    for got, expected in zip(agent.policy.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    targets = np.array(returns)[:, None]  # the same in both steps
    want = value
    for _ in range(2):
        on_values = x @ want[0] + want[1] - targets
        want = [
            want[0] - 0.07 * x.T @ on_values / count,
            want[1] - 0.07 * on_values.mean(0),
        ]
    for got, expected in zip(agent.learner.critic.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    assert logs["entropy"] == pytest.approx(entropy.mean(), rel=1e-4)
    assert logs["value_loss"] == pytest.approx((advantages**2).mean() / 2, rel=1e-4)


TERMS = ["policy_gradient_loss", "baseline_loss", "mean_entropy"]


@pytest.mark.once
@pytest.mark.parametrize("turned", [None, *TERMS])
def test_learns_and_each_sign_matters(turned, monkeypatch):
    if turned:
        right = getattr(module, turned)
        monkeypatch.setattr(module, turned, lambda *args: -right(*args))
    agent = small(
        policy=net(3, 3),
        critic=net(3, 1),
        optimizer=keras.optimizers.Adam(0.05),
        critic_optimizer=keras.optimizers.Adam(0.05),
        entropy_weight=0.5,
    )
    x = np.zeros((1, 3), "float32")
    agent.fit(50 * 32 * 2, verbose=0)
    p = softmax(ops.convert_to_numpy(agent.policy(x)))[0]
    value = ops.convert_to_numpy(agent.learner.critic(x))[0, 0]
    # with an entropy weight of c the best policy is softmax(reward / c): 0.787
    best = softmax(np.array([0.0, 1.0, 0.0]) / 0.5)
    learned = {
        "policy_gradient_loss": p[1] > 0.6,
        "baseline_loss": abs(value - best[1]) < 0.1,
        "mean_entropy": 0.5 * best[0] < p[0] < 2 * best[0],
    }
    if turned:
        assert not learned[turned]
    else:
        assert all(learned.values()), (p, value, best)
        assert agent.predict(x[0]) == 1
        assert agent.evaluate(episodes=20)["return_mean"] == 1.0


@pytest.mark.once
def test_the_critic_learns_what_a_policy_is_worth():
    agent = A2C("CartPole-v1", discount=0.98, horizon=64, seed=0)
    agent.policy.trainable = False  # a coin
    logged = agent.fit(8_192, verbose=0).history["explained_variance"]
    copies = agent.environments.another(64)
    rng = np.random.default_rng(0)
    played = copies.play(lambda x: rng.integers(2, size=len(x)), seed=1, horizon=500)
    assert played.terminated.all()
    returns, later = [], 0.0
    for reward, playing in zip(played.rewards[::-1], played.playing[::-1], strict=True):
        later = np.where(playing, reward + 0.98 * later, 0.0)
        returns.insert(0, later)
    returns = np.stack(returns)[played.playing]
    values = agent.learner.critic(played.observations[played.playing])
    values = ops.convert_to_numpy(values)[:, 0]
    explained = 1 - np.mean((returns - values) ** 2) / returns.var()
    # the rest is the coin; a critic of saturated tanh units explains 0.2 at most
    assert explained > 0.3, explained
    assert np.mean(logged[-4:]) > 0.35, logged


@pytest.mark.once
def test_explained_variance_is_that_of_the_epoch(monkeypatch):
    # in a rollout whose targets are nearly equal, it would say nothing
    agent = small(Corridor, policy=net(2, 2), critic=net(2, 1), horizon=8)
    levels = iter([0.0, 10.0, 20.0, 30.0])

    def advantages_and_returns(rollout):
        one = np.ones(rollout.rewards.shape, "float32")
        return one, next(levels) * one

    monkeypatch.setattr(agent, "advantages_and_returns", advantages_and_returns)
    logged = agent.fit(32 * 8, verbose=0).history["explained_variance"]
    assert 1 - 1 / 100 < logged[0] < 1 - 1 / 150  # 125 if all rollouts weighed the same


@pytest.mark.once
def test_learns_cartpole():
    agent = A2C("CartPole-v1", discount=0.98, seed=0)
    passes, before = 0, agent.evaluate(episodes=20)["return_mean"]
    while passes < 1 and agent.steps < 60_000:
        history = agent.fit(4_000, verbose=0)
        passes += agent.evaluate(episodes=20)["return_mean"] >= 140
    assert before < 110, before
    assert passes == 1
    logs = {"policy_loss", "value_loss", "entropy", "explained_variance"}
    assert logs < set(history.history)


@pytest.mark.once
def test_an_epoch_is_the_horizon():
    nets = {"policy": net(2, 2), "critic": net(2, 1), "num_envs": 3}
    agent = small(Corridor, rollout_length=4, horizon=10, **nets)
    history = agent.fit(3 * 12, verbose=0)
    assert history.history["steps"] == [3 * 12]  # three updates of four steps
    assert int(agent.learner.optimizer["policy"].iterations) == 3
    agent = small(Corridor, rollout_length=1, horizon=1, **nets)
    history = agent.fit(1, verbose=0)  # shorter than any episode
    assert history.history["length_mean"] == [1.0]


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    check_agent(
        A2C,
        lambda: {
            "optimizer": keras.optimizers.Adam(0.015),
            "num_envs": 8,
            "rollout_length": 4,
            "horizon": 8,
            "gae_lambda": 0.7,
        },
        Signs,
        learns=(1_600, 1.2),
        refuses=["Pendulum-v1"],
    )


def test_takes_any_policy_and_goes_on_from_a_file(tmp_path):
    inputs = keras.Input((3,))
    trunk = keras.layers.LayerNormalization()(keras.layers.Dense(8, "relu")(inputs))
    policy = keras.Model(inputs, keras.layers.Dense(3)(trunk))
    agent = small(policy=policy, critic=net(3, 1))
    agent.fit(100, verbose=0)
    agent.save(tmp_path / "agent")
    again = A2C.load(tmp_path / "agent", Choice)
    for each in (agent, again):
        each.fit(300, verbose=0)
    for a, b in zip(agent.learner.weights, again.learner.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (a, b)))
    shared = keras.Model(inputs, keras.layers.Dense(1)(trunk))
    with pytest.raises(ValueError, match="must not share layers.*Received: policy="):
        small(policy=policy, critic=shared)


def test_a_frozen_policy_stays():
    agent = small(policy=net(3, 3), critic=net(3, 1))
    agent.policy.trainable = False
    before = agent.policy.get_weights()
    critic = agent.learner.critic.get_weights()
    agent.fit(100, verbose=0)
    for a, b in zip(before, agent.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (critic[0] != agent.learner.critic.get_weights()[0]).any()


@pytest.mark.once
def test_only_what_was_played_counts():
    agent = small(Corridor, num_envs=3, policy=net(2, 2), critic=net(2, 1))
    rollout = RolloutCollector(agent.environments, 5).play(lambda x: 0 * x[:, 0], 9)
    start = agent.learner.get_weights()
    agent.learn_from(rollout, *agent.advantages_and_returns(rollout))
    expected = agent.learner.get_weights()
    idle = ~rollout.mask
    noisy = Rollout(*[np.array(x) for x in rollout])
    noisy.rewards[idle], noisy.observations[idle] = 1e6, -1e3
    agent = small(Corridor, num_envs=3, policy=net(2, 2), critic=net(2, 1))
    agent.learner.set_weights(start)
    agent.learn_from(noisy, *agent.advantages_and_returns(noisy))
    for a, b in zip(agent.learner.get_weights(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert idle.any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"policy": net(4, 3)}, r"give \(batch, 2\).*output shape \(batch, 3\)"),
        ({"critic": net(4, 2)}, r"critic must give \(batch, 1\).*Received"),
        ({"policy": "mlp"}, "must be a keras.Model. Received: policy='mlp'"),
        ({"rollout_length": 0}, "Received: rollout_length=0"),
        ({"discount": 1.1}, "Received: discount=1.1"),
        ({"gae_lambda": -0.1}, "Received: gae_lambda=-0.1"),
        ({"entropy_weight": -1}, "Received: entropy_weight=-1"),
        ({"critic_steps": 0}, "Received: critic_steps=0"),
        ({"num_envs": 0}, "Received: 0"),
        ({"seed": "0"}, "Received: seed='0'"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        A2C(**{"environment": "CartPole-v1", **arguments})
