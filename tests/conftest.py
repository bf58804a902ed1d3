"""What every test gets: one seed, one backend, and programs compiled once."""

import importlib.util
import os
import shutil
import tempfile
from importlib import metadata

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")


def _version(package):
    """Major and minor version of a package, if that is the backend and is there."""
    if os.environ["KERAS_BACKEND"] != package:
        return None
    try:
        return [int(part) for part in metadata.version(package).split(".")[:2]]
    except metadata.PackageNotFoundError:
        return None


FIRST_PROCESS = "PYTEST_XDIST_WORKER" not in os.environ
if FIRST_PROCESS:  # what it sets is set in all workers, and in what a test starts
    # Most programs of a test run once or twice, and to compile them is what costs: XLA
    # is told not to optimize them, and to emit fusions by its older, faster way (a
    # convolution's contract tests on JAX: 29 CPU seconds of compiling, then 11). XLA
    # ends the process at a flag that it does not know: only where this one was tried.
    flags = "--xla_backend_optimization_level=0"
    if _version("jax") == [0, 10] or _version("tensorflow") == [2, 21]:
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()
    # What was compiled once is read from a folder the next time, by all workers. JAX
    # writes files in place, so one may read what another has written by half: its
    # checksum is wrong then, JAX warns (pyproject.toml ignores it) and compiles anew.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
        prefix="programs-of-jax-"
    )
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import keras  # noqa: E402
import pytest  # noqa: E402


def pytest_unconfigure():
    if FIRST_PROCESS:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


STARTED = pytest.StashKey()


def cpu_seconds():
    """CPU seconds of this process and of the processes that it waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.stash[STARTED] = cpu_seconds()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    """Write the CPU seconds of a test, fixtures included, into its report."""
    if call.when == "teardown":
        seconds = cpu_seconds() - item.stash[STARTED]
        item.user_properties.append(("cpu_seconds", f"{seconds:.2f}"))


def pytest_collection_modifyitems(config, items):
    if keras.backend.backend() != "tensorflow":
        once = [item for item in items if item.get_closest_marker("once")]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in set(once)]
    if keras.backend.backend() not in ("tensorflow", "jax"):
        skip = pytest.mark.skip(reason="needs TensorFlow Probability")
        for item in items:
            if item.get_closest_marker("tfp"):
                item.add_marker(skip)
    if importlib.util.find_spec("ray") is None:
        skip = pytest.mark.skip(reason="needs Ray")
        for item in items:
            if item.get_closest_marker("ray") or _example_with_ray(item):
                item.add_marker(skip)


def _example_with_ray(item):
    return (
        item.name
        == "dlcompanion.reinforcement.environments.ray_environments.ray_environments"
    )


@pytest.fixture(autouse=True)
def fresh_keras(request):
    """Every test starts from the same seed, dtype policy and names.

    The seed is that of pytest-randomly if a run asks for it, ``-p randomly``.
    """
    keras.utils.clear_session(free_memory=False)
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(request.config.getoption("randomly_seed", 0))


@pytest.fixture(autouse=True, scope="module")
def compiled_programs():
    """On JAX the programs of one file are of no use to the next: gigabytes, kept."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


@pytest.fixture
def backend():
    return keras.backend.backend()
