"""Tests of dlcompanion.generative.flows.coupling, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.generative import AdditiveCoupling, AffineCoupling
from dlcompanion.generative.flows.coupling import DiagonalScaling
from dlcompanion.testing import check_flow, check_layer


def network(units, hidden=8):
    return keras.Sequential(
        [
            keras.layers.Dense(hidden, "tanh", bias_initializer="normal"),
            keras.layers.Dense(units, bias_initializer="normal"),
        ]
    )


def points(size, rows=6, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, size)).astype("float32")


@pytest.mark.parametrize(
    "layer_class, arguments",
    [
        (AdditiveCoupling, lambda: {"conditioner": network(2)}),
        (AffineCoupling, lambda: {"conditioner": network(4), "swap": True}),
        (DiagonalScaling, {}),
    ],
)
def test_contract(layer_class, arguments):
    check_layer(layer_class, arguments, points(4), output_shape=[(6, 4), (6,)])


def test_affine_coupling_in_numpy():
    x = points(5)
    layer = AffineCoupling(keras.layers.Dense(6, bias_initializer="normal"))
    layer.build((None, 5))
    bound = np.array([0.5, 1.5, 2.0], "float32")
    layer.bound.assign(bound)
    y, log_det = (ops.convert_to_numpy(a) for a in layer(x))
    kernel, bias = layer.conditioner.get_weights()
    params = x[:, :2] @ kernel + bias
    s = bound * np.tanh(params[:, 3:])
    expected = np.concatenate([x[:, :2], x[:, 2:] * np.exp(s) + params[:, :3]], axis=1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, s.sum(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("context", [None, points(2, seed=1)])
@pytest.mark.parametrize("layer_class", [AdditiveCoupling, AffineCoupling])
def test_inverse_and_log_det(layer_class, context, swap):
    units = (2 if swap else 3) * layer_class.outputs_per_variable

    def arguments():
        return {"conditioner": network(units), "swap": swap}

    check_flow(layer_class, arguments, points(5), context=context, scale=1.0)


def test_inverse_and_log_det_of_the_scaling():
    check_flow(DiagonalScaling, {}, points(5), scale=1.0)


@pytest.mark.parametrize("swap", [False, True])
def test_one_half_stays_and_decides(swap):
    layer, x = AdditiveCoupling(network(2), swap), points(4)
    kept = slice(2, 4) if swap else slice(0, 2)
    moved = slice(0, 2) if swap else slice(2, 4)
    y = ops.convert_to_numpy(layer(x)[0])
    np.testing.assert_array_equal(y[:, kept], x[:, kept])
    shifted = x.copy()
    shifted[:, moved] += 1
    again = ops.convert_to_numpy(layer(shifted)[0])
    np.testing.assert_allclose(again[:, moved], y[:, moved] + 1, rtol=1e-5)


def test_the_density_stays_float32_around_a_half_precision_network():
    conditioner = keras.layers.Dense(4, dtype="mixed_bfloat16")
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = AffineCoupling(conditioner)
    x = points(4)
    y, log_det = layer(x)
    back, _ = layer(y, inverse=True)
    assert keras.backend.standardize_dtype(log_det.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(back), x, atol=1e-5)


def test_the_conditioner_must_fit():
    with pytest.raises(ValueError, match=r"must return 2 x 3 outputs. Received: 4"):
        AffineCoupling(keras.layers.Dense(4)).build((None, 5))
    with pytest.raises(ValueError, match=r"must return 1 x 2 outputs. Received: 3"):
        AdditiveCoupling(keras.layers.Dense(3), swap=True).build((None, 5))
    with pytest.raises(ValueError, match="needs a Keras layer.*Received: conditioner="):
        AffineCoupling(lambda x: x)


@pytest.mark.parametrize("shape", [(None, 1), (None, 4, 4), (None,), (None, None)])
def test_events_are_vectors_of_at_least_two(shape):
    with pytest.raises(ValueError, match="event_size >= 2. Received: inputs_shape="):
        AffineCoupling(keras.layers.Dense(4)).build(shape)


def test_scaling_takes_rank_two():
    with pytest.raises(ValueError, match="needs inputs of shape"):
        DiagonalScaling().build((None, 3, 3))
