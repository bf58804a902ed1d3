"""What an optimizer does to its slots and variables, in place where that is faster."""

import keras


def move_towards(optimizer, slot, value, share):
    """Move an average a part of the way to a value: ``slot += share * (value - slot)``.

    Args:
        optimizer: The Keras optimizer whose slot it is.
        slot: Keras variable.
        value: Tensor of its shape and dtype.
        share: Float, the part of the way.
    """
    if keras.backend.backend() == "torch":
        slot.value.lerp_(value, share)
    else:
        optimizer.assign_add(slot, (value - slot) * share)


def subtract(optimizer, variable, step):
    """Let a variable go back by a step, as ``optimizer.assign_sub``.

    Args:
        optimizer: The Keras optimizer.
        variable: Variable as ``update_step`` is given it.
        step: Tensor of its shape and dtype.
    """
    if keras.backend.backend() == "torch":
        import torch

        with torch.no_grad():
            variable.value.sub_(step)
    else:
        optimizer.assign_sub(variable, step)
