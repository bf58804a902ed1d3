"""Tests of dlcompanion.uncertainty.sparse_gaussian_process."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.losses import GaussianNLL
from dlcompanion.testing import check_layer
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import SparseGaussianProcess

VECTORS = Path(__file__).parents[1] / "references" / "sparse_gaussian_process.npz"


def data(rows=12, features=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, features)).astype("float32")


def packed(factor):
    """The weight whose S is this lower triangular matrix."""
    diagonal = np.diag(np.diagonal(factor))
    return factor - diagonal + np.diag(np.log(np.diagonal(factor)))


def made(settings, z, mean, factor, **arguments):
    """A layer with these values of kernel, inducing points and q."""
    layer = SparseGaussianProcess(
        inducing_points=len(z), jitter=settings["jitter"], **arguments
    )
    layer.build((None, z.shape[1]))
    layer.inducing.assign(z)
    layer.log_lengthscale.assign(np.log(settings["lengths"]))
    layer.log_amplitude.assign(np.log(settings["amplitude"]))
    layer.log_noise.assign(np.log(settings["noise"]))
    layer.constant.assign([settings["constant"]])
    layer.mean.assign(mean[:, None])
    layer.factor.assign(packed(factor)[None])
    return layer


def bound(layer, x, y):
    """The evidence lower bound of all examples."""
    params = layer(x, training=True)
    loss = GaussianNLL()(y[:, None], params) + layer.losses[0]
    return -len(x) * float(ops.convert_to_numpy(loss))


def reference():
    stored = dict(np.load(VECTORS))
    return stored, json.loads(str(stored.pop("meta")))


def predictive(params):
    params = ops.convert_to_numpy(params)
    return params[:, 0], np.logaddexp(0, params[:, 1]) + 1e-5


# -- contract -----------------------------------------------------------------------


def test_contract():
    def arguments():
        return {
            "units": 2,
            "inducing_points": 3,
            "training_examples": 10,
            "initializer": keras.initializers.RandomNormal(seed=1),
        }

    check_layer(
        SparseGaussianProcess,
        arguments,
        data(4),
        output_shape=(4, 4),
        large=5.0,
        training=False,  # in training two terms of the bound are losses of the layer
    )


# -- reference ----------------------------------------------------------------------


def test_posterior_and_bound_of_tfp():
    stored, settings = reference()
    layer = made(
        settings, stored["in/z"], stored["in/mean"], stored["in/factor"],
        training_examples=12,
    )  # fmt: skip
    mean, variance = (ops.convert_to_numpy(t) for t in layer.posterior(stored["in/x"]))
    np.testing.assert_allclose(mean[:, 0], stored["out/mean"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(variance[:, 0], stored["out/variance"], rtol=1e-3)
    found = bound(layer, stored["in/x"], stored["in/y"])
    assert found == pytest.approx(-float(stored["out/loss"]), rel=1e-4)


# -- laws ---------------------------------------------------------------------------


def best_q(x, y, z, settings):
    """The q that maximizes the bound (Titsias), in float64 and whitened."""

    def kernel(a, b):
        gap = (a[:, None] - b[None]) / settings["lengths"]
        return settings["amplitude"] ** 2 * np.exp(-0.5 * (gap**2).sum(-1))

    jitter = settings["amplitude"] ** 2 * settings["jitter"]
    lower = np.linalg.cholesky(kernel(z, z) + jitter * np.eye(len(z)))
    a = np.linalg.solve(lower, kernel(z, x))
    precision = np.eye(len(z)) + a @ a.T / settings["noise"] ** 2
    covariance = np.linalg.inv(precision)
    mean = covariance @ a @ (y - settings["constant"]) / settings["noise"] ** 2
    return mean, np.linalg.cholesky(covariance)


def test_with_all_points_inducing_it_is_the_exact_process():
    stored, settings = reference()
    settings = {**settings, "constant": 0.0}
    x, y = (stored[name].astype("float64") for name in ("in/x", "in/y"))
    layer = made(settings, x, *best_q(x, y, x, settings), training_examples=12)
    evidence = float(stored["out/evidence"])
    x, y = x.astype("float32"), y.astype("float32")
    assert bound(layer, x, y) == pytest.approx(evidence, abs=0.05)
    mean, scale = predictive(layer(stored["in/x_new"]))
    np.testing.assert_allclose(mean, stored["out/exact_mean"], atol=5e-3)
    np.testing.assert_allclose(scale, stored["out/exact_std"], rtol=5e-3)
    # fewer points, each time the best q: never above the evidence
    gaps = []
    for count in (3, 12):
        x64, y64 = x.astype("float64"), y.astype("float64")
        z = x64[:count]
        layer = made(settings, z, *best_q(x64, y64, z, settings), training_examples=12)
        gaps.append(evidence - bound(layer, x, y))
    assert gaps[0] > gaps[1] + 1 and gaps[1] > -0.05


def test_untrained_it_is_the_prior():
    layer = SparseGaussianProcess(inducing_points=4, noise=0.5)
    x = data()
    params = layer(x)
    mean, variance = (ops.convert_to_numpy(t) for t in layer.posterior(x))
    np.testing.assert_allclose(mean, 0)
    np.testing.assert_allclose(variance, 1, atol=1e-5)
    np.testing.assert_allclose(predictive(params)[1], np.sqrt(1.25), rtol=1e-5)
    assert float(ops.convert_to_numpy(layer.divergence())) == 0.0


def test_fit_maximizes_the_bound_and_a_saved_model_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (64, 1)).astype("float32")
    y = (np.sin(2 * x) + 0.1 * rng.normal(size=x.shape)).astype("float32")
    layer = SparseGaussianProcess(inducing_points=8, training_examples=64, noise=0.3)
    model = keras.Sequential([keras.Input((1,)), layer])
    layer.place_inducing_points(x, seed=0)
    model.compile(keras.optimizers.Adam(0.05), GaussianNLL())
    before = bound(layer, x, y[:, 0])
    fit_in_memory(model, x, y, batch_size=64, epochs=120, shuffle=False, verbose=0)
    assert bound(layer, x, y[:, 0]) > before + 30
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for one in (model, loaded):
        one.fit(x, y, batch_size=64, epochs=1, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # evaluate is the predictive likelihood: nothing is added
    mean, scale = predictive(model.predict(x, batch_size=64, verbose=0))
    nll = 0.5 * ((y[:, 0] - mean) / scale) ** 2 + np.log(scale * np.sqrt(2 * np.pi))
    evaluated = model.evaluate(x, y, batch_size=64, verbose=0)
    assert evaluated == pytest.approx(nll.mean(), rel=1e-4)


@pytest.mark.parametrize("fit", [keras.Model.fit, fit_in_memory])
def test_weights_weigh_the_variance_too(fit):
    """Weights 0 and 2 are the examples left out and twice, in loss and step."""
    x, y = data(8), data(8, 1, seed=1)
    z, weight = x[:3] + 0.1, np.array([0, 2, 1, 1, 0, 2, 1, 1], "float32")
    rows = [1, 1, 2, 3, 5, 5, 6, 7]

    def trained(x, y, **arguments):
        layer = SparseGaussianProcess(inducing_points=3, training_examples=8)
        model = keras.Sequential([keras.Input((2,)), layer])
        layer.inducing.assign(z)
        model.compile(keras.optimizers.SGD(0.01), GaussianNLL())
        history = fit(model, x, y, batch_size=8, verbose=0, **arguments).history
        return history["loss"], model.get_weights()

    weighed, twice = trained(x, y, sample_weight=weight), trained(x[rows], y[rows])
    np.testing.assert_allclose(weighed[0], twice[0], rtol=1e-5)
    for a, b in zip(weighed[1], twice[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.once
def test_weights_under_other_reductions():
    x, y = data(4), data(4, 1, seed=1)
    layer = SparseGaussianProcess(inducing_points=3, training_examples=10**9)
    weight = np.array([0.0, 3.0, 0.0, 1.0], "float32")
    params = layer(x, training=True)
    plain = GaussianNLL(reduction="none")(y, params)
    _, variance = layer.posterior(x)
    added = ops.convert_to_numpy(variance)[:, 0] / (2 * 0.1**2)
    expected = np.average(ops.convert_to_numpy(plain) + added, weights=weight)
    loss = GaussianNLL(reduction="mean_with_sample_weight")(y, params, weight)
    loss = loss + layer.losses[0]
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    each = GaussianNLL(reduction=None)(y, params, weight)
    np.testing.assert_allclose(each, weight * ops.convert_to_numpy(plain), rtol=1e-5)


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", [{"units": 0}, {"inducing_points": 0}, {"training_examples": 0},
            {"lengthscale": 0.0}, {"noise": -1.0}, {"jitter": np.nan}],
)  # fmt: skip
def test_arguments(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} must be .* Received: {name}="):
        SparseGaussianProcess(**bad)


def test_data_and_training():
    with pytest.raises(ValueError, match=r"needs inputs .* Received: input_shape="):
        SparseGaussianProcess()(np.ones((2, 3, 1)))
    layer = SparseGaussianProcess(inducing_points=4)
    for x in (np.ones((3, 1)), np.ones(9), np.full((9, 1), np.nan)):
        with pytest.raises(ValueError, match="at least 4 finite rows. Received: x.sh"):
            layer.place_inducing_points(x)
    with pytest.raises(ValueError, match="Received: training_examples=None"):
        layer(data(), training=True)
