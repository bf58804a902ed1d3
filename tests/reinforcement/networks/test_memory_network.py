"""Tests of dlcompanion.reinforcement.networks.memory_network."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from dlcompanion.reinforcement.networks.memory_network import (
    check_recurrent,
    recurrent_network,
)
from dlcompanion.reinforcement.networks.numpy_network import (
    CompiledModel,
    RecurrentCopy,
    in_numpy,
)

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32") * 3
H = np.random.default_rng(1).normal(size=(6, 5)).astype("float32")


def network(cell=None, before=(), after=(), turned=False, dropped=False):
    observations, states = keras.Input((4,)), keras.Input((5,))
    x = observations
    for layer in before:
        x = layer(x)
    cell = cell or layers.GRUCell(5, bias_initializer="normal")
    y, new = cell(x, states)
    for layer in after:
        y = layer(y)
    outputs = [new, y] if turned else [y, states if dropped else new]
    return keras.Model([observations, states], outputs)


def dense(units, *args, **kwargs):
    return layers.Dense(units, *args, bias_initializer="normal", **kwargs)


def assert_equal(step, model, x=X, h=H):
    for got, y in zip(step(x, h), model([x, h], training=False), strict=True):
        want = ops.convert_to_numpy(y)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        assert got.dtype == np.float32


@pytest.mark.parametrize(
    "before, after",
    [
        ([], []),
        ([dense(3, "tanh"), dense(7, "relu")], [dense(2)]),
        ([], [dense(4, "silu"), dense(2, use_bias=False)]),
    ],
)
def test_copy_equals_keras(before, after):
    model = network(before=before, after=after)
    step = in_numpy(model)
    assert type(step) is RecurrentCopy and step.units == 5
    for _ in range(2):
        assert_equal(step, model)
        model.set_weights([w + 0.1 for w in model.get_weights()])
        step.refresh()


@pytest.mark.parametrize("shape", [(4,), (2, 3)])
@pytest.mark.parametrize("spread", [False, True])
def test_the_default_network_is_copied(shape, spread):
    model = recurrent_network(shape, 2, 1.0, seed=0, name="policy", spread=spread)
    rng = np.random.default_rng(2)
    x, h = (rng.normal(size=(6, *s)).astype("float32") for s in (shape, (64,)))
    step = in_numpy(model)
    assert type(step) is RecurrentCopy
    assert_equal(step, model, x, h)
    outputs, states = step(x, np.zeros((6, step.units), "float32"))
    assert outputs.shape == (6, 4 if spread else 2) and states.shape == (6, 64)


def test_the_seed_decides_the_weights():
    a, b, c = (
        recurrent_network((4,), 2, 1.0, seed, "policy").get_weights()
        for seed in (0, 0, 1)
    )
    for x, y, z in zip(a, b, c, strict=True):
        np.testing.assert_array_equal(x, y)
        assert (x != z).any() or not x.any()  # a bias begins at 0


class Doubled(layers.GRUCell):
    def call(self, inputs, states, training=False):
        y, new = super().call(inputs, states, training)
        return 2 * y, new


def two_cells():
    observations, states = keras.Input((4,)), keras.Input((5,))
    y, new = layers.GRUCell(5)(observations, states)
    y, _ = layers.GRUCell(5)(y, states)
    return keras.Model([observations, states], [y, new])


def beside():
    observations, states = keras.Input((4,)), keras.Input((5,))
    y, new = layers.GRUCell(5)(observations, states)
    y = layers.Dense(2)(layers.Concatenate()([y, observations]))
    return keras.Model([observations, states], [y, new])


def past():
    observations, states = keras.Input((4,)), keras.Input((5,))
    _, new = layers.GRUCell(5)(layers.Dense(5)(observations), states)
    return keras.Model([observations, states], [layers.Dense(2)(new), new])


@pytest.mark.parametrize(
    "make",
    [
        two_cells,
        beside,
        past,
        lambda: network(dropped=True),
        lambda: network(turned=True),
        lambda: network(layers.GRUCell(5, reset_after=False)),
        lambda: network(layers.GRUCell(5, use_bias=False)),
        lambda: network(layers.GRUCell(5, activation="relu")),
        lambda: network(Doubled(5)),
        lambda: network(layers.SimpleRNNCell(5)),
        lambda: network(before=[layers.LayerNormalization()]),
        lambda: network(after=[layers.Dense(2, "softmax")]),
    ],
)
def test_what_is_not_known_is_called_compiled(make):
    model = make()
    step = in_numpy(model)
    assert type(step) is CompiledModel
    assert_equal(step, model)
    model.set_weights([w + 0.1 for w in model.get_weights()])
    step.refresh()
    assert_equal(step, model)


def test_other_precisions_are_called_compiled():
    model = network(after=[layers.Dense(2, dtype="mixed_bfloat16")])
    step = in_numpy(model)
    outputs, states = step(X, H)
    assert type(step) is CompiledModel
    assert outputs.dtype == states.dtype == np.float32


def one_input():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)])


@pytest.mark.once
@pytest.mark.parametrize(
    "model, message",
    [
        ("mlp", "policy must be a keras.Model. Received: policy='mlp'"),
        (one_input(), r"two inputs.*Received: policy='sequential.*' with inputs"),
        (network(after=[dense(3)]), r"outputs \(batch, 2\).*Received.*\[\(3,\), \(5,"),
        (
            network(after=[dense(2)], turned=True),
            r"outputs \(batch, 2\).*Received.*\[\(5,",
        ),
        (
            keras.Model([x := keras.Input((4,)), keras.Input((5,))], [dense(2)(x)] * 2),
            r"new states \(batch, 5\).*Received.*\[\(2,\), \(2,",
        ),
        (
            keras.Model([x, keras.Input((5,))], dense(2)(x)),
            r"must give a list.*Received",
        ),
        (keras.Model([x, keras.Input((2, 5))], [x, x]), "two inputs"),
        (
            recurrent_network((3,), 2, 1.0, 0, "net"),
            r"shapes \(4,\) and \(64,\). Received: policy='net', which raised",
        ),
    ],
)
def test_rejects(model, message):
    with pytest.raises(ValueError, match=message):
        check_recurrent("policy", model, (4,), 2)
    check_recurrent("policy", network(after=[dense(2)]), (4,), 2)
