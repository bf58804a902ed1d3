r"""Gradients of any function, written once for TensorFlow, JAX and PyTorch.

Keras 3 differentiates inside ``fit`` and nowhere else. These functions do it
anywhere: of tensors or of Keras variables, eagerly, inside ``fit``, and inside
``tf.function``, ``jax.jit`` or :func:`dlcompanion.backend.compile`.

================================  ==================================================
:func:`grad`                      gradient of a scalar function of arrays
:func:`value_and_grad`            the same with the value; or with respect to Keras
                                  variables, keeping what the function changes
:func:`jacobian`                  matrix of first derivatives
:func:`hessian_vector_product`    :math:`H v` without the matrix :math:`H`
================================  ==================================================

.. warning::
    On TensorFlow, *second* derivatives through ``BatchNormalization``,
    ``LayerNormalization`` and ``GroupNormalization`` are wrong, without an error:
    ``tf.nn.moments`` stops the gradient of the mean, which is right for the first
    derivative only. First derivatives are right everywhere; so are second ones through
    ``RMSNormalization`` and ``keras.ops.var``, and everything on JAX and PyTorch. A
    gradient penalty or MAML with such a layer belongs there.
"""

import keras
from keras import ops

from dlcompanion import backend


def grad(f, argnums=0, has_aux=False):
    r"""Gradient of a scalar function of arrays, as a function of the same arrays.

    .. math:: g(x) = \nabla_x f(x)

    The result can be differentiated again: ``grad(grad(f))`` is a second derivative,
    and a step of gradient descent inside ``f`` (as MAML takes) is differentiated
    through. An argument may be a structure (list, tuple, dict) of arrays; its gradient
    has the same structure. Where ``f`` does not depend on an array, the gradient is
    zero.

    Args:
        f: Function that returns a scalar tensor, or ``(scalar, aux)``.
        argnums: Integer or tuple of integers, the positional arguments of ``f`` to
            differentiate by.
        has_aux: Boolean, whether ``f`` returns a pair; ``aux`` is passed on.

    Returns:
        A function ``g(*args, **kwargs)`` that returns the gradient (a tuple of them
        if ``argnums`` is a tuple), or ``(gradient, aux)``.

    Raises:
        ValueError: From ``g``, if ``f`` does not return one floating-point number, if
            an argument to differentiate by is missing or not floating point.

    Example:
        >>> cube = lambda x: x**3
        >>> float(grad(cube)(2.0)), float(grad(grad(cube))(2.0))
        (12.0, 12.0)
    """
    both = value_and_grad(f, argnums, has_aux=has_aux)

    def g(*args, **kwargs):
        value, gradients = both(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return g


def value_and_grad(f, argnums=0, *, variables=None, has_aux=False):
    r"""Value and gradient of a scalar function, of arrays or of Keras variables.

    Without ``variables`` it is :func:`grad` that also returns the value. With them,
    the gradient is taken by the Keras variables, which ``f`` simply reads:

    .. code-block:: python

        def loss():
            return keras.losses.MeanSquaredError()(y, model(x, training=True))

        variables = model.trainable_variables
        value, gradients = value_and_grad(loss, variables=variables)()
        optimizer.apply(gradients, variables)

    What ``f`` changes is kept, on JAX too: BatchNormalization statistics, the states
    of seed generators, metrics. Losses that layers add are in ``model.losses`` while
    ``f`` runs; add them there if you want them
    (:meth:`dlcompanion.training.StepModel.value_and_grad` does it for you).

    Args:
        f: Function that returns a scalar tensor, or ``(scalar, aux)``.
        argnums: Integer or tuple of integers, the positional arguments to
            differentiate by. Not used with ``variables``.
        variables: List of Keras variables to differentiate by, or None.
        has_aux: Boolean, whether ``f`` returns a pair; ``aux`` is passed on.

    Returns:
        A function ``g(*args, **kwargs)`` that returns ``(value, gradients)``, or
        ``((value, aux), gradients)``. With ``variables`` the gradients are a list in
        their order; otherwise they have the structure of the arguments.

    Raises:
        ValueError: From ``g``, if ``f`` does not return one floating-point number, if
            something to differentiate by is missing or not floating point, or if the
            value does not depend on some of ``variables``; the message has their
            paths.

    Example:
        >>> w = keras.Variable(3.0)
        >>> value, (gradient,) = value_and_grad(lambda: w * w, variables=[w])()
        >>> float(value), float(gradient)
        (9.0, 6.0)
    """
    if variables is not None:
        return _by_variables(f, list(variables), has_aux)

    def g(*args, **kwargs):
        chosen, tensors = _chosen(args, argnums)

        def flat(tensors):
            return _checked(f(*_replaced(args, chosen, tensors), **kwargs), has_aux)

        value, aux, gradients, _ = backend.differentiate(flat, tensors, [])
        gradients = _packed(args, chosen, gradients, argnums)
        return ((value, aux) if has_aux else value), gradients

    return g


def _by_variables(f, variables, has_aux):
    for v in variables:
        if not isinstance(v, keras.Variable):
            raise ValueError(
                "variables must be Keras variables; for arrays use argnums. "
                f"Received: {v!r} of type {type(v).__name__}"
            )
        if not keras.backend.is_float_dtype(v.dtype):
            raise ValueError(
                "Only floating-point variables have a gradient. "
                f"Received: {v.path} of dtype {v.dtype}"
            )

    def g(*args, **kwargs):
        value, aux, _, gradients = backend.differentiate(
            lambda _: _checked(f(*args, **kwargs), has_aux), [], variables
        )
        missing = [
            v.path
            for v, gradient in zip(variables, gradients, strict=True)
            if gradient is None
        ]
        if missing:
            raise ValueError(
                "The value does not depend on some of the variables: f does not use "
                "them, or passes them through something without a gradient "
                "(stop_gradient, rounding, argmax). Leave them out of variables. "
                f"Received: unconnected variables={missing}"
            )
        return ((value, aux) if has_aux else value), gradients

    return g


def jacobian(f, argnums=0):
    r"""Matrix of first derivatives of a tensor-valued function.

    .. math:: J_{ij} = \partial f_i / \partial x_j

    Computed row by row, backwards: its cost grows with the size of the output.
    ``jacobian(grad(f))`` is the Hessian.

    Args:
        f: Function that returns a floating-point tensor.
        argnums: Integer or tuple of integers, the positional arguments to
            differentiate by.

    Returns:
        A function ``g(*args, **kwargs)`` that returns the Jacobian, of shape
        ``(*output_shape, *argument_shape)``; in the structure of the argument, and as
        a tuple if ``argnums`` is one.

    Raises:
        ValueError: From ``g``, if an argument is missing or not floating point, or if
            ``f`` does not return a floating-point tensor.

    Example:
        >>> J = jacobian(lambda x: x**2)(keras.ops.array([1.0, 2.0]))
        >>> keras.ops.convert_to_numpy(J).tolist()
        [[2.0, 0.0], [0.0, 4.0]]
    """

    def g(*args, **kwargs):
        chosen, tensors = _chosen(args, argnums)

        def flat(tensors):
            result = f(*_replaced(args, chosen, tensors), **kwargs)
            return _floating(result, "jacobian")

        return _packed(args, chosen, backend.jacobian(flat, tensors), argnums)

    return g


def hessian_vector_product(f):
    r"""Product of the Hessian of a scalar function with a vector.

    .. math:: H(x)\, v = \nabla_x \bigl( \nabla_x f(x)^\top v \bigr)

    Two gradients, whatever the number of parameters; the Hessian itself, with the
    square of that number of entries, is never formed.

    Args:
        f: Function of one array, or one structure of arrays, that returns a scalar.

    Returns:
        A function ``g(x, v)`` that returns ``H v``; ``v`` and the result have the
        structure and shapes of ``x``.

    Raises:
        ValueError: From ``g``, if ``v`` does not have the structure and the shapes of
            ``x``, and as :func:`grad` does.

    Example:
        >>> g = hessian_vector_product(lambda x: keras.ops.sum(x**3))
        >>> x, v = keras.ops.array([1.0, 2.0]), keras.ops.array([1.0, 0.0])
        >>> keras.ops.convert_to_numpy(g(x, v)).tolist()
        [6.0, 0.0]

    References:
        Pearlmutter, *Fast Exact Multiplication by the Hessian*, Neural Computation
        6(1), 1994. https://doi.org/10.1162/neco.1994.6.1.147
    """

    def g(x, v):
        shapes = [
            keras.tree.map_structure(lambda t: tuple(ops.shape(t)), s) for s in (x, v)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "v must have the structure and the shapes of x. "
                f"Received: shapes of x={shapes[0]}, shapes of v={shapes[1]}"
            )

        def slope(x):  # derivative of f in the direction v
            gradient, direction = keras.tree.flatten(grad(f)(x)), keras.tree.flatten(v)
            pairs = zip(gradient, direction, strict=True)
            return sum(ops.sum(a * ops.cast(b, a.dtype)) for a, b in pairs)

        return grad(slope)(x)

    return g


# -- arguments and results ----------------------------------------------------------


def _chosen(args, argnums):
    """Positions to differentiate by, and their arrays as one flat list of tensors."""
    numbers = argnums if isinstance(argnums, tuple | list) else (argnums,)
    if not numbers or not all(
        isinstance(n, int) and -len(args) <= n < len(args) for n in numbers
    ):
        raise ValueError(
            "argnums must name positional arguments of the function. "
            f"Received: argnums={argnums}, number of positional arguments={len(args)}"
        )
    chosen = [n % len(args) for n in numbers]
    if len(set(chosen)) < len(chosen):
        raise ValueError(
            f"argnums must name each argument once. Received: argnums={argnums}"
        )
    tensors = []
    for n in chosen:
        for path, leaf in keras.tree.flatten_with_path(args[n]):
            tensors.append(_tensor(leaf, "".join(f"[{p!r}]" for p in (n, *path))))
    return chosen, tensors


def _tensor(leaf, where):
    if isinstance(leaf, float):
        return ops.convert_to_tensor(leaf, keras.config.floatx())
    try:
        tensor = ops.convert_to_tensor(leaf)
        dtype = keras.backend.standardize_dtype(tensor.dtype)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            "Each argument to differentiate by must be a floating-point array or a "
            f"structure of them. Received: args{where}={leaf!r}"
        ) from error
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            "Only floating-point arrays have a gradient. "
            f"Received: args{where} of dtype {dtype}"
        )
    return tensor


def _replaced(args, chosen, tensors):
    """The arguments with the chosen ones made of ``tensors``."""
    args, tensors = list(args), list(tensors)
    for n in chosen:
        size = len(keras.tree.flatten(args[n]))
        args[n] = keras.tree.pack_sequence_as(args[n], tensors[:size])
        tensors = tensors[size:]
    return args


def _packed(args, chosen, gradients, argnums):
    """Flat gradients in the structures of their arguments."""
    packed = _replaced(args, chosen, gradients)
    if isinstance(argnums, tuple | list):
        return tuple(packed[n] for n in chosen)
    return packed[chosen[0]]


def _checked(result, has_aux):
    """``(scalar, aux)`` from what the function returned."""
    aux = None
    if has_aux:
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise ValueError(
                "With has_aux=True the function must return (value, aux). "
                f"Received: a result of type {type(result).__name__}"
            )
        result, aux = result
    value = _floating(result, "gradient")
    if tuple(value.shape) != ():
        raise ValueError(
            "Only a scalar has a gradient: take the mean or the sum, or use jacobian. "
            f"Received: a value of shape {tuple(value.shape)}"
        )
    return value, aux


def _floating(result, what):
    try:
        value = ops.convert_to_tensor(result)
        dtype = keras.backend.standardize_dtype(value.dtype)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"The function must return one floating-point tensor to have a {what}. "
            f"Received: a result of type {type(result).__name__}"
        ) from error
    if not keras.backend.is_float_dtype(dtype):
        raise ValueError(
            f"The function must return a floating-point tensor to have a {what}. "
            f"Received: a value of dtype {dtype}"
        )
    return value
