"""Tests of dlcompanion.reinforcement.environments.ray_environments."""

import functools
import importlib
import sys
import threading

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import Careless, Corridor, Faulty, Informed, Mortal

from dlcompanion.reinforcement import PPO, ray_environments
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments

module = importlib.import_module(
    "dlcompanion.reinforcement.environments.ray_environments"
)
needs_ray = pytest.mark.ray


def local(make, count=3):
    return gym.vector.SyncVectorEnv([make] * count)


@pytest.fixture(scope="module")
def corridors():
    """Three on two workers; they keep Ray alive for the whole module."""
    import ray

    assert not ray.is_initialized()
    environments = ray_environments(Corridor, num_envs=3, workers=2)
    assert ray.is_initialized()
    yield environments
    environments.close()
    assert not ray.is_initialized() and not module._on_our_ray


@pytest.fixture(scope="module")
def carts(corridors):
    """Three poles on two workers."""
    environments = ray_environments("CartPole-v1", num_envs=3, workers=2)
    yield environments
    environments.close()


@pytest.fixture
def on_ray(corridors):
    """Makes environments on workers, and closes them."""
    made = []

    def make(environment, num_envs=3, workers=2):
        made.append(ray_environments(environment, num_envs, workers))
        return made[-1]

    yield make
    for environments in made:
        environments.close()


def kill(environments, number):
    import ray

    ray.kill(environments._actors[number])


def equal(a, b):
    """Two answers are the same, infos, dtypes and all."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            equal(a[key], b[key])
    elif isinstance(a, tuple):
        for one, other in zip(a, b, strict=True):
            equal(one, other)
    else:
        assert a.dtype == b.dtype and a.flags.writeable == b.flags.writeable
        np.testing.assert_array_equal(a, b)


def play(both, calls, start=0):
    """The same random actions and resets for both; what they answer is equal."""
    rng = np.random.default_rng(start)
    space = both[0].action_space
    space.seed(start)
    for _ in range(calls):
        if rng.random() < 0.02:
            seed = [None, int(rng.integers(99)), [7, 1, 30]][rng.integers(3)]
            equal(*(v.reset(seed=seed) for v in both))
        else:
            actions = space.sample()
            equal(*(v.step(actions.copy()) for v in both))


# -- the same as on one machine -----------------------------------------------


@needs_ray
def test_is_the_vector_environment_that_gymnasium_has(corridors):
    theirs = local(Corridor)
    for name in ("observation_space", "action_space"):
        assert getattr(corridors, name) == getattr(theirs, name)
        single = f"single_{name}"
        assert getattr(corridors, single) == getattr(theirs, single)
    assert corridors.metadata == theirs.metadata and corridors.num_envs == 3
    equal(corridors.reset(seed=0), theirs.reset(seed=0))
    play((corridors, theirs), 300)


@needs_ray
def test_infos_and_real_actions_are_the_same_too(on_ray):
    both = on_ray(Informed), local(Informed)
    equal(both[0].reset(seed=np.int64(5)), both[1].reset(seed=5))
    play(both, 200)


@needs_ray
def test_an_id_means_what_it_means_here(on_ray):
    gym.register("Corridor-v3", Corridor, max_episode_steps=4, kwargs={"limit": 50})
    both = on_ray("Corridor-v3", workers=1), gym.make_vec("Corridor-v3", 3)
    assert both[0].spec.id == "Corridor-v3"
    assert Environments(both[0], 1).time_limit == 4
    equal(*(v.reset(seed=0, options={}) for v in both))
    play(both, 50)
    del gym.registry["Corridor-v3"]


@needs_ray
def test_workers_know_nothing_of_keras(carts):
    import ray

    def modules(worker):
        import sys

        return {name.split(".")[0] for name in sys.modules}

    carts.reset(seed=0)
    for actor in carts._actors:
        found = ray.get(actor.__ray_call__.remote(modules))
        assert "gymnasium" in found
        assert not found & {"keras", "tensorflow", "jax", "torch", "dlcompanion"}


# -- agents -------------------------------------------------------------------


def agent(environment):
    return PPO(
        environment,
        policy=keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]),
        critic=keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
        **{"seed": 0, "rollout_length": 10, "horizon": 30, "batch_size": 15},
    )


def weights(trained):
    variables = trained.learner.variables + trained.learner.optimizer.variables
    return [keras.ops.convert_to_numpy(v) for v in variables]


def trained(environment, **kwargs):
    keras.utils.set_random_seed(0)
    learned = agent(environment)
    learned.fit(400, verbose=0, **kwargs)
    return learned


def same(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


@needs_ray
def test_an_agent_learns_the_same_though_workers_die(on_ray, tmp_path):
    make = functools.partial(Mortal, tmp_path / "died")
    environments = on_ray(make)
    before = list(environments._actors)
    murder = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch == 1 and kill(environments, 0)
    )
    on_workers = trained(environments, callbacks=[murder])
    assert (tmp_path / "died").exists()  # one by itself, in a rollout
    alive = [a is b for a, b in zip(before, environments._actors, strict=True)]
    assert not alive[0]
    at_home = trained(local(make))  # nobody dies a second time
    same(on_workers, at_home)
    one, other = weights(on_workers)[0], weights(agent(local(make)))[0]
    assert not np.array_equal(one, other)


@needs_ray
def test_an_agent_is_resumed_on_workers_or_without(carts, tmp_path):
    part = PPO(carts, seed=0, rollout_length=10, horizon=20, batch_size=15)
    part.fit(120, verbose=0)
    part.save(tmp_path / "agent")
    part.fit(120, verbose=0)
    for environment in (carts, local(lambda: gym.make("CartPole-v1"))):
        other = PPO.load(tmp_path / "agent", environment=environment)
        other.fit(120, verbose=0)
        same(part, other)
    with pytest.raises(ValueError, match="pass load.*environment"):
        PPO.load(tmp_path / "agent").fit(120)


@needs_ray
def test_an_agent_is_evaluated_on_workers_of_its_own(carts):
    at_home = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    settings = {"seed": 0, "rollout_length": 5, "horizon": 20, "batch_size": 5}
    one, other = (PPO(v, **settings) for v in (carts, at_home))
    assert one.evaluate(episodes=4) == other.evaluate(episodes=4)
    wrapped = gym.wrappers.vector.TransformReward(carts, abs)
    with pytest.raises(ValueError, match="wrappers.*would be lost"):
        Environments(wrapped, 1).another(2)


# -- workers that die ---------------------------------------------------------


@needs_ray
def test_a_dead_worker_is_replaced_at_any_call(on_ray):
    both = on_ray(Corridor), local(Corridor)
    equal(*(v.reset(seed=4) for v in both))
    play(both, 20, start=1)
    kill(both[0], 0)  # two at once
    kill(both[0], 1)
    play(both, 20, start=2)
    kill(both[0], 1)
    equal(*(v.reset() for v in both))  # goes on from the last seed
    play(both, 20, start=3)


@needs_ray
def test_what_nobody_seeded_is_repeated_too(on_ray):
    environments = on_ray(Corridor)
    first, _ = environments.reset()
    kill(environments, 0)
    observations = environments.step(np.array([3, 3, 3]))[0]
    np.testing.assert_array_equal(observations[:, 1], first[:, 1])
    lengths = {tuple(environments.reset(seed=None)[0][:, 1]) for _ in range(5)}
    assert len(lengths) > 1


@needs_ray
def test_an_environment_that_ends_every_process_is_named(on_ray, monkeypatch):
    monkeypatch.setattr(module, "REPLACEMENTS", 1)
    environments = on_ray(Mortal, num_envs=1, workers=1)
    environments.reset(seed=0)
    with pytest.raises(
        RuntimeError, match="1 replacements died .*[(]step[)].*Received: "
    ):
        for _ in range(200):
            environments.step(np.array([3]))
    with pytest.raises(ValueError, match="reset.. comes before"):
        environments.step(np.array([3]))
    environments.reset(seed=0)


@needs_ray
def test_an_environment_must_repeat_itself(on_ray):
    environments = on_ray(Careless)
    environments.reset(seed=0)
    environments.step(np.array([3, 3, 3]))
    kill(environments, 1)
    with pytest.raises(ValueError, match="the same again.*Received: other obs"):
        environments.step(np.array([3, 3, 3]))


# -- errors -------------------------------------------------------------------


@needs_ray
def test_the_users_exceptions_pass_through(on_ray):
    environments = on_ray(Faulty)
    actors = list(environments._actors)
    for _ in range(2):
        environments.reset(seed=0)
        environments.step(np.array([3, 3, 3]))
        environments.step(np.array([3, 3, 3]))
        with pytest.raises(KeyError, match="a bug of the user"):
            environments.step(np.array([3, 3, 3]))
    assert actors == environments._actors
    with pytest.raises(ValueError, match="no license.*0 seats"):
        on_ray(functools.partial(Faulty, late=False), workers=1)
    with pytest.raises(ValueError, match="an environment of gymnasium. Received: 3"):
        on_ray(lambda: 3, workers=1)


@needs_ray
def test_rejects_calls(on_ray):
    import ray

    environments = on_ray(Corridor, workers=1)
    with pytest.raises(ValueError, match="reset.. comes before step"):
        environments.step(np.array([3, 3, 3]))
    with pytest.raises(ValueError, match="one for each of 3.*Received: 2 seeds"):
        environments.reset(seed=[1, 2])
    with pytest.raises(ValueError, match="without reset_mask. Received: options"):
        environments.reset(options={"reset_mask": np.ones(3, bool)})
    environments.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(3,\). Received: actions.shape=\(2"):
        environments.step(np.array([3, 3]))
    environments.close()
    assert ray.is_initialized()  # others need it
    with pytest.raises(ValueError, match=r"were closed.*Received: reset\(\)"):
        environments.reset(seed=0)
    with pytest.raises(ValueError, match="must be one of Box.*Received: observation"):
        on_ray("Blackjack-v1", workers=1)


@needs_ray
def test_a_ray_that_the_user_started_is_left_alone(corridors, monkeypatch):
    import ray

    monkeypatch.setattr(module, "_on_our_ray", set())
    environments = ray_environments(Corridor, num_envs=2, workers=1)
    equal(environments.reset(seed=2), local(Corridor, 2).reset(seed=2))
    environments.close()
    assert ray.is_initialized()


def test_rejects_arguments():
    for bad, message in (
        ({"num_envs": 0}, "num_envs must be an integer.*Received: num_envs=0"),
        ({"workers": 1.5}, "workers must be an integer.*Received: workers=1.5"),
        ({"workers": 4}, "at most num_envs. Received: workers=4, num_envs=3"),
        ({"environment": "CartPol-v1"}, "cannot make.*environment='CartPol-v1'"),
        ({"environment": Corridor()}, "id.*or a function.*Received: environment=<"),
    ):
        arguments = {"environment": Corridor, "num_envs": 3, "workers": 2} | bad
        with pytest.raises(ValueError, match=message):
            ray_environments(**arguments)


@needs_ray
def test_rejects_what_cannot_be_sent():
    lock = threading.Lock()
    with pytest.raises(ValueError, match="cannot be: cannot pickle.*Received: env"):
        ray_environments(lambda: lock, 2, 1)


def test_missing_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"dlcompanion\[ray\]"):
        ray_environments(Corridor, 2, 1)
