"""Tests of dlcompanion.reinforcement.ppo."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from keras import ops
from resume import assert_resumes
from toy_environments import Aim, Choice, Corridor, Pair
from toy_networks import softmax

from dlcompanion.reinforcement import PPO, proximal_policy


def net(inputs, outputs):
    zeros = keras.layers.Dense(outputs, kernel_initializer="zeros")
    return keras.Sequential([keras.Input((inputs,)), zeros])


def adam(rate=0.03):
    return keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5)


def small(environment=Choice, **kwargs):
    """An agent whose update compiles quickly."""
    settings = {"seed": 0, "num_envs": 32, "rollout_length": 2, "horizon": 8}
    settings |= {"batch_size": 32, "epochs": 4, "optimizer": adam()}
    return PPO(environment, **{**settings, **kwargs})


@pytest.mark.parametrize("turned", [None, "clipped_surrogate_loss", "squared_error"])
def test_learns_and_each_sign_matters(turned, monkeypatch):
    if turned:
        right = getattr(proximal_policy, turned)
        monkeypatch.setattr(proximal_policy, turned, lambda *args: -right(*args))
    agent = small(policy=net(3, 3), critic=net(3, 1))
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


@pytest.mark.parametrize("sign", [1, -1])
def test_the_entropy_bonus_keeps_a_policy_undecided(sign, monkeypatch):
    # in the corridor it does not matter what one does
    agent = small(Corridor, policy=net(2, 2), critic=net(2, 1), entropy_weight=0.5)
    agent.policy.set_weights([np.zeros((2, 2)), np.array([0.0, 1.0])])
    right = agent.learner.distribution.entropy
    monkeypatch.setattr(
        agent.learner.distribution, "entropy", lambda x: sign * right(x)
    )
    before = np.log(2) - 0.111  # of probabilities 0.27 and 0.73
    logged = agent.fit(8 * 32 * 8, verbose=0).history["entropy"]
    assert (sign * logged[-1] > before + 0.05) == (sign == 1)


def test_learns_real_actions_and_grows_surer():
    # the surer, the smaller the steps: a mean that leaps over its spread is lost
    falling = keras.optimizers.schedules.PolynomialDecay(0.02, 12 * 4 * 8, 0.0)
    agent = small(Aim, optimizer=adam(falling), critic=net(1, 1))
    before = agent.evaluate(episodes=5)["return_mean"]  # aims at the middle, (3, 7)
    agent.fit(12 * 32 * 8, verbose=0)
    action = agent.predict(np.zeros(1, "float32"))
    np.testing.assert_allclose(action, [3, 5], atol=0.3)
    assert action.dtype == np.float32 and before == pytest.approx(-4, abs=0.1)
    spread = ops.convert_to_numpy(agent.policy.layers[-1].log_std)
    assert (spread < -0.5).all(), spread
    drawn = agent.predict(np.zeros((200, 1), "float32"), deterministic=False)
    assert drawn.shape == (200, 2) and drawn.std(axis=0).min() > 0


def test_learns_several_choices():
    agent = small(Pair, policy=net(1, 5), critic=net(1, 1))
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
    (x, (actions, behaviour, advantages, returns), played), rows = seen[0]
    assert rows.shape == (4 * 3, 8) and x.shape == (24, 2) and (played == 0).any()
    for epoch in rows.reshape(4, 24):
        assert sorted(epoch) == list(range(24))
    assert (rows[:3] != rows[3:6]).any()
    logits = ops.convert_to_numpy(agent.policy(x))
    np.testing.assert_allclose(behaviour, logits, rtol=1e-4, atol=1e-6)
    values = ops.convert_to_numpy(agent.learner.critic(x))[:, 0]
    np.testing.assert_allclose(returns - advantages, values, rtol=1e-3, atol=1e-4)


def test_learns_cartpole():
    agent = PPO(
        "CartPole-v1",
        optimizer=adam(1e-3),
        rollout_length=32,
        epochs=20,
        discount=0.98,
        trace=0.8,
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
def test_resumes_bit_for_bit_in_a_new_process(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay
    settings = {"num_envs": 4, "rollout_length": 10, "horizon": 50, "batch_size": 20}
    whole, part = (
        small(
            "Pendulum-v1",
            optimizer=adam(schedule(0.01, 200, 0.0)),
            clip_range=schedule(0.2, 200, 0.1),
            **settings,
        )
        for _ in range(2)
    )
    whole.fit(1_000, verbose=0)
    part.fit(450, verbose=0)
    assert_resumes(part, whole, 550, tmp_path / "agent")
    assert whole.rollouts == 5 > part.rollouts


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

    small(Choice, policy=net(3, 3)).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="must give"):  # other numbers of outputs
        PPO.load(tmp_path / "agent", Push)

    class Two(Choice):
        action_space = gym.spaces.Discrete(2)

    agent = small(Two, policy=net(3, 2))
    agent.save(tmp_path / "agent")
    rule = r"another space.*Received: Categorical\(n=2\) in.*DiagonalGaussian\(size=1\)"
    with pytest.raises(ValueError, match=rule):
        PPO.load(tmp_path / "agent", Push)


def test_the_default_batch_divides_the_rollout():
    sizes = {
        (8, 128): 256,
        (1, 128): 128,
        (3, 128): 192,
        (8, 5): 40,
    }
    for (count, length), size in sizes.items():
        agent = PPO("CartPole-v1", num_envs=count, rollout_length=length)
        assert agent.batch_size == agent.config["batch_size"] == size


def test_the_default_optimizer_is_that_of_the_literature():
    optimizer = PPO("CartPole-v1").learner.optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert optimizer.epsilon == 1e-5 and optimizer.global_clipnorm == 0.5
    assert float(ops.convert_to_numpy(optimizer.learning_rate)) == np.float32(3e-4)


def test_an_action_without_axes_is_no_integer():
    class Knob(Choice):
        action_space = gym.spaces.Box(-2.0, 1.0, (), np.float32)

    action = small(Knob, critic=net(3, 1)).predict(np.zeros(3))
    assert np.shape(action) == () and action == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 7}, r"rollout_length = 1024. Received: batch_size=7"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"batch_size": 1}, "at least 2. Received: batch_size=1"),
        ({"epochs": 0}, "Received: epochs=0"),
        ({"clip_range": 0.0}, "Received: clip_range=0"),
        ({"policy": net(4, 3)}, r"give \(batch, 2\).*output shape \(batch, 3\)"),
        ({"critic": net(4, 2)}, r"critic must give \(batch, 1\).*Received"),
        ({"rollout_length": 0}, "Received: rollout_length=0"),
        ({"discount": 1.1}, "Received: discount=1.1"),
        ({"trace": -0.1}, "Received: trace=-0.1"),
        ({"environment": "Pendulum-v1", "policy": net(3, 1)}, r"give \(batch, 2\)"),
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


def test_names_the_environment_that_gives_nan():
    faulty = gym.vector.SyncVectorEnv([Corridor, lambda: Corridor(fault="reward")])
    with pytest.raises(ValueError, match="reward=nan at step 1 of environment 1"):
        small(faulty, batch_size=4).fit(10, verbose=0)
