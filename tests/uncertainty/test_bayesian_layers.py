"""Tests of dlcompanion.uncertainty.bayesian_layers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from helpers.two_devices import on_two_devices
from keras import ops

from dlcompanion.autodiff import value_and_grad
from dlcompanion.backend import replicas
from dlcompanion.probability import MultivariateNormalTriLSpec
from dlcompanion.testing import check_layer
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import (
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
    NormalPosterior,
    NormalPrior,
    SpecPosterior,
    predictive_samples,
    set_training_examples,
)
from dlcompanion.uncertainty.bayesian_layers import BayesianDense

VECTORS = Path(__file__).parents[1] / "references" / "bayesian_layers.npz"
LAYERS = [DenseFlipout, DenseLocalReparameterization, DenseReparameterization]


def points(rows=8, columns=5, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype("float32")


@pytest.mark.parametrize("layer_class", LAYERS)
def test_contract(layer_class):
    def arguments():
        return {
            "units": 3,
            "activation": "tanh",
            "bias_posterior": NormalPosterior(initial_scale=0.3),
            "training_examples": 20,
            "seed": 1,
        }

    check_layer(layer_class, arguments, points(), output_shape=(8, 3))


# -- reference ----------------------------------------------------------------------


@pytest.mark.parametrize("layer_class", LAYERS)
def test_divergence_and_draws_of_tfp(layer_class):
    with np.load(VECTORS) as stored:
        key = f"{layer_class.__name__}/"
        v = {k.removeprefix(key): stored[k] for k in stored.files if key in k}
    layer = layer_class(3, bias_posterior=NormalPosterior(), training_examples=1)
    layer.build((None, 4))
    kernel, bias = layer.kernel_posterior, layer.bias_posterior
    kernel.set_weights([v["loc"], v["rho"]])
    bias.set_weights([v["bias_loc"], v["bias_rho"]])
    total, gradients = value_and_grad(
        lambda: sum(layer.losses), variables=[kernel.loc, kernel.rho]
    )()
    np.testing.assert_allclose(numpy(total), v["kl"], rtol=1e-4)  # its scale floor
    np.testing.assert_allclose(numpy(gradients[0]), v["kl_loc"], rtol=1e-5)
    np.testing.assert_allclose(numpy(gradients[1]), v["kl_rho"], atol=1e-4)
    draws = predictive_samples(layer, v["x"], samples=1000, seed=0)
    error = v["std"] * np.sqrt(1 / 1000 + 1 / 4000)
    assert np.all(np.abs(draws.mean(axis=0) - v["mean"]) < 4.5 * error)
    np.testing.assert_allclose(draws.std(axis=0), v["std"], rtol=0.12)


# -- laws ---------------------------------------------------------------------------


def with_noise(layer_class, columns=4, units=6, **kwargs):
    layer = layer_class(
        units, kernel_posterior=NormalPosterior(initial_scale=0.5), **kwargs
    )
    layer.build((None, columns))
    return layer


def draws_of_two(layer, samples=800):
    """Centered draws for the same example, twice in a batch: (samples, 2 * units)."""
    twice = np.repeat(points(1, 4), 2, axis=0)
    draws = predictive_samples(layer, twice, samples, seed=0)
    return draws - draws.mean(axis=0)


@pytest.mark.once
def test_examples_share_the_noise_of_reparameterization_alone():
    shared = draws_of_two(with_noise(DenseReparameterization))
    np.testing.assert_array_equal(shared[:, 0], shared[:, 1])
    for layer_class in (DenseFlipout, DenseLocalReparameterization):
        own = draws_of_two(with_noise(layer_class))
        correlation = np.mean(own[:, 0] * own[:, 1], axis=0)
        correlation /= own[:, 0].std(axis=0) * own[:, 1].std(axis=0)
        assert np.abs(correlation).max() < 5 / np.sqrt(800)


@pytest.mark.once
def test_flipout_lowers_the_variance_of_the_gradient():
    x, y = points(64, 4), ops.convert_to_tensor(points(64, 6, seed=1))
    variance = {}
    for layer_class in LAYERS:
        layer = with_noise(layer_class, training_examples=64, seed=0)
        loc = layer.kernel_posterior.loc

        def loss(layer=layer):
            return ops.mean((layer(x) - y) ** 2)

        gradient = value_and_grad(loss, variables=[loc])
        found = [numpy(gradient()[1][0]) for _ in range(60)]
        variance[layer_class] = np.var(found, axis=0).mean()
    shared = variance[DenseReparameterization]
    assert variance[DenseFlipout] < 0.2 * shared
    assert variance[DenseLocalReparameterization] < 0.2 * shared


def test_all_positions_of_an_example_see_one_kernel_in_flipout():
    layer = with_noise(DenseFlipout, seed=0)
    same = np.repeat(points(2, 4)[:, None], 3, axis=1)  # (batch, positions, features)
    y = numpy(layer(same))
    np.testing.assert_allclose(y[:, 1:], np.repeat(y[:, :1], 2, axis=1), rtol=1e-5)
    local = numpy(with_noise(DenseLocalReparameterization, seed=0)(same))
    assert np.abs(local[:, 1] - local[:, 0]).min() > 1e-4


def test_an_input_of_zeros_has_a_finite_gradient():
    layer = with_noise(DenseLocalReparameterization)
    _, gradients = value_and_grad(
        lambda: ops.sum(layer(np.zeros((2, 4), "float32"))),
        variables=layer.trainable_variables,
    )()
    assert all(np.all(np.isfinite(numpy(g))) for g in gradients)


def linear_problem(seed=0, rows=60):
    """Regression on columns at right angles: the posterior has no correlations."""
    rng = np.random.default_rng(seed)
    x = np.linalg.qr(rng.normal(size=(rows, 3)))[0] * [5.0, 6.0, 9.0]
    y = x @ [1.0, -0.8, 1.5] + 0.6 * rng.normal(size=rows)
    precision = x.T @ x / 0.36 + np.eye(3)
    covariance = np.linalg.inv(precision)
    data = x.astype("float32"), y[:, None].astype("float32")
    return *data, covariance @ x.T @ y / 0.36, covariance


def gaussian_nll(y, mean):
    return 0.5 * ops.mean((y - mean) ** 2, axis=-1) / 0.36


def fitted(layer, x, y, epochs=600):
    model = keras.Sequential([keras.Input((3,)), layer])
    set_training_examples(model, len(x))
    rate = keras.optimizers.schedules.CosineDecay(0.1, epochs)
    model.compile(keras.optimizers.Adam(rate), gaussian_nll)
    x, y = np.tile(x, (10, 1)), np.tile(y, (10, 1))  # as many examples, less noise
    fit_in_memory(model, x, y, batch_size=len(x), epochs=epochs, verbose=0, seed=0)


@pytest.mark.once
def test_posterior_of_linear_regression_is_the_exact_one():
    x, y, mean, covariance = linear_problem()
    layer = DenseLocalReparameterization(1, use_bias=False, seed=0)
    fitted(layer, x, y)
    posterior = layer.kernel_posterior
    np.testing.assert_allclose(numpy(posterior.mean())[:, 0], mean, rtol=0.02)
    deviations = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(numpy(posterior.stddev())[:, 0], deviations, rtol=0.1)


@pytest.mark.once
@pytest.mark.tfp
def test_correlated_posterior_of_linear_regression_is_the_exact_one():
    x, y, _, _ = linear_problem()
    x = (x @ [[1, 0.6, 0], [0, 1, 0.6], [0, 0, 1]]).astype("float32")
    covariance = np.linalg.inv(x.T @ x / 0.36 + np.eye(3))
    mean = covariance @ x.T @ y[:, 0] / 0.36
    posterior = SpecPosterior(MultivariateNormalTriLSpec(3))
    fitted(
        DenseReparameterization(1, use_bias=False, kernel_posterior=posterior, seed=0),
        x, y, epochs=1000,
    )  # fmt: skip
    q = posterior.distribution()
    np.testing.assert_allclose(numpy(q.mean())[0], mean, rtol=0.03)
    found = numpy(q.covariance())[0]
    size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    np.testing.assert_allclose(found / size, covariance / size, atol=0.2)


# -- life in a model ----------------------------------------------------------------


def network(examples=None):
    return keras.Sequential(
        [
            keras.Input((5,)),
            DenseFlipout(6, "tanh", prior=NormalPrior(0.5), seed=1),
            DenseReparameterization(2, training_examples=examples, seed=2),
        ]
    )


def test_a_saved_model_has_the_same_posterior_and_the_same_next_draws(tmp_path):
    model = network()
    set_training_examples(model, 8)
    model.compile("adam", "mse")
    x = points()
    model.fit(x, x[:, :2], epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].prior.scale == 0.5
    for one, other in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    paths = {w.path for w in loaded.weights}
    assert len(paths) == len(loaded.weights)  # PyTorch zeroes gradients by path
    for _ in range(2):
        np.testing.assert_array_equal(numpy(model(x)), numpy(loaded(x)))
    for m in (model, loaded):  # training goes on alike
        m.fit(x, x[:, :2], epochs=2, shuffle=False, verbose=0)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(numpy(one), numpy(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_posterior_and_divergence_stay_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    layer = DenseFlipout(3, training_examples=10, bias_posterior=NormalPosterior())
    y = layer(points())
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    kinds = [keras.backend.standardize_dtype(a.dtype) for a in layer.losses]
    kinds += [w.dtype for w in layer.trainable_weights]
    assert set(kinds) == {"float32"}


def test_exported_model_draws_anew_at_every_call(tmp_path, backend):
    if backend != "tensorflow":  # a SavedModel is TensorFlow's
        model = network()
        assert np.any(numpy(model(points())) != numpy(model(points())))
        return
    model = network()
    model.export(tmp_path / "exported", verbose=False)
    served = keras.layers.TFSMLayer(tmp_path / "exported", call_endpoint="serve")
    first, second = numpy(served(points())), numpy(served(points()))
    assert first.shape == (8, 2) and np.any(first != second)


def trained():
    keras.utils.set_random_seed(0)
    posterior = NormalPosterior("ones", initial_scale=2e-5)  # hardly any noise
    layer = DenseFlipout(2, kernel_posterior=posterior, training_examples=8)
    model = keras.Sequential([keras.Input((5,)), layer])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x = points()
    history = model.fit(x, x[:, :2], batch_size=4, epochs=2, shuffle=False, verbose=0)
    return [*history.history["loss"], *posterior.get_weights()]


def test_two_devices_count_the_divergence_once(backend):
    if backend == "torch":  # there one process has one device
        assert replicas() == 1
        return
    for a, b in zip(trained(), on_two_devices(trained), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3)


# -- errors -------------------------------------------------------------------------


def test_more_training_examples_than_an_int32_holds():
    layer = DenseFlipout(2, training_examples=10**10, seed=1)
    layer(points())
    prior = NormalPrior()
    divergence = layer.kernel_posterior.divergence(prior, layer.seed_generator)
    np.testing.assert_allclose(
        1e10 * float(numpy(layer.losses[0])), float(numpy(divergence)), rtol=1e-5
    )


def test_only_reparameterization_takes_any_posterior():
    for layer_class in (DenseFlipout, DenseLocalReparameterization):
        with pytest.raises(ValueError, match="needs a NormalPosterior"):
            layer_class(
                1, kernel_posterior=SpecPosterior(MultivariateNormalTriLSpec(3))
            )


def test_rejects_sizes_that_cannot_be():
    assert all(issubclass(layer_class, BayesianDense) for layer_class in LAYERS)
    with pytest.raises(ValueError, match="units must be an integer of at least 1"):
        DenseFlipout(0)
    with pytest.raises(ValueError, match="known number of features"):
        DenseFlipout(2).build((None, None))
    layer = DenseFlipout(2)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="expected axis -1"):
        layer(points(2, 4))
