"""Tests of dlcompanion.testing: planted faults are named, healthy things pass."""

import ast
from pathlib import Path

import keras
import numpy as np
import planted_faults as faults
import planted_layers as layers
import pytest

import dlcompanion.testing
from dlcompanion.testing import (
    ConformanceError,
    check_callback,
    check_layer,
    check_loss,
    check_metric,
    check_model,
    check_optimizer,
    check_schedule,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype("float32")
SEQUENCE = RNG.normal(size=(3, 4, 2)).astype("float32")
WIDE = RNG.normal(size=(3, 64)).astype("float32")
Y = RNG.normal(size=(6, 3)).astype("float32")
P = RNG.normal(size=(6, 3)).astype("float32")
HOT = np.eye(3, dtype="float32")[np.arange(6) % 3]
CHANCES = np.exp(P) / np.exp(P).sum(-1, keepdims=True)


# --- layers with one fault each -------------------------------------------------


LAYERS = [
    (layers.WrongShape, {}, X, "shape"),
    (layers.LosesArgument, {"factor": 2.0}, X, "config"),
    (layers.ChangesArgument, {"factor": 2.0}, X, "config"),
    (layers.WeightInCall, {}, X, "build"),
    (layers.IgnoresMask, {}, SEQUENCE, "mask"),
    (layers.DropsMask, {}, SEQUENCE, "mask"),
    (layers.DropsMask, {}, X, "mask"),
    (layers.ForgetsMask, {}, X, "mask"),
    (layers.AddsPadding, {}, X, "mask"),
    (layers.LearnsPadding, {}, SEQUENCE, "mask"),
    (layers.Overflows, {}, WIDE, "float16"),
    (layers.UnseededNoise, {}, X, "seed"),
    (layers.FrozenNoise, {}, X, "seed"),
    (keras.layers.Dropout, {"rate": 0.5, "seed": 1}, X, "reload"),
    (layers.CutsGradient, {}, X, "gradient"),
    (layers.WrongDerivative, {}, X, "gradient"),
    (layers.InfiniteGradient, {}, X, "gradient"),
    (layers.LosesState, {}, X, "reload"),
    (layers.FindsItsSize, {}, X, "clone"),
    (layers.MixesBatch, {}, X, "batch"),
    (layers.MixesBatchInTraining, {}, X, "batch"),
    (layers.RemembersBatchSize, {}, X, "dynamic"),
    (layers.HalfWeights, {}, X, "float16"),
    (layers.LeavesHalf, {}, X, "float16"),
    (layers.NeverFrozen, {"units": 2}, X, "freeze"),
    (layers.LearnsWhenFrozen, {}, X, "freeze"),
]


@pytest.mark.parametrize(
    "layer_class, kwargs, x, check", LAYERS, ids=lambda v: getattr(v, "__name__", None)
)
def test_layer_fault_is_named(layer_class, kwargs, x, check):
    with pytest.raises(ConformanceError) as caught:
        check_layer(layer_class, kwargs, x)
    assert caught.value.check == check
    message = str(caught.value)
    assert message.startswith(f"layer {layer_class.__name__} fails the check {check!r}")
    assert "\nExpected: " in message
    assert "\nReceived: " in message
    assert "\nRemedy: " in message


def test_branch_on_values_is_named_where_calls_are_compiled(backend):
    if backend == "torch":  # eager: a branch on values is allowed
        check_layer(layers.BranchesOnValues, {}, X)
        return
    with pytest.raises(ConformanceError) as caught:
        check_layer(layers.BranchesOnValues, {}, X)
    assert caught.value.check == "jit"


# --- losses, optimizers, schedules, metrics, callbacks, models ------------------


LOSSES = [
    (faults.IgnoresSampleWeight, Y, P, "sample_weight"),
    (faults.ReducesTooMuch, Y, P, "sample_weight"),
    (faults.IgnoresReduction, Y, P, "reduction"),
    (faults.BareLogarithm, HOT, CHANCES, "finite"),
    (faults.HalfLoss, Y, P, "dtype"),
    (faults.LossLosesArgument, Y, P, "config"),
    (faults.LossCutsGradient, Y, P, "gradient"),
]


@pytest.mark.once
@pytest.mark.parametrize("loss_class, y_true, y_pred, check", LOSSES)
def test_loss_fault_is_named(loss_class, y_true, y_pred, check):
    with pytest.raises(ConformanceError) as caught:
        check_loss(loss_class, {}, y_true, y_pred)
    assert caught.value.check == check


LABELS = np.arange(6, dtype="int32") % 3
STEPS = RNG.normal(size=(6, 4, 3)).astype("float32")


@pytest.mark.parametrize(
    "loss_class, y_true, y_pred, check",
    [
        (faults.LossCountsPadding, STEPS, 2 * STEPS, "mask"),
        (faults.LossCountsPadding, Y, P, "mask"),
        (faults.LossOfColumns, LABELS, P, "labels"),
    ],
)
def test_loss_fault_with_data_is_named(loss_class, y_true, y_pred, check):
    skip = ["shape", "reduction", "sample_weight", "gradient", "jit", "reload"]
    with pytest.raises(ConformanceError) as caught:
        check_loss(loss_class, {}, y_true, y_pred, skip=skip)
    assert caught.value.check == check


@pytest.mark.parametrize(
    "metric_class, y_true, y_pred, check",
    [
        (faults.NanWithoutWeight, Y, P, "no_weight"),
        (faults.CountsPaddedSteps, STEPS, 2 * STEPS, "mask"),
        (faults.BroadcastsOneHot, LABELS, P, "labels"),
    ],
)
def test_metric_fault_with_data_is_named(metric_class, y_true, y_pred, check):
    with pytest.raises(ConformanceError) as caught:
        check_metric(metric_class, {}, y_true, y_pred, skip=["jit", "reload"])
    assert caught.value.check == check


@pytest.mark.once
@pytest.mark.parametrize(
    "optimizer_class, check",
    [
        (faults.SlotNotSaved, "slots"),
        (faults.Ascends, "solves"),
        (faults.IgnoresSchedule, "schedule"),
        (faults.OptimizerLosesArgument, "config"),
        (faults.NeedsEveryGradient, "no_gradient"),
    ],
)
def test_optimizer_fault_is_named(optimizer_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_optimizer(optimizer_class, {"learning_rate": 0.1})
    assert caught.value.check == check


def test_schedule_fault_is_named(backend):
    with pytest.raises(ConformanceError) as caught:
        check_schedule(faults.FallsBelowZero, {})
    assert caught.value.check == "finite"
    if backend != "torch":
        with pytest.raises(ConformanceError) as caught:
            check_schedule(faults.BranchesOnStep, {})
        assert caught.value.check == "jit"


@pytest.mark.once
@pytest.mark.parametrize(
    "metric_class, check",
    [
        (faults.NeverResets, "reset"),
        (faults.MeanOfMeans, "pieces"),
        (faults.MetricIgnoresWeight, "sample_weight"),
        (faults.NotRegistered, "config"),
    ],
)
def test_metric_fault_is_named(metric_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_metric(metric_class, {}, Y, P)
    assert caught.value.check == check


@pytest.mark.once
@pytest.mark.parametrize(
    "callback_class, check",
    [
        (faults.KeepsState, "state"),
        (faults.KeepsStateOnTheClass, "shared"),
        (faults.NeedsManyEpochs, "runs"),
        (faults.ForgetsWhenResumed, "resume"),
    ],
)
def test_callback_fault_is_named(callback_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_callback(callback_class, {})
    assert caught.value.check == check


@pytest.mark.parametrize(
    "model_class, check",
    [
        (faults.TrainsHalf, "fit"),
        (faults.ModelMixesBatch, "batch"),
        (faults.ModelLosesArgument, "config"),
        (faults.ModelForgetsSeeds, "reload"),
        (faults.ModelInHalf, "bfloat16"),
    ],
)
def test_model_fault_is_named(model_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_model(model_class, {"units": 4}, X, X[:, :1])
    assert caught.value.check == check


OF_DATA = ["config", "fit", "predict", "batch", "freeze", "reload", "bfloat16"]


@pytest.mark.parametrize(
    "model_class, y, check",
    [
        (faults.ModelDropsWeights, X[:, :1], "sample_weight"),
        (faults.ModelDividesByWeights, X[:, :1], "sample_weight"),
        (faults.ModelTrainsOnAll, X[:, :1], "sample_weight"),
        (faults.ModelTakesArraysOnly, X[:, :1], "data"),
        (faults.ModelOfWholeBatches, X[:, :1], "data"),
        (faults.ModelRefusesLate, None, "refusal"),
        (faults.ModelCannotBeCopied, X[:, :1], "clone"),
    ],
)
def test_model_fault_with_data_is_named(model_class, y, check):
    skip = [*OF_DATA, *(["sample_weight"] if y is None else [])]
    with pytest.raises(ConformanceError) as caught:
        check_model(model_class, {"units": 4}, X, y, skip=skip)
    assert caught.value.check == check


def test_what_fit_must_refuse_is_named():
    bad = [{"x": X, "y": X[:2, :1]}]  # Keras itself counts rows
    settings = {"skip": [*OF_DATA, "sample_weight", "data", "clone"]}
    with pytest.raises(ConformanceError, match="says what was received"):
        check_model(faults.Net, {"units": 4}, X, X[:, :1], refuses=bad, **settings)
    bad = [{"x": X, "y": np.nan * X[:, :1]}]
    with pytest.raises(ConformanceError, match="fit refuses these data"):
        check_model(faults.Net, {"units": 4}, X, X[:, :1], refuses=bad, **settings)


# --- no false alarm -------------------------------------------------------------


@pytest.mark.parametrize(
    "layer_class, kwargs, x, options",
    [
        (keras.layers.Dense, {"units": 2, "activation": "gelu"}, X, {}),
        (layers.SavedDropout, {"rate": 0.5, "seed": 1}, X, {"output_shape": X.shape}),
        (layers.AlwaysDrops, {"rate": 0.5, "seed": 1}, X, {}),
        (
            keras.layers.BatchNormalization,
            {},
            X,
            {"batch_independent": "inference"},
        ),
        (keras.layers.LayerNormalization, {}, X, {}),
        (
            keras.layers.SimpleRNN,
            # Keras's orthogonal initializer makes no bfloat16 on TensorFlow
            {"units": 2, "recurrent_initializer": "glorot_uniform"},
            SEQUENCE,
            {"output_shape": (3, 2)},
        ),
        (keras.layers.GlobalAveragePooling1D, {}, SEQUENCE, {}),
        (keras.layers.Conv1D, {"filters": 2, "kernel_size": 2}, SEQUENCE, {}),
        (
            keras.layers.Embedding,
            {"input_dim": 5, "output_dim": 2},
            np.arange(8, dtype="int32").reshape(4, 2) % 5,
            {},
        ),
        (
            keras.layers.MultiHeadAttention,
            {"num_heads": 2, "key_dim": 2},
            {"query": SEQUENCE, "value": SEQUENCE + 1},
            {"output_shape": SEQUENCE.shape},
        ),
        (keras.layers.Concatenate, {}, [X, X], {"output_shape": (4, 12)}),
    ],
)
def test_healthy_layer_passes(layer_class, kwargs, x, options):
    check_layer(layer_class, kwargs, x, **options)


@pytest.mark.parametrize(
    "loss_class, kwargs, y_true, y_pred",
    [
        (keras.losses.MeanSquaredError, {}, Y, P),
        (keras.losses.MeanAbsoluteError, {"reduction": "sum"}, Y, P),
        (keras.losses.BinaryCrossentropy, {"from_logits": True}, HOT, P),
        (keras.losses.CategoricalCrossentropy, {}, HOT, CHANCES),
        (
            keras.losses.SparseCategoricalCrossentropy,
            {"from_logits": True},
            np.arange(6) % 3,
            P,
        ),
    ],
)
def test_healthy_loss_passes(loss_class, kwargs, y_true, y_pred):
    check_loss(loss_class, kwargs, y_true, y_pred)


@pytest.mark.parametrize(
    "optimizer_class, kwargs",
    [
        (keras.optimizers.Adam, {"learning_rate": 0.01}),
        (keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9}),
        (keras.optimizers.AdamW, {"learning_rate": 0.01, "use_ema": True}),
    ],
)
def test_healthy_optimizer_passes(optimizer_class, kwargs):
    check_optimizer(optimizer_class, kwargs)


def test_healthy_schedule_passes():
    cosine = {"initial_learning_rate": 0.1, "decay_steps": 500}
    check_schedule(keras.optimizers.schedules.CosineDecay, cosine)


@pytest.mark.parametrize(
    "metric_class, y_true, y_pred",
    [
        (keras.metrics.MeanSquaredError, Y, P),
        (keras.metrics.SparseCategoricalAccuracy, np.arange(6) % 3, P),
        (faults.Healthy, Y, P),
        (faults.Accuracy, LABELS, P),
        (keras.metrics.MeanSquaredError, STEPS, 2 * STEPS),
    ],
)
def test_healthy_metric_passes(metric_class, y_true, y_pred):
    check_metric(metric_class, {}, y_true, y_pred)


@pytest.mark.parametrize(
    "callback_class, kwargs",
    [
        (keras.callbacks.EarlyStopping, {"restore_best_weights": True}),
        (keras.callbacks.ReduceLROnPlateau, {"patience": 1}),
        (faults.CarriesItsState, {}),
    ],
)
def test_healthy_callback_passes(callback_class, kwargs):
    check_callback(callback_class, kwargs)


def test_healthy_model_passes():
    check_model(faults.Net, {"units": 4}, X, X[:, :1], output_shape=(4, 1), export=True)


# --- the checks themselves ------------------------------------------------------


def test_an_exception_of_the_component_is_named():
    class Raises(keras.layers.Layer):
        def call(self, inputs):
            raise RuntimeError("not today")

    with pytest.raises(ConformanceError, match="not today") as caught:
        check_layer(Raises, {}, X, skip=("config",))
    assert caught.value.check == "build"
    assert caught.value.component == "layer Raises"


def test_a_check_can_be_left_out():
    check_layer(keras.layers.Dropout, {"rate": 0.5, "seed": 1}, X, skip=("reload",))


@pytest.mark.once
def test_what_is_left_out_does_not_take_others_along():
    with pytest.raises(ConformanceError) as caught:
        check_layer(layers.LosesState, {}, X, skip=("jit", "gradient"))
    assert caught.value.check == "reload"
    with pytest.raises(ConformanceError) as caught:
        check_optimizer(faults.SlotNotSaved, {"learning_rate": 0.1}, skip="jit")
    assert caught.value.check == "slots"


def test_a_layer_for_inference_only_is_saved_but_not_trained():
    check_layer(keras.layers.BatchNormalization, {}, X, training=False)


def test_a_wrong_expected_shape_is_refused():
    with pytest.raises(ConformanceError) as caught:
        check_layer(keras.layers.Dense, {"units": 2}, X, output_shape=(4, 3))
    assert caught.value.check == "shape"


@pytest.mark.once
@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"skip": ("grad",)}, "skip may name only"),
        ({"inputs": X.astype("float64")}, "must not be float64"),
        ({"inputs": X[:1]}, "at least 2 examples"),
        ({"batch_independent": "yes"}, "batch_independent must be"),
    ],
)
def test_bad_arguments_of_the_check_are_value_errors(kwargs, message):
    kwargs = {"inputs": X, **kwargs}
    with pytest.raises(ValueError, match=message):
        check_layer(keras.layers.Dense, {"units": 2}, **kwargs)


def test_needs_no_test_runner():
    for path in Path(dlcompanion.testing.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not any(n.split(".")[0] in ("pytest", "absl") for n in names)
