"""First derivatives on each backend; :mod:`dlcompanion.autodiff` is the public face."""

import contextlib
import threading

import keras

from dlcompanion.backend.variables import RecordingScope, write_back


def differentiate(f, tensors, variables):
    """Value of a scalar function and its gradients, on any backend.

    Args:
        f: Function of the list ``tensors`` that returns ``(scalar, aux)``.
        tensors: List of float tensors.
        variables: List of Keras variables that ``f`` reads.

    Returns:
        ``(value, aux, tensor_gradients, variable_gradients)``. The gradient of a
        tensor that the value does not depend on is zero, that of a variable ``None``.
    """
    name = keras.backend.backend()
    if name == "tensorflow":
        return _tf_differentiate(f, tensors, variables)
    if name == "jax":
        return _jax_differentiate(f, tensors, variables)
    return _torch_differentiate(f, tensors, variables)


def _tf_differentiate(f, tensors, variables):
    import tensorflow as tf

    tensors = [tf.identity(t) for t in tensors]  # only what f itself does counts
    values = [v.value for v in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for source in tensors + values:
            tape.watch(source)
        value, aux = f(tensors)
    gradients = tape.gradient(value, tensors + values)
    gradients = [g if g is None else tf.convert_to_tensor(g) for g in gradients]
    split = len(tensors)
    return value, aux, _zeros(gradients[:split], tensors), gradients[split:]


def _zeros(gradients, tensors):
    pairs = zip(gradients, tensors, strict=True)
    return [keras.ops.zeros_like(t) if g is None else g for g, t in pairs]


def _jax_differentiate(f, tensors, variables):
    import jax

    written, connected = {}, set()

    @jax.custom_vjp
    def probe(values):
        return values

    def forward(values):
        return [v.value for v in values], None

    def backward(_, cotangents):
        zero = jax.custom_derivatives.SymbolicZero
        connected.update(n for n, c in enumerate(cotangents) if type(c) is not zero)
        return (
            [jax.numpy.zeros(c.shape, c.dtype) if type(c) is zero else c
             for c in cotangents],
        )  # fmt: skip

    probe.defvjp(forward, backward, symbolic_zeros=True)

    def pure(tensors, values):
        mapping = zip(variables, probe(values), strict=True) if variables else None
        with RecordingScope(mapping) as scope:
            value, aux = f(tensors)
        written.update(scope.written)
        return value, (aux, scope.updates())

    values = [v.value for v in variables]
    (value, (aux, updates)), (on_tensors, on_values) = jax.value_and_grad(
        pure, argnums=(0, 1), has_aux=True
    )(tensors, values)
    write_back(written.values(), updates)
    on_values = [g if n in connected else None for n, g in enumerate(on_values)]
    return value, aux, on_tensors, on_values


_nesting = threading.local()  # how many of our gradients are being taken (PyTorch)


def _torch_differentiate(f, tensors, variables):
    import torch

    values = [v.value for v in variables]
    with _torch_tracing(tensors, values) as (leaves, again):
        value, aux = f(leaves)
        # whether somebody outside differentiates again is known for arrays only
        again = again and (_nesting.depth > 1 or not variables)
        gradients = [None] * (len(leaves) + len(values))
        if value.requires_grad:
            gradients = torch.autograd.grad(
                value, leaves + values, create_graph=again, allow_unused=True
            )
        if _nesting.depth == 1:
            again = again and _has_other_leaves([value, *gradients], leaves)
    if not again:
        value, aux, gradients = _detached((value, aux, list(gradients)))
    split = len(tensors)
    return value, aux, _zeros(gradients[:split], tensors), list(gradients[split:])


def _torch_jacobian(f, tensors):
    import torch

    with _torch_tracing(tensors, []) as (leaves, again):
        target = f(leaves)
        rows = [[torch.zeros_like(t) for t in leaves]] * target.numel()
        if target.requires_grad:
            rows = [
                torch.autograd.grad(
                    x, leaves, retain_graph=True, create_graph=again, allow_unused=True
                )
                for x in target.reshape(-1)
            ]
            rows = [_zeros(row, leaves) for row in rows]
        shape = tuple(target.shape)
        result = [
            torch.stack([row[n] for row in rows]).reshape(shape + tuple(leaf.shape))
            if rows
            else leaf.new_zeros(shape + tuple(leaf.shape))
            for n, leaf in enumerate(leaves)
        ]
        if _nesting.depth == 1:
            again = again and _has_other_leaves(result, leaves)
    return result if again else _detached(result)


@contextlib.contextmanager
def _torch_tracing(tensors, values):
    """Fresh leaves of the autograd graph, and whether to record the gradient too."""
    import torch

    again = torch.is_grad_enabled()
    frozen = [x for x in values if not x.requires_grad]
    _nesting.depth = getattr(_nesting, "depth", 0) + 1
    try:
        with torch.enable_grad():
            for x in frozen:
                x.requires_grad_(True)
            yield (
                [
                    t.view_as(t)  # only what the function itself does with t counts
                    if again and t.requires_grad
                    else t.detach().requires_grad_()
                    for t in tensors
                ],
                again,
            )
    finally:
        _nesting.depth -= 1
        for x in frozen:
            x.requires_grad_(False)


def _detached(structure):
    import torch

    return keras.tree.map_structure(
        lambda x: x.detach() if isinstance(x, torch.Tensor) else x, structure
    )


def _has_other_leaves(tensors, leaves):
    """Whether the graph of ``tensors`` ends in anything else than ``leaves``."""
    own = {id(x) for x in leaves}
    stack = [x.grad_fn for x in tensors if x is not None and x.grad_fn is not None]
    seen = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in own:
            return True
        stack += [following for following, _ in node.next_functions if following]
    return False


def jacobian(f, tensors):
    """Derivative of a tensor by each of a list of tensors: ``[(*out, *in), ...]``."""
    name = keras.backend.backend()
    if name == "jax":
        import jax

        written = {}

        def pure(tensors):
            with RecordingScope() as scope:
                result = f(tensors)
            written.update(scope.written)
            return result, scope.updates()

        result, updates = jax.jacrev(pure, has_aux=True)(tensors)
        write_back(written.values(), updates)
        return result
    if name == "tensorflow":
        import tensorflow as tf

        tensors = [tf.identity(t) for t in tensors]
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            target = f(tensors)
        return tape.jacobian(target, tensors, unconnected_gradients="zero")
    return _torch_jacobian(f, tensors)
