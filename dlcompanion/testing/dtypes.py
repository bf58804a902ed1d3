"""The checks of dtypes: every policy of Keras, and NumPy data of every kind."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops

from dlcompanion.testing import common
from dlcompanion.testing.common import leaves, quiet, restore, snapshot

#: The policies beside Keras's default. ``"float64"`` stands for floatx as well.
POLICIES = ("float64", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")

ONE_DTYPE = (
    "make constants, noise and weights in the dtype of what they meet, or cast it to "
    "self.compute_dtype: TensorFlow multiplies no float32 by a float64."
)
RANGE = (
    "compute sums, squares, exponentials and logarithms in float32 and cast the "
    "result, or refuse the policy by a ValueError that names it."
)


@contextlib.contextmanager
def policy(name):
    """Keras under a dtype policy; policy and floatx are put back after."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    with warnings.catch_warnings():
        # JAX has no float64 unless it is switched on, and computes on in float32
        warnings.filterwarnings("ignore", "Explicitly requested dtype", UserWarning)
        try:
            keras.config.set_dtype_policy(name)
            if name == "float64":
                keras.config.set_floatx("float64")
            yield
        finally:
            keras.config.set_dtype_policy(before[0])
            keras.config.set_floatx(before[1])


def has_float64():
    """Whether the backend has float64: JAX has it only where it is switched on."""
    with policy("float64"):
        return keras.backend.standardize_dtype(ops.ones(()).dtype) == "float64"


def kinds(array):
    """The NumPy dtypes, other than its own, that hold an array without loss."""
    if array.dtype.kind not in "fiub":
        return []
    names = ["float64"] if array.dtype.kind == "f" else []
    if array.size and np.array_equal(array, np.round(array)):
        low, high = array.min(), array.max()
        fits = {
            "int64": -(2**53) < low and high < 2**53,
            "uint8": 0 <= low and high <= 255,
            "bool": 0 <= low and high <= 1,
        }
        names += [name for name, inside in fits.items() if inside]
    return [n for n in names if n != array.dtype]


def floats_as(arrays, dtype):
    """A structure of arrays with its floats in another NumPy dtype."""
    return keras.tree.map_structure(
        lambda a: a.astype(dtype) if a.dtype.kind == "f" else a, arrays
    )


def check_finite_floats(subject, tensors, what):
    """Fail at a float that is NaN or infinite."""
    for value in leaves(tensors):
        value = np.asarray(value, "float64")
        if not np.isfinite(value).all():
            subject.fail(f"finite {what}", common.brief(value), RANGE)


def layer_under(name):
    """A check of a layer under a policy.

    The outputs have the dtype that the layer declares, and are finite. A loss of them
    has a finite gradient (not on JAX, where each operation of it would be compiled).
    Under float64 they are what they are in float32.

    Args:
        name: String, one of :data:`POLICIES`.

    Returns:
        A check, as the table of ``layer_checks`` has them.
    """

    def check(subject):
        if name == "float64" and not has_float64():
            return
        full = subject.built()
        with policy(name):
            _layer_step(subject, name, full)

    return check


def _layer_step(subject, name, full):
    from dlcompanion.autodiff import value_and_grad

    inputs = floats_as(subject.inputs, keras.config.floatx())
    layer, mode = subject.make(), subject.modes[-1]
    outputs = keras.tree.flatten(subject.call(layer, inputs, training=mode))
    symbolic = keras.tree.map_structure(
        lambda t: keras.KerasTensor(
            t.shape, keras.config.floatx() if common.is_float(t) else t.dtype
        ),
        subject.symbolic(),
    )
    declared = keras.tree.flatten(subject.call(subject.make(), symbolic))
    for s, o in zip(declared, outputs, strict=True):
        pair = [keras.backend.standardize_dtype(t.dtype) for t in (s, o)]
        # Keras multiplies matrices of float64 in float32 on PyTorch
        loses = keras.backend.result_type("float64", "float64") != "float64"
        if pair[0] != pair[1] and not (loses and "float64" in pair):
            subject.fail(f"output dtype {pair[0]} under {name}", pair[1], ONE_DTYPE)
    exact = subject.repeatable(full, subject.inputs, training=mode)
    if all(np.isfinite(e).all() for e in exact):  # a NaN may be meant
        check_finite_floats(subject, outputs, f"outputs under {name}")
    for new, old in zip(layer.variables, full.variables, strict=True):
        if not new.path.endswith("seed_generator_state"):
            new.assign(ops.cast(ops.convert_to_tensor(old), new.dtype))
    if name == "float64" and not common.seed_states(layer):
        subject.close(
            leaves(subject.call(layer, inputs, training=False)),
            subject.repeatable(full, subject.inputs, training=False),
            "outputs in float64 are those of float32",
            ONE_DTYPE,
            rtol=1e-3,
            atol=1e-4,
        )
    if subject.modes == (False,) or not layer.trainable_variables or common.ON_JAX:
        return

    def total():
        made = keras.tree.flatten(subject.call(layer, inputs, training=True))
        parts = [ops.mean(ops.cast(o, "float32")) for o in made if common.is_float(o)]
        return sum(parts) + sum(ops.cast(one, "float32") for one in layer.losses)

    _, gradients = value_and_grad(total, variables=layer.trainable_variables)()
    gradients = [g for g in gradients if g is not None]
    check_finite_floats(subject, gradients, f"gradients under {name}")


def layer_pure_half(subject):
    """The layer under both policies of half precision alone."""
    for name in ("float16", "bfloat16"):
        layer_under(name)(subject)


def layer_data(subject):
    """NumPy arrays of float64 give what those of float32 give."""
    layer = subject.built()
    wide = floats_as(subject.inputs, "float64")
    state = snapshot(layer.variables)
    outputs = [o for o in leaves(subject.call(layer, wide, training=False))]
    restore(layer.variables, state)
    subject.close(
        outputs,
        leaves(subject.repeatable(layer, subject.inputs, training=False)),
        "outputs for float64 arrays are those for float32",
        "cast the inputs to self.compute_dtype, if autocast does not.",
        rtol=1e-4,
        atol=1e-5,
    )


def loss_float64(subject):
    """Under floatx float64 loss and gradient are those of float32."""
    from dlcompanion.autodiff import value_and_grad

    if not has_float64():
        return
    single = _loss(subject, subject.y_true, subject.y_pred)
    with policy("float64"):
        loss = subject.make()
        y_true = floats_as(subject.y_true, "float64")
        y_pred = keras.Variable(subject.y_pred.astype("float64"), dtype="float64")

        def total():
            return ops.sum(loss(y_true, ops.convert_to_tensor(y_pred)))

        double, gradients = value_and_grad(total, variables=[y_pred])()
    check_finite_floats(subject, gradients, "gradient under float64")
    subject.close(
        [double],
        [single.sum()],
        "the loss in float64 is that of float32",
        ONE_DTYPE,
        rtol=1e-3,
        atol=1e-4,
    )


def loss_data(subject):
    """NumPy targets of every dtype that holds them give the same loss."""
    wanted = _loss(subject, subject.y_true, subject.y_pred)
    for dtype in kinds(subject.y_true):
        received = _loss(subject, subject.y_true.astype(dtype), subject.y_pred)
        _same(subject, received, wanted, f"targets of {dtype}")
    received = _loss(subject, subject.y_true, subject.y_pred.astype("float64"))
    _same(subject, received, wanted, "predictions of float64")


def _loss(subject, y_true, y_pred):
    return common.to_numpy(subject.make()(y_true, y_pred))


def _same(subject, received, wanted, what):
    subject.close(
        received,
        wanted,
        f"the same result for NumPy {what}",
        "convert arguments by ops.convert_to_tensor and cast them to one dtype.",
        rtol=1e-4,
        atol=1e-5,
    )


def _metric(subject, y_true, y_pred):
    metric = subject.make()
    metric.update_state(y_true, y_pred)
    return leaves(metric.result())


def metric_float64(subject):
    """Under floatx float64 the result is that of float32."""
    if not has_float64():
        return
    single = _metric(subject, subject.y_true, subject.y_pred)
    with policy("float64"):
        y_true = floats_as(subject.y_true, "float64")
        double = _metric(subject, y_true, floats_as(subject.y_pred, "float64"))
    _same(subject, double, single, "arrays under floatx float64")


def metric_half(subject):
    """Predictions in half precision count as the numbers that they are."""
    if subject.y_pred.dtype.kind != "f":
        return
    for dtype, rtol in (("float16", 2e-3), ("bfloat16", 2e-2)):
        half = ops.cast(ops.convert_to_tensor(subject.y_pred), dtype)
        wide = ops.convert_to_numpy(ops.cast(half, "float32"))
        wanted = _metric(subject, subject.y_true, wide)
        for y_pred in (half, ops.convert_to_numpy(half)):
            received = _metric(subject, subject.y_true, y_pred)
            subject.close(
                received,
                wanted,
                f"the result of {dtype} predictions is that of their values",
                "cast predictions to float32 first; probabilities sum to 1 only to "
                "the precision of their dtype.",
                rtol=rtol,
                atol=rtol,
            )


def metric_data(subject):
    """NumPy arrays of every dtype that holds them give the same result."""
    wanted = _metric(subject, subject.y_true, subject.y_pred)
    for name in ("y_true", "y_pred"):
        given = getattr(subject, name)
        for dtype in kinds(given):
            both = {"y_true": subject.y_true, "y_pred": subject.y_pred}
            received = _metric(subject, **{**both, name: given.astype(dtype)})
            _same(subject, received, wanted, f"{name} of {dtype}")


def model_under(name):
    """A check of a model under a policy: one eager step of training, and predictions.

    Not on JAX, which adds tensors of any two dtypes and would compile a step for each
    policy: there the check ``bfloat16`` stands for all.

    Args:
        name: String, one of :data:`POLICIES`.

    Returns:
        A check, as the table of ``models`` has them.
    """

    def check(subject):
        if common.ON_JAX:
            return
        with policy(name), quiet():
            model = subject.compiled(**common.EAGER)
            dtype = keras.config.floatx()
            x = floats_as(subject.x, dtype)
            y = None if subject.y is None else floats_as(subject.y, dtype)
            logs = model.train_on_batch(x, y, return_dict=True)
            predicted = model.predict_on_batch(x)
        check_finite_floats(subject, list(logs.values()), f"logs under {name}")
        check_finite_floats(subject, predicted, f"predictions under {name}")

    return check


def model_pure_half(subject):
    """The model under both policies of half precision alone."""
    for name in ("float16", "bfloat16"):
        model_under(name)(subject)


def model_data(subject):
    """NumPy inputs of every dtype that holds them give the same predictions."""
    with quiet():
        model = subject.compiled(**common.EAGER)
        model.predict_on_batch(subject.x)
        state = snapshot(model.variables)

        def predicted(x):
            restore(model.variables, state)
            return leaves(model.predict(x, verbose=0))

        wanted = predicted(subject.x)
        flat = keras.tree.flatten(subject.x)
        for dtype in sorted(set.intersection(*(set(kinds(a)) for a in flat))):
            given = keras.tree.map_structure(lambda a, d=dtype: a.astype(d), subject.x)
            subject.close(
                predicted(given),
                wanted,
                f"the same predictions for NumPy inputs of {dtype}",
                "cast inputs to self.compute_dtype.",
                rtol=1e-3,
                atol=1e-4,
            )
