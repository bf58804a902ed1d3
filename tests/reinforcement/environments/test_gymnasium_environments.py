"""Tests of dlcompanion.reinforcement.environments.gymnasium_environments."""

import functools
import sys

import gymnasium as gym
import numpy as np
import pytest
from helpers.toy_environments import Aim, Corridor, Pair
from keras import ops

from dlcompanion.reinforcement.environments.gymnasium_environments import Environments

MODES = gym.vector.AutoresetMode


def first(observations):
    return np.zeros(len(observations), "int64")


def vector(mode, count=5, limit=6):
    return gym.vector.SyncVectorEnv(
        [lambda: Corridor(limit)] * count, autoreset_mode=mode
    )


@pytest.mark.parametrize("mode", [MODES.NEXT_STEP, MODES.SAME_STEP])
def test_one_whole_episode_each(mode):
    episodes = Environments(vector(mode), count=1).play(first, seed=3, horizon=50)
    drawn = episodes.observations[0, :, 1]
    assert len(set(drawn)) > 2 and drawn.max() > 6
    lengths = np.minimum(drawn, 6)
    assert episodes.lengths.tolist() == lengths.tolist()
    assert episodes.returns.tolist() == (lengths * (lengths + 1) / 2).tolist()
    assert episodes.terminated.tolist() == (drawn <= 6).tolist()
    # what is seen after the end is not the first observation of the next episode
    np.testing.assert_array_equal(
        episodes.last_observations, np.stack([lengths, drawn], axis=1)
    )
    time = np.arange(len(episodes.rewards))[:, None]
    np.testing.assert_array_equal(episodes.playing, time < lengths)
    np.testing.assert_array_equal(
        episodes.rewards, np.where(episodes.playing, time + 1, 0)
    )
    seen = np.where(episodes.playing, episodes.observations[..., 0], time)
    np.testing.assert_array_equal(seen, np.broadcast_to(time, seen.shape))


def test_a_buffer_that_is_used_again_is_copied():
    same = [
        Environments(gym.vector.SyncVectorEnv([Corridor] * 3, copy=copy), 1)
        for copy in (True, False)
    ]
    a, b = (environments.play(first, seed=3, horizon=50) for environments in same)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_horizon_cuts():
    endless = Environments(lambda: Corridor(limit=99), count=6)
    episodes = endless.play(first, seed=3, horizon=7)
    drawn = episodes.observations[0, :, 1]
    assert episodes.lengths.tolist() == np.minimum(drawn, 7).tolist()
    assert episodes.terminated.tolist() == (drawn <= 7).tolist()
    assert 0 < episodes.terminated.sum() < 6
    np.testing.assert_array_equal(
        episodes.last_observations[:, 0], np.minimum(drawn, 7)
    )


def test_native_and_single_environments_agree():
    # CartPole's own vector environment, its copies in step, and one after the other
    def play(environment, seed, start):
        environments = Environments(environment, count=1)
        vector = environments.vector
        reset = vector.reset

        def reset_there(seed):
            observations, infos = reset(seed=seed)
            envs = getattr(vector, "envs", None)
            if envs is None:
                vector.state = start.T.copy()
            for i, env in enumerate(envs or ()):
                env.unwrapped.state = start[i]
            return start.astype("float32"), infos

        vector.reset = reset_there
        return environments.play(lambda x: (x[:, 2] > 0).astype(int), seed, 500)

    start = np.random.default_rng(0).uniform(-0.05, 0.05, (3, 4))
    native = play(gym.make_vec("CartPole-v1", 3), 0, start)
    copies = play(gym.make_vec("CartPole-v1", 3, vectorization_mode="sync"), 0, start)
    for a, b in zip(native, copies, strict=True):
        np.testing.assert_allclose(a[:20], b[:20], atol=1e-5)
    assert native.lengths.tolist() == copies.lengths.tolist()
    assert native.lengths.min() > 20


def test_the_seed_decides():
    environments = Environments("CartPole-v1", count=2)
    a, b, c = (environments.play(first, seed, 20).observations for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], c[0])


def test_actions_are_those_of_the_space():
    environment = Corridor()
    environments = Environments(environment, count=7)
    assert (environments.count, environments.actions) == (1, 2)
    environments.play(lambda x: np.ones(len(x), int), seed=0, horizon=9)
    assert set(environment.actions) == {4}


@pytest.mark.parametrize(
    "environment",
    ["CartPole-v1", Corridor, gym.make("CartPole-v1"), gym.make_vec("CartPole-v1", 3)],
    ids=["id", "function", "environment", "vector"],
)
def test_another_shares_nothing(environment):
    environments = Environments(environment, count=2)
    other = environments.another(4)
    assert other.count == 4
    assert other.vector is not environments.vector
    assert other.observation_shape == environments.observation_shape
    other.play(first, seed=0, horizon=9)
    other.close()


def test_attributes_set_by_hand_inside_a_vector_environment_stay():
    vector = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    vector.set_attr("gravity", [3.0, 5.0])
    for n, one in enumerate(vector.envs):
        one.unwrapped.length = 2.0 + n
    other = Environments(vector, 1).another(3)
    inside = [one.unwrapped for one in other.vector.envs]
    assert [one.length for one in inside] == [2.0, 3.0, 2.0]
    assert other.vector.get_attr("gravity") == (3.0, 5.0, 3.0)
    assert inside[0] is not vector.envs[0].unwrapped and other.time_limit == 500
    at_once = gym.make_vec("CartPole-v1", 2)
    at_once.gravity, at_once.note = 3.0, "moon"
    at_once.reset(seed=0)
    other = Environments(at_once, 1).another(5).vector
    assert (other.gravity, other.note, other.num_envs) == (3.0, "moon", 5)
    assert other.length == gym.make_vec("CartPole-v1", 1).length


def test_environments_of_a_vector_that_cannot_be_copied_are_refused():
    vector = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync")
    vector.envs[0].unwrapped.file = open(__file__)
    with pytest.raises(ValueError, match="cannot be copied.*Received: .*TypeError"):
        Environments(vector, 1).another(2)
    vector.envs[0].unwrapped.file.close()


def test_the_time_limit_is_the_environments_own():
    assert Environments("CartPole-v1", 1).time_limit == 500
    assert Environments(gym.make("MountainCar-v0"), 1).time_limit == 200
    assert Environments(Corridor, 1).time_limit is None

    def limited():  # without a spec
        return gym.wrappers.TimeLimit(Corridor(), 1500)

    assert Environments(limited(), 1).time_limit == 1500
    assert Environments(limited, 2).time_limit == 1500
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics
    assert Environments(wrapped(gym.vector.SyncVectorEnv([limited])), 1).time_limit
    for mode in ("sync", "vector_entry_point"):
        made = gym.make_vec(
            "CartPole-v1", 2, vectorization_mode=mode, max_episode_steps=50
        )
        assert Environments(made, 1).time_limit == 50
        assert Environments(wrapped(made), 1).time_limit == 50


@pytest.mark.once
def test_the_time_limit_is_seen_in_other_processes():
    bounded = functools.partial(gym.wrappers.TimeLimit, Corridor(), 1500)
    for make, limit in ((bounded, 1500), (Corridor, None)):
        vector = gym.vector.AsyncVectorEnv([make], context="spawn")
        environments = Environments(vector, 1)
        assert environments.time_limit == limit
        environments.reset(seed=0)  # it lives on
        vector.close()


class Foreign(gym.vector.VectorWrapper):
    """Answers in the backend's tensors, with rewards of shape (environments, 1)."""

    def step(self, actions):
        observations, rewards, *rest, infos = self.env.step(actions)
        rewards = rewards.astype("float32")[:, None]
        tensors = [ops.convert_to_tensor(x) for x in (observations, rewards, *rest)]
        return *tensors, infos


def test_environments_may_answer_in_tensors():
    own, foreign = (
        Environments(kind(gym.make_vec("CartPole-v1", 3)), 1)
        for kind in (gym.vector.VectorWrapper, Foreign)
    )
    wanted, got = (
        e.play(lambda x: np.ones(len(x), "int32"), seed=0, horizon=50)
        for e in (own, foreign)
    )
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    foreign.vector.step = lambda actions: (np.zeros((3, 4)), np.zeros(2), 0, 0, {})
    with pytest.raises(
        ValueError, match=r"one reward.*Received: rewards of shape \(2,"
    ):
        foreign.step(np.zeros(3, "int32"))


@pytest.mark.parametrize(
    "environment, message",
    [
        ("CartPol-v1", "cannot make.*Received: environment='CartPol-v1'"),
        ("Pendulum-v1", "Discrete space; .* Received: action_space=Box"),
        ("FrozenLake-v1", "Box space.*Received: observation_space=Discrete"),
        (vector(MODES.DISABLED), "reset itself.*Received: autoreset_mode=.*DISABLED"),
        (3, "Received: environment=3"),
    ],
)
def test_rejects_environments(environment, message):
    with pytest.raises(ValueError, match=message):
        Environments(environment, count=1)


def test_rejects_observations_without_an_entry():
    space = gym.spaces.Box(-1.0, 1.0, (0,))
    with pytest.raises(ValueError, match="an entry at least.*Received: observation_sp"):
        Environments(type("Empty", (Corridor,), {"observation_space": space}), 1)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_rejects_count(count):
    assert Environments("CartPole-v1", np.int64(2)).count == 2
    with pytest.raises(ValueError, match="positive integer. Received: "):
        Environments("CartPole-v1", count)


@pytest.mark.parametrize("fault, step", [("observation", 2), ("reward", 1)])
@pytest.mark.parametrize("mode", [MODES.NEXT_STEP, MODES.SAME_STEP])
def test_names_where_values_are_not_finite(fault, step, mode):
    faults = gym.vector.SyncVectorEnv(
        [Corridor, lambda: Corridor(fault=fault), Corridor], autoreset_mode=mode
    )
    with pytest.raises(ValueError, match=f"{fault}=.*at step {step} of environment 1"):
        Environments(faults, 1).play(first, seed=0, horizon=9)


def test_an_environment_without_spec_is_made_once():
    class Bound(Corridor):
        def __deepcopy__(self, memo):
            raise TypeError("a socket")

    vector = gym.vector.SyncVectorEnv([Corridor])
    for environment in (Bound(), vector):
        with pytest.raises(ValueError, match="made again.*Received: environment="):
            Environments(environment, 1).another(2)
    with pytest.raises(ValueError, match=r"load\(path, environment=.*TypeError: a soc"):
        Environments(Bound(), 1).another(2)


def test_missing_gymnasium_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"dlcompanion\[reinforcement\]"):
        Environments("CartPole-v1", 1)


def test_real_actions_are_in_units_of_the_space():
    environments = Environments(Aim, 3, spaces=("Discrete", "Box"))
    units = np.array([[-1.0, 1.0], [0.0, 0.0], [-9.0, 0.5]])
    played = environments.to_environment(units)
    np.testing.assert_allclose(played, [[2, 10], [3, 7], [2, 8.5]])
    assert played.dtype == np.float32 and environments.distribution.outputs == 4
    episodes = environments.play(lambda x: units, seed=0, horizon=1)
    np.testing.assert_allclose(episodes.returns, [-26, -4, -13.25])
    np.testing.assert_array_equal(episodes.actions[0], units.astype("float32"))
    assert environments.another(2).spaces == ("Discrete", "Box")


def spaces_of_actions():
    """Spaces with ends of all kinds, drawn and by hand."""
    rng = np.random.default_rng(0)
    largest = np.finfo("float32").max
    box = gym.spaces.Box
    yield from (box(-1.0, 0.2), box(-largest, largest), box(-100, 100, (1,), np.int8))
    yield box(0, 255, (2, 3), np.uint8)
    for dtype in ("int64", "uint64"):
        info = np.iinfo(dtype)
        yield box(info.min, info.max, (1,), np.dtype(dtype).type)
    for low, high in rng.integers(-99, 99, (60, 2)) / 10:
        ends = sorted([float(low), float(high) + 0.05])
        yield box(*ends, (2,), rng.choice([np.float32, np.float64]))
    for start, dtype in ((0, "int64"), (3, "int32"), (-2, "int8")):
        yield gym.spaces.Discrete(5, start=start, dtype=np.dtype(dtype).type)
        yield gym.spaces.MultiDiscrete([2, 5], start=[start] * 2, dtype=dtype)


@pytest.mark.once
@pytest.mark.parametrize("space", list(spaces_of_actions()), ids=str)
def test_every_action_is_in_its_space(space):
    environment = type("Any", (Aim,), {"action_space": space})
    kinds = ("Discrete", "MultiDiscrete", "Box")
    environments = Environments(environment, 2, spaces=kinds)
    rng, distribution = np.random.default_rng(0), environments.distribution
    outputs = 3 * rng.normal(size=(200, distribution.outputs)).astype("float32")
    actions = [distribution.sample(outputs, rng), distribution.best(outputs)]
    if environments.low is not None:
        ends = np.array([[-1.0], [1.0], [-9.0], [9.0]]) * np.ones(actions[0].shape[1])
        actions.append(ends)
    with np.errstate(all="raise"):
        played = np.concatenate([environments.to_environment(a) for a in actions])
    assert all(space.contains(action) for action in played), space
    assert played.dtype == space.dtype
    if environments.low is not None:  # the ends are played
        np.testing.assert_array_equal(played[-4:-2], [space.low, space.high])


@pytest.mark.once
def test_integers_of_a_box_have_equal_shares():
    environment = type(
        "Steps", (Aim,), {"action_space": gym.spaces.Box(-1, 2, (1,), np.int8)}
    )
    environments = Environments(environment, 1, spaces=("Box",))
    units = np.linspace(-1, 1, 4_001)[:, None]
    played = environments.to_environment(units)[:, 0]
    values, counts = np.unique(played, return_counts=True)
    assert values.tolist() == [-1, 0, 1, 2] and np.ptp(counts) <= 1


def test_several_choices_count_from_zero():
    environments = Environments(Pair, 2, spaces=("MultiDiscrete",))
    got = environments.to_environment(np.array([[0, 0], [1, 2]]))
    assert got.tolist() == [[1, 5], [2, 7]]
    assert environments.distribution.sizes == [2, 3]


def test_refuses_spaces_without_ends_or_order():
    for space, rule in (
        (gym.spaces.Box(-np.inf, np.inf, (1,)), "finite bounds"),
        (gym.spaces.MultiDiscrete([[2, 3]]), "vector of choices"),
        (gym.spaces.MultiBinary(3), "must come from a Box or MultiDiscrete space"),
    ):
        environment = type("Bad", (Aim,), {"action_space": space})
        with pytest.raises(ValueError, match=f"{rule}.*Received: action_space="):
            Environments(environment, 1, spaces=("Box", "MultiDiscrete"))


def test_ends_can_be_named_as_the_message_says():
    unbounded = gym.spaces.Box(-np.inf, np.inf, (2,))

    def bounded():
        environment = type("Unbounded", (Aim,), {"action_space": unbounded})()
        ends = gym.spaces.Box(-1.0, 1.0, (2,))
        return gym.wrappers.TransformAction(environment, lambda a: a, ends)

    environments = Environments(bounded, 1, spaces=("Box",))
    assert environments.to_environment(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]


def test_wrappers_of_a_vector_are_not_dropped_in_silence():
    vector = gym.make_vec("CartPole-v1", num_envs=2)
    wrapped = gym.wrappers.vector.TransformReward(vector, lambda r: 2 * r)
    with pytest.raises(ValueError, match="wrappers.*would be lost.*Received: env"):
        Environments(wrapped, 1).another(3)
