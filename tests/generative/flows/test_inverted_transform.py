"""Tests of dlcompanion.generative.flows.inverted_transform, on every backend."""

import keras
import numpy as np
import pytest
from helpers.arrays import normal
from keras import ops

from dlcompanion.generative import AffineCoupling, NormalizingFlow
from dlcompanion.generative.flows.inverted_transform import Inverted
from dlcompanion.testing import check_flow, check_layer


def coupling():
    return AffineCoupling(keras.layers.Dense(4, bias_initializer="normal"))


def test_contract():
    check_layer(
        Inverted, lambda: {"transform": coupling()}, normal(6, 4),
        output_shape=[(6, 4), (6,)],
    )  # fmt: skip


def test_inverse_and_log_det():
    check_flow(
        Inverted, lambda: {"transform": coupling()}, normal(6, 4),
        context=normal(6, 2, seed=1),
    )  # fmt: skip


@pytest.mark.parametrize("context", [None, normal(6, 2, seed=1)])
def test_forward_is_the_inverse(context):
    x, inner = normal(6, 4), coupling()
    layer = Inverted(inner)
    forward, backward = (
        layer(x, context=context),
        layer(x, inverse=True, context=context),
    )
    expected = inner(x, inverse=True, context=context), inner(x, context=context)
    for found, wanted in zip((forward, backward), expected, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(
                ops.convert_to_numpy(a), ops.convert_to_numpy(b)
            )


def test_a_flow_and_its_inverse_undo_each_other():
    inner, x = coupling(), normal(5, 4)
    flow = NormalizingFlow(4, [inner, Inverted(inner)])
    z, log_det = flow.to_noise(x)
    np.testing.assert_allclose(ops.convert_to_numpy(z), x, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(log_det), 0, atol=1e-5)


def test_it_takes_a_layer():
    with pytest.raises(ValueError, match="needs a Keras layer.*Received: transform="):
        Inverted(lambda x: x)
