"""The door itself: TensorFlow Probability for the active backend, seeds, bijectors."""

import functools
import importlib
import warnings

import keras
from keras import ops

from dlcompanion.checks import check_count
from dlcompanion.installation import check_installation


def tfd():
    """Module ``tfp.distributions`` for the active backend.

    Raises:
        ImportError: On a backend that TFP does not run on, and where TFP is missing
            or wrongly installed. The message says what to do.

    Returns:
        The module.

    Example:
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     density = tfd().Normal(0.0, 1.0).prob(1.0)
    """
    return _tfp().distributions


def tfb():
    """Module ``tfp.bijectors`` for the active backend.

    Returns:
        The module.

    Raises:
        ImportError: As :func:`tfd`.

    Example:
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     positive = tfb().Softplus().forward(-1.0)
    """
    return _tfp().bijectors


def tfp_seed(seed_generator):
    """Next seed of a Keras generator, in the form that TFP takes on this backend.

    Args:
        seed_generator: A :class:`keras.random.SeedGenerator`. Its state advances,
            inside a compiled step too.

    Returns:
        Integer tensor of shape ``(2,)``: a stateless seed on TensorFlow, a raw key
        on JAX.

    Raises:
        ValueError: If ``seed_generator`` is something else.

    Example:
        >>> tuple(tfp_seed(keras.random.SeedGenerator(0)).shape)
        (2,)
    """
    if not isinstance(seed_generator, keras.random.SeedGenerator):
        raise ValueError(
            "tfp_seed needs a keras.random.SeedGenerator. "
            f"Received: seed_generator={seed_generator!r}"
        )
    seed = seed_generator.next()
    return ops.cast(seed, "int32") if keras.backend.backend() == "tensorflow" else seed


def as_bijector(layer, event_ndims=1, context=None):
    """Invertible Keras layer as a ``tfb.Bijector``.

    Build it where it is used and let it go: it remembers the last tensors it saw, so
    that value and log-determinant, one asked after the other, cost one call.

    Args:
        layer: Keras layer whose ``call(x, inverse=False)`` returns ``(y, log_det)``,
            with ``log_det`` of the direction that was asked for.
        event_ndims: Positive integer, the trailing axes of ``x`` that make up one
            event, over which ``log_det`` is summed.
        context: Tensor that the layer's ``call`` takes as ``context``, or ``None``
            for a layer that takes none.

    Returns:
        A bijector whose ``forward`` is ``layer(x)``.

    Raises:
        ValueError: If ``event_ndims < 1``.
        ImportError: As :func:`tfd`.

    Example:
        >>> from dlcompanion.generative.flows.coupling import DiagonalScaling
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     y = as_bijector(DiagonalScaling()).forward(ops.ones((5, 2)))
    """
    check_count("event_ndims", event_ndims)
    return _layer_bijector()(layer, event_ndims, context)


@functools.cache
def _tfp():
    backend = keras.backend.backend()
    check_installation(backend)
    name = "tensorflow_probability"
    name += ".substrates.jax" if backend == "jax" else ""
    try:
        with warnings.catch_warnings():  # TFP's import uses deprecated things
            warnings.simplefilter("ignore")
            module = importlib.import_module(name)
            _ = module.distributions, module.bijectors
    except ImportError as error:  # tf_keras, which TFP needs on TensorFlow
        extra = "tensorflow" if backend == "tensorflow" else "jax-probability"
        raise ImportError(
            f"TensorFlow Probability does not import: {error}. "
            f'Run pip install "dlcompanion[{extra}]".'
        ) from error
    return module


@functools.cache
def _layer_bijector():
    class LayerBijector(tfb().Bijector):
        def __init__(self, layer, event_ndims, context):
            super().__init__(
                forward_min_event_ndims=event_ndims,
                inverse_min_event_ndims=event_ndims,
                parameters={"layer": layer, "event_ndims": event_ndims},
                name=layer.name,
            )
            self._layer = layer
            self._given = {} if context is None else {"context": context}
            self._seen = {}

        @classmethod
        def _parameter_properties(cls, dtype):
            return {}

        def _both(self, x, inverse):
            if inverse not in self._seen or self._seen[inverse][0] is not x:
                y, log_det = self._layer(x, inverse=inverse, **self._given)
                self._seen[inverse] = (x, y, log_det)
                self._seen[not inverse] = (y, x, -log_det)
            return self._seen[inverse][1:]

        def _forward(self, x):
            return self._both(x, False)[0]

        def _inverse(self, y):
            return self._both(y, True)[0]

        def _forward_log_det_jacobian(self, x):
            return self._both(x, False)[1]

        def _inverse_log_det_jacobian(self, y):
            return self._both(y, True)[1]

    return LayerBijector
