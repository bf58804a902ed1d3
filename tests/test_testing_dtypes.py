"""Tests of the checks of dtypes: planted faults are named, policies are put back."""

import keras
import numpy as np
import planted_dtypes as faults
import pytest

from dlcompanion.testing import (
    ConformanceError,
    check_layer,
    check_loss,
    check_metric,
    check_model,
    dtypes,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype("float32")
WHOLE = RNG.integers(0, 9, size=(4, 6)).astype("float32")
Y = RNG.normal(size=(6, 3)).astype("float32")
BITS = (Y > 0).astype("float32")
CHECKS = {
    "layer": ("pure_half", "float64", "numpy_data"),
    "loss": ("float64", "numpy_data"),
    "metric": ("half", "float64", "numpy_data"),
    "model": ("float16", "pure_half", "float64", "numpy_data"),
}

#: JAX has no float64 to meet, and models are checked there under mixed_bfloat16.
NOT_ON_JAX = (
    faults.OnlyFloat32,
    faults.TellsFloat64,
    faults.LossInFloat32,
    faults.MetricRoundsFloat64,
    faults.ModelOverflows,
    faults.ModelOnlyMixed,
    faults.ModelInFloat32,
)


def only_dtypes(kind):
    """The other checks of a kind, to leave out."""
    from dlcompanion.testing import layer_checks, losses, metrics, models

    tables = {"layer": layer_checks, "loss": losses, "metric": metrics, "model": models}
    return [name for name in tables[kind].CHECKS if name not in CHECKS[kind]]


def run(kind, component):
    skip = only_dtypes(kind)
    if kind == "layer":
        check_layer(component, {}, X, skip=skip)
    elif kind == "loss":
        check_loss(component, {}, BITS, Y, skip=skip)
    elif kind == "metric":
        check_metric(component, {}, BITS, Y, skip=skip)
    else:
        check_model(component, {"units": 4}, WHOLE, WHOLE[:, :1], skip=skip)


@pytest.mark.parametrize(
    "kind, component, check",
    [
        ("layer", faults.OnlyFloat32, "float64"),
        ("layer", faults.OnlyMixed, "pure_half"),
        ("layer", faults.TellsFloat64, "numpy_data"),
        ("loss", faults.LossInFloat32, "float64"),
        ("loss", faults.LossCountsFromOne, "numpy_data"),
        ("metric", faults.MetricRefusesHalf, "half"),
        ("metric", faults.MetricRoundsFloat64, "float64"),
        ("metric", faults.MetricMistakesBytes, "numpy_data"),
        ("model", faults.ModelOverflows, "float16"),
        ("model", faults.ModelOnlyMixed, "pure_half"),
        ("model", faults.ModelInFloat32, "float64"),
        ("model", faults.ModelScalesBytes, "numpy_data"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_fault_of_a_dtype_is_named(kind, component, check, backend):
    if backend == "jax" and component in NOT_ON_JAX:
        run(kind, component)
        return
    with pytest.raises(ConformanceError) as caught:
        run(kind, component)
    assert caught.value.check == check


def test_policy_and_floatx_are_put_back_after_an_error():
    with pytest.raises(KeyError), dtypes.policy("float64"):
        assert keras.config.floatx() == "float64"
        assert keras.layers.Dense(1).variable_dtype == "float64"
        raise KeyError
    assert keras.config.floatx() == "float32"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.once
def test_dtypes_that_hold_an_array():
    assert dtypes.kinds(Y) == ["float64"]
    assert dtypes.kinds(BITS) == ["float64", "int64", "uint8", "bool"]
    assert dtypes.kinds(np.array([0, 300], "int32")) == ["int64"]
    assert dtypes.kinds(np.array([-1, 1])) == []
    assert dtypes.kinds(np.array(["a"])) == []
