"""restart: a compiled model trains once more from the beginning."""

import keras

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.training.optimizers import CompositeOptimizer


def restart(model, seed=None, *, weights=None):
    """Begin anew with a compiled model, whose compiled programs are kept.

    After ``restart(model, seed)`` the model is as after

    .. code-block:: python

        keras.utils.set_random_seed(seed)
        model = type(model).from_config(model.get_config())
        model.compile(...)

    so that ``fit`` gives the same result on the same order of examples, but nothing is
    compiled again. To measure over several seeds, make the model once and restart it
    before each ``fit``. Where the code that made the model creates its layers in the
    order in which they are applied, the weights are those that this code gives with
    that seed.

    Set anew are all variables of the model: weights, from the initializers of its
    layers; statistics, such as those of BatchNormalization; seed generators, such as
    those of Dropout. Further the metrics, and of the optimizer its slots,
    ``iterations`` and loss scale. Kept are the learning rate, constant or schedule,
    and every other argument of the optimizer, with its present value; which layers are
    trainable; and the state of layers that were adapted to data
    (:class:`keras.layers.Normalization`).

    An initializer or layer with a seed of its own, as in ``Dropout(0.5, seed=1)``,
    begins with that one for every ``seed``, as it does in a new model. Weights that
    were loaded into a part of the model are replaced: load them again.

    Args:
        model: Compiled and built :class:`keras.Model`. With ``seed``, a new one must be
            obtained from its ``get_config()``, as from a saved file.
        seed: Integer of at least 0, given to :func:`keras.utils.set_random_seed`, or
            None: then ``weights`` are needed, and no random state changes.
        weights: List of arrays, as ``model.get_weights()`` returns, to begin with
            instead of new weights.

    Raises:
        ValueError: If the model is not built or compiled, if neither ``seed`` nor
            ``weights`` is given or they do not fit, or if the config of the model or
            optimizer does not make an equal one.

    Example:
        >>> import numpy as np
        >>> x, y = np.ones((8, 3)), np.ones((8, 1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> losses = []
        >>> for seed in (0, 1, 0):
        ...     restart(model, seed)
        ...     losses += model.fit(x, y, verbose=0).history["loss"]
        >>> losses[0] == losses[2] != losses[1]
        True
    """
    if getattr(model, "optimizer", None) is None or not model.built:
        raise ValueError(
            "restart needs a compiled and built model: call it once on a batch, or "
            f"begin it with keras.Input. Received: model={model!r}"
        )
    if seed is None and weights is None:
        raise ValueError(
            "restart needs a seed, or weights. Received: seed=None, weights=None"
        )
    with backend.placement(model):
        optimizer = fresh_optimizer_values(model.optimizer)
        if seed is not None:
            backend.set_seed(check_count("seed", seed, least=0))
            fresh = _values(fresh_model(model))
    kept = _adapted(model)
    if seed is not None:
        _check_equal("the model", "weights=", _values(model), fresh)
        _assign(model.variables, fresh, kept)
    if weights is not None:
        model.set_weights(weights)
    _assign(model.optimizer.variables, optimizer, _arguments(model.optimizer))
    model.reset_metrics()


def fresh_model(model):
    """A new model from the config, built for the same shapes, not compiled.

    Args:
        model: Built :class:`keras.Model`.

    Returns:
        :class:`keras.Model` of the same class; global generators of Keras give its
        weights, unless an initializer has a seed of its own.

    Raises:
        ValueError: If the model has no config that makes one.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> fresh_model(model).built
        True
    """
    parts = [model, *backend.flatten_layers(model)]
    kinds = {keras.saving.get_registered_name(type(part)): type(part) for part in parts}
    try:
        config = {
            "module": type(model).__module__,
            "class_name": type(model).__name__,
            "registered_name": keras.saving.get_registered_name(type(model)),
            "config": model.get_config(),
            "build_config": model.get_build_config(),
        }
        return keras.saving.deserialize_keras_object(config, custom_objects=kinds)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"restart could not make {model.name} anew from its config; give it a "
            "get_config() with which it can be saved, or pass weights=. "
            f"Received: {type(error).__name__}: {error}"
        ) from error


def fresh_optimizer_values(optimizer):
    """Values of a new optimizer of this config, built for the same variables.

    Args:
        optimizer: :class:`keras.optimizers.Optimizer`.

    Returns:
        List of NumPy arrays, one for each of ``optimizer.variables``.

    Example:
        >>> optimizer = keras.optimizers.Adam(0.25)
        >>> [value.item() for value in fresh_optimizer_values(optimizer)]
        [0, 0.25]
    """
    fresh = type(optimizer).from_config(optimizer.get_config())
    if optimizer.built:
        composite = isinstance(optimizer, CompositeOptimizer)
        fresh.build(
            optimizer.owned if composite else backend.optimized_variables(optimizer)
        )
    values = _values(fresh)
    _check_equal("the optimizer", "compile()", _values(optimizer), values)
    return values


def _values(owner):
    return [keras.ops.convert_to_numpy(v) for v in owner.variables]


def _check_equal(what, remedy, here, fresh):
    shapes = [[v.shape for v in values] for values in (here, fresh)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"restart needs {what} to have the variables that its config gives to a "
            f"new one; otherwise use {remedy}. Received: {len(here)} variables, and "
            f"{len(fresh)} of other shapes from the config"
        )


def _assign(variables, values, kept):
    for variable, value in zip(variables, values, strict=True):
        if id(variable) not in kept:
            variable.assign(value)


def _adapted(model):
    """Ids of the variables of layers that are adapted to data, not trained."""
    layers = [
        layer for layer in backend.flatten_layers(model) if hasattr(layer, "adapt")
    ]
    return {id(v) for layer in layers for v in layer.variables}


def _arguments(optimizer):
    """Ids of the variables that hold an argument of an optimizer, or of its inner."""
    found = set()
    for name in ("learning_rate", *optimizer.get_config()):
        for attribute in (name, f"_{name}"):
            value = getattr(optimizer, attribute, None)
            if isinstance(value, keras.Variable):
                found.add(id(value))
    inner = getattr(optimizer, "inner_optimizer", None)
    for one in [inner] if inner else getattr(optimizer, "optimizers", ()):
        found |= _arguments(one)
    return found
