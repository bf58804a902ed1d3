"""Tests of reinforcement.agents.agent, with an agent that learns nothing."""

import gc

import gymnasium as gym
import keras
import numpy as np
import pytest
from helpers.toy_environments import (
    Choice,
    Corridor,
    Informed,
    Pixels,
    RealPixels,
    Signs,
    Steer,
)
from helpers.toy_networks import net

from dlcompanion.reinforcement import (
    A2C,
    DQN,
    PPO,
    REINFORCE,
    SAC,
    Normalizer,
    Rainbow,
    RecurrentPPO,
)
from dlcompanion.reinforcement.agents.agent import ACTIONS, RESETS, Agent, Epoch
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments
from dlcompanion.reinforcement.networks.dense_network import dense_network
from dlcompanion.testing.dtypes import policy


@keras.saving.register_keras_serializable(package="dlcompanion.tests")
class Learner(keras.Model):
    """A policy, and a count of the updates."""

    def __init__(self, policy, **kwargs):
        super().__init__(**kwargs)
        self.policy = policy
        self.updates = self.add_weight(
            name="updates", initializer="zeros", trainable=False
        )

    def build(self, input_shape=None):
        pass

    def call(self, inputs):
        return self.policy(inputs)

    def get_config(self):
        return {"policy": keras.saving.serialize_keras_object(self.policy)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(keras.saving.deserialize_keras_object(config["policy"]))


class Idle(Agent):
    def __init__(self, environment, policy=None, num_envs=2, seed=None, horizon=None):
        environments = Environments(environment, num_envs)
        super().__init__(environments, seed, horizon, {"num_envs": num_envs})
        shape, actions = environments.observation_shape, environments.actions
        learner = Learner(policy or dense_network(shape, actions, 0.1, 0, "policy"))
        learner.build()
        learner.compile("sgd")
        self.attach(learner)
        self.played = []

    def epoch(self):
        random = self.random(ACTIONS, 1 + self.epochs)
        with self.actor.held():
            played = self.environments.play(
                self._player(False, random),
                self.number(RESETS, self.epochs),
                self.horizon,
            )
        self.played.append(played)
        self.learner.updates.assign_add(1.0)
        logs = {"updates": float(self.learner.updates)}
        return Epoch(played.returns, played.lengths, played.playing.size, logs)

    @staticmethod
    def parts_of(learner):
        return {"policy": learner.policy}


class Other(Idle):
    pass


@pytest.mark.once
def test_an_epoch_is_told_to_callbacks(tmp_path):
    agent = Idle(Corridor, seed=0)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append(("begin", epoch)),
        on_epoch_end=lambda epoch, logs: seen.append(("end", epoch, logs["steps"])),
        on_train_begin=lambda logs: seen.append("on"),
        on_train_end=lambda logs: seen.append("off"),
    )
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = agent.fit(30, callbacks=[watch, table], verbose=0)
    steps = np.cumsum([episodes.playing.size for episodes in agent.played])
    assert history.history["steps"] == steps.tolist()
    assert steps[-2] < 30 <= steps[-1] == agent.steps
    assert seen[0] == "on" and seen[-1] == "off"
    assert seen[1:3] == [("begin", 0), ("end", 0, steps[0])]
    assert history.history["updates"] == list(range(1, agent.epochs + 1))
    assert history.history["return_mean"][0] == agent.played[0].returns.mean()
    assert history.history["length_mean"][0] == agent.played[0].lengths.mean()
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert len(lines) == agent.epochs + 1 and "return_mean" in lines[0]
    # a second call goes on, with the numbers that follow
    before = agent.epochs
    assert agent.fit(30, verbose=0).epoch[0] == before


@pytest.mark.filterwarnings("ignore:fit.* plays nothing")
def test_steps_asked_for_add_up():
    once, often = Idle(Corridor, seed=0), Idle(Corridor, seed=0)
    once.fit(100, verbose=0)
    for steps in (1, 40, 2, 57):
        often.fit(steps, verbose=0)
    assert (often.steps, often.epochs) == (once.steps, once.epochs)
    for a, b in zip(once.played, often.played, strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.actions, b.actions)


@pytest.mark.once
def test_a_call_that_plays_nothing_says_so():
    agent = Idle(Corridor, seed=0)
    agent.fit(1, verbose=0)
    more = rf"fit\(1\) plays nothing.* {agent.steps - 1} steps"
    with pytest.warns(UserWarning, match=more):
        assert agent.fit(1, verbose=0).history == {}


def test_what_was_not_played_is_not_owed():
    agent = Idle(Corridor, seed=0)
    stop = keras.callbacks.EarlyStopping("updates", patience=1, mode="min")
    agent.fit(10_000, callbacks=[stop], verbose=0)
    assert agent.epochs == 2
    agent.fit(1, verbose=0)
    assert agent.epochs == 3


def test_the_seed_decides_and_epochs_differ():
    a, b, c = (Idle("CartPole-v1", seed=seed) for seed in (1, 1, 2))
    for agent in (a, b, c):
        agent.fit(100, verbose=0)
    np.testing.assert_array_equal(a.played[0].observations, b.played[0].observations)
    np.testing.assert_array_equal(a.played[0].actions, b.played[0].actions)
    starts = [x.played[n].observations[0] for x, n in ((a, 0), (a, 1), (c, 0))]
    assert len({start.tobytes() for start in starts}) == 3
    assert Idle(Corridor).seed != Idle(Corridor).seed


@pytest.mark.once
def test_actions_follow_the_probabilities():
    policy = net(3, 3)
    policy.layers[0].set_weights([np.zeros((3, 3)), np.log([0.5, 0.3, 0.2])])
    agent = Idle(Choice, policy, num_envs=4000, seed=0)
    agent.fit(1, verbose=0)
    shares = np.bincount(agent.played[0].actions[0], minlength=3) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.03)  # 4 sd
    drawn = agent.predict(np.zeros((4000, 3)), deterministic=False)
    np.testing.assert_allclose(
        np.bincount(drawn, minlength=3) / 4000, [0.5, 0.3, 0.2], atol=0.03
    )
    assert agent.predict(np.zeros((2, 3))).tolist() == [0, 0]


@pytest.mark.once
@pytest.mark.parametrize("kind", [A2C, DQN, PPO, Rainbow, RecurrentPPO, REINFORCE, SAC])
def test_a_network_made_by_default_sees_bytes_as_numbers_up_to_one(kind):
    environment = RealPixels if kind is SAC else Pixels

    class Numbers(environment):
        observation_space = gym.spaces.Box(0.0, 1.0, (2, 2, 1))

    with pytest.warns(UserWarning, match="look like images.*flattens them"):
        agents = kind(environment, seed=0), kind(Numbers, seed=0)
    x = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1))
    pairs = zip(agents, (1, 255), strict=True)
    seen, same = (agent._outputs(x / scale)[0] for agent, scale in pairs)
    np.testing.assert_allclose(seen, same, rtol=1e-5, atol=1e-6)
    assert np.ptp(seen, axis=0).max() > 0
    if hasattr(agents[0], "normalizer") and kind not in (DQN, Rainbow, SAC):
        with pytest.warns(UserWarning, match="look like images"):
            agent = kind(environment, seed=0, normalizer=Normalizer())
        np.testing.assert_allclose(agent._outputs(x / 255)[0], same, rtol=1e-5)


def test_predict_gives_actions_of_the_space():
    agent = Idle(Corridor, seed=0)
    action = agent.predict([0.0, 5.0])
    assert type(action) is int and action in (3, 4)
    logits = keras.ops.convert_to_numpy(agent.policy(np.array([[0.0, 5.0]])))
    assert action == 3 + logits.argmax()
    with pytest.raises(ValueError, match=r"shape \(2,\).*Received: observation.shape"):
        agent.predict(np.zeros(3))
    with pytest.raises(ValueError, match="must be finite. Received: "):
        agent.predict([np.nan, 0.0])
    with pytest.raises(ValueError, match=r"env.reset\(\)\[0\].*Received: observation="):
        agent.predict(Corridor().reset(seed=0))
    with pytest.raises(ValueError, match=r"of one at least.*shape=\(0, 2\)"):
        agent.predict(np.zeros((0, 2)))


def test_evaluate_plays_elsewhere():
    agent = Idle("CartPole-v1", seed=0)
    before = agent.environments.vector.np_random.bit_generator.state
    result = agent.evaluate(episodes=30)
    assert agent.environments.vector.np_random.bit_generator.state == before
    assert (agent.steps, agent.epochs) == (0, 0)
    assert set(result) == {"return_mean", "return_std", "length_mean", "episodes"}
    assert result["episodes"] == 30
    assert result["return_mean"] == result["length_mean"] > 5  # CartPole pays 1 a step
    assert result == agent.evaluate(episodes=30)
    assert result != agent.evaluate(episodes=30, seed=1)
    assert result != agent.evaluate(episodes=30, deterministic=False)
    with pytest.raises(ValueError, match="Received: episodes=0"):
        agent.evaluate(0)


def test_evaluate_and_predict_see_new_weights():
    agent = Idle("CartPole-v1", seed=0)
    for action in (0, 1):
        weights = [np.zeros_like(w) for w in agent.policy.get_weights()]
        weights[-1][action] = 1.0
        agent.policy.set_weights(weights)
        assert agent.evaluate(episodes=20)["length_mean"] < 12  # one direction only
        assert agent.predict(np.zeros(4)) == action


def test_evaluate_counts_every_episode_once():
    agent = Idle(Corridor, seed=0)
    result = agent.evaluate(episodes=47)
    assert result["episodes"] == 47
    assert 3 <= result["return_mean"] <= 21  # 1 + 2 to 1 + ... + 6
    assert result["return_std"] > 1


def test_progress(capsys):
    agent = Idle(Corridor, seed=0)
    agent.fit(40, verbose=1)
    bar = capsys.readouterr().out
    assert "40/40" in bar and "return_mean" in bar and "steps_per_second" in bar
    agent.fit(40, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Epoch ") and "return_mean: " in lines[0]
    agent.fit(40, verbose=0)
    assert capsys.readouterr().out == ""


def saved(tmp_path):
    agent = Idle("CartPole-v1", seed=5)
    agent.fit(100, verbose=0)
    agent.predict(np.zeros((3, 4)), deterministic=False)
    path = tmp_path / "agent.zip"
    agent.save(path)
    return agent, path


def test_load_goes_on(tmp_path):
    agent, path = saved(tmp_path)
    loaded = Idle.load(path)
    assert (loaded.steps, loaded.epochs) == (agent.steps, agent.epochs)
    assert loaded.environments.count == 2
    observations = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_array_equal(
        loaded.predict(observations), agent.predict(observations)
    )
    again, on = (a.predict(observations, deterministic=False) for a in (loaded, agent))
    np.testing.assert_array_equal(again, on)  # drawn from where the first one was
    for x in (agent, loaded):
        x.played.clear()
        x.fit(100, verbose=0)
    for a, b in zip(agent.played, loaded.played, strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)
    assert loaded.steps == agent.steps


def test_load_takes_another_environment_that_fits(tmp_path):
    _, path = saved(tmp_path)
    again = Idle.load(path, lambda: gym.make("CartPole-v1"))
    again.fit(100, verbose=0)
    with pytest.raises(ValueError, match="environment.*Received: environment=None"):
        again.save(tmp_path / "again")
        Idle.load(tmp_path / "again").fit(100)


@pytest.mark.once
def test_loaded_without_an_environment_it_predicts(tmp_path):
    path = tmp_path / "agent"
    x = np.random.default_rng(0).normal(size=(9, 2)).astype("float32")
    settings = {"rollout_length": 4, "horizon": 4, "batch_size": 12, "num_envs": 3}
    agent = PPO(lambda: Informed(), seed=1, **settings)  # real actions
    agent.fit(12, verbose=0)
    agent.save(path)
    loaded = PPO.load(path)
    np.testing.assert_array_equal(loaded.predict(x), agent.predict(x))
    for draw in (False, True):
        drawn = [a.predict(x[0], deterministic=draw) for a in (agent, loaded)]
        np.testing.assert_array_equal(*drawn)
    told = "loaded to predict.*environment=....*Received: environment=None"
    for call in (lambda: loaded.fit(12), loaded.evaluate):
        with pytest.raises(ValueError, match=told):
            call()
    assert "lambda" in repr(agent) and repr(agent).startswith("PPO(environment=")
    kept = "PPO(environment=None, loaded to predict, observations=(2,), actions=Box(-1"
    assert repr(loaded).startswith(kept)
    assert repr(loaded).endswith("steps=12, epochs=1, seed=1)")
    loaded.save(path)  # and goes on where there is an environment again
    again = PPO.load(path, env=Informed)
    again.fit(12, verbose=0)
    assert again.steps == 24
    with pytest.raises(ValueError, match="pass one of them. Received: environment="):
        PPO.load(path, Informed, env=Informed)
    assert repr(Idle("CartPole-v1", seed=0)) == (
        "Idle(environment='CartPole-v1', observations=(4,), actions=Discrete(2), "
        "steps=0, epochs=0, seed=0)"
    )


@pytest.mark.once
def test_learn_takes_the_words_of_stable_baselines(capsys):
    agent, seen = Idle(Corridor, seed=0), []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda n, logs: seen.append(n))
    assert agent.learn(30, callback=watch, progress_bar=False) is agent
    assert capsys.readouterr().out == "" and seen == list(range(agent.epochs))
    agent.learn(40, progress_bar=True)
    assert "return_mean" in capsys.readouterr().out
    agent.learn(60, [watch], log_interval=2)
    lines = capsys.readouterr().out.splitlines()
    told = [int(line.split(":")[0].removeprefix("Epoch ")) for line in lines]
    assert len(told) > 1 and not np.mod(told, 2).any() and (np.diff(told) == 2).all()
    with pytest.raises(ValueError, match="Received: log_interval=0"):
        agent.learn(10, log_interval=0)
    with pytest.raises(ValueError, match="Received: <function.*no keras.callbacks"):
        agent.learn(10, callback=lambda local, other: True)


@pytest.mark.once
@pytest.mark.parametrize("kind", [A2C, DQN, PPO, Rainbow, RecurrentPPO, REINFORCE, SAC])
def test_counts_of_numpy(kind, tmp_path):
    counts = {"num_envs": 2, "horizon": 8, "seed": 3}
    counts |= {} if kind is REINFORCE else {"rollout_length": 4}
    if kind in (PPO, RecurrentPPO):
        counts |= {"batch_size": 8, "update_epochs": 1}
    if kind in (DQN, Rainbow, SAC):
        counts |= {"batch_size": 4, "buffer_size": 50, "learning_starts": 8}
        counts |= {"gradient_steps": 2}
    if kind is A2C:
        counts |= {"critic_steps": 2}
    if kind is REINFORCE:
        counts |= {"baseline_steps": 2}
    environment = Steer if kind is SAC else Signs
    more = {"value_range": (-9, 9)} if kind is Rainbow else {}
    numbers = {name: np.int64(n) for name, n in counts.items()}
    agent = kind(environment, **numbers, **more)
    agent.save(tmp_path / "agent")
    loaded = kind.load(tmp_path / "agent", environment)
    assert loaded.config == kind(environment, **counts, **more).config
    assert loaded.seed == 3 and loaded.environments.count == 2
    if kind is DQN:
        agent.fit(np.int32(16), verbose=0)
        assert agent.evaluate(np.uint8(2))["episodes"] == 2


def test_refuses_the_file_of_another_agent(tmp_path):
    _, path = saved(tmp_path)
    with pytest.raises(ValueError, match="another agent. Received: Idle in the file"):
        Other.load(path)


def test_a_diverged_policy_is_named():
    agent = Idle(Corridor, seed=0)
    agent.policy.layers[0].bias.assign(np.full(64, np.nan))
    with pytest.raises(ValueError, match="diverged.*Received: nan in epoch 0"):
        agent.fit(10, verbose=0)


@pytest.mark.parametrize(
    "arguments",
    [{"steps": 0}, {"steps": 1.5}, {"steps": True}, {"steps": 9, "verbose": 3}],
)
def test_fit_rejects(arguments):
    with pytest.raises(ValueError, match="Received: (steps|verbose)="):
        Idle(Corridor, seed=0).fit(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"seed": -1}, {"seed": 0.5}, {"horizon": 0}, {"horizon": True}]
)
def test_rejects(arguments):
    with pytest.raises(ValueError, match="Received: (seed|horizon)="):
        Idle(Corridor, **arguments)


# -- restart ---------------------------------------------------------------------

SMALL = {"num_envs": 2, "rollout_length": 16, "horizon": 32, "update_epochs": 1}


def bits(agent):
    variables = [*agent.learner.variables, *agent.learner.optimizer.variables]
    return [keras.ops.convert_to_numpy(v).tolist() for v in variables]


def test_restart_after_load_makes_default_networks_anew(tmp_path):
    PPO("CartPole-v1", seed=1, **SMALL).save(tmp_path / "agent")
    loaded = PPO.load(tmp_path / "agent").restart(2)
    new = PPO("CartPole-v1", seed=2, **SMALL)
    for agent in (loaded, new):
        agent.fit(64, verbose=0)
    assert loaded.seed == 2 and loaded.steps == 64
    assert bits(loaded) == bits(new)


def test_restart_makes_given_networks_anew():
    def made(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input((4,)), keras.layers.Dense(2)]
        rate = keras.optimizers.schedules.PolynomialDecay(0.1, 4)
        return PPO(
            "CartPole-v1",
            keras.Sequential(layers),
            optimizer=keras.optimizers.Adam(rate),
            seed=seed,
            normalizer=Normalizer(),
            **SMALL,
        )

    agent, new = made(1), made(2)
    agent.fit(64, verbose=0)
    agent.restart(2)
    for each in (agent, new):
        each.fit(64, verbose=0)
    assert bits(agent) == bits(new)


def test_restart_plays_on_in_an_environment_that_was_given():
    environment = gym.make("CartPole-v1")
    agent = PPO(environment, seed=1, rollout_length=16, horizon=32)
    agent.fit(32, verbose=0)
    gc.collect()
    agent.restart(1).fit(32, verbose=0)
    assert agent.steps == 32
    assert agent.environments.vector.envs[0] is environment


@pytest.mark.once
def test_a_refused_restart_changes_nothing():
    agent = PPO("CartPole-v1", seed=1, **SMALL)
    before = bits(agent)
    with pytest.raises(ValueError, match="seed.*Received: seed=-1"):
        agent.restart(-1)
    assert agent.seed == 1
    assert bits(agent) == before


@pytest.mark.once
@pytest.mark.parametrize(
    "agent_class, environment", [(PPO, "CartPole-v1"), (SAC, "Pendulum-v1")]
)
def test_how_the_learner_is_compiled_is_in_the_file(agent_class, environment, tmp_path):
    agent = agent_class(environment, jit_compile=True, seed=0)
    assert agent.learner.jit_compile
    agent.save(tmp_path / "agent")
    assert agent_class.load(tmp_path / "agent").learner.jit_compile
    assert not agent_class(environment, jit_compile=False).learner.jit_compile


# -- floatx -----------------------------------------------------------------------


@pytest.fixture
def float64():
    with policy("float64"):
        yield


@pytest.mark.once
@pytest.mark.parametrize(
    "agent_class, settings",
    [
        (A2C, {"rollout_length": 16}),
        (DQN, {"learning_starts": 64, "gradient_steps": 2}),
        (PPO, {"rollout_length": 16, "normalizer": True}),
        (Rainbow, {"learning_starts": 64, "n_step": 1, "value_range": (0, 50)}),
        (RecurrentPPO, {"rollout_length": 4}),
        (REINFORCE, {}),
    ],
)
def test_learns_under_floatx_float64(agent_class, settings, float64):
    if "normalizer" in settings:
        settings = {**settings, "normalizer": Normalizer()}
    agent = agent_class("CartPole-v1", num_envs=2, horizon=32, seed=0, **settings)
    before = agent.policy.get_weights()
    agent.fit(160, verbose=0)
    assert before[0].dtype == "float64"
    after = agent.policy.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
