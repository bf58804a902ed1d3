"""What the members of a stacked ensemble share: outputs, layers, optimizers."""

import math
import random
import re
from pathlib import Path

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.probability.values import positive, unconstrained

_ELEMENTWISE = (
    keras.optimizers.SGD,
    keras.optimizers.Adam,
    keras.optimizers.AdamW,
    keras.optimizers.Adamax,
    keras.optimizers.Adagrad,
    keras.optimizers.Adadelta,
    keras.optimizers.RMSprop,
    keras.optimizers.Nadam,
    keras.optimizers.Lion,
    keras.optimizers.Ftrl,
)
_CONVOLVING = tuple(
    getattr(keras.layers, kind + name)
    for kind in ("Conv", "SeparableConv", "DepthwiseConv")
    for name in ("1D", "2D", "1DTranspose", "2DTranspose", "3D", "3DTranspose")
    if hasattr(keras.layers, kind + name)
)


def unrolled_layers(model):
    """Names of the layers that keep a stack of models from being vectorized.

    Args:
        model: A built :class:`keras.Model`.

    Returns:
        List of names; see :class:`DeepEnsemble` for the rule.

    Example:
        >>> conv = keras.layers.Conv1D(2, 3, name="conv")
        >>> unrolled_layers(keras.Sequential([keras.Input((5, 1)), conv]))
        ['conv']
    """
    slow = (*_CONVOLVING, keras.layers.RNN, keras.layers.Bidirectional)
    torch = keras.backend.backend() == "torch"
    found = []
    for layer in backend.flatten_layers(model):
        seeds = any(v.path.endswith("seed_generator_state") for v in layer.variables)
        inner = isinstance(layer, keras.Model)
        if isinstance(layer, slow) or (torch and seeds and not inner):
            found.append(layer.name)
    return found


def check_elementwise(optimizer):
    """Refuse an optimizer that mixes the entries of a stacked variable.

    An optimizer that divides by the norm of a variable would divide by that of all
    members together. Keras's elementwise optimizers pass, without ``clipnorm`` and
    ``global_clipnorm``, and wrappers around them; others say of themselves that they
    are, by an attribute ``elementwise = True``.

    Args:
        optimizer: Keras optimizer.

    Raises:
        ValueError: If it is not elementwise.

    Example:
        >>> check_elementwise(keras.optimizers.Adam(clipvalue=1.0))
        >>> check_elementwise(keras.optimizers.Adam(clipnorm=1.0))
        Traceback (most recent call last):
        ValueError: The optimizer must treat every ... Received: Adam, clipnorm=1.0
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is None:
        inner = getattr(optimizer, "optimizer", None)
    if inner is not None:  # named first: wrappers have the norms of what they wrap
        check_elementwise(inner)
    norms = {k: getattr(optimizer, k, None) for k in ("clipnorm", "global_clipnorm")}
    norms = {k: v for k, v in norms.items() if v is not None}
    # on PyTorch Keras makes objects of subclasses of its own
    of_keras = type(optimizer).__module__.startswith("keras.")
    known = of_keras and isinstance(optimizer, _ELEMENTWISE) or inner is not None
    if norms or not (known or getattr(optimizer, "elementwise", False)):
        said = ", ".join(
            [type(optimizer).__name__, *(f"{k}={v}" for k, v in norms.items())]
        )
        raise ValueError(
            "The optimizer must treat every number by itself, for the weights of all "
            "members are one variable; clip by clipvalue, or set elementwise = True on "
            f"an optimizer of your own that does. Received: {said}"
        )


class PerMember:
    """A constraint, applied to the weights of each member.

    Args:
        constraint: Keras constraint.

    Example:
        >>> unit = PerMember(keras.constraints.UnitNorm(axis=0))
        >>> keras.ops.convert_to_numpy(unit(keras.ops.ones((2, 4, 1))))[:, 0, 0]
        array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, constraint):
        self.constraint = constraint

    def __call__(self, stack):
        stack = ops.convert_to_tensor(stack)
        return ops.stack([self.constraint(stack[m]) for m in range(stack.shape[0])])


def pool(outputs, kind):
    """The mixture of the members, in the terms of their outputs.

    Args:
        outputs: Tensor ``(members, batch, ...)``.
        kind: ``"probabilities"``, ``"logits"``, ``"values"`` or ``"gaussian"``.

    Returns:
        Float32 tensor ``(batch, ...)``, of which a loss takes what it takes of a
        member: for logits the logarithm of the mean probabilities, for Gaussians the
        normal with mean and variance of the mixture.

    Example:
        >>> sure = [[[20.0]], [[-20.0]]]  # two members, one example, one logit
        >>> keras.ops.convert_to_numpy(pool(keras.ops.array(sure), "logits"))
        array([[0.]], dtype=float32)
    """
    outputs = ops.cast(outputs, "float32")
    if kind == "logits":
        if outputs.shape[-1] == 1:
            yes, no = (
                ops.logsumexp(ops.log_sigmoid(s * outputs), axis=0) for s in (1, -1)
            )
            return yes - no
        logs = ops.log_softmax(outputs, axis=-1)
        return ops.logsumexp(logs, axis=0) - math.log(outputs.shape[0])
    if kind != "gaussian":
        return ops.mean(outputs, axis=0)
    means, rho = ops.split(outputs, 2, axis=-1)
    mean = ops.mean(means, axis=0)
    spread = positive(rho) ** 2 + (means - mean) ** 2
    scale = ops.sqrt(ops.mean(spread, axis=0))
    return ops.concatenate([mean, unconstrained(scale)], axis=-1)


def readable(outputs, kind):
    """What a user wants to see of outputs: probabilities, and variances.

    Args:
        outputs: Tensor ``(..., n)``, in the terms of a loss.
        kind: As for :func:`pool`.

    Returns:
        Float32 tensor of the same shape.

    Example:
        >>> keras.ops.convert_to_numpy(readable(keras.ops.zeros((1, 2)), "logits"))
        array([[0.5, 0.5]], dtype=float32)
    """
    outputs = ops.cast(outputs, "float32")
    if kind == "logits":
        one = outputs.shape[-1] == 1
        return ops.sigmoid(outputs) if one else ops.softmax(outputs, axis=-1)
    if kind != "gaussian":
        return outputs
    mean, rho = ops.split(outputs, 2, axis=-1)
    return ops.concatenate([mean, positive(rho) ** 2], axis=-1)


def available_memory():
    """Bytes of memory that are free, or None where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def seeded(build_fn, seed):
    """A model whose layers draw from ``seed``; Python's generator stays as it was."""
    state = random.getstate()
    random.seed(seed)  # where Keras takes the seeds of initializers and layers from
    try:
        return build_fn()
    finally:
        random.setstate(state)


def checked(model):
    """The model, if it is functional and has one output."""
    functional = isinstance(model, keras.Model) and model.built
    if not functional or len(getattr(model, "outputs", None) or ()) != 1:
        raise ValueError(
            "build_fn must return a functional or Sequential model, with its Input and "
            f"one output. Received: {model!r}"
        )
    return model


def values_of(model):
    """Arrays of all variables, the trainable ones first."""
    variables = model.trainable_variables + model.non_trainable_variables
    return [ops.convert_to_numpy(v) for v in variables]


def check_same(model, first, other):
    """Refuse members of other shapes, or from the same start."""
    shapes = [[a.shape for a in values] for values in (first, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            "build_fn must return the same architecture every time. "
            f"Received: shapes {shapes[0]} and {shapes[1]}"
        )
    random_start = any("kernel" in v.path for v in model.trainable_variables)
    if random_start and all(map(np.array_equal, first, other)):
        raise ValueError(
            "Members must start from different weights, but build_fn has seeds of its "
            f"own. Received: twice the same weights from {model.name}"
        )
