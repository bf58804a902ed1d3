"""Tests of dlcompanion.uncertainty.stochastic_layers.weight_posterior."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from scipy import integrate, stats

from dlcompanion import backend
from dlcompanion.probability import (
    MixtureNormalSpec,
    MultivariateNormalTriLSpec,
    NormalSpec,
)
from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import (
    DenseReparameterization,
    NormalPosterior,
    NormalPrior,
    SpecPosterior,
    SpecPrior,
)


def filled(posterior, shape, scale=0.5, seed=0):
    posterior.build(shape)
    rng = np.random.default_rng(seed)
    posterior.set_weights([scale * rng.normal(size=w.shape) for w in posterior.weights])
    return posterior


def divergence(posterior, prior, seed=0):
    seed = keras.random.SeedGenerator(seed)
    return float(keras.ops.convert_to_numpy(posterior.divergence(prior, seed)))


def repeated(draw, times):
    """What a function without arguments gives, as often: compiled, for many calls."""
    draw = backend.compile(draw, jit=False)
    return np.stack([numpy(draw()) for _ in range(times)])


def rho(scale):
    return float(np.log(np.expm1(scale - 1e-5)))


@pytest.mark.once
def test_draws_have_the_mean_and_the_deviation():
    posterior = filled(NormalPosterior(), (3, 2))
    seed = keras.random.SeedGenerator(0)
    draws = repeated(lambda: posterior.sample(seed), 2000)
    mean, std = numpy(posterior.mean()), numpy(posterior.stddev())
    np.testing.assert_allclose(std, np.log1p(np.exp(posterior.get_weights()[1])) + 1e-5)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * std / np.sqrt(2000))
    np.testing.assert_allclose(draws.std(axis=0), std, rtol=0.09)


def test_initial_scale_is_the_deviation_and_the_mean_comes_from_the_initializer():
    posterior = NormalPosterior(keras.initializers.Constant(0.3), initial_scale=0.02)
    posterior.build((4,))
    np.testing.assert_allclose(numpy(posterior.stddev()), 0.02, rtol=1e-5)
    np.testing.assert_allclose(numpy(posterior.mean()), 0.3, rtol=1e-6)


def test_divergence_is_the_integral_that_it_abbreviates():
    posterior, prior = filled(NormalPosterior(), (2,)), NormalPrior(0.7, loc=-0.2)
    expected = 0.0
    for m, s in zip(numpy(posterior.mean()), numpy(posterior.stddev()), strict=True):
        q, p = stats.norm(m, s), stats.norm(-0.2, 0.7)
        expected += integrate.quad(
            lambda w, q=q, p=p: q.pdf(w) * (q.logpdf(w) - p.logpdf(w)), m - 9, m + 9
        )[0]
    np.testing.assert_allclose(divergence(posterior, prior), expected, rtol=1e-5)


def test_divergence_from_itself_is_zero():
    posterior = NormalPosterior("zeros", initial_scale=0.3)
    posterior.build((5, 4))
    assert abs(divergence(posterior, NormalPrior(0.3))) < 1e-5
    assert divergence(posterior, NormalPrior(0.2)) > 0.1


@pytest.mark.tfp
@pytest.mark.parametrize("event_shape", [(), 3])
def test_spec_of_a_normal_is_the_normal_prior_and_posterior(event_shape):
    size = event_shape or 1
    spec = NormalSpec(event_shape)
    normal = filled(NormalPosterior(), (3, 2))
    loc, raw = normal.get_weights()
    same = SpecPosterior(spec)
    same.build((3, 2))
    groups = [a.reshape(-1, size) for a in (loc, raw)]
    same.set_weights([np.concatenate(groups, axis=1)])
    native = NormalPrior(0.4, loc=0.1)
    by_spec = SpecPrior(spec, [0.1] * size + [rho(0.4)] * size)
    expected = divergence(normal, native)
    for q in (normal, same):
        for p in (native, by_spec):
            np.testing.assert_allclose(divergence(q, p), expected, rtol=1e-5)
    seed = keras.random.SeedGenerator(0)
    draws = repeated(lambda: same.sample(seed), 300)
    assert draws[0].shape == (3, 2)
    error = np.abs(np.mean(draws, axis=0) - loc) / numpy(normal.stddev())
    assert error.max() < 5 / np.sqrt(300)


@pytest.mark.once
@pytest.mark.tfp
def test_correlated_posterior_has_the_divergence_of_multivariate_normals():
    posterior = filled(SpecPosterior(MultivariateNormalTriLSpec(4)), (2, 2))
    q = posterior.distribution()
    mean, cov = numpy(q.mean())[0], numpy(q.covariance())[0]
    scale = 0.8
    expected = 0.5 * (np.trace(cov) + mean @ mean) / scale**2
    expected += 0.5 * (8 * np.log(scale) - np.linalg.slogdet(cov)[1] - 4)
    found = divergence(posterior, NormalPrior(scale))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    seed = keras.random.SeedGenerator(0)
    draws = repeated(lambda: posterior.sample(seed), 400).reshape(400, -1)
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.3 * np.diag(cov).max())


@pytest.mark.once
@pytest.mark.tfp
def test_without_a_closed_form_the_divergence_is_estimated_without_bias():
    posterior = filled(NormalPosterior(), (1,))
    m, s = numpy(posterior.mean())[0], numpy(posterior.stddev())[0]
    params = [0.0, 1.0, 0.0, rho(1.0), 0.0, rho(0.1)]
    weights = np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()

    def log_p(w):
        return np.log(weights @ [stats.norm.pdf(w, 0, 1), stats.norm.pdf(w, 0, 0.1)])

    q = stats.norm(m, s)
    expected = integrate.quad(
        lambda w: q.pdf(w) * (q.logpdf(w) - log_p(w)), m - 9 * s, m + 9 * s
    )[0]
    prior, seed = SpecPrior(MixtureNormalSpec(2), params), keras.random.SeedGenerator(0)
    found = repeated(lambda: posterior.divergence(prior, seed), 200)
    assert abs(np.mean(found) - expected) < 5 * np.std(found) / np.sqrt(200)


@pytest.mark.tfp
def test_contract_of_a_layer_with_a_correlated_posterior_and_a_mixture_as_prior():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    params = [0.0, 0.0] + [0.0] * 6 + [0.5] * 6 + [0.0] * 6 + [-4.0] * 6

    def arguments():
        return {
            "units": 2,
            "kernel_posterior": SpecPosterior(MultivariateNormalTriLSpec(6)),
            "prior": SpecPrior(MixtureNormalSpec(2, 6), params),
            "training_examples": 10,
            "use_bias": False,
            "seed": 1,
        }

    check_layer(DenseReparameterization, arguments, x, skip=("dynamic", "float16"))


@pytest.mark.tfp
def test_rejects_posteriors_that_do_not_fit():
    with pytest.raises(ValueError, match="multiple of the size.*Received: 5 weights"):
        SpecPosterior(MultivariateNormalTriLSpec(2)).build((5,))
    with pytest.raises(ValueError, match="fully reparameterized"):
        filled(SpecPosterior(MixtureNormalSpec(2)), (2,)).distribution()
    prior = SpecPrior(NormalSpec(2), [0.0] * 4)
    with pytest.raises(ValueError, match="equally many weights"):
        divergence(filled(SpecPosterior(NormalSpec()), (2,)), prior)


def test_rejects_numbers_outside_their_range():
    for bad in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale must be"):
            NormalPrior(bad)
    with pytest.raises(ValueError, match="loc must be"):
        NormalPrior(1.0, loc=float("nan"))
    with pytest.raises(ValueError, match="initial_scale must be"):
        NormalPosterior(initial_scale=1e-6)
    with pytest.raises(ValueError, match="2 finite numbers.*Received: params="):
        SpecPrior(NormalSpec(), [1.0])
    with pytest.raises(ValueError, match="Received: spec="):
        SpecPosterior("normal")
