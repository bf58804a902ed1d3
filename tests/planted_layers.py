"""Layers with one planted fault each, for the tests of dlcompanion.testing.

Every class breaks one promise and keeps the others, so that a check that names
another promise is a check that is wrong. The last two are healthy.
"""

import keras
import numpy as np
from keras import ops

from dlcompanion.training import SavesSeeds

planted = keras.saving.register_keras_serializable(package="planted")


class Elementwise(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

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
class DropsMask(Elementwise):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = False

    def call(self, inputs):
        return 2.0 * inputs


@planted
class ForgetsMask(Elementwise):
    def call(self, inputs):
        return 2.0 * inputs

    def compute_mask(self, inputs, previous_mask):
        return None


@planted
class AddsPadding(Elementwise):
    def call(self, inputs):
        self.add_loss(ops.mean(ops.square(inputs)))
        return 2.0 * inputs


@planted
class LearnsPadding(Elementwise):
    def build(self, input_shape):
        self.mean = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        outputs = inputs - self.mean
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(inputs))
        return outputs


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
class FindsItsSize(Elementwise):
    """Grows when it is adapted, which its config forgets and its file keeps."""

    size = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if "name" not in kwargs:
            self.size = 5

    def build(self, input_shape):
        self.knots = self.add_weight(shape=(self.size,), trainable=False)

    def get_build_config(self):
        return {"size": self.size}

    def build_from_config(self, config):
        self.size = config["size"]
        self.build(None)

    def call(self, inputs):
        return inputs + ops.sum(self.knots)


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
class LearnsWhenFrozen(Elementwise):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs, training=False):
        if training:
            self.scale.assign(0.9 * self.scale)
        return inputs * self.scale


@planted
class BranchesOnValues(Elementwise):
    def call(self, inputs):
        highest = ops.convert_to_numpy(ops.max(inputs))
        return inputs if highest > 0 else -inputs


@planted
class SavedDropout(SavesSeeds, keras.layers.Dropout):
    pass


@planted
class AlwaysDrops(SavedDropout):
    """Noise in inference too, as Bayesian layers have it."""

    def call(self, inputs, training=False):
        return super().call(inputs, training=True)
