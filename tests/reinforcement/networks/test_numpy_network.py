"""Tests of dlcompanion.reinforcement.networks.numpy_network."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from dlcompanion.reinforcement.networks.dense_network import AppendLogStd, dense_network
from dlcompanion.reinforcement.networks.numpy_network import (
    ACTIVATIONS,
    CompiledModel,
    DenseChain,
    DenseTree,
    in_numpy,
)

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32") * 3


def assert_equal(copy, model):
    expected = ops.convert_to_numpy(model(X, training=False))
    np.testing.assert_allclose(copy(X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_chain_equals_keras(activation):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation, bias_initializer="normal"),
            layers.Dense(3, use_bias=False),
        ]
    )
    assert_equal(DenseChain.of(model), model)


def test_functional_line_is_a_chain():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(5, "tanh")(inputs)))
    assert_equal(DenseChain.of(model), model)


def test_refresh_takes_new_weights():
    model = dense_network((4,), 2, 1.0, seed=0, name="policy")
    chain = DenseChain.of(model)
    before = chain(X)
    model.set_weights([w + 0.1 for w in model.get_weights()])
    np.testing.assert_array_equal(chain(X), before)
    chain.refresh()
    assert_equal(chain, model)


def branching():
    inputs = keras.Input((4,))
    hidden = layers.Dense(2)(inputs)
    return keras.Model(inputs, layers.Dense(2)(hidden) + hidden)


def twice():
    inputs, shared = keras.Input((4,)), layers.Dense(4)
    return keras.Model(inputs, shared(shared(inputs)))


def early():
    inputs = keras.Input((4,))
    hidden = layers.Dense(2)(inputs)
    return keras.Model(inputs, [hidden, layers.Dense(2)(hidden)])


def custom():
    return sequence(layers.Dense(2, lambda x: x + 1))


def sequence(*parts):
    return keras.Sequential([keras.Input((4,)), *parts])


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Halved(keras.Sequential):
    def call(self, inputs, **kwargs):
        return super().call(inputs / 2, **kwargs)


@pytest.mark.parametrize(
    "make",
    [
        branching,
        twice,
        early,
        custom,
        lambda: sequence(layers.Dense(2), layers.LayerNormalization()),
        lambda: sequence(layers.Dense(2, dtype="mixed_bfloat16")),
        lambda: sequence(layers.Dense(2, "softmax")),
        lambda: sequence(Doubled(2)),
        lambda: Halved([keras.Input((4,)), layers.Dense(2)]),
    ],
)
def test_what_is_no_chain_is_not_taken_for_one(make):
    assert DenseChain.of(make()) is None


def two_heads(trunk=None, shape=(4,)):
    """A trunk with two heads, one of them with a hidden layer and a branch of it."""
    inputs = keras.Input(shape)
    hidden = layers.Flatten()(inputs) if len(shape) > 1 else inputs
    hidden = layers.Dense(6, "tanh", bias_initializer="normal")(hidden)
    hidden = trunk(hidden) if trunk else hidden
    side = layers.Dense(3, "relu")(hidden)
    heads = [layers.Dense(2)(side), layers.Dense(1, "tanh", use_bias=False)(hidden)]
    return keras.Model(inputs, heads)


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_tree_equals_keras(shape):
    model = two_heads(shape=shape)
    tree = in_numpy(model)
    assert type(tree) is DenseTree
    x = X.reshape(-1, *shape)
    for turn in range(2):
        expected = model(x, training=False)
        for got, want in zip(tree(x), expected, strict=True):
            want = ops.convert_to_numpy(want)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        model.set_weights([w + 0.1 * (turn + 1) for w in model.get_weights()])
        tree.refresh()


def crossing():
    """Two dense layers that meet again."""
    inputs = keras.Input((4,))
    both = layers.Dense(2)(inputs) + layers.Dense(2)(inputs)
    return keras.Model(inputs, [layers.Dense(1)(both), both])


def flat_late():
    inputs = keras.Input((4, 1))
    hidden = layers.Flatten()(layers.Dense(2)(inputs))
    return keras.Model(inputs, [layers.Dense(1)(hidden), hidden])


@pytest.mark.parametrize(
    "make",
    [
        branching,
        twice,
        crossing,
        flat_late,
        lambda: two_heads(layers.LayerNormalization()),
        lambda: two_heads(layers.Dense(3, "softmax")),
        lambda: two_heads(Doubled(3)),
    ],
)
def test_what_is_no_tree_is_not_taken_for_one(make):
    assert DenseTree.of(make()) is None


def test_any_other_model_is_compiled():
    model = sequence(layers.Dense(3), layers.LayerNormalization(), layers.Dropout(0.9))
    call = in_numpy(model)
    assert type(call) is CompiledModel
    assert_equal(call, model)
    model.layers[0].bias.assign([1.0, 2.0, 3.0])
    call.refresh()
    assert_equal(call, model)
    assert type(call(X)) is np.ndarray


def assert_close(got, want):
    """Equal to float32, by the size of the largest entry: some are near 0."""
    want = ops.convert_to_numpy(want)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_a_compiled_model_may_have_several_outputs():
    model = two_heads(layers.LayerNormalization())
    call = in_numpy(model)
    assert type(call) is CompiledModel
    for got, want in zip(call(X), model(X, training=False), strict=True):
        assert type(got) is np.ndarray
        assert_close(got, want)


@pytest.mark.once
def test_padding_compiles_few_sizes_and_changes_nothing():
    model = two_heads(layers.LayerNormalization())
    call, sizes = in_numpy(model, padded=True), []
    inner = call.function

    def counted(x):
        sizes.append(len(x))
        return inner(x)

    call.function = counted
    for count in (1, 2, 3, 5, 6):
        for got, want in zip(call(X[:count]), model(X[:count]), strict=True):
            assert_close(got, want)
    assert sizes == [1, 2, 4, 8, 8]


def test_a_gaussian_policy_is_a_chain():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(2), AppendLogStd(0.3)]
    )
    chain = DenseChain.of(model)
    assert_equal(chain, model)
    model.layers[-1].log_std.assign([0.1, -0.7])
    chain.refresh()
    assert_equal(chain, model)
    np.testing.assert_allclose(chain(X)[:, 2:], [[0.1, -0.7]] * 6, rtol=1e-6)
