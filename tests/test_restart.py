"""Tests of dlcompanion.training.restart."""

import gc
import random

import keras
import numpy as np
import pytest
from helpers.models import state
from keras import layers, ops
from test_step_model import Gan

from dlcompanion import backend
from dlcompanion.generative import VAE
from dlcompanion.optimization import Lookahead
from dlcompanion.training import CompositeOptimizer, fit_in_memory, restart

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def nested():
    """A model in a model, with everything that has a state."""
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(6, "relu")])
    hidden = layers.BatchNormalization(momentum=0.5)(inner(inputs))
    hidden = layers.Dropout(0.3)(hidden)
    return keras.Model(inputs, layers.Dense(1)(hidden))


def noisy():
    seeded = layers.GaussianNoise(0.2, seed=5)
    return keras.Sequential([keras.Input((3,)), seeded, layers.Dense(1)])


@keras.saving.register_keras_serializable(package="test_restart")
class Subclassed(keras.Model):
    """A model that is built by its layers' shapes, with an autoencoder inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(4, "tanh")
        self.drop = layers.Dropout(0.5)
        self.last = layers.Dense(1, kernel_initializer="he_normal")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.last.build((None, 4))

    def call(self, inputs, training=None):
        return self.last(self.drop(self.first(inputs), training=training))


def subclassed():
    model = Subclassed()
    model.build((None, 3))
    return model


def adam():
    return keras.optimizers.Adam(0.05)


def run(model):
    # in its first fit Keras itself may draw an order of the examples that it never uses
    history = model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return history.history["loss"], state(model)


def equal(a, b):
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def differ(a, b):
    assert any(not np.allclose(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("make", [nested, noisy, subclassed])
def test_is_a_model_made_and_compiled_with_that_seed(make):
    model = make()
    model.compile(adam(), "mse")
    first = run(model)
    restart(model, 7)
    started = state(model)
    again = run(model)
    keras.utils.set_random_seed(7)
    fresh = make()
    fresh.compile(adam(), "mse")
    fresh.optimizer.build(fresh.trainable_variables)
    equal(started, state(fresh))
    differ(first[1], again[1])
    if keras.backend.backend() == "torch" and make is not noisy:
        return  # Keras's Dropout draws from PyTorch's own generator, and fit builds
    made = run(fresh)
    equal(again[0], made[0])
    equal(again[1], made[1])


def test_of_an_autoencoder_with_a_program_of_a_whole_epoch():
    def run(model):
        history = fit_in_memory(model, bits, batch_size=16, epochs=2, verbose=0)
        return history.history["loss"], state(model)

    bits = (X > 0).astype("float32")
    model = VAE.dense(3, latent=2, hidden=(4,))
    model.compile(adam())
    run(model)
    restart(model, 3)
    again = run(model)
    keras.utils.set_random_seed(3)
    fresh = VAE.dense(3, latent=2, hidden=(4,))
    fresh.compile(adam())
    made = run(fresh)
    equal(again[0], made[0])
    equal(again[1], made[1])


OPTIMIZERS = {
    "adam": adam,
    "slots that begin at 0.1": lambda: keras.optimizers.Adagrad(0.1),
    "a product that begins at 1": lambda: keras.optimizers.Nadam(0.01),
    "averages": lambda: keras.optimizers.SGD(0.01, use_ema=True),
    "micro-batches": lambda: keras.optimizers.SGD(0.01, gradient_accumulation_steps=2),
    "lookahead": lambda: Lookahead(adam(), k=2),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        Lookahead(keras.optimizers.SGD(0.01, momentum=0.9), k=2),
        dynamic_growth_steps=2,
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_slot_of_an_optimizer_begins_anew(name):
    model = nested()
    model.compile(OPTIMIZERS[name](), "mse")
    model.optimizer.build(model.trainable_variables)
    begin = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    run(model)
    differ(begin, [ops.convert_to_numpy(v) for v in model.optimizer.variables])
    restart(model, 1)
    equal(begin, [ops.convert_to_numpy(v) for v in model.optimizer.variables])


def test_several_optimizers_of_one_model():
    def made():
        model = Gan()
        generator = keras.optimizers.Adam(1e-2)
        both = {"discriminator": Lookahead("adam", k=2), "generator": generator}
        model.compile(CompositeOptimizer(both))
        return model

    model = made()
    model.fit(X[:, :2], batch_size=16, verbose=0)
    before = [v.path for v in model.optimizer.variables]
    model.optimizer["generator"].learning_rate = 0.5
    restart(model, 4)
    assert float(model.optimizer["generator"].learning_rate) == 0.5
    assert int(model.optimizer["generator"].iterations) == 0
    model.optimizer["generator"].learning_rate = 1e-2
    model.fit(X[:, :2], batch_size=16, shuffle=False, verbose=0)
    keras.utils.set_random_seed(4)
    fresh = made()
    fresh.fit(X[:, :2], batch_size=16, shuffle=False, verbose=0)
    equal(state(model), state(fresh))
    assert before == [v.path for v in model.optimizer.variables]


def test_the_learning_rate_stays():
    model = noisy()
    model.compile(adam(), "mse")
    run(model)
    model.optimizer.learning_rate = 0.25  # as a callback would set it
    restart(model, 0)
    assert float(model.optimizer.learning_rate) == 0.25
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    run(model)
    assert float(model.optimizer.learning_rate) < 0.01
    restart(model, 0)
    assert float(model.optimizer.learning_rate) == 0.5  # its first step


def test_an_argument_of_the_optimizer_in_a_variable_stays():
    @keras.saving.register_keras_serializable(package="test_restart")
    class Warm(keras.optimizers.SGD):
        def __init__(self, heat=1.0, **kwargs):
            super().__init__(**kwargs)
            self.heat = self.add_variable((), keras.initializers.Constant(heat))

        def get_config(self):
            return {**super().get_config(), "heat": 1.0}

    model = noisy()
    model.compile(Lookahead(Warm(learning_rate=0.1)), "mse")
    run(model)
    model.optimizer.inner_optimizer.heat.assign(3.0)
    restart(model, 0)
    assert float(model.optimizer.inner_optimizer.heat) == 3.0
    assert int(model.optimizer.iterations) == 0


def test_given_weights_begin_and_random_states_go_on():
    model = nested()
    model.compile(adam(), "mse")
    start = [np.array(w) for w in model.get_weights()]
    run(model)
    seeds = [v for v in model.variables if "seed_generator" in v.path]
    drawn = [ops.convert_to_numpy(v) for v in seeds]
    restart(model, weights=start)
    equal(model.get_weights(), start)
    assert int(model.optimizer.iterations) == 0
    equal(drawn, [ops.convert_to_numpy(v) for v in seeds])
    restart(model, 2, weights=start)
    equal(model.get_weights(), start)
    differ(drawn, [ops.convert_to_numpy(v) for v in seeds])


def test_what_was_adapted_and_what_is_frozen_stays_so():
    scale = layers.Normalization()
    scale.adapt(10 + 3 * X)
    frozen = layers.Dense(3, trainable=False)
    model = keras.Sequential([keras.Input((3,)), scale, frozen, layers.Dense(1)])
    model.compile(adam(), "mse")
    run(model)
    adapted = [np.array(w) for w in scale.get_weights()]
    restart(model, 0)
    equal(adapted, scale.get_weights())
    assert not frozen.trainable and len(model.trainable_variables) == 2


def test_no_program_is_compiled_anew():
    model = nested()
    model.compile(adam(), "mse", run_eagerly=False)
    run(model)
    variables, step = model.variables, model.train_function
    restart(model, 1)
    assert model.train_function is step
    assert all(a is b for a, b in zip(variables, model.variables, strict=True))


def forgotten(monkeypatch):
    """A list that grows when TensorFlow forgets what it has prepared to run."""
    from tensorflow.python.eager import context

    calls, clear = [], context.pywrap_tfe.TFE_ContextClearCaches

    def count(handle):
        calls.append(handle)
        clear(handle)

    monkeypatch.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", count)
    return calls


def test_tensorflow_keeps_what_it_has_prepared(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        return
    gc.collect()  # functions of other tests
    model = nested()
    model.compile(adam(), "mse")
    fit_in_memory(model, X, Y, batch_size=16, verbose=0)
    calls = forgotten(monkeypatch)
    restart(model, 1)
    drawn = [keras.random.uniform(()), np.random.rand(), random.random()]
    assert not calls
    keras.utils.set_random_seed(2)
    assert len(calls) == 1
    restart(model, 1)
    again = [keras.random.uniform(()), np.random.rand(), random.random()]
    assert np.array_equal(drawn, again)
    assert backend.random_state()["tensorflow_seed"] == 1


class KeepsAState(layers.Layer):
    """Noise from an operation of TensorFlow that has a state."""

    def call(self, inputs):
        import tensorflow as tf

        return inputs + tf.random.normal(tf.shape(inputs))


def test_random_operations_of_tensorflow_begin_anew(monkeypatch):
    if keras.backend.backend() != "tensorflow":
        return
    model = keras.Sequential([keras.Input((3,)), KeepsAState(), layers.Dense(1)])
    model.compile(adam(), "mse")
    losses = []
    for seed in (0, 1, 0):
        restart(model, seed)
        settings = {"batch_size": 16, "epochs": 2, "verbose": 0}
        log = fit_in_memory(model, X, Y, **settings)
        losses.append(log.history["loss"])
        calls = forgotten(monkeypatch)
    assert losses[0] == losses[2] != losses[1]
    restart(model, 0)
    assert calls


def test_refuses_what_cannot_begin_anew():
    with pytest.raises(ValueError, match="compiled and built"):
        restart(noisy(), 0)
    lazy = keras.Sequential([layers.Dense(1)])
    lazy.compile("sgd", "mse")
    with pytest.raises(ValueError, match="compiled and built"):
        restart(lazy, 0)
    model = noisy()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="a seed, or weights"):
        restart(model)
    for seed in (-1, 0.5, True):
        with pytest.raises(ValueError, match="seed must be an integer"):
            restart(model, seed)


def test_a_model_without_a_config_is_left_as_it_was():
    class Closed(Subclassed):
        def __init__(self, width, **kwargs):
            super().__init__(**kwargs)
            self.last.units = width.units

        def get_config(self):
            raise NotImplementedError("no config")

    model = Closed(layers.Dense(1))
    model.build((None, 3))
    model.compile(adam(), "mse")
    before = run(model)[1]
    with pytest.raises(ValueError, match="pass weights=.*no config"):
        restart(model, 0)
    equal(before, state(model))
    restart(model, weights=model.get_weights())
    assert int(model.optimizer.iterations) == 0


def test_a_config_that_makes_another_model_is_refused():
    class Wider(Subclassed):
        def __init__(self, units=4, **kwargs):
            super().__init__(**kwargs)
            self.first = layers.Dense(units)

        def build(self, input_shape):
            self.first.build(input_shape)
            self.last.build((None, self.first.units))

        def get_config(self):
            return {}

    model = Wider(5)
    model.build((None, 3))
    model.compile(adam(), "mse")
    before = state(model)
    with pytest.raises(ValueError, match="other shapes from the config"):
        restart(model, 0)
    equal(before, state(model))
