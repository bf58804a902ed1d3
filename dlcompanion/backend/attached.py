"""What is attached to a model that is not ours: inside a block, or kept with it.

Written into ``vars()``, past Keras's tracking of attributes, so that a layer takes it
for no weight and no sub-layer, and locked models take it too.
"""

import contextlib

_MISSING = object()
_PROGRAMS = "_dlcompanion_programs"


@contextlib.contextmanager
def replaced(layers, name, make):
    """Inside the block a method of these layers is another one.

    Blocks nest: the method of the inner one gets that of the outer one. After the
    block, or an exception in it, the attributes of each layer are what they were.

    Args:
        layers: List of layers or models.
        name: String, the method.
        make: Function of a layer and of its method so far, a bound one, that returns
            the one in its place.

    Yields:
        Nothing.

    Example:
        >>> import keras
        >>> layer = keras.layers.Activation("relu")
        >>> with replaced([layer], "call", lambda layer, call: lambda x: 1 + call(x)):
        ...     inside = float(layer(keras.ops.array(2.0)))
        >>> inside, float(layer(keras.ops.array(2.0)))
        (3.0, 2.0)
    """
    with contextlib.ExitStack() as undo:
        for layer in layers:
            undo.callback(_put_back, layer, name, vars(layer).get(name, _MISSING))
            vars(layer)[name] = make(layer, getattr(layer, name))
        yield


def _put_back(layer, name, before):
    if before is _MISSING:
        vars(layer).pop(name, None)
    else:
        vars(layer)[name] = before


class _Programs:
    """The programs of a model, and how it was compiled; a copy of it has none."""

    def __init__(self, compiled=None):
        self.compiled = compiled
        self.by_key = {}

    def __reduce__(self):
        return _Programs, ()


def kept_program(model, key, make):
    """The program that ``make()`` compiled for this key.

    Programs are kept in one attribute of the model. They refer to the model, as
    Keras's own ``train_function`` does, and are collected together with it; a table
    outside of the model would keep both forever. They are not saved, and the first
    use after ``model.compile`` drops them all.

    Args:
        model: :class:`keras.Model` or layer.
        key: Hashable, all that another program would be needed for, beside how the
            model was compiled.
        make: Function without arguments.

    Returns:
        What ``make`` returned.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> kept_program(model, "answer", lambda: 42)
        42
        >>> kept_program(model, "answer", lambda: "not called")
        42
    """
    compiled = getattr(model, "_compile_config", None)
    programs = vars(model).get(_PROGRAMS)
    if programs is None or programs.compiled is not compiled:
        programs = vars(model)[_PROGRAMS] = _Programs(compiled)
    if key not in programs.by_key:
        programs.by_key[key] = make()
    return programs.by_key[key]


def drop_programs(model):
    """Forget the programs that are kept with a model: it has changed."""
    vars(model).pop(_PROGRAMS, None)
