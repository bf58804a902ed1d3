"""Many training steps in one call: the whole update phase of an agent."""

import keras

from dlcompanion.backend.epochs import _jax_state, _take


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
    settings = (model.jit_compile, model.run_eagerly, len(model.trainable_variables))
    shapes = keras.tree.map_structure(lambda a: (a.shape, a.dtype), batches)
    settings += (repr(shapes), None if rows is None else rows.shape)
    compiled, programs = getattr(model, "_phase_programs", (None, None))
    if compiled is not model._compile_config:
        programs = {}
        object.__setattr__(model, "_phase_programs", (model._compile_config, programs))
    if settings not in programs:
        make = {"tensorflow": _tf_phase, "jax": _jax_phase}.get(keras.backend.backend())
        if make is None or model.run_eagerly:
            make = _plain_phase
        steps = len(keras.tree.flatten(batches)[0]) if rows is None else len(rows)
        programs[settings] = make(model, steps, rows)
    return programs[settings]


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
            new = [  # a carry must keep its types
                [jax.numpy.asarray(x, old.dtype) for x, old in zip(n, o, strict=True)]
                for n, o in zip(new, state, strict=True)
            ]
            return new, logs

        return jax.lax.scan(one, state, batches if rows is None else rows)

    compiled = jax.jit(phase)

    def run(batches, rows):
        groups = _jax_state(model, training=True)
        state, logs = compiled([[v.value for v in g] for g in groups], batches, rows)
        _assign(groups, state)
        return logs

    return run


def _plain_phase(model, count, rows):
    on_jax = keras.backend.backend() == "jax"

    def one(batch):
        if not on_jax:
            return model.phase_step(batch)
        groups = _jax_state(model, training=True)
        state = tuple([v.value for v in g] for g in groups)
        logs, state = model.phase_step(state, batch)
        _assign(groups, state)
        return logs

    pick = (lambda a, n: a[n]) if rows is None else _take

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


def _assign(groups, state):
    for variables, values in zip(groups, state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
