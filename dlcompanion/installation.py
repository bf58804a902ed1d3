"""Which TensorFlow Probability works with which backend, and how to get it."""

import importlib.metadata

_FRESH = (
    "Make a new virtual environment, or run\n"
    "    pip uninstall -y tensorflow-probability tfp-nightly\n"
    '    pip install --force-reinstall "dlcompanion[{extra}]"'
)


def check_installation(backend):
    """Refuse what cannot work with this backend, before TFP fails obscurely.

    Args:
        backend: String, the name of the Keras backend.

    Raises:
        ImportError: If TFP does not run on ``backend``; if it is not installed; if
            ``tensorflow-probability`` and ``tfp-nightly``, which write into one
            folder, are both installed; or if TFP up to 0.25 meets jax from 0.7 on.

    Example:
        >>> check_installation("torch")
        Traceback (most recent call last):
        ImportError: This needs TensorFlow Probability, which runs on ...
    """
    if backend not in ("tensorflow", "jax"):
        raise ImportError(
            "This needs TensorFlow Probability, which runs on TensorFlow and JAX, "
            f"and the Keras backend is {backend}. Set KERAS_BACKEND=tensorflow and "
            'pip install "dlcompanion[tensorflow]", or set KERAS_BACKEND=jax and '
            'pip install "dlcompanion[jax-probability]".'
        )
    extra = "tensorflow" if backend == "tensorflow" else "jax-probability"
    stable, nightly = _version("tensorflow-probability"), _version("tfp-nightly")
    if stable and nightly:
        raise ImportError(
            f"tensorflow-probability {stable} and tfp-nightly {nightly} are both "
            "installed, in one folder, where one overwrote files of the other. "
            + _FRESH.format(extra=extra)
        )
    if not stable and not nightly:
        remedy = f'Run pip install "dlcompanion[{extra}]".'
        raise ImportError(f"This needs TensorFlow Probability. {remedy}")
    jax = _version("jax") or "0.0"
    old = stable is not None and _minor(stable) <= (0, 25)
    if backend == "jax" and old and _minor(jax) >= (0, 7):
        raise ImportError(
            f"tensorflow-probability {stable} does not work with jax {jax} "
            "(from jax 0.7 on it needs tfp-nightly). " + _FRESH.format(extra=extra)
        )


def _version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _minor(version):
    return tuple(int(part) for part in version.split(".")[:2])
