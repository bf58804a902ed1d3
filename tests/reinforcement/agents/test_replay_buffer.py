"""Tests of dlcompanion.reinforcement.agents.replay_buffer."""

import tracemalloc

import numpy as np
import pytest
from helpers.toy_environments import Corridor, Pixels, RealPixels
from keras import ops

from dlcompanion.reinforcement import DQN, SAC, Rainbow, ReplayBuffer
from dlcompanion.reinforcement.agents.replay_buffer import n_step_transitions
from dlcompanion.reinforcement.agents.rollout import Rollout, RolloutCollector
from dlcompanion.reinforcement.environments.gymnasium_environments import Environments


def test_the_oldest_is_forgotten_first():
    replay, remembered = ReplayBuffer(7), []
    rng = np.random.default_rng(0)
    for size in (3, 5, 1, 7, 4, 20, 2):
        x = rng.normal(size=(size, 2)).astype("float32")
        rows = replay.add(x=x, n=np.arange(size))
        remembered = [*remembered, *x.tolist()][-7:]
        assert sorted(replay.columns["x"][: len(replay)].tolist()) == sorted(remembered)
        kept = x[max(size - 7, 0) :]
        np.testing.assert_array_equal(replay.columns["x"][rows], kept)
    assert len(replay) == 7 and replay.added == 42


def test_draws_are_uniform():
    replay = ReplayBuffer(8)
    replay.add(n=np.arange(5))
    drawn = replay.sample((100, 100), np.random.default_rng(0))["n"]
    counts = np.bincount(drawn.ravel(), minlength=5)
    chi2 = ((counts - 2000) ** 2 / 2000).sum()
    assert len(counts) == 5 and chi2 < 18.5  # 0.999 quantile, 4 degrees of freedom


def test_goes_on_from_its_arrays():
    a, b = ReplayBuffer(6), ReplayBuffer(6)
    a.add(x=np.arange(4.0), y=np.ones((4, 2), "int32"))
    b.restore({**a.arrays(), "other": np.zeros(3)})
    for replay in (a, b):
        replay.add(x=np.arange(5.0), y=np.zeros((5, 2), "int32"))
    same = (replay.sample((9,), np.random.default_rng(1)) for replay in (a, b))
    for x, y in zip(*(s.values() for s in same), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    empty = ReplayBuffer(3)
    empty.restore(ReplayBuffer(3).arrays())
    assert len(empty) == 0
    with pytest.raises(ValueError, match="holds 3. Received: 6 rows of replay.x"):
        ReplayBuffer(3).restore(a.arrays())


def test_a_million_steps_take_their_own_bytes():
    tracemalloc.start()
    replay = ReplayBuffer(1_000_000)
    step = {
        "observation": np.zeros((1000, 4), "float32"),
        "next_observation": np.zeros((1000, 4), "float32"),
        "action": np.zeros(1000, "int32"),
        "reward": np.zeros(1000, "float32"),
        "discount": np.zeros(1000, "float32"),
    }
    for _ in range(1_000):
        replay.add(**step)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(replay) == 1_000_000
    assert peak < 1.1 * sum(c.nbytes for c in replay.columns.values())


def by_hand(rollout, n, discount):
    """The transitions of one environment after the other, from the definition."""
    time, count = rollout.rewards.shape
    rows = []
    for t in range(time):
        for e in range(count):
            if not rollout.mask[t, e]:
                continue
            total, factor, k = 0.0, 1.0, t
            while True:
                total += factor * rollout.rewards[k, e]
                factor *= discount
                if k + 1 == time or rollout.dones[k, e] or k + 1 == t + n:
                    break
                k += 1
            factor = 0.0 if rollout.terminated[k, e] else factor
            rows.append((total, factor, *rollout.next_observations[k, e]))
    return np.array(rows)


@pytest.mark.parametrize("n", [1, 3, 50])
def test_n_steps_are_those_of_the_definition(n):
    collector = RolloutCollector(Environments(Corridor, 5), seed=1)
    rollout = collector.play(lambda x: np.zeros(len(x), int), 14)
    assert rollout.terminated.any() and (rollout.dones & ~rollout.terminated).any()
    assert not rollout.mask.all()
    found = n_step_transitions(rollout, n, 0.9)
    got = np.column_stack(
        [found["reward"], found["discount"], found["next_observation"]]
    )
    np.testing.assert_allclose(got, by_hand(rollout, n, 0.9), rtol=1e-5)
    np.testing.assert_array_equal(
        found["observation"], rollout.observations[rollout.mask]
    )
    np.testing.assert_array_equal(found["action"], rollout.actions[rollout.mask])


def test_without_discount_the_return_of_an_episode_is_what_was_paid():
    no = np.zeros((4, 1), bool)
    dones = no.copy()
    dones[3] = True
    x = np.arange(4.0)[:, None]
    rollout = Rollout(x, x, x + 1, x + 1, dones, dones, ~no)
    found = n_step_transitions(rollout, 10, 1.0)
    assert found["reward"].tolist() == [10.0, 9.0, 7.0, 4.0]
    assert found["discount"].tolist() == [0.0] * 4


def test_a_phase_of_learning_comes_in_parts():
    random = np.random.default_rng(0)
    replay = ReplayBuffer(20)
    images = random.integers(0, 256, (20, 3, 3)).astype("uint8")
    replay.add(image=images, action=np.arange(20, dtype="int32"))
    rows, weights = random.integers(20, size=(6, 5)), random.random((6, 5))
    whole = replay.take(rows)
    for most, count in ((1, 6), (2 * 5 * 4 * 10, 3), (5 * 5 * 4 * 10, 2), (10**9, 1)):
        parts = [*replay.phases(rows, most, weights=weights)]
        assert len(parts) == count and len({len(x["image"]) for x in parts}) == 1
        joined = {n: np.concatenate([x[n] for x in parts]) for n in parts[0]}
        assert joined["image"].dtype == np.float32 and joined["action"].dtype == "int32"
        for name, column in {**whole, "weights": weights}.items():
            np.testing.assert_array_equal(joined[name], column)


@pytest.mark.once
@pytest.mark.parametrize("kind", [DQN, Rainbow, SAC])
def test_a_phase_in_parts_is_the_phase(kind, monkeypatch):
    def run():
        agent = kind(
            RealPixels if kind is SAC else Pixels,
            seed=0,
            num_envs=4,
            rollout_length=4,
            horizon=8,
            batch_size=8,
            gradient_steps=4,
            learning_starts=16,
            **({"value_range": (0, 2)} if kind is Rainbow else {}),
        )
        history = agent.fit(48, verbose=0).history
        weights = [ops.convert_to_numpy(v) for v in agent.learner.variables]
        name = "critic_loss" if kind is SAC else "loss"
        return weights, history[name][-1]

    with pytest.warns(UserWarning, match="look like images.*flattens them"):
        weights, loss = run()
        phases = ReplayBuffer.phases
        monkeypatch.setattr(
            ReplayBuffer,
            "phases",
            lambda self, rows, **more: phases(self, rows, most=1, **more),
        )
        others, other = run()
    assert other == pytest.approx(loss, rel=1e-4)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rejects():
    with pytest.raises(ValueError, match="Received: buffer_size=0"):
        ReplayBuffer(0)
    replay = ReplayBuffer(5)
    with pytest.raises(ValueError, match="Received: an empty replay buffer"):
        replay.draw((3,), np.random.default_rng(0))
    with pytest.raises(ValueError, match="one number of steps. Received: {'x': 2"):
        replay.add(x=np.zeros(2), y=np.zeros(3))
    replay.add(x=np.zeros(2))
    for wrong in ({"y": np.zeros(2)}, {"x": np.zeros((2, 1))}, {"x": np.zeros(2, int)}):
        with pytest.raises(ValueError, match="columns of the first one.*Received"):
            replay.add(**wrong)
    rollout = Rollout(*[np.zeros((3, 2))] * 7)
    with pytest.raises(ValueError, match="Received: n=0"):
        n_step_transitions(rollout, 0, 0.9)
    with pytest.raises(ValueError, match="Received: discount=2"):
        n_step_transitions(rollout, 1, 2)
