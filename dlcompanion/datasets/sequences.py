"""Sequence tasks that need memory: adding, copying, reversing."""

import numpy as np

from dlcompanion.checks import check_count, generator


def adding(n=1000, length=50, seed=0):
    """Add the two marked numbers of a long sequence.

    Each step holds a number drawn uniformly from ``[0, 1]`` and a marker. One step of
    the first half and one of the second half are marked. A model that ignores the
    input does best with the constant 1, at a mean squared error of 1/6.

    Args:
        n: Integer, the number of sequences.
        length: Integer of at least 2, the number of steps.
        seed: Integer, fixes numbers and markers.

    Returns:
        ``x`` of shape ``(n, length, 2)``, ``float32``, number and marker (0 or 1) of
        each step, and ``y`` of shape ``(n, 1)``, ``float32``, the sum of the two
        marked numbers.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> x, y = adding(4, length=10)
        >>> bool(np.allclose((x[..., 0] * x[..., 1]).sum(axis=1), y[:, 0]))
        True

    References:
        Hochreiter and Schmidhuber, *Long Short-Term Memory*, 1997, experiment 4; with
        the markers as in Arjovsky et al., *Unitary Evolution Recurrent Neural
        Networks*, 2016. https://arxiv.org/abs/1511.06464
    """
    n, length = check_count("n", n), check_count("length", length, least=2)
    rng = generator(seed)
    x = np.zeros((n, length, 2), "float32")
    x[..., 0] = rng.uniform(size=(n, length))
    rows, half = np.arange(n), length // 2
    first, second = rng.integers(0, half, n), rng.integers(half, length, n)
    x[rows, first, 1] = x[rows, second, 1] = 1
    return x, (x[rows, first, 0] + x[rows, second, 0])[:, None]


def copy_sequence(n=1000, length=10, symbols=8, delay=20, seed=0):
    """Say again, after a pause, what was heard before it.

    The input is ``length`` random symbols, ``delay - 1`` blanks, the signal to start,
    and ``length`` blanks. The target is blank until the signal has passed, and then
    the symbols in their order. A model without memory does best with blanks and then
    guesses: a cross-entropy of ``length * log(symbols) / (delay + 2 * length)``.

    Args:
        n: Integer, the number of sequences.
        length: Integer, the number of symbols to remember.
        symbols: Integer, the size of the alphabet.
        delay: Integer, the number of steps between the last symbol and the answer.
        seed: Integer, fixes the symbols.

    Returns:
        ``x`` and ``y``, both of shape ``(n, delay + 2 * length)``, ``int32``: 0 is
        blank, ``1 ... symbols`` are the symbols, ``symbols + 1`` is the signal.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> x, y = copy_sequence(1, length=3, symbols=2, delay=2, seed=1)
        >>> print(x[0], y[0])
        [1 2 2 0 3 0 0 0] [0 0 0 0 0 1 2 2]

    References:
        Arjovsky et al., *Unitary Evolution Recurrent Neural Networks*, 2016,
        section 5.1. https://arxiv.org/abs/1511.06464
    """
    n, length = check_count("n", n), check_count("length", length)
    symbols, delay = check_count("symbols", symbols), check_count("delay", delay)
    heard = generator(seed).integers(1, symbols + 1, (n, length))
    x = np.zeros((n, delay + 2 * length), "int32")
    y = np.zeros_like(x)
    x[:, :length] = heard
    x[:, length + delay - 1] = symbols + 1
    y[:, length + delay :] = heard
    return x, y


def reverse_sequence(n=1000, length=10, symbols=8, seed=0):
    """Say backwards what was heard: the smallest translation task.

    Args:
        n: Integer, the number of sequences.
        length: Integer, the number of symbols in each.
        symbols: Integer, the size of the alphabet.
        seed: Integer, fixes the symbols.

    Returns:
        ``x`` and ``y``, both of shape ``(n, length)``, ``int32`` in ``1 ... symbols``;
        0 stays free for padding and start.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> x, y = reverse_sequence(1, length=5, seed=2)
        >>> print(x[0], y[0])
        [7 3 1 3 4] [4 3 1 3 7]
    """
    n, length = check_count("n", n), check_count("length", length)
    symbols, rng = check_count("symbols", symbols), generator(seed)
    x = rng.integers(1, symbols + 1, (n, length)).astype("int32")
    return x, x[:, ::-1].copy()
