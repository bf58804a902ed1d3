"""Tests of dlcompanion.generative.flows.dequantization, on every backend."""

import math

import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops
from scipy import stats

from dlcompanion.generative import LogitTransform, bits_per_dimension, dequantize
from dlcompanion.testing import check_flow, check_layer


def unit(shape=(6, 3)):
    return np.random.default_rng(0).uniform(size=shape).astype("float32")


def test_contract():
    check_layer(LogitTransform, {"margin": 0.01}, unit(), output_shape=[(6, 3), (6,)])


def test_noise_stays_in_its_level_and_fills_it():
    levels = np.random.default_rng(0).integers(0, 17, (400, 5))
    x = dequantize(levels, 17, seed=3)
    np.testing.assert_array_equal(np.floor(17 * x.astype("float64")), levels)
    noise = 17 * x.astype("float64") - levels
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 0.01
    np.testing.assert_array_equal(dequantize(levels, 17, seed=3), x)
    assert np.abs(dequantize(levels, 17, seed=4) - x).max() > 0.01


def test_bits_of_levels_whose_probabilities_are_known():
    # a density constant within each level costs the entropy of the levels
    probability = np.array([0.5, 0.25, 0.125, 0.125])
    levels = np.repeat(np.arange(4), [4, 2, 1, 1])[:, None]
    x = dequantize(levels, 4)
    log_prob = np.log(4 * probability[np.floor(4 * x[:, 0]).astype(int)])
    assert bits_per_dimension(log_prob, 1, 4).mean() == pytest.approx(1.75)
    # nats of three entries: the mean over the entries
    found = bits_per_dimension(ops.convert_to_tensor([-3 * math.log(2)]), 3, 16)
    np.testing.assert_allclose(found, [5.0], rtol=1e-6)


def test_inverse_and_log_det():
    check_flow(LogitTransform, {"margin": 0.1}, unit((6, 2, 2, 1)), atol=1e-6)


def test_logit_in_numpy():
    layer, x = LogitTransform(margin=0.1), unit((6, 2, 2, 1))
    y, _ = layer(x)
    p = 0.1 + 0.8 * x.astype("float64")
    np.testing.assert_allclose(numpy(y), np.log(p / (1 - p)), atol=1e-5)


def test_outside_is_nan_and_nothing_is_clipped():
    y, _ = LogitTransform(margin=0.1)(np.array([[-0.2, 0.5]], "float32"))
    np.testing.assert_array_equal(np.isnan(numpy(y)), [[True, False]])


@pytest.mark.parametrize("bad", [np.zeros(3), np.array([0, 4]), np.array([-1, 0])])
def test_levels_are_integers_in_range(bad):
    with pytest.raises(ValueError, match="integers from 0 to 3. Received: an array"):
        dequantize(bad, 4)


def test_bad_arguments():
    with pytest.raises(ValueError, match="count must be .*Received: count=1"):
        dequantize(np.array([0]), 1)
    with pytest.raises(ValueError, match="dimensions must be"):
        bits_per_dimension(np.zeros(3), 0, 4)
    for margin in (0, 0.5, -1):
        with pytest.raises(ValueError, match="margin must be .*Received: margin="):
            LogitTransform(margin)
