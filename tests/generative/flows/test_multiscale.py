"""Tests of dlcompanion.generative.flows.multiscale, on every backend."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.generative import ActNorm, InvertibleConvolution1x1
from dlcompanion.generative.flows.multiscale import FactorOut, Squeeze
from dlcompanion.testing import check_flow, check_layer

VECTORS = Path(__file__).parents[2] / "references" / "glow.npz"


def pictures(shape=(5, 4, 4, 3), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_contracts():
    check_layer(Squeeze, {}, pictures(), output_shape=[(5, 2, 2, 12), (5,)])
    check_layer(
        FactorOut,
        lambda: {"transforms": [InvertibleConvolution1x1(seed=0), ActNorm()]},
        pictures((5, 2, 2, 4)),
        output_shape=[(5, 16), (5,)],
        skip=["float16", "bfloat16"],  # its transforms have a precision of their own
    )


def test_inverse_and_log_det():
    check_flow(Squeeze, {}, pictures((3, 2, 4, 1)))
    check_flow(
        FactorOut,
        lambda: {"transforms": [InvertibleConvolution1x1(seed=0), ActNorm()]},
        pictures((5, 1, 2, 4)),
    )


def test_squeeze_equals_normflows():
    with np.load(VECTORS) as vectors:
        x, expected = vectors["in/squeeze/x"], vectors["out/squeeze/y"]
    y, log_det = Squeeze()(x)
    np.testing.assert_array_equal(numpy(y), expected)
    np.testing.assert_array_equal(numpy(log_det), np.zeros(len(x)))


def test_squeeze_gathers_what_is_close_and_turns_back():
    x, layer = pictures(), Squeeze()
    y, _ = layer(x)
    np.testing.assert_array_equal(
        numpy(y)[:, 1, 0, 4:8], x[:, 2:4, 0:2, 1].reshape(5, 4)
    )
    np.testing.assert_array_equal(numpy(layer(y, inverse=True)[0]), x)


def test_half_is_finished_and_the_rest_goes_on():
    x = pictures((5, 4, 4, 3))
    inner = InvertibleConvolution1x1(seed=1)
    layer = FactorOut([inner, Squeeze(), FactorOut([ActNorm()])])
    y, log_det = layer(x)
    np.testing.assert_array_equal(numpy(y)[:, :16], x[..., :1].reshape(5, 16))
    mixed, expected = inner(x[..., 1:])
    deeper = numpy(Squeeze()(mixed)[0])  # (5, 2, 2, 8), of which four are finished
    np.testing.assert_allclose(
        numpy(y)[:, 16:32], deeper[..., :4].reshape(5, 16), atol=1e-6
    )
    np.testing.assert_allclose(numpy(log_det), numpy(expected), atol=1e-6)
    back, back_log_det = layer(y, inverse=True)
    np.testing.assert_allclose(numpy(back), x, atol=1e-5)
    np.testing.assert_allclose(numpy(back_log_det), -numpy(log_det), atol=1e-6)


@pytest.mark.parametrize("shape", [(None, 3, 4, 1), (None, 4, 4), (None, None, 4, 1)])
def test_squeeze_needs_even_sides(shape):
    with pytest.raises(ValueError, match="even sides. Received: inputs_shape="):
        Squeeze().build(shape)


def test_factor_out_needs_channels_and_layers():
    with pytest.raises(
        ValueError, match="at least 2 channels. Received: inputs_shape="
    ):
        FactorOut([ActNorm()]).build((None, 4, 4, 1))
    for bad in ([], [len], [keras.losses.MeanSquaredError()]):
        with pytest.raises(ValueError, match="a list of Keras layers. Received:"):
            FactorOut(bad)
