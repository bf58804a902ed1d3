"""Tests of dlcompanion.training.checkpoint."""

import contextlib
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.models import state

from dlcompanion.training import ResumableCheckpoint, fit_in_memory

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype("float32")
Y = RNG.integers(0, 3, 50)


def network(seed=0, units=8):
    """All that Keras forgets: two Dropouts, one without a seed of its own."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(units, "tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dropout(0.3, seed=5),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def train(model, epochs, callbacks, run=keras.Model.fit, **arguments):
    arguments = {"batch_size": 16, "verbose": 0, **arguments}
    return run(model, X, Y, epochs=epochs, callbacks=callbacks, **arguments)


def assert_identical(model, other):
    for a, b in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(a, b)


def disturb():
    """A new process would have other random states than the one that was killed."""
    np.random.seed(99)
    random.seed(99)
    np.random.random(7)
    keras.random.normal((2,))


@pytest.mark.parametrize("run", [keras.Model.fit, fit_in_memory])
def test_resumed_is_uninterrupted(run, tmp_path):
    """Bit for bit, with shuffling, two Dropouts, a plateau and early stopping."""

    def callbacks():
        stop = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)
        plateau = keras.callbacks.ReduceLROnPlateau("loss", 0.5, 1, min_delta=9.0)
        return [plateau, stop]

    def resumable():
        carry = callbacks()
        return [*carry, ResumableCheckpoint(tmp_path / "run.ckpt", carry)]

    whole = network()
    reference = train(whole, 5, callbacks(), run, validation_split=0.2)
    train(network(), 2, resumable(), run, validation_split=0.2)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    same_seed = on_tensorflow and run is keras.Model.fit
    resumed = network(seed=0 if same_seed else 123)
    disturb()
    history = train(resumed, 5, resumable(), run, validation_split=0.2)
    assert_identical(resumed, whole)
    assert history.history == reference.history
    assert history.epoch == reference.epoch == [0, 1, 2, 3, 4]
    rates = history.history["learning_rate"]
    assert rates[-1] < rates[1] / 2  # the plateau acted on both sides of the break


def test_another_tensorflow_seed_is_reported(tmp_path):
    """Keras's fit on TensorFlow takes the order from it; nothing else needs it."""
    path = tmp_path / "run.ckpt"
    train(network(), 1, [ResumableCheckpoint(path)])
    reported = contextlib.nullcontext()
    if keras.backend.backend() == "tensorflow":
        reported = pytest.warns(UserWarning, match=r"set_random_seed\(0\)")
    with reported:
        train(network(seed=1), 2, [ResumableCheckpoint(path)])
    train(network(seed=2), 3, [ResumableCheckpoint(path)], fit_in_memory)


SCRIPT = """
import os, signal, sys
import keras, numpy as np
from dlcompanion.training import ResumableCheckpoint
sys.path.insert(0, {tests!r})
from test_checkpoint import network, train

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

class Die(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if {moment!r} == "in an epoch" and self.epoch == 2 and batch == 1:
            die()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if {moment!r} == "before the rename" and epoch == 2:
            os.replace = die

train(network(), 9, [Die(), ResumableCheckpoint({path!r})])
"""


@pytest.mark.parametrize("moment", ["in an epoch", "before the rename"])
def test_a_killed_process_is_resumed(moment, tmp_path):
    path = tmp_path / "run.ckpt"
    script = SCRIPT.format(
        path=str(path), moment=moment, tests=str(Path(__file__).parent)
    )
    root = str(Path(__file__).parents[1])
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -9, killed.stderr
    assert (tmp_path / "run.ckpt.tmp").exists() == (moment == "before the rename")
    resumed, whole = network(), network()
    history = train(resumed, 4, [ResumableCheckpoint(path)])
    network()  # the same seeds for the uninterrupted run
    reference = train(whole, 4, [])
    assert history.history == reference.history
    assert_identical(resumed, whole)


def test_a_second_call_continues_or_has_nothing_to_do(tmp_path):
    model = network()
    keep = ResumableCheckpoint(tmp_path / "run.ckpt")
    train(model, 2, [keep])
    weights = model.get_weights()
    again = train(model, 2, [keep])
    assert again.epoch == [0, 1]
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert train(model, 3, [keep]).epoch == [0, 1, 2]
    assert train(model, 2, []).epoch == [0, 1]  # nothing is left behind in the model


def test_a_run_that_was_stopped_stays_stopped(tmp_path):
    def run(epochs):
        stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9.0)
        keep = ResumableCheckpoint(tmp_path / "run.ckpt", carry=[stop])
        return train(network(), epochs, [stop, keep]).epoch

    assert run(9) == [0, 1]
    assert run(9) == [0, 1]


class Counter(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.state = None

    def on_train_begin(self, logs=None):
        self.state = {"n": 0, "trace": np.zeros(0), "nested": [{"none": None}, "text"]}

    def on_epoch_end(self, epoch, logs=None):
        self.state["n"] += 1
        self.state["trace"] = np.append(self.state["trace"], epoch)

    def get_state(self):
        return self.state

    def set_state(self, state):
        self.state = state


def test_carries_callbacks_with_get_state_and_set_state(tmp_path):
    for epochs in (2, 5):
        counter = Counter()
        keep = ResumableCheckpoint(tmp_path / "run.ckpt", carry=[counter])
        train(network(), epochs, [counter, keep])
    assert counter.state["n"] == 5
    assert counter.state["trace"].tolist() == [0, 1, 2, 3, 4]
    assert counter.state["nested"] == [{"none": None}, "text"]


def test_every_and_the_last_epoch(tmp_path):
    keep = ResumableCheckpoint(tmp_path / "run.ckpt", every=2)
    written = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            written.append(keep.path.stat().st_mtime_ns if keep.path.exists() else 0)

    train(network(), 5, [keep, Watch()])
    changes = [bool(b - a) for a, b in zip([0, *written], written, strict=False)]
    assert changes == [False, True, False, True, True]


def test_bfloat16_variables_come_back_exactly(tmp_path):
    def model():
        keras.utils.set_random_seed(0)
        dense = keras.layers.Dense(1, dtype="bfloat16")
        model = keras.Sequential([keras.Input((6,)), dense])
        model.compile("sgd", "mse")
        return model

    whole, resumed = model(), model()
    keep = ResumableCheckpoint(tmp_path / "run.ckpt")
    whole.fit(X, X[:, :1], epochs=1, verbose=0, callbacks=[keep], shuffle=False)
    resumed.fit(X, X[:, :1], epochs=1, verbose=0, callbacks=[keep], shuffle=False)
    for a, b in zip(whole.variables, resumed.variables, strict=True):
        assert a.dtype == b.dtype
        a, b = (
            keras.ops.convert_to_numpy(keras.ops.cast(v, "float32")) for v in (a, b)
        )
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("whole") / "run.ckpt"
    train(network(), 1, [ResumableCheckpoint(path)])
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"not mine\n",
        lambda whole: whole.replace(
            b"dlcompanion checkpoint", b"dlcompanion Checkpoint"
        ),
        lambda whole: whole[:700] + bytes([whole[700] ^ 1]) + whole[701:],
    ],
    ids=["truncated", "empty", "text", "format", "one bit"],
)
def test_refuses_a_damaged_or_foreign_file(damage, whole_file, tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(damage(whole_file))
    before, model = path.read_bytes(), network()
    weights = state(model)
    with pytest.raises(ValueError, match="not a whole file of ResumableCheckpoint"):
        train(model, 2, [ResumableCheckpoint(path)])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]
    for a, b in zip(weights, state(model)[: len(weights)], strict=True):
        np.testing.assert_array_equal(a, b)


def test_refuses_other_files_of_numpy_and_folders(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "other.npy", np.ones(3))
    for name in ("other.npz", "other.npy", "."):
        with pytest.raises(ValueError, match="not a whole file"):
            train(network(), 1, [ResumableCheckpoint(tmp_path / name)])


def test_refuses_the_file_of_another_run(whole_file, tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(whole_file)
    keep = ResumableCheckpoint(path)
    with pytest.raises(ValueError, match="its shapes of all variables differs"):
        train(network(units=9), 2, [keep])
    with pytest.raises(ValueError, match="its steps differs"):
        train(network(), 2, [keep], batch_size=10)
    model = network()
    model.compile("sgd", model.loss)
    with pytest.raises(ValueError, match="its optimizer differs"):
        train(model, 2, [keep])
    stop = keras.callbacks.EarlyStopping("loss")
    with pytest.raises(ValueError, match="its number of carried callbacks differs"):
        train(network(), 2, [stop, ResumableCheckpoint(path, carry=[stop])])


def test_refuses_bad_arguments_and_unbuilt_models(tmp_path):
    with pytest.raises(ValueError, match="every must be an integer of at least 1"):
        ResumableCheckpoint("run.ckpt", every=0)
    with pytest.raises(ValueError, match="carry takes"):
        ResumableCheckpoint("run.ckpt", carry=[keras.callbacks.TerminateOnNaN()])
    keep = ResumableCheckpoint(tmp_path / "run.ckpt")
    if keras.backend.backend() == "tensorflow":  # the others build before they begin
        model = keras.Sequential([keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="needs a built and compiled model"):
            model.fit(X, X[:, :3], verbose=0, callbacks=[keep])


def test_a_folder_that_cannot_be_written_fails_at_once(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    epochs = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda e, logs: epochs.append(e)
    )
    with pytest.raises(PermissionError):
        train(network(), 1, [watch, ResumableCheckpoint(tmp_path / "run.ckpt")])
    assert epochs == []
