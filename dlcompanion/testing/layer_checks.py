"""The checks of check_layer, one function each, in the order of CHECKS."""

import inspect

import keras
import numpy as np

from dlcompanion.testing import common, gradients
from dlcompanion.testing.common import leaves, quiet, restore, snapshot


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
    noisy = not _equal(outputs["same"], outputs["other"])
    if noisy and _equal(first, second):
        subject.fail(
            "another call draws other noise",
            "the same output twice",
            "pass the SeedGenerator itself as seed, not its seed.",
        )


def _equal(arrays, others):
    return all(np.array_equal(a, b) for a, b in zip(arrays, others, strict=True))


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


def _mask(subject):
    """What is masked has no influence on what is not."""
    data = subject.inputs
    one = isinstance(data, np.ndarray) and data.ndim >= 3 and data.dtype.kind == "f"
    if subject.mask is False or (
        subject.mask == "auto" and not (subject.has_mask and one)
    ):
        return
    layer, time = subject.built(), data.shape[1]
    if not layer.supports_masking:
        subject.fail(
            "a layer with a mask argument has supports_masking = True",
            "False",
            "set self.supports_masking = True in __init__.",
        )
    mask = np.arange(time)[None, :] < np.full((len(data), 1), max(1, time // 2))
    changed = np.where(mask.reshape(*mask.shape, *[1] * (data.ndim - 2)), data, 7.0)
    kwargs = {"mask": mask} if subject.has_mask else {}
    for mode in subject.modes:
        before = subject.repeatable(layer, data, training=mode, **kwargs)
        after = subject.repeatable(
            layer, changed.astype(data.dtype), training=mode, **kwargs
        )
        for b, a in zip(before, after, strict=True):
            if b.ndim >= 2 and b.shape[:2] == mask.shape:
                b, a = b[mask], a[mask]  # only what is not masked
            subject.close(
                a,
                b,
                "outputs do not depend on masked inputs",
                "use the mask: weigh or skip masked steps.",
            )


def _freeze(subject):
    """trainable=False leaves nothing to train, and True brings it back."""
    layer = subject.built()
    weights = list(layer.trainable_variables)
    layer.trainable = False
    frozen = len(layer.trainable_variables)
    state, values = snapshot(layer.variables), snapshot(weights)
    subject.outputs(layer, subject.inputs, training=subject.modes[-1])
    moved = not _equal(values, snapshot(weights))
    restore(layer.variables, state)
    layer.trainable = True
    if frozen or len(layer.trainable_variables) != len(weights):
        subject.fail(
            f"0 trainable variables when frozen, {len(weights)} after",
            f"{frozen} and {len(layer.trainable_variables)}",
            "add weights by add_weight and sub-layers as attributes, and leave "
            "`trainable` to Keras.",
        )
    if moved:
        subject.fail(
            "a frozen layer keeps its weights",
            "a call in training changed them",
            "assign to non-trainable weights only, and only if self.trainable.",
        )


def _jit(subject):
    """One compiled training step, on the layer that the next check saves."""
    if subject.modes != (False,):
        _trained(subject)


def _trained(subject):
    """The model around the layer after one compiled step, made at the first call."""
    if hasattr(subject, "made"):
        return subject.made
    subject.made = subject.model(subject.built())
    if subject.made is None or subject.modes == (False,):
        return subject.made
    model, x, y = subject.made
    with quiet():
        try:
            loss = model.train_on_batch(x, y)
        except Exception as error:
            subject.fail(
                "one compiled training step",
                f"{type(error).__name__}: {str(error)[:600]}",
                "use keras.ops only: no Python branch on values, no NumPy on tensors, "
                "static shapes, SeedGenerator attributes.",
                check="jit",
            )
    if not np.all(np.isfinite(loss)):
        subject.fail(
            "a finite loss", f"{loss}", "look for a division by zero.", check="jit"
        )
    return subject.made


def _reload(subject):
    """A saved and loaded layer gives the same output and the same next step."""
    made = _trained(subject)
    if made is None:  # no float output: nothing to train, only to give again
        return
    model, x, y = made
    loaded = common.save_and_load(model)
    check_same_model(subject, model, loaded, x, y, train=subject.modes != (False,))


def check_same_model(subject, model, loaded, x, y, train=True):
    """Variables, output and next training step of two models are equal."""
    remedy = (
        "keep all state in weights made by add_weight, or store it in "
        "save_own_variables and load_own_variables."
    )
    with quiet():
        before = leaves(model.predict_on_batch(x))
        after = leaves(loaded.predict_on_batch(x))
    seeds = {id(v) for v in common.seed_states(model)}
    olds, news = list(model.variables), list(loaded.variables)
    if train:
        olds += model.optimizer.variables
        news += loaded.optimizer.variables
    pairs = list(zip(olds, news, strict=True))
    for old, new in [p for p in pairs if id(p[0]) not in seeds]:
        subject.close([new], [old], f"{old.path} after loading", remedy)
    subject.close(after, before, "output after loading", remedy)
    if not train:
        return
    drawn = [(o, common.to_numpy(o), common.to_numpy(n)) for o, n in pairs]
    drawn = [d for d in drawn if id(d[0]) in seeds]
    with quiet():
        model.train_on_batch(x, y)
    for seed, old, new in drawn:
        if not np.array_equal(common.to_numpy(seed), old):  # the step used it
            subject.close(
                [new],
                [old],
                f"seed state {seed.path} after loading",
                "inherit from dlcompanion.training.SavesSeeds before keras's class: "
                "Keras does not save seed generators.",
            )
    with quiet():
        loaded.train_on_batch(x, y)
    for old, new in [p for p in pairs if id(p[0]) not in seeds]:
        subject.close(
            [new],
            [old],
            f"{old.path} one training step after loading",
            remedy,
            rtol=1e-4,
            atol=1e-5,
        )


def _dynamic(subject):
    """The batch size may change from call to call."""
    if subject.shapes is not None or subject.batch_independent is False:
        return
    layer = subject.built()
    fewer = keras.tree.map_structure(lambda a: a[:1], subject.inputs)
    state = snapshot(layer.variables)
    whole = subject.outputs(layer, subject.inputs, training=False)
    noisy = not _equal(state, snapshot(layer.variables))  # noise in inference too
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


def _half(policy):
    def check(subject):
        layer = subject.make(dtype=policy)
        symbolic = keras.tree.flatten(subject.call(layer, subject.symbolic()))
        data = keras.tree.flatten(subject.inputs)
        peak = max([np.abs(a).max() for a in data if a.dtype.kind == "f"], default=1)
        scale = subject.large / max(float(peak), 1e-6)
        big = keras.tree.map_structure(
            lambda a: (a * scale).astype(a.dtype) if a.dtype.kind == "f" else a,
            subject.inputs,
        )
        full = subject.built()
        values = [w for w in full.weights]
        for half, w in zip(layer.weights, values, strict=True):
            if common.is_float(w) and half.dtype != "float32":
                subject.fail(
                    f"float32 weights under {policy}",
                    f"{half.path} is {half.dtype}",
                    "make weights with add_weight and its default dtype.",
                )
            half.assign(w)
        for mode in subject.modes:
            outputs = keras.tree.flatten(subject.call(layer, big, training=mode))
            for s, o in zip(symbolic, outputs, strict=True):
                kinds = [keras.backend.standardize_dtype(t.dtype) for t in (s, o)]
                if kinds[0] != kinds[1]:
                    subject.fail(
                        f"output dtype {kinds[0]} under {policy}",
                        kinds[1],
                        "cast inputs and constants to self.compute_dtype.",
                    )
            exact = subject.repeatable(full, big, training=mode)
            for o, e in zip(leaves(outputs), exact, strict=True):
                lost = e.dtype.kind == "f" and _lost(o.astype("float64"), e)
                if lost:
                    subject.fail(
                        f"outputs for inputs up to {subject.large:g} as in float32",
                        f"{lost} under {policy} (training={mode})",
                        "compute sums, squares and exponentials in float32 and cast "
                        "the result, or subtract the maximum first.",
                    )

    return check


def _lost(half, full):
    """What half precision lost although its range would do, in words."""
    bad = ~np.isfinite(half) & (np.abs(full) < 3e4)
    if bad.any():
        return f"{int(bad.sum())} of {bad.size} not finite"
    half, full = half.reshape(len(half), -1), full.reshape(len(full), -1)
    gone = ~half.any(axis=1) & (np.abs(full).max(axis=1, initial=0) > 1e-2)
    if gone.any():  # divided by a sum that overflowed
        return f"{int(gone.sum())} of {len(half)} examples all zero"
    return ""


CHECKS = {
    "config": common.check_config,
    "build": _build,
    "shape": _shape,
    "seed": _seed,
    "batch": _batch,
    "mask": _mask,
    "freeze": _freeze,
    "gradient": gradients.check_layer_gradient,
    "jit": _jit,
    "reload": _reload,
    "dynamic": _dynamic,
    "float16": _half("mixed_float16"),
    "bfloat16": _half("mixed_bfloat16"),
}
