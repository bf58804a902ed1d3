"""Tests of dlcompanion.testing: planted faults are named, healthy things pass."""

import ast
import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

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
from dlcompanion.training import SavesSeeds

planted = keras.saving.register_keras_serializable(package="planted")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6)).astype("float32")
SEQUENCE = RNG.normal(size=(3, 4, 2)).astype("float32")
WIDE = RNG.normal(size=(3, 64)).astype("float32")
Y = RNG.normal(size=(6, 3)).astype("float32")
P = RNG.normal(size=(6, 3)).astype("float32")
HOT = np.eye(3, dtype="float32")[np.arange(6) % 3]
CHANCES = np.exp(P) / np.exp(P).sum(-1, keepdims=True)


# --- layers with one fault each -------------------------------------------------


class Elementwise(keras.layers.Layer):
    def compute_output_shape(self, input_shape):
        return input_shape


@planted
class WrongShape(Elementwise):
    def call(self, inputs):
        return inputs[:, :-1]


@planted
class LosesArgument(Elementwise):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {"name": self.name}


@planted
class ChangesArgument(LosesArgument):
    def get_config(self):
        return {"name": self.name, "factor": 1.0}


@planted
class WeightInCall(Elementwise):
    weight = None

    def call(self, inputs):
        if self.weight is None:
            self.weight = self.add_weight(shape=(inputs.shape[-1],))
        return inputs * self.weight


@planted
class IgnoresMask(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return ops.mean(inputs, axis=1)


@planted
class Overflows(Elementwise):
    def call(self, inputs):
        total = ops.sum(ops.square(inputs), axis=-1, keepdims=True)
        return inputs / ops.sqrt(total + 1e-3)


@planted
class UnseededNoise(Elementwise):
    def call(self, inputs, training=False):
        if training:
            noise = np.random.default_rng().normal(size=inputs.shape[1:])
            inputs = inputs + ops.cast(ops.convert_to_tensor(noise), inputs.dtype)
        return inputs


@planted
class FrozenNoise(Elementwise):
    def __init__(self, seed=3, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed

    def call(self, inputs, training=False):
        shape = ops.shape(inputs)
        noise = keras.random.normal(shape, dtype=inputs.dtype, seed=self.seed)
        return inputs + noise if training else inputs

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@planted
class CutsGradient(Elementwise):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")
        self.shift = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * ops.stop_gradient(self.scale) + self.shift


@planted
class WrongDerivative(Elementwise):
    def call(self, inputs):
        return inputs * ops.stop_gradient(ops.tanh(inputs))


@planted
class InfiniteGradient(Elementwise):
    def call(self, inputs):
        return inputs + ops.sqrt(inputs - inputs)


@planted
class LosesState(Elementwise):
    def build(self, input_shape):
        self.mean = self.add_weight(
            shape=(input_shape[-1],), initializer="zeros", trainable=False
        )

    def call(self, inputs, training=False):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1)
        return inputs - self.mean

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


@planted
class MixesBatch(Elementwise):
    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=0, keepdims=True)


@planted
class MixesBatchInTraining(Elementwise):
    def call(self, inputs, training=False):
        if training:
            inputs = inputs - ops.mean(inputs, axis=0, keepdims=True)
        return inputs


@planted
class RemembersBatchSize(Elementwise):
    size = None

    def call(self, inputs):
        if self.size is None:
            self.size = inputs.shape[0]
        return inputs * (inputs.shape[0] or self.size) / self.size


@planted
class HalfWeights(Elementwise):
    def build(self, input_shape):
        dtype = self.compute_dtype
        self.scale = self.add_weight(shape=(), initializer="ones", dtype=dtype)

    def call(self, inputs):
        return inputs * ops.cast(self.scale, inputs.dtype)


@planted
class LeavesHalf(Elementwise):
    def call(self, inputs):
        return ops.cast(inputs, "float32") * 2.0


@planted
class NeverFrozen(keras.layers.Dense):
    @property
    def trainable_variables(self):
        return self.variables


@planted
class BranchesOnValues(Elementwise):
    def call(self, inputs):
        highest = ops.convert_to_numpy(ops.max(inputs))
        return inputs if highest > 0 else -inputs


LAYERS = [
    (WrongShape, {}, X, "shape"),
    (LosesArgument, {"factor": 2.0}, X, "config"),
    (ChangesArgument, {"factor": 2.0}, X, "config"),
    (WeightInCall, {}, X, "build"),
    (IgnoresMask, {}, SEQUENCE, "mask"),
    (Overflows, {}, WIDE, "float16"),
    (UnseededNoise, {}, X, "seed"),
    (FrozenNoise, {}, X, "seed"),
    (keras.layers.Dropout, {"rate": 0.5, "seed": 1}, X, "reload"),
    (CutsGradient, {}, X, "gradient"),
    (WrongDerivative, {}, X, "gradient"),
    (InfiniteGradient, {}, X, "gradient"),
    (LosesState, {}, X, "reload"),
    (MixesBatch, {}, X, "batch"),
    (MixesBatchInTraining, {}, X, "batch"),
    (RemembersBatchSize, {}, X, "dynamic"),
    (HalfWeights, {}, X, "float16"),
    (LeavesHalf, {}, X, "float16"),
    (NeverFrozen, {"units": 2}, X, "freeze"),
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
        check_layer(BranchesOnValues, {}, X)
        return
    with pytest.raises(ConformanceError) as caught:
        check_layer(BranchesOnValues, {}, X)
    assert caught.value.check == "jit"


# --- losses, optimizers, schedules, metrics, callbacks, models ------------------


@planted
class IgnoresSampleWeight(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        return super().__call__(y_true, y_pred)


@planted
class ReducesTooMuch(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred))


@planted
class IgnoresReduction(keras.losses.MeanSquaredError):
    def __init__(self, reduction="sum", **kwargs):
        super().__init__(reduction="sum_over_batch_size", **kwargs)

    def get_config(self):
        return {**super().get_config(), "reduction": "sum"}


@planted
class BareLogarithm(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return -ops.sum(y_true * ops.log(y_pred), axis=-1)


@planted
class HalfLoss(keras.losses.MeanSquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        if keras.backend.standardize_dtype(y_pred.dtype) == "float16":
            value = ops.mean(ops.square(y_pred - ops.cast(y_true, "float16")))
            return ops.cast(value, "float16")
        return super().__call__(y_true, y_pred, sample_weight)


@planted
class LossLosesArgument(IgnoresSampleWeight):
    def __init__(self, margin=1.0, **kwargs):
        super().__init__(**kwargs)


@planted
class LossCutsGradient(keras.losses.MeanSquaredError):
    def call(self, y_true, y_pred):
        return super().call(y_true, ops.stop_gradient(y_pred))


LOSSES = [
    (IgnoresSampleWeight, Y, P, "sample_weight"),
    (ReducesTooMuch, Y, P, "sample_weight"),
    (IgnoresReduction, Y, P, "reduction"),
    (BareLogarithm, HOT, CHANCES, "finite"),
    (HalfLoss, Y, P, "dtype"),
    (LossLosesArgument, Y, P, "config"),
    (LossCutsGradient, Y, P, "gradient"),
]


@pytest.mark.parametrize("loss_class, y_true, y_pred, check", LOSSES)
def test_loss_fault_is_named(loss_class, y_true, y_pred, check):
    with pytest.raises(ConformanceError) as caught:
        check_loss(loss_class, {}, y_true, y_pred)
    assert caught.value.check == check


@planted
class SlotNotSaved(keras.optimizers.Adam):
    def load_own_variables(self, store):
        pass


@planted
class Ascends(keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(-gradient, variable, learning_rate)


@planted
class IgnoresSchedule(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, **kwargs):
        super().__init__(learning_rate=0.1, **kwargs)


@planted
class OptimizerLosesArgument(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, sharpness=2.0, **kwargs):
        super().__init__(learning_rate, **kwargs)


@planted
class NeedsEveryGradient(keras.optimizers.SGD):
    def apply(self, grads, trainable_variables=None):
        grads = [ops.multiply(g, 1.0) for g in grads]
        return super().apply(grads, trainable_variables)


@pytest.mark.parametrize(
    "optimizer_class, check",
    [
        (SlotNotSaved, "slots"),
        (Ascends, "solves"),
        (IgnoresSchedule, "schedule"),
        (OptimizerLosesArgument, "config"),
        (NeedsEveryGradient, "no_gradient"),
    ],
)
def test_optimizer_fault_is_named(optimizer_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_optimizer(optimizer_class, {"learning_rate": 0.1})
    assert caught.value.check == check


@planted
class FallsBelowZero(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 - 0.001 * ops.cast(step, "float32")

    def get_config(self):
        return {}


@planted
class BranchesOnStep(FallsBelowZero):
    def __call__(self, step):
        return 0.1 if int(ops.convert_to_numpy(step)) < 2 else 0.01


def test_schedule_fault_is_named(backend):
    with pytest.raises(ConformanceError) as caught:
        check_schedule(FallsBelowZero, {})
    assert caught.value.check == "finite"
    if backend != "torch":
        with pytest.raises(ConformanceError) as caught:
            check_schedule(BranchesOnStep, {})
        assert caught.value.check == "jit"


class Sum(keras.metrics.Metric):
    """Healthy sum of weighted squares; the faults below each spoil one method."""

    def __init__(self, name="total", **kwargs):
        super().__init__(name=name, **kwargs)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.mean(ops.square(ops.subtract(y_true, y_pred)), axis=-1)
        if sample_weight is not None:
            values = ops.multiply(values, sample_weight)
        self.total.assign_add(ops.sum(values))

    def result(self):
        return ops.convert_to_tensor(self.total)


Healthy = planted(type("Healthy", (Sum,), {}))


@planted
class NeverResets(Sum):
    def reset_state(self):
        pass


@planted
class MeanOfMeans(Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        values = ops.square(ops.subtract(y_true, y_pred))
        self.total.assign(0.5 * self.total + 0.5 * ops.mean(values))


@planted
class MetricIgnoresWeight(Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred)


@pytest.mark.parametrize(
    "metric_class, check",
    [
        (NeverResets, "reset"),
        (MeanOfMeans, "pieces"),
        (MetricIgnoresWeight, "sample_weight"),
    ],
)
def test_metric_fault_is_named(metric_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_metric(metric_class, {}, Y, P)
    assert caught.value.check == check


class KeepsState(keras.callbacks.Callback):
    """Lowers the rate each epoch, and counts on from the fit before."""

    def __init__(self):
        super().__init__()
        self.epochs = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1
        self.model.optimizer.learning_rate = 0.05 / self.epochs


class KeepsStateOnTheClass(keras.callbacks.Callback):
    made = itertools.count(1)

    def __init__(self):
        super().__init__()
        self.rate = 0.05 / next(self.made)

    def on_train_begin(self, logs=None):
        self.model.optimizer.learning_rate = self.rate


class NeedsManyEpochs(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        self.last[-1]

    def on_epoch_end(self, epoch, logs=None):
        if epoch > 2:
            self.last = [epoch]


@pytest.mark.parametrize(
    "callback_class, check",
    [
        (KeepsState, "state"),
        (KeepsStateOnTheClass, "shared"),
        (NeedsManyEpochs, "runs"),
    ],
)
def test_callback_fault_is_named(callback_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_callback(callback_class, {})
    assert caught.value.check == check


@planted
class Net(keras.Model):
    """Healthy; the faults below each spoil one thing."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.head = keras.layers.Dense(1)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.head.build((None, self.units))

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@planted
class TrainsHalf(Net):
    def call(self, inputs):
        return self.head(ops.stop_gradient(self.hidden(inputs)))


@planted
class ModelMixesBatch(Net):
    def call(self, inputs):
        return super().call(inputs - ops.mean(inputs, axis=0))


@planted
class ModelLosesArgument(Net):
    def get_config(self):
        return {"name": self.name}

    def load_own_variables(self, store):
        self.hidden.kernel.assign(ops.zeros_like(self.hidden.kernel))

    def save_own_variables(self, store):
        store["0"] = np.zeros(1)

    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.noise = keras.layers.GaussianNoise(0.1, seed=1)

    def call(self, inputs, training=False):
        return super().call(self.noise(inputs, training=training))


@planted
class ModelForgetsSeeds(Net):
    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.noise = keras.layers.GaussianNoise(0.1, seed=1)

    def call(self, inputs, training=False):
        return super().call(self.noise(inputs, training=training))


@pytest.mark.parametrize(
    "model_class, check",
    [
        (TrainsHalf, "fit"),
        (ModelMixesBatch, "batch"),
        (ModelLosesArgument, "config"),
        (ModelForgetsSeeds, "reload"),
    ],
)
def test_model_fault_is_named(model_class, check):
    with pytest.raises(ConformanceError) as caught:
        check_model(model_class, {"units": 4}, X, X[:, :1])
    assert caught.value.check == check

    # --- no false alarm -------------------------------------------------------------

    pass


@planted
class SavedDropout(SavesSeeds, keras.layers.Dropout):
    pass


@pytest.mark.parametrize(
    "layer_class, kwargs, x, options",
    [
        (keras.layers.Dense, {"units": 2, "activation": "gelu"}, X, {}),
        (SavedDropout, {"rate": 0.5, "seed": 1}, X, {"output_shape": X.shape}),
        (
            keras.layers.BatchNormalization,
            {},
            X,
            {"batch_independent": "inference"},
        ),
        (keras.layers.LayerNormalization, {}, X, {}),
        (keras.layers.SimpleRNN, {"units": 2}, SEQUENCE, {"output_shape": (3, 2)}),
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
        (Healthy, Y, P),
    ],
)
def test_healthy_metric_passes(metric_class, y_true, y_pred):
    check_metric(metric_class, {}, y_true, y_pred)


@pytest.mark.parametrize(
    "callback_class, kwargs",
    [
        (keras.callbacks.EarlyStopping, {"restore_best_weights": True}),
        (keras.callbacks.ReduceLROnPlateau, {"patience": 1}),
    ],
)
def test_healthy_callback_passes(callback_class, kwargs):
    check_callback(callback_class, kwargs)


def test_healthy_model_passes():
    check_model(Net, {"units": 4}, X, X[:, :1], output_shape=(4, 1), export=True)


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


def test_a_wrong_expected_shape_is_refused():
    with pytest.raises(ConformanceError) as caught:
        check_layer(keras.layers.Dense, {"units": 2}, X, output_shape=(4, 3))
    assert caught.value.check == "shape"


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
