"""Calls of functions in a Python process that has seen nothing of this one."""

import atexit
import functools
import os
import pickle
import subprocess
import sys
import traceback


def call_in_new_process(function, *args):
    """Call a function of a module in another process.

    The process is started once and serves all later calls: importing Keras and its
    backend costs more than most calls. It imports by the names of modules, from the
    present ``sys.path``, and with the present backend; the script that runs here is
    not run there.

    Args:
        function: Function that can be imported, so neither local nor of ``__main__``.
        *args: What :mod:`pickle` can hold.

    Returns:
        What the function returns.

    Raises:
        RuntimeError: If the function raises, or the process ends; with the traceback
            of the other process.

    Example:
        >>> import os
        >>> call_in_new_process(os.getpid) == os.getpid()
        False
    """
    request = pickle.dumps((function, args))
    process = _process(tuple(sys.path))
    try:
        pickle.dump(request, process.stdin)  # whole, whether it can be loaded or not
        process.stdin.flush()
        failed, result = pickle.load(process.stdout)
    except (BrokenPipeError, EOFError) as error:
        _process.cache_clear()  # the call after this one gets another
        raise RuntimeError("the new process ended before it answered") from error
    if failed:
        raise RuntimeError(result)
    return result


@functools.cache
def _process(path):
    import keras  # not above: the new process imports what a call needs, and no more

    here = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in path),
    }
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-P", __file__]  # without this folder in sys.path
    process = subprocess.Popen(command, env=here, **pipes)
    atexit.register(_end, process)
    return process


def _end(process):
    process.stdin.close()
    process.wait()
    process.stdout.close()


def serve():
    """In the new process: answer calls until nobody can make any."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the functions print does not belong among the answers
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            function, args = pickle.loads(request)
            answer = pickle.dumps((False, function(*args)))
        except Exception:
            answer = pickle.dumps((True, traceback.format_exc()))
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    serve()
