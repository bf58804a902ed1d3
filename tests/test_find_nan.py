"""Tests of dlcompanion.training.find_nan."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.testing import check_callback
from dlcompanion.training import FindNaN, StepModel, fit_in_memory

RNG = np.random.default_rng(0)
X = RNG.uniform(1, 2, (12, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def regression(*layers, loss="mse", **kwargs):
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), loss, **kwargs)
    return model


def broken_fit(model, x=X, y=Y, **kwargs):
    """Fit in order, in batches of 4, and return what the callback found."""
    find = FindNaN()
    settings = {"batch_size": 4, "epochs": 3, "shuffle": False, "verbose": 0}
    with pytest.warns(RuntimeWarning, match="not finite in epoch"):
        history = model.fit(x, y, callbacks=[find], **{**settings, **kwargs})
    assert history.epoch == [find.where[0]]  # it stopped in the first epoch
    return find


def spoilt(value, row=6):
    x = X.copy()
    x[row, 1] = value
    return x


def test_contract():
    check_callback(FindNaN, {})


@pytest.mark.parametrize("nested", [False, True])
def test_names_the_layer_and_keeps_the_batch(nested):
    logarithm = keras.layers.Activation(ops.log, name="logarithm")
    inner = keras.Sequential([logarithm], name="inner") if nested else logarithm
    find = broken_fit(regression(inner), x=spoilt(-1.0))
    assert find.layer == "logarithm" and find.where == (0, 1)
    np.testing.assert_array_equal(find.batch[0], spoilt(-1.0)[4:8])
    np.testing.assert_array_equal(find.batch[1], Y[4:8])


@pytest.mark.parametrize("epochs, row", [(3, 2), (1, 11)])  # 11: in the last step
def test_sees_what_a_layer_hides_from_the_loss(epochs, row):
    @keras.saving.register_keras_serializable("dlcompanion.tests")
    def hiding(x):  # as relu of some backends does
        return ops.where(x > 0, x, 0.0)

    model = regression(keras.layers.Dense(4, hiding))
    start = model.get_weights()
    find = FindNaN()
    settings = {"batch_size": 4, "epochs": epochs, "shuffle": False, "verbose": 0}
    with pytest.warns(RuntimeWarning, match="not finite in epoch 0"):
        model.fit(spoilt(np.nan, row), Y, callbacks=[find], **settings)
    assert "in its x" in find.report
    np.testing.assert_array_equal(find.batch[1], Y[row // 4 * 4 :][:4])
    assert all(np.isfinite(w).all() for w in model.get_weights())
    if row < 4:  # back to before the first step
        for now, before in zip(model.get_weights(), start, strict=True):
            np.testing.assert_array_equal(now, before)


def test_names_the_infinity_before_the_nan():
    exponential = keras.layers.Activation("exponential", name="power")
    difference = keras.layers.LayerNormalization(name="centered")
    find = broken_fit(regression(exponential, difference), x=spoilt(1e4))
    assert find.layer == "centered"
    assert "the layer 'power' made an infinity" in find.report


def test_names_a_batch_that_is_not_finite():
    find = broken_fit(regression(), x=spoilt(np.nan))
    assert find.layer is None and "in its x" in find.report
    y = Y.copy()
    y[0] = np.inf
    assert "in its y" in broken_fit(regression(), y=y).report


def test_names_the_loss():
    def relative(y_true, y_pred):
        return ops.mean(ops.square(y_pred - y_true) / (y_true - Y[5, 0]), axis=-1)

    find = broken_fit(regression(loss=relative))
    assert find.where == (0, 1) and "the loss is not" in find.report


def test_names_the_gradient_one_step_later():
    # the root of a square is 0 at 0, and its gradient there infinity times zero
    @keras.saving.register_keras_serializable(package="tests")
    def root(x):
        return ops.sqrt(ops.square(x))

    first = keras.layers.Dense(3, root, use_bias=False, name="rooted")
    x = X.copy()
    x[5] = 0.0
    find = broken_fit(regression(first), x=x)
    assert find.where == (0, 2)
    np.testing.assert_array_equal(find.batch[0], x[4:8])
    assert "gradient of" in find.report and "rooted" in find.report


@pytest.mark.parametrize("eagerly", [False, True])
def test_gives_back_the_state_from_before_the_step(eagerly):
    layers = lambda: [keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(4)]  # noqa: E731
    broken, whole = (regression(*layers(), run_eagerly=eagerly) for _ in range(2))
    broken.set_weights(whole.get_weights())
    broken_fit(broken, x=spoilt(np.inf))
    whole.fit(X[:4], Y[:4], batch_size=4, shuffle=False, verbose=0)
    ours = [*broken.variables, *broken.optimizer.variables]
    theirs = [*whole.variables, *whole.optimizer.variables]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), rtol=1e-5, atol=1e-7
        )
    whole.fit(X, Y, epochs=1, verbose=0)  # and it can go on
    assert np.isfinite(broken.fit(X, Y, verbose=0).history["loss"]).all()


def test_a_fit_that_another_callback_broke_off_leaves_nothing_behind():
    class Broken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("the disk is full")

    model, find = regression(), FindNaN()
    with pytest.raises(RuntimeError, match="the disk is full"):
        model.fit(X, Y, batch_size=4, callbacks=[find, Broken()], verbose=0)
    recorder = find._recorder
    assert model.train_function == recorder.step
    before = model.get_weights()
    model.fit(X, Y, batch_size=4, verbose=0)
    assert model.train_function != recorder.step and not recorder.kept
    assert not np.array_equal(model.get_weights()[0], before[0])
    broken_fit(model, x=spoilt(np.nan))  # and a new one watches again


def test_points_at_a_step_of_ones_own():
    class Own(StepModel):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def build(self, input_shape):
            self.dense.build(input_shape)

        def call(self, inputs):
            return self.dense(inputs)

        def update(self, data):
            x, y = data[:2]
            value, gradients = self.value_and_grad(
                lambda: ops.mean(ops.square(self(x) - y)), self.trainable_variables
            )
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": ops.log(-value)}

    model = Own()
    model.build((None, 3))
    model.compile("sgd")
    assert "train_step" in broken_fit(model).report


def test_refuses_what_it_cannot_watch(backend):
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    unbuilt.compile("sgd", "mse")
    if backend == "tensorflow":  # the others build a model before they call back
        with pytest.raises(ValueError, match="needs a built model"):
            unbuilt.fit(X, Y, callbacks=[FindNaN()], verbose=0)
    if backend != "torch":
        model = regression(steps_per_execution=2)
        with pytest.raises(ValueError, match="steps_per_execution=1. Received"):
            model.fit(X, Y, callbacks=[FindNaN()], verbose=0)
    with pytest.raises(ValueError, match="between batches"):
        fit_in_memory(regression(), X, Y, callbacks=[FindNaN()], verbose=0)
