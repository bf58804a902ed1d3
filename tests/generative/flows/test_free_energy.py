"""Tests of dlcompanion.generative.flows.free_energy, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.generative import (
    FreeEnergy,
    InverseAutoregressiveFlow,
    NormalizingFlow,
    PlanarFlow,
)
from dlcompanion.generative.flows.coupling import DiagonalScaling
from dlcompanion.testing import check_model
from dlcompanion.training import fit_in_memory


@keras.saving.register_keras_serializable(package="test_free_energy")
def bowl(x):
    """A normal density with mean 1 and standard deviation 1/2, without its constant."""
    return 2.0 * ops.sum((x - 1.0) ** 2, axis=-1)


LOG_Z = np.log(2 * np.pi / 4)  # of two variables


def noise(rows, size=2, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, size)).astype("float32")


def test_contract():
    check_model(
        FreeEnergy, lambda: {"flow": PlanarFlow(2, length=2, seed=0), "energy": bowl},
        noise(8), compile_kwargs={"optimizer": "adam"}, output_shape=(8,),
    )  # fmt: skip


def test_an_untrained_flow_in_closed_form():
    flow = NormalizingFlow(2, [DiagonalScaling()])
    z = noise(5)
    flow.build(z.shape)
    flow.transforms[0].log_scale.assign(np.log([2.0, 0.5]))  # x = z / [2, 0.5]
    x = z / [2.0, 0.5]
    log_q = -0.5 * (z**2).sum(1) - np.log(2 * np.pi) + np.log(2.0 * 0.5)
    expected = log_q + 2 * ((x - 1) ** 2).sum(1)
    found = ops.convert_to_numpy(FreeEnergy(flow, bowl)(z))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.once
def test_it_bounds_the_constant_and_reaches_it():
    flow = InverseAutoregressiveFlow(2, blocks=2, hidden_units=(8,), seed=0)
    model = FreeEnergy(flow, bowl)
    model.compile(keras.optimizers.Adam(0.03))
    fresh = noise(256, seed=1)
    before = model.evaluate(fresh, verbose=0)
    fit_in_memory(model, noise(4096), batch_size=256, epochs=12, verbose=0)
    after = model.evaluate(fresh, verbose=0)
    np.testing.assert_allclose(after, model.predict(fresh, verbose=0).mean(), rtol=1e-4)
    assert before > -LOG_Z + 1
    assert -LOG_Z - 0.02 < after < -LOG_Z + 0.02
    sample = ops.convert_to_numpy(flow.sample(2000))
    np.testing.assert_allclose(sample.mean(0), 1.0, atol=0.1)
    np.testing.assert_allclose(sample.std(0), 0.5, atol=0.1)


def test_bad_arguments():
    with pytest.raises(ValueError, match="without context. Received: flow="):
        FreeEnergy(keras.layers.Dense(2), bowl)
    model = FreeEnergy(PlanarFlow(2, length=1), lambda x: x)
    with pytest.raises(ValueError, match=r"shape \(batch,\). Received: shape=\(4, 2\)"):
        model(noise(4))


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((4, 3), "float32"), r"shape \(batch, 2\).*Received: shape="),
        (np.full((4, 2), np.nan), "finite data. Received: 4 rows"),
    ],
)
def test_noise_is_checked_at_the_door(x, message):
    model = FreeEnergy(PlanarFlow(2, length=1), bowl)
    model.compile("sgd")
    for method in (model.fit, model.evaluate, model.predict):
        with pytest.raises(ValueError, match=message):
            method(x, verbose=0)
    with pytest.raises(ValueError, match="noise alone. Received: targets or weights"):
        model.fit(noise(4), noise(4), verbose=0)
