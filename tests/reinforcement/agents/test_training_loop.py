"""Tests of dlcompanion.reinforcement.agents.training_loop."""

import keras
import pytest

from dlcompanion.reinforcement.agents.training_loop import TrainingLoop


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
