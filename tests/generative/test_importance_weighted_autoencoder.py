"""Tests of dlcompanion.generative.importance_weighted_autoencoder."""

import keras
import numpy as np
import pytest
from helpers.arrays import numbers
from helpers.models import scramble
from keras import ops

from dlcompanion import autodiff, backend
from dlcompanion.generative import IWAE, VAE
from dlcompanion.testing import check_model

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(32, 6)).astype("float32")


def small(samples=3, model_class=IWAE, **kwargs):
    kwargs = kwargs if model_class is VAE else {"samples": samples, **kwargs}
    model = model_class.dense(6, latent=2, hidden=(8,), **{"seed": 0, **kwargs})
    model.build((None, 6))
    return scramble(model, 0.5, seed=5)


def test_contract():
    def arguments():
        made = small()
        parts = {"encoder": made.encoder, "decoder": made.decoder}
        return {**parts, "samples": 4, "likelihood": "gaussian", "seed": 0}

    check_model(
        IWAE,
        arguments,
        X,
        # on TensorFlow, XLA draws other numbers from a seed than the eager call does
        compile_kwargs={"optimizer": "adam", "jit_compile": "auto"},
    )


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_loss_is_the_equation(likelihood):
    model = small(likelihood=likelihood)
    state = model.seed_generator.state.value
    state = np.array(ops.convert_to_numpy(state))
    out = model(X)
    weight = RNG.uniform(size=32).astype("float32")
    loss = numbers(model.compute_loss(x=X, y_pred=out, sample_weight=weight))

    model.seed_generator.state.assign(state)
    noise = numbers(keras.random.normal((32, 3, 2), seed=model.seed_generator))
    mean, log_variance = (numbers(out[k])[:, None] for k in ("mean", "log_variance"))
    z = mean + np.exp(0.5 * log_variance) * noise
    decoded = numbers(model.decoder(z.reshape(-1, 2).astype("float32")))
    decoded = decoded.reshape(32, 3, 6)
    np.testing.assert_allclose(numbers(out["decoded"]), decoded[:, 0], rtol=1e-4)
    x = X[:, None]
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-decoded))
        log_p_x = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=-1)
    else:
        scale = np.exp(numbers(model.log_scale))
        log_p_x = -0.5 * (
            ((x - decoded) / scale) ** 2 + np.log(2 * np.pi * scale**2)
        ).sum(axis=-1)
    log_p_z = -0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=-1)
    log_q = -0.5 * (noise**2 + log_variance + np.log(2 * np.pi)).sum(axis=-1)
    w = np.exp(log_p_x + log_p_z - log_q)
    np.testing.assert_allclose(
        loss, -np.mean(weight * np.log(w.mean(axis=1))), rtol=1e-4
    )


@pytest.mark.once
def test_the_bound_tightens_with_the_draws_and_starts_at_the_elbo():
    """L_1 = ELBO <= L_2 <= L_4 ... of one model; and L_K is what iwae() measures."""
    x = np.tile(X, (100, 1))

    def bound(samples):
        model = small(samples)
        return -float(numbers(model.compute_loss(x=x, y_pred=model(x))))

    bounds = [bound(k) for k in (1, 2, 4, 16, 64)]
    assert np.all(np.diff(bounds) > 0)
    vae = small(model_class=VAE)
    elbo = numbers(backend.compile(lambda x: vae.elbo(x, 200), jit=False)(X)).mean()
    np.testing.assert_allclose(bounds[0], elbo, atol=0.1)
    iwae = numbers(backend.compile(lambda x: vae.iwae(x, 16), jit=False)(x)).mean()
    np.testing.assert_allclose(bounds[3], iwae, atol=0.1)


def linear_gaussian():
    """One code, two numbers: p(x) and the posterior are normal, in closed form."""
    w, noise = np.array([1.0, -0.5]), 0.3
    covariance = np.outer(w, w) + noise * np.eye(2)
    x = RNG.multivariate_normal(np.zeros(2), covariance, size=50).astype("float32")
    distance = np.einsum("ni,ij,nj->n", x, np.linalg.inv(covariance), x)
    _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
    precision = 1 + w @ w / noise
    encoder = [
        np.stack([w / noise / precision, np.zeros(2)], axis=1),
        np.array([0.0, -np.log(precision)]),
    ]
    return x, -0.5 * (distance + log_det), encoder, [w[None], np.zeros(2)], noise


def test_linear_gaussian_reaches_the_exact_likelihood():
    x, log_p, encoder, decoder, noise = linear_gaussian()

    def ready(samples, wrong=0.0):
        model = IWAE.dense(
            2, latent=1, hidden=(), samples=samples, likelihood="gaussian", seed=0
        )
        model.build((None, 2))
        model.encoder.set_weights([encoder[0], encoder[1] + wrong])
        model.decoder.set_weights(decoder)
        model.log_scale.assign(0.5 * np.log(noise))
        return model

    # q is the posterior: every draw has the weight p(x), for any number of them
    out = ready(3)(x)
    np.testing.assert_allclose(
        numbers(out["log_weights"]), np.repeat(log_p[:, None], 3, 1), atol=1e-4
    )
    # a q that is wrong is made good by many draws, as no ELBO can
    gaps = []
    for samples in (1, 200):
        model = ready(samples, wrong=np.array([0.5, 0.7]))
        loss = model.compute_loss(x=x, y_pred=model(x))
        gaps.append(log_p.mean() + float(numbers(loss)))
    assert gaps[0] > 0.4 and abs(gaps[1]) < 0.05


def test_the_decoders_gradient_weighs_the_draws():
    """Of log mean w by a bias of the decoder: sum of w_k / sum(w) times each one's."""
    model = small(samples=4)
    state = np.array(ops.convert_to_numpy(model.seed_generator.state.value))
    bias = model.decoder.trainable_variables[-1]

    def loss():
        return model.compute_loss(x=X, y_pred=model(X))

    _, (found,) = autodiff.value_and_grad(loss, variables=[bias])()
    model.seed_generator.state.assign(state)
    out = model(X)
    w = np.exp(numbers(out["log_weights"]))
    w /= w.sum(axis=1, keepdims=True)
    model.seed_generator.state.assign(state)
    noise = numbers(keras.random.normal((32, 4, 2), seed=model.seed_generator))
    z = numbers(out["mean"])[:, None]
    z = z + np.exp(0.5 * numbers(out["log_variance"]))[:, None] * noise
    logits = numbers(model.decoder(z.reshape(-1, 2).astype("f"))).reshape(32, 4, 6)
    slope = X[:, None] - 1 / (1 + np.exp(-logits))  # of log p(x | z) by the bias
    expected = -(w[..., None] * slope).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(numbers(found), expected, rtol=1e-3, atol=1e-5)


def test_refuses():
    with pytest.raises(ValueError, match="samples must be an integer.*Received"):
        small(samples=0)
    model = small()
    model.compile("sgd")
    with pytest.raises(ValueError, match="between 0 and 1.*Received"):
        model.fit(X + 1)
    with pytest.raises(ValueError, match="no targets.*Received"):
        model.fit(X, X)
