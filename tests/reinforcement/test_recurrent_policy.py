"""Tests of dlcompanion.reinforcement.recurrent_policy."""

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Aim, Corridor, Recall, Signs
from keras import layers, ops

from dlcompanion import autodiff
from dlcompanion.reinforcement import PPO, Normalizer, RecurrentPPO, ppo
from dlcompanion.reinforcement.networks.action_distributions import (
    Categorical,
    DiagonalGaussian,
)
from dlcompanion.reinforcement.recurrent_policy import RecurrentProximalPolicy
from dlcompanion.testing import check_agent, check_model

numpy = ops.convert_to_numpy


def net(inputs, outputs, units=6, cell=None):
    observations, states = keras.Input((inputs,)), keras.Input((units,))
    h, new = (cell or layers.GRUCell(units))(observations, states)
    y = layers.Dense(outputs, kernel_initializer="glorot_normal")(h)
    return keras.Model([observations, states], [y, new])


def adam(rate=0.03):
    return keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5)


def small(environment=Recall, inputs=2, outputs=2, **kwargs):
    """An agent whose update is cheap."""
    settings = {"seed": 0, "num_envs": 16, "rollout_length": 10, "horizon": 20}
    settings |= {"batch_size": 160, "update_epochs": 6, "optimizer": adam()}
    settings |= {"policy": net(inputs, outputs), "critic": net(inputs, 1, 5)}
    return RecurrentPPO(environment, **{**settings, **kwargs})


def piece(kind, batch=4, time=5, seed=0):
    """Inputs and targets of the learner."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, time, 3)).astype("float32")
    begins = (rng.random((batch, time)) < 0.3).astype("float32")
    states = [rng.normal(size=(batch, n)).astype("float32") for n in (6, 5)]
    behavior = rng.normal(size=(batch * time, kind.outputs)).astype("float32")
    actions = kind.sample(behavior, rng)
    actions = actions.astype("int32" if actions.dtype.kind == "i" else "float32")
    y = [actions, behavior, *rng.normal(size=(2, batch * time)).astype("float32")]
    return [x, begins, *states], tuple(v.reshape(batch, time, *v.shape[1:]) for v in y)


# -- the learner ------------------------------------------------------------------


def test_contract():
    def cell(units):  # TensorFlow has no orthogonal matrix of bfloat16
        return layers.GRUCell(units, recurrent_initializer="glorot_uniform")

    kind = DiagonalGaussian(2)
    x, y = piece(kind, batch=8, time=3)
    check_model(
        RecurrentProximalPolicy,
        lambda: {
            "policy": net(3, kind.outputs, cell=cell(6)),
            "critic": net(3, 1, 5, cell(5)),
            "distribution": kind,
            "entropy_weight": 0.1,
        },
        x,
        y,
        compile_kwargs=lambda: {"optimizer": keras.optimizers.Adam(0.01)},
        skip=["float64"],  # agents give float32 under any floatx
    )


def learner_of(kind, units=6, cells=(None, None)):
    policy, critic = net(3, kind.outputs, units, cells[0]), net(3, 1, 5, cells[1])
    learner = RecurrentProximalPolicy(policy, critic, kind)
    learner.build(None)
    return learner


def test_the_pass_is_that_of_a_recurrent_layer_and_so_is_its_gradient():
    kind = Categorical(3)
    (x, begins, h, g), _ = piece(kind)
    learner = learner_of(kind)
    layer = layers.GRU(6, return_sequences=True)  # Keras's own loop over the sequence
    layer.build(x.shape)
    cell, head = learner.policy.layers[2:]
    layer.set_weights(cell.get_weights())
    weights = np.random.default_rng(1).normal(size=(4, 5, 3)).astype("float32")

    def ours():
        outputs, _ = learner([x, 0 * begins, h, g])
        return ops.sum(ops.convert_to_tensor(weights) * outputs), outputs

    def keras_own():
        outputs = head(layer(x, initial_state=ops.convert_to_tensor(h)))
        return ops.sum(ops.convert_to_tensor(weights) * outputs), outputs

    (_, got), gradients = autodiff.value_and_grad(
        ours, variables=cell.trainable_variables, has_aux=True
    )()
    (_, want), expected = autodiff.value_and_grad(
        keras_own, variables=layer.trainable_variables, has_aux=True
    )()
    np.testing.assert_allclose(numpy(got), numpy(want), rtol=1e-4, atol=1e-6)
    for a, b in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-4, atol=1e-5)


def test_what_was_before_a_beginning_changes_nothing_after_it():
    kind = Categorical(3)
    (x, begins, h, g), _ = piece(kind)
    begins[:] = [0, 0, 1, 0, 0]
    learner = learner_of(kind)
    before = learner([x, begins, h, g])
    x[:, :2], h, g = 7.0, h + 1e30, np.full_like(g, np.nan)
    after = learner([x, begins, h, g])
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(numpy(a)[:, 2:], numpy(b)[:, 2:])
        assert (numpy(a)[:, :2] != numpy(b)[:, :2]).any()
    # and a piece that begins there gives the same
    zeros = [np.zeros_like(h), np.zeros_like(g)]
    fresh = learner([x[:, 2:], 0 * begins[:, 2:], *zeros])
    for a, b in zip(before, fresh, strict=True):
        np.testing.assert_allclose(numpy(a)[:, 2:], numpy(b), rtol=1e-5, atol=1e-6)


def test_one_update_is_that_of_the_same_steps_without_memory():
    # networks that forget at once: each step stands for itself
    class Forgetful(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4, "tanh")

        def call(self, inputs, states):
            return self.dense(inputs), ops.zeros_like(states)

    kind = Categorical(3)
    (x, begins, h, g), y = piece(kind)
    weights = np.random.default_rng(3).integers(0, 2, (4, 5)).astype("float32")
    remembering = learner_of(kind, cells=(Forgetful(), Forgetful()))
    plain = ppo.ProximalPolicy(
        *(
            keras.Sequential(
                [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(n)]
            )
            for n in (3, 1)
        ),
        kind,
    )
    plain.build(None)
    plain.set_weights(remembering.get_weights())
    for learner in (remembering, plain):
        learner.compile(keras.optimizers.SGD(0.1))
    logs = remembering.train_on_batch([x, begins, h, g], y, weights, return_dict=True)
    rows = [v.reshape(20, *v.shape[2:]) for v in (x, *y, weights)]
    expected = plain.train_on_batch(
        rows[0], tuple(rows[1:5]), rows[5], return_dict=True
    )
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    for a, b in zip(remembering.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# -- the agent --------------------------------------------------------------------


RECALL = {"num_envs": 32, "rollout_length": 8, "horizon": 8, "batch_size": 256}


def recalled(seed):
    """What was learned from 320 episodes: returns while learning and after, error."""
    keras.utils.set_random_seed(seed)
    agent = small(seed=seed, **RECALL)
    history = agent.fit(10 * 256, verbose=0).history
    greedy = agent.evaluate(episodes=40)["return_mean"]
    return np.mean(history["return_mean"][-3:]), greedy, history["value_loss"][-1]


@pytest.mark.once
@pytest.mark.parametrize("seed", range(3))
def test_learns_what_has_to_be_remembered(seed):
    played, greedy, error = recalled(seed)
    assert greedy > 0.95 and played > 0.8  # by chance 0.5
    assert 0 <= error < 0.15  # that of always 1/2 is 0.25


@pytest.mark.once
@pytest.mark.parametrize("turned", ["clipped_surrogate_loss", "squared_error"])
def test_each_sign_matters(turned, monkeypatch):
    right = getattr(ppo, turned)
    monkeypatch.setattr(ppo, turned, lambda *args: -right(*args))
    played, _, error = recalled(seed=1)
    if turned == "clipped_surrogate_loss":
        assert played < 0.7
    else:
        assert error < 0


@pytest.mark.once
def test_nothing_without_a_memory_learns_it():
    for seed in range(2):
        agent = PPO(Recall, optimizer=adam(), update_epochs=6, seed=seed, **RECALL)
        agent.fit(10 * 256, verbose=0)
        assert 0.25 < agent.evaluate(episodes=40)["return_mean"] < 0.75


def spied(agent):
    """The arguments of each update phase, and of the learner before it."""
    phases, right = [], agent.learner.train_on_batches

    def spy(data, rows):
        said = [numpy(x) for x in agent.learner(data[0])]
        phases.append((data, rows, said))
        return right(data, rows)

    agent.learner.train_on_batches = spy
    return phases


SAME_STEP = gym.vector.AutoresetMode.SAME_STEP


def same_step():
    return gym.vector.SyncVectorEnv([Corridor] * 4, autoreset_mode=SAME_STEP)


@pytest.mark.once
@pytest.mark.parametrize("environment", [Corridor, same_step])
@pytest.mark.parametrize("normalizer", [None, Normalizer])
def test_what_learns_is_what_was_played(environment, normalizer):
    agent = small(
        environment() if environment is same_step else environment,
        num_envs=4,
        batch_size=20,
        update_epochs=4,
        horizon=30,
        normalizer=normalizer and normalizer(),
    )
    phases = spied(agent)
    agent.fit(160 if normalizer else 120, verbose=0)  # 40 for the statistics alone
    assert len(phases) == 3
    for n, (data, rows, (outputs, values)) in enumerate(phases):
        (x, begins, h, g), (_, behavior, advantages, returns), mask = data
        assert x.shape == (4, 10, 2) and rows.shape == (4 * 2, 2)
        assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in rows.reshape(4, 4))
        # the pass that learns gives what was played, across the ends of episodes
        np.testing.assert_allclose(outputs, behavior, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(returns - advantages, values, rtol=1e-3, atol=1e-4)
        # a memory is empty where an episode begins and nowhere else
        assert begins[:, 1:].any() and (begins[:, 0].all() or n or normalizer)
        for state in (h, g):
            np.testing.assert_array_equal((state == 0).all(axis=1), begins[:, 0])
        assert (mask == 0).any() == (environment is Corridor)
        assert (begins[:, 1:] >= 1 - mask[:, :-1]).all()  # after a reset


def test_the_first_step_changes_nothing_yet():
    agent = small(Corridor, num_envs=4, batch_size=40, horizon=10, update_epochs=1)
    logs = agent.fit(40, verbose=0).history  # one update: before it all ratios are 1
    assert logs["kl"][0] < 1e-8 and logs["clip_fraction"] == [0]


class Counted(gym.Env):
    """Seen is the number of the episode, from 1 on; five steps each."""

    observation_space = gym.spaces.Box(0, 1e6, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    episode = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.full(1, self.episode, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.episode, np.float32), 1.0, self.time == 5, False, {}


def adding(outputs):
    """A memory that adds up all it sees, and says so."""
    observations, states = keras.Input((1,)), keras.Input((1,))
    total = layers.Add()([observations, states])
    return keras.Model(
        [observations, states],
        [layers.Dense(outputs, kernel_initializer="ones")(total), total],
    )


@pytest.mark.once
def test_a_memory_never_leaks_across_the_end_of_an_episode():
    agent = small(
        Counted,
        policy=adding(2),
        critic=adding(1),
        num_envs=2,
        rollout_length=4,
        batch_size=8,
        horizon=12,
        optimizer=keras.optimizers.SGD(0.0),
    )
    phases = spied(agent)
    agent.fit(24, verbose=0)
    sums = np.concatenate([d[1][1][0, :, 0] for d, _, _ in phases])
    mask = np.concatenate([d[2][0] for d, _, _ in phases])
    # episodes 1 and 2, an unplayed row after each: multiples of the episode's number
    np.testing.assert_array_equal(mask, [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(sums[mask > 0], [1, 2, 3, 4, 5, 2, 4, 6, 8, 10])
    # the state is carried from piece to piece
    assert [d[0][2][0, 0] for d, _, _ in phases] == [0, 4, 4]
    # what follows the end of an episode is judged with the memory of that episode: the
    # last reward alone counts there, and elsewhere the next sum
    _, (_, _, advantages, returns), _ = phases[0][0]
    values = returns - advantages
    np.testing.assert_allclose(values[0], [1, 2, 3, 4], rtol=1e-6)
    after = 1 + 0.99 * 5 - 4  # the fifth sum, which the next piece plays
    assert advantages[0, -1] == pytest.approx(after, rel=1e-5)


def test_evaluation_begins_each_episode_with_an_empty_memory():
    agent = small(Counted, policy=adding(2), critic=adding(1))
    sums, right = [], agent._finite
    agent._finite = lambda outputs: sums.append(outputs[:, 0].copy()) or right(outputs)
    agent.evaluate(episodes=40)
    assert len(sums) == 10  # two batches of twenty episodes
    for batch in (sums[:5], sums[5:]):
        first = batch[0]
        for n, total in enumerate(batch, 1):
            np.testing.assert_array_equal(total, n * first)


@pytest.mark.once
def test_a_rollout_that_was_broken_off_leaves_nothing_behind():
    settings = {"num_envs": 2, "batch_size": 20, "horizon": 10, "update_epochs": 1}
    settings |= {"policy": None, "critic": None}  # they follow from the seed
    whole, broken = (small(Corridor, **settings) for _ in range(2))
    vector = broken.environments.vector
    step, vector.step = vector.step, lambda actions: vector.no_such_method()
    with pytest.raises(AttributeError):
        broken.fit(20, verbose=0)
    assert broken._acted
    vector.step = step
    for agent in (whole, broken):
        agent.fit(20, verbose=0)
    for a, b in zip(whole.learner.weights, broken.learner.weights, strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))


@pytest.mark.once
def test_predict_gives_the_state_back():
    agent = small(Recall)
    x = np.random.default_rng(0).normal(size=(7, 3, 2)).astype("float32")
    state, states, alone = None, None, []
    h, want = np.zeros((3, 6), "float32"), []
    for observations in x:
        actions, states = agent.predict(observations, states)
        action, state = agent.predict(observations[1], state)
        outputs, h = map(numpy, agent.policy([observations, h]))
        want.append(outputs.argmax(axis=1))
        np.testing.assert_array_equal(actions, want[-1])
        np.testing.assert_allclose(states, h, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state, h[1], rtol=1e-4, atol=1e-5)
        alone.append(action)
    assert alone == [row[1] for row in want] and isinstance(action, int)
    drawn = {agent.predict(x[0, 0], deterministic=False)[0] for _ in range(60)}
    assert drawn == {0, 1}


@pytest.mark.once
def test_learns_real_actions():
    agent = small(
        Aim,
        policy=None,
        critic=None,
        num_envs=8,
        rollout_length=4,
        batch_size=32,
        update_epochs=4,
        horizon=8,
        optimizer=adam(keras.optimizers.schedules.PolynomialDecay(0.02, 160, 0.0)),
    )
    before = agent.evaluate(episodes=5)["return_mean"]  # aims at the middle, (3, 7)
    agent.fit(20 * 64, verbose=0)
    action, state = agent.predict(np.zeros(1, "float32"))
    assert state.shape == (64,) and action.dtype == np.float32
    assert before == pytest.approx(-4, abs=0.3)
    assert agent.evaluate(episodes=5)["return_mean"] > -0.5


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_the_agent():
    schedule = keras.optimizers.schedules.PolynomialDecay
    check_agent(
        RecurrentPPO,
        lambda: {
            "optimizer": adam(schedule(0.02, 800, 0.01)),
            "clip_range": schedule(0.2, 800, 0.1),
            "normalizer": Normalizer(),
            "num_envs": 8,
            "rollout_length": 5,
            "horizon": 10,
            "batch_size": 20,
            "update_epochs": 4,
        },
        Signs,
        learns=(2_400, 1.0),
        refuses=["FrozenLake-v1"],
    )


def test_a_cell_of_any_kind_will_do(tmp_path):
    def two_states(inputs, outputs, units=6):
        observations, both = keras.Input((inputs,)), keras.Input((units,))
        h, c = both[:, : units // 2], both[:, units // 2 :]
        h, (_, c) = layers.LSTMCell(units // 2)(observations, [h, c])
        new = layers.Concatenate()([h, c])
        return keras.Model([observations, both], [layers.Dense(outputs)(h), new])

    agent = small(policy=two_states(2, 2), critic=net(2, 1, 5, layers.SimpleRNNCell(5)))
    phases = spied(agent)
    agent.fit(320, verbose=0)
    for (_, (_, behavior, _, _), _), _, (outputs, _) in phases:
        np.testing.assert_allclose(outputs, behavior, rtol=1e-4, atol=1e-5)
    agent.save(tmp_path / "agent")
    again = RecurrentPPO.load(tmp_path / "agent", Recall)
    x = np.ones((3, 2), "float32")
    for a, b in zip(agent.predict(x), again.predict(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"batch_size": 32, "rollout_length": 64},
            "multiple of it. Received: batch_size=32, rollout_length=64",
        ),
        ({"batch_size": 7}, "must divide .* Received: batch_size=7"),
        ({"policy": net(4, 3)}, r"policy must give .*\(batch, 2\).*Received"),
        ({"critic": net(4, 2)}, r"critic must give .*\(batch, 1\).*Received"),
        ({"critic": keras.Sequential([layers.Dense(1)])}, "two inputs.*Received"),
        ({"normalizer": 1}, "Received: normalizer=1"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentPPO("CartPole-v1", **arguments)


def test_the_default_batch_is_of_whole_environments():
    for count, length, size in ((8, 128, 256), (3, 128, 128), (2, 300, 300)):
        agent = RecurrentPPO("CartPole-v1", num_envs=count, rollout_length=length)
        assert agent.batch_size == size


def test_networks_must_not_share_layers():
    cell = layers.GRUCell(6)
    with pytest.raises(ValueError, match="must not share layers.*Received: policy="):
        small(policy=net(2, 2, 6, cell), critic=net(2, 1, 6, cell))


@pytest.mark.once
@pytest.mark.parametrize(
    "state",
    [np.zeros(5), np.zeros((1, 6)), np.full(6, np.nan), np.zeros((3, 6)), 0.0],
)
def test_predict_rejects_another_state(state):
    agent = small()
    with pytest.raises(
        ValueError, match=r"has shape \(6,\) here.*Received: state.shape"
    ):
        agent.predict(np.zeros(2), state)
    with pytest.raises(ValueError, match=r"shape \(2,\), a batch"):
        agent.predict(np.zeros(3), np.zeros(6))
