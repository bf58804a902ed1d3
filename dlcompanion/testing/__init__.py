"""Conformance checks for components, this package's and anybody's.

Each check makes the component, puts it through what Keras does to components of its
kind (configs, saving, compiling, mixed precision, ...) and raises a
:class:`ConformanceError` that names the broken promise and the remedy. They need
NumPy and Keras only, and work in any test runner.

Example:
    >>> import keras
    >>> import numpy as np
    >>> from dlcompanion.testing import check_layer
    >>> check_layer(keras.layers.Dense, {"units": 2}, np.ones((4, 3), "float32"))
"""

from dlcompanion.testing.agents import check_agent
from dlcompanion.testing.callbacks import check_callback
from dlcompanion.testing.errors import ConformanceError
from dlcompanion.testing.flows import check_flow
from dlcompanion.testing.layers import check_layer
from dlcompanion.testing.losses import check_loss
from dlcompanion.testing.metrics import check_metric
from dlcompanion.testing.models import check_model
from dlcompanion.testing.optimizers import check_optimizer, check_schedule

__all__ = [
    "ConformanceError",
    "check_agent",
    "check_callback",
    "check_flow",
    "check_layer",
    "check_loss",
    "check_metric",
    "check_model",
    "check_optimizer",
    "check_schedule",
]
