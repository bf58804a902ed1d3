"""Tests of dlcompanion.training.masks."""

import numpy as np
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff
from dlcompanion.training.masks import masked_mean, spread_mask

VALUES = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
MASK = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def test_mean_and_gradient_are_those_of_the_kept_entries():
    for values, kept in ((VALUES, VALUES[MASK]), (VALUES[..., 0], VALUES[MASK][:, 0])):
        spoiled = values.copy()
        spoiled[~MASK] = np.nan
        mean = autodiff.value_and_grad(lambda x: masked_mean(x, MASK))
        value, gradient = mean(ops.convert_to_tensor(spoiled))
        np.testing.assert_allclose(float(numpy(value)), kept.mean(), rtol=1e-6)
        share = np.zeros_like(values)
        share[MASK] = 1 / kept.size
        np.testing.assert_allclose(numpy(gradient), share, rtol=1e-6)


def test_without_a_mask_and_with_nothing_kept():
    np.testing.assert_allclose(
        float(numpy(masked_mean(ops.convert_to_tensor(VALUES)))),
        VALUES.mean(),
        rtol=1e-5,
    )
    assert float(numpy(masked_mean(ops.convert_to_tensor(VALUES), 0 * MASK))) == 0.0


def test_a_mask_is_spread_over_the_axes_that_follow():
    spread = numpy(spread_mask(ops.convert_to_tensor(MASK), ops.ones((3, 4, 2, 5))))
    np.testing.assert_array_equal(spread, np.ones((3, 4, 2, 5)) * MASK[..., None, None])
