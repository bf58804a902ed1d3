"""Files that load on every backend: no class in them is one that only PyTorch has."""


def portable(config):
    """A serialized object in which optimizers have the names of ``keras.optimizers``.

    On PyTorch ``keras.optimizers.Adam`` makes an object of a class of its own, and
    Keras writes the module of that class into a ``.keras`` file, which no other backend
    can load. A :class:`~dlcompanion.training.StepModel`, an
    :class:`~dlcompanion.training.UnsupervisedModel` and an optimizer that holds others
    write what this returns. A model of Keras's own still names PyTorch: load it
    elsewhere with ``custom_objects={"Adam": keras.optimizers.Adam}``.

    Args:
        config: What ``get_compile_config`` or ``serialize_keras_object`` returned.

    Returns:
        The same structure.

    Example:
        >>> module = "keras.src.backend.torch.optimizers.torch_adam"
        >>> portable({"class_name": "Adam", "module": module})
        {'class_name': 'Adam', 'module': 'keras.optimizers', 'registered_name': None}
    """
    if isinstance(config, (list, tuple)):
        return type(config)(portable(part) for part in config)
    if not isinstance(config, dict):
        return config
    config = {key: portable(value) for key, value in config.items()}
    module = config.get("module")
    if isinstance(module, str) and module.startswith("keras.src.backend.torch.optim"):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config
