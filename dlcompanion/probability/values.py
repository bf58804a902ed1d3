"""What the specs share: shapes, positive scales, and the check of a distribution."""

import math

import numpy as np
from keras import ops

from dlcompanion.checks import check_count

#: Added to every scale. A softplus of less than -104 is 0 in float32, and there a
#: density is infinite and a divergence too. With the floor the distance of a target in
#: scales stays below the largest float32, squared too, up to 1e14; and it is far below
#: every scale of data whose size is about 1.
SCALE_FLOOR = 1e-5

_POSITIVE = {
    "concentration",
    "concentration0",
    "concentration1",
    "df",
    "rate",
    "scale",
    "scale_diag",
}
_BINARY = {"Bernoulli", "Binomial", "Geometric", "NegativeBinomial"}


def positive(rho):
    """The scale of an unconstrained number: softplus, and a floor."""
    return ops.softplus(rho) + SCALE_FLOOR


def check_params(name, params, spec):
    """Refuse anything but the finite parameters that a spec takes; a list of floats."""
    numbers = np.ravel(np.asarray(params, "float64"))
    if len(numbers) != spec.params_size or not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must be {spec.params_size} finite numbers for {spec}. "
            f"Received: {name}={params!r}"
        )
    return numbers.tolist()


def unconstrained(scale):
    """The number of which :func:`positive` makes this scale.

    A scale at the floor, or below it by rounding, counts as 1e-12 above it: float32
    has steps of 9e-13 there, so that nothing smaller can be told from the floor.
    """
    above = ops.maximum(scale - SCALE_FLOOR, 1e-12)
    return above + ops.log(-ops.expm1(-above))


def as_event_shape(event_shape):
    """An event shape as a tuple: ``n`` is ``(n,)``."""
    if isinstance(event_shape, (list, tuple)):
        return tuple(check_count("event_shape", n) for n in event_shape)
    return (check_count("event_shape", event_shape),)


def check_distribution(distribution):
    """Refuse a distribution that was made from impossible values.

    TFP computes on with a negative scale and returns NaN, or a number that looks like
    a density. This looks at the values that a distribution was made from, and at those
    of the distributions inside it: scales, rates and concentrations are positive,
    covariances positive definite, probabilities between 0 and 1, with sum 1 over
    classes. NaN is refused, too. Only where values are known, that is not in a
    compiled step.

    Args:
        distribution: A ``tfd`` distribution.

    Raises:
        ValueError: If a value is impossible; the message has its name.

    Example:
        >>> import keras
        >>> if keras.backend.backend() in ("tensorflow", "jax"):
        ...     from dlcompanion.probability import tfd
        ...     check_distribution(tfd().Normal(0.0, 1.0))
    """
    kind = type(distribution).__name__.lstrip("_")
    for name, value in distribution.parameters.items():
        if hasattr(value, "log_prob") and hasattr(value, "parameters"):
            check_distribution(value)
        elif ops.is_tensor(value) or isinstance(value, (float, int, list, np.ndarray)):
            value = ops.convert_to_numpy(ops.convert_to_tensor(value, "float32"))
            _check_parameter(kind, name, value)


def _check_parameter(kind, name, value):
    rule = None
    if name in _POSITIVE and not (value > 0).all():
        rule = "positive"
    elif name == "scale_tril":
        diagonal = np.diagonal(value, axis1=-2, axis2=-1)
        rule = None if (diagonal > 0).all() else "of a positive diagonal"
    elif name == "covariance_matrix":
        rule = None if _is_covariance(value) else "symmetric and positive definite"
    elif name == "probs":
        if not ((value >= 0) & (value <= 1)).all():
            rule = "between 0 and 1"
        elif kind not in _BINARY and not _sum_to_one(value):
            rule = "probabilities that sum to one"
    if rule:
        raise ValueError(f"{name} of {kind} must be {rule}. Received: {name}={value}")


def _is_covariance(matrix):
    symmetric = np.allclose(matrix, np.swapaxes(matrix, -1, -2), rtol=1e-4)
    return bool(symmetric and np.linalg.eigvalsh(matrix).min() > 0)


def _sum_to_one(probs):
    return bool((abs(probs.sum(axis=-1) - 1) <= 1e-5 * math.sqrt(probs.size)).all())
