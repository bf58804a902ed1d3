"""What the checks share: trees of arrays, configs, states, one training step."""

import contextlib
import inspect
import json
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from dlcompanion.testing.errors import ConformanceError

#: Arguments of Keras's base classes, which some of them leave out of their config.
BASE_ARGUMENTS = {"name", "dtype", "trainable", "weights"}

#: What ``compile(jit_compile=...)`` is given: XLA, or eager PyTorch.
JIT = keras.backend.backend() != "torch"

#: What ``compile`` is given where a step is made once: JAX compiles every eager
#: operation by itself, which takes longer than the whole step.
ON_JAX = keras.backend.backend() == "jax"
EAGER = {} if ON_JAX else {"run_eagerly": True, "jit_compile": False}


class Subject:
    """A component under test: how to make it, and how to say that it fails."""

    def __init__(self, kind, component_class, init_kwargs):
        name = getattr(component_class, "__name__", repr(component_class))
        self.component = f"{kind} {name}"
        self.component_class = component_class
        self.init_kwargs = init_kwargs
        self.check = None

    def make(self, **overrides):
        """A new component; Keras objects among its arguments are made anew."""
        kwargs = {key: renew(value) for key, value in self.kwargs().items()}
        return self.component_class(**{**kwargs, **overrides})

    def kwargs(self):
        """The arguments that the caller gave."""
        given = self.init_kwargs
        return (given() if callable(given) else given) or {}

    def fail(self, expected, received, remedy, check=None):
        raise ConformanceError(
            self.component, check or self.check, expected, received, remedy
        )

    def close(self, actual, desired, what, remedy, rtol=1e-5, atol=1e-6, check=None):
        """Fail unless two structures of arrays agree."""
        for a, d in zip(leaves(actual), leaves(desired), strict=True):
            a, d = np.asarray(a), np.asarray(d)
            if a.shape != d.shape:
                self.fail(f"{what}: shape {d.shape}", f"shape {a.shape}", remedy, check)
            if a.dtype.kind in "biu" and d.dtype.kind in "biu":
                if not np.array_equal(a, d):
                    self.fail(
                        f"{what}, equal",
                        f"{brief(a)} against {brief(d)}",
                        remedy,
                        check,
                    )
                continue
            a, d = a.astype("float64"), d.astype("float64")
            if not np.allclose(a, d, rtol=rtol, atol=atol, equal_nan=True):
                gap = float(np.nanmax(np.abs(a - d)))
                self.fail(
                    f"{what}, equal to rtol={rtol:g}, atol={atol:g}",
                    f"largest difference {gap:.3g}",
                    remedy,
                    check,
                )

    def accepts(self, argument):
        """Whether the constructor names this argument, in this class or a base."""
        return argument in init_arguments(self.component_class, inherited=True)


def renew(value):
    """A copy of a Keras object, so that two components never share one."""
    if hasattr(value, "get_config") and not isinstance(value, type):
        if hasattr(value, "built") and value.built and getattr(value, "weights", None):
            return value  # it brings weights along: those are part of the argument
        return keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(value)
        )
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(renew(v) for v in value)
    return value


def _is_keras(component_class):
    return component_class.__module__.split(".")[0] == "keras"


def init_arguments(component_class, inherited=False):
    """Names of the arguments of ``__init__``, without ``self`` and ``**kwargs``."""
    named = (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    names = []
    classes = inspect.getmro(component_class) if inherited else [component_class]
    for each in classes:
        if each.__init__ is object.__init__:
            continue
        parameters = list(inspect.signature(each.__init__).parameters.values())
        names += [p.name for p in parameters[1:] if p.kind in named]
    return names


def check_config(subject):
    """Config holds every argument, survives JSON and makes an equal component.

    An ``__init__`` of Keras itself may leave out arguments that were not given, and a
    class with its own ``from_config`` may rename them.
    """
    component = subject.make()
    config = component.get_config()
    kwargs = subject.kwargs()
    declared = init_arguments(subject.component_class)
    bases = inspect.getmro(subject.component_class)
    own = [each for each in bases if not _is_keras(each)]
    maker = next(each for each in bases if "__init__" in vars(each))
    strict = maker in own and not any("from_config" in vars(each) for each in own)
    missing = [
        name
        for name in declared
        if name not in config
        and name not in BASE_ARGUMENTS
        and (strict or name in kwargs)
    ]
    if missing:
        subject.fail(
            "get_config() holds every argument of __init__",
            f"no {', '.join(map(repr, missing))} in {sorted(config)}",
            "add them to the dictionary that get_config returns.",
        )
    for name, value in kwargs.items():
        kept = config.get(name, value)
        if type(kept) is type(value) and isinstance(value, (bool, int, float)):
            if not np.isclose(kept, value, rtol=1e-6):
                subject.fail(
                    f"get_config()[{name!r}] is what __init__ took, {value!r}",
                    repr(kept),
                    "store the argument unchanged and return it.",
                )
    try:
        text = json.dumps(keras.saving.serialize_keras_object(component))
    except TypeError as error:
        subject.fail(
            "a config of JSON values", str(error), "serialize objects in get_config."
        )
    revived = keras.saving.deserialize_keras_object(json.loads(text))
    again = json.dumps(keras.saving.serialize_keras_object(revived))
    if again != text:
        subject.fail(
            "the config of from_config(config) is config again",
            _first_difference(text, again),
            "let get_config return what __init__ took, unchanged.",
        )
    return revived


def _first_difference(text, again):
    at = next(
        (i for i, (a, b) in enumerate(zip(text, again, strict=False)) if a != b),
        min(len(text), len(again)),
    )
    start = max(at - 30, 0)
    return f"...{again[start : at + 40]}... for ...{text[start : at + 40]}..."


def leaves(structure):
    """The arrays of a structure, as NumPy."""
    return [to_numpy(leaf) for leaf in keras.tree.flatten(structure)]


def to_numpy(value):
    """A NumPy array of a tensor, a variable or an array."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(keras.ops.convert_to_numpy(value))


def brief(array):
    """An array in a few characters."""
    text = np.array2string(np.asarray(array).ravel()[:6], precision=4)
    return text if np.size(array) <= 6 else text[:-1] + " ...]"


def is_float(value):
    """Whether an array or tensor holds floating point numbers."""
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))


def is_nested(shapes):
    """Whether these are several shapes and not one."""
    if isinstance(shapes, dict):
        return True
    return any(isinstance(s, (list, tuple, dict)) for s in shapes)


def snapshot(variables):
    """Copies of the values of variables."""
    return [to_numpy(v) for v in variables]


def restore(variables, values):
    """Give variables the values that :func:`snapshot` copied."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def seed_states(component):
    """Variables of the seed generators of a layer or model."""
    return [v for v in component.variables if v.path.endswith("seed_generator_state")]


@contextlib.contextmanager
def quiet():
    """Silence the warnings that Keras itself causes while saving and compiling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_and_load(model):
    """The model, through a ``.keras`` file with ``safe_mode``."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path)


def momentum():
    """The optimizer of the checks: linear in the gradient, with a slot."""
    return keras.optimizers.SGD(0.01, momentum=0.9)
