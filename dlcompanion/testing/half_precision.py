"""The check of check_layer under a half policy: what float16 and bfloat16 lose."""

import keras
import numpy as np

from dlcompanion.testing import common
from dlcompanion.testing.common import leaves


def half_precision(policy):
    """A check that a layer under a policy gives what it gives in float32.

    Args:
        policy: String, ``"mixed_float16"`` or ``"mixed_bfloat16"``.

    Returns:
        A check, as the table of ``layer_checks`` has them.
    """

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
