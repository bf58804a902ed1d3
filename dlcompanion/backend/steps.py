"""One step of a model, as each of Keras's trainers calls it."""

import contextlib

import keras

from dlcompanion.backend.attached import replaced
from dlcompanion.backend.variables import RecordingScope


def model_step(model, step, args):
    """Run ``step(data) -> logs`` as the step that each of Keras's trainers calls.

    TensorFlow and PyTorch call it with ``data``; JAX with ``(state, data)`` and takes
    the new state back. The state is made of the model's trainable, non-trainable,
    optimizer (in training) and metric variables, in this order.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        return step(args[0])
    if name == "torch":
        import torch

        with torch.no_grad():
            return step(args[0])
    state, data = args
    groups = [model.trainable_variables, model.non_trainable_variables]
    if len(state) == 4:
        groups.append(model.optimizer.variables)
    groups.append(model.metrics_variables)
    mapping = [
        pair
        for variables, values in zip(groups, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    known = {id(v) for v, _ in mapping}
    with RecordingScope(mapping) as scope:
        logs = step(data)
        logs = {k: keras.ops.convert_to_tensor(v) for k, v in logs.items()}
    lost = [v.path for k, v in scope.written.items() if k not in known]
    if lost:
        raise ValueError(
            "A step changed variables that the model does not track, so that their new "
            "values would be lost. Make each an attribute of the model, and give each "
            f"optimizer to compile(). Received: variables={lost}"
        )
    return logs, tuple([scope.get_current_value(v) for v in g] for g in groups)


@contextlib.contextmanager
def collected_losses(model):
    """Collect what the layers of ``model`` pass to ``add_loss`` inside the block."""
    losses = []

    def recorder(layer, add_loss):
        def record(loss):
            add_loss(loss)
            losses.extend(keras.tree.flatten(loss))

        return record

    with replaced(model._flatten_layers(), "add_loss", recorder):
        yield losses


def made_of_built_layers(model):
    """Whether calling a model would create no variable: all its layers are built."""
    layers = list(model._flatten_layers(include_self=False, recursive=True))
    own = type(model).build is not keras.Model.build
    return bool(layers) and not own and all(layer.built for layer in layers)


def measures_outputs(model):
    """Whether ``compile`` was given a loss or metrics, which see the outputs."""
    return model._compile_loss is not None or model._compile_metrics is not None


def attach(tensor, name, value):
    """Keep something with a tensor, as Keras keeps a mask: see :func:`attached`."""
    from keras.src.backend.common.tensor_attributes import set_tensor_attr

    set_tensor_attr(tensor, f"_dlcompanion_{name}", value)


def attached(tensor, name):
    """What was kept with a tensor, or None."""
    from keras.src.backend.common.tensor_attributes import get_tensor_attr

    return get_tensor_attr(tensor, f"_dlcompanion_{name}")


def mask_of(tensor):
    """The mask that Keras keeps with an output, or None."""
    from keras.src.backend.common.masking import get_keras_mask

    return get_keras_mask(tensor)


def set_mask(tensor, mask):
    """Let Keras's losses, metrics and layers see this mask, which may be None."""
    from keras.src.backend.common.masking import set_keras_mask

    set_keras_mask(tensor, mask)
    return tensor


def replicas():
    """Copies of the model that ``tf.distribute`` trains at the same time, else 1."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def dense_gradient(gradient):
    """A gradient as a tensor: TensorFlow has a sparse one for an embedding."""
    if keras.backend.backend() != "tensorflow":
        return gradient
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


def placement(model):
    """Scope in which variables are created on the devices of the model."""
    if keras.backend.backend() == "tensorflow":
        strategy = model.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            return strategy.scope()
    return contextlib.nullcontext()


def optimized_variables(optimizer):
    """The variables for which an optimizer was built, in their order."""
    return list(optimizer._trainable_variables)


def variable_number(optimizer, variable):
    """Which of the variables of an optimizer it is; TensorFlow's own one as well."""
    return optimizer._get_variable_index(variable)


def check_optimized(optimizer, variables):
    """Refuse variables for which an optimizer was not built."""
    optimizer._check_variables_are_known(variables)


def completes_update(optimizer):
    """Whether the next micro-batch of an optimizer that accumulates is its last."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    steps = optimizer.gradient_accumulation_steps
    return keras.ops.equal((optimizer._iterations + 1) % steps, 0)
