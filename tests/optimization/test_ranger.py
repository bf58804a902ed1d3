"""Tests of dlcompanion.optimization.ranger.

The reference and the contract of every optimizer: tests/test_optimizer_table.py.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal, numpy
from helpers.models import state
from keras import layers, ops

from dlcompanion.optimization import (
    GradientCentralization,
    Lookahead,
    Ranger,
    RectifiedAdam,
)
from dlcompanion.testing import check_optimizer

REFERENCES = Path(__file__).parents[1] / "references"


def test_contract_with_other_arguments():
    more = {"beta_1": 0.9, "k": 3, "alpha": 0.8, "weight_decay": 0.01, "beta_2": 0.99}
    check_optimizer(Ranger, {"learning_rate": 0.02, **more}, skip=["solves"])


def trained(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh", name="body")])
    model.add(layers.Dense(2, name="head"))
    model.compile(optimizer, "mse")
    model.fit(normal(40, 4), normal(40, 2, seed=1), 4, verbose=0, shuffle=False)
    return state(model)


def test_is_exactly_the_composition_of_its_parts():
    rate = keras.optimizers.schedules.CosineDecay(0.05, 20)
    ranger = Ranger(
        rate,
        0.8,
        0.9,
        1e-6,
        k=4,
        alpha=0.3,
        exclude=["head"],
        clipnorm=1.0,
        threshold=4,
    )
    adam = RectifiedAdam(rate, 0.8, 0.9, 1e-6, clipnorm=1.0, threshold=4)
    parts = Lookahead(GradientCentralization(adam, ["head"]), k=4, alpha=0.3)
    for a, b in zip(trained(ranger), trained(parts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_first_steps_go_down_the_centralized_gradient():
    kernel, gradient = keras.Variable(np.ones((4, 3)), name="kernel"), normal(4, 3)
    Ranger(0.1).apply([ops.convert_to_tensor(gradient)], [kernel])
    wanted = 1.0 - 0.1 * (gradient - gradient.mean(axis=0))
    np.testing.assert_allclose(numpy(kernel), wanted, rtol=1e-5, atol=1e-6)


def test_no_step_climbs_before_rectification():
    weight, optimizer = keras.Variable([1.0]), Ranger(0.01)
    path = [1.0]
    for _ in range(5):
        optimizer.apply([ops.convert_to_tensor(weight) * 1.0], [weight])
        path.append(float(numpy(weight)[0]))
    assert np.all(np.diff(path) < 0)


def test_the_reference_goes_down_too():
    """pytorch_optimizer climbs unless it is told not to: the vectors do not."""
    reference = np.load(REFERENCES / "ranger.npz")
    assert "pytorch_optimizer" in json.loads(str(reference["meta"]))["libraries"]
    step = reference["in/p1"] - reference["out/ranger/1"][0]
    np.testing.assert_allclose(step, 0.05 * reference["in/g1"][0], rtol=1e-4, atol=1e-6)


def test_comes_back_with_its_schedule_and_its_parts():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    optimizer = Ranger(schedule, k=3, exclude=["b"], threshold=4.0, weight_decay=0.1)
    again = keras.optimizers.get(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert (again.k, again.inner_optimizer.exclude, again.weight_decay) == (
        3,
        ["b"],
        0.1,
    )
    assert again.inner_optimizer.inner_optimizer.threshold == 4.0
    assert float(again.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [{"k": 0}, {"beta_1": 1.0}, {"exclude": "bias"}])
def test_refuses_what_its_parts_refuse(bad):
    with pytest.raises(ValueError, match="must.*Received: "):
        Ranger(**bad)
