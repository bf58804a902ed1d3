"""The file of an agent: its networks and counters, whole or not at all."""

import json
import os
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np

FORMAT = "dlcompanion agent 1"
ARRAYS = "arrays/"
LEARNER = "learner.keras"


def write(path, state, learner, arrays=None):
    """Write an agent to ``path``, or leave what is there as it was.

    The file is a zip archive of ``agent.json`` and, if there are any,
    ``learner.keras`` and the arrays, each as NumPy writes it, without pickle. It is
    written under another name beside ``path`` first, so that a process killed at any
    moment leaves the last whole file in place.

    Args:
        path: String or path.
        state: Dict that JSON can hold.
        learner: :class:`keras.Model`, saved in Keras's own format, or None.
        arrays: Dict from name to NumPy array, or None.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        model, whole = Path(folder) / LEARNER, Path(folder) / "agent"
        with zipfile.ZipFile(whole, "w") as file:
            text = json.dumps({"format": FORMAT, **state}, default=_plain)
            file.writestr("agent.json", text)
            if learner is not None:
                learner.save(model)
                file.write(model, LEARNER)
            for name, array in (arrays or {}).items():
                with file.open(f"{ARRAYS}{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        with open(whole, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(whole, path)


def _plain(value):
    """NumPy's numbers, which JSON does not know, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"not to be held by JSON. Received: {value!r}")


def read(path):
    """What :func:`write` was given.

    Args:
        path: String or path.

    Returns:
        ``(state, learner, arrays)``, with None for a learner that there was not.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If the file is truncated, damaged or foreign, or has a network of a
            class that Keras does not know.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as file:
                state = json.loads(file.read("agent.json"))
                if state.pop("format") != FORMAT:
                    raise ValueError("another format")
                arrays = {}
                for entry in file.namelist():
                    if entry == LEARNER:
                        file.extract(entry, folder)
                    if entry.startswith(ARRAYS):
                        name = entry.removeprefix(ARRAYS).removesuffix(".npy")
                        with file.open(entry) as stored:
                            arrays[name] = np.lib.format.read_array(
                                stored, allow_pickle=False
                            )
        except FileNotFoundError:
            raise
        except (
            AttributeError,
            EOFError,
            KeyError,
            OSError,
            TypeError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            raise ValueError(
                f"{path} is not a whole file of an agent. "
                f"Received: {type(error).__name__}: {error}"
            ) from error
        model = Path(folder) / LEARNER
        if not model.exists():
            return state, None, arrays
        try:
            learner = keras.saving.load_model(model)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Keras cannot load the networks of {path}: register a class of your "
                "own with keras.saving.register_keras_serializable and import it "
                f"before. Received: {type(error).__name__}: {error}"
            ) from error
        return state, learner, arrays
