"""Calls of functions in a Python process that has seen nothing of this one."""

import functools
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool


def call_in_new_process(function, *args):
    """Call a function of a module in another process.

    The process is started at the first call and serves the later ones: importing Keras
    and its backend costs more than most calls. A script that calls this guards itself
    by ``if __name__ == "__main__"``, as for :mod:`multiprocessing`.

    Args:
        function: Function that can be imported, so neither local nor of ``__main__``.
        *args: What can be sent to a process, classes and functions by their names.

    Returns:
        What the function returns.

    Raises:
        RuntimeError: If the process ends before it answers. What the function raises
            is raised here.

    Example:
        >>> import os
        >>> call_in_new_process(os.getpid) == os.getpid()
        False
    """
    pool = _pool(tuple(sys.path))
    try:
        return pool.submit(function, *args).result()
    except BrokenProcessPool as error:
        _pool.cache_clear()  # the call after this one gets another
        raise RuntimeError(
            "the new process ended: it crashed, could not import what it was sent, or "
            'ran a script without the guard if __name__ == "__main__"'
        ) from error


@functools.cache
def _pool(path):
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
