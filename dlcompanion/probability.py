r"""The one door to TensorFlow Probability, on TensorFlow and on JAX.

TensorFlow Probability (TFP) has hundreds of tested distributions and bijectors,
but its own ``tfp.layers`` does not work with Keras 3, and in Keras 3 no layer may
return a distribution: every output must be a tensor. Hence the pattern of this
package. A layer returns a float32 tensor of *parameters*, and a small *spec* that
is saved with the model turns parameters into a distribution. Head, loss and user
share the spec; no TFP object is ever stored on a layer or model.

>>> head = keras.layers.Dense(NormalSpec(event_size=2).params_size)
>>> tuple(head(keras.ops.ones((5, 3))).shape)  # (batch, params_size)
(5, 4)
"""

import functools
import importlib
import warnings

import keras
import numpy as np
from keras import ops

from dlcompanion.installation import check_installation

#: Added to every scale, so that a density never divides by zero.
SCALE_FLOOR = 1e-5


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


def as_bijector(layer, event_ndims=1):
    """Invertible Keras layer as a ``tfb.Bijector``.

    Build it where it is used and let it go: it remembers the last tensors it saw, so
    that value and log-determinant, one asked after the other, cost one call.

    Args:
        layer: Keras layer whose ``call(x, inverse=False)`` returns ``(y, log_det)``,
            with ``log_det`` of the direction that was asked for.
        event_ndims: Positive integer, the trailing axes of ``x`` that make up one
            event, over which ``log_det`` is summed.

    Returns:
        A bijector whose ``forward`` is ``layer(x)``.

    Raises:
        ValueError: If ``event_ndims < 1``.
        ImportError: As :func:`tfd`.

    Example:
        >>> from dlcompanion.generative import DiagonalScaling
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     y = as_bijector(DiagonalScaling()).forward(ops.ones((5, 2)))
    """
    _require_size("event_ndims", event_ndims)
    return _layer_bijector()(layer, event_ndims)


class Spec:
    """Parameters in, distribution out: what all specs share.

    A spec is called on a tensor of shape ``(..., params_size)`` of any floating
    dtype, computes in float32, and returns a ``tfd`` distribution of batch shape
    ``(...)``. It holds nothing but the integers that it was made from, and is saved
    with the layer, loss or model whose config it is in
    (``keras.saving.serialize_keras_object``).

    Subclasses set ``params_size`` and ``distribution(params)``.

    Raises:
        ValueError: If a size is below its minimum, or if the spec is called on
            parameters of another size or of an integer dtype.

    Example:
        >>> NormalSpec(event_size=2)
        NormalSpec(event_size=2)
    """

    params_size = None

    def __call__(self, params):
        params = ops.convert_to_tensor(params)
        dtype = keras.backend.standardize_dtype(params.dtype)
        shape = tuple(params.shape)
        wrong = not shape or shape[-1] != self.params_size
        if wrong or not keras.backend.is_float_dtype(dtype):
            raise ValueError(
                f"{type(self).__name__} needs floating point parameters of shape "
                f"(..., {self.params_size}). Received: shape={shape}, dtype={dtype}"
            )
        return self.distribution(ops.cast(params, "float32"))

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        sizes = ", ".join(f"{k}={v}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({sizes})"


class _EventSpec(Spec):
    """A spec that is made from the size of the event alone."""

    def __init__(self, event_size):
        self.event_size = _require_size("event_size", event_size)

    def get_config(self):
        return {"event_size": self.event_size}


@keras.saving.register_keras_serializable(package="dlcompanion")
class NormalSpec(_EventSpec):
    r"""Independent normal variables.

    The parameters are :math:`(\mu, \rho)`, the scale is
    :math:`\sigma = \log(1 + e^\rho) + 10^{-5}`.

    Args:
        event_size: Positive integer, the number of variables.

    Example:
        >>> NormalSpec(3).params_size
        6
    """

    @property
    def params_size(self):
        return 2 * self.event_size

    def distribution(self, params):
        loc, rho = ops.split(params, 2, axis=-1)  # (..., event) each
        return tfd().Independent(tfd().Normal(loc, _scale(rho)), 1)


@keras.saving.register_keras_serializable(package="dlcompanion")
class BernoulliSpec(_EventSpec):
    r"""Independent binary variables; the parameters are their logits.

    Args:
        event_size: Positive integer, the number of variables.

    Example:
        >>> BernoulliSpec(3).params_size
        3
    """

    @property
    def params_size(self):
        return self.event_size

    def distribution(self, params):
        return tfd().Independent(tfd().Bernoulli(logits=params), 1)


@keras.saving.register_keras_serializable(package="dlcompanion")
class CategoricalSpec(Spec):
    r"""One class of several; the parameters are the logits.

    The event is a scalar integer.

    Args:
        classes: Integer of at least 2.

    Example:
        >>> CategoricalSpec(10).params_size
        10
    """

    def __init__(self, classes):
        self.classes = _require_size("classes", classes, at_least=2)
        self.params_size = classes

    def distribution(self, params):
        return tfd().Categorical(logits=params)

    def get_config(self):
        return {"classes": self.classes}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MixtureNormalSpec(Spec):
    r"""Mixture of normals with diagonal covariance.

    .. math:: p(y) = \sum_k \pi_k \prod_i \mathcal N(y_i; \mu_{ki}, \sigma_{ki}^2)

    The parameters are the logits of :math:`\pi`, then :math:`\mu` component by
    component, then :math:`\rho` likewise; the scale is that of :class:`NormalSpec`.

    Args:
        components: Positive integer, the number of normals.
        event_size: Positive integer, the number of variables.

    Example:
        >>> MixtureNormalSpec(components=5, event_size=2).params_size
        25

    References:
        Bishop, *Mixture Density Networks*, 1994.
        https://publications.aston.ac.uk/id/eprint/373/
    """

    def __init__(self, components, event_size=1):
        self.components = _require_size("components", components)
        self.event_size = _require_size("event_size", event_size)
        self.params_size = components * (1 + 2 * event_size)

    def distribution(self, params):
        k, d = self.components, self.event_size
        logits, loc, rho = ops.split(params, [k, k + k * d], axis=-1)
        shape = (*ops.shape(params)[:-1], k, d)
        normals = tfd().Normal(ops.reshape(loc, shape), _scale(ops.reshape(rho, shape)))
        return tfd().MixtureSameFamily(
            tfd().Categorical(logits=logits), tfd().Independent(normals, 1)
        )

    def get_config(self):
        return {"components": self.components, "event_size": self.event_size}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MultivariateNormalTriLSpec(_EventSpec):
    r"""Normal with full covariance :math:`\Sigma = L L^\top`.

    The parameters are :math:`\mu` and the lower triangle of :math:`L` row by row;
    its diagonal passes through softplus and gets :math:`10^{-5}`, so that
    :math:`\Sigma` is positive definite whatever the parameters are.

    Args:
        event_size: Positive integer, the number of variables.

    Example:
        >>> MultivariateNormalTriLSpec(event_size=3).params_size
        9
    """

    @property
    def params_size(self):
        return self.event_size * (self.event_size + 3) // 2

    def distribution(self, params):
        d = self.event_size
        loc, triangle = params[..., :d], params[..., d:]  # (..., d), (..., d(d+1)/2)
        place = np.zeros((d, d), "int32")  # where entry (i, j) stands in the triangle
        place[np.tril_indices(d)] = np.arange(d * (d + 1) // 2)
        square = ops.take(triangle, place, axis=-1)  # (..., d, d), rubbish above
        below, eye = np.tril(np.ones((d, d), "float32"), -1), np.eye(d, dtype="float32")
        return tfd().MultivariateNormalTriL(loc, square * below + _scale(square) * eye)


def _scale(rho):
    return ops.softplus(rho) + SCALE_FLOOR


def _require_size(name, value, at_least=1):
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < at_least:
        raise ValueError(
            f"{name} must be an integer of at least {at_least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


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
        def __init__(self, layer, event_ndims):
            super().__init__(
                forward_min_event_ndims=event_ndims,
                inverse_min_event_ndims=event_ndims,
                parameters={"layer": layer, "event_ndims": event_ndims},
                name=layer.name,
            )
            self._layer = layer
            self._seen = {}

        @classmethod
        def _parameter_properties(cls, dtype):
            return {}

        def _both(self, x, inverse):
            if inverse not in self._seen or self._seen[inverse][0] is not x:
                y, log_det = self._layer(x, inverse=inverse)
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
