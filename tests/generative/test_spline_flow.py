"""Tests of dlcompanion.generative.spline_flow, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.datasets import two_moons
from dlcompanion.generative import (
    MADE,
    AutoregressiveSplineFlow,
    NeuralSplineFlow,
    SplineCoupling,
    rational_quadratic_spline,
)
from dlcompanion.generative.flows.rational_quadratic_spline import (
    spline_bins,
    spline_unit_slope,
)
from dlcompanion.generative.spline_flow import AutoregressiveSpline
from dlcompanion.testing import check_flow, check_layer, check_model
from dlcompanion.training import fit_in_memory

SMALL = {"event_size": 2, "couplings": 2, "hidden_units": (8,), "bins": 4, "seed": 3}


def points(rows=6, size=4, seed=0, scale=1.2):
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(rows, size)).astype("float32")


def scramble(model, scale=0.7):
    """Weights far from the identity."""
    rng = np.random.default_rng(1)
    shapes = [w.shape for w in model.get_weights()]
    model.set_weights([scale * rng.normal(size=s).astype("float32") for s in shapes])
    return model


def flow_of(scale=0.7, **arguments):
    flow = NeuralSplineFlow(**{**SMALL, **arguments})
    flow.build((None, flow.event_size))
    return scramble(flow, scale)


def conditioner(moved=2, bins=3):
    dense = keras.layers.Dense(moved * (3 * bins - 1), bias_initializer="normal")
    return keras.Sequential([keras.layers.Dense(8, "tanh"), dense])


def test_contract_of_the_layer():
    check_layer(
        SplineCoupling,
        lambda: {"conditioner": conditioner(), "bins": 3, "swap": True},
        points(),
        output_shape=[(6, 4), (6,)],
    )


def test_contract_of_the_model():
    check_model(
        NeuralSplineFlow, {**SMALL, "couplings": 1}, points(8, 2),
        compile_kwargs={"optimizer": "adam"}, output_shape=(8,),
    )  # fmt: skip


def test_contract_of_the_autoregressive_layer():
    check_layer(
        AutoregressiveSpline,
        lambda: {"conditioner": MADE(8, hidden_units=(8,)), "bins": 3},
        points(size=3),
        output_shape=[(6, 3), (6,)],
    )


def test_a_coupling_is_a_spline_for_each_moved_variable():
    x, dense = points(size=5), keras.layers.Dense(3 * 5, bias_initializer="normal")
    coupling = SplineCoupling(dense, bins=2, bound=2.0)
    coupling.build((None, 5))
    scramble(coupling)
    y, log_det = coupling(x)
    raw = ops.convert_to_numpy(dense(x[:, :2]))
    expected = 0.0
    for i in range(3):  # five numbers a variable: 2 widths, 2 heights, 1 slope
        widths, heights, slopes = np.split(raw[:, 5 * i : 5 * i + 5], [2, 4], axis=1)
        bins = spline_bins(widths, heights, slopes + spline_unit_slope(), bound=2.0)
        column, log_slope = rational_quadratic_spline(x[:, 2 + i], *bins, low=-2.0)
        expected += ops.convert_to_numpy(log_slope)
        np.testing.assert_allclose(
            ops.convert_to_numpy(y)[:, 2 + i], ops.convert_to_numpy(column), atol=1e-5
        )
    np.testing.assert_allclose(ops.convert_to_numpy(log_det), expected, atol=1e-4)
    np.testing.assert_array_equal(ops.convert_to_numpy(y)[:, :2], x[:, :2])


def test_inverse_and_log_det_of_the_layers():
    context = points(6, 2, seed=1)
    check_flow(
        SplineCoupling,
        lambda: {"conditioner": conditioner(), "bins": 3, "swap": True},
        points(),
        context=context,
    )
    check_flow(
        AutoregressiveSpline,
        lambda: {"conditioner": MADE(8, hidden_units=(8,)), "bins": 3},
        points(size=3),
        context=context,
        scale=0.1,
    )


@pytest.mark.parametrize(
    "flow_class, size",
    [(NeuralSplineFlow, "couplings"), (AutoregressiveSplineFlow, "blocks")],
)
def test_inverse_log_det_and_density(flow_class, size):
    arguments = {"event_size": 3, size: 2, "hidden_units": (8,), "bins": 4}
    check_flow(flow_class, arguments, points(6, 3))


@pytest.mark.once
def test_density_integrates_to_one():
    flow = flow_of()
    axis = np.linspace(-6, 6, 481, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(ops.convert_to_numpy(flow.log_prob(grid)).astype("float64"))
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 0.01
    assert density.max() > 0.3  # far from the standard normal, whose peak is 0.16


def test_zeros_make_the_identity_and_so_does_the_outside():
    flow, x = NeuralSplineFlow(**{**SMALL, "event_size": 5}), points(4, 5)
    flow.build((None, 5))
    for transform in flow.transforms:
        last = transform.conditioner.layers[-1]
        last.kernel.assign(np.zeros(last.kernel.shape))
    z, log_det = flow.to_noise(x)
    np.testing.assert_allclose(ops.convert_to_numpy(z), x, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(log_det), np.zeros(4), atol=1e-5)
    far = np.array([[50.0, -50.0], [4.0, 3.5]], "float32")
    z, log_det = flow_of().to_noise(far)
    np.testing.assert_array_equal(ops.convert_to_numpy(z), far)
    np.testing.assert_array_equal(ops.convert_to_numpy(log_det), np.zeros(2))


def test_learns_two_moons_and_resumes(tmp_path):
    x, _ = two_moons(256, noise=0.05, seed=0)
    x = (2 * (x - x.mean(0)) / np.abs(x - x.mean(0)).max(0)).astype("float32")
    flow = NeuralSplineFlow(2, 2, (16,), bins=6, seed=0)
    flow.compile(
        keras.optimizers.Adam(2e-2), jit_compile=keras.backend.backend() == "jax"
    )
    settings = {"batch_size": 128, "verbose": 0, "shuffle": False}
    start = float(flow.evaluate(x, verbose=0))
    epochs = 20 if keras.backend.backend() == "torch" else 40
    fit_in_memory(flow, x, epochs=epochs, **settings)
    assert flow.evaluate(x, verbose=0) < start - 0.4
    flow.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    histories = [
        fit_in_memory(f, x, epochs=2, **settings).history for f in (flow, loaded)
    ]
    np.testing.assert_array_equal(histories[0]["loss"], histories[1]["loss"])
    for a, b in zip(flow.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    a, b = (ops.convert_to_numpy(f.sample(4)) for f in (flow, loaded))
    np.testing.assert_array_equal(a, b)


def test_a_conditional_flow_listens():
    flow = NeuralSplineFlow(**SMALL, context_size=3)
    x, context = points(4, 2), points(4, 3, seed=1)
    flow.log_prob(x, context)
    scramble(flow)
    one, other = (
        ops.convert_to_numpy(flow.log_prob(x, c)) for c in (context, context[::-1])
    )
    assert np.abs(one - other).min() > 1e-3


@pytest.mark.parametrize(
    "bad, name",
    [({"bins": 1}, "bins"), ({"bins": 2.5}, "bins"), ({"bound": 0}, "bound")],
)
def test_bad_arguments(bad, name):
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
        NeuralSplineFlow(**{**SMALL, **bad})
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
        SplineCoupling(keras.layers.Dense(22), **bad)
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
        AutoregressiveSpline(MADE(11), **bad)
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
        AutoregressiveSplineFlow(3, **bad)


def test_the_conditioner_must_fit():
    with pytest.raises(ValueError, match=r"must return 11 x 2 outputs. Received: 4"):
        SplineCoupling(keras.layers.Dense(4), bins=4).build((None, 4))
