"""claim() and seeds(): what a script says, and the chance behind it."""

import atexit
import json
import math
import operator
import os
import sys
import textwrap
import time
from pathlib import Path

from dlcompanion.checks import check_choice, check_count

_COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}

#: Environment variable that names the JSON-lines file to which claims are added.
RECORD = "DLCOMPANION_CLAIMS"
#: Environment variable, an integer by which all seeds of a script are shifted.
SEED_OFFSET = "DLCOMPANION_SEED_OFFSET"

_WIDTH = 55  # of the column of texts

#: What the script that runs claimed and is false, until its end.
_false = []


def claim(text, value, comparison, bound, unit=None, seeds=None):
    """Print one aligned line, and record it for the site.

    A text of more than 55 characters takes several lines, the last one with the value.
    A claim that is false does not end the script: the others are worth reading, too.
    But a script of which a claim was false says so at its end, and its exit code is 1.

    Args:
        text: String, what is claimed, in words that a reader understands alone.
        value: Number, what this run measured.
        comparison: One of ``"<"``, ``"<="``, ``">"``, ``">="``, ``"=="``.
        bound: Number, the limit that ``value`` must keep.
        unit: String, the unit of ``value`` and ``bound``, for example ``"nats"``.
        seeds: Integer, the number of seeds behind ``value``, if chance matters.

    Returns:
        The value, as a float.

    Raises:
        ValueError: If an argument is not what the rule above says. A NaN as value or
            bound is no error: the claim is false.

    Example:
        >>> gap = claim("one third is less than one half", 1 / 3, "<", 0.5)
        holds   one third is less than one half                         0.3333 < 0.5
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"A claim needs a text. Received: text={text!r}")
    check_choice("comparison", comparison, _COMPARISONS)
    if seeds is not None:
        check_count("seeds", seeds)
    value, bound = _number("value", value), _number("bound", bound)
    holds = bool(_COMPARISONS[comparison](value, bound))  # NaN compares false
    tail = comparison_text(value, comparison, bound, unit, seeds)
    *lines, last = textwrap.wrap(text, _WIDTH)
    lines.append(f"{last:{_WIDTH}s} {tail}")
    print(f"{'holds' if holds else 'FALSE':7s}", "\n        ".join(lines))
    file = _caller_file()
    _record(file, text, value, comparison, bound, unit, seeds, holds)
    if not holds and file == getattr(sys.modules["__main__"], "__file__", None):
        _false.append(text)
    return value


@atexit.register
def _fail_at_the_end():
    """End a script with exit code 1 if one of its claims was false."""
    if _false:
        print(f"{len(_false)} false: {'; '.join(_false)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # an exception in a function that runs at exit would leave a 0


def seeds(count, offset=None):
    """The seeds of a script: what it claims should hold for others, too.

    All chance of a script follows from these, so that ``dlcompanion run NAME
    --seed-offset 1000`` runs it with seeds of which it knows nothing.

    Args:
        count: Positive integer, how many.
        offset: Integer of at least 0, the first of them. By default the environment
            variable ``DLCOMPANION_SEED_OFFSET``, else 0.

    Returns:
        ``range`` of ``count`` integers.

    Raises:
        ValueError: If one of the numbers is no such integer.

    Example:
        >>> list(seeds(5, offset=1000))
        [1000, 1001, 1002, 1003, 1004]
    """
    if offset is None:
        given = os.environ.get(SEED_OFFSET, "0")
        if not given.isdecimal():
            raise ValueError(
                f"{SEED_OFFSET} must be an integer of at least 0. Received: {given!r}"
            )
        offset = int(given)
    first = check_count("offset", offset, least=0)
    return range(first, first + check_count("count", count))


def seed():
    """The first of :func:`seeds`, for what is drawn once.

    Returns:
        Integer.

    Example:
        >>> seed()
        0
    """
    return seeds(1)[0]


def comparison_text(value, comparison, bound, unit=None, seeds=None):
    """The comparison of a claim, as it is printed.

    Args:
        value: Number, or the string of one that is not finite.
        comparison: String, see :func:`claim`.
        bound: Number, or the string of one that is not finite.
        unit: String or ``None``.
        seeds: Integer or ``None``.

    Returns:
        String.

    Example:
        >>> comparison_text(1.23456, "<", 2, "nats", 5)
        '1.235 < 2 nats  (5 seeds)'
    """
    text = f"{float(value):.4g} {comparison} {float(bound):.4g}"
    text += f" {unit}" if unit else ""
    return text + (f"  ({seeds} seeds)" if seeds else "")


def _number(name, value):
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be one number. Received: {name}={value!r}"
        ) from error


def _record(file, text, value, comparison, bound, unit, seeds, holds):
    path = os.environ.get(RECORD)
    if not path:
        return
    row = {
        "script": Path(file).stem,
        "text": text,
        "value": value if math.isfinite(value) else str(value),
        "comparison": comparison,
        "bound": bound,
        "unit": unit,
        "seeds": seeds,
        "holds": holds,
        "seconds": round(time.process_time(), 1),
    }
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _caller_file():
    """The file of the first frame outside this module: the script itself."""
    frame = sys._getframe(1)
    while frame and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return frame.f_globals.get("__file__", "<interactive>")
