"""Tests of dlcompanion.optimization.rectified_adam.

The reference and the contract of every optimizer: tests/test_optimizer_table.py.
"""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion.optimization import RectifiedAdam
from dlcompanion.optimization.rectified_adam import first_rectified_step, rectification
from dlcompanion.testing import check_optimizer

REFERENCES = Path(__file__).parents[1] / "references"


def test_contract_with_other_arguments():
    more = {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6, "threshold": 4.5}
    check_optimizer(RectifiedAdam, {"learning_rate": 0.02, **more})


def rho(step, beta_2):
    """The formula of the paper, in float64."""
    return 2 / (1 - beta_2) - 1 - 2 * step * beta_2**step / (1 - beta_2**step)


def rectification_of_the_paper(step, beta_2):
    limit, now = 2 / (1 - beta_2) - 1, rho(step, beta_2)
    return math.sqrt((now - 4) * (now - 2) * limit / ((limit - 4) * (limit - 2) * now))


def test_the_length_of_the_average_in_the_first_steps():
    lengths = [rho(step, 0.999) for step in range(1, 7)]
    np.testing.assert_allclose(lengths, [1, 2, 3, 4, 5, 6], atol=0.01)
    assert lengths[3] < 4 and 4.99 < lengths[4] < 5
    assert rectification_of_the_paper(6, 0.999) == pytest.approx(0.02582, abs=1e-5)
    assert rectification_of_the_paper(5, 0.999) == pytest.approx(0.01731, abs=1e-5)


@pytest.mark.parametrize(
    ("beta_2", "threshold", "first"),
    [
        (0.999, 5.0, 6),
        (0.999, 4.0, 5),
        (0.9999, 5.0, 6),
        (0.99, 5.0, 6),
        (0.9, 5.0, 6),
        (0.6, 5.0, None),  # the limit is 4
        (0.0, 4.0, None),
    ],
)
def test_the_first_rectified_step(beta_2, threshold, first):
    assert first_rectified_step(beta_2, threshold) == first
    if first:
        assert rho(first, beta_2) > threshold >= rho(first - 1, beta_2)


@pytest.mark.parametrize("beta_2", [0.9, 0.99, 0.999, 0.9999])
def test_rectification_is_that_of_the_paper_at_every_step(beta_2):
    first = first_rectified_step(beta_2)
    for step in [*range(1, 60), 100, 1000, 10_000, 10**7]:
        is_rectified, r = rectification(ops.convert_to_tensor(float(step)), beta_2)
        assert bool(is_rectified) == (step >= first)
        if step >= first:
            wanted = rectification_of_the_paper(step, beta_2)
            assert float(r) == pytest.approx(wanted, rel=2e-5)


def test_the_early_steps_are_momentum_and_go_down():
    """On w^2 / 2 from 1 no step climbs, and the second moment does not enter."""
    weight, m = keras.Variable([1.0]), 0.0
    optimizer = RectifiedAdam(0.01)
    for step in range(1, 6):
        before = float(numpy(weight)[0])
        m = 0.9 * m + 0.1 * before
        optimizer.apply([ops.convert_to_tensor(weight) * 1.0], [weight])
        after = float(numpy(weight)[0])
        assert after == pytest.approx(before - 0.01 * m / (1 - 0.9**step), abs=1e-7)
        assert after < before


def test_late_steps_are_adams():
    """The factor tends to 1, and nothing overflows at step ten million."""
    ours, theirs = keras.Variable([1.0, -2.0]), keras.Variable([1.0, -2.0])
    pair = [(RectifiedAdam(0.1), ours), (keras.optimizers.Adam(0.1), theirs)]
    for optimizer, weight in pair:
        optimizer.build([weight])
        optimizer._iterations.assign(10**7)
        for gradient in ([1.0, 2.0], [0.5, -1.0]):
            optimizer.apply([ops.convert_to_tensor(gradient)], [weight])
    np.testing.assert_allclose(numpy(ours), numpy(theirs), rtol=1e-5)


def test_pytorch_optimizer_is_another_rule():
    """Its early steps do not move; the vectors are those of torch."""
    reference = np.load(REFERENCES / "rectified_adam.npz")
    meta = json.loads(str(reference["meta"]))
    assert set(meta["libraries"]) == {"optax", "torch"}
    step = reference["in/p0"] - reference["out/torch/0"][0]
    np.testing.assert_allclose(step, 0.05 * reference["in/g0"][0], rtol=1e-3, atol=1e-6)
    apart = np.abs(reference["out/torch/0"] - reference["out/optax_paper/0"])
    assert apart[:4].max() < 1e-6 and apart[4:].max() > 0.03


def test_half_precision_counts_its_steps_in_float32():
    weight = keras.Variable(np.ones(3), dtype="float16")
    optimizer = RectifiedAdam(0.01, epsilon=1e-4)
    optimizer.build([weight])
    optimizer._iterations.assign(70_000)  # not to be had in float16
    optimizer.apply([ops.ones((3,), "float16")], [weight])
    assert np.all(np.isfinite(numpy(weight))) and np.all(numpy(weight) < 1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beta_1": 1.0}, r"beta_1 must lie in \[0, 1\)"),
        ({"beta_2": -0.1}, r"beta_2 must lie in \[0, 1\)"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"threshold": 3.0}, "threshold must be"),
    ],
)
def test_refuses_what_breaks_a_rule(bad, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        RectifiedAdam(**bad)
