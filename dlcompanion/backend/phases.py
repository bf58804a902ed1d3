"""Many training steps in one call: the whole update phase of an agent."""

import keras

from dlcompanion.backend.programs import (
    assign,
    cached_program,
    eager_step,
    jax_variables,
    signature,
    take,
    typed_like,
    values_of,
)


def phase_program(model, batches, rows):
    """Compile ``model.phase_step`` over many batches.

    The program is kept with the model until the model is compiled again. TensorFlow
    and JAX run one program, PyTorch a loop.

    Args:
        model: Compiled :class:`~dlcompanion.training.StepModel` whose optimizer is
            built.
        batches: Structure of arrays ``(steps, batch, ...)``, or ``(examples, ...)`` if
            there are rows; only their shapes matter here.
        rows: Int32 array ``(steps, batch)``, the examples of each step, or None.

    Returns:
        A function of ``batches`` and ``rows`` that updates the model and returns the
        logs of all steps, a dict from name to tensor ``(steps, ...)``.
    """
    make = {"tensorflow": _tf_phase, "jax": _jax_phase}.get(keras.backend.backend())
    if make is None or model.run_eagerly:
        make = _plain_phase
    steps = len(keras.tree.flatten(batches)[0]) if rows is None else len(rows)
    return cached_program(
        model,
        "phase",
        (signature(batches), None if rows is None else rows.shape),
        lambda: make(model, steps, rows),
    )


def _tf_phase(model, count, rows):
    import tensorflow as tf

    def one(batches, rows, step):
        batch = keras.tree.map_structure(
            lambda a: a[step] if rows is None else tf.gather(a, rows[step]), batches
        )
        logs = model.phase_step(batch)
        return {name: tf.convert_to_tensor(value) for name, value in logs.items()}

    @tf.function(autograph=False, jit_compile=model.jit_compile or None)
    def phase(batches, rows):
        number = tf.TensorSpec([], "int32")
        traced = tf.function(one, autograph=False)
        traced = traced.get_concrete_function(batches, rows, number)
        arrays = {
            name: tf.TensorArray(value.dtype, count, element_shape=value.shape)
            for name, value in traced.structured_outputs.items()
        }

        def body(step, arrays):
            logs = traced(batches, rows, step)
            return step + 1, {n: a.write(step, logs[n]) for n, a in arrays.items()}

        _, arrays = tf.while_loop(
            lambda step, _: step < count,
            body,
            (tf.constant(0), arrays),
            parallel_iterations=1,
            maximum_iterations=count,  # XLA wants to know
        )
        return {name: array.stack() for name, array in arrays.items()}

    return phase


def _jax_phase(model, count, rows):
    import jax

    def phase(state, batches, rows):
        def one(state, batch):
            if rows is not None:
                batch = jax.tree.map(lambda a: a[batch], batches)
            logs, new = model.phase_step(tuple(state), batch)
            return typed_like(new, state), logs

        return jax.lax.scan(one, state, batches if rows is None else rows)

    compiled = jax.jit(phase)

    def run(batches, rows):
        groups = jax_variables(model, training=True)
        state, logs = compiled(values_of(groups), batches, rows)
        assign(groups, state)
        return logs

    return run


def _plain_phase(model, count, rows):
    one = model.phase_step
    if keras.backend.backend() == "jax":
        one = eager_step(model, one, training=True)
    pick = (lambda a, n: a[n]) if rows is None else take

    def run(batches, rows):
        batches = keras.tree.map_structure(keras.ops.convert_to_tensor, batches)
        chosen = range(count) if rows is None else keras.ops.convert_to_tensor(rows)
        logs = [
            one(
                keras.tree.map_structure(lambda a, which=which: pick(a, which), batches)
            )
            for which in chosen
        ]
        return {name: keras.ops.stack([r[name] for r in logs]) for name in logs[0]}

    return run
