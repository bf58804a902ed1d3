"""Train in a process that sees two devices, to compare with one device here.

One process serves all the tests of a run, because most of what such a test costs is to
import Keras and its backend. It says how many devices there are before they are looked
for, which this process cannot do any more.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import keras


def on_two_devices(function, *args):
    """What a function returns where each batch is split between two devices.

    Args:
        function: Function at the top level of a test file, which sets its seed.
        *args: What can be pickled.

    Returns:
        What the function returns, which can be pickled too.
    """
    call = function.__module__, function.__name__, args
    try:
        return _process().submit(_run, sys.path, *call).result(600)
    except BrokenProcessPool:
        _process.cache_clear()  # the test after this one is given another
        raise


@functools.cache
def _process():
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, _make_two_devices)


def _make_two_devices():
    """In the other process: CPUs as two devices, before the backend finds one."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=2"
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    else:
        devices = keras.distribution.list_devices()
        assert len(devices) == 2
        parallel = keras.distribution.DataParallel(devices=devices)
        keras.distribution.set_distribution(parallel)


def _run(path, module, name, args):
    """In the other process: the call."""
    sys.path[:] = path  # a file of a later folder may be the one
    function = getattr(importlib.import_module(module), name)
    keras.utils.clear_session(free_memory=False)
    with _scope():
        return function(*args)


def _scope():
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    return _strategy().scope()


@functools.cache
def _strategy():
    """One for all calls: a second one in the same process would wait for ever."""
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    return strategy
