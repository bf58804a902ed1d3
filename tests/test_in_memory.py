"""Tests of dlcompanion.training.in_memory."""

import keras
import numpy as np
import pytest
from helpers.models import state

from dlcompanion import backend
from dlcompanion.training import StepModel, fit_in_memory

RNG = np.random.default_rng(0)
X = RNG.normal(size=(43, 6)).astype("float32")
Y = RNG.integers(0, 3, 43)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(optimizer=None, **compile_arguments):
    """Dropout and BatchNormalization: what is easily lost between two loops."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, "tanh", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.4, seed=3),
            keras.layers.Dense(3),
        ]
    )
    arguments = {"loss": CROSS_ENTROPY, "metrics": ["accuracy"], **compile_arguments}
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), **arguments)
    return model


def line(**compile_arguments):
    """The smallest model, for what does not depend on the model."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", CROSS_ENTROPY, **compile_arguments)
    return model


def assert_same(model, other, tolerance=1e-6):
    for a, b in zip(state(model), state(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def assert_same_history(history, other):
    assert list(history.history) == list(other.history)
    assert history.epoch == other.epoch
    for name, values in history.history.items():
        np.testing.assert_allclose(values, other.history[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_split": 0.3, "class_weight": {0: 1.0, 1: 5.0, 2: 0.2}},
        {
            "sample_weight": RNG.uniform(size=43),
            "validation_data": (X[:9], Y[:9], np.arange(9.0)),
        },
    ],
    ids=["class weight", "sample weight"],
)
def test_is_fit_in_the_order_of_the_data(arguments):
    common = {"batch_size": 16, "epochs": 2, "verbose": 0, "shuffle": False}
    ours, theirs = network(), network()
    history = fit_in_memory(ours, X, Y, **common, **arguments)
    assert_same_history(history, theirs.fit(X, Y, **common, **arguments))
    assert_same(ours, theirs)


def test_is_fit_in_the_order_of_the_shuffle():
    ours, theirs = network(), network()
    fit_in_memory(ours, X, Y, batch_size=16, epochs=3, verbose=0, seed=7)
    orders = []
    for epoch in range(3):
        order = keras.ops.convert_to_numpy(backend.shuffled(43, (7, epoch)))
        theirs.fit(X[order], Y[order], batch_size=16, verbose=0, shuffle=False)
        orders.append(order.tolist())
    assert_same(ours, theirs)
    assert all(sorted(order) == list(range(43)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_several_inputs_and_outputs_with_loss_weights():
    def model():
        keras.utils.set_random_seed(0)
        a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
        hidden = keras.layers.Dense(4, "relu")(keras.layers.Concatenate()([a, b]))
        outputs = {
            "sum": keras.layers.Dense(1, name="sum")(hidden),
            "kind": keras.layers.Dense(3, name="kind")(hidden),
        }
        model = keras.Model({"a": a, "b": b}, outputs)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5),
            loss={"sum": "mse", "kind": CROSS_ENTROPY},
            loss_weights={"sum": 0.3, "kind": 2.0},
            metrics={"sum": ["mae"], "kind": ["accuracy"]},
        )
        return model

    x = {"a": X, "b": X[:, :2].astype("float64")}
    y = {"sum": X.sum(1, keepdims=True), "kind": Y}
    common = {"batch_size": 16, "epochs": 2, "verbose": 0, "shuffle": False}
    ours, theirs = model(), model()
    weights = np.linspace(0, 1, 43)
    history = fit_in_memory(ours, x, y, sample_weight=weights, **common)
    reference = theirs.fit(x, y, sample_weight=weights, **common)
    assert_same_history(history, reference)
    assert_same(ours, theirs)


@keras.saving.register_keras_serializable(package="dlcompanion_tests")
class Slope(StepModel):
    """A step of its own, without targets, that counts its calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.slope = self.add_weight(name="slope", shape=(6,), initializer="ones")
        self.calls = self.add_weight(
            name="calls", shape=(), initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, x):
        return keras.ops.sum(x * self.slope, axis=-1)

    def update(self, data):
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        loss, gradients = self.value_and_grad(
            lambda: keras.ops.mean(self(x) ** 2), [self.slope]
        )
        self.optimizer.apply(gradients, [self.slope])
        self.calls.assign_add(1.0)
        return {"square": loss}


def test_runs_the_step_of_a_step_model():
    models = []
    for run in (fit_in_memory, keras.Model.fit):
        model = Slope()
        model.compile(keras.optimizers.SGD(0.05))
        history = run(model, X, batch_size=16, epochs=2, verbose=0, shuffle=False)
        models.append((model, history))
    (ours, history), (theirs, reference) = models
    assert_same_history(history, reference)
    assert_same(ours, theirs)
    assert float(ours.calls) == 6.0  # three batches, the last of 11 examples


def test_seeds():
    model = network()
    fit_in_memory(model, X, Y, epochs=0, verbose=0)
    initial = state(model)

    def weights(numpy_seed, seed):
        variables = [*model.variables, *model.optimizer.variables]
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)
        np.random.seed(numpy_seed)
        fit_in_memory(model, X, Y, batch_size=16, epochs=2, verbose=0, seed=seed)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    np.testing.assert_array_equal(weights(0, 4), weights(1, 4))
    np.testing.assert_array_equal(weights(5, None), weights(5, None))
    assert np.abs(weights(5, None) - weights(6, None)).max() > 1e-4
    assert np.abs(weights(0, 4) - weights(0, 5)).max() > 1e-4


class Diary(keras.callbacks.Callback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.lines, self.stop_after = [], stop_after

    def on_train_begin(self, logs=None):
        self.lines.append("train begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.lines.append(f"epoch {epoch} begin")

    def on_test_begin(self, logs=None):
        self.lines.append("test begin")

    def on_test_end(self, logs=None):
        self.lines.append(f"test end {sorted(logs)}")

    def on_epoch_end(self, epoch, logs=None):
        self.lines.append(f"epoch {epoch} end {sorted(logs)}")
        self.model.stop_training = epoch == self.stop_after

    def on_train_end(self, logs=None):
        self.lines.append(f"train end {sorted(logs)}")


def test_callbacks_see_what_they_see_in_fit():
    diaries = []
    for run in (fit_in_memory, keras.Model.fit):
        diary = Diary(stop_after=2)
        history = run(
            line(), X, Y, epochs=9, initial_epoch=1, verbose=0,
            callbacks=[diary], validation_split=0.5,
        )  # fmt: skip
        assert history.epoch == [1, 2]
        diaries.append(diary.lines)
    assert diaries[0] == diaries[1]


def test_progress_bar(capsys):
    fit_in_memory(line(), X, Y, batch_size=16, epochs=2, verbose=2)
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed and "3/3" in printed and "loss" in printed
    fit_in_memory(line(), X, Y, epochs=1, verbose=0)
    assert capsys.readouterr().out == ""


def test_one_program_serves_later_calls_until_compile():
    model = line()
    fit_in_memory(model, X, Y, epochs=1, verbose=0)
    fit_in_memory(model, X + 1, Y, epochs=1, verbose=0)
    programs = vars(model)["_dlcompanion_programs"].by_key
    assert len(programs) == 1
    fit_in_memory(model, X, Y, batch_size=7, epochs=1, verbose=0)
    assert len(programs) == 2
    model.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY)
    before = model.trainable_variables[0].numpy()
    fit_in_memory(model, X, Y, epochs=1, verbose=0)  # the old program would move it
    np.testing.assert_array_equal(before, model.trainable_variables[0].numpy())
    assert len(vars(model)["_dlcompanion_programs"].by_key) == 1


def test_follows_run_eagerly_and_jit_compile():
    common = {"batch_size": 16, "verbose": 0, "shuffle": False}
    settings = [{"run_eagerly": True}]
    if keras.backend.backend() == "tensorflow":  # JAX has had it in every other test,
        settings.append({"jit_compile": True})  # torch.compile wants a C++ compiler
    for setting in settings:
        ours, theirs = line(**setting), line(**setting)
        fit_in_memory(ours, X, Y, **common)
        theirs.fit(X, Y, **common)
        assert_same(ours, theirs, tolerance=1e-5)


def test_keeps_the_weights_of_before_a_failing_callback():
    """An interrupted epoch must not leave a model without values (JAX)."""

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("stop here")

    model = line()
    with pytest.raises(RuntimeError, match="stop here"):
        fit_in_memory(model, X, Y, verbose=0, callbacks=[Fails()])
    assert np.isfinite(model.predict(X, verbose=0)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"epochs": -1}, "epochs must be an integer of at least 0"),
        ({"validation_split": 1.0}, r"validation_split must lie in \[0, 1\)"),
        ({"seed": 2**31}, "seed must lie in"),
        ({"x": X[:0], "y": Y[:0]}, "at least one"),
        ({"y": Y[:7]}, "same number of examples"),
        ({"sample_weight": np.ones(7)}, "same number of examples"),
        ({"x": np.float32(1.0)}, "axis of examples"),
        ({"x": (row for row in X)}, "takes arrays"),
        ({"x": np.array(["a"] * 43)}, "must be numbers"),
        ({"validation_data": (X[:5], Y[:4])}, "same number of examples"),
        (
            {"class_weight": {0: 1.0}, "sample_weight": np.ones(43)},
            "class_weight",
        ),
        ({"callbacks": [keras.callbacks.TerminateOnNaN()]}, "between batches"),
        (
            {"callbacks": [keras.callbacks.LambdaCallback(on_train_batch_end=print)]},
            "between batches",
        ),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_in_memory(line(), **{"x": X, "y": Y, "verbose": 0, **arguments})


def test_refuses_a_model_that_is_not_compiled():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="compile"):
        fit_in_memory(model, X, Y)


def test_takes_callbacks_that_save_by_epoch(tmp_path):
    path, model = str(tmp_path / "best.keras"), line()
    best = keras.callbacks.ModelCheckpoint(path, monitor="loss")
    fit_in_memory(model, X, Y, verbose=0, callbacks=[best])
    loaded = keras.saving.load_model(path)
    assert_same(loaded, model)
    fit_in_memory(loaded, X, Y, verbose=0)
