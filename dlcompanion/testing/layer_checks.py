"""The checks of check_layer, one function each, in the order of CHECKS."""

import inspect

import keras

from dlcompanion.testing import common, dtypes, gradients
from dlcompanion.testing.common import quiet, restore, snapshot
from dlcompanion.testing.half_precision import half_precision
from dlcompanion.testing.layer_training import (
    check_clone,
    check_freeze,
    check_jit,
    check_reload,
    equal,
)
from dlcompanion.testing.masks import check_mask


def _build(subject):
    """All weights exist after build(shapes), and stay the same in a call."""
    remedy = "create every weight and sub-layer in __init__ or build, never in call."
    layer = subject.make()
    shapes = keras.tree.map_structure(
        lambda a: (None, *a.shape[1:]) if subject.shapes is None else a.shape,
        subject.inputs,
    )
    names = list(inspect.signature(layer.build).parameters)
    with quiet():
        if subject.by_keyword and any(n.endswith("_shape") for n in names[1:]):
            layer.build(**{f"{key}_shape": shape for key, shape in shapes.items()})
        elif subject.by_keyword and len(shapes) == 1:
            layer.build(*shapes.values())
        else:
            layer.build(shapes)
    built = len(layer.variables)
    mode = subject.modes[-1]
    try:
        subject.call(layer, subject.inputs, training=mode)
    except ValueError as error:
        if "new elements of state" not in str(error):
            raise
        subject.fail("call creates no state", "a variable made in call", remedy)
    if len(layer.variables) != built:
        subject.fail(
            "build(input_shape) creates every variable",
            f"{built} after build, {len(layer.variables)} after a call",
            remedy,
        )


def _shape(subject):
    """Symbolic shape, eager shape and the shape that was asked for are one."""
    layer = subject.built()
    symbolic = keras.tree.flatten(subject.call(subject.make(), subject.symbolic()))
    eager = keras.tree.flatten(
        subject.call(layer, subject.inputs, training=subject.modes[-1])
    )
    remedy = "correct compute_output_shape (or compute_output_spec)."
    if len(symbolic) != len(eager):
        subject.fail(f"{len(eager)} outputs", f"{len(symbolic)} symbolic ones", remedy)
    for s, e in zip(symbolic, eager, strict=True):
        fits = len(s.shape) == len(e.shape) and all(
            a is None or a == b for a, b in zip(s.shape, e.shape, strict=True)
        )
        if not fits:
            subject.fail(
                f"symbolic shape {tuple(s.shape)} is the shape of the output",
                f"{tuple(e.shape)}",
                remedy,
            )
        kinds = [keras.backend.standardize_dtype(t.dtype) for t in (s, e)]
        if kinds[0] != kinds[1]:
            subject.fail(
                f"symbolic dtype {kinds[0]} is the dtype of the output",
                kinds[1],
                remedy + " Cast to self.compute_dtype.",
            )
    if subject.output_shape is not None:
        wanted = subject.output_shape
        wanted = list(wanted) if common.is_nested(wanted) else [wanted]
        received = [tuple(e.shape) for e in eager]
        if [tuple(w) for w in wanted] != received:
            subject.fail(f"output shape {wanted}", f"{received}", "see call.")


def _seed(subject):
    """Noise comes from a seed generator, and from nothing else."""
    layer, mode = subject.built(), subject.modes[-1]
    remedy = (
        "own one keras.random.SeedGenerator(seed), made in __init__, and draw with "
        "seed=self.seed_generator."
    )
    state = snapshot(layer.variables)
    first = subject.outputs(layer, subject.inputs, training=mode)
    second = subject.outputs(layer, subject.inputs, training=mode)
    restore(layer.variables, state)
    again = subject.outputs(layer, subject.inputs, training=mode)
    restore(layer.variables, state)
    subject.close(
        again,
        first,
        "the same seed state gives the same output",
        remedy + " NumPy's and the backend's own noise cannot be repeated.",
    )
    if not subject.accepts("seed"):
        return
    outputs = {}
    for name, seed in (("same", 11), ("twin", 11), ("other", 12)):
        one = subject.make(seed=seed)
        subject.call(one, subject.inputs, training=mode)
        for new, old in zip(one.weights, layer.weights, strict=True):
            new.assign(old)
        outputs[name] = subject.outputs(one, subject.inputs, training=mode)
    subject.close(
        outputs["twin"], outputs["same"], "the same seed, the same output", remedy
    )
    noisy = not equal(outputs["same"], outputs["other"])
    if noisy and equal(first, second):
        subject.fail(
            "another call draws other noise",
            "the same output twice",
            "pass the SeedGenerator itself as seed, not its seed.",
        )


def _batch(subject):
    """Row i of the output does not change when other rows of the inputs do."""
    if subject.batch_independent is False:
        return
    layer = subject.built()
    changed = keras.tree.map_structure(change_other_rows, subject.inputs)
    for mode in subject.modes:
        if mode and subject.batch_independent == "inference":
            continue
        before = subject.repeatable(layer, subject.inputs, training=mode)
        after = subject.repeatable(layer, changed, training=mode)
        for b, a in zip(before, after, strict=True):
            subject.close(
                a[0],
                b[0],
                f"row 0 is the same whatever the other rows hold (training={mode})",
                "reduce over the axes of one example only; if the layer means to mix "
                "the batch, say batch_independent='inference' or False.",
            )


def change_other_rows(array):
    """The array with other values in every row but the first."""
    changed = array.copy()
    if array.dtype.kind == "f":
        changed[1:] = -1.3 * changed[1:] + 0.7
    else:
        changed[1:] = changed[:1]
    return changed


def _dynamic(subject):
    """The batch size may change from call to call."""
    if subject.shapes is not None or subject.batch_independent is False:
        return
    layer = subject.built()
    fewer = keras.tree.map_structure(lambda a: a[:1], subject.inputs)
    state = snapshot(layer.variables)
    whole = subject.outputs(layer, subject.inputs, training=False)
    noisy = not equal(state, snapshot(layer.variables))  # noise in inference too
    restore(layer.variables, state)
    part = subject.repeatable(layer, fewer, training=False)
    if noisy:
        whole = part = [p[:1] for p in part]
    for w, p in zip(whole, part, strict=True):
        subject.close(
            p,
            w[:1],
            "one example alone gives what it gives in a batch",
            "take sizes from ops.shape(x), not from the first call.",
            rtol=1e-4,
            atol=1e-5,
        )


CHECKS = {
    "config": common.check_config,
    "build": _build,
    "shape": _shape,
    "seed": _seed,
    "batch": _batch,
    "mask": check_mask,
    "freeze": check_freeze,
    "gradient": gradients.check_layer_gradient,
    "jit": check_jit,
    "reload": check_reload,
    "clone": check_clone,
    "dynamic": _dynamic,
    "float16": half_precision("mixed_float16"),
    "bfloat16": half_precision("mixed_bfloat16"),
    "pure_half": dtypes.layer_pure_half,
    "float64": dtypes.layer_under("float64"),
    "numpy_data": dtypes.layer_data,
}
