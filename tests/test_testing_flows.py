"""Tests of dlcompanion.testing.check_flow: planted faults are named."""

import keras
import numpy as np
import planted_flows as flows
import pytest

from dlcompanion.testing import ConformanceError, check_flow

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3)).astype("float32")
IMAGES = RNG.normal(size=(4, 2, 2, 3)).astype("float32")
CONTEXT = RNG.normal(size=(4, 2)).astype("float32")
CONTEXT[0] = -2.0  # a row that a rectifier makes zero


@pytest.mark.parametrize(
    "flow_class, x, context, check, text",
    [
        (flows.LosesFactor, X, None, "config", "no 'factor' in ['name']"),
        (flows.ChangesFactor, X, None, "config", "is what __init__ took, 2.0"),
        (flows.OneLogDetForAll, X, None, "shape", "Received: shape ()"),
        (flows.InverseIsNaN, X, None, "shape", "finite numbers in the inverse of y"),
        (flows.InverseIsOff, X, None, "inverse", "largest difference 0.0001"),
        (flows.InverseForgetsContext, X, CONTEXT, "inverse", "the inverse of y is x"),
        (flows.SameSignBothWays, X, None, "opposite", "with a minus sign"),
        (flows.WrongSign, X, None, "log_det", "is that of the Jacobian"),
        (flows.ForgetsOneVariable, X, None, "log_det", "is that of the Jacobian"),
        (flows.ForgetsPlaces, IMAGES, None, "log_det", "is that of the Jacobian"),
        (flows.MapCutsGradient, X, None, "log_det", "is that of the Jacobian"),
        (flows.MixesRows, X, CONTEXT, "batch", "whatever the other rows hold"),
        (flows.IgnoresContext, X, CONTEXT, "context", "Received: 4 of 4 rows stay"),
        (flows.WeightWithoutGradient, X, None, "gradient", "none reaches weight_with"),
        (flows.InverseCutsGradient, X, None, "gradient", "has the gradient 1 by x"),
        (flows.InverseCutsGradientOfWeights, X, None, "gradient", "the gradient 0 by"),
        (flows.ForgetsWeights, X, None, "save", "gives the same numbers"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_fault_of_a_layer_is_named(flow_class, x, context, check, text):
    with pytest.raises(ConformanceError) as caught:
        check_flow(flow_class, {"factor": 2.0}, x, context=context)
    assert caught.value.check == check
    message = str(caught.value)
    assert message.startswith(f"layer {flow_class.__name__} fails the check {check!r}")
    assert text in message


@pytest.mark.parametrize(
    "flow_class, check, text",
    [
        (flows.ForgetsConstant, "density", "log_prob(x) is the log-density"),
        (flows.SubtractsLogDet, "density", "log_prob(x) is the log-density"),
        (flows.SampleAddsLogDet, "density", "sample_and_log_prob"),
        (flows.ModelForgetsWeights, "save", "gives the same numbers"),
    ],
)
def test_fault_of_a_model_is_named(flow_class, check, text):
    with pytest.raises(ConformanceError) as caught:
        check_flow(flow_class, {}, X)
    assert caught.value.check == check
    message = str(caught.value)
    assert message.startswith(f"model {flow_class.__name__} fails the check {check!r}")
    assert text in message


def test_a_context_that_only_some_rows_see_is_named():
    with pytest.raises(ConformanceError, match="Received: 1 of 4 rows stay") as caught:
        check_flow(flows.SeesContextOfSome, {}, X, context=CONTEXT)
    assert caught.value.check == "context"


@pytest.mark.parametrize("x", [X, IMAGES])
def test_healthy_layer_passes(x):
    check_flow(flows.Affine, {"factor": 2.0}, x)


def test_healthy_layer_with_a_context_passes():
    check_flow(flows.Affine, {}, X, context=CONTEXT)


def test_healthy_model_passes():
    check_flow(flows.Density, {}, X)


def test_one_way_is_checked_one_way():
    check_flow(flows.OneWay, {}, X, one_way=True)
    check_flow(flows.OneWayDensity, {}, X, one_way=True)
    with pytest.raises(ConformanceError) as caught:
        check_flow(flows.OneWayWrongSign, {}, X, one_way=True)
    assert caught.value.check == "log_det"
    with pytest.raises(ConformanceError, match="one_way=True") as caught:
        check_flow(flows.OneWay, {}, X)
    assert caught.value.check == "inverse"


def test_an_entry_that_is_lost_is_named():
    class First(keras.layers.Layer):
        def call(self, x):
            return x[:, :1], 0.0 * x[:, 0]

    with pytest.raises(ConformanceError, match="as many entries in y") as caught:
        check_flow(First, {}, X, one_way=True, skip="config")
    assert caught.value.check == "log_det"


def test_a_check_can_be_left_out():
    check_flow(flows.ForgetsWeights, {}, X, skip="save")


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": X.astype("float64")}, "must be float32.*Received: dtype=float64"),
        ({"x": X[:1]}, "at least 2 examples. Received: dtype=float32, shape="),
        ({"x": X[:, 0]}, r"at least 2 examples. Received: .*shape=\(4,\)"),
        ({"context": CONTEXT[:2]}, r"a row for each example. Received: shapes="),
        ({"skip": "jacobian"}, "skip may name only these checks: config, shape"),
        ({"scale": 0.0}, "scale must be .*Received: scale=0"),
        ({"atol": -1.0}, "atol must be .*Received: atol=-1"),
    ],
)
def test_bad_arguments_of_the_check_are_value_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_flow(flows.Affine, {}, **{"x": X, **arguments})
