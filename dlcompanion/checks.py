"""The checks of arguments that the whole package shares."""

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
        where = f"of at least {low:g}"
        if math.isfinite(high):
            where = f"between {low:g} and {high:g}"
            where += ", both excluded" if open_ends else ""
        raise ValueError(
            f"{name} must be a finite number {where}. Received: {name}={value!r}"
        )
    return float(value)


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
