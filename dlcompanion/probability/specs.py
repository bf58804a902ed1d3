r"""Specs: parameters in, distribution out.

The parameters of every spec stand in the order in which ``tfp.layers`` reads them, so
that the kernel of a last ``Dense`` that was trained there can be carried over. One
thing differs, on purpose: a scale is :math:`\log(1 + e^\rho) + 10^{-5}`, where
``tfp.layers`` has :math:`\log(1 + e^\rho)` (except in its ``MultivariateNormalTriL``),
which is zero in float32 from :math:`\rho = -104` on and makes the density infinite.
"""

import math

import keras
import numpy as np
from keras import ops

from dlcompanion import backend
from dlcompanion.checks import check_count
from dlcompanion.probability.door import tfd
from dlcompanion.probability.values import as_event_shape, positive


class Spec:
    """Parameters in, distribution out: what all specs share.

    A spec is called on a tensor of shape ``(..., params_size)`` of any floating
    dtype, computes in float32 at least, and returns a ``tfd`` distribution of batch
    shape ``(...)`` and event shape ``event_shape``. It holds nothing but what it was
    made from, and is saved with the layer, loss or model whose config it is in
    (``keras.saving.serialize_keras_object``).

    Subclasses set ``event_shape``, ``params_size``, ``distribution(params)``, and
    ``contains(y)`` with ``support``, its name, where not every number is a value.

    Raises:
        ValueError: If a size is below its minimum, or if the spec is called on
            parameters of another size or of an integer dtype.

    Example:
        >>> NormalSpec(event_shape=2)
        NormalSpec(event_shape=(2,))
    """

    event_shape = ()
    params_size = None
    support = "finite numbers"

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
        return self.distribution(backend.widen(params))

    def log_prob(self, params, y):
        """Log-density of values; NaN, gradient included, outside the support.

        Args:
            params: Float tensor of shape ``(..., params_size)``.
            y: Tensor of shape ``(..., *event_shape)``, with the axes of ``params``
                before. Nothing is broadcast.

        Returns:
            Tensor of shape ``(...)``, float32 at least.
        """
        params = ops.convert_to_tensor(params)
        y = ops.cast(y, backend.at_least_float32(params.dtype))
        self.check_shapes(params, y)
        possible = ops.where(self.contains(y), y, 0.0)  # TFP may raise at others
        log_prob = self(params).log_prob(possible)
        inside = ops.where(self.in_support(y), 1.0, math.nan)
        return log_prob * ops.cast(inside, log_prob.dtype)

    def in_support(self, y):
        """Which events of ``y``, ``(..., *event_shape)``, can happen: ``(...)``."""
        inside = self.contains(y)
        axes = tuple(range(-len(self.event_shape), 0))
        return ops.all(inside, axis=axes) if axes else inside

    def contains(self, y):
        """The same entry by entry."""
        return ops.isfinite(y)

    def check_shapes(self, params, y):
        """Refuse values that would be broadcast against the parameters."""
        batch, shape = tuple(params.shape)[:-1], tuple(y.shape)
        wanted = (*batch, *self.event_shape)
        fits = len(shape) == len(wanted) and all(
            None in (a, b) or a == b for a, b in zip(shape, wanted, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{self!r} needs values of shape {wanted} for parameters of shape "
                f"{tuple(params.shape)}: nothing is broadcast. "
                f"Received: y.shape={shape}"
            )

    def check_values(self, y):
        """Refuse NumPy values outside the support.

        Args:
            y: Array of shape ``(..., *event_shape)``.
        """
        inside = ops.convert_to_numpy(self.in_support(ops.cast(y, "float32")))
        wrong = np.argwhere(~inside)
        if len(wrong):
            where = tuple(int(i) for i in wrong[0])
            raise ValueError(
                f"{self!r} is a distribution of {self.support}. Received: "
                f"{len(wrong)} other values, the first y[{where}]={y[where]}"
            )

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        sizes = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({sizes})"


class _IndependentSpec(Spec):
    """Independent variables of one kind, in an event of any shape."""

    params_each = 1

    def __init__(self, event_shape=()):
        self.event_shape = as_event_shape(event_shape)

    @property
    def params_size(self):
        return self.params_each * math.prod(self.event_shape)

    def distribution(self, params):
        shape = (*ops.shape(params)[:-1], *self.event_shape)
        parts = ops.split(params, self.params_each, axis=-1)  # (..., event) each
        each = self.each(*[ops.reshape(part, shape) for part in parts])
        return tfd().Independent(each, len(self.event_shape))

    def get_config(self):
        return {"event_shape": self.event_shape}


@keras.saving.register_keras_serializable(package="dlcompanion")
class NormalSpec(_IndependentSpec):
    r"""Independent normal variables.

    The parameters are all :math:`\mu`, then all :math:`\rho`; the scale is
    :math:`\sigma = \log(1 + e^\rho) + 10^{-5}`.

    Args:
        event_shape: Tuple of positive integers, ``()`` for a scalar; ``n`` is
            ``(n,)``.

    Example:
        >>> NormalSpec(3).params_size
        6
    """

    params_each = 2

    def each(self, loc, rho):
        return tfd().Normal(loc, positive(rho))


@keras.saving.register_keras_serializable(package="dlcompanion")
class LogisticSpec(_IndependentSpec):
    r"""Independent logistic variables, with tails heavier than the normal's.

    The parameters are as in :class:`NormalSpec`; the distribution function is
    :math:`1 / (1 + e^{-(y - \mu) / \sigma})`.

    Args:
        event_shape: As :class:`NormalSpec`.

    Example:
        >>> LogisticSpec((2, 2)).params_size
        8
    """

    params_each = 2

    def each(self, loc, rho):
        return tfd().Logistic(loc, positive(rho))


@keras.saving.register_keras_serializable(package="dlcompanion")
class BernoulliSpec(_IndependentSpec):
    r"""Independent binary variables; the parameters are their logits.

    Args:
        event_shape: As :class:`NormalSpec`.

    Example:
        >>> BernoulliSpec(3).params_size
        3
    """

    support = "zeros and ones"

    def each(self, logits):
        return tfd().Bernoulli(logits=logits, dtype=logits.dtype)

    def contains(self, y):
        return ops.logical_or(ops.equal(y, 0), ops.equal(y, 1))


@keras.saving.register_keras_serializable(package="dlcompanion")
class PoissonSpec(_IndependentSpec):
    r"""Independent counts; the parameters are the logarithms of their rates.

    Args:
        event_shape: As :class:`NormalSpec`.

    Example:
        >>> PoissonSpec(3).params_size
        3
    """

    support = "counts 0, 1, 2, ..."

    def each(self, log_rate):
        return tfd().Poisson(log_rate=log_rate)

    def contains(self, y):
        whole = ops.logical_and(ops.isfinite(y), ops.equal(y, ops.floor(y)))
        return ops.logical_and(whole, y >= 0)


@keras.saving.register_keras_serializable(package="dlcompanion")
class CategoricalSpec(Spec):
    r"""One class of several; the parameters are the logits.

    The event is a scalar integer. :class:`OneHotCategoricalSpec` has one-hot vectors.

    Args:
        classes: Integer of at least 2.

    Example:
        >>> CategoricalSpec(10).params_size
        10
    """

    def __init__(self, classes):
        self.classes = check_count("classes", classes, 2)
        self.params_size = classes
        self.support = f"integers from 0 to {classes - 1}"

    def distribution(self, params):
        return tfd().Categorical(logits=params)

    def contains(self, y):
        whole = ops.logical_and(ops.isfinite(y), ops.equal(y, ops.floor(y)))
        return ops.logical_and(whole, ops.logical_and(y >= 0, y < self.classes))

    def get_config(self):
        return {"classes": self.classes}


@keras.saving.register_keras_serializable(package="dlcompanion")
class OneHotCategoricalSpec(Spec):
    r"""One class of several, as a vector with a single one; the parameters are logits.

    Args:
        classes: Integer of at least 2.

    Example:
        >>> OneHotCategoricalSpec(10).event_shape
        (10,)
    """

    support = "one-hot vectors"

    def __init__(self, classes):
        self.classes = check_count("classes", classes, 2)
        self.params_size = classes
        self.event_shape = (classes,)

    def distribution(self, params):
        return tfd().OneHotCategorical(logits=params, dtype=params.dtype)

    def contains(self, y):
        binary = ops.logical_or(ops.equal(y, 0), ops.equal(y, 1))
        single = ops.equal(ops.sum(y, axis=-1, keepdims=True), 1)
        return ops.logical_and(binary, single)

    def get_config(self):
        return {"classes": self.classes}


@keras.saving.register_keras_serializable(package="dlcompanion")
class MultivariateNormalTriLSpec(Spec):
    r"""Normal with full covariance :math:`\Sigma = L L^\top`.

    The parameters are :math:`\mu`, then the entries of the lower triangle of
    :math:`L` in the order of ``tfp.math.fill_triangular``, a spiral; its diagonal
    passes through softplus and gets :math:`10^{-5}`, so that :math:`\Sigma` is
    positive definite whatever the parameters are. This is what ``tfp.layers`` does.

    Args:
        event_size: Positive integer, the number of variables.

    Example:
        >>> MultivariateNormalTriLSpec(event_size=3).params_size
        9
    """

    def __init__(self, event_size):
        self.event_size = check_count("event_size", event_size)
        self.event_shape = (self.event_size,)
        self.params_size = event_size * (event_size + 3) // 2

    def distribution(self, params):
        d = self.event_size
        loc, triangle = params[..., :d], params[..., d:]  # (..., d), (..., d(d+1)/2)
        entries = np.arange(d * (d + 1) // 2)
        spiral = np.append(entries[d:], entries[::-1]).reshape(d, d).astype("int32")
        square = ops.take(triangle, spiral, axis=-1)  # (..., d, d), rubbish above
        below, eye = (
            ops.convert_to_tensor(a, params.dtype)
            for a in (np.tril(np.ones((d, d)), -1), np.eye(d))
        )
        lower = square * below + positive(square) * eye
        return tfd().MultivariateNormalTriL(loc, lower)

    def get_config(self):
        return {"event_size": self.event_size}
