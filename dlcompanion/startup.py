"""What is settled before Keras is imported: the backend, and who is asking."""

import importlib.util
import itertools
import json
import os
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def import_keras():
    """Import Keras, and where its backend is missing say how to install one.

    Raises:
        ImportError: If the backend that Keras is set to is not installed.

    Example:
        >>> import_keras()
    """
    try:
        importlib.import_module("keras")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in BACKENDS:
            raise
        raise ImportError(_remedy(error.name.split(".")[0])) from None


def _remedy(missing):
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not installed:
        return (
            "dlcompanion needs one backend of Keras, and none is installed. "
            "Install one of the three:\n"
            '  pip install "dlcompanion[tensorflow]"\n'
            '  pip install "dlcompanion[jax]"     and set KERAS_BACKEND=jax\n'
            '  pip install "dlcompanion[torch]"   and set KERAS_BACKEND=torch\n'
            "Keras takes the backend from the environment variable KERAS_BACKEND, "
            "or from ~/.keras/keras.json, and otherwise TensorFlow."
        )
    by = "KERAS_BACKEND" if os.environ.get("KERAS_BACKEND") else "keras.json or default"
    return (
        f"Keras is set to the backend {missing!r} (by {by}), which is not installed. "
        f'Install it with: pip install "dlcompanion[{missing}]", or set the '
        f"environment variable KERAS_BACKEND to what is installed: "
        f"{', '.join(installed)}"
    )


def backend_name():
    """The backend that Keras will use, without importing Keras.

    Returns:
        String: the environment variable ``KERAS_BACKEND``, else what ``keras.json``
        says in the folder ``KERAS_HOME`` or ``~/.keras``, else ``"tensorflow"``.

    Example:
        >>> import keras
        >>> backend_name() == keras.backend.backend()
        True
    """
    home = os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")
    try:
        with open(os.path.join(home, "keras.json"), encoding="utf-8") as file:
            chosen = json.load(file).get("backend")
    except (OSError, ValueError, AttributeError):  # Keras goes on without it, too
        chosen = None
    return os.environ.get("KERAS_BACKEND") or chosen or BACKENDS[0]


def is_command_line():
    """Whether this process was started as ``python -m dlcompanion`` or its script.

    The command line only reads files. It answers at once, and without a backend,
    because the package then imports the chapters when somebody asks for them.

    Returns:
        Boolean.

    Example:
        >>> is_command_line()
        False
    """
    if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module of -m
        modules = [b for a, b in itertools.pairwise(sys.orig_argv) if a == "-m"]
        return modules[:1] == ["dlcompanion"]
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    return name in ("dlcompanion", "dlcompanion.exe")
