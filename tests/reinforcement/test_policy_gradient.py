"""Tests of dlcompanion.reinforcement.policy_gradient."""

import keras
import numpy as np
import pytest
from helpers.toy_environments import Choice, Corridor, Signs
from helpers.toy_networks import net, softmax
from keras import ops

from dlcompanion.autodiff import grad
from dlcompanion.reinforcement import REINFORCE
from dlcompanion.reinforcement.policy_gradient import (
    PolicyWithBaseline,
    baseline_loss,
    policy_gradient_loss,
)
from dlcompanion.testing import check_agent, check_model
from dlcompanion.training import CompositeOptimizer


def test_gradient_is_the_formula():
    # d(-log softmax(z)[a]) / dz = softmax(z) - onehot(a), times the advantage
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(7, 3)).astype("float32")
    actions, advantages = rng.integers(0, 3, 7), rng.normal(size=7).astype("float32")
    weights = np.array([1, 1, 0, 1, 1, 0, 1], "float32")
    gradient = grad(policy_gradient_loss)(logits, actions, advantages, weights)
    expected = (softmax(logits) - np.eye(3)[actions]) * (advantages * weights)[:, None]
    np.testing.assert_allclose(
        ops.convert_to_numpy(gradient), expected / weights.sum(), rtol=1e-5, atol=1e-7
    )
    on_advantages = grad(policy_gradient_loss, argnums=2)
    constant = on_advantages(logits, actions, advantages, weights)
    assert not ops.convert_to_numpy(constant).any()


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_expectation_is_the_gradient_of_the_expected_return(baseline):
    # all three actions, each with its probability: no sampling, no error
    logits = np.array([0.3, -0.2, 0.5], "float32")
    rewards = np.array([1.0, -2.0, 0.5], "float32")
    each = np.stack(
        [
            ops.convert_to_numpy(
                grad(policy_gradient_loss)(
                    logits[None], [a], rewards[a : a + 1] - baseline, np.ones(1, "f")
                )
            )[0]
            for a in range(3)
        ]
    )
    estimate = softmax(logits) @ each
    exact = grad(lambda z: -ops.sum(ops.softmax(z) * ops.array(rewards)))(logits)
    np.testing.assert_allclose(estimate, ops.convert_to_numpy(exact), atol=1e-6)


def test_baseline_loss_is_half_the_mean_square():
    values, returns = np.array([1.0, 2.0, 9.0], "f"), np.array([3.0, 1.0, 0.0], "f")
    weights = np.array([1.0, 1.0, 0.0], "f")
    assert float(baseline_loss(values, returns, weights)) == pytest.approx(1.25)


def networks():
    return {"policy": net(4, 3), "baseline": net(4, 1), "baseline_steps": 2}


def test_contract():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4)).astype("float32")
    y = (rng.integers(0, 3, 8).astype("int32"), rng.normal(size=8).astype("float32"))
    optimizers = {"policy": "adam", "baseline": "sgd"}
    check_model(
        PolicyWithBaseline,
        networks,
        x,
        y,
        compile_kwargs=lambda: {"optimizer": CompositeOptimizer(optimizers)},
        skip=["float64"],  # agents give float32 under any floatx
    )


def small(environment=Choice, **kwargs):
    """An agent whose update compiles quickly."""
    return REINFORCE(environment, **{"seed": 0, "baseline_steps": 1, **kwargs})


@pytest.mark.once
def test_finds_the_rewarded_action():
    # With the sign of the policy term turned round this ends near 0.
    agent = small(horizon=1, optimizer=keras.optimizers.Adam(0.05), num_envs=32)
    observations = np.zeros((1, 3), "float32")
    before = softmax(ops.convert_to_numpy(agent.policy(observations)))[0, 1]
    agent.fit(30 * 32, verbose=0)
    after = softmax(ops.convert_to_numpy(agent.policy(observations)))[0, 1]
    assert before == pytest.approx(1 / 3, abs=0.02)
    assert after > 0.9
    assert agent.predict(observations[0]) == 1
    assert agent.evaluate(episodes=20)["return_mean"] == 1.0


@pytest.mark.once
def test_learns_cartpole():
    agent = REINFORCE("CartPole-v1", seed=0)
    passes, before = 0, agent.evaluate(episodes=20)["return_mean"]
    while passes < 2 and agent.steps < 60_000:
        history = agent.fit(4_000, verbose=0)
        good = agent.evaluate(episodes=20)["return_mean"] >= 400
        passes = passes + 1 if good else 0
    assert before < 200
    assert passes == 2
    assert {"return_mean", "policy_loss", "baseline_loss", "explained_variance"} < set(
        history.history
    )


def test_one_update_is_the_written_one():
    agent = small(
        Corridor,
        num_envs=3,
        horizon=9,
        discount=0.9,
        optimizer=keras.optimizers.SGD(0.1),
        baseline_optimizer=keras.optimizers.SGD(0.01),
        policy=net(2, 2),
        baseline=net(2, 1),
    )
    kernel, bias = agent.policy.get_weights()
    value = agent.learner.baseline.get_weights()
    episodes = agent._play()
    agent.learn_from_episodes(episodes)

    x, a, g = [], [], []
    for n, length in enumerate(episodes.lengths):
        follows = episodes.last_observations[n] @ value[0] + value[1]
        follows = 0.0 if episodes.terminated[n] else follows[0]
        for t in reversed(range(length)):
            follows = episodes.rewards[t, n] + 0.9 * follows
            x.append(episodes.observations[t, n])
            a.append(episodes.actions[t, n])
            g.append(follows)
    assert not episodes.terminated.all() and episodes.terminated.any()
    x, g = np.array(x), np.array(g)
    v = (x @ value[0] + value[1])[:, 0]
    on_logits = (softmax(x @ kernel + bias) - np.eye(2)[a]) * (g - v)[:, None] / len(x)
    on_values = ((v - g) / len(x))[:, None]
    want = [kernel - 0.1 * x.T @ on_logits, bias - 0.1 * on_logits.sum(0)]
    for got, expected in zip(agent.policy.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    want = [value[0] - 0.01 * x.T @ on_values, value[1] - 0.01 * on_values.sum(0)]
    for got, expected in zip(agent.learner.baseline.get_weights(), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    check_agent(
        REINFORCE,
        lambda: {
            "optimizer": keras.optimizers.Adam(0.01),
            "baseline_steps": 1,
            "horizon": 9,
        },
        Signs,
        learns=(1_200, 1.0),
        refuses=["Pendulum-v1"],
    )


def test_takes_any_policy(tmp_path):
    inputs = keras.Input((3,))
    hidden = keras.layers.LayerNormalization()(keras.layers.Dense(8, "relu")(inputs))
    agent = small(policy=keras.Model(inputs, keras.layers.Dense(3)(hidden)), horizon=1)
    agent.fit(8, verbose=0)
    best = tmp_path / "best.keras"
    keep = keras.callbacks.ModelCheckpoint(
        best, monitor="return_mean", mode="max", save_best_only=True
    )
    stop = keras.callbacks.EarlyStopping(
        "return_mean", mode="max", patience=0, min_delta=9, restore_best_weights=True
    )
    agent.fit(80, callbacks=[keep, stop], verbose=0)
    assert agent.epochs == 3  # stopped at the first that was not better by 9
    loaded = keras.models.load_model(best)
    assert type(loaded) is PolicyWithBaseline
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    for model in (loaded, agent.learner):
        assert model.policy(x).shape == (4, 3)
    agent.save(tmp_path / "agent")
    again = REINFORCE.load(tmp_path / "agent", Choice)
    np.testing.assert_array_equal(again.predict(x), agent.predict(x))
    with pytest.raises(ValueError, match=r"policy must .*Received: policy="):
        REINFORCE.load(tmp_path / "agent", "CartPole-v1")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"policy": net(4, 3)}, r"give \(batch, 2\).*output shape \(batch, 3\)"),
        ({"policy": net(5, 2)}, r"observations of shape \(4,\).*Received: policy="),
        ({"policy": "mlp"}, "must be a keras.Model. Received: policy='mlp'"),
        ({"baseline": net(4, 2)}, r"baseline must give \(batch, 1\).*Received"),
        ({"baseline_steps": 0}, "Received: baseline_steps=0"),
        ({"discount": 1.1}, "Received: discount=1.1"),
        ({"num_envs": 0}, "Received: 0"),
        ({"environment": "CartPol-v1"}, "Received: environment='CartPol-v1'"),
        ({"seed": "0"}, "Received: seed='0'"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        REINFORCE(**{"environment": "CartPole-v1", **arguments})


@pytest.mark.once
def test_networks_must_not_share_layers():
    x = keras.Input((4,))
    trunk = keras.layers.Dense(8, "tanh")(x)
    policy, baseline = (keras.Model(x, keras.layers.Dense(n)(trunk)) for n in (2, 1))
    with pytest.raises(ValueError, match="must not share layers.*Received: policy="):
        REINFORCE("CartPole-v1", policy=policy, baseline=baseline)
