"""Random states of a run, and an epoch of training as one program."""

import keras
import numpy as np

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


def set_seed(seed):
    """``keras.utils.set_random_seed``, which keeps TensorFlow's compiled functions.

    TensorFlow forgets with every seed what it has prepared for execution, and a whole
    epoch takes seconds to be prepared again. It does so for the state of its random
    operations. Keras's own have none, so nothing is forgotten where no compiled
    function holds another.
    """
    if keras.backend.backend() != "tensorflow" or _draws_with_state():
        keras.utils.set_random_seed(seed)
        return
    import random

    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
    from keras.src.utils.rng_utils import GLOBAL_RANDOM_SEED
    from tensorflow.python.eager import context

    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
    random.seed(seed)
    np.random.seed(seed)
    state = context.context()
    state._seed, state._rng = seed, random.Random(seed)


def _draws_with_state():
    """Whether a compiled function has a random operation that keeps a state."""
    from tensorflow.python.eager import context

    state = context.context()
    return any(
        "seed2" in node.attr
        for name in state.list_function_names()
        for node in state.get_function_def(name).node_def
    )


def random_state():
    """Random states outside of the model: Keras's own seed, and the backend's.

    TensorFlow's generators cannot be read; its global seed, from which they all come,
    is given instead, for comparison.
    """
    from keras.src.random.seed_generator import global_seed_generator

    state = {"keras": global_seed_generator().state, "tensorflow_seed": None}
    name = keras.backend.backend()
    if name == "tensorflow":
        from tensorflow.python.eager import context

        state["tensorflow_seed"] = context.global_seed()
    elif name == "torch":
        import torch

        state["torch"] = torch.get_rng_state()
    return state


def set_random_state(state):
    """Restore what :func:`random_state` gave, TensorFlow's seed excepted."""
    from keras.src.random.seed_generator import global_seed_generator

    global_seed_generator().state.assign(state["keras"])
    if keras.backend.backend() == "torch":
        import torch

        torch.set_rng_state(torch.as_tensor(state["torch"], dtype=torch.uint8))


def start_at_epoch(model, epoch):
    """Let the running ``fit`` begin at ``epoch``; None: where its caller says."""
    model._initial_epoch = epoch


def flatten_layers(model):
    """All layers of a model, nested ones too, without the model itself."""
    return model._flatten_layers(include_self=False, recursive=True)


def pack_arrays(x, y, sample_weight, class_weight, split):
    """The tensors that ``fit`` would slice, and those that it would validate on."""
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    arrays, held_out = (x, y, sample_weight), None
    if split:
        arrays, held_out = train_validation_split(arrays, split)
    adapter = ArrayDataAdapter(*arrays, class_weight=class_weight)
    return keras.tree.map_structure(_to_device, adapter._inputs), held_out


def dataset(arrays, size):
    """A ``tf.data.Dataset`` of batches of arrays, the last one short."""
    import tensorflow as tf

    arrays = keras.tree.map_structure(tf.convert_to_tensor, arrays)
    rows = len(keras.tree.flatten(arrays)[0])
    return (
        tf.data.Dataset.range(rows)
        .batch(size)
        .map(
            lambda rows: keras.tree.map_structure(lambda a: tf.gather(a, rows), arrays)
        )
    )


def _to_device(array):
    array = keras.ops.convert_to_numpy(array)
    if array.dtype.kind not in "biufV":
        raise ValueError(
            f"The data must be numbers. Received: an array of dtype={array.dtype}"
        )
    dtype = keras.config.floatx() if array.dtype.kind in "fV" else None
    return keras.ops.convert_to_tensor(array, dtype=dtype)


def prepare_fit(model, batch):
    """Build model, metrics and optimizer as ``fit`` does; refuse what cannot be run."""
    model._assert_compile_called("fit_in_memory")
    distributed = keras.distribution.distribution() is not None
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        distributed = tf.distribute.has_strategy()
        distributed |= model.distribute_strategy.num_replicas_in_sync > 1
    if distributed:
        raise ValueError(
            "fit_in_memory runs on one device; use fit for several. "
            f"Received: model={model.name} under a distribution"
        )
    model._symbolic_build(data_batch=batch)


def first_epoch(model, initial_epoch):
    """``initial_epoch``, unless a callback that resumes has set another."""
    return model._initial_epoch or initial_epoch


def shuffled(size, seed):
    """A random order of ``range(size)``, decided by ``seed``, two int32."""
    name = keras.backend.backend()
    if name == "tensorflow":
        import tensorflow as tf

        return tf.random.experimental.stateless_shuffle(tf.range(size), seed)
    if name == "jax":
        import jax

        key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
        return jax.random.permutation(key, size)
    import torch

    mixed = np.random.SeedSequence([int(n) for n in seed]).generate_state(1)
    generator = torch.Generator().manual_seed(int(mixed[0]))
    return torch.randperm(size, generator=generator).to(_torch_device())


def _torch_device():
    return keras.ops.zeros(()).device  # where Keras puts its tensors


def epoch_program(model, data, batch_size, shuffle, training):
    """Compile a whole epoch: order, gathering and all steps, the last partial one too.

    The program is kept with the model until the model is compiled again.

    Returns:
        A function of a structure of tensors like ``data`` and of a seed, two int32,
        that updates the model and returns its metrics, or what the last step returned
        where that is something else.
    """
    make = {"tensorflow": _tf_epoch, "jax": _jax_epoch}.get(keras.backend.backend())
    if make is None or model.run_eagerly:
        make = _plain_epoch
    return cached_program(
        model,
        "epoch",
        (batch_size, shuffle, training, signature(data)),
        lambda: make(model, data, batch_size, shuffle, training),
    )


def _tf_epoch(model, data, batch_size, shuffle, training):
    import tensorflow as tf

    size = len(keras.tree.flatten(data)[0])
    full, rest = divmod(size, batch_size)
    step = model.train_step if training else model.test_step

    @tf.function(autograph=False, jit_compile=model.jit_compile or None)
    def on_rows(data, rows):
        batch = keras.tree.map_structure(lambda a: tf.gather(a, rows), data)
        return keras.tree.map_structure(tf.convert_to_tensor, step(batch))

    # A batch of known size saves a tenth of the work; the last one, if smaller, is
    # then traced for itself. Not where the loss of each output is logged: Keras weights
    # the batches there by the size that it knows, and in fit it knows none.
    unknown = rest and bool(getattr(model._compile_loss, "metrics", ()))
    count = None if unknown else batch_size
    rows = tf.TensorSpec([count if full else rest], "int32")
    steps = on_rows.get_concrete_function(data, rows)
    last = steps
    if rest and full and not unknown:
        last = on_rows.get_concrete_function(data, tf.TensorSpec([rest], "int32"))
    zeros = keras.tree.map_structure(
        lambda spec: np.zeros(spec.shape, spec.dtype.as_numpy_dtype),
        steps.structured_outputs,
    )

    def epoch(data, seed):
        order = shuffled(size, seed) if shuffle else tf.range(size)
        _, logs = tf.while_loop(
            lambda start, logs: start < full * batch_size,
            lambda start, logs: (
                start + batch_size,
                steps(data, order[start : start + batch_size]),
            ),
            (tf.constant(0), keras.tree.map_structure(tf.constant, zeros)),
            parallel_iterations=1,
        )
        if rest:
            logs = last(data, order[full * batch_size :])
        return model._get_metrics_result_or_logs(logs)

    program = tf.function(epoch, autograph=False)
    program = program.get_concrete_function(data, tf.TensorSpec([2], "int32"))
    return lambda data, seed: program(data, tf.constant(seed or [0, 0], "int32"))


def _jax_epoch(model, data, batch_size, shuffle, training):
    import jax

    size = len(keras.tree.flatten(data)[0])
    full, rest = divmod(size, batch_size)
    step = model.train_step if training else model.test_step

    def epoch(state, data, seed):
        def on_rows(state, rows):
            batch = jax.tree.map(lambda a: a[rows], data)
            logs, new = step(tuple(state), batch)
            return typed_like(new, state), logs

        order = shuffled(size, seed) if shuffle else jax.numpy.arange(size)
        logs = {}
        if full:
            rows = order[: full * batch_size].reshape(full, batch_size)
            state, logs = jax.lax.scan(on_rows, state, rows)
            logs = jax.tree.map(lambda a: a[-1], logs)
        if rest:
            state, logs = on_rows(state, order[full * batch_size :])
        return logs, state

    compiled = jax.jit(epoch)

    def run(data, seed):
        groups = jax_variables(model, training)
        logs, state = compiled(values_of(groups), data, seed)
        assign(groups, state)
        return model._get_metrics_result_or_logs(logs)

    return run


def _plain_epoch(model, data, batch_size, shuffle, training):
    size = len(keras.tree.flatten(data)[0])
    step = _plain_step(model, training)

    def run(data, seed):
        order = shuffled(size, seed) if shuffle else keras.ops.arange(size)
        logs = {}
        for start in range(0, size, batch_size):
            rows = order[start : start + batch_size]
            batch = keras.tree.map_structure(lambda a, r=rows: take(a, r), data)
            logs = step(batch)
        return model._get_metrics_result_or_logs(logs)

    if keras.backend.backend() != "torch":
        return run

    def run_in_mode(data, seed):
        model.train(training)
        try:
            return run(data, seed)
        finally:
            model.eval()

    return run_in_mode


def _plain_step(model, training):
    name = keras.backend.backend()
    step = model.train_step if training else model.test_step
    if name == "tensorflow":
        return step
    if name == "torch":
        (model.make_train_function if training else model.make_test_function)()
        function = model.train_function if training else model.test_function
        return lambda batch: function([batch])

    return eager_step(model, step, training)
