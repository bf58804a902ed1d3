"""Tests of dlcompanion.generative.hierarchical_autoencoder."""

import keras
import numpy as np
import pytest
from helpers.arrays import numbers
from helpers.models import scramble
from keras import ops

from dlcompanion import backend
from dlcompanion.generative import VAE, HierarchicalVAE
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.testing import check_model

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(32, 6)).astype("float32")


def compiled(f):
    """Compile: an eager call on JAX compiles each of its operations by itself."""
    return backend.compile(f, jit=False)


def small(**kwargs):
    kwargs = {"latent": 3, "upper": 2, "hidden": (8,), "seed": 0, **kwargs}
    model = HierarchicalVAE.dense(6, upper_hidden=(5,), **kwargs)
    model.build((None, 6))
    return scramble(model, 0.5, seed=5)


def test_contract():
    def arguments():
        made = small()
        names = ("encoder", "upper_encoder", "prior", "decoder")
        parts = {name: getattr(made, name) for name in names}
        return {**parts, "likelihood": "gaussian", "free_bits": 0.01, "seed": 0}

    check_model(
        HierarchicalVAE,
        arguments,
        X,
        # on TensorFlow, XLA draws other numbers from a seed than the eager call does
        compile_kwargs={"optimizer": "adam", "jit_compile": "auto"},
    )


def test_loss_is_the_equation():
    """One draw, beta, free bits and weights, written out in NumPy."""
    model = small(beta=0.7, free_bits=0.3)
    state = np.array(ops.convert_to_numpy(model.seed_generator.state.value))
    out = model(X)
    weight = RNG.uniform(size=len(X)).astype("float32")
    loss = numbers(model.compute_loss(x=X, y_pred=out, sample_weight=weight))
    model.seed_generator.state.assign(state)
    noise_1, noise_2 = (
        numbers(keras.random.normal((32, n), seed=model.seed_generator)) for n in (3, 2)
    )

    def gaussian(network, z):
        return np.split(numbers(network(z.astype("float32"))), 2, axis=1)

    def log_normal(z, mean, log_variance):
        distance = (z - mean) ** 2 / np.exp(log_variance)
        return -0.5 * (distance + log_variance + np.log(2 * np.pi))

    mean, log_variance = gaussian(model.encoder, X)
    z1 = mean + np.exp(0.5 * log_variance) * noise_1
    mean_2, log_variance_2 = gaussian(model.upper_encoder, z1)
    z2 = mean_2 + np.exp(0.5 * log_variance_2) * noise_2
    p = 1 / (1 + np.exp(-numbers(model.decoder(z1.astype("float32")))))
    log_likelihood = (X * np.log(p) + (1 - X) * np.log(1 - p)).sum(axis=1)
    # the exact entropy of q(z1 | x), and the draw in log p(z1 | z2)
    entropy = 0.5 * (log_variance + np.log(2 * np.pi) + 1)
    kl_1 = -entropy - log_normal(z1, *gaussian(model.prior, z2))
    kl_2 = 0.5 * (mean_2**2 + np.exp(log_variance_2) - log_variance_2 - 1)
    expected = -np.mean(weight * log_likelihood)
    at_work = []
    for kl in (kl_1, kl_2):
        per_code = (weight[:, None] * kl).mean(axis=0)
        at_work.extend(per_code < 0.3)
        expected += 0.7 * np.maximum(per_code, 0.3).sum()
    assert 0 < np.sum(at_work) < 5
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    # and the weight of a draw is p(x, z1, z2) / q(z1, z2 | x)
    model.seed_generator.state.assign(state)
    log_ratio = (
        log_normal(z1, *gaussian(model.prior, z2)) - log_normal(z1, mean, log_variance)
    ).sum(axis=1) + (log_normal(z2, 0, 0) - log_normal(z2, mean_2, log_variance_2)).sum(
        axis=1
    )
    np.testing.assert_allclose(
        numbers(model.iwae(X, 1)), log_likelihood + log_ratio, rtol=1e-3
    )


@pytest.mark.once
def test_with_a_prior_that_is_zero_the_lower_level_is_a_vae():
    """Its Monte Carlo divergence is the closed one, and the upper level only costs."""
    model = small()
    model.prior.set_weights([0 * w for w in model.prior.get_weights()])
    vae = VAE(model.encoder, model.decoder, seed=1)
    x = ops.convert_to_tensor(X)
    draws = 4000
    kl_1, kl_2 = compiled(lambda x: model.divergences(x, draws))(x)
    exact = numbers(kl_to_standard_normal(*model.encode(X)))
    np.testing.assert_allclose(numbers(kl_1).mean(0), exact.mean(0), atol=0.03)
    vae.build((None, 6))
    ours = compiled(lambda x: (model.elbo(x, draws), vae.elbo(x, draws)))(x)
    hierarchical, plain = (numbers(bound).mean() for bound in ours)
    lost = numbers(kl_2).sum(axis=1).mean()
    assert lost > 0.1
    np.testing.assert_allclose(hierarchical, plain - lost, atol=0.02)


def test_the_divergence_of_level_one_is_the_closed_one_between_gaussians():
    """An upper encoder that does not look at z1: then KL_1 has a closed form."""
    model = small()
    kernel, bias, last, end = model.upper_encoder.get_weights()
    # z2 = (1, -0.5), as good as without noise
    end = np.array([1.0, -0.5, -30.0, -30.0])
    model.upper_encoder.set_weights([kernel, bias, 0 * last, end])
    x = ops.convert_to_tensor(X)
    kl_1, _ = compiled(lambda x: model.divergences(x, 20_000))(x)
    mean, log_variance = map(numbers, model.encode(X))
    m, v = np.split(numbers(model.prior(np.array([[1.0, -0.5]], "float32"))), 2, axis=1)
    closed = 0.5 * (
        np.exp(log_variance - v) + (mean - m) ** 2 / np.exp(v) + v - log_variance - 1
    )
    np.testing.assert_allclose(numbers(kl_1).mean(0), closed.mean(0), atol=0.02)


def linear_gaussian():
    """Normal x = w z1 + noise and z1 = a z2 + noise: all is in closed form."""
    w, a, inner, noise = np.array([1.0, -0.5]), 0.8, 0.5, 0.3
    total = a**2 + inner  # variance of z1
    covariance = total * np.outer(w, w) + noise * np.eye(2)
    x = RNG.multivariate_normal(np.zeros(2), covariance, size=50).astype("float32")
    distance = np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
    log_p = -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])
    precision = 1 / total + w @ w / noise
    model = HierarchicalVAE.dense(
        2, latent=1, upper=1, hidden=(), upper_hidden=(), likelihood="gaussian", seed=0
    )
    model.build((None, 2))
    model.encoder.set_weights(
        [
            np.stack([w / noise / precision, np.zeros(2)], axis=1),
            np.array([0, -np.log(precision)]),
        ]
    )
    model.upper_encoder.set_weights(
        [np.array([[a / total, 0]]), np.array([0, np.log(inner / total)])]
    )
    model.prior.set_weights([np.array([[a, 0]]), np.array([0, np.log(inner)])])
    model.decoder.set_weights([w[None], np.zeros(2)])
    model.log_scale.assign(0.5 * np.log(noise))
    return model, x, log_p


def test_linear_gaussian_has_the_exact_likelihood_and_no_bound_above_it():
    model, x, log_p = linear_gaussian()
    x = ops.convert_to_tensor(x)
    # q is the posterior: every single draw has the weight p(x)
    bounds = compiled(lambda x: (model.iwae(x, 1), model.elbo(x, 2000)))
    weight, bound = map(numbers, bounds(x))
    np.testing.assert_allclose(weight, log_p, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bound.mean(), log_p.mean(), atol=0.02)
    for network in (model.encoder, model.upper_encoder):
        kept = network.get_weights()
        network.set_weights([kept[0], kept[1] + np.array([0.5, 0.7])])
        _, bound = map(numbers, bounds(x))
        assert np.all(bound < log_p - 0.05)
        network.set_weights(kept)


def test_samples_have_the_moments_of_the_model():
    model, _, _ = linear_gaussian()
    samples = numbers(model.sample(20_000))
    np.testing.assert_allclose(
        np.cov(samples.T), (0.64 + 0.5) * np.outer([1, -0.5], [1, -0.5]), atol=0.05
    )
    given = numbers(model.sample_given(np.full((20_000, 1), 2.0)))
    np.testing.assert_allclose(given.mean(axis=0), [1.6, -0.8], atol=0.03)
    np.testing.assert_allclose(given[:, 0].var(), 0.5, atol=0.03)


def test_refuses():
    with pytest.raises(ValueError, match="upper must be an integer.*Received"):
        HierarchicalVAE.dense(6, latent=2, upper=0)
    fresh = HierarchicalVAE.dense(6, latent=2, upper=1)
    with pytest.raises(ValueError, match="not built"):
        fresh.sample(2)
    model = small()
    model.compile("sgd")
    with pytest.raises(ValueError, match="between 0 and 1.*Received"):
        model.fit(X + 1)
    with pytest.raises(ValueError, match="no targets.*Received"):
        model.fit(X, X)
    with pytest.raises(ValueError, match="samples must be an integer.*Received"):
        model.elbo(X, 0)

    def network(taken, given):
        return keras.Sequential([keras.Input((taken,)), keras.layers.Dense(given)])

    for upper_encoder, prior, rule in (
        (network(3, 3), network(2, 6), "2 \\* upper"),
        (network(2, 4), network(2, 6), "upper_encoder must go from"),
        (network(3, 4), network(2, 5), "prior must go from"),
        (network(3, 4), network(1, 6), "prior must go from"),
    ):
        wrong = HierarchicalVAE(model.encoder, upper_encoder, prior, model.decoder)
        with pytest.raises(ValueError, match=f"{rule}.*Received"):
            wrong.build((None, 6))
