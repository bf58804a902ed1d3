"""Tests of dlcompanion.uncertainty.ensembles.ensemble_members."""

import random

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.optimization import Lookahead
from dlcompanion.uncertainty.ensembles.ensemble_members import (
    PerMember,
    available_memory,
    check_elementwise,
    pool,
    readable,
    seeded,
    unrolled_layers,
)

RNG = np.random.default_rng(0)
L = keras.layers


def test_pooled_logits_keep_their_precision():
    """Where probabilities underflow, the logarithm of their mean does not."""
    logits = np.array([[[0.0, 200.0]], [[0.0, 100.0]]], "float32")
    pooled = numpy(pool(logits, "logits"))
    np.testing.assert_allclose(pooled[0, 0], -100 - np.log(2), rtol=1e-6)
    np.testing.assert_allclose(numpy(readable(pooled, "logits")), [[0, 1]], atol=1e-6)


@pytest.mark.parametrize("kind", ["probabilities", "logits", "values", "gaussian"])
def test_one_member_is_its_own_pool(kind):
    outputs = RNG.normal(size=(1, 5, 4)).astype("float32")
    found = numpy(readable(pool(outputs, kind), kind))
    np.testing.assert_allclose(found, numpy(readable(outputs[0], kind)), rtol=1e-4)


def test_the_spread_of_equal_gaussians_is_theirs_and_grows_with_distance():
    rho = np.zeros((2, 1, 1), "float32")
    apart = np.concatenate([np.array([[[-3.0]], [[3.0]]], "float32"), rho], axis=-1)
    mean, variance = numpy(readable(pool(apart, "gaussian"), "gaussian"))[0]
    np.testing.assert_allclose([mean, variance], [0, np.log(2) ** 2 + 9], atol=1e-3)


def test_which_layers_are_unrolled():
    model = keras.Sequential(
        [
            keras.Input((6, 1)),
            keras.Sequential([L.Conv1D(2, 2, name="inner")]),
            L.SimpleRNN(3, name="recurrent"),
            L.Dropout(0.5, name="drop"),
            L.Dense(2),
        ]
    )
    expected = ["inner", "recurrent"]
    expected += ["drop"] if keras.backend.backend() == "torch" else []
    found = [name for name in unrolled_layers(model) if not name.endswith("_cell")]
    assert sorted(found) == sorted(expected)


def test_wrapped_optimizers_are_looked_into():
    check_elementwise(Lookahead(keras.optimizers.AdamW()))
    with pytest.raises(ValueError, match="Received: SGD, clipnorm=1.0"):
        check_elementwise(Lookahead(keras.optimizers.SGD(clipnorm=1.0)))

    class Own(keras.optimizers.SGD):
        elementwise = True

    check_elementwise(Own())


def test_a_constraint_sees_one_member_at_a_time():
    stack = RNG.normal(size=(3, 4, 2)).astype("float32")
    found = numpy(PerMember(keras.constraints.MaxNorm(0.5))(stack))
    norms = np.linalg.norm(found, axis=1)
    assert norms.shape == (3, 2) and norms.max() < 0.5 + 1e-4
    assert np.abs(norms - 0.5).min() < 1e-4


def test_seeding_leaves_the_generator_of_python_alone():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    first, again, other = (seeded(random.random, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert random.random() == expected


def test_memory_is_counted_in_bytes():
    free = available_memory()
    assert free is None or free > 2**20
