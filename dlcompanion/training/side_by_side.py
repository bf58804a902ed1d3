"""Networks side by side in one model: orders of the examples, and a score for each."""

import numpy as np
from keras import ops

from dlcompanion.checks import check_count, check_labels


def member_orders(examples, members, epochs, rng):
    """Orders of the examples in which networks side by side see them.

    In every epoch each network sees each example once, in an order of its own.
    ``x[orders]`` and ``y[orders]`` are the data of ``fit`` with ``shuffle=False``, all
    epochs one after the other.

    Args:
        examples: Positive integer, how many there are.
        members: Positive integer, how many networks.
        epochs: Positive integer.
        rng: :class:`numpy.random.Generator`.

    Returns:
        Integer array ``(epochs * examples, members)``.

    Raises:
        ValueError: If a count is no positive integer.

    Example:
        >>> orders = member_orders(4, members=2, epochs=3, rng=np.random.default_rng(0))
        >>> orders.shape, sorted(orders[:4, 1].tolist())
        ((12, 2), [0, 1, 2, 3])
    """
    check_count("examples", examples)
    check_count("members", members)
    check_count("epochs", epochs)
    return np.concatenate(
        [
            np.stack([rng.permutation(examples) for _ in range(members)], axis=1)
            for _ in range(epochs)
        ]
    )


def evaluate_members(model, x, y):
    """Cross-entropy and accuracy of each of several networks in one model.

    Args:
        model: Keras model from ``(batch, members, ...)`` to logits ``(batch, members,
            classes)``, each network of its own inputs.
        x: Array ``(examples, ...)``, which every network is given.
        y: Array ``(examples,)`` of the numbers of the classes.

    Returns:
        Two arrays ``(members,)``: the mean cross-entropy and the share of examples
        whose class has the largest logit.

    Raises:
        ValueError: If the outputs have another shape, or a label is no class.

    Example:
        >>> import keras
        >>> identity = keras.layers.Identity()
        >>> model = keras.Sequential([keras.Input((2, 3)), identity])
        >>> loss, accuracy = evaluate_members(model, 9 * np.eye(3), [0, 1, 0])
        >>> accuracy.round(3).tolist()
        [0.667, 0.667]
    """
    shape = model.output_shape
    if not isinstance(shape, tuple) or len(shape) != 3 or None in shape[1:]:
        raise ValueError(
            "Networks side by side give logits of shape (batch, members, classes). "
            f"Received: model.output_shape={shape}"
        )
    _, members, classes = shape
    y = check_labels("y", y, classes, len(x))
    asked = np.repeat(np.asarray(x)[:, None], members, axis=1)
    logits = model.predict(asked, batch_size=len(asked), verbose=0)
    log_p = ops.convert_to_numpy(ops.log_softmax(logits))
    losses = -np.take_along_axis(log_p, y[:, None, None], axis=2)[..., 0]
    hits = logits.argmax(axis=2) == y[:, None]
    return losses.mean(axis=0), hits.mean(axis=0)
