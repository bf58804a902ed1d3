"""Tests of dlcompanion.optimization.adaptive_gradient_clipping.

The reference and the contract of every optimizer: tests/test_optimizer_table.py.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal, numpy
from keras import layers, ops

from dlcompanion.optimization import AdaptiveGradientClipping
from dlcompanion.testing import check_optimizer

REFERENCES = Path(__file__).parents[1] / "references"


def test_contract_around_momentum():
    inner = {"inner_optimizer": keras.optimizers.SGD(0.05, momentum=0.5)}
    more = {"clipping": 0.2, "epsilon": 0.1}
    check_optimizer(AdaptiveGradientClipping, {**inner, **more})


def test_the_recorded_vectors_clip_some_steps_and_not_others():
    reference = np.load(REFERENCES / "adaptive_gradient_clipping.npz")
    meta = json.loads(str(reference["meta"]))
    norms = np.linalg.norm(reference["in/g1"], axis=(1, 2)).max(axis=(1, 2))
    largest = meta["clipping"] * np.linalg.norm(
        reference["in/p1"].reshape(-1, 5), axis=0
    )
    assert norms[0] < largest.min() < largest.max() < norms[-1]


def passed_on(start, gradient, name="kernel", **more):
    """What an optimizer inside is given."""
    variable = keras.Variable(np.array(start, "float32"), name=name)
    optimizer = AdaptiveGradientClipping(keras.optimizers.SGD(1.0), **more)
    optimizer.apply([ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
    return start - numpy(variable)


def test_each_column_by_the_length_of_its_weights():
    found = passed_on(np.ones((2, 3)), 100 * normal(2, 3), clipping=0.01)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 0.014142, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("kernel", (4, 3), (0,)),
        ("kernel", (2, 4, 3), (0, 1)),
        ("kernel", (3, 3, 4, 2), (0, 1, 2)),
        ("kernel", (2, 2, 2, 3, 2), (0, 1, 2, 3)),
        ("depthwise_kernel", (3, 3, 4, 2), (0, 1)),
        ("bias", (4,), (0,)),
        ("bias", (2, 3), (0, 1)),
        ("embeddings", (5, 3), (1,)),
    ],
)
def test_a_unit_is_that_of_the_layout_of_keras(name, shape, axes):
    start, gradient = 3 * normal(*shape), 10 * normal(*shape, seed=1)
    found = passed_on(start, gradient, name, clipping=0.1)
    norm = np.sqrt(np.sum(np.square(gradient), axis=axes, keepdims=True))
    largest = 0.1 * np.sqrt(np.sum(np.square(start), axis=axes, keepdims=True))
    wanted = gradient * np.minimum(1.0, largest / norm)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_short_gradient_is_passed_on_bit_for_bit():
    gradient = 2.0**-12 * np.sign(normal(4, 3))
    np.testing.assert_array_equal(passed_on(np.ones((4, 3)), gradient), gradient)


def test_what_begins_at_zero_moves():
    found = passed_on(np.zeros((4, 3)), 1e3 * normal(4, 3), clipping=0.5, epsilon=0.1)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), 0.05, rtol=1e-5)


def test_a_gradient_whose_square_overflows_is_clipped():
    found = passed_on(np.ones((2, 1)), [[3e30], [4e30]], clipping=0.1)
    np.testing.assert_allclose(
        found[:, 0], np.sqrt(0.02) * np.array([0.6, 0.8]), rtol=1e-4
    )


def test_what_is_not_finite_is_passed_on():
    found = passed_on(np.ones((2, 2)), [[np.nan, 1e3], [0.0, 1e3]], clipping=0.1)
    assert np.isnan(found[0, 0]) and np.isfinite(found[:, 1]).all()
    assert np.linalg.norm(found[:, 1]) == pytest.approx(np.sqrt(0.02), rel=1e-4)


def test_what_is_done_with_each_variable_can_be_printed():
    model = keras.Sequential([keras.Input((5, 4)), layers.Conv1D(4, 2, name="conv")])
    model.add(layers.Dense(2, name="head"))
    optimizer = AdaptiveGradientClipping("sgd", exclude=["head"])
    optimizer.build(model.trainable_variables)
    rules = {"/".join(k.split("/")[-2:]): v for k, v in optimizer.rules().items()}
    assert rules == {
        "conv/kernel": (0, 1),
        "conv/bias": (0,),
        "head/kernel": None,
        "head/bias": None,
    }


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"clipping": 0.0}, "clipping must be"),
        ({"epsilon": -1.0}, "epsilon must be"),
        ({"exclude": "head"}, "exclude must be a list"),
    ],
)
def test_refuses_what_breaks_a_rule(bad, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        AdaptiveGradientClipping("sgd", **bad)
