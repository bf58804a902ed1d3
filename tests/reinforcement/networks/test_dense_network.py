"""Tests of dlcompanion.reinforcement.networks.dense_network."""

import numpy as np

from dlcompanion.reinforcement.networks.dense_network import AppendLogStd, dense_network
from dlcompanion.reinforcement.networks.numpy_network import in_numpy
from dlcompanion.testing import check_layer

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32") * 3


def test_default_network():
    a, b, c = (dense_network((4,), 2, 0.01, seed, "policy") for seed in (1, 1, 2))
    for x, y, z in zip(a.get_weights(), b.get_weights(), c.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
        assert not x.any() or not np.array_equal(x, z)
    assert np.abs(in_numpy(a)(X)).max() < 0.1  # nearly equal probabilities
    image = dense_network((2, 3, 1), 2, 1.0, 0, "policy")
    assert image.output_shape == (None, 2)


def test_append_log_std_keeps_the_contract():
    check_layer(AppendLogStd, {"initial": -0.5}, X, output_shape=(6, 8))
