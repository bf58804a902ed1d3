"""Tests of dlcompanion.regularization.dropblock."""

import keras
import numpy as np
import pytest

from dlcompanion.regularization import DropBlock2D
from dlcompanion.regularization.dropblock import exact_gamma
from dlcompanion.testing import check_layer


def dropped(layer, shape):
    """Boolean array of what the layer drops from maps of ones."""
    y = keras.ops.convert_to_numpy(layer(np.ones(shape, "float32"), training=True))
    return y == 0


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_contract(data_format):
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 6)).astype("float32")
    settings = {"rate": 0.3, "block_size": 3, "data_format": data_format, "seed": 1}
    # the order of the axes does not touch what is saved or how wide numbers are
    skip = () if data_format == "channels_last" else ("reload", "float16", "bfloat16")
    check_layer(DropBlock2D, settings, x, output_shape=x.shape, skip=skip)


@pytest.mark.parametrize(
    "rate, block_size, height, width",
    [
        (0.25, 7, 10, 12),
        (0.5, 5, 8, 8),
        (0.2, 4, 4, 9),
    ],
)
def test_drops_the_share_it_was_asked_for(rate, block_size, height, width):
    layer = DropBlock2D(rate, block_size, seed=0)
    share = dropped(layer, (400, height, width, 16)).mean()
    assert abs(share - rate) < 0.01


def test_the_formula_of_the_paper_drops_less():
    rate, k, size = 0.5, 5, 8
    layer = DropBlock2D(rate, k, seed=0)
    layer.build((None, size, size, 16))
    layer.gamma = rate / k**2 * size**2 / (size - k + 1) ** 2  # eq. 1
    share = dropped(layer, (600, size, size, 16)).mean()
    assert share < rate - 0.05


def test_every_dropped_pixel_lies_in_a_dropped_square():
    k = 3
    gone = dropped(DropBlock2D(0.4, k, seed=0), (50, 9, 12, 3))
    windows = np.lib.stride_tricks.sliding_window_view(gone, (k, k), axis=(1, 2))
    whole = windows.all(axis=(-2, -1))  # (batch, 9 - k + 1, 12 - k + 1, channels)
    covered = np.zeros_like(gone)
    for i in range(k):
        for j in range(k):
            covered[:, i : i + whole.shape[1], j : j + whole.shape[2]] |= whole
    assert gone.any() and not gone.all()
    np.testing.assert_array_equal(covered, gone)


def test_channels_and_examples_have_their_own_masks():
    gone = dropped(DropBlock2D(0.4, 3, seed=0), (20, 9, 9, 4))
    assert (gone[..., 0] != gone[..., 1]).any()
    assert (gone[0] != gone[1]).any()


def test_blocks_of_one_pixel_are_dropout():
    rate, shape = 0.3, (4000, 4, 4, 1)
    gone = dropped(DropBlock2D(rate, 1, seed=0), shape).reshape(
        len(np.empty(shape)), 16
    )
    dropout = keras.layers.Dropout(rate, seed=1)
    y = keras.ops.convert_to_numpy(dropout(np.ones(shape, "float32"), training=True))
    reference = (y == 0).reshape(-1, 16)
    # the number of pixels dropped from a map is binomial, as Dropout's is
    counts = [np.bincount(g.sum(1), minlength=17) / len(g) for g in (gone, reference)]
    assert np.abs(counts[0] - counts[1]).max() < 0.035
    covariance = np.cov(gone.T.astype(float))
    np.testing.assert_allclose(covariance, rate * (1 - rate) * np.eye(16), atol=0.02)


def test_weights_of_an_example_average_to_one():
    x = np.ones((30, 8, 8, 5), "float32")
    y = keras.ops.convert_to_numpy(DropBlock2D(0.4, 3, seed=0)(x, training=True))
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3)), 1, rtol=1e-5)
    for example in y:  # one scale for what is kept
        assert len(np.unique(example)) == 2


def test_expectation_of_the_sum_is_kept():
    x = np.random.default_rng(0).uniform(size=(1, 6, 6, 8)).astype("float32")
    many = np.repeat(x, 4000, axis=0)
    y = keras.ops.convert_to_numpy(DropBlock2D(0.2, 2, seed=0)(many, training=True))
    assert abs(y.mean() / x.mean() - 1) < 0.01


def test_a_map_dropped_whole_is_zero_and_finite():
    y = DropBlock2D(0.5, 4, seed=0)(np.ones((200, 4, 4, 1), "float32"), training=True)
    y = keras.ops.convert_to_numpy(y)
    np.testing.assert_allclose(np.unique(y), [0, 1], atol=1e-6)
    assert abs((y == 0).mean() - 0.5) < 0.1


def test_inference_and_rate_zero_are_the_identity():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")
    for layer, training in ((DropBlock2D(0.9, 3), False), (DropBlock2D(0.0, 3), True)):
        y = keras.ops.convert_to_numpy(layer(x, training=training))
        np.testing.assert_array_equal(y, x)


def test_channels_first_drops_the_same_squares():
    x = np.random.default_rng(0).normal(size=(3, 6, 7, 2)).astype("float32")
    last = DropBlock2D(0.3, 3, "channels_last", seed=5)(x, training=True)
    first = DropBlock2D(0.3, 3, "channels_first", seed=5)(
        x.transpose(0, 3, 1, 2), training=True
    )
    first = keras.ops.convert_to_numpy(first).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(first, keras.ops.convert_to_numpy(last), rtol=1e-6)


def test_large_maps_in_half_precision():
    x = np.ones((1, 64, 64, 32), "float32")  # 131,072 values: float16 cannot count them
    layer = DropBlock2D(0.3, 7, seed=0, dtype="mixed_float16")
    y = keras.ops.convert_to_numpy(layer(x, training=True)).astype("float64")
    assert np.isfinite(y).all()
    assert abs(y.mean() - 1) < 2e-3


def test_exact_gamma_solves_its_equation():
    gamma = exact_gamma(0.3, 3, 5, 4)
    chance = np.zeros((5, 4))
    for i in range(5):
        for j in range(4):  # enumerate the squares over this pixel
            squares = sum(
                i - 2 <= a <= i and j - 2 <= b <= j for a in range(3) for b in range(2)
            )
            chance[i, j] = 1 - (1 - gamma) ** squares
    np.testing.assert_allclose(chance.mean(), 0.3, rtol=1e-9)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rejects_a_rate_outside_its_range(rate):
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\).*Received: rate="):
        DropBlock2D(rate)


@pytest.mark.parametrize("block_size", [0, -3, 2.5, True])
def test_rejects_a_block_size_that_is_no_positive_integer(block_size):
    with pytest.raises(ValueError, match="integer of at least 1. Received: block"):
        DropBlock2D(0.1, block_size)


def test_rejects_maps_it_cannot_work_on():
    with pytest.raises(ValueError, match="must not exceed"):
        DropBlock2D(0.1, 7).build((None, 6, 9, 3))
    with pytest.raises(ValueError, match="rank 4"):
        DropBlock2D(0.1, 3)(np.ones((2, 8, 8), "float32"))
    with pytest.raises(ValueError, match="needs the height and width"):
        DropBlock2D(0.1, 3).build((None, None, None, 3))
    with pytest.raises(ValueError, match="data_format must be"):
        DropBlock2D(0.1, 3, data_format="nchw")
