"""Tests of dlcompanion.optimization.lars.

The reference and the contract of every optimizer: tests/test_optimizer_table.py.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal, numpy
from keras import layers, ops

from dlcompanion.optimization import LARS
from dlcompanion.testing import check_optimizer

REFERENCES = Path(__file__).parents[1] / "references"


def test_contract_with_other_arguments():
    more = {"l2": 0.01, "momentum": 0.5, "trust_coefficient": 0.1, "epsilon": 1e-3}
    check_optimizer(LARS, {"learning_rate": 0.5, **more})


def test_the_recorded_vectors_move_each_kernel_by_its_share():
    reference = np.load(REFERENCES / "lars.npz")
    meta = json.loads(str(reference["meta"]))
    for i in (0, 1):
        start, after = reference[f"in/p{i}"], reference[f"out/plain/{i}"][0]
        share = np.linalg.norm(after - start) / np.linalg.norm(start)
        assert share == pytest.approx(meta["rate"] * meta["trust"], rel=1e-5)


def kernel_of(values, name="kernel"):
    return keras.Variable(np.array(values, "float32"), name=name)


def apply(optimizer, variable, gradient):
    before = numpy(variable).copy()
    optimizer.apply([ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
    return before - numpy(variable)


@pytest.mark.parametrize("size", [1e-25, 1e-3, 1.0, 1e25])
def test_the_step_does_not_depend_on_the_size_of_the_gradient(size):
    kernel = kernel_of(normal(4, 3))
    length = np.linalg.norm(numpy(kernel))
    step = apply(LARS(0.5, trust_coefficient=0.1), kernel, size * normal(4, 3, seed=1))
    assert np.linalg.norm(step) == pytest.approx(0.05 * length, rel=1e-5)


def test_a_kernel_of_zeros_moves_and_a_gradient_of_zeros_does_not_move_it():
    kernel, gradient = kernel_of(np.zeros((2, 2))), normal(2, 2)
    step = apply(LARS(0.5, trust_coefficient=0.1), kernel, gradient)
    np.testing.assert_allclose(step, 0.5 * gradient, rtol=1e-6)
    kernel = kernel_of(np.ones((2, 2)))
    assert np.all(apply(LARS(0.5), kernel, np.zeros((2, 2))) == 0)


def test_past_steps_stay_as_they_were_made():
    """A rate that is halved leaves the velocity: v is in units of the weights."""
    kernel, zeros = kernel_of(np.ones((2, 2))), np.zeros((2, 2))
    optimizer = LARS(1.0, momentum=0.5, trust_coefficient=0.1)
    first = apply(optimizer, kernel, np.ones((2, 2)))
    optimizer.learning_rate = 0.5
    np.testing.assert_allclose(apply(optimizer, kernel, zeros), first / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape"), [("bias", (3,)), ("bias", (2, 3)), ("gamma", (2, 2))]
)
def test_biases_and_normalization_get_plain_momentum(name, shape):
    start, gradients = normal(*shape), normal(3, *shape, seed=1)
    ours, theirs = kernel_of(start, name), kernel_of(start, name)
    kernel, zeros = kernel_of(np.ones((2, 2))), ops.zeros((2, 2))
    optimizer = LARS(0.1, momentum=0.8, l2=0.5, weight_decay=0.5)
    plain = keras.optimizers.SGD(0.1, momentum=0.8)
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient), zeros], [ours, kernel])
        apply(plain, theirs, gradient)
    np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=1e-5, atol=1e-6)


def test_the_decay_of_the_paper_is_within_the_ratio():
    """Without a gradient the kernel shrinks by rate * trust, whatever l2 is."""
    for l2 in (0.01, 10.0):
        kernel = kernel_of(normal(3, 2))
        before = numpy(kernel).copy()
        apply(LARS(0.5, trust_coefficient=0.2, l2=l2), kernel, np.zeros((3, 2)))
        np.testing.assert_allclose(numpy(kernel), 0.9 * before, rtol=1e-5)


def model():
    return keras.Sequential(
        [
            keras.Input((6, 4)),
            layers.Conv1D(4, 2, name="conv"),
            layers.LayerNormalization(name="norm"),
            layers.Dense(2, name="head"),
        ]
    )


def test_what_is_done_with_each_variable_can_be_printed():
    optimizer = LARS(exclude_from_adaptation=["head"], exclude_from_decay=["conv"])
    optimizer.build(model().trainable_variables)
    rules = {"/".join(k.split("/")[-2:]): v for k, v in optimizer.rules().items()}
    assert rules == {  # (adapted, decayed)
        "conv/kernel": (True, False),
        "conv/bias": (False, False),
        "norm/gamma": (False, False),
        "norm/beta": (False, False),
        "head/kernel": (False, True),
        "head/bias": (False, False),
    }


def test_the_share_of_the_weights_is_that_of_all_layers():
    network = model()
    network.compile(LARS(1.0, momentum=0.0, trust_coefficient=0.02), "mse")
    before = network.get_weights()
    network.train_on_batch(normal(8, 6, 4), normal(8, 5, 2, seed=1))
    shares = [
        np.linalg.norm(b - a) / np.linalg.norm(a)
        for a, b in zip(before, network.get_weights(), strict=True)
        if a.ndim > 1
    ]
    np.testing.assert_allclose(shares, 0.02, rtol=1e-4)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"trust_coefficient": 0.0}, "trust_coefficient must be"),
        ({"l2": -1.0}, "l2 must be"),
        ({"epsilon": -1.0}, "epsilon must be"),
        ({"exclude_from_decay": "bias"}, "exclude_from_decay must be a list"),
        ({"exclude_from_adaptation": ["("]}, "exclude_from_adaptation must be a list"),
    ],
)
def test_refuses_what_breaks_a_rule(bad, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        LARS(**bad)


def test_refuses_exclusions_that_would_not_be_saved():
    with pytest.raises(ValueError, match="exclude_from_decay.*Received: var_list"):
        LARS(weight_decay=0.1).exclude_from_weight_decay(var_names=["bias"])
