"""The spec of a function: any distribution of TensorFlow Probability, saved by name."""

import keras
import numpy as np

from dlcompanion.checks import check_count
from dlcompanion.probability.specs import Spec
from dlcompanion.probability.values import as_event_shape, check_distribution


@keras.saving.register_keras_serializable(package="dlcompanion")
class FunctionSpec(Spec):
    """Any distribution, made by a function that is registered with Keras.

    It takes the place of ``tfp.layers.DistributionLambda``, whose lambda could not be
    saved. Where the parameters come in as a NumPy array, as from ``predict``, what
    the function makes of them is checked (:func:`check_distribution`); in a compiled
    step it cannot be, and comes out as TFP computes it, mostly as NaN.

    Args:
        function: Function of a float32 tensor ``(..., params_size)`` that returns a
            distribution with ``log_prob``, registered by
            :func:`keras.saving.register_keras_serializable`.
        params_size: Positive integer.
        event_shape: As :class:`NormalSpec`, the shape of a value.

    Raises:
        ValueError: If ``function`` is not registered, as a lambda never is, or a size
            is wrong; from a call, if a NumPy array of parameters makes a scale that is
            not positive, a covariance that is not positive definite, or probabilities
            that are negative or do not sum to one.

    Example:
        >>> from dlcompanion.probability import tfd
        >>> @keras.saving.register_keras_serializable(package="docs")
        ... def student_t(params):
        ...     loc, rho = keras.ops.unstack(params, axis=-1)
        ...     return tfd().StudentT(4.0, loc, keras.ops.exp(rho))
        >>> FunctionSpec(student_t, params_size=2)
        FunctionSpec(function=docs>student_t, params_size=2, event_shape=())
    """

    def __init__(self, function, params_size, event_shape=()):
        name = keras.saving.get_registered_name(function)
        if keras.saving.get_registered_object(name) is not function:
            raise ValueError(
                "function must be registered, so that it can be saved: put "
                '@keras.saving.register_keras_serializable(package="...") before its '
                f"def; a lambda will not do. Received: function={function!r}"
            )
        self.function = function
        self.params_size = check_count("params_size", params_size)
        self.event_shape = as_event_shape(event_shape)

    def __call__(self, params):
        if not isinstance(params, np.ndarray):
            return super().__call__(params)
        try:
            distribution = super().__call__(params)
        except Exception as error:  # TensorFlow's, which is no ValueError
            if "cholesky" in str(error).lower():
                raise ValueError(
                    "A covariance must be positive definite. "
                    f"Received: params={params!r}"
                ) from error
            raise
        check_distribution(distribution)
        return distribution

    def distribution(self, params):
        return self.function(params)

    def get_config(self):
        return {
            "function": keras.saving.serialize_keras_object(self.function),
            "params_size": self.params_size,
            "event_shape": self.event_shape,
        }

    @classmethod
    def from_config(cls, config):
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})

    def __repr__(self):
        name = keras.saving.get_registered_name(self.function)
        sizes = f"params_size={self.params_size}, event_shape={self.event_shape}"
        return f"FunctionSpec(function={name}, {sizes})"
