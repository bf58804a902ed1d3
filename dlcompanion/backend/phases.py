"""Many training steps in one call: the whole update phase of an agent."""

import keras

from dlcompanion.backend.epochs import _jax_state


def phase_program(model, batches):
    """Compile ``model.phase_step`` over the first axis of ``batches``.

    The program is kept with the model until the model is compiled again. TensorFlow
    and JAX run one program, PyTorch a loop.

    Args:
        model: Compiled :class:`~dlcompanion.training.StepModel` whose optimizer is
            built.
        batches: Structure of arrays ``(steps, ...)``; only its shapes matter here.

    Returns:
        A function of such a structure that updates the model and returns the logs of
        all steps, a dict from name to tensor ``(steps, ...)``.
    """
    settings = (model.jit_compile, model.run_eagerly, len(model.trainable_variables))
    settings += (repr(keras.tree.map_structure(lambda a: (a.shape, a.dtype), batches)),)
    compiled, programs = getattr(model, "_phase_programs", (None, None))
    if compiled is not model._compile_config:
        programs = {}
        object.__setattr__(model, "_phase_programs", (model._compile_config, programs))
    if settings not in programs:
        make = {"tensorflow": _tf_phase, "jax": _jax_phase}.get(keras.backend.backend())
        if make is None or model.run_eagerly:
            make = _plain_phase
        programs[settings] = make(model, len(keras.tree.flatten(batches)[0]))
    return programs[settings]


def _tf_phase(model, count):
    import tensorflow as tf

    def one(batches, step):
        logs = model.phase_step(keras.tree.map_structure(lambda a: a[step], batches))
        return {name: tf.convert_to_tensor(value) for name, value in logs.items()}

    @tf.function(autograph=False, jit_compile=model.jit_compile or None)
    def phase(batches):
        number = tf.TensorSpec([], "int32")
        traced = tf.function(one, autograph=False)
        traced = traced.get_concrete_function(batches, number)
        arrays = {
            name: tf.TensorArray(value.dtype, count, element_shape=value.shape)
            for name, value in traced.structured_outputs.items()
        }

        def body(step, arrays):
            logs = traced(batches, step)
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


def _jax_phase(model, count):
    import jax

    def phase(state, batches):
        def one(state, batch):
            logs, new = model.phase_step(tuple(state), batch)
            new = [  # a carry must keep its types
                [jax.numpy.asarray(x, old.dtype) for x, old in zip(n, o, strict=True)]
                for n, o in zip(new, state, strict=True)
            ]
            return new, logs

        return jax.lax.scan(one, state, batches)

    compiled = jax.jit(phase)

    def run(batches):
        groups = _jax_state(model, training=True)
        state, logs = compiled([[v.value for v in g] for g in groups], batches)
        _assign(groups, state)
        return logs

    return run


def _plain_phase(model, count):
    on_jax = keras.backend.backend() == "jax"

    def one(batch):
        if not on_jax:
            return model.phase_step(batch)
        groups = _jax_state(model, training=True)
        state = tuple([v.value for v in g] for g in groups)
        logs, state = model.phase_step(state, batch)
        _assign(groups, state)
        return logs

    def run(batches):
        batches = keras.tree.map_structure(keras.ops.convert_to_tensor, batches)
        rows = [
            one(keras.tree.map_structure(lambda a, n=n: a[n], batches))
            for n in range(count)
        ]
        return {name: keras.ops.stack([r[name] for r in rows]) for name in rows[0]}

    return run


def _assign(groups, state):
    for variables, values in zip(groups, state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
