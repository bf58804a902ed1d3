"""Tests of dlcompanion.checks."""

import math

import keras
import numpy as np
import pytest

from dlcompanion import checks
from dlcompanion.probability.values import SCALE_FLOOR, positive, unconstrained

NAN = float("nan")
ROWS = np.array([[0.2, 0.8], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (lambda v: checks.check_count("n", v), [1, np.int64(7)]),
        (lambda v: checks.check_count("n", v, least=0), [0]),
        (lambda v: checks.check_number("x", v, -1, 1), [-1, 0.5, np.float32(1)]),
        (lambda v: checks.check_share("x", v), [0, 1.0, np.float32(0.5)]),
        (lambda v: checks.check_boolean("b", v), [True, False]),
        (lambda v: checks.check_choice("c", v, ("a", "b")), ["a", "b"]),
    ],
)
def test_what_is_allowed_is_given_back(check, good):
    for value in good:
        found = check(value)
        assert found == value and type(found) in (int, float, bool, str)


@pytest.mark.parametrize(
    ("check", "bad", "rule"),
    [
        (
            lambda v: checks.check_count("n", v),
            [0, 1.0, True, "1", None, NAN],
            "n must be an integer of at least 1. Received: n=",
        ),
        (
            lambda v: checks.check_number("x", v),
            [-1, math.inf, NAN, True, "1", None],
            "x must be a finite number of at least 0. Received: x=",
        ),
        (
            lambda v: checks.check_number("x", v, 0, 1, open_ends=True),
            [0, 1, 2],
            "x must be a finite number between 0 and 1, both excluded. Received: x=",
        ),
        (
            lambda v: checks.check_number("x", v, open_ends=True),
            [0, -1],
            "x must be a finite number above 0. Received: x=",
        ),
        (
            lambda v: checks.check_share("x", v),
            [-0.1, 1.1, NAN, True, "1"],
            r"x must lie in \[0, 1\]. Received: x=",
        ),
        (
            lambda v: checks.check_share("x", v, zero=False),
            [0, 1.1],
            r"x must lie in \(0, 1\]. Received: x=",
        ),
        (
            lambda v: checks.check_share("x", v, one=False),
            [1, 1.0],
            r"x must lie in \[0, 1\). Received: x=",
        ),
        (
            lambda v: checks.check_boolean("b", v),
            [1, 0, None, "True", np.True_],
            "b must be a boolean. Received: b=",
        ),
        (
            lambda v: checks.check_choice("c", v, ("a", "b")),
            ["c", "", None, 1, ["a"]],
            "c must be one of 'a', 'b'. Received: c=",
        ),
    ],
)
def test_arguments_that_are_refused(check, bad, rule):
    for value in bad:
        with pytest.raises(ValueError, match=rule):
            check(value)


def test_finite_values_and_where_they_are_not():
    for values in (ROWS, keras.ops.ones((3,)), [1, 2], np.zeros((0, 2))):
        checks.check_finite("x", values)
    bad = np.array([[0.0, 1.0], [NAN, 1.0], [math.inf, NAN]])
    with pytest.raises(ValueError, match=r"x must be finite. Received: 2 rows .* x\[1"):
        checks.check_finite("x", bad)
    with pytest.raises(ValueError, match=r"No gaps. Received: 1 rows .*first y\[0\]"):
        checks.check_finite("y", keras.ops.array([NAN, 1.0]), "No gaps")


def test_probabilities():
    for p in (ROWS, np.array([[0.3], [1.0]]), ROWS[None], np.float32(ROWS) + 4e-4):
        checks.check_probabilities("p", np.clip(p, 0, 1))
    for bad in (
        ROWS * 0.99,
        np.array([[-0.1, 1.1]]),
        np.array([[NAN, 1.0]]),
        np.array([[1.2]]),
        ROWS[:0],
    ):
        with pytest.raises(
            ValueError, match="p must be probabilities.*Received: shape"
        ):
            checks.check_probabilities("p", bad)


def test_labels():
    for good in ([0, 2, 1], [[0], [2], [1]], [0.0, 2.0, 1.0], np.uint8([0, 2, 1])):
        found = checks.check_labels("y", good, classes=3, count=3)
        assert found.dtype == "int32" and found.tolist() == [0, 2, 1]
    assert checks.check_labels("y", [True, False], 2, 2).tolist() == [1, 0]
    assert checks.check_labels("y", np.zeros(0, int), 2, 0).shape == (0,)
    for bad in (
        [0, 3, 1],
        [0, -1, 1],
        [0, 1],
        [0.5, 1, 1],
        [NAN, 1, 1],
        np.eye(3),
        ["a", "b", "c"],
    ):
        with pytest.raises(
            ValueError, match="y must be 3 whole numbers.*Received: y of"
        ):
            checks.check_labels("y", bad, classes=3, count=3)


def test_a_scale_is_positive_and_comes_back():
    rho = np.array([-1e4, -200.0, -3.0, 0.0, 5.0, 1e4], "float32")
    scale = positive(keras.ops.array(rho))
    found = keras.ops.convert_to_numpy(scale)
    assert found[0] == found[1] == np.float32(SCALE_FLOOR)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(unconstrained(scale))[2:],
        rho[2:],
        rtol=2e-4,
        atol=2e-5,
    )
    assert np.isfinite(keras.ops.convert_to_numpy(unconstrained(scale))).all()
    distance = (np.float32(1e14) / found[0]) ** 2
    assert np.isfinite(distance) and np.isfinite(np.log(found)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_probabilities_sum_to_one_in_the_precision_of_their_dtype(dtype):
    z = 3 * np.random.default_rng(0).normal(size=(400, 7))
    p = keras.ops.softmax(keras.ops.convert_to_tensor(z, dtype))
    p = keras.ops.convert_to_numpy(p)
    single = p.astype("float32")
    assert np.abs(single.sum(axis=1) - 1).max() > 3e-4
    for given in (p, single, p.astype("float64")):
        checks.check_probabilities("p", given)
    for bad in ((0.95 * p).astype(p.dtype), single + np.float32(0.001)):
        with pytest.raises(ValueError, match="of sum 1 where there are several"):
            checks.check_probabilities("p", bad)
