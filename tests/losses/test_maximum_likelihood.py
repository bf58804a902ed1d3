"""Tests of dlcompanion.losses.maximum_likelihood."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal
from keras import ops

from dlcompanion import autodiff
from dlcompanion.losses import (
    BetaNLL,
    GaussianNLL,
    MixtureNLL,
    NegativeLogLikelihood,
    QuantileLoss,
    StudentTNLL,
)
from dlcompanion.probability import MixtureNormalSpec, NormalSpec
from dlcompanion.testing import check_loss
from dlcompanion.training import fit_in_memory

VECTORS = Path(__file__).parents[1] / "references" / "maximum_likelihood.npz"
ONE = math.log(math.e - 1)  # softplus of it is 1
LOSSES = {
    "gaussian": (GaussianNLL, {}, "two"),
    "student": (StudentTNLL, {"df": 3.0}, "two"),
    "beta": (BetaNLL, {"beta": 0.5}, "two"),
    "mixture": (MixtureNLL, {"components": 3}, "mixture"),
}


def value_and_gradient(loss, y, params):
    y = ops.convert_to_tensor(y)
    value, gradient = autodiff.value_and_grad(lambda p: loss(y, p))(params)
    return float(value), ops.convert_to_numpy(gradient)


# -- contract -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LOSSES, "quantile"])
def test_contract(name):
    kinds = {**LOSSES, "quantile": (QuantileLoss, {"quantiles": [0.1, 0.7]}, None)}
    loss_class, arguments, _ = kinds[name]
    outputs = loss_class(**arguments).outputs(1)
    # the gradient of beta-NLL is on purpose not that of its value
    skip = ("gradient",) if name == "beta" else ()
    check_loss(
        loss_class, arguments, normal(4, 1), normal(4, outputs, seed=1), skip=skip
    )


# -- reference ----------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_of_pytorch(name):
    stored = np.load(VECTORS)
    loss_class, arguments, params = LOSSES[name]
    y, params = stored["in/y"], stored[f"in/{params}"]
    each = loss_class(**arguments, reduction=None)(y, params)
    np.testing.assert_allclose(
        ops.convert_to_numpy(each), stored[f"out/{name}"], rtol=1e-5, atol=1e-5
    )
    _, gradient = value_and_gradient(
        loss_class(**arguments, reduction="sum"), y, params
    )
    np.testing.assert_allclose(gradient, stored[f"g/{name}"], rtol=1e-4, atol=1e-5)


def test_values_of_scikit_learn():
    stored = np.load(VECTORS)
    y, predicted = stored["in/y"][:, :1], stored["in/two"][:, :3]
    for i, level in enumerate([0.1, 0.5, 0.95]):
        value = float(QuantileLoss([level])(y, predicted[:, i : i + 1]))
        assert value == pytest.approx(stored["out/quantile"][i], rel=1e-5)
    together = float(QuantileLoss([0.1, 0.5, 0.95])(y, predicted))
    assert together == pytest.approx(stored["out/quantile"].mean(), rel=1e-5)


# -- laws ---------------------------------------------------------------------------


def test_at_fixed_spread_it_is_the_squared_error():
    y, mean = normal(6, 1), normal(6, 1, seed=1)
    rho = np.full_like(mean, math.log(math.expm1(1 - 1e-5)))  # sigma is 1
    value, gradient = value_and_gradient(GaussianNLL(), y, np.hstack([mean, rho]))
    squared, by_mean = value_and_gradient(keras.losses.MeanSquaredError(), y, mean)
    assert value == pytest.approx(squared / 2 + math.log(2 * math.pi) / 2, rel=1e-6)
    np.testing.assert_allclose(gradient[:, :1], by_mean / 2, rtol=1e-5)


def test_limits():
    y, params = normal(6, 2), normal(6, 4, seed=1)
    value, gradient = value_and_gradient(GaussianNLL(), y, params)
    logits = np.full((6, 1), 2.0, "float32")
    for loss, given, shift in [
        (StudentTNLL(df=1e6), params, 0),
        (MixtureNLL(1), np.hstack([logits, params]), 1),
        (BetaNLL(0.0), params, 0),
    ]:
        other, its = value_and_gradient(loss, y, given)
        assert other == pytest.approx(value, rel=1e-4)
        np.testing.assert_allclose(its[:, shift:], gradient, rtol=1e-3, atol=1e-5)
    # with beta 1 the mean has the gradient of the squared error, whatever the spread
    _, gradient = value_and_gradient(BetaNLL(1.0, reduction="sum"), y, params)
    np.testing.assert_allclose(gradient[:, :2], params[:, :2] - y, rtol=1e-4, atol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("name", ["gaussian", "student", "mixture"])
def test_densities_integrate_to_one(name):
    loss_class, arguments, _ = LOSSES[name]
    loss = loss_class(**arguments, reduction=None)
    side = np.sinh(np.linspace(-9, 9, 2001)).astype("float32")[:, None]
    params = np.repeat(normal(1, loss.outputs(1)), len(side), axis=0)
    density = np.exp(-ops.convert_to_numpy(loss(side, params)).astype("float64"))
    assert np.trapezoid(density, side[:, 0].astype("float64")) == pytest.approx(
        1, abs=1e-3
    )


def test_least_at_the_empirical_quantile():
    y = np.sort(np.random.default_rng(0).exponential(size=41)).astype("float32")
    for level in (0.2, 0.5, 0.9):
        loss = QuantileLoss([level])
        costs = [float(loss(y[:, None], np.full((41, 1), c))) for c in y]
        assert np.argmin(costs) == round(level * 41 - 0.5)
    half = float(QuantileLoss([0.5])(y[:, None], np.ones((41, 1))))
    assert half == pytest.approx(np.abs(y - 1).mean() / 2, rel=1e-5)


def test_far_outliers_lose_their_pull():
    y = np.array([[1.0], [10.0], [1000.0]], "float32")
    params = np.tile(np.array([[0.0, ONE]], "float32"), (3, 1))
    _, student = value_and_gradient(StudentTNLL(4.0, reduction="sum"), y, params)
    np.testing.assert_allclose(
        student[:, 0], -5 * y[:, 0] / (4 + y[:, 0] ** 2), rtol=1e-3
    )


@pytest.mark.once
def test_fit_finds_the_mean_and_the_spread():
    x, y = np.ones((128, 1), "float32"), 2 + 0.5 * normal(128, 1)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.05), GaussianNLL())
    fit_in_memory(model, x, y, batch_size=128, epochs=300, verbose=0)
    mean, rho = model.predict(x[:1], verbose=0)[0]
    assert mean == pytest.approx(y.mean(), rel=1e-2)
    assert np.log1p(np.exp(rho)) == pytest.approx(y.std(), rel=2e-2)


@pytest.mark.tfp
def test_one_network_two_readings():
    """The parameters are those of the specs, so TFP can read them."""
    y = normal(5, 2)
    for loss, spec in [
        (GaussianNLL(), NormalSpec(2)),
        (MixtureNLL(3), MixtureNormalSpec(3, 2)),
    ]:
        params = normal(5, spec.params_size, seed=1)
        ours, theirs = (
            float(f(y, params)) for f in (loss, NegativeLogLikelihood(spec))
        )
        assert ours == pytest.approx(theirs, rel=1e-5)


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize("loss_class, arguments, _", LOSSES.values())
def test_shapes(loss_class, arguments, _):
    loss = loss_class(**arguments)
    for y_shape, extra in [((4,), 0), ((4, 1), 1), ((4, 2), 0), ((3, 1), 0)]:
        params = normal(4, loss.outputs(1) + extra)
        with pytest.raises(ValueError, match="outputs for each .* Received: y_true"):
            loss(normal(*y_shape), params)


def test_quantiles_of_one_variable():
    for y_shape, outputs in [((4,), 3), ((4, 1), 2), ((4, 3), 3)]:
        with pytest.raises(ValueError, match="Received: y_true.shape="):
            QuantileLoss([0.1, 0.5, 0.9])(normal(*y_shape), normal(4, outputs))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: StudentTNLL(df=0), "df must be .* Received: df=0"),
        (lambda: StudentTNLL(df=np.nan), "df must be .* Received: df=nan"),
        (lambda: BetaNLL(1.5), "beta must be .* Received: beta=1.5"),
        (lambda: MixtureNLL(0), "components must be .* Received: components=0"),
        (lambda: QuantileLoss([]), "at least one .* Received: quantiles="),
        (lambda: QuantileLoss([0.0]), "quantiles must be .* Received: quantiles=0.0"),
        (lambda: QuantileLoss([0.5, 0.5]), "rise. Received: quantiles="),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("loss_class, arguments, _", LOSSES.values())
def test_nan_stays(loss_class, arguments, _):
    loss = loss_class(**arguments)
    y, params = normal(4, 1), normal(4, loss.outputs(1))
    y[1] = np.nan
    assert np.isnan(float(loss(y, params)))
