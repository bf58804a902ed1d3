"""Tests of dlcompanion.reinforcement.normalized_environments."""

from pathlib import Path

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Choice, Corridor, Signs
from keras import ops

from dlcompanion.reinforcement import A2C, PPO, Normalizer
from dlcompanion.reinforcement.agents.rollout import Rollout
from dlcompanion.reinforcement.normalized_environments import RunningStatistics
from dlcompanion.testing import check_agent

REFERENCE = Path(__file__).parents[1] / "references/normalized_environments.npz"


def rollout_of(rewards, dones=None, mask=None, observations=None):
    """A rollout of which only this matters."""
    rewards = np.asarray(rewards, "float64")
    no = np.zeros(rewards.shape, bool)
    dones = no if dones is None else dones
    mask = ~no if mask is None else mask
    if observations is None:
        observations = np.zeros((*rewards.shape, 1), "float32")
    return Rollout(observations, None, rewards, observations, no, dones, mask)


def built(shape=(1,), discount=0.9, count=3, **arguments):
    normalizer = Normalizer(**arguments)
    normalizer.build(shape, discount)
    normalizer.begin(count)
    return normalizer


def small(environment="CartPole-v1", agent=PPO, normalizer=None, **kwargs):
    """An agent whose update compiles quickly."""
    settings = {"seed": 0, "num_envs": 4, "rollout_length": 8, "horizon": 24}
    ppo = {"batch_size": 16, "update_epochs": 2}
    settings |= ppo if agent is PPO else {"critic_steps": 1}
    return agent(environment, normalizer=normalizer, **{**settings, **kwargs})


def weights_of(agent):
    state = agent.learner.variables + agent.learner.optimizer.variables
    return [ops.convert_to_numpy(v) for v in state]


# -- statistics -------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (4, 5, 2)])
def test_in_any_pieces_it_is_numpy_on_all_rows(shape):
    rng = np.random.default_rng(0)
    rows = 1e4 + 3 * rng.normal(size=(500, *shape)) * rng.uniform(0.1, 9, size=shape)
    for pieces in (1, 2, 7, 500):
        statistics = RunningStatistics(shape)
        cuts = np.sort(rng.integers(500, size=pieces - 1))  # some may be empty
        for piece in np.split(rows, cuts):
            statistics.update(piece)
        assert statistics.count == 500
        np.testing.assert_allclose(statistics.mean, rows.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(statistics.variance, rows.var(axis=0), rtol=1e-9)
        np.testing.assert_allclose(statistics.scale, rows.std(axis=0), rtol=1e-9)


def test_float32_rows_with_a_large_mean_lose_nothing():
    rows = np.random.default_rng(0).normal(1e4, 0.5, size=(1000, 2)).astype("float32")
    statistics = RunningStatistics((2,))
    for piece in np.split(rows, 10):
        statistics.update(piece)
    exact = rows.astype("float64").var(axis=0)
    np.testing.assert_allclose(statistics.variance, exact, rtol=1e-6)
    naive = np.square(rows).mean(axis=0) - np.square(rows.mean(axis=0))
    assert (abs(naive / exact - 1) > 0.1).all()


def test_what_does_not_vary_is_divided_by_one():
    statistics = RunningStatistics((3,))
    assert statistics.scale.tolist() == [1, 1, 1]  # nothing seen
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = np.full((7, 3), 0.1)  # whose mean is not exactly 0.1
        rows[:, 1] = rng.normal(size=7)
        rows[:, 2] = 1e-5 * rows[:, 1]  # small, but not constant
        statistics.update(rows)
    assert statistics.scale[0] == 1.0
    np.testing.assert_allclose(
        statistics.scale[1:], statistics.variance[1:] ** 0.5, rtol=1e-12
    )


# -- the normalizer ---------------------------------------------------------------


def test_equals_vecnormalize_of_stable_baselines3():
    with np.load(REFERENCE) as file:
        reference = dict(file)
    observations, rewards = reference["in/observations"], reference["in/rewards"]
    normalizer = built((3,), discount=0.9, count=3, clip=2.0)
    scaled = []
    for t in range(len(rewards)):  # it brings its statistics up to date every step
        one = slice(t, t + 1)
        rollout = rollout_of(
            rewards[one], reference["in/ends"][one], observations=observations[one]
        )
        normalizer.see_rewards(rollout)
        normalizer.see_observations(rollout)
        scaled.append(normalizer.scaled(rollout).rewards[0])
    for statistics, name in (
        (normalizer.seen, "seen"),
        (normalizer.returns, "returns"),
    ):
        for part, value in (("mean", statistics.mean), ("var", statistics.variance)):
            want = reference[f"out/{name}/{part}"]
            np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(scaled, reference["out/rewards"], rtol=1e-6, atol=1e-6)
    fresh = normalizer.scaled_observations(reference["in/fresh"])
    np.testing.assert_allclose(fresh, reference["out/fresh"], rtol=1e-5, atol=1e-6)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_sums():
    rng = np.random.default_rng(0)
    rewards, dones = rng.normal(size=(30, 3)) - 5, rng.random((30, 3)) < 0.2
    mask = np.ones((30, 3), bool)
    mask[1:] = ~dones[:-1]  # NEXT_STEP: after an end a row that is only a reset
    dones &= mask
    sums, total = [], np.zeros(3)
    for t in range(30):
        for n in range(3):
            if mask[t, n]:
                total[n] = 0.9 * total[n] + rewards[t, n]
                sums.append(total[n])
            if dones[t, n]:
                total[n] = 0.0
    normalizer = built(clip=100.0)
    for t in (slice(0, 11), slice(11, 12), slice(12, 30)):
        normalizer.see_rewards(rollout_of(rewards[t], dones[t], mask[t]))
    assert normalizer.returns.count == mask.sum()
    scaled = normalizer.scaled(rollout_of(rewards)).rewards
    np.testing.assert_allclose(scaled, rewards / np.std(sums), rtol=1e-9)


@pytest.mark.parametrize("factor", [1000.0, 1e-3])
def test_rewards_times_a_thousand_are_the_same(factor):
    rewards = np.random.default_rng(0).normal(1, 3, size=(40, 3))
    rollouts = [rollout_of(rewards * x) for x in (1.0, factor)]
    scaled = []
    for rollout in rollouts:
        normalizer = built()
        normalizer.see_rewards(rollout)
        scaled.append(normalizer.scaled(rollout).rewards)
    np.testing.assert_allclose(*scaled, rtol=1e-9)


def test_observations_have_mean_zero_and_deviation_one_and_are_clipped():
    x = np.random.default_rng(0).normal(50, 4, size=(200, 3, 4, 5, 2)).astype("float32")
    x[:, :, 0, 0, 0] = 255.0  # a pixel that is always white
    mask = np.ones((200, 3), bool)
    mask[150:] = False
    normalizer = built((4, 5, 2), clip=2.0)
    rollout = rollout_of(np.ones((200, 3)), mask=mask, observations=x)
    raw = normalizer.scaled(rollout).observations
    np.testing.assert_array_equal(raw, np.full_like(x, 2.0))  # nothing seen yet
    normalizer.see_observations(rollout)
    kept = x[:150].astype("float64")
    np.testing.assert_allclose(normalizer.seen.mean, kept.mean(axis=(0, 1)), rtol=1e-9)
    y = normalizer.scaled(rollout)
    assert y.observations.shape == x.shape and y.observations.dtype == np.float32
    deviation = kept.std(axis=(0, 1))
    deviation[0, 0, 0] = 1.0
    expected = np.clip((x - kept.mean(axis=(0, 1))) / deviation, -2, 2)
    np.testing.assert_allclose(y.observations, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y.observations[:, :, 0, 0, 0], 0.0)
    np.testing.assert_array_equal(y.next_observations, y.observations)
    assert abs(y.observations).max() == 2.0


def test_one_can_be_switched_off():
    x = np.random.default_rng(0).normal(3, 4, size=(20, 3, 1)).astype("float32")
    rollout = rollout_of(x[..., 0], observations=x)
    for off, on in (("observations", "rewards"), ("rewards", "observations")):
        normalizer = built(**{off: False})
        normalizer.see_rewards(rollout)
        normalizer.see_observations(rollout)
        scaled = normalizer.scaled(rollout)
        np.testing.assert_array_equal(getattr(scaled, off), getattr(rollout, off))
        assert (getattr(scaled, on) != getattr(rollout, on)).all()


# -- with agents ------------------------------------------------------------------


class Units(Corridor):
    """The corridor, or one of another size that is paid in another currency."""

    def __init__(self, units=1.0):
        super().__init__()
        self.units = np.float32(units)

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward * float(self.units), *rest

    def observation(self):
        return super().observation() * self.units


@pytest.mark.once
@pytest.mark.parametrize("agent", [PPO, A2C])
def test_units_do_not_matter(agent):
    # powers of two, so that not even a rounding error differs; a policy that begins
    # with equal probabilities, so that the first look is the same as well
    dones = []
    for units in (1.0, 1024.0):
        policy = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(2, kernel_initializer="zeros")]
        )
        made = small(lambda u=units: Units(u), agent, Normalizer(), policy=policy)
        history = made.fit(200, verbose=0).history
        dones.append((made, history, made.evaluate(episodes=5)))
    for got, want in zip(weights_of(dones[0][0]), weights_of(dones[1][0]), strict=True):
        np.testing.assert_array_equal(got, want)
    (_, history, evaluated), (_, large, evaluated_large) = dones
    np.testing.assert_array_equal(
        1024 * np.array(history["return_mean"]), large["return_mean"]
    )
    assert evaluated_large["return_mean"] == 1024 * evaluated["return_mean"] > 0


@pytest.mark.once
def test_what_a_segment_is_learned_with():
    agent = small(Corridor, normalizer=Normalizer())
    learn_from_rollout, look = agent.learn_from_rollout, []

    def watch(rollout, random):
        look.append((rollout, agent.normalizer.arrays()))
        return learn_from_rollout(rollout, random)

    agent.learn_from_rollout = watch
    shown = []
    play = agent.environments.vector.step

    def step(actions):
        shown.append(agent.normalizer.seen.count)
        return play(actions)

    agent.environments.vector.step = step
    agent.fit(4 * 8 * 4, verbose=0)
    # one rollout to look at, then three: 4 environments, 8 steps each
    assert agent.steps == 4 * 8 * 4 and len(look) == 3
    counts = [int(arrays["normalizer/seen/count"]) for _, arrays in look]
    assert len(set(shown[:8])) == 1 and shown[0] == 0 < counts[0]
    for n in range(3):  # frozen from the first step to the end of the update
        assert set(shown[8 * (n + 1) : 8 * (n + 2)]) == {counts[n]}
    returns = [int(arrays["normalizer/returns/count"]) for _, arrays in look]
    seen = [*counts, int(agent.normalizer.seen.count)]
    assert returns == seen[1:]  # the rewards of this rollout count already
    rollout, arrays = look[1]
    raw = (
        rollout.observations
        * np.sqrt(arrays["normalizer/seen/squares"] / arrays["normalizer/seen/count"])
        + (arrays["normalizer/seen/mean"])
    )
    np.testing.assert_allclose(raw, raw.round(), atol=1e-4)  # the corridor counts


def test_no_observations_no_first_look():
    agent = small(Corridor, normalizer=Normalizer(observations=False))
    agent.fit(4 * 24, verbose=0)
    assert agent.steps == 4 * 24 and agent.normalizer.seen.count == 0
    assert agent.normalizer.returns.count > 0


def test_the_ratio_of_an_update_begins_at_one():
    agent = small(normalizer=Normalizer())
    seen = []
    agent.learner.train_on_batches = lambda data, rows: (
        seen.append(data) or {"kl": np.zeros(len(rows))}
    )
    agent.fit(100, verbose=0)
    for x, (_, behavior, _, _), _ in seen:
        outputs = ops.convert_to_numpy(agent.policy(x))
        np.testing.assert_allclose(behavior, outputs, rtol=1e-4, atol=1e-6)


@pytest.mark.once
def test_predict_and_evaluate_leave_it_as_it_was():
    made = small(normalizer=Normalizer())
    made.fit(100, verbose=0)
    before = {k: v.copy() for k, v in made.normalizer.arrays().items()}
    result = made.evaluate(episodes=5)
    assert result["return_mean"] == result["length_mean"] > 5  # CartPole pays 1 a step
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    scaled = (x - made.normalizer.seen.mean) / made.normalizer.seen.scale
    logits = ops.convert_to_numpy(made.policy(np.clip(scaled, -10, 10)))
    assert made.predict(x).tolist() == logits.argmax(axis=1).tolist()
    for name, array in made.normalizer.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.once
def test_images():
    class Pixels(Choice):
        observation_space = gym.spaces.Box(0, 255, (4, 4, 1), np.uint8)

        def observation(self):
            return self.np_random.integers(256, size=(4, 4, 1)).astype("uint8")

    policy, critic = (
        keras.Sequential(
            [
                keras.Input((4, 4, 1)),
                keras.layers.Conv2D(2, 3),
                keras.layers.Flatten(),
                keras.layers.Dense(outputs),
            ]
        )
        for outputs in (3, 1)
    )
    agent = small(Pixels, normalizer=Normalizer(), policy=policy, critic=critic)
    history = agent.fit(100, verbose=0).history
    assert np.isfinite(history["value_loss"]).all()
    assert agent.normalizer.seen.mean.shape == (4, 4, 1)
    assert 90 < agent.normalizer.seen.mean.mean() < 165
    assert agent.predict(np.zeros((4, 4, 1), "uint8")) in (0, 1, 2)


@pytest.mark.slow  # the new process imports Keras and its backend
def test_contract_of_an_agent_with_a_normalizer():
    check_agent(
        PPO,
        lambda: {
            "normalizer": Normalizer(clip=3.0),
            "num_envs": 4,
            "rollout_length": 8,
            "horizon": 24,
            "batch_size": 16,
            "update_epochs": 2,
        },
        Signs,
        steps=500,
        skip=("spaces", "finite"),  # these are as in the contract of PPO
    )


@pytest.mark.once
@pytest.mark.parametrize("agent", [PPO, A2C])
def test_load_knows_the_normalizer(agent, tmp_path):
    arguments = {"observations": True, "rewards": False, "clip": 5.0}
    made = small(agent=agent, normalizer=Normalizer(**arguments))
    made.fit(100, verbose=0)
    made.save(tmp_path / "agent")
    loaded = agent.load(tmp_path / "agent")
    assert loaded.normalizer.get_config() == arguments
    x = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(loaded.predict(x), made.predict(x))
    for each in (made, loaded):
        each.fit(100, verbose=0)
    for got, want in zip(weights_of(loaded), weights_of(made), strict=True):
        np.testing.assert_array_equal(got, want)
    assert "normalizer" not in small(agent=agent).config


# -- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"observations": 1}, "Received: observations=1"),
        ({"rewards": None}, "Received: rewards=None"),
        ({"observations": False, "rewards": False}, "Received: observations=False"),
        ({"clip": 0.0}, "Received: clip=0"),
        ({"clip": np.inf}, "Received: clip=inf"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        Normalizer(**arguments)


@pytest.mark.parametrize("agent", [PPO, A2C])
def test_an_agent_rejects(agent):
    with pytest.raises(ValueError, match="Received: normalizer=True"):
        small(agent=agent, normalizer=True)
    normalizer = Normalizer()
    small(agent=agent, normalizer=normalizer)
    with pytest.raises(ValueError, match=r"one agent.*Received: Normalizer\(obs"):
        small(agent=agent, normalizer=normalizer)


@pytest.mark.parametrize(
    "rows, message",
    [
        (np.zeros((4, 3)), r"rows of shape \(2,\).*Received: rows.shape=\(4, 3\)"),
        (np.zeros(2), r"Received: rows.shape=\(2,\)"),
        (np.array([[0.0, np.nan]]), "finite.*Received: nan among the rows"),
        (np.array([[np.inf, 0.0]]), "finite.*Received: inf among the rows"),
    ],
)
def test_statistics_reject(rows, message):
    statistics = RunningStatistics((2,))
    with pytest.raises(ValueError, match=message):
        statistics.update(rows)
    assert statistics.count == 0 and not statistics.mean.any()


@pytest.mark.parametrize("shape", [3, (3, -1), (2.5,), [3]])
def test_statistics_need_a_shape(shape):
    with pytest.raises(ValueError, match="Received: shape="):
        RunningStatistics(shape)


@pytest.mark.parametrize("fault", ["reward", "observation"])
def test_nan_does_not_pass(fault):
    agent = small(lambda: Corridor(fault=fault), normalizer=Normalizer())
    with pytest.raises(ValueError, match=f"{fault}.*nan.* at step"):
        agent.fit(10, verbose=0)
    assert np.isfinite(agent.normalizer.seen.mean).all()
