"""Tests of dlcompanion.reinforcement.rainbow."""

from pathlib import Path

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Choice, Later, Signs
from helpers.toy_networks import net
from keras import ops

from dlcompanion.reinforcement import (
    DQN,
    DuelingHead,
    NoisyDense,
    PrioritizedReplay,
    Rainbow,
)
from dlcompanion.reinforcement import rainbow as module
from dlcompanion.reinforcement.agents.rollout import RolloutCollector
from dlcompanion.reinforcement.dqn import DeepQ
from dlcompanion.reinforcement.rainbow import (
    CategoricalQ,
    categorical_projection,
    check_support,
)
from dlcompanion.testing import check_agent, check_model

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
        "target_update_interval": 16,
        "learning_starts": 32,
        "exploration_steps": 1_000,
        "value_range": (0.0, 2.0),
        "optimizer": keras.optimizers.Adam(0.005),
        "atoms": 11,
    }
    return Rainbow(environment, **{**settings, **kwargs})


def values(agent, observations):
    with agent.actor.held():
        return agent._outputs(np.array(observations, "float32"))[0]


@pytest.mark.once
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
    wait = RolloutCollector(agent.environments, 0).play(
        lambda x: np.zeros(len(x), int), 6
    )
    agent.learn_from_rollout(wait, np.random.default_rng(0))
    columns = agent.replay.take(np.arange(len(agent.replay)))
    seen = columns["reward"][columns["observation"][:, 0] == 0]
    assert seen.max() == (0.0 if name == "n_step" else pytest.approx(0.99 * 2))


FAULTS = ["loss", "bootstrap"]


@pytest.mark.once
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
        target_update_interval=8,
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
    (one, _), (two, _) = (agent._outputs(x, exploring=True) for _ in range(2))
    assert (one != two).any()
    assert agent._player(False, np.random.default_rng(0))(x).shape == (64,)
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
            k: ours.config[k]
            for k in ("target_update_interval", "exploration_steps", "num_envs")
        },
    )
    plain.fit(300, verbose=0)
    for a, b in zip(ours.policy.weights, plain.policy.weights, strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (a, b)), rtol=1e-5)


@pytest.mark.once
def test_what_surprised_is_remembered():
    agent = small(Later, **ON)
    agent.fit(600, verbose=0)
    p = agent.replay.probabilities()
    assert p.max() > 3 * p.min()
    assert agent.replay.largest >= 1.0


@pytest.mark.once
def test_returns_beyond_the_grid_are_named():
    # Signs pays up to 1 a step, for 6 steps: within (-6, 6), once with 1 more each step
    agent = small(Signs, discount=1.0, value_range=(-6.0, 6.0))
    agent.fit(256, verbose=0)

    def richer():
        return gym.wrappers.TransformReward(Signs(), lambda reward: reward + 2.0)

    agent = small(richer, discount=1.0, value_range=(-6.0, 6.0), seed=0)
    with pytest.warns(UserWarning, match=r"to 1.* were played.*value_range=\(-6, 6\)"):
        agent.fit(256, verbose=0)
    agent.fit(64, verbose=0)  # it is said once
    small(richer, discount=1.0, atoms=None).fit(64, verbose=0)  # nothing is clipped


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    check_agent(
        Rainbow,
        lambda: {
            **ON,
            "optimizer": keras.optimizers.Adam(0.01),
            "discount": 0.5,
            "value_range": (-2.0, 2.0),
            "num_envs": 8,
            "rollout_length": 4,
            "horizon": 8,
            "batch_size": 16,
            "gradient_steps": 8,
            "learning_starts": 32,
            "target_update_interval": 11,  # saved in the middle of a target's life
            "buffer_size": 90,  # and of a ring
        },
        Signs,
        learns=(800, 1.2),
        refuses=["Pendulum-v1"],
    )


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
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        Rainbow(**{"environment": "CartPole-v1", **arguments})


FILE = Path(__file__).parents[1] / "references/categorical_returns.npz"


@pytest.fixture(scope="module")
def rlax():
    with np.load(FILE) as file:
        return {name: file[name] for name in file.files}


def project(values, probabilities, support):
    return ops.convert_to_numpy(categorical_projection(values, probabilities, support))


@pytest.mark.parametrize("grid", ["even", "uneven"])
def test_equals_rlax(rlax, grid):
    got = project(
        rlax["in/values"], rlax["in/probabilities"], rlax[f"in/{grid}/support"]
    )
    np.testing.assert_allclose(got, rlax[f"out/{grid}/projected"], rtol=1e-5, atol=1e-6)


def random_distributions(scale, n=9, batch=50):
    rng = np.random.default_rng(0)
    values = rng.uniform(-scale, scale, size=(batch, n)).astype("float32")
    return values, rng.dirichlet(np.ones(n), size=batch).astype("float32")


def test_keeps_all_mass_and_inside_the_grid_the_mean():
    support = np.array([-3.0, -1.0, -0.5, 0.0, 2.0, 3.0], "float32")
    q = project(*random_distributions(9.0), support)
    assert q.min() >= 0
    np.testing.assert_allclose(q.sum(axis=1), 1.0, rtol=1e-5)
    values, p = random_distributions(3.0)
    q = project(values, p, support)
    np.testing.assert_allclose(q @ support, (p * values).sum(1), rtol=1e-4, atol=1e-5)


def test_leaves_what_is_on_the_grid():
    support = np.linspace(-1, 1, 9, dtype="float32")
    _, p = random_distributions(1.0)
    np.testing.assert_allclose(
        project(np.tile(support, (50, 1)), p, support), p, atol=1e-6
    )


@pytest.mark.parametrize("bad", [[1.0], [0.0, 0.0], [2.0, 1.0], [[0.0, 1.0]]])
def test_categorical_returns_rejects(bad):
    with pytest.raises(ValueError, match="support must be increasing.*Received: supp"):
        check_support(bad)
    with pytest.raises(ValueError, match="support must be increasing"):
        categorical_projection([[0.0]], [[1.0]], bad)


def atom_net(inputs=3, actions=2, atoms=5):
    last = [keras.layers.Reshape((actions, atoms))] if atoms else []
    dense = keras.layers.Dense(actions * (atoms or 1))
    return keras.Sequential([keras.Input((inputs,)), dense, *last])


def batch(count=8, inputs=3, actions=2, seed=0):
    rng = np.random.default_rng(seed)
    x, next_observations = rng.normal(size=(2, count, inputs)).astype("float32")
    rewards = rng.normal(size=count).astype("float32")
    discounts = (0.9 * (rng.random(count) < 0.7)).astype("float32")
    return x, (
        rng.integers(0, actions, count).astype("int32"),
        rewards,
        next_observations,
        discounts,
    )


def test_contract():
    x, y = batch()
    check_model(
        CategoricalQ,
        lambda: {"network": atom_net(), "support": [-1.0, 0.0, 1.0, 2.0, 4.0]},
        x,
        y,
        compile_kwargs={"optimizer": "adam"},
        skip=["float64"],  # agents give float32 under any floatx
    )


class Fixed(CategoricalQ):
    """Answers with logits that were worked out before."""

    def outputs_of(self, network, observations):
        return ops.convert_to_tensor(self.answers[network is self.network])


@pytest.mark.parametrize("double", [False, True])
def test_cross_entropy_is_that_of_rlax(double):
    with np.load(FILE) as file:
        rlax = {name: file[name] for name in file.files}
    learner = Fixed(
        atom_net(3, 3, 7),
        support=rlax["in/even/support"].tolist(),
        double=double,
    )
    object.__setattr__(learner, "answers", [rlax["in/following"], rlax["in/choice"]])
    columns = [rlax[f"in/{name}"] for name in ("rewards", "following", "discounts")]
    targets = learner.targets(*map(ops.convert_to_tensor, columns))
    np.testing.assert_allclose(ops.convert_to_numpy(targets).sum(1), 1.0, rtol=1e-5)
    object.__setattr__(learner, "answers", [None, rlax["in/logits"]])
    weights = np.random.default_rng(0).uniform(size=16).astype("float32")
    loss, (_, errors) = learner.loss_and_errors(
        None, ops.convert_to_tensor(rlax["in/actions"]), targets, weights
    )
    want = rlax["out/double" if double else "out/cross_entropy"]
    assert float(loss) == pytest.approx((weights * want).mean(), rel=1e-5)
    p = ops.convert_to_numpy(targets)
    entropy = -np.where(p > 0, p * np.log(np.maximum(p, 1e-30)), 0.0).sum(axis=1)
    errors = ops.convert_to_numpy(errors)
    np.testing.assert_allclose(errors, want - entropy, rtol=1e-4, atol=1e-5)
    assert (errors > -1e-6).all()  # a divergence


def test_values_are_the_means():
    learner = CategoricalQ(atom_net(), support=[0.0, 1.0, 2.0, 3.0, 10.0])
    x, _ = batch()
    logits = ops.convert_to_numpy(learner.network(x))
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    want = (p * [0.0, 1.0, 2.0, 3.0, 10.0]).sum(axis=-1)
    np.testing.assert_allclose(ops.convert_to_numpy(learner(x)), want, rtol=1e-5)


def test_without_support_it_is_deep_q():
    x, y = batch()
    ours, plain = (
        CategoricalQ(atom_net(atoms=None)),
        DeepQ(atom_net(atoms=None)),
    )
    plain.network.set_weights(ours.network.get_weights())
    for learner in (ours, plain):
        learner.build((None, 3))
        learner.compile(keras.optimizers.SGD(0.1))
        learner.train_on_batch(x, y)
    for a, b in zip(ours.get_weights(), plain.get_weights(), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_noise_is_for_learning():
    layers = [keras.Input((3,)), NoisyDense(2, seed=0)]
    learner = CategoricalQ(keras.Sequential(layers), noisy=True)
    x = ops.ones((1, 3))
    np.testing.assert_array_equal(*(ops.convert_to_numpy(learner(x)) for _ in range(2)))
    noisy = [
        ops.convert_to_numpy(learner.outputs_of(learner.network, x)) for _ in range(2)
    ]
    assert (noisy[0] != noisy[1]).any()


@pytest.mark.once
def test_categorical_q_rejects():
    with pytest.raises(ValueError, match="support must be increasing"):
        CategoricalQ(atom_net(), support=[1.0, 0.0])
