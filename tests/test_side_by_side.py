"""Tests of dlcompanion.training.side_by_side."""

import keras
import numpy as np
import pytest
from helpers.models import scramble

from dlcompanion.training import evaluate_members, member_orders


@pytest.mark.once
def test_each_network_sees_each_example_once_an_epoch_in_its_own_order():
    orders = member_orders(20, 3, 4, np.random.default_rng(0))
    epochs = orders.reshape(4, 20, 3)
    np.testing.assert_array_equal(
        np.sort(epochs, axis=1), np.broadcast_to(np.arange(20)[:, None], (4, 20, 3))
    )
    columns = {tuple(epochs[e, :, m]) for e in range(4) for m in range(3)}
    assert len(columns) == 12
    again = member_orders(20, 3, 4, np.random.default_rng(0))
    np.testing.assert_array_equal(orders, again)


def test_scores_are_those_of_each_network_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 5)).astype("float32"), rng.integers(0, 4, 30)
    dense = keras.layers.EinsumDense("bmi,mio->bmo", (3, 4), bias_axes="mo")
    model = scramble(keras.Sequential([keras.Input((3, 5)), dense]))
    losses, accuracies = evaluate_members(model, x, y)
    assert losses.shape == accuracies.shape == (3,)
    kernel, bias = model.get_weights()
    for member in range(3):
        alone = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
        alone.set_weights([kernel[member], bias[member]])
        cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        alone.compile(loss=cross_entropy, metrics=["accuracy"])
        expected = alone.evaluate(x, y, batch_size=30, verbose=0)
        found = losses[member], accuracies[member]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.once
def test_refuses():
    for wrong in ({"examples": 0}, {"members": 1.5}, {"epochs": -1}):
        given = {"examples": 3, "members": 2, "epochs": 1, **wrong}
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*Received: "):
            member_orders(**given, rng=np.random.default_rng(0))
    flat = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="members, classes.*Received: "):
        evaluate_members(flat, np.ones((4, 3)), np.zeros(4))
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Identity()])
    for labels in ([0, 3], [0], [0.5, 1]):
        with pytest.raises(ValueError, match="Received: "):
            evaluate_members(model, np.ones((2, 3)), labels)
