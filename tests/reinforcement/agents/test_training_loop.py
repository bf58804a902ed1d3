"""Tests of dlcompanion.reinforcement.agents.training_loop."""

import keras
import numpy as np
import pytest
from helpers.toy_environments import Signs, Steer

from dlcompanion.optimization import SWA
from dlcompanion.reinforcement import (
    DQN,
    PPO,
    SAC,
    AlphaZero,
    LineGame,
    RecurrentPPO,
)
from dlcompanion.reinforcement.agents.training_loop import TrainingLoop
from dlcompanion.testing.agent_states import state_of
from dlcompanion.training import FindNaN, ResumableCheckpoint


class Diary(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.lines = []

    def on_train_begin(self, logs=None):
        self.lines.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.lines.append(f"epoch {epoch}")

    def on_train_batch_begin(self, batch, logs=None):
        self.lines.append(f"batch {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self.lines.append(f"batch {batch}: {logs}")

    def on_epoch_end(self, epoch, logs=None):
        self.lines.append(f"epoch {epoch}: {logs}")

    def on_train_end(self, logs=None):
        self.lines.append(f"end: {logs}")


def run(verbose=0, callbacks=None):
    learner = keras.Sequential()
    loop = TrainingLoop(learner, callbacks, verbose, 4, ["loss"])
    done = 0
    while done < 4 and not learner.stop_training:
        loop.begin(7 + done)
        done += 1
        loop.end({"loss": 0.5 * done, "more": 1.0}, done, f"Epoch {done}")
    return loop.finish()


def test_callbacks_hear_of_everything_in_order():
    diary = Diary()
    history = run(callbacks=[diary])
    one = "{'loss': 0.5, 'more': 1.0}"
    assert diary.lines[:5] == [
        "begin",
        "epoch 7",
        "batch 0",
        f"batch 0: {one}",
        f"epoch 7: {one}",
    ]
    assert diary.lines[-1] == "end: {'loss': 2.0, 'more': 1.0}"
    assert history.history["loss"] == [0.5, 1.0, 1.5, 2.0]
    assert history.epoch == [7, 8, 9, 10]


def test_a_callback_stops_it():
    stop = keras.callbacks.EarlyStopping("more", patience=1, mode="max")
    assert len(run(callbacks=[stop]).epoch) == 2
    assert len(run().epoch) == 4  # the next loop begins afresh


def agent_of(kind, seed=0):
    if kind is AlphaZero:
        small = {"games": 2, "simulations": 2, "gradient_steps": 2, "batch_size": 2}
        return AlphaZero(LineGame(2, 2, 2), **small, seed=seed)
    settings = {"num_envs": 2, "rollout_length": 4, "horizon": 20, "seed": seed}
    if kind in (PPO, RecurrentPPO):
        settings |= {"batch_size": 8, "update_epochs": 1}
    if kind in (DQN, SAC):
        settings |= {"batch_size": 4, "gradient_steps": 2, "learning_starts": 8}
    return kind(Steer if kind is SAC else Signs, **settings)


ONCE = [pytest.param(x, marks=pytest.mark.once) for x in (AlphaZero, RecurrentPPO, SAC)]


@pytest.mark.parametrize("kind", [DQN, *ONCE])
def test_an_agent_made_anew_goes_on(kind, tmp_path):
    part, steps = (1, 3) if kind is AlphaZero else (56, 96)  # an epoch has 40
    whole, first, second = (agent_of(kind, seed=4) for _ in range(3))
    for steps_of_call in (part, steps - part):
        whole.fit(steps_of_call, verbose=0)
    first.fit(part, callbacks=[ResumableCheckpoint(tmp_path / "run")], verbose=0)
    np.random.seed(1)
    keep = ResumableCheckpoint(tmp_path / "run", every=9)
    history = second.fit(steps, callbacks=[keep], verbose=0)
    assert history.epoch[0] > 0  # its own epochs, numbered on
    third = agent_of(kind, seed=5)  # takes what is at the end already, seed included
    third.fit(steps, callbacks=[ResumableCheckpoint(tmp_path / "run")], verbose=0)
    expected = {**state_of(whole), **whole.arrays()}
    for agent in (second, third):
        got = {**state_of(agent), **agent.arrays()}
        assert list(got) == list(expected) and agent.seed == 4
        for name, array in expected.items():
            np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_backup_and_restore_brings_back_the_agent(tmp_path):
    def backup(**kwargs):
        return keras.callbacks.BackupAndRestore(tmp_path / "backup", **kwargs)

    def kill(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    whole, first, second = (agent_of(DQN) for _ in range(3))
    whole.fit(200, verbose=0)
    killed = keras.callbacks.LambdaCallback(on_epoch_end=kill)
    with pytest.raises(KeyboardInterrupt):
        first.fit(200, callbacks=[killed, backup()], verbose=0)
    history = second.fit(200, callbacks=[backup(delete_checkpoint=False)], verbose=0)
    assert history.epoch == [2, 3, 4] and second.steps == whole.steps == 200
    np.testing.assert_array_equal(
        second.policy.get_weights()[0], whole.policy.get_weights()[0]
    )
    assert list((tmp_path / "backup").iterdir())
    third = agent_of(DQN)
    assert third.fit(200, callbacks=[backup()], verbose=0).epoch == []
    assert third.steps == 200 and not list((tmp_path / "backup").iterdir())
    other = ResumableCheckpoint(tmp_path / "run")
    agent_of(PPO).fit(8, callbacks=[other], verbose=0)
    with pytest.raises(ValueError, match="another run: its .*Received: "):
        agent_of(DQN).fit(8, callbacks=[other], verbose=0)


@pytest.mark.once
def test_callbacks_of_keras_work_or_are_refused_by_name(tmp_path):
    c, seen = keras.callbacks, []
    agent = agent_of(DQN)
    callbacks = [
        c.TerminateOnNaN(),  # the loss is NaN before the first update
        c.ModelCheckpoint(tmp_path / "{epoch}.keras"),
        c.ModelCheckpoint(
            tmp_path / "best.weights.h5", "return_mean", 0, True, True, "max"
        ),
        c.LearningRateScheduler(lambda epoch, rate: 0.5 * rate),
        c.ReduceLROnPlateau("return_mean", mode="max"),
        c.CSVLogger(tmp_path / "log.csv"),
        SWA(start=1),
        c.LambdaCallback(on_train_batch_end=lambda _, logs: seen.append(set(logs))),
    ]
    agent.learning_starts = 50
    agent.fit(120, callbacks=callbacks, verbose=0)
    assert agent.epochs == 3 and "loss" in seen[-1] - seen[0]
    assert {"1.keras", "3.keras", "best.weights.h5", "log.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }

    class Mine(c.BackupAndRestore):
        pass

    for refused, why in {
        c.ProgbarLogger(): "a bar of its own",
        Mine(tmp_path): "Resumable",
        FindNaN(): "single steps",
        print: "no keras.callbacks.Callback",
    }.items():
        with pytest.raises(ValueError, match=f"between epochs.*Received: .*{why}"):
            agent.fit(40, callbacks=[refused], verbose=0)
    agent.fit(40, verbose=0)


def test_what_is_shown(capsys):
    run(0)
    assert capsys.readouterr().out == ""
    run(2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0] == "Epoch 1: loss: 0.5, more: 1"
    run(1)
    out = capsys.readouterr().out
    assert "4/4" in out and "loss: 2.0" in out and "more" not in out
    with pytest.raises(ValueError, match="Received: verbose='loud'"):
        run("loud")
