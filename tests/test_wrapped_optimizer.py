"""Tests of dlcompanion.training.wrapped_optimizer."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion.testing import check_optimizer
from dlcompanion.training import CompositeOptimizer, WrappedOptimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="test_wrapped_optimizer")
class Scaled(WrappedOptimizer):
    """Gradients times a factor: the hook of one gradient, and an argument."""

    def __init__(self, inner_optimizer, factor=2.0, name=None):
        super().__init__(inner_optimizer, name=name)
        self.factor = factor

    def transform(self, gradient, variable):
        return self.factor * gradient

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="test_wrapped_optimizer")
class Smoothed(WrappedOptimizer):
    """The mean of this gradient and the last: the hook of a step, with slots."""

    slot_names = ("last", "count")

    def step(self, gradients, variables):
        last = self.slots("last", variables)
        count = self.slots("count", variables)
        mean = [(g + slot) / 2 for g, slot in zip(gradients, last, strict=True)]
        for slot, number, g in zip(last, count, gradients, strict=True):
            slot.assign(g)
            number.assign_add(ops.ones_like(g))
        self.inner_optimizer.apply(mean, variables)


def variables(*values):
    return [keras.Variable(np.array(v, "float32"), name=f"v{v[0]:.0f}") for v in values]


def tensors(*values):
    return [ops.convert_to_tensor(np.array(v, "float32")) for v in values]


@pytest.mark.parametrize("inner", ["adam", "sgd"])
def test_contract_of_a_transformed_gradient(inner):
    check_optimizer(Scaled, {"inner_optimizer": inner, "factor": 0.5})


def test_contract_of_a_step_with_slots():
    check_optimizer(Smoothed, {"inner_optimizer": "adam"}, skip=["no_gradient"])


def test_is_the_inner_optimizer_on_other_gradients():
    (ours,), (theirs,) = variables([1.0, 2.0]), variables([1.0, 2.0])
    outer = Scaled(Scaled(keras.optimizers.Adam(0.1), 3.0), 0.5)
    inner = keras.optimizers.Adam(0.1)
    for gradient in RNG.normal(size=(5, 2)):
        outer.apply(tensors(gradient), [ours])
        inner.apply(tensors(1.5 * gradient), [theirs])
    np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=1e-6)
    assert int(outer.iterations) == 5


def test_slots_belong_to_their_variables():
    a, b, c = variables([1.0, 1.0], [2.0], [3.0, 3.0])
    optimizer = Smoothed(keras.optimizers.SGD(1.0))
    optimizer.build([a, b, c])
    optimizer.apply(tensors([5.0, 6.0], [7.0]), [c, b])  # some, in another order
    last = [numpy(v) for v in optimizer.slots("last", [a, b, c])]
    np.testing.assert_array_equal(np.concatenate(last), [0, 0, 7, 5, 6])
    np.testing.assert_allclose(numpy(c), [0.5, 0.0])
    count = [numpy(v) for v in optimizer.slots("count", [c, a])]
    np.testing.assert_array_equal(np.concatenate(count), [1, 1, 0, 0])
    assert len(optimizer.variables) == 2 + 2 * 3 + 2  # own, slots, inner
    stranger = variables([4.0])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply(tensors([1.0]), stranger)


def test_a_sparse_gradient_is_a_gradient():
    model = keras.Sequential([keras.Input((2,), dtype="int32")])
    model.add(keras.layers.Embedding(5, 3, embeddings_initializer="ones"))
    model.compile(Scaled(keras.optimizers.SGD(0.5), 2.0), loss="mse")
    model.fit(np.array([[1, 3]]), np.zeros((1, 2, 3)), verbose=0)
    moved = np.abs(model.get_weights()[0] - 1.0).max(axis=1)
    np.testing.assert_allclose(moved, [0, 1 / 3, 0, 1 / 3, 0], rtol=1e-5)


#: Property of an optimizer: the value it is made with, and another one.
SETTINGS = {
    "learning_rate": (0.1, 0.2),
    "weight_decay": (0.01, 0.02),
    "clipnorm": (1.0, 2.0),
    "clipvalue": (1.0, 2.0),
    "global_clipnorm": (1.0, 2.0),
    "ema_momentum": (0.9, 0.8),
    "ema_overwrite_frequency": (3, 4),
    "gradient_accumulation_steps": (2, 4),
    "loss_scale_factor": (8.0, 16.0),
    "use_ema": (True, False),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_belongs_to_the_inner_optimizer_is_read_and_set_there(name):
    first, second = SETTINGS[name]
    more = {"use_ema": True} if "ema_" in name else {}
    inner = keras.optimizers.SGD(**{**more, name: first})
    outer = Scaled(Smoothed(inner))
    assert float(getattr(outer, name)) == pytest.approx(float(first))
    outer.build(variables([1.0, 1.0]))
    assert float(getattr(outer, name)) == pytest.approx(float(first))
    setattr(outer, name, second)
    assert float(getattr(inner, name)) == pytest.approx(float(second))
    revived = type(outer).from_config(outer.get_config())
    assert float(getattr(revived, name)) == pytest.approx(float(second))


def test_a_schedule_is_followed():
    decay = keras.optimizers.schedules.ExponentialDecay(1.0, 1, 0.5)
    (weight,) = variables([0.0])
    optimizer = Scaled(keras.optimizers.SGD(decay), 1.0)
    for _ in range(3):
        optimizer.apply(tensors([1.0]), [weight])
    np.testing.assert_allclose(numpy(weight), [-1.75])
    assert float(optimizer.learning_rate) == 0.125


def test_averages_accumulators_and_scale_are_made_once_and_used():
    inner = keras.optimizers.SGD(0.1, use_ema=True, gradient_accumulation_steps=2)
    outer, plain = Scaled(inner, 1.0), keras.optimizers.SGD(0.1)
    (ours,), (theirs,) = variables([1.0, 2.0]), variables([1.0, 2.0])
    for pair in RNG.normal(size=(3, 2, 2)):
        for gradient in pair:
            outer.apply(tensors(gradient), [ours])
        plain.apply(tensors(pair.mean(axis=0)), [theirs])
    np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=1e-5)
    assert int(outer.iterations) == 3
    assert len(outer.variables) == len(inner.variables) + 2
    assert not np.allclose(numpy(inner.variables[2]), numpy(ours))
    outer.finalize_variable_values([ours])
    np.testing.assert_allclose(numpy(ours), numpy(inner.variables[2]))


@pytest.mark.parametrize("depth", [1, 2])
def test_keras_swaps_averages_of_a_wrapped_optimizer(depth):
    optimizer = keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5)
    for _ in range(depth):
        optimizer = Scaled(optimizer, 1.0)
    plain, wrapped = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]) for _ in range(2)
    )
    wrapped.set_weights(plain.get_weights())
    wrapped.compile(optimizer, "mse")
    plain.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.5), "mse")
    for each in (plain, wrapped):
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        each.fit(X, Y, epochs=3, callbacks=[swap], shuffle=False, verbose=0)
    for a, b in zip(plain.get_weights(), wrapped.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_loss_scaling_outside_switches_off_the_scale_inside():
    inner = keras.optimizers.SGD(1.0, loss_scale_factor=8.0)
    optimizer = keras.optimizers.LossScaleOptimizer(Scaled(inner, 1.0), 4.0)
    assert inner.loss_scale_factor is None
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(optimizer, "mse")
    model.train_on_batch(np.ones((1, 1)), np.full((1, 1), -0.5))  # a gradient of 1
    np.testing.assert_allclose(numpy(dense.kernel), [[-1.0]])
    fixed = Scaled(keras.optimizers.SGD(1.0, loss_scale_factor=8.0), 1.0)
    assert float(fixed.scale_loss(ops.ones(()))) == 8.0


def test_decay_excludes_by_the_inner_optimizer():
    kernel, bias = variables([1.0], [2.0])
    optimizer = Scaled(keras.optimizers.AdamW(0.1, weight_decay=0.5), 1.0)
    optimizer.exclude_from_weight_decay(var_list=[bias])
    optimizer.apply(tensors([0.0], [0.0]), [kernel, bias])
    np.testing.assert_allclose(numpy(kernel), [0.95], rtol=1e-6)
    np.testing.assert_allclose(numpy(bias), [2.0])


def test_pairs_and_weights_as_of_any_optimizer():
    (weight,) = variables([0.0])
    optimizer = Smoothed(keras.optimizers.SGD(1.0, momentum=0.5))
    assert int(optimizer.apply_gradients([(tensors([2.0])[0], weight)])) == 1
    saved = [np.array(numpy(v)) for v in optimizer.variables]
    optimizer.apply(tensors([3.0]), [weight])
    optimizer.set_weights(saved)
    for a, b in zip(saved, optimizer.variables, strict=True):
        np.testing.assert_array_equal(a, numpy(b))
    optimizer.apply([], [])
    assert int(optimizer.iterations) == 1
    optimizer.apply(tensors([1.0]))  # of the variables it was built for
    assert int(optimizer.iterations) == 2


def test_a_wrapper_in_a_wrapper_comes_back_from_its_config():
    outer = Scaled(Smoothed(keras.optimizers.SGD(0.3, momentum=0.9)), 5.0, name="outer")
    again = keras.optimizers.get(keras.optimizers.serialize(outer))
    assert (again.name, again.factor) == ("outer", 5.0)
    assert type(again.inner_optimizer) is Smoothed
    assert again.get_config() == outer.get_config()
    assert float(again.learning_rate) == pytest.approx(0.3)


def test_refuses_what_belongs_outside():
    inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match="Loss scaling goes outside.*Received"):
        Scaled(inner)
    with pytest.raises(ValueError, match="Several optimizers go outside.*Received"):
        Scaled(CompositeOptimizer({"a": "sgd"}))
    with pytest.raises(ValueError, match="built: call build.*Received"):
        Scaled("sgd").apply(tensors([1.0]))
