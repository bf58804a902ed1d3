"""Tests of dlcompanion.optimization.gradient_centralization.

The reference and the contract of every optimizer: tests/test_optimizer_table.py.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal, numpy
from keras import layers, ops

from dlcompanion.optimization import GradientCentralization
from dlcompanion.testing import check_optimizer

REFERENCES = Path(__file__).parents[1] / "references"


def test_contract_around_momentum():
    inner = {"inner_optimizer": keras.optimizers.SGD(0.05, momentum=0.5)}
    check_optimizer(GradientCentralization, inner, skip=["solves"])


def test_finds_weights_whose_sum_is_that_of_the_start():
    """The sample problem of the contract asks for another sum."""
    x = normal(32, 4)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(1, kernel_initializer="zeros")]
    )
    model.compile(GradientCentralization(keras.optimizers.SGD(0.1)), "mse")
    wanted = np.array([[1.0], [-2.0], [0.5], [0.5]])
    model.fit(x, x @ wanted + 3.0, epochs=100, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], wanted, atol=1e-3)
    np.testing.assert_allclose(model.get_weights()[1], [3.0], atol=1e-3)


def test_the_recorded_vectors_are_of_fifty_steps_in_the_layout_of_keras():
    reference = np.load(REFERENCES / "gradient_centralization.npz")
    assert json.loads(str(reference["meta"]))["libraries"]["optax"] == "0.2.8"
    assert reference["out/adam/1"].shape == (50, 2, 3, 5)
    # SGD with momentum leaves the sum of each unit's weights where it started
    path, start = reference["out/sgd/0"], reference["in/p0"]
    np.testing.assert_allclose(
        path.sum(axis=1), start.sum(axis=0)[None] + 0 * path[:, 0], atol=2e-5
    )


def passed_on(variable, gradient):
    """What an optimizer inside is given."""
    before = numpy(variable).copy()
    optimizer = GradientCentralization(keras.optimizers.SGD(1.0))
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    return before - numpy(variable)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (3, 3, 4, 2), (2, 2, 2, 3, 2)])
def test_the_mean_of_each_unit_is_zero(shape):
    kernel = keras.Variable(np.zeros(shape, "float32"), name="kernel")
    gradient = normal(*shape)
    found = passed_on(kernel, gradient)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(found.mean(axis=axes), 0.0, atol=1e-7)
    np.testing.assert_allclose(
        found, gradient - gradient.mean(axis=axes, keepdims=True), atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "shape"), [("bias", (4,)), ("bias", (2, 3)), ("embeddings", (5, 3))]
)
def test_biases_and_embeddings_are_left_alone(name, shape):
    gradient = normal(*shape)
    variable = keras.Variable(np.zeros(shape, "float32"), name=name)
    np.testing.assert_array_equal(passed_on(variable, gradient), gradient)


def test_the_sum_of_the_weights_of_a_unit_stays_under_sgd():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    )
    sgd = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(GradientCentralization(sgd), "mse")
    before = [w.sum(axis=0) for w in model.get_weights()[::2]]
    model.fit(normal(32, 5), normal(32, 2, seed=1), epochs=5, verbose=0)
    after = [w.sum(axis=0) for w in model.get_weights()[::2]]
    for a, b in zip(after, before, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_is_done_with_each_variable_can_be_printed():
    model = keras.Sequential([keras.Input((3, 4)), layers.Dense(5, name="first")])
    model.add(layers.Conv1D(4, 2, name="conv"))
    model.add(layers.Dense(2, name="head"))
    optimizer = GradientCentralization("adam", exclude=["head"])
    optimizer.build(model.trainable_variables)
    rules = {"/".join(k.split("/")[-2:]): v for k, v in optimizer.rules().items()}
    assert rules == {
        "first/kernel": (0,),
        "first/bias": None,
        "conv/kernel": (0, 1),
        "conv/bias": None,
        "head/kernel": None,
        "head/bias": None,
    }


def test_refuses_patterns_that_are_none_and_that_select_nothing():
    with pytest.raises(ValueError, match="exclude must be a list.*Received: exclude"):
        GradientCentralization("sgd", exclude="head")
    optimizer = GradientCentralization("sgd", exclude=["head"])
    with pytest.raises(ValueError, match="exclude: each pattern must occur.*Received"):
        optimizer.build([keras.Variable(np.ones((2, 2)), name="kernel")])
