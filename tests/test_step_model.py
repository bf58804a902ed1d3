"""Tests of dlcompanion.training: StepModel, CompositeOptimizer, SavesSeeds."""

import copy

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from helpers.two_devices import on_two_devices
from keras import layers, ops

from dlcompanion import backend
from dlcompanion.training import CompositeOptimizer, LossScaling, SavesSeeds, StepModel

X = np.random.default_rng(0).normal([2, -1], [0.5, 0.2], (48, 2)).astype("float32")
Y = X[:, :1] * X[:, 1:] - 1


def weights_of(model):
    return [numpy(v).copy() for v in model.variables]


def equal(a, b, tolerance=1e-5):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# -- one optimizer: the same as Keras ------------------------------------------------


def build_layers(model):
    model.hidden = layers.Dense(
        5, "tanh", kernel_regularizer="l2", activity_regularizer="l2", name="hidden"
    )
    model.normalization = layers.BatchNormalization(momentum=0.5, name="normalization")
    model.dropout = layers.Dropout(0.3, seed=5, name="dropout")
    model.head = layers.Dense(1, name="head")


def run_layers(model, x, training):
    x = model.normalization(model.hidden(x), training=training)
    return model.head(model.dropout(x, training=training))


class Plain(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        build_layers(self)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        for layer in (self.normalization, self.dropout, self.head):
            layer.build((None, 5))

    def call(self, inputs, training=False):
        return run_layers(self, inputs, training)


@keras.saving.register_keras_serializable(package="test_step_model")
class Stepped(StepModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        build_layers(self)

    build = Plain.build
    call = Plain.call

    def update(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)

        def loss():
            y_pred = ops.cast(self(x, training=True), "float32")
            errors = ops.mean((y_pred - y) ** 2, axis=1)
            return ops.mean(errors if weight is None else errors * weight)

        variables = self.trainable_variables
        value, gradients = self.value_and_grad(loss, variables)
        self.optimizer.apply(gradients, variables)
        return {"loss": value}


def pair(optimizer):
    models = [Plain(), Stepped()]
    for model in models:
        model.build((None, 2))
        model.compile(optimizer(), loss="mse")
    models[1].set_weights(models[0].get_weights())
    return models


def schedule():
    return keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.7),
        use_ema=True,
        ema_momentum=0.5,
        clipnorm=1.0,
    )


def accumulate():
    return keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)


@pytest.mark.parametrize("optimizer", [schedule, accumulate])
def test_the_usual_step_gives_the_same_model_as_keras(optimizer):
    plain, stepped = pair(optimizer)
    weight = np.linspace(0.5, 1.5, len(X)).astype("float32")
    settings = {"batch_size": 20, "epochs": 2, "shuffle": False, "verbose": 0}
    expected = plain.fit(X, Y, sample_weight=weight, **settings)
    actual = stepped.fit(X, Y, sample_weight=weight, **settings)
    equal(weights_of(plain), weights_of(stepped))
    equal(
        [numpy(v) for v in plain.optimizer.variables],
        [numpy(v) for v in stepped.optimizer.variables],
    )
    np.testing.assert_allclose(
        actual.history["loss"], expected.history["loss"], rtol=1e-4
    )
    assert actual.history["loss"][0] > 0  # the mean of the epoch, not of nothing
    equal([plain.evaluate(X, Y, verbose=0)], [stepped.evaluate(X, Y, verbose=0)])
    equal(plain.predict(X, verbose=0), stepped.predict(X, verbose=0))


def test_without_an_own_build_and_by_single_batches():
    class Unbuilt(Stepped):
        build = keras.Model.build

    model = Unbuilt()
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    first = model.train_on_batch(X, Y)
    assert np.isfinite(first) and int(model.optimizer.iterations) == 1
    assert model.train_on_batch(X, Y) < first


def test_several_steps_per_execution():
    one, two = Stepped(), Stepped()
    for model, steps in ((one, 1), (two, 2)):
        model.build((None, 2))
        model.compile(keras.optimizers.SGD(0.1), steps_per_execution=steps)
    two.set_weights(one.get_weights())
    one.fit(X, Y, batch_size=12, shuffle=False, verbose=0)
    if keras.backend.backend() == "torch":  # Keras's own rule
        with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
            two.fit(X, Y, batch_size=12, shuffle=False, verbose=0)
        return
    two.fit(X, Y, batch_size=12, shuffle=False, verbose=0)
    equal(weights_of(one), weights_of(two))


def test_eager_equals_compiled():
    a, b = pair(lambda: keras.optimizers.Adam(0.01))[1], Stepped()
    b.build((None, 2))
    b.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    b.set_weights(a.get_weights())
    for model in (a, b):
        model.fit(X, Y, batch_size=24, shuffle=False, verbose=0)
    equal(weights_of(a), weights_of(b))


class Errors(StepModel):
    """A regression that says how far off each example was, and draws noise."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1, name="dense")
        self.dropout = layers.Dropout(0.5, seed=3)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, inputs):
        return self.dense(self.dropout(inputs, training=True))

    def update(self, data):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)

        def loss():
            error = (self(x) - y)[:, 0]
            return ops.mean(weight * error**2), error

        variables = self.trainable_variables
        (value, error), gradients = self.value_and_grad(loss, variables, has_aux=True)
        self.optimizer.apply(gradients, variables)
        return {"value": value, "error": error}


@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}, {"jit_compile": True}])
def test_a_phase_of_steps_is_the_steps_one_by_one(settings):
    if settings.get("jit_compile") and keras.backend.backend() == "torch":
        settings = {"run_eagerly": False}  # PyTorch compiles nothing here
    batches = X.reshape(6, 8, 2), Y.reshape(6, 8, 1), np.ones((6, 8), "float32")
    single, phase = Errors(), Errors()
    for model in (single, phase):
        model.build((None, 2))
        model.compile(keras.optimizers.Adam(0.1), **settings)
    phase.set_weights(single.get_weights())
    logs = []
    for n in range(6):
        batch = [a[n] for a in batches]
        logs.append(single.train_on_batch(*batch, return_dict=True))
    for half in (slice(0, 3), slice(3, 6)):  # the second finds its program ready
        got = phase.train_on_batches(tuple(a[half] for a in batches))
        want = [row["value"] for row in logs[half]]
        np.testing.assert_allclose(got["value"], want, rtol=1e-5)
        assert got["error"].shape == (3, 8) and set(logs[0]) == {"value"}
        np.testing.assert_allclose((got["error"] ** 2).mean(1), got["value"], rtol=1e-4)
    equal(weights_of(single), weights_of(phase))
    assert int(phase.optimizer.iterations) == 6
    rows = np.random.default_rng(0).integers(0, 48, (3, 8))
    data = X, Y, np.ones(48, "float32")
    by_rows = phase.train_on_batches(data, rows)
    gathered = single.train_on_batches(tuple(a[rows] for a in data))
    np.testing.assert_allclose(by_rows["error"], gathered["error"], rtol=1e-4)
    equal(weights_of(single), weights_of(phase))


def test_a_phase_needs_one_number_of_steps():
    model = Errors()
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"same length.*Received: lengths=\[2, 3\]"):
        model.train_on_batches((X.reshape(3, 16, 2), np.zeros((2, 16, 1))))
    with pytest.raises(ValueError, match=r"at least one.*Received: lengths=\[0\]"):
        model.train_on_batches((np.zeros((0, 16, 2)),))
    for rows in ([[48]], [[-1]], [0, 1], [[]]):
        with pytest.raises(ValueError, match="numbers of examples.*of 48 examples"):
            model.train_on_batches((X, Y), rows)


def test_losses_of_a_layer_called_twice_are_both_collected():
    class Twice(StepModel):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, use_bias=False, activity_regularizer="l2")
            self.unused = layers.Dense(1, kernel_regularizer="l2")

        def build(self, input_shape):
            self.dense.build(input_shape)
            self.unused.build(input_shape)
            self.dense.kernel.assign([[1.0], [0.0]])

        def update(self, data):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            variables = self.dense.trainable_variables

            def loss():
                return ops.mean(self.dense(x) + self.dense(2 * x))

            value, (gradient,) = self.value_and_grad(loss, variables)
            return {"loss": value, "gradient": gradient[0, 0]}

    model = Twice()
    model.build((None, 2))
    model.compile("sgd")
    for _ in range(2):  # nothing is left over from the step before
        logs = model.train_on_batch(np.ones((4, 2), "float32"), return_dict=True)
        # 1 + 2 + 0.01 (1 + 4), by the weight 1 + 2 + 0.01 (2 + 8)
        np.testing.assert_allclose(logs["loss"], 3.05, rtol=1e-6)
        np.testing.assert_allclose(logs["gradient"], 3.1, rtol=1e-6)


def test_aux_metrics_and_measure():
    class Measured(Stepped):
        def __init__(self):
            super().__init__()
            self.largest = keras.metrics.Mean("largest")

        def update(self, data):
            x, y, _ = keras.utils.unpack_x_y_sample_weight(data)

            def loss():
                prediction = self(x, training=True)
                return ops.mean((prediction - y) ** 2), ops.max(prediction)

            (value, top), gradients = self.value_and_grad(
                loss, self.trainable_variables, has_aux=True
            )
            self.optimizer.apply(gradients, self.trainable_variables)
            self.largest.update_state(top)
            return {"loss": value, "largest": self.largest.result()}

        def measure(self, data):
            x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
            self.largest.update_state(ops.max(self(x, training=False)))
            return {"largest": self.largest.result()}

    model = Measured()
    model.compile(keras.optimizers.SGD(0.01))
    history = model.fit(X, Y, validation_data=(X, Y), batch_size=24, verbose=0).history
    assert set(history) == {"loss", "largest", "val_largest"}
    tops = [model.predict(X[n : n + 24], verbose=0).max() for n in (0, 24)]
    np.testing.assert_allclose(history["val_largest"], [np.mean(tops)], rtol=1e-5)


def test_a_functional_model_is_refused_before_it_spoils_the_class():
    inputs = keras.Input((2,))
    for arguments in ({"inputs": inputs, "outputs": inputs}, {"outputs": inputs}):
        with pytest.raises(ValueError, match="Keep the functional model as an attr"):
            Stepped(**arguments)
    with pytest.raises(ValueError, match="Received: 2 positional"):
        StepModel(inputs, inputs)
    Stepped().build((None, 2))


def test_update_must_be_defined():
    model = StepModel()
    model.built = True
    model.compile("sgd")
    with pytest.raises(NotImplementedError, match=r"must define update\(data\)"):
        model.fit(X, verbose=0)


def test_state_outside_of_the_model_is_kept_or_refused():
    class Forgetful(Stepped):
        def update(self, data):
            outside["count"].assign_add(1.0)
            return super().update(data)

    outside = {"count": keras.Variable(0.0, name="count")}
    model = Forgetful()
    model.compile("sgd")
    if keras.backend.backend() == "jax":  # where it would be lost
        with pytest.raises(ValueError, match=r"does not track.*\['count'\]"):
            model.fit(X, Y, verbose=0)
        return
    model.fit(X, Y, batch_size=16, verbose=0)
    assert numpy(outside["count"]) == 3


def trained_two():
    keras.utils.set_random_seed(0)
    model = Two()
    model.compile(CompositeOptimizer({"below": "adam", "above": "sgd"}))
    history = model.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return history.history["loss"], weights_of(model)


def test_two_devices_train_the_same_model_as_one():
    if keras.backend.backend() == "torch":  # there one process has one device
        assert backend.replicas() == 1
        return
    one, two = trained_two(), on_two_devices(trained_two)
    equal(one[0], two[0])
    equal(one[1], two[1])


# -- two optimizers -------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="test_step_model")
class Gan(SavesSeeds, StepModel):
    """Generator with BatchNormalization, discriminator with Dropout."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.Sequential(
            [
                keras.Input((3,)),
                layers.Dense(8, "relu", kernel_regularizer="l2"),
                layers.BatchNormalization(momentum=0.9),
                layers.Dense(2, dtype="float32"),
            ]
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((2,)),
                layers.Dense(8, "relu"),
                layers.Dropout(0.2, seed=11),
                layers.Dense(1, dtype="float32"),
            ]
        )
        self.seed_generator = keras.random.SeedGenerator(3)
        self.fooled = keras.metrics.Mean("fooled")
        self.caught = keras.metrics.Mean("caught")
        self.built = True

    def call(self, inputs):
        return self.generator(inputs)

    def update(self, data):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        shape = (ops.shape(x)[0], 3)

        def noise():
            return keras.random.normal(shape, seed=self.seed_generator)

        def error(target, points):
            scores = self.discriminator(points, training=True)
            targets = ops.full_like(scores, target)
            return ops.mean(ops.binary_crossentropy(targets, scores, from_logits=True))

        def of_discriminator():
            fake = ops.stop_gradient(self.generator(noise(), training=True))
            return error(1.0, x) + error(0.0, fake)

        def of_generator():
            return error(1.0, self.generator(noise(), training=True))

        for part, loss, mean in (
            (self.discriminator, of_discriminator, self.caught),
            (self.generator, of_generator, self.fooled),
        ):
            variables = part.trainable_variables
            value, gradients = self.value_and_grad(loss, variables)
            self.optimizer.apply(gradients, variables)
            mean.update_state(value)
        return {"caught": self.caught.result(), "fooled": self.fooled.result()}


def two_adams():
    decay = keras.optimizers.schedules.ExponentialDecay
    return CompositeOptimizer(
        {
            "generator": keras.optimizers.Adam(decay(0.02, 10, 0.5), beta_1=0.5),
            "discriminator": keras.optimizers.Adam(decay(0.01, 20, 0.5)),
        }
    )


def fitted_gan(epochs):
    keras.utils.set_random_seed(4)
    gan = Gan()
    gan.compile(two_adams())
    gan.fit(X, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
    return gan


@pytest.fixture(scope="module")
def gan():
    return fitted_gan(epochs=2)


def test_gan_with_two_optimizers_trains_every_part_and_keeps_all_state(gan):
    optimizer = gan.optimizer
    assert [int(optimizer[n].iterations) for n in optimizer.names] == [6, 6]
    assert int(optimizer.iterations) == 6
    rates = [float(numpy(optimizer[n].learning_rate)) for n in optimizer.names]
    np.testing.assert_allclose(rates, [0.02 * 0.5**0.6, 0.01 * 0.5**0.3], rtol=1e-5)
    assert numpy(gan.seed_generator.state).tolist() == [3, 12]  # two draws a step
    assert numpy(gan.discriminator.layers[1].seed_generator.state)[1] == 18
    moving = numpy(gan.generator.layers[1].moving_variance)
    assert np.abs(moving - 1).max() > 1e-3
    slots = [v for v in optimizer.variables if "velocity" in v.path]
    assert len(slots) == len(gan.trainable_variables)
    assert all(np.abs(numpy(v)).max() > 0 for v in slots)


def test_gan_saved_and_loaded_continues_the_same_run(gan, tmp_path):
    half = fitted_gan(epochs=1)
    half.save(tmp_path / "gan.keras")
    loaded = keras.saving.load_model(tmp_path / "gan.keras")
    assert isinstance(loaded.optimizer, CompositeOptimizer)
    equal(
        [numpy(v) for v in half.optimizer.variables],
        [numpy(v) for v in loaded.optimizer.variables],
        0,
    )
    assert numpy(loaded.seed_generator.state).tolist() == [3, 6]
    # Keras itself forgets the seed of its Dropout
    state = half.discriminator.layers[1].seed_generator.state
    loaded.discriminator.layers[1].seed_generator.state.assign(numpy(state))
    loaded.fit(X, batch_size=16, shuffle=False, verbose=0)
    equal(weights_of(gan), weights_of(loaded), 1e-6)


@keras.saving.register_keras_serializable(package="test_step_model")
class OfCodes(StepModel):
    """A critic of data of three numbers, and a call that takes codes of two."""

    def __init__(self, built=True, **kwargs):
        super().__init__(**kwargs)
        inputs = [[keras.Input((n,))] if built else [] for n in (2, 3)]
        self.generator = keras.Sequential([*inputs[0], layers.Dense(3)])
        self.critic = keras.Sequential([*inputs[1], layers.Dense(1)])

    def call(self, codes):
        return self.generator(codes)

    def update(self, data):
        data, _, _ = keras.utils.unpack_x_y_sample_weight(data)

        def loss():
            return ops.mean(
                self.critic(data) - self.critic(self.generator(data[:, :2]))
            )

        return {"gap": self.descend(loss, self.trainable_variables)}


def test_a_call_that_takes_codes_is_not_called_on_data(tmp_path):
    data = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
    gan = OfCodes()
    gan.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    gan.fit(data, batch_size=4, verbose=0)
    assert gan.predict(data[:, :2], verbose=0).shape == (12, 3)
    gan.save(tmp_path / "gan.keras")
    loaded = keras.saving.load_model(tmp_path / "gan.keras")
    for one in (gan, loaded):
        one.train_on_batch(data)
    equal(weights_of(gan), weights_of(loaded), 1e-6)
    assert int(loaded.optimizer.iterations) == 4


def test_parts_are_built_before_fit():
    data = np.ones((4, 3), "float32")
    gan = OfCodes(built=False)
    gan.compile("sgd")
    with pytest.raises(RuntimeError, match="build it yourself before"):
        gan.fit(data, verbose=0)  # Keras does not know the input of the critic
    gan = OfCodes(built=False)
    gan.generator.build((None, 2))
    gan.critic.build((None, 3))
    gan.compile("sgd")
    assert np.isfinite(gan.fit(data, verbose=0).history["gap"][0])


class Two(StepModel):
    """Two layers, one optimizer each, one loss."""

    def __init__(self):
        super().__init__()
        self.below, self.above = layers.Dense(4, "tanh"), layers.Dense(1)

    def build(self, input_shape):
        self.below.build(input_shape)
        self.above.build((None, 4))

    def call(self, inputs):
        return self.above(self.below(inputs))

    def update(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        for layer in (self.below, self.above):
            variables = layer.trainable_variables
            value, gradients = self.value_and_grad(
                lambda: keras.losses.MeanSquaredError()(y, self(x)), variables
            )
            self.optimizer.apply(gradients, variables)
        return {"loss": value}


def test_mixed_precision_scales_the_loss_of_each_optimizer():
    keras.config.set_dtype_policy("mixed_float16")
    model = Two()
    model.compile(
        CompositeOptimizer(
            {"below": keras.optimizers.Adam(0.01), "above": keras.optimizers.SGD(0.1)}
        )
    )
    inner = [model.optimizer[name] for name in model.optimizer.names]
    assert all(isinstance(o, LossScaling) for o in inner)
    losses = model.fit(X, Y, batch_size=8, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    steps = [int(o.iterations) for o in inner]
    halvings = [np.log2(32768 / float(numpy(o.dynamic_scale))) for o in inner]
    equal(np.add(steps, halvings), [24, 24], 0)  # a step that overflows is skipped


def test_averages_of_an_inner_optimizer_end_the_fit():
    model = Two()
    average = keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9)
    model.compile(CompositeOptimizer({"below": average, "above": "sgd"}))
    model.fit(X, Y, batch_size=16, verbose=0)
    averages = average._model_variables_moving_average
    assert len(averages) == 2
    equal(
        [numpy(v) for v in model.below.trainable_variables],
        [numpy(v) for v in averages],
        0,
    )


@pytest.mark.parametrize("overflow", [False, True])
def test_loss_scaling_is_that_of_keras(overflow):
    """Same weights as plain SGD; an overflow is skipped and halves the scale."""
    w, counts = keras.Variable([1.0, 2.0], name="w"), []
    optimizer = LossScaling(
        keras.optimizers.SGD(0.1), initial_scale=8.0, dynamic_growth_steps=2
    )
    optimizer.build([w])
    bad = np.array([np.inf, 1.0] if overflow else [8.0, 8.0], "float32")
    for gradient in (np.array([8.0, 16.0], "float32"), bad):
        optimizer.apply([ops.convert_to_tensor(gradient)], [w])
        counts.append(float(numpy(optimizer.dynamic_scale)))
    assert counts == ([8.0, 4.0] if overflow else [8.0, 16.0])
    expected = [0.9, 1.8] if overflow else [0.8, 1.7]
    np.testing.assert_allclose(numpy(w), expected, rtol=1e-6)
    assert int(optimizer.iterations) == (1 if overflow else 2)


@pytest.mark.parametrize("wrapped", [False, True])
def test_loss_scaling_under_fit(wrapped, tmp_path):
    optimizer = keras.optimizers.SGD(0.05)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    else:
        keras.config.set_dtype_policy("mixed_float16")
    model = Stepped()
    model.compile(optimizer)
    model.fit(X, Y, batch_size=16, epochs=4, verbose=0)
    assert isinstance(model.optimizer, LossScaling)
    assert int(model.optimizer.iterations) > 2
    # a step that overflows is left out and halves the scale: chance says how many do
    scale = float(numpy(model.optimizer.dynamic_scale))
    halvings = np.log2(model.optimizer.initial_scale / scale)
    assert int(model.optimizer.iterations) == 4 * len(X) / 16 - halvings
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, LossScaling)
    scales = [float(numpy(m.optimizer.dynamic_scale)) for m in (model, loaded)]
    assert scales[0] == scales[1]


def test_gradient_accumulation_of_one_optimizer_only():
    a, b = keras.Variable(0.0, name="a"), keras.Variable(0.0, name="b")
    optimizer = CompositeOptimizer(
        {
            "slow": keras.optimizers.SGD(1.0, gradient_accumulation_steps=2),
            "fast": keras.optimizers.SGD(1.0),
        }
    )
    optimizer.build({"slow": [a], "fast": [b]})
    for gradient in (1.0, 3.0):
        for variable in (a, b):
            optimizer.apply([ops.full((), gradient)], [variable])
    assert (float(numpy(a)), float(numpy(b))) == (-2.0, -4.0)
    assert [int(optimizer[n].iterations) for n in ("slow", "fast")] == [1, 2]


def test_a_shared_variable_needs_the_name_of_the_optimizer():
    a, b = keras.Variable(1.0, name="a"), keras.Variable(1.0, name="b")
    optimizer = CompositeOptimizer({"one": "sgd", "two": keras.optimizers.SGD(1.0)})
    optimizer.build({"one": [a, b], "two": [b]})
    with pytest.raises(ValueError, match=r"exactly one.*\['one', 'two'\] has"):
        optimizer.apply([ops.ones(())], [b])
    optimizer["two"].apply([ops.ones(())], [b])
    assert float(numpy(b)) == 0.0


def test_composite_config_round_trip():
    optimizer = two_adams()
    config = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(copy.deepcopy(config))
    assert again.names == optimizer.names
    assert keras.saving.serialize_keras_object(again) == config
    rate = again["generator"].get_config()["learning_rate"]["config"]
    assert rate["initial_learning_rate"] == 0.02


@pytest.mark.parametrize(
    "bad, rule",
    [
        ({}, "dict from name to optimizer"),
        (["sgd"], "dict from name to optimizer"),
        ({1: "sgd"}, "named by strings"),
    ],
)
def test_composite_refuses(bad, rule):
    with pytest.raises(ValueError, match=rule + ".*Received: "):
        CompositeOptimizer(bad)


def test_composite_refuses_one_optimizer_twice():
    sgd = keras.optimizers.SGD()
    with pytest.raises(ValueError, match="an optimizer of its own"):
        CompositeOptimizer({"a": sgd, "b": sgd})


def test_composite_says_what_is_missing():
    a, b = keras.Variable(1.0, name="a"), keras.Variable(1.0, name="b")
    optimizer = CompositeOptimizer({"one": "sgd"})
    with pytest.raises(ValueError, match="Which variables belong to which"):
        optimizer.build([a])
    with pytest.raises(ValueError, match=r"names=\['two'\], optimizers=\['one'\]"):
        optimizer.build({"two": [a]})
    optimizer.build({"one": [a]})
    with pytest.raises(ValueError, match="none of them.*'b'"):
        optimizer.apply([ops.ones(())], [b])
    with pytest.raises(ValueError, match="must be told the variables"):
        optimizer.apply([ops.ones(())])
    with pytest.raises(KeyError, match="No optimizer 'two'"):
        optimizer["two"]
    with pytest.raises(AttributeError, match=r"optimizer\['one'\].learning_rate"):
        _ = optimizer.learning_rate
    with pytest.raises(AttributeError, match=r"optimizer\['one'\].learning_rate = 0.1"):
        optimizer.learning_rate = 0.1


def test_callbacks_of_keras_set_and_log_each_rate():
    gan, names = Gan(), ("generator", "discriminator")
    rates = {"generator": 0.5, "discriminator": 0.25}
    gan.compile(
        CompositeOptimizer(
            {n: keras.optimizers.SGD(rate, name=n) for n, rate in rates.items()}
        )
    )
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = gan.fit(X, epochs=2, callbacks=[halve], verbose=0).history
    for name in names:
        got = history[f"learning_rate_{name}"]
        assert got == [rates[name] / 2, rates[name] / 4]


def test_every_trainable_variable_needs_an_optimizer():
    gan = Gan()
    gan.compile(CompositeOptimizer({"generator": "adam"}))
    with pytest.raises(ValueError, match="variable needs an optimizer.*dense"):
        gan.fit(X, verbose=0)
    gan.compile(CompositeOptimizer({"critic": "adam"}))
    with pytest.raises(ValueError, match="attribute of Gan.*name='critic'"):
        gan.fit(X, verbose=0)


# -- seeds ----------------------------------------------------------------------------


class Shaken(SavesSeeds, layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.random.SeedGenerator(1)
        self.second = keras.random.SeedGenerator(2)

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        noise = keras.random.normal(ops.shape(inputs), seed=self.first)
        return inputs + self.scale * noise * keras.random.uniform((), seed=self.second)


def test_a_reloaded_layer_continues_its_sequence(tmp_path):
    def model():
        return keras.Sequential([keras.Input((2,)), Shaken(), layers.Dense(1)])

    saved, loaded = model(), model()
    saved(X)
    saved.save_weights(tmp_path / "seeds.weights.h5")
    loaded(X), loaded(X)
    loaded.load_weights(tmp_path / "seeds.weights.h5")
    equal([numpy(saved(X))], [numpy(loaded(X))], 0)
    equal([numpy(saved(X))], [numpy(loaded(X))], 0)


def test_files_without_seeds_still_load():
    layer = Shaken()
    layer.build(None)
    layer.load_own_variables({"0": np.float32(4.0)})
    assert float(numpy(layer.scale)) == 4.0
    assert numpy(layer.first.state).tolist() == [1, 0]


def test_another_number_of_seeds_is_refused():
    layer, store = Shaken(), {}
    layer.build(None)
    layer.save_own_variables(store)
    del store["seed_generator_1"]
    with pytest.raises(ValueError, match="saved=1, present=2"):
        layer.load_own_variables(store)


# -- descend ---------------------------------------------------------------------------


def test_descend_is_one_step_of_the_optimizer():
    class Point(StepModel):
        def build(self, input_shape):
            self.at = self.add_weight(shape=(), initializer="ones")

        def update(self, data):
            def square():
                return self.at**2, 2 * self.at

            variables = self.trainable_variables
            loss, twice = self.descend(square, variables, has_aux=True)
            return {"loss": loss, "twice": twice}

    model = Point()
    model.build((None, 2))
    model.compile(keras.optimizers.SGD(0.25))
    logs = model.train_on_batch(X, return_dict=True)
    assert (logs["loss"], logs["twice"]) == (1.0, 2.0)
    assert float(numpy(model.at)) == 0.5
    model.trainable = False
    model.compile(keras.optimizers.SGD(0.25))  # as Keras asks after such a change
    logs = model.train_on_batch(X, return_dict=True)  # it is evaluated all the same
    assert (float(logs["loss"]), float(logs["twice"])) == (0.25, 1.0)
    assert float(numpy(model.at)) == 0.5
