"""Tests of what is attached to models: methods inside a block, programs kept."""

import copy
import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers as L

from dlcompanion import backend
from dlcompanion.backend.attached import _PROGRAMS
from dlcompanion.training import FindNaN, fit_in_memory
from dlcompanion.training.find_nan import _watched
from dlcompanion.uncertainty import predictive_samples, set_training_examples
from dlcompanion.uncertainty.monte_carlo_dropout import in_training

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


def network():
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(4), L.Dropout(0.5, seed=0), L.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def attributes(model):
    """The attributes of a model and of its layers, by identity of their values."""
    return [
        {name: id(value) for name, value in vars(layer).items()}
        for layer in [model, *model.layers]
    ]


BLOCKS = {
    "add_loss": backend.collected_losses,
    "find_nan": lambda model: _watched(model, {}),
    "dropout": lambda model: in_training(model.layers[1:2]),
    "twice": lambda model: backend.replaced(
        [model, model], "call", lambda layer, call: call
    ),
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_after_a_block_the_attributes_are_what_they_were(block):
    model = network()
    model(X)
    before = attributes(model)
    with block(model):
        assert attributes(model) != before
        model(X)
    assert attributes(model) == before


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_an_exception_in_a_block_leaves_nothing(block):
    model = network()
    before = attributes(model)
    with pytest.raises(KeyboardInterrupt), block(model):
        raise KeyboardInterrupt
    assert attributes(model) == before


def test_an_exception_while_methods_are_replaced_leaves_nothing():
    model = network()
    before = attributes(model)

    def make(layer, call):
        if isinstance(layer, L.Dropout):
            raise RuntimeError("no dropout")
        return call

    with (
        pytest.raises(RuntimeError, match="no dropout"),
        backend.replaced(model.layers, "call", make),
    ):
        raise AssertionError("the block is not entered")
    assert attributes(model) == before


def test_blocks_nest():
    layer = L.Activation("linear")
    layer(X)
    called = []

    def noted(name):
        def make(layer, call):
            return lambda x: (called.append(name), call(x))[1]

        return make

    with backend.replaced([layer], "call", noted("outer")):
        outer = dict(vars(layer))
        with backend.replaced([layer], "call", noted("inner")):
            layer(X)
        assert vars(layer) == outer
        layer(X)
    layer(X)
    assert called == ["inner", "outer", "outer"]
    assert "call" not in vars(layer)


def test_the_search_for_nan_nests_with_dropout_in_training_mode():
    model, found = network(), {}
    model.layers[0].set_weights([np.full((3, 4), np.nan), np.zeros(4)])
    dropout = model.layers[1]
    with in_training([dropout]), _watched(model, found):
        ones = keras.ops.convert_to_numpy(dropout(np.ones((1, 99)), training=False))
        model(X, training=False)
    assert (ones == 0).any() and (ones == 2).any()
    assert found == {"nan": model.layers[0].name}


def test_losses_of_an_inner_block_are_seen_by_the_outer_one():
    layer = L.ActivityRegularization(l2=1.0)
    model = keras.Sequential([keras.Input((3,)), layer])
    with backend.collected_losses(model) as outer:
        with backend.collected_losses(model) as inner:
            layer.add_loss(keras.ops.ones(()))
        layer.add_loss(2 * keras.ops.ones(()))
    assert [float(v) for v in inner] == [1.0]
    assert [float(v) for v in outer] == [1.0, 2.0]


def test_a_method_that_the_user_replaced_is_there_again():
    layer = L.Activation("relu")
    own = vars(layer)["call"] = lambda x: 7 * x
    with backend.replaced([layer], "call", lambda layer, call: lambda x: 1 + call(x)):
        assert float(layer.call(1.0)) == 8.0
    assert vars(layer)["call"] is own


class Breaking(keras.Sequential):
    def train_step(self, *args):
        raise RuntimeError("the step breaks")


def test_a_step_that_raises_leaves_the_train_function_of_keras():
    model = Breaking([keras.Input((3,)), L.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(RuntimeError, match="the step breaks"):
        model.fit(X, Y, callbacks=[FindNaN()], verbose=0)
    owner = getattr(model.train_function, "__self__", None)
    assert callable(model.train_function)
    assert not isinstance(owner, backend.StepRecorder)


def test_programs_are_kept_by_key_until_the_model_is_compiled():
    model, made = network(), []

    def make():
        made.append(len(made))
        return made[-1]

    keys = ("a", "a", "b", "a")
    assert [backend.kept_program(model, k, make) for k in keys] == [0, 0, 1, 0]
    model.compile("sgd", "mse")
    assert backend.kept_program(model, "a", make) == 2
    assert set(vars(model)[_PROGRAMS].by_key) == {"a"}
    backend.drop_programs(model)
    backend.drop_programs(model)  # there are none
    assert _PROGRAMS not in vars(model)
    assert backend.kept_program(model, "a", make) == 3


def test_programs_of_a_layer_and_of_a_model_that_is_not_compiled():
    for subject in (L.Dense(1), keras.Sequential([L.Dense(1)])):
        assert backend.kept_program(subject, 0, lambda: "made") == "made"
        assert backend.kept_program(subject, 0, lambda: "again") == "made"


def test_a_program_that_cannot_be_made_is_not_kept():
    model = network()
    with pytest.raises(ZeroDivisionError):
        backend.kept_program(model, "a", lambda: 1 / 0)
    assert backend.kept_program(model, "a", lambda: 2) == 2


def used(model):
    """Its attributes before and after every use that keeps a program."""
    fit_in_memory(model, X, Y, batch_size=6, epochs=1, verbose=0)
    before = set(vars(model))
    fit_in_memory(model, X, Y, batch_size=6, epochs=1, verbose=0)
    predictive_samples(model, X, samples=2)
    predictive_samples(model, X + 1, samples=2)
    return before, set(vars(model))


def test_all_programs_are_in_one_attribute_and_serve_later_calls():
    model = in_dropout()
    before, after = used(model)
    assert after == before and _PROGRAMS in after
    assert len(vars(model)[_PROGRAMS].by_key) == 2


@keras.saving.register_keras_serializable("dlcompanion.tests")
class AlwaysDropout(L.Dropout):
    def call(self, inputs, training=False):
        return super().call(inputs, training=True)


def in_dropout():
    """A model whose dropout is drawn outside training as well."""
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(4), AlwaysDropout(0.5, seed=0), L.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def test_programs_are_neither_saved_nor_copied(tmp_path):
    model = in_dropout()
    used(model)
    model.save(tmp_path / "model.keras")
    for other in (
        keras.saving.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
        copy.deepcopy(model),
    ):
        assert _PROGRAMS not in vars(other)
    kept = copy.deepcopy(vars(model)[_PROGRAMS])  # by the protocol of pickle
    assert kept.by_key == {} and kept.compiled is None


def test_programs_do_not_keep_their_model_alive():
    def forgotten():
        model = network()
        kept = backend.kept_program(model, "a", lambda: lambda: model)  # a cycle
        assert kept() is model
        return weakref.ref(model)

    reference = forgotten()
    gc.collect()
    assert reference() is None


def test_another_number_of_training_examples_drops_the_programs():
    from dlcompanion.uncertainty import DenseLocalReparameterization

    model = keras.Sequential([keras.Input((3,)), DenseLocalReparameterization(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    backend.kept_program(model, "a", lambda: 1)
    set_training_examples(model, 50)
    assert _PROGRAMS not in vars(model)
