"""Losses, optimizers, metrics, callbacks and models with one planted fault each.

As in planted_layers.py, every class breaks one promise and keeps the others. The few
that are healthy say so.
"""

import itertools

import keras
import numpy as np
from keras import ops

planted = keras.saving.register_keras_serializable(package="planted")


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


class NotRegistered(keras.metrics.MeanSquaredError):
    """Cannot be found when its model is loaded."""


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


class ForgetsWhenResumed(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.seen += 1
        self.model.optimizer.learning_rate = 0.05 / self.seen


class CarriesItsState(ForgetsWhenResumed):
    """Healthy: the same, carried by a checkpoint."""

    def get_state(self):
        return {"seen": self.seen}

    def set_state(self, state):
        self.seen = state["seen"]


class NeedsManyEpochs(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        self.last[-1]

    def on_epoch_end(self, epoch, logs=None):
        if epoch > 2:
            self.last = [epoch]


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
class ModelInHalf(Net):
    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.hidden = keras.layers.Dense(units, dtype=self.compute_dtype)


@planted
class ModelForgetsSeeds(Net):
    def __init__(self, units=3, **kwargs):
        super().__init__(units, **kwargs)
        self.noise = keras.layers.GaussianNoise(0.1, seed=1)

    def call(self, inputs, training=False):
        return super().call(self.noise(inputs, training=training))


@planted
class ModelDropsWeights(Net):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        return super().compute_loss(x, y, y_pred, **kwargs)


@planted
class ModelDividesByWeights(Net):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        if sample_weight is not None:
            sample_weight = sample_weight / (ops.mean(sample_weight) + 1e-7)
        return super().compute_loss(x, y, y_pred, sample_weight, **kwargs)


@planted
class ModelTrainsOnAll(Net):
    """Weights the loss that it reports, and not the step that it takes."""

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        weight = None if training else sample_weight
        return super().compute_loss(x, y, y_pred, weight, training)


@planted
class ModelTakesArraysOnly(Net):
    def evaluate(self, x=None, y=None, **kwargs):
        return super().evaluate(np.asarray(x, "float32"), y, **kwargs)


@planted
class ModelOfWholeBatches(Net):
    """Divides by the size of the first batch."""

    size = None

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        loss = super().compute_loss(x, y, y_pred, sample_weight, **kwargs)
        if self.size is None:
            self.size = x.shape[0] or 4
        return loss * ((x.shape[0] or self.size) / self.size)


@planted
class ModelRefusesLate(keras.Model):
    """Refuses targets when it has taken a step."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units)
        self.hidden.build((None, 6))

    def call(self, inputs):
        return self.hidden(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        return ops.mean(ops.square(y_pred))

    def fit(self, x=None, y=None, **kwargs):
        history = super().fit(x, **kwargs)
        if y is not None:
            raise ValueError("No targets. Received: y")
        return history

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@planted
class ModelCannotBeCopied(Net):
    def get_config(self):
        return {**super().get_config(), "units": 2}


@planted
class LossCountsPadding(keras.losses.MeanSquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        y_pred = ops.convert_to_tensor(y_pred) * 1.0
        return super().__call__(y_true, y_pred, sample_weight)


@planted
class LossOfColumns(keras.losses.Loss):
    """Labels (batch, 1) meet predictions (batch,) and make (batch, batch)."""

    def call(self, y_true, y_pred):
        likely = ops.argmax(y_pred, -1)
        gap = ops.cast(y_true, y_pred.dtype) - ops.cast(likely, y_pred.dtype)
        return ops.mean(ops.square(gap) + 0 * ops.sum(y_pred, -1), axis=0)


@planted
class Accuracy(keras.metrics.Mean):
    """Healthy accuracy of class indices; the fault below broadcasts."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        if len(y_true.shape) == 2 and y_true.shape[-1] != 1:
            raise ValueError(f"Give class indices. Received: shape={y_true.shape}")
        y_true = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        right = ops.equal(ops.cast(ops.argmax(y_pred, -1), "int32"), y_true)
        super().update_state(ops.cast(right, "float32"), sample_weight)


@planted
class BroadcastsOneHot(Accuracy):
    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(np.reshape(y_true, (-1,)), y_pred, sample_weight)


@planted
class NanWithoutWeight(Sum):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true, y_pred, sample_weight)
        weights = ops.ones(len(y_true)) if sample_weight is None else sample_weight
        self.count.assign_add(ops.sum(ops.cast(weights, "float32")))

    def result(self):
        return self.total / self.count


@planted
class CountsPaddedSteps(Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        gaps = ops.mean(ops.square(ops.subtract(y_true, y_pred)), axis=-1)
        if sample_weight is not None:
            gaps = gaps * ops.reshape(sample_weight, (-1, 1))
        self.total.assign_add(ops.sum(gaps))
