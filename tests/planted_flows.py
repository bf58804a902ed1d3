"""Flows with one planted fault each, for the tests of check_flow.

As in planted_layers.py, every class breaks one promise and keeps the others. The few
that are healthy say so.
"""

import math

import keras
from keras import ops

planted = keras.saving.register_keras_serializable(package="planted")


@planted
class Affine(keras.layers.Layer):
    """Healthy: y = x exp(s) + t, and t sees the context; the faults spoil one thing."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, x_shape, context_shape=None):
        shape = (x_shape[-1],)
        self.log_scale = self.add_weight(shape, "zeros", name="log_scale")
        self.shift = self.add_weight(shape, "zeros", name="shift")
        self.network = keras.layers.Dense(x_shape[-1])
        if context_shape is not None:
            self.network.build(context_shape)

    def call(self, x, inverse=False, context=None):
        s, t = self.parameters(context)
        log_det = self.log_det(x, -s if inverse else s, inverse)
        return self.back(x, s, t) if inverse else x * ops.exp(s) + t, log_det

    def parameters(self, context):
        shift = ops.convert_to_tensor(self.shift)
        if context is not None:
            shift = shift + self.network(context)
        return self.factor * self.log_scale, shift

    def back(self, y, s, t):
        return (y - t) * ops.exp(-s)

    def log_det(self, x, s, inverse):
        places = math.prod(x.shape[1:-1])
        return places * ops.sum(s) + 0.0 * ops.sum(x, tuple(range(1, len(x.shape))))

    def compute_output_shape(self, x_shape, context_shape=None):
        return x_shape, x_shape[:1]

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


# --- of layers ------------------------------------------------------------------


@planted
class LosesFactor(Affine):
    def get_config(self):
        return {"name": self.name}


@planted
class ChangesFactor(Affine):
    def get_config(self):
        return {"name": self.name, "factor": 1.0}


@planted
class OneLogDetForAll(Affine):
    def log_det(self, x, s, inverse):
        return ops.sum(s)


@planted
class InverseIsNaN(Affine):
    def back(self, y, s, t):
        return super().back(y, s, t) + ops.sqrt(-1.0 - ops.square(y))


@planted
class InverseIsOff(Affine):
    def back(self, y, s, t):
        return super().back(y, s, t) + 1e-4


@planted
class InverseForgetsContext(Affine):
    def back(self, y, s, t):
        return super().back(y, s, self.shift)


@planted
class SameSignBothWays(Affine):
    def log_det(self, x, s, inverse):
        return super().log_det(x, -s if inverse else s, inverse)


@planted
class WrongSign(Affine):
    def log_det(self, x, s, inverse):
        return -super().log_det(x, s, inverse)


@planted
class ForgetsPlaces(Affine):
    def log_det(self, x, s, inverse):
        return ops.sum(s) + 0.0 * ops.sum(x, tuple(range(1, len(x.shape))))


@planted
class ForgetsOneVariable(Affine):
    def log_det(self, x, s, inverse):
        return super().log_det(x, s[1:], inverse)


@planted
class MapCutsGradient(Affine):
    def call(self, x, inverse=False, context=None):
        if not inverse:
            x = 0.5 * x + 0.5 * ops.stop_gradient(x)
        return super().call(x, inverse, context)


@planted
class MixesRows(Affine):
    def parameters(self, context):
        s, t = super().parameters(context)
        return s, t + ops.mean(self.network(context), axis=0)


@planted
class IgnoresContext(Affine):
    def parameters(self, context):
        return super().parameters(0.0 * context)


@planted
class SeesContextOfSome(Affine):
    def parameters(self, context):
        return super().parameters(ops.relu(context))


@planted
class WeightWithoutGradient(Affine):
    def build(self, x_shape, context_shape=None):
        super().build(x_shape, context_shape)
        self.extra = self.add_weight((x_shape[-1],), "zeros", name="extra")

    def parameters(self, context):
        s, t = super().parameters(context)
        return s, t + ops.stop_gradient(ops.convert_to_tensor(self.extra))


@planted
class InverseCutsGradient(Affine):
    def back(self, y, s, t):
        return super().back(ops.stop_gradient(y), s, t)


@planted
class InverseCutsGradientOfWeights(Affine):
    def back(self, y, s, t):
        return super().back(y, s, ops.stop_gradient(t))


@planted
class ForgetsWeights(Affine):
    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


@planted
class OneWay(keras.layers.Layer):
    """Healthy: y = x + u tanh(w x + b) for vectors, as nobody can invert it."""

    def build(self, x_shape):
        shape = (x_shape[-1],)
        self.w = self.add_weight(shape, "ones", name="w")
        self.u = self.add_weight(shape, "ones", name="u")
        self.b = self.add_weight((), "zeros", name="b")

    def call(self, x):
        push = ops.tanh(ops.sum(x * self.w, axis=-1) + self.b)
        log_det = ops.log(ops.abs(1 + (1 - push**2) * ops.sum(self.u * self.w)))
        return x + push[:, None] * self.u, self.sign * log_det

    sign = 1

    def compute_output_shape(self, x_shape):
        return x_shape, x_shape[:1]


@planted
class OneWayWrongSign(OneWay):
    sign = -1


# --- of models ------------------------------------------------------------------


@planted
class Density(keras.Model):
    """Healthy: one such layer as a density."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer = Affine()

    def build(self, x_shape):
        self.layer.build(x_shape)

    def call(self, x):
        return self.log_prob(x)

    def to_noise(self, x):
        return self.layer(x)

    def to_data(self, z):
        return self.layer(z, inverse=True)

    def log_prob(self, x):
        z, log_det = self.to_noise(x)
        return self.normal(z) + log_det

    def normal(self, z):
        constant = math.log(2 * math.pi) * z.shape[-1]
        return -0.5 * (ops.sum(ops.square(z), axis=-1) + constant)

    def sample_and_log_prob(self, n):
        z = keras.random.normal((n, 3), seed=1)
        x, log_det = self.to_data(z)
        return x, self.normal(z) - log_det


@planted
class ForgetsConstant(Density):
    def normal(self, z):
        return -0.5 * ops.sum(ops.square(z), axis=-1)


@planted
class SubtractsLogDet(Density):
    def log_prob(self, x):
        z, log_det = self.to_noise(x)
        return self.normal(z) - log_det


@planted
class SampleAddsLogDet(Density):
    def sample_and_log_prob(self, n):
        z = keras.random.normal((n, 3), seed=1)
        x, log_det = self.to_data(z)
        return x, self.normal(z) + log_det


@planted
class ModelForgetsWeights(Density):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layer = ForgetsWeights()


@planted
class OneWayDensity(Density):
    """Healthy: has no way back and draws nothing."""

    to_data = None
    sample_and_log_prob = None
