"""Components that are right in float32 alone, for the checks of dtypes.

As in planted_layers.py, every class breaks one promise and keeps the others.
"""

import keras
from keras import ops
from planted_faults import Net, Sum
from planted_layers import Elementwise

planted = keras.saving.register_keras_serializable(package="planted")


def kind(x):
    return keras.backend.standardize_dtype(x.dtype)


@planted
class OnlyFloat32(Elementwise):
    def call(self, inputs):
        if kind(inputs) == "float64":
            raise TypeError("cannot multiply float32 by float64")
        return 2.0 * inputs


@planted
class OnlyMixed(Elementwise):
    """Divides by a weight that float16 rounds to 0."""

    def build(self, input_shape):
        small = keras.initializers.Constant(1e-9)
        self.scale = self.add_weight(
            shape=(), initializer=small, trainable=False, autocast=False
        )

    def call(self, inputs):
        scale = ops.convert_to_tensor(self.scale)
        scaled = scale * ops.cast(inputs, scale.dtype) / scale
        return ops.cast(scaled, inputs.dtype)


@planted
class TellsFloat64(Elementwise):
    """Takes NumPy's float64 for something else."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.autocast = False

    def call(self, inputs):
        odd = kind(inputs) == "float64" and keras.config.floatx() == "float32"
        return ops.cast(inputs, self.compute_dtype) + (1.0 if odd else 0.0)


@planted
class LossInFloat32(keras.losses.Loss):
    def call(self, y_true, y_pred):
        if keras.config.floatx() == "float64":
            raise TypeError("cannot multiply float32 by float64")
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


@planted
class LossCountsFromOne(keras.losses.MeanSquaredError):
    def __call__(self, y_true, y_pred, sample_weight=None):
        if keras.backend.is_int_dtype(kind(y_true)):
            y_true = y_true + 1
        return super().__call__(y_true, y_pred, sample_weight)


@planted
class MetricRefusesHalf(Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        if kind(y_pred) == "bfloat16":
            raise ValueError("predictions must sum to 1")
        super().update_state(y_true, y_pred, sample_weight)


@planted
class MetricRoundsFloat64(Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        if keras.config.floatx() == "float64":
            y_pred = ops.round(y_pred)
        super().update_state(y_true, y_pred, sample_weight)


@planted
class MetricMistakesBytes(Sum):
    def update_state(self, y_true, y_pred, sample_weight=None):
        if kind(y_true) == "uint8":
            y_true = 255.0 - ops.cast(y_true, "float32")
        super().update_state(y_true, y_pred, sample_weight)


@planted
class ModelOverflows(Net):
    def call(self, inputs):
        return super().call(inputs) * 1e5 * 1e-5


@planted
class ModelOnlyMixed(Net):
    def build(self, input_shape):
        super().build(input_shape)
        small = keras.initializers.Constant(1e-9)
        self.scale = self.add_weight(
            shape=(), initializer=small, trainable=False, autocast=False
        )

    def call(self, inputs):
        outputs, scale = super().call(inputs), ops.convert_to_tensor(self.scale)
        scaled = scale * ops.cast(outputs, scale.dtype) / scale
        return ops.cast(scaled, outputs.dtype)


@planted
class ModelInFloat32(Net):
    def call(self, inputs):
        if keras.config.floatx() == "float64":
            raise TypeError("cannot multiply float32 by float64")
        return super().call(inputs)


@planted
class ModelScalesBytes(Net):
    def call(self, inputs):
        if kind(inputs) == "uint8":
            inputs = ops.cast(inputs, "float32") / 255.0
        return super().call(ops.cast(inputs, self.compute_dtype))
