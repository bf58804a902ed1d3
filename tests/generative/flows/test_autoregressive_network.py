"""Tests of dlcompanion.generative.flows.autoregressive_network, on every backend."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal
from helpers.models import scramble
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import MADE
from dlcompanion.testing import check_layer

VECTORS = Path(__file__).parents[2] / "references" / "masked_autoregressive_flow.npz"


def test_contract():
    arguments = {"outputs_per_variable": 2, "hidden_units": (9,), "order": [1, 2, 0]}
    check_layer(MADE, arguments, normal(6, 3), output_shape=(6, 3, 2))


def test_the_masks_of_zuko():
    with np.load(VECTORS) as vectors:
        for number, order in enumerate(["forward", "backward"]):
            made = MADE(2, (8, 7), order=order)
            made.build((None, 3), (None, 2))
            layers = [*made.hidden, made.output_layer]
            for place, layer in zip((0, 2, 4), layers, strict=True):
                name = f"w/transform.transforms.{number}.hyper.{place}.mask"
                np.testing.assert_array_equal(layer.mask, vectors[name].T)


@pytest.mark.parametrize(
    "order, before",
    [
        ("forward", [[], [0], [0, 1], [0, 1, 2]]),
        ("backward", [[1, 2, 3], [2, 3], [3], []]),
        ([2, 0, 3, 1], [[2], [0, 2, 3], [], [0, 2]]),
    ],
)
def test_an_output_sees_the_variables_before_it_and_no_other(order, before):
    made, x = MADE(2, (12, 12), "tanh", order), normal(1, 4)
    made.build(x.shape)
    scramble(made)
    jacobian = ops.convert_to_numpy(autodiff.jacobian(lambda x: made(x)[0])(x))
    jacobian = jacobian[:, :, 0]  # (out, parameter, in)
    for out, seen in enumerate(before):
        unseen = np.setdiff1d(range(4), seen)
        np.testing.assert_array_equal(jacobian[out][:, unseen], 0.0)  # exactly
        assert np.all(np.abs(jacobian[out][:, seen]) > 1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_every_output_sees_the_context(size):
    made, x, context = MADE(1, (8,), "tanh"), normal(1, size), normal(1, 2, seed=1)
    made.build(x.shape, context.shape)
    jacobian = autodiff.jacobian(lambda context: made(x, context=context)[0, :, 0])
    found = ops.convert_to_numpy(jacobian(context))
    assert found.shape == (size, 1, 2) and np.all(np.abs(found) > 1e-4)


@pytest.mark.once
def test_it_learns_binary_data_one_variable_given_the_others():
    # the third is the exclusive or of the first two: nothing for single variables
    bits = np.random.default_rng(0).integers(0, 2, size=(256, 2))
    x = np.concatenate([bits, bits.sum(1, keepdims=True) % 2], axis=1).astype("f4")
    model = keras.Sequential([MADE(1, (32,), "tanh"), keras.layers.Reshape((3,))])
    model.compile(keras.optimizers.Adam(0.05), _nll)
    model.fit(x, x, epochs=30, batch_size=128, verbose=0)
    nats = model.evaluate(x, x, verbose=0)
    share = np.bincount(bits @ [2, 1]) / len(bits)
    entropy = -share @ np.log(share)  # of the two free bits of this very sample
    assert 0 <= nats - entropy < 0.1  # a third bit would be 0.69 more


def _nll(x, logits):
    return ops.sum(ops.softplus(logits) - x * logits, axis=-1)


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"outputs_per_variable": 0}, "outputs_per_variable must be"),
        ({"hidden_units": (8, 0)}, "hidden_units must be"),
        ({"order": "sideways"}, "order must be one of.*Received: order='sideways'"),
        ({"order": [0, 0, 1]}, "name each variable once"),
    ],
)
def test_bad_arguments(bad, message):
    with pytest.raises(ValueError, match=message):
        MADE(**bad)


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"shape \(batch, event_size\). Received:"):
        MADE().build((None, 3, 3))
    with pytest.raises(ValueError, match=r"name the 4 variables. Received: order="):
        MADE(order=[1, 0]).build((None, 4))
