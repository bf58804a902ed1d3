"""What every benchmark shares: CPU seconds, alternation, a table.

Rules that the numbers keep: CPU seconds (``time.process_time``) of one thread, ours
and the peer alternately in one run, the median of several repeats with its spread,
and a committed JSON record, see ``benchmarks/record.py``.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_ONE = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
_PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "tensorflow-probability")


def one_thread():
    """Limit every library to one thread; call it before a backend is imported."""
    for name in _ONE:
        os.environ[name] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    xla = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {xla}".strip()


def cpu_seconds(fn, repeats=5):
    """CPU seconds of each of ``repeats`` calls of ``fn()``.

    The first call, which compiles, must have been made by the caller. ``fn`` must
    wait for its own result: JAX dispatches and returns at once.

    Returns:
        List of floats, in the order of the calls.
    """
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        fn()
        seconds.append(time.process_time() - start)
    return seconds


def alternate(candidates, repeats=5, warm_up=1):
    """Time several contenders in turn: a, b, c, a, b, c, ...

    Args:
        candidates: Dict of name to a function of no arguments, or to a
            :class:`Peer`.
        repeats: Integer, timed calls of each.
        warm_up: Integer, calls of each before, not counted.

    Returns:
        Dict of name to the list of its CPU seconds.
    """

    def once(candidate):
        if isinstance(candidate, Peer):
            return candidate.cpu_seconds()
        return cpu_seconds(candidate, 1)[0]

    for _ in range(warm_up):
        for candidate in candidates.values():
            once(candidate)
    seconds = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            seconds[name].append(once(candidate))
    return seconds


class Peer:
    """A contender that lives in another process, and usually another environment.

    The script is started once, with one thread. For every line that it reads from
    standard input it runs its work once and prints the CPU seconds; see
    :func:`serve`, which is all that a peer's script has to call.

    Args:
        python: Path of the interpreter of the peer's environment.
        script: Path of the script.
        *arguments: Strings, passed to the script.
    """

    def __init__(self, python, script, *arguments, **environment):
        self.process = subprocess.Popen(
            [str(python), str(script), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        self.versions = json.loads(self._line())

    def cpu_seconds(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return float(self._line())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The peer ended, exit code {self.process.wait()}: {self.process.args}"
            )
        return line


def serve(fn):
    """The other side of :class:`Peer`: time ``fn()`` for every line of stdin."""
    answers = os.fdopen(os.dup(1), "w")
    with contextlib.redirect_stdout(sys.stderr):
        print(json.dumps(versions()), file=answers, flush=True)
        for _ in sys.stdin:
            print(cpu_seconds(fn, 1)[0], file=answers, flush=True)


def summary(seconds):
    """Median, least, and the half width of the middle half of some seconds."""
    ordered = sorted(seconds)
    quarter = len(ordered) // 4
    return {
        "median": statistics.median(ordered),
        "min": ordered[0],
        "spread": (ordered[-1 - quarter] - ordered[quarter]) / 2,
        "repeats": len(ordered),
    }


def ratio(ours, peer):
    """Ratio of two lists of seconds taken alternately, pair by pair.

    Returns:
        Dict: median of the ratios, least and largest.
    """
    pairs = [a / b for a, b in zip(ours, peer, strict=True)]
    return {"median": statistics.median(pairs), "min": min(pairs), "max": max(pairs)}


def table(rows):
    """Print a list of dicts with the same keys as an aligned table."""
    keys = list(rows[0])
    text = [[_cell(row[key]) for key in keys] for row in rows]
    widths = [max(map(len, column)) for column in zip(keys, *text, strict=True)]
    for line in [keys, *text]:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def _cell(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def versions():
    """Versions of Python and of the numerical packages of this process."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
