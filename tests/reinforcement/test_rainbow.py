"""Tests of dlcompanion.reinforcement.rainbow."""

import keras
import numpy as np
import pytest
from keras import ops
from resume import assert_resumes
from toy_environments import Choice, Later
from toy_networks import net

from dlcompanion.reinforcement import (
    DQN,
    DuelingHead,
    NoisyDense,
    PrioritizedReplay,
    Rainbow,
    Stream,
)
from dlcompanion.reinforcement import categorical_q as module

OFF = {
    "double": False,
    "dueling": False,
    "prioritized": False,
    "n_step": 1,
    "atoms": None,
    "noisy": False,
}
ON = {
    "double": True,
    "dueling": True,
    "prioritized": True,
    "n_step": 3,
    "atoms": 11,
    "noisy": True,
}


def small(environment=Choice, **kwargs):
    """An agent whose update compiles quickly."""
    settings = {
        "seed": 0,
        "num_envs": 8,
        "rollout_length": 8,
        "horizon": 16,
        "batch_size": 16,
        "gradient_steps": 16,
        "target_every": 16,
        "learning_starts": 32,
        "exploration_steps": 1_000,
        "value_range": (0.0, 2.0),
        "optimizer": keras.optimizers.Adam(0.005),
        "atoms": 11,
    }
    return Rainbow(environment, **{**settings, **kwargs})


def values(agent, observations):
    agent._in_numpy.refresh()
    return agent._outputs(np.array(observations, "float32"))


@pytest.mark.parametrize("name", [None, *ON])
def test_each_part_is_switched(name):
    agent = small(Later, **{**ON, **({name: OFF[name]} if name else {})})
    layers = agent.policy.layers
    head = layers[-1]
    assert isinstance(head, DuelingHead) == (name != "dueling")
    noisy = [x for x in layers if isinstance(x, NoisyDense)]
    assert bool(noisy) == (name != "noisy")
    assert isinstance(agent.replay, PrioritizedReplay) == (name != "prioritized")
    assert agent.learner.double == (name != "double")
    shape = (None, 2) if name == "atoms" else (None, 2, 11)
    assert agent.policy.output_shape == shape
    assert agent.epsilon == (1.0 if name == "noisy" else 0.0)
    agent.learning_starts = 1_000  # only remember
    wait = Stream(agent.environments, 0).play(lambda x: np.zeros(len(x), int), 6)
    agent.digest(wait, np.random.default_rng(0))
    columns = agent.replay.take(np.arange(len(agent.replay)))
    seen = columns["reward"][columns["observation"][:, 0] == 0]
    assert seen.max() == (0.0 if name == "n_step" else pytest.approx(0.99 * 2))


FAULTS = ["loss", "bootstrap"]


@pytest.mark.parametrize("fault", [None, "off", *FAULTS])
def test_learns_to_wait_and_each_sign_matters(fault, monkeypatch):
    if fault == "loss":
        right = ops.log_softmax
        monkeypatch.setattr(module.ops, "log_softmax", lambda x: -right(x))
    if fault == "bootstrap":
        right = module.categorical_projection
        monkeypatch.setattr(
            module, "categorical_projection", lambda z, p, g: right(-z, p, g)
        )
    agent = small(
        Later,
        **(OFF if fault == "off" else ON),
        discount=0.9,
        gradient_steps=8,
        target_every=8,
        optimizer=keras.optimizers.Adam(0.01),
    )
    agent.fit(1_300, verbose=0)
    got = values(agent, [[0, 1], [1, 1]])
    learned = got[0, 0] > got[0, 1] + 0.3 and abs(got[0, 1] - 1.0) < 0.3
    learned &= abs(got[1].max() - 2.0) < 0.3
    if fault in FAULTS:
        assert not learned
    else:
        assert learned, got
        assert agent.evaluate(episodes=5)["return_mean"] == 2.0


def test_noise_explores_and_evaluation_has_none():
    agent = small(network=None, **ON)
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    one, two = (ops.convert_to_numpy(agent._explorer(x)) for _ in range(2))
    assert (one != two).any()
    assert agent._sample(x, None).shape == (64,)
    np.testing.assert_array_equal(agent.predict(x), agent.predict(x))


def test_with_all_off_it_is_dqn():
    network = net(3, 3)
    start = network.get_weights()
    ours = small(network=network, **OFF)
    ours.fit(300, verbose=0)
    network = net(3, 3)
    network.set_weights(start)
    plain = DQN(
        Choice,
        network=network,
        optimizer=keras.optimizers.Adam(0.005),
        **{k: ours.config[k] for k in ("batch_size", "learning_starts", "horizon")},
        **{k: ours.config[k] for k in ("rollout_length", "gradient_steps", "seed")},
        **{
            k: ours.config[k] for k in ("target_every", "exploration_steps", "num_envs")
        },
    )
    plain.fit(300, verbose=0)
    for a, b in zip(ours.policy.weights, plain.policy.weights, strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (a, b)), rtol=1e-5)


def test_what_surprised_is_remembered():
    agent = small(Later, **ON)
    agent.fit(600, verbose=0)
    p = agent.replay.probabilities()
    assert p.max() > 3 * p.min()
    assert agent.replay.largest >= 1.0


@pytest.mark.slow  # the new process imports Keras and its backend
def test_resumes_bit_for_bit_in_a_new_process(tmp_path):
    settings = {**ON, "rollout_length": 10, "horizon": 30, "buffer_size": 300}
    settings |= {"target_every": 37, "value_range": (0, 100)}
    whole, part = (small("CartPole-v1", **settings) for _ in range(2))
    whole.fit(1_000, verbose=0)
    part.fit(450, verbose=0)
    assert_resumes(part, whole, 550, tmp_path / "agent")
    assert whole.rollouts > part.rollouts


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_step": 0}, "Received: n_step=0"),
        ({"atoms": 1}, "Received: atoms=1"),
        ({"value_range": (1.0, 1.0)}, r"smaller one first.*value_range=\(1.0, 1.0\)"),
        ({"value_range": 5}, "Received: value_range=5"),
        ({"value_range": (0.0, np.inf)}, "two finite numbers"),
        ({"priority_exponent": -1}, "Received: priority_exponent=-1"),
        ({"importance_exponent": 2}, "Received: importance_exponent=2"),
        ({"network": "mlp"}, "must be a keras.Model. Received: network='mlp'"),
        (
            {"network": net(4, 2)},
            r"give \(batch, 2, 51\).*Received: network=.*shape \(batch, 2\)",
        ),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"environment": "Pendulum-v1"}, "Received: action_space="),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rainbow(**{"environment": "CartPole-v1", **arguments})
