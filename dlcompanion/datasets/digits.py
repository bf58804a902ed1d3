"""Handwritten digits of 8 x 8 pixels that travel with scikit-learn."""

import numpy as np

from dlcompanion.backend import require
from dlcompanion.checks import check_number, generator


def digits(flat=False, test=0.2, seed=0):
    """1,797 handwritten digits, split into training and test part.

    The pictures are those of :func:`sklearn.datasets.load_digits`: 43 people wrote
    them, in the order of the file. The split is drawn at random within each class, so
    both parts have the same mixture of digits; it does not keep writers apart, so test
    accuracy is that of new digits by known hands.

    Args:
        flat: Boolean, whether a picture is a row of 64 numbers instead of an
            ``(8, 8, 1)`` array.
        test: Number between 0 and 1, the share of the test part.
        seed: Integer, fixes the split and the order.

    Returns:
        ``(x_train, y_train), (x_test, y_test)``: ``x`` of shape ``(n, 8, 8, 1)`` or
        ``(n, 64)``, ``float32`` in ``[0, 1]``, and ``y`` of shape ``(n,)``, ``int32``
        in ``0 ... 9``.

    Raises:
        ValueError: If ``test`` is not between 0 and 1, leaves one part without one of
            the digits, or ``seed`` is not an integer of at least 0.
        ImportError: If scikit-learn is missing.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = digits()
        >>> x_train.shape, x_test.shape
        ((1438, 8, 8, 1), (359, 8, 8, 1))

    References:
        Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine
        Learning Repository, 1998. https://doi.org/10.24432/C50P49
    """
    test = check_number("test", test, 0, 1, open_ends=True)
    rng = generator(seed)
    x, y = require("sklearn.datasets", "datasets").load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape((-1, 64) if flat else (-1, 8, 8, 1))
    chosen = np.zeros(len(y), bool)
    for digit in range(10):
        rows = rng.permutation(np.flatnonzero(y == digit))
        count = round(test * len(rows))
        if not 0 < count < len(rows):
            raise ValueError(
                "test must leave at least one picture of each digit in both parts. "
                f"Received: test={test}"
            )
        chosen[rows[:count]] = True
    order = rng.permutation(len(y))
    y = y.astype("int32")
    train, held_out = order[~chosen[order]], order[chosen[order]]
    return (x[train], y[train]), (x[held_out], y[held_out])
