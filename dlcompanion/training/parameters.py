"""What a variable is, by its name and rank, and which ones a pattern selects.

Optimizers that treat biases, normalization parameters and kernels differently ask
here, so that all of them give the same answer.
"""

import re

from keras import ops

_VECTORS = re.compile(r"(^|_)(bias|gamma|beta|scale)$")


def is_bias_or_normalization(variable):
    """Whether a variable shifts or scales units, instead of connecting them.

    Rank alone does not tell: the biases of Keras's MultiHeadAttention have shape
    ``(heads, dim)``, and a GRU's has two rows. So it is either of

    - rank 0 or 1, or
    - named ``bias``, ``gamma``, ``beta`` or ``scale``, also with a prefix such as
      ``output_bias``.

    Args:
        variable: Keras variable.

    Returns:
        Boolean.

    Example:
        >>> import keras
        >>> attention = keras.layers.MultiHeadAttention(2, 3)
        >>> attention.build((None, 4, 5), (None, 4, 5))
        >>> query, bias = attention.trainable_variables[:2]
        >>> tuple(bias.shape), is_bias_or_normalization(bias)
        ((2, 3), True)
        >>> tuple(query.shape), is_bias_or_normalization(query)
        ((5, 2, 3), False)
    """
    return len(variable.shape) < 2 or bool(_VECTORS.search(_parts(variable)[-1]))


def is_embedding(variable):
    """Whether a variable is a table of rows, one for each token.

    Args:
        variable: Keras variable.

    Returns:
        Boolean, whether ``embedding`` is part of its name.
    """
    return "embedding" in _parts(variable)[-1]


def unit_axes(variable):
    """The axes along which the weights of one output unit lie.

    ==========================================  =====================  ============
    variable                                    shape                  axes
    ==========================================  =====================  ============
    bias or normalization                       any                    all of them
    Dense, recurrent, EinsumDense               ``(..., out)``         all but last
    convolution                                 ``(..., in, out)``     all but last
    query, key and value of attention           ``(in, heads, dim)``   0
    attention output                            ``(heads, dim, out)``  0, 1
    depthwise convolution                       ``(..., in, m)``       all but two
    transposed convolution                      ``(..., out, in)``     all but out
    embedding                                   ``(tokens, dim)``      1
    ==========================================  =====================  ============

    A variable does not say of which layer it is. Depthwise and transposed convolutions
    are recognized by ``depthwise`` and ``transpose`` in the path, which Keras's own
    names contain: a layer with a name of its own needs that word in it. An EinsumDense
    whose outputs are several axes counts as units along the last one only.

    Args:
        variable: Keras variable.

    Returns:
        Tuple of integers.
    """
    rank, parts = len(variable.shape), _parts(variable)
    if is_bias_or_normalization(variable):
        return tuple(range(rank))
    if is_embedding(variable):
        return tuple(range(1, rank))
    if rank == 3 and parts[-2:-1] in (["query"], ["key"], ["value"]):
        return (0,)
    if rank > 2 and any("depthwise" in part for part in parts):
        return tuple(range(rank - 2))
    if rank > 2 and any("transpose" in part for part in parts):
        return (*range(rank - 2), rank - 1)
    return tuple(range(rank - 1))


def norm(x, axes=None):
    """Euclidean length, without overflow or underflow of the squares.

    Args:
        x: Tensor of floats.
        axes: Tuple of integers, the axes to sum over, or None for all of them.

    Returns:
        Tensor, with axes of size 1 in place of those summed over. NaN if an entry is
        infinite or NaN.

    Example:
        >>> length = norm(ops.array([3e30, 4e30]))  # the squares are infinite
        >>> round(float(length[0]) / 1e30, 4)
        5.0
    """
    axes = tuple(range(len(x.shape))) if axes is None else axes  # alike on all backends
    largest = ops.max(ops.abs(x), axis=axes, keepdims=True)
    scale = ops.where(largest > 0, largest, ops.ones_like(largest))
    squares = ops.sum(ops.square(x / scale), axis=axes, keepdims=True)
    return scale * ops.sqrt(squares)


def check_patterns(name, patterns):
    """Refuse anything but a list of regular expressions.

    Args:
        name: String, the name of the argument.
        patterns: List or tuple of strings, which are not empty.

    Returns:
        List of the strings.

    Raises:
        ValueError: If it is none, or if a string is no regular expression.
    """
    texts = isinstance(patterns, list | tuple) and all(
        isinstance(pattern, str) and pattern for pattern in patterns
    )
    try:
        if not texts:
            raise TypeError
        for pattern in patterns:
            re.compile(pattern)
    except (TypeError, re.error) as error:
        raise ValueError(
            f"{name} must be a list of regular expressions, which are searched in the "
            f"paths of variables. Received: {name}={patterns!r}"
        ) from error
    return list(patterns)


def selected(name, patterns, variables):
    """Which variables a list of patterns selects, by a search in their paths.

    A pattern may occur anywhere in the path: ``head`` selects ``model/head/kernel`` and
    ``model/head/bias``. When a model is loaded, its own name is gone from the paths:
    what stood as ``sequential/head/kernel`` is ``head/kernel`` then. So a pattern names
    layers and variables, not models, and one that would mean something else after
    loading is an error.

    Args:
        name: String, the name of the argument.
        patterns: List of regular expressions.
        variables: List of Keras variables.

    Returns:
        List of booleans, one for each variable.

    Raises:
        ValueError: If a pattern selects no variable, or occurs in the name with which
            all paths begin.
    """
    paths = ["/".join(_parts(variable)) for variable in variables]
    first = {path.partition("/")[0] for path in paths}
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(
                f"{name}: each pattern must occur in the path of a variable, and "
                f"{pattern!r} does not. The paths are {', '.join(paths)}. "
                f"Received: {name}={patterns!r}"
            )
        if len(paths) > 1 and len(first) == 1 and re.search(pattern, *first):
            raise ValueError(
                f"{name}: {pattern!r} occurs in {next(iter(first))!r}, with which the "
                "paths of all variables begin. That is the name of the model, which is "
                f"no part of a path after loading. Received: {name}={patterns!r}"
            )
    return [any(re.search(p, path) for p in patterns) for path in paths]


def _parts(variable):
    return getattr(variable, "path", variable.name).split("/")
