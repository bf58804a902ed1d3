"""check_model: what a model promises to its user."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from dlcompanion.testing import common, dtypes
from dlcompanion.testing.common import Subject, leaves, quiet, restore, snapshot
from dlcompanion.testing.errors import run_checks
from dlcompanion.testing.layer_checks import change_other_rows
from dlcompanion.testing.layer_training import check_same_model
from dlcompanion.testing.model_data import (
    check_clone,
    check_data,
    check_refusal,
    check_sample_weight,
)


def check_model(
    model_class,
    init_kwargs,
    x,
    y=None,
    *,
    compile_kwargs=None,
    output_shape=None,
    batch_independent=True,
    export=False,
    rtol=1e-4,
    refuses=(),
    skip=(),
):
    """Check that a model trains, saves, resumes and predicts as Keras's own do.

    The checks, in this order, with the names that ``skip`` and
    :class:`ConformanceError` use: ``config``, ``fit``, ``predict``, ``batch``,
    ``freeze``, ``reload``, ``bfloat16`` and ``float16`` (the mixed policies),
    ``pure_half`` (the policies float16 and bfloat16), ``float64`` (under that
    ``floatx``), ``numpy_data`` (arrays of every dtype that holds ``x``), ``export``,
    ``sample_weight``, ``data``, ``refusal``, ``clone``. On JAX, which adds tensors of
    any two dtypes and would compile a step for each, ``bfloat16`` stands for the other
    policies. Calls :func:`keras.utils.set_random_seed`.

    ``sample_weight``: in ``fit``, ``evaluate`` and ``fit_in_memory`` a weight of 0
    leaves an example out, and weights of 2 give twice the loss, which is divided by the
    size of the batch; or weights are refused by name. ``data``: a ``PyDataset``, a
    generator and, on TensorFlow, a ``tf.data.Dataset`` give what arrays give, also with
    a last batch of one. ``refusal``: what ``fit`` refuses leaves the model as it was.
    ``clone``: :func:`keras.models.clone_model` works, or is refused by a ValueError.

    Args:
        model_class: The model's class.
        init_kwargs: Dictionary of arguments of the class, or a function that
            returns one.
        x: NumPy array, or structure of them: inputs, at least 4 examples.
        y: Targets, or ``None`` for a model that needs none.
        compile_kwargs: Dictionary of arguments of ``compile``, or a function that
            returns one; by default the optimizer of the checks and, with ``y``, mse.
        output_shape: Expected shape of the prediction, with the batch size.
        batch_independent: ``False`` if rows of ``x`` are not examples.
        export: ``True`` to export a SavedModel (TensorFlow only; slow).
        rtol: Relative tolerance of outputs.
        refuses: List of dictionaries of arguments that ``fit`` must refuse.
        skip: Names of checks that do not apply.

    Raises:
        ConformanceError: At the first promise that is broken.

    Example:
        >>> def arguments():
        ...     return {"layers": [keras.Input((3,)), keras.layers.Dense(2)]}
        >>> x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
        >>> check_model(keras.Sequential, arguments, x, x[:, :2], skip=["config"])
    """
    subject = _Model("model", model_class, init_kwargs)
    subject.x = keras.tree.map_structure(np.asarray, x)
    subject.y, subject.refuses = y, refuses
    subject.examples = len(leaves(subject.x)[0])
    subject.compile_kwargs = compile_kwargs
    subject.output_shape = output_shape
    subject.batch_independent = batch_independent
    subject.export, subject.rtol = export, rtol
    keras.utils.set_random_seed(0)
    run_checks(subject, CHECKS, skip)


class _Model(Subject):
    """A model class with its data, and how to compile it."""

    def compiled(self, **overrides):
        model = self.make()
        kwargs = self.compile_kwargs
        if kwargs is None:
            kwargs = {"optimizer": common.momentum()}
            kwargs["loss"] = None if self.y is None else "mse"
        kwargs = dict(kwargs() if callable(kwargs) else kwargs)
        kwargs = {key: common.renew(value) for key, value in kwargs.items()}
        model.compile(**{"jit_compile": common.JIT, **kwargs, **overrides})
        return model


def _fitted(subject):
    """The model after three steps of fit, made at the first call, and its story."""
    if not hasattr(subject, "fitted"):
        model = subject.compiled()
        with quiet():
            model.predict_on_batch(subject.x)
            before = snapshot(model.trainable_variables)
            size = len(leaves(subject.x)[0])
            logs = model.fit(  # three steps, for a head of zeros needs a second one
                subject.x, subject.y, batch_size=size, epochs=3, verbose=0
            ).history
        subject.fitted = model, before, logs
    return subject.fitted


def _fit(subject):
    """Fit runs, the logs are finite and the weights move."""
    model, before, logs = _fitted(subject)
    for key, values in logs.items():
        if not np.isfinite(np.asarray(values, "float64")).all():
            subject.fail(f"finite logs, {key}", f"{values}", "look for a bad gradient.")
    after = snapshot(model.trainable_variables)
    for variable, b, a in zip(model.trainable_variables, before, after, strict=True):
        if np.array_equal(a, b):
            subject.fail(
                "three steps of training move every trainable weight",
                f"{variable.path} stays",
                "let every weight reach the loss, or make it trainable=False.",
            )


def _predict(subject):
    """Predict gives what a call in inference gives, in the expected shape."""
    model = _fitted(subject)[0]
    state = snapshot(model.variables)
    called = leaves(model(subject.x, training=False))
    restore(model.variables, state)
    with quiet():
        predicted = leaves(model.predict_on_batch(subject.x))
    restore(model.variables, state)
    subject.close(
        predicted,
        called,
        "predict is the call in inference",
        "use the argument training, and keras.ops only.",
        rtol=subject.rtol,
        atol=1e-5,
    )
    if subject.output_shape is not None:
        if predicted[0].shape != tuple(subject.output_shape):
            subject.fail(
                f"output shape {tuple(subject.output_shape)}",
                f"{predicted[0].shape}",
                "see call.",
            )


def _batch(subject):
    """An example's prediction does not depend on the others."""
    if not subject.batch_independent:
        return
    model = _fitted(subject)[0]
    changed = keras.tree.map_structure(change_other_rows, subject.x)
    state, rows = snapshot(model.variables), []
    for x in (subject.x, changed):
        rows.append([o[:1] for o in leaves(model(x, training=False))])
        restore(model.variables, state)
    if not common.seed_states(model):  # noise depends on the size of the batch
        fewer = keras.tree.map_structure(lambda a: a[:1], subject.x)
        rows.append(leaves(model(fewer, training=False)))
    for row in rows[1:]:
        subject.close(
            row,
            rows[0],
            "an example's output is the same in any company",
            "reduce over the axes of one example only, or say batch_independent=False.",
            rtol=subject.rtol,
            atol=1e-5,
        )


def _freeze(subject):
    """trainable=False leaves nothing to train."""
    model = _fitted(subject)[0]
    before = len(model.trainable_variables)
    model.trainable = False
    frozen = len(model.trainable_variables)
    model.trainable = True
    if frozen or len(model.trainable_variables) != before:
        subject.fail(
            f"0 trainable variables when frozen, {before} after",
            f"{frozen} and {len(model.trainable_variables)}",
            "make sub-layers attributes and leave `trainable` to Keras.",
        )


def _reload(subject):
    """A saved and loaded model gives the same output and next training step."""
    model = _fitted(subject)[0]
    loaded = common.save_and_load(model)
    check_same_model(subject, model, loaded, subject.x, subject.y)


def _bfloat16(subject):
    """Under mixed_bfloat16 the weights stay float32, and training is finite."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = subject.compiled(**common.EAGER)
        with quiet():
            predicted = leaves(model.predict_on_batch(subject.x))
            size = len(leaves(subject.x)[0])
            logs = model.fit(
                subject.x, subject.y, batch_size=size, epochs=2, verbose=0
            ).history
    finally:
        keras.config.set_dtype_policy(policy)
    low = [v.path for v in model.trainable_variables if v.dtype != "float32"]
    if low:
        subject.fail(
            "weights in float32 under mixed_bfloat16",
            f"{', '.join(low)} in half precision",
            "give sub-layers the dtype policy, and not the compute dtype.",
        )
    for what, values in {"predictions": predicted, **logs}.items():
        for value in leaves(values):
            if not np.isfinite(value.astype("float32")).all():
                subject.fail(
                    f"finite {what} under mixed_bfloat16",
                    common.brief(value.astype("float32")),
                    "compute exponentials, sums and losses in float32.",
                )


def _export(subject):
    """The exported SavedModel gives the same output."""
    if not subject.export or keras.backend.backend() != "tensorflow":
        return
    model = _fitted(subject)[0]
    wanted = leaves(model(subject.x, training=False))
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = str(Path(folder) / "exported")
        model.export(path, verbose=False)
        layer = keras.layers.TFSMLayer(path, call_endpoint="serve")
        received = leaves(layer(subject.x))
    subject.close(
        received,
        wanted,
        "the output of the exported SavedModel",
        "use keras.ops only in call.",
        rtol=subject.rtol,
        atol=1e-5,
    )


CHECKS = {
    "config": common.check_config,
    "fit": _fit,
    "predict": _predict,
    "batch": _batch,
    "freeze": _freeze,
    "reload": _reload,
    "bfloat16": _bfloat16,
    "float16": dtypes.model_under("mixed_float16"),
    "pure_half": dtypes.model_pure_half,
    "float64": dtypes.model_under("float64"),
    "numpy_data": dtypes.model_data,
    "export": _export,
    "sample_weight": check_sample_weight,
    "data": check_data,
    "refusal": check_refusal,
    "clone": check_clone,
}
