r"""The checks of arguments and data that the whole package shares.

Arguments: :func:`check_count`, :func:`check_number`, :func:`check_share`,
:func:`check_boolean`, :func:`check_choice`; NumPy data: :func:`check_finite`,
:func:`check_probabilities`, :func:`check_labels`. Each raises a ValueError that names
the rule and what was received.
"""

import math
import numbers

import numpy as np


def check_count(name, value, least=1):
    """Refuse anything but an integer of at least ``least``.

    Args:
        name: String, the argument's name.
        value: What was given.
        least: Integer, the smallest value allowed.

    Returns:
        The value as an ``int``.

    Raises:
        ValueError: If ``value`` is not an integer or too small.

    Example:
        >>> check_count("n", 3)
        3
    """
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"{name} must be an integer of at least {least}. Received: {name}={value!r}"
        )
    return int(value)


def check_number(name, value, low=0.0, high=math.inf, open_ends=False):
    """Refuse anything but a finite number between ``low`` and ``high``.

    Args:
        name: String, the argument's name.
        value: What was given.
        low: Number, the smallest value.
        high: Number, the largest value.
        open_ends: Boolean, whether ``low`` and ``high`` themselves are refused.

    Returns:
        The value as a ``float``.

    Raises:
        ValueError: If ``value`` is not a number or lies outside.

    Example:
        >>> check_number("noise", 0)
        0.0
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    inside = real and math.isfinite(value) and low <= value <= high
    if not inside or (open_ends and value in (low, high)):
        where = f"above {low:g}" if open_ends else f"of at least {low:g}"
        if math.isfinite(high):
            where = f"between {low:g} and {high:g}"
            where += ", both excluded" if open_ends else ""
        raise ValueError(
            f"{name} must be a finite number {where}. Received: {name}={value!r}"
        )
    return float(value)


def check_share(name, value, zero=True, one=True):
    """Refuse anything but a number between 0 and 1.

    Args:
        name: String, the argument's name.
        value: What was given.
        zero: Boolean, whether 0 itself is allowed.
        one: Boolean, whether 1 itself is allowed.

    Returns:
        The value as a ``float``.

    Raises:
        ValueError: If ``value`` is not a number or lies outside.

    Example:
        >>> check_share("rate", 0.5, one=False)
        0.5
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    inside = real and 0 <= value <= 1 and (zero or value > 0) and (one or value < 1)
    if not inside:
        ends = ("[" if zero else "(") + "0, 1" + ("]" if one else ")")
        raise ValueError(f"{name} must lie in {ends}. Received: {name}={value!r}")
    return float(value)


def check_boolean(name, value):
    """Refuse anything but True and False.

    Args:
        name: String, the argument's name.
        value: What was given.

    Returns:
        The value.

    Raises:
        ValueError: If ``value`` is not a boolean.

    Example:
        >>> check_boolean("from_logits", False)
        False
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be a boolean. Received: {name}={value!r}")
    return value


def check_choice(name, value, choices):
    """Refuse anything but one of some strings.

    Args:
        name: String, the argument's name.
        value: What was given.
        choices: The strings allowed.

    Returns:
        The value.

    Raises:
        ValueError: If ``value`` is none of them.

    Example:
        >>> check_choice("binning", "mass", ("width", "mass"))
        'mass'
    """
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {allowed}. Received: {name}={value!r}")
    return value


def check_jit_compile(value):
    """Refuse what :meth:`keras.Model.compile` does not take as ``jit_compile``.

    Args:
        value: What was given.

    Returns:
        The value.

    Raises:
        ValueError: If ``value`` is neither a boolean nor ``"auto"``.

    Example:
        >>> check_jit_compile("auto")
        'auto'
    """
    if value not in (True, False, "auto"):
        raise ValueError(
            'jit_compile must be True, False or "auto". '
            f"Received: jit_compile={value!r}"
        )
    return value


def check_finite(name, values, rule=None):
    """Refuse data with NaN or infinity.

    Args:
        name: String, what the values are.
        values: Array or tensor ``(rows, ...)``.
        rule: String, the rule that the error states. By default that they must be
            finite.

    Raises:
        ValueError: If an entry is NaN or infinite; it says in how many rows, and which
            is the first.

    Example:
        >>> check_finite("x", [[0.0], [1.0]])
    """
    if not isinstance(values, np.ndarray):
        from keras import ops  # claims are read where there is no Keras

        values = ops.convert_to_numpy(values)
    axes = tuple(range(1, values.ndim))
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=axes))
    if len(wrong):
        raise ValueError(
            f"{rule or f'{name} must be finite'}. Received: {len(wrong)} rows with NaN "
            f"or infinity, first {name}[{wrong[0]}]"
        )


def check_probabilities(name, p):
    """Refuse what is no distribution: rows sum to one, a column is in [0, 1].

    Args:
        name: String, what they are.
        p: Array ``(..., classes)``, or ``(..., 1)`` of one probability of two.

    Raises:
        ValueError: If there is no row, an entry is NaN or outside [0, 1], or the sum
            over several classes is not 1, to a thousandth.

    Example:
        >>> check_probabilities("p", np.array([[0.25, 0.75]]))
    """
    bad = np.isnan(p).any() or p.size == 0 or p.min() < 0 or p.max() > 1
    if p.shape[-1] > 1 and not bad:
        bad = np.abs(p.sum(axis=-1, dtype="float64") - 1).max() > 1e-3
    if bad:
        raise ValueError(
            f"{name} must be probabilities: at least one row, no NaN, between 0 and 1, "
            "and of sum 1 where there are several classes. Received: "
            f"shape={p.shape}" + (f", range={p.min()} to {p.max()}" if p.size else "")
        )


def check_labels(name, labels, classes, count):
    """Refuse anything but the number of a class for each example.

    Args:
        name: String, what the labels are.
        labels: Array ``(count,)`` or ``(count, 1)`` of integers, booleans, or floats
            that are whole.
        classes: Integer, how many classes there are.
        count: Integer, how many examples there are.

    Returns:
        Int32 array ``(count,)``.

    Raises:
        ValueError: If a label is not a whole number from 0 to ``classes - 1``, or they
            are not ``count``.

    Example:
        >>> check_labels("y", [[0], [2]], classes=3, count=2)
        array([0, 2], dtype=int32)
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = labels.dtype.kind in "iub" or (
        labels.dtype.kind == "f" and np.array_equal(labels, np.round(labels))
    )
    fits = whole and labels.shape == (count,)
    if not fits or (count and (labels.min() < 0 or labels.max() >= classes)):
        raise ValueError(
            f"{name} must be {count} whole numbers, one class index from 0 to "
            f"{classes - 1} for each example. Received: "
            f"{name} of shape {labels.shape}, dtype {labels.dtype}"
            + (f", {labels.min()} to {labels.max()}" if labels.size and whole else "")
        )
    return labels.astype("int32")


def generator(seed):
    """NumPy's generator for a seed.

    Args:
        seed: Integer of at least 0.

    Returns:
        A ``numpy.random.Generator``.

    Raises:
        ValueError: If ``seed`` is not an integer of at least 0.

    Example:
        >>> int(generator(0).integers(100))
        85
    """
    return np.random.default_rng(check_count("seed", seed, least=0))
