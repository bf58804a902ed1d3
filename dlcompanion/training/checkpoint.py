"""ResumableCheckpoint: a killed run goes on as if nothing had happened."""

import json
import os
import random
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count

_FORMAT = "dlcompanion checkpoint 1"

#: What of Keras's own callbacks is state; everything else of them is configuration.
_KERAS_STATE = {
    keras.callbacks.EarlyStopping: (
        "wait",
        "stopped_epoch",
        "best",
        "best_epoch",
        "best_weights",
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best", "cooldown_counter"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


class ResumableCheckpoint(keras.callbacks.Callback):
    """Write one file an epoch; the next ``fit`` with the same file goes on from it.

    ``fit(k)``, a new process and ``fit(n)`` give the same weights, bit for bit, as
    ``fit(n)`` in one go, with dropout and shuffling on. Like
    :class:`keras.callbacks.BackupAndRestore` the callback sets the first epoch of
    ``fit`` itself; unlike it, the file is kept when training ends (a second call with
    more ``epochs`` continues, one with as many does nothing, deleting the file starts
    anew), the history comes back whole, and nothing random is forgotten.

    Carried: all variables of the model, seed generators of all layers included
    (Keras saves none of them, not even its own Dropout's); the optimizer, its
    iterations and learning rate; the epoch and the history; the random states of
    Python, NumPy, Keras and PyTorch; the state of the callbacks in ``carry``.

    The order of the examples under ``fit(shuffle=True)`` on arrays is decided by
    NumPy's generator on JAX and by PyTorch's on PyTorch; both are carried. On
    TensorFlow, Keras takes the order from the global seed when ``fit`` starts, and
    repeats it in every epoch; without :func:`keras.utils.set_random_seed` it comes
    from the hardware and no two runs agree. So set the same seed before either call;
    a different one is reported with a warning. The order under
    :func:`~dlcompanion.training.fit_in_memory` is carried on every backend.

    In ``fit`` of an agent of :mod:`dlcompanion.reinforcement` the agent itself is
    carried, its counters, memory and the epoch under way: an agent made anew, with the
    same arguments, makes the steps that were left. Its history is that of the call.

    Not carried: the position in a dataset, generator or ``PyDataset`` of your own,
    or inside an epoch (``steps_per_epoch`` that splits the arrays); metrics, which
    Keras resets every epoch; callbacks that are not in ``carry``.

    A file is written whole under another name and then renamed over the last one, so
    whenever the run is killed there is a whole one. It is an ``.npz`` without pickles.

    Args:
        path: String or path of the file, written at the end of each epoch.
        carry: List of callbacks whose state goes with the run. They are passed to
            ``fit`` as well, *before* this callback, which must be the last of the
            list to see what they did. Accepted are Keras's ``EarlyStopping``,
            ``ReduceLROnPlateau`` and ``ModelCheckpoint``, and every callback with
            ``get_state()``, which returns a dict of numbers, strings, arrays and
            lists of them, and ``set_state(state)``.
        every: Positive integer, epochs between two writes. The last epoch is always
            written.

    Raises:
        ValueError: If an argument is none of the above; and in ``fit``, if the model
            is not built or compiled, if the file is truncated, foreign, or of
            another model, optimizer, number of steps or backend. Such a file is
            left as it is.

    Example:
        >>> import tempfile, os, numpy as np
        >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
        >>> x, y = np.ones((8, 3)), np.ones((8, 1))
        >>> def run(epochs):
        ...     keras.utils.set_random_seed(0)
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     model.compile("adam", "mse")
        ...     keep = ResumableCheckpoint(path)
        ...     history = model.fit(x, y, epochs=epochs, callbacks=[keep], verbose=0)
        ...     return history.epoch
        >>> run(epochs=2)
        [0, 1]
        >>> run(epochs=4)  # goes on with the third epoch; the history is whole
        [0, 1, 2, 3]
    """

    def __init__(self, path, carry=(), every=1):
        super().__init__()
        check_count("every", every)
        for callback in carry:
            if not (_attributes(callback) or _has_protocol(callback)):
                raise ValueError(
                    "carry takes Keras's EarlyStopping, ReduceLROnPlateau and "
                    "ModelCheckpoint, and callbacks with get_state() and set_state(). "
                    f"Received: {callback!r}"
                )
        self.path = Path(path)
        self.carry = list(carry)
        self.every = every
        self._resumed = None  # the epochs and history of before, once
        self._history = {}

    def on_train_begin(self, logs=None):
        model = self.model
        if not model.built or model.optimizer is None:
            raise ValueError(
                "ResumableCheckpoint needs a built and compiled model: call it once "
                "on a batch, or begin it with keras.Input. "
                f"Received: model={model.name}, built={model.built}"
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._history = {}
        self._resumed = []
        self._unwritten = None
        if self.path.exists():
            self._restore(_read(self.path))
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.path.parent):
            pass  # a folder that cannot be written fails now, not after an epoch

    @property
    def _agent(self):
        """The agent that is trained, or None where a model is."""
        return self.params.get("agent")

    def on_epoch_begin(self, epoch, logs=None):
        self._hand_over_history()

    def on_epoch_end(self, epoch, logs=None):
        for name, value in (logs or {}).items():
            self._history.setdefault(name, []).append(value)
        last = epoch + 1 == self.params["epochs"] or self.model.stop_training
        self._unwritten = epoch + 1
        if last or (epoch + 1) % self.every == 0:
            self._write()

    def _write(self):
        _write(self.path, self._state(self._unwritten))
        self._unwritten = None

    def on_train_end(self, logs=None):
        if self._agent is not None and self._unwritten:  # nobody knew it was the last
            self._write()
        self._hand_over_history()

    def _hand_over_history(self):
        """Keras's History empties itself when training begins; fill it after that."""
        if self._resumed is None:
            return
        backend.start_at_epoch(self.model, None)
        history = self.model.history
        history.epoch[:0] = self._resumed
        for name, values in self._history.items():
            history.history[name] = list(values)
        self._resumed = None

    def _variables(self):
        """Variables of the model, seeds included, and those of the optimizer."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def _state(self, epoch):
        return {
            "format": _FORMAT,
            "backend": keras.backend.backend(),
            "optimizer": type(self.model.optimizer).__name__,
            "steps": self.params.get("steps"),
            "agent": None if self._agent is None else self._agent.get_state(),
            "epoch": epoch,
            "stopped": bool(self.model.stop_training),
            "history": self._history,
            "random": _random_state(),
            "carry": [_get_state(callback) for callback in self.carry],
            "variables": [keras.ops.convert_to_numpy(v) for v in self._variables()],
        }

    def _restore(self, state):
        self._check(state)
        for variable, value in zip(self._variables(), state["variables"], strict=True):
            variable.assign(value)
        for callback, saved in zip(self.carry, state["carry"], strict=True):
            _set_state(callback, saved)
        _set_random_state(state["random"])
        if self._agent is not None:
            self._agent.set_state(state["agent"])
            self._resumed = None  # fit tells of its own epochs
            self.model.stop_training = state["stopped"]
            return
        if not self.params.get("in_memory"):
            self._warn_of_another_order(state["random"]["tensorflow_seed"])
        self._history = state["history"]
        self._resumed = list(range(state["epoch"]))
        # A run that a callback stopped has ended: no epoch is left, however many
        # were asked for.
        first = self.params["epochs"] if state["stopped"] else state["epoch"]
        backend.start_at_epoch(self.model, first)

    def _warn_of_another_order(self, there):
        here = backend.random_state()["tensorflow_seed"]
        if there is not None and there != here:
            warnings.warn(
                f"TensorFlow's global seed was {there} in the run of {self.path} and "
                f"is {here} now. Keras draws the order of examples from it when fit "
                "starts, so that order differs from the uninterrupted run's. Call "
                f"keras.utils.set_random_seed({there}) before fit.",
                stacklevel=2,
            )

    def _check(self, state):
        """Refuse what is not of this run, before anything is changed."""
        shapes = [tuple(v.shape) for v in self._variables()]
        here = {
            "backend": keras.backend.backend(),
            "optimizer": type(self.model.optimizer).__name__,
            "steps": self.params.get("steps"),
            "agent": None if self._agent is None else type(self._agent).__name__,
            "number of carried callbacks": len(self.carry),
            "shapes of all variables": shapes,
        }
        there = {
            **state,
            "agent": (state.get("agent") or {}).get("agent"),
            "number of carried callbacks": len(state["carry"]),
            "shapes of all variables": [v.shape for v in state["variables"]],
        }
        for name, value in here.items():
            if there[name] != value:
                raise ValueError(
                    f"{self.path} was written by another run: its {name} differs. "
                    "Delete the file to begin anew, or pass the path of this run. "
                    f"Received: {value} here, {there[name]} in the file"
                )


def _attributes(callback):
    for kind, names in _KERAS_STATE.items():
        if isinstance(callback, kind):
            return names
    return ()


def _has_protocol(callback):
    return hasattr(callback, "get_state") and hasattr(callback, "set_state")


def _get_state(callback):
    if _has_protocol(callback):
        return callback.get_state()
    names = _attributes(callback)
    return {name: getattr(callback, name) for name in names if hasattr(callback, name)}


def _set_state(callback, state):
    if _has_protocol(callback):
        return callback.set_state(state)
    for name, value in state.items():
        setattr(callback, name, value)


def _random_state():
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        **backend.random_state(),
    }


def _set_random_state(state):
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    backend.set_random_state(state)


def _write(path, state):
    """Whole or not at all: another name, to the disk, then over the old file."""
    arrays = []
    text = json.dumps(_encode(state, arrays)).encode()
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, *arrays, meta=np.frombuffer(text, np.uint8))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if os.name == "posix":  # the rename itself has to reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(path):
    try:
        with open(path, "rb") as whole, np.load(whole, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop("meta").tobytes())
        if meta["format"] != _FORMAT:
            raise ValueError(f"unknown format {meta['format']}")
        return _decode(meta, arrays)
    except (
        EOFError,
        IsADirectoryError,
        KeyError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(
            f"{path} is not a whole file of ResumableCheckpoint, and is left as it "
            "is: move it away, or pass another path. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def _encode(value, arrays):
    """JSON of ``value``, with every array replaced by its number in ``arrays``."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(k): _encode(v, arrays) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(v, arrays) for v in value]
    array = keras.ops.convert_to_numpy(value)
    if array.ndim == 0 and isinstance(value, np.generic):
        return array.item()
    if array.dtype.kind == "V":  # bfloat16, float8: exact in float32
        array = array.astype("float32")
    if array.dtype.kind not in "biufc":
        raise ValueError(
            "The state of a run is made of numbers, strings, None, and lists and "
            f"dicts of them. Received: {value!r}"
        )
    arrays.append(array)
    return {"__array__": len(arrays) - 1}


def _decode(value, arrays):
    if isinstance(value, dict):
        if "__array__" in value:
            return arrays[f"arr_{value['__array__']}"]
        return {k: _decode(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    return value
