"""The checks of check_flow, one function each, in the order of CHECKS."""

import inspect
import math

import keras
import numpy as np
from keras import ops

from dlcompanion import autodiff, backend
from dlcompanion.testing import common
from dlcompanion.testing.common import to_numpy
from dlcompanion.testing.layer_checks import change_other_rows

LEAST_CHANGE = 1e-3  # of a row, when its context becomes another one


def compiled(f):
    """``f`` as one program on JAX; elsewhere to trace it costs more than to run it."""
    if keras.backend.backend() != "jax":
        return f
    return backend.compile(f)


def _shape(subject):
    """A log-determinant for each example, and finite numbers."""
    flow, rows = subject.flow(), len(subject.arrays[0])
    if subject.is_model:
        has_inverse = callable(getattr(flow, "to_data", None))
    else:
        has_inverse = "inverse" in inspect.signature(flow.call).parameters
    if not (has_inverse or subject.one_way):
        subject.fail(
            "to_data" if subject.is_model else "call(x, inverse=False)",
            "a flow without it",
            "write it, or say one_way=True.",
            check="inverse",
        )
    for log_det in subject.outputs()[1::2]:
        if log_det.shape != (rows,):
            subject.fail(
                f"a log-determinant for each example, of shape {(rows,)}",
                f"shape {log_det.shape}",
                "sum over all axes but the first, and broadcast what is constant.",
            )
    names = ("y", "its log-determinant", "the inverse of y", "its log-determinant")
    for name, array in zip(names, subject.outputs(), strict=False):
        if not np.isfinite(array).all():
            subject.fail(
                f"finite numbers in {name}",
                common.brief(array),
                "give x that lie where the map is defined, or a smaller scale.",
            )


def _inverse(subject):
    """The inverse undoes the map."""
    if not subject.one_way:
        subject.close(
            subject.outputs()[2],
            subject.arrays[0],
            "the inverse of y is x",
            "solve the equation of the map for x, with the same parameters.",
            rtol=0,
            atol=subject.atol,
        )


def _opposite(subject):
    """The log-determinants of the two directions have a sum of 0."""
    if not subject.one_way:
        _, log_det, _, back_log_det = subject.outputs()
        subject.close(
            back_log_det,
            -log_det,
            "the log-determinant of the inverse is that of the map with a minus sign",
            "negate it where inverse=True, at the point that both have in common.",
            rtol=0,
            atol=subject.atol,
        )


def _log_det(subject):
    """The log-determinant is that of the Jacobian."""
    flow = subject.flow()

    def of_all_rows(x, *context):
        # rows do not see each other: the sum over the rows has the rows' Jacobians
        return ops.sum(subject.forward(flow, x, *context)[0], axis=0)

    jacobian = compiled(autodiff.jacobian(of_all_rows))(*subject.arrays)
    jacobian = to_numpy(jacobian).astype("float64")
    rows, size = len(subject.arrays[0]), math.prod(subject.arrays[0].shape[1:])
    y, log_det = subject.outputs()[:2]
    if math.prod(y.shape[1:]) != size:
        subject.fail(
            f"as many entries in y as in x, {size}",
            f"{math.prod(y.shape[1:])}",
            "an invertible map keeps the number of entries.",
        )
    jacobian = np.moveaxis(jacobian.reshape(size, rows, size), 1, 0)  # (rows, out, in)
    subject.close(
        log_det,
        np.linalg.slogdet(jacobian)[1],
        "the log-determinant is that of the Jacobian",
        "look at the sign, at factors such as the number of places of an image, and "
        "at a stopped gradient on the way from x to y.",
        rtol=0,
        atol=10 * subject.atol,
    )


def _batch(subject):
    """Row i of the outputs does not change when other rows do."""
    changed = subject.there_and_back(
        subject.flow(), *map(change_other_rows, subject.arrays)
    )
    for new, old in zip(changed, subject.outputs(), strict=True):
        subject.close(
            new[0],
            old[0],
            "row 0 is the same whatever the other rows hold",
            "reduce over the axes of one example only.",
            rtol=0,
            atol=10 * subject.atol,
        )


def _context(subject):
    """Another context changes every row."""
    if len(subject.arrays) == 1:
        return
    x, context = subject.arrays
    changed = subject.there_and_back(subject.flow(), x, 1.3 * context + 0.7)
    rows = [
        np.abs(new - old).reshape(len(x), -1).max(axis=1)
        for new, old in zip(changed[:2], subject.outputs()[:2], strict=True)
    ]
    change = np.max(rows, axis=0)
    if change.min() < LEAST_CHANGE:
        subject.fail(
            f"another context changes each row by at least {LEAST_CHANGE:g}",
            f"{np.count_nonzero(change < LEAST_CHANGE)} of {len(x)} rows stay",
            "let the conditioner see the context beside the inputs.",
        )


def _gradient(subject):
    """The log-density trains every weight; map and inverse have the identity's."""
    flow, (x, *context) = subject.flow(), subject.arrays
    weights = list(flow.trainable_variables)

    def loss():
        y, log_det = subject.forward(flow, ops.convert_to_tensor(x), *context)
        return 0.5 * ops.sum(ops.square(y)) - ops.sum(log_det)

    gradients = _gradients(loss, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        if not np.isfinite(gradient).all():
            subject.fail(
                "a finite gradient of the log-density",
                f"NaN or infinity in that of {weight.path}",
                "guard the argument of sqrt, log and division before, not after.",
            )
        if not gradient.any():
            subject.fail(
                "a gradient of the log-density reaches every trainable weight",
                f"none reaches {weight.path}",
                "do not stop the gradient or leave keras.ops on the way; make a "
                "weight that is not trained trainable=False.",
            )
    if subject.one_way:
        return
    point = keras.Variable(x)
    mix = np.random.default_rng(1).normal(size=x.shape).astype("float32")

    def mixed():
        y, _ = subject.forward(flow, ops.convert_to_tensor(point), *context)
        back, _ = subject.backward(flow, y, *context)
        return ops.sum(ops.multiply(back, ops.convert_to_tensor(mix)))

    *of_weights, of_x = _gradients(mixed, [*weights, point])
    remedy = (
        "the gradient passes the inverse too: after a search for x in a loop, carry it "
        "by one step of Newton's method."
    )
    subject.close(
        of_x, mix, "the inverse of the map has the gradient 1 by x", remedy,
        rtol=0, atol=10 * subject.atol,
    )  # fmt: skip
    for weight, gradient, other in zip(weights, of_weights, gradients, strict=True):
        subject.close(
            gradient, np.zeros_like(gradient),
            f"the inverse of the map has the gradient 0 by {weight.path}", remedy,
            rtol=0, atol=10 * subject.atol * max(1.0, np.abs(other).max()),
        )  # fmt: skip


def _gradients(f, variables):
    """Gradients as NumPy; 0 by a variable that ``f`` does not depend on."""

    def total():
        return f() + sum(0.0 * ops.sum(v) for v in variables)

    if not variables:
        return []
    program = autodiff.value_and_grad(total, variables=variables)
    return [to_numpy(g) for g in compiled(program)()[1]]


def _density(subject):
    """The log-density is that of the noise plus the log-determinant."""
    if not subject.is_model:
        return
    flow = subject.flow()
    z, log_det = (a.astype("float64") for a in subject.outputs()[:2])
    z = z.reshape(len(z), -1)
    normal = -0.5 * (z**2).sum(axis=1) - 0.5 * z.shape[1] * math.log(2 * math.pi)
    x, *context = subject.arrays
    subject.close(
        flow.log_prob(x, *context),
        normal + log_det,
        "log_prob(x) is the log-density of standard normal noise at to_noise(x) plus "
        "the log-determinant",
        "look at the constant -log(2 pi) / 2 for each entry, and at the sign.",
        rtol=0,
        atol=10 * subject.atol,
    )
    if subject.one_way or not hasattr(flow, "sample_and_log_prob"):
        return
    drawn, log_prob = flow.sample_and_log_prob(len(x), *context)
    subject.close(
        log_prob,
        flow.log_prob(drawn, *context),
        "the second output of sample_and_log_prob is the log_prob of the first",
        "subtract the log-determinant of to_data from the log-density of the noise.",
        rtol=0,
        atol=10 * subject.atol,
    )


def _save(subject):
    """Loaded from a file it is the same map."""
    flow = subject.flow()
    loaded = common.save_and_load(subject.saved)
    loaded = loaded if subject.is_model else loaded.get_layer(flow.name)
    again = subject.there_and_back(loaded, *subject.arrays)
    subject.close(
        again,
        subject.outputs(),
        "a saved and loaded flow gives the same numbers",
        "keep all state in weights made by add_weight, or store it in "
        "save_own_variables and load_own_variables.",
        rtol=0,
        atol=0,
    )


CHECKS = {
    "config": common.check_config,
    "shape": _shape,
    "inverse": _inverse,
    "opposite": _opposite,
    "log_det": _log_det,
    "batch": _batch,
    "context": _context,
    "gradient": _gradient,
    "density": _density,
    "save": _save,
}
