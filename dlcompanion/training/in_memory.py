"""fit_in_memory: what fit does, with a whole epoch in one compiled program."""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count, check_share
from dlcompanion.training.unsupervised import UnsupervisedModel

_BATCH_HOOKS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)


def fit_in_memory(
    model,
    x,
    y=None,
    *,
    batch_size=32,
    epochs=1,
    shuffle=True,
    validation_data=None,
    validation_split=0.0,
    class_weight=None,
    sample_weight=None,
    callbacks=None,
    verbose="auto",
    initial_epoch=0,
    seed=None,
):
    """Train on arrays that fit in memory: ``model.fit``, without its cost per step.

    Keras's ``fit`` walks through arrays batch by batch from Python, which costs more
    than the arithmetic where the model is small. Here the arrays move to the device
    once, and the shuffle, the gathering of the batches and all steps of an epoch are
    one program: a ``tf.function`` with a loop on TensorFlow, a ``jax.lax.scan`` on JAX,
    a plain loop on PyTorch, where nothing is compiled.

    The model's own ``train_step`` is run, so losses, metrics, loss weights, weights
    of examples, BatchNormalization, Dropout, ``add_loss``, loss scaling and
    :class:`~dlcompanion.training.StepModel` all behave as in ``fit``; on the same order
    of examples the weights are the same, and so is the history. The differences:

    - Callbacks are called by epoch. One that wants batches is refused.
    - ``seed`` decides the order, which is a new one in every epoch.
    - XLA follows ``compile(jit_compile=...)`` on TensorFlow, where ``"auto"`` means
      without on a CPU: a loop over tiny layers is faster so. JAX always compiles.
    - One device, no ``steps_per_epoch``, and no mask of missing (None) inputs.

    The program is kept with the model: a second call with as many examples and the
    same batch size does not compile again, until ``model.compile`` is called.

    Args:
        model: A compiled :class:`keras.Model`.
        x: Array, or list, tuple or dict of arrays, with examples along the first axis.
        y: The same for the targets, or None.
        batch_size: Positive integer. The last batch of an epoch may be smaller.
        epochs: Non-negative integer, the epoch to stop before, as in ``fit``.
        shuffle: Boolean, whether to take the examples in random order.
        validation_data: Tuple ``(x_val, y_val)`` or ``(x_val, y_val,
            sample_weight)``, or ``x_val`` alone, evaluated after every epoch.
        validation_split: Float in [0, 1), the share of the last examples that are held
            out, before shuffling, where ``validation_data`` is not given.
        class_weight: Dict from class to the weight of its examples.
        sample_weight: Array of one weight an example, or a structure of them like
            ``y``. Not together with ``class_weight``.
        callbacks: List of callbacks.
        verbose: ``"auto"``, 0, 1 or 2, as in ``fit``.
        initial_epoch: Integer, the epoch to start with. A
            :class:`~dlcompanion.training.ResumableCheckpoint` sets it by itself.
        seed: Integer from 0 to 2^31 - 1. None draws from NumPy's generator, which
            :func:`keras.utils.set_random_seed` seeds.

    Returns:
        The :class:`keras.callbacks.History`, as from ``fit``.

    Raises:
        ValueError: If the model is not compiled, an argument is out of its range, the
            data are not arrays of equal length, or a callback wants batches.

    Example:
        >>> import numpy as np
        >>> x, y = np.ones((10, 3)), np.ones((10, 1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> history = fit_in_memory(model, x, y, batch_size=4, epochs=5, verbose=0)
        >>> len(history.history["loss"])
        5
    """
    _check(batch_size, epochs, initial_epoch, validation_split, seed)
    _check_arrays(x, y, sample_weight)
    unsupervised = isinstance(model, UnsupervisedModel)
    if unsupervised:
        x, y, sample_weight = model.without_targets(x, y, sample_weight)
    if validation_data is not None:
        validation_split = 0.0
    data, held_out = backend.pack_arrays(
        x, y, sample_weight, class_weight, validation_split
    )
    if held_out is None and validation_data is not None:
        held_out = keras.utils.unpack_x_y_sample_weight(validation_data)
        _check_arrays(*held_out)
        if unsupervised:
            held_out = model.without_targets(*held_out)
    size = len(keras.tree.flatten(data)[0])
    backend.prepare_fit(model, _rows(data, batch_size))

    def run(data, order, training):
        shuffle = order is not None
        epoch = backend.epoch_program(model, data, batch_size, shuffle, training)
        return dict(epoch(data, order))

    def validate():
        callbacks.on_test_begin()
        model.reset_metrics()
        logs = run(held, None, training=False)
        callbacks.on_test_end(logs)
        return {f"val_{name}": value for name, value in logs.items()}

    if held_out is not None:
        held, _ = backend.pack_arrays(*held_out, None, 0.0)
    _check_callbacks(callbacks)
    callbacks = keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=verbose != 0,
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=-(-size // batch_size),
        in_memory=True,
    )
    model.stop_training = False
    callbacks.on_train_begin()
    logs = None
    for epoch in range(backend.first_epoch(model, initial_epoch), epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        order = None
        if shuffle:
            first = np.random.randint(2**31) if seed is None else seed
            order = (first, epoch)
        logs = run(data, order, training=True)
        if held_out is not None:
            logs.update(validate())
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    if isinstance(model.optimizer, keras.optimizers.Optimizer) and epochs > 0:
        model.optimizer.finalize_variable_values(model.trainable_weights)
    callbacks.on_train_end(logs)
    return model.history


def _rows(data, count):
    return keras.tree.map_structure(lambda a: a[:count], data)


def _check(batch_size, epochs, initial_epoch, validation_split, seed):
    check_count("batch_size", batch_size)
    check_count("epochs", epochs, least=0)
    check_count("initial_epoch", initial_epoch, least=0)
    check_share("validation_split", validation_split, one=False)
    if seed is not None and not 0 <= seed < 2**31:
        raise ValueError(f"seed must lie in [0, 2**31). Received: {seed=}")


def _check_arrays(x, y, sample_weight):
    arrays = [a for a in keras.tree.flatten((x, y, sample_weight)) if a is not None]
    bare = [type(a).__name__ for a in arrays if not hasattr(a, "shape")]
    if bare or not arrays:
        raise ValueError(
            "fit_in_memory takes arrays; a dataset, a generator or a PyDataset goes to "
            f"fit. Received: {', '.join(bare) or 'no array'}"
        )
    if any(len(a.shape) == 0 for a in arrays):
        raise ValueError(
            "The data need an axis of examples. Received: an array of shape ()"
        )
    lengths = {int(a.shape[0]) for a in arrays}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "All arrays must hold the same number of examples, and at least one. "
            f"Received: {sorted(lengths)}"
        )


def _check_callbacks(callbacks):
    base = keras.callbacks.Callback
    for callback in keras.tree.flatten(callbacks or []):
        by_epoch = isinstance(callback, keras.callbacks.ProgbarLogger)
        for setting in ("save_freq", "update_freq"):
            by_epoch |= getattr(callback, setting, None) == "epoch"
        wanted = [
            hook
            for hook in _BATCH_HOOKS
            if hook in vars(callback)
            or getattr(type(callback), hook) is not getattr(base, hook)
        ]
        if wanted and not by_epoch:
            raise ValueError(
                "fit_in_memory runs an epoch as one program and cannot call a "
                "callback between batches; use fit. "
                f"Received: {type(callback).__name__} with {', '.join(wanted)}"
            )
