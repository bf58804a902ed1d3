"""What the programs of many training steps share: a cache, and the state on JAX."""

import keras

from dlcompanion.backend.attached import kept_program


def cached_program(model, kind, settings, make):
    """The program that ``make()`` compiled for these settings.

    Programs are kept with the model until the model is compiled again.

    Args:
        model: Compiled :class:`keras.Model`.
        kind: String, of the program.
        settings: Hashable, all that another program would be needed for, beside
            how the model was compiled and how many variables learn.
        make: Function without arguments.

    Returns:
        What ``make`` returned.
    """
    trained = len(model.trainable_variables)
    key = (kind, model.jit_compile, model.run_eagerly, trained, settings)
    return kept_program(model, key, make)


def signature(data):
    """Shapes and types of a structure of arrays, as a string."""
    return repr(keras.tree.map_structure(lambda a: (a.shape, a.dtype), data))


def jax_variables(model, training):
    """The variables of a model in the order in which its steps on JAX take them."""
    groups = [model.trainable_variables, model.non_trainable_variables]
    if training:
        groups.append(model.optimizer.variables)
    return [*groups, model.metrics_variables]


def values_of(groups):
    """The values of groups of variables."""
    return [[v.value for v in group] for group in groups]


def assign(groups, state):
    """Give groups of variables the values that a step returned."""
    for variables, values in zip(groups, state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def eager_step(model, step, training):
    """A step that JAX's trainer would compile, as one that changes the model itself."""

    def run(batch):
        groups = jax_variables(model, training)
        logs, state = step(tuple(values_of(groups)), batch)
        assign(groups, state)
        return logs

    return run


def typed_like(state, old):
    """A state with the types of an older one: what ``jax.lax.scan`` carries keeps."""
    import jax

    return [
        [jax.numpy.asarray(x, o.dtype) for x, o in zip(new, before, strict=True)]
        for new, before in zip(state, old, strict=True)
    ]


def take(array, rows):
    """The rows of an array."""
    if keras.backend.backend() == "torch":
        return array.index_select(0, rows)
    return keras.ops.take(array, rows, axis=0)
