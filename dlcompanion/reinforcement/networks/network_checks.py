"""Whether the networks that an agent was given fit what they are for."""

import keras
import numpy as np


def check_network(name, network, inputs, outputs, remark=""):
    """Refuse what is no network, or takes or gives something else.

    Args:
        name: String, the argument's name: ``"policy"``.
        network: What was given.
        inputs: Dict from what goes in to its shape without the batch axis:
            ``{"observations": (4,)}``. Several inputs are a list, in this order.
        outputs: Tuple, the shape of the output without the batch axis, or a dict, as
            ``inputs``, of a network with several.
        remark: String, what the outputs are, for the message.

    Raises:
        ValueError: If ``network`` is no model, or its inputs or outputs are others.

    Example:
        >>> network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> check_network("policy", network, {"observations": (4,)}, (2,))
    """
    if not isinstance(network, keras.Model):
        raise ValueError(f"{name} must be a keras.Model. Received: {name}={network!r}")
    received = f"Received: {name}={network.name!r}"
    zeros = [np.zeros((1, *shape), "float32") for shape in inputs.values()]
    try:
        count = len(getattr(network, "inputs", None) or zeros)
        if count != len(zeros):
            raise ValueError(f"it has {count} inputs")
        given = network(zeros if len(zeros) > 1 else zeros[0], training=False)
    except (TypeError, ValueError, AttributeError) as error:
        names, shapes = ", ".join(inputs), " and ".join(map(str, inputs.values()))
        one = len(zeros) == 1
        asked = f"{names} of shape {shapes}" if one else f"[{names}] of shapes {shapes}"
        raise ValueError(
            f"The {name} must take {asked}. {received}, which raised {error}"
        ) from error
    if isinstance(outputs, dict):
        shapes = None
        if isinstance(given, list | tuple):
            shapes = [tuple(x.shape)[1:] for x in given]
        if shapes != list(outputs.values()):
            asked = " and ".join(f"{n} {_batch(s)}" for n, s in outputs.items())
            raise ValueError(
                f"The {name} must give a list of {asked}. "
                f"{received} with outputs {shapes or type(given).__name__}"
            )
    elif tuple(getattr(given, "shape", ())) != (1, *outputs):
        remark = remark and f", {remark}"
        found = f"outputs in a {type(given).__name__}, and one tensor is needed"
        if hasattr(given, "shape"):
            found = f"output shape {_batch(given.shape[1:])}"
        raise ValueError(
            f"The {name} must give {_batch(outputs)} for this environment{remark}. "
            f"{received} with {found}"
        )


def check_separate(**networks):
    """Refuse networks that share layers.

    Args:
        **networks: :class:`keras.Model` by the arguments' names.

    Raises:
        ValueError: If two of them have a variable in common.

    Example:
        >>> one, two = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        ...             for _ in range(2))
        >>> check_separate(policy=one, critic=two)
    """
    seen = [id(v) for network in networks.values() for v in network.variables]
    if len(seen) != len(set(seen)):
        received = ", ".join(f"{name}={n.name!r}" for name, n in networks.items())
        raise ValueError(
            f"{' and '.join(networks)} must not share layers: loaded from a file, they "
            f"would no longer. Received: {received} with common variables"
        )


def _batch(shape):
    return f"(batch, {', '.join(map(str, shape))})"
