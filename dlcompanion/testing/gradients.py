"""Gradients against finite differences, along one random direction."""

import keras
import numpy as np
from keras import ops

from dlcompanion.testing import common

STEPS = (3e-2, 1e-2, 3e-3, 1e-3)


def check_layer_gradient(subject):
    """The gradient is the derivative, and reaches every trainable weight."""
    layer, mode = subject.built(), subject.modes[-1]
    original = common.snapshot(layer.variables)
    rng = np.random.default_rng(0)
    for weight in layer.trainable_variables:  # a weight of zeros hides others
        noise = rng.normal(size=tuple(weight.shape)) * 0.1
        weight.assign(common.to_numpy(weight) + noise.astype("float32"))
    arrays = keras.tree.flatten(subject.inputs)
    points = [
        keras.Variable(a, dtype="float32") if a.dtype.kind == "f" else None
        for a in arrays
    ]

    def outputs():
        leaves = [
            a if p is None else ops.convert_to_tensor(p)
            for p, a in zip(points, arrays, strict=True)
        ]
        inputs = keras.tree.pack_sequence_as(subject.inputs, leaves)
        made = keras.tree.flatten(subject.call(layer, inputs, training=mode))
        return [o for o in made if common.is_float(o)]

    inputs = [p for p in points if p is not None]
    weights = list(layer.trainable_variables)
    try:
        check_gradient(subject, outputs, weights + inputs, layer.variables, weights)
    finally:
        common.restore(layer.variables, original)


def check_gradient(subject, outputs, variables, state, weights=()):
    """Compare the directional derivative of a function of variables.

    Args:
        subject: The :class:`Subject` that fails.
        outputs: Function without arguments that returns a list of float tensors.
        variables: Keras variables at which the derivative is taken.
        state: Variables that ``outputs`` may change; they are put back each time.
        weights: Those of ``variables`` that a gradient must reach.
    """
    from dlcompanion.autodiff import value_and_grad

    held = {id(v) for v in variables}
    state = [v for v in state if id(v) not in held]
    before = common.snapshot(state)
    rng = np.random.default_rng(1)
    sample = [common.to_numpy(o) for o in outputs()]
    common.restore(state, before)
    if not sample or not variables:
        return
    mix = [rng.normal(size=s.shape).astype("float32") for s in sample]

    def total():
        parts = zip(outputs(), mix, strict=True)
        mixed = sum(ops.sum(ops.multiply(ops.cast(o, "float32"), m)) for o, m in parts)
        # a variable that nothing depends on has the gradient 0, and is named below
        return mixed + sum(0.0 * ops.sum(v) for v in variables)

    def value():  # summed in float64: the sum would cost float32 its last digits
        parts = [common.to_numpy(o).astype("float64") for o in outputs()]
        common.restore(state, before)
        return sum(float((p * m).sum()) for p, m in zip(parts, mix, strict=True))

    try:
        _, found = value_and_grad(total, variables=variables)()
    except Exception as error:
        if keras.backend.backend() != "jax":
            raise
        total()  # what runs as it is and not when traced, cannot be compiled
        subject.fail(
            "a call that JAX can trace",
            f"{type(error).__name__}: {str(error)[:300]}",
            "use keras.ops only: no Python branch on values, no NumPy on tensors.",
            check="jit",
        )
    common.restore(state, before)
    found = [None if g is None else common.to_numpy(g) for g in found]
    for variable, gradient in zip(variables, found, strict=True):
        if gradient is not None and not np.isfinite(gradient).all():
            subject.fail(
                "a finite gradient",
                f"NaN or infinity in that of {variable.path}",
                "guard the argument of sqrt, log and division before, not after.",
            )
    for variable, gradient in zip(variables, found, strict=True):
        cut = gradient is None or not np.any(gradient)
        if cut and any(variable is w for w in weights):
            subject.fail(
                "a gradient reaches every trainable weight",
                f"none reaches {variable.path}",
                "do not stop the gradient or leave keras.ops on the way; make a "
                "weight that is not trained trainable=False.",
            )
    _against_differences(subject, value, variables, found, rng)


def _against_differences(subject, value, variables, found, rng):
    found = [
        np.zeros(tuple(v.shape)) if g is None else g.astype("float64")
        for v, g in zip(variables, found, strict=True)
    ]
    start = common.snapshot(variables)
    directions = [rng.normal(size=s.shape).astype("float32") for s in start]
    exact = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    pairs = zip(found, directions, strict=True)
    terms = [np.abs(g * d).max(initial=0.0) for g, d in pairs]
    scale = max(abs(exact), *terms, 1e-3)
    gaps = []
    for step in STEPS:
        ends = []
        for sign in (1, -1):
            common.restore(
                variables,
                [s + sign * step * d for s, d in zip(start, directions, strict=True)],
            )
            ends.append(value())
        gaps.append(abs((ends[0] - ends[1]) / (2 * step) - exact))
        if gaps[-1] <= 0.02 * scale:
            break
    common.restore(variables, start)
    if min(gaps) > 0.02 * scale:
        subject.fail(
            f"the derivative along a random direction, {exact:.5g}, is that of finite "
            "differences",
            f"off by {min(gaps):.3g} at best",
            "look for a stopped or custom gradient; if it is meant to differ from the "
            "derivative (straight-through), skip=('gradient',).",
        )
