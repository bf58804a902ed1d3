"""Tests of dlcompanion.generative.conditional_autoencoder."""

import keras
import numpy as np
import pytest
from helpers.arrays import numbers
from helpers.models import scramble
from keras import ops

from dlcompanion import backend
from dlcompanion.generative import VAE, ConditionalVAE
from dlcompanion.testing import check_model

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(32, 6)).astype("float32")
C = RNG.normal(size=(32, 3)).astype("float32")


def small(context=3, **kwargs):
    kwargs = {"latent": 2, "hidden": (8,), "seed": 0, **kwargs}
    model = ConditionalVAE.dense(6, context=context, **kwargs)
    model.build([(None, 6), (None, context)])
    return scramble(model, 0.5, seed=5)


def test_contract():
    def arguments():
        made = small()
        parts = {"encoder": made.encoder, "decoder": made.decoder}
        return {**parts, "likelihood": "gaussian", "free_bits": 0.01, "seed": 0}

    check_model(
        ConditionalVAE,
        arguments,
        [X, C],
        # on TensorFlow, XLA draws other numbers from a seed than the eager call does
        compile_kwargs={"optimizer": "adam", "jit_compile": "auto"},
    )


def test_in_a_context_that_is_the_same_for_all_it_is_the_unconditional_one():
    """Weights of the VAE, and any weights for a context of zero."""
    model = small(context=1, beta=0.7)
    vae = VAE.dense(6, latent=2, hidden=(8,), beta=0.7, seed=0)
    vae.build((None, 6))
    kernels = model.get_weights()
    # the context is the last row of the first kernel of each network
    kernels[0], kernels[4] = kernels[0][:-1], kernels[4][:-1]
    vae.set_weights(kernels)
    zero = np.zeros((32, 1), "float32")
    ours, theirs = model([X, zero]), vae(X)
    for key in theirs:
        np.testing.assert_allclose(numbers(ours[key]), numbers(theirs[key]), rtol=1e-4)
    np.testing.assert_allclose(
        numbers(model.compute_loss(x=[X, zero], y_pred=ours)),
        numbers(vae.compute_loss(x=X, y_pred=theirs)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        numbers(model.elbo([X, zero], 2)), numbers(vae.elbo(X, 2)), rtol=1e-4
    )


def test_linear_gaussian_has_the_exact_likelihood_given_the_context():
    """p(x | c) = N(A c, w w^T + s), and the posterior of the code is normal."""
    w, a, noise = np.array([1.0, -0.5]), RNG.normal(size=(3, 2)), 0.3
    covariance = np.outer(w, w) + noise * np.eye(2)
    x = C @ a + RNG.multivariate_normal(np.zeros(2), covariance, size=32)
    d = x - C @ a
    distance = np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance), d)
    log_p = -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])
    precision = 1 + w @ w / noise
    to_code = w / noise / precision
    model = ConditionalVAE.dense(
        2, context=3, latent=1, hidden=(), likelihood="gaussian", seed=0
    )
    model.build([(None, 2), (None, 3)])
    encoder = np.zeros((5, 2))
    encoder[:2, 0], encoder[2:, 0] = to_code, -a @ to_code
    model.encoder.set_weights([encoder, np.array([0.0, -np.log(precision)])])
    model.decoder.set_weights([np.concatenate([w[None], a]), np.zeros(2)])
    model.log_scale.assign(0.5 * np.log(noise))
    data = [ops.convert_to_tensor(part.astype("float32")) for part in (x, C)]
    bound = backend.compile(lambda x, c: model.iwae([x, c], 2), jit=False)
    np.testing.assert_allclose(numbers(bound(*data)), log_p, rtol=1e-3, atol=1e-3)
    again = numbers(model.reconstruct(data))
    np.testing.assert_allclose(again, d @ to_code[:, None] * w + C @ a, atol=1e-4)


def test_samples_follow_their_context():
    model = small()
    state = np.array(ops.convert_to_numpy(model.seed_generator.state.value))
    both = []
    for context in (C[:4], C[4:8]):
        model.seed_generator.state.assign(state)
        both.append(numbers(model.sample(context)))
    z = numbers(model.encode([X, C])[0])
    assert both[0].shape == (4, 6) and np.abs(both[0] - both[1]).max() > 1e-3
    model.seed_generator.state.assign(state)
    noise = keras.random.normal((4, 2), seed=model.seed_generator)
    expected = numbers(model.decode(noise, C[:4]))
    np.testing.assert_allclose(both[0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        numbers(model.decode(z, C)), numbers(model.reconstruct([X, C])), rtol=1e-5
    )


def test_refuses():
    model = small()
    model.compile("sgd")
    with pytest.raises(ValueError, match="list of two.*Received"):
        model.elbo(X)
    with pytest.raises(ValueError, match="context must be finite.*Received"):
        model.fit([X, C * np.nan])
    with pytest.raises(ValueError, match="between 0 and 1.*Received"):
        model.fit([X + 1, C])
    with pytest.raises(ValueError, match="no targets.*Received"):
        model.fit([X, C], X)
    with pytest.raises(ValueError, match="context must be an integer.*Received"):
        ConditionalVAE.dense(6, context=0, latent=2)
    fresh = ConditionalVAE.dense(6, context=3, latent=2)
    with pytest.raises(ValueError, match="not built"):
        fresh.sample(C)

    def network(taken, given):
        inputs = [keras.Input((taken,)), keras.Input((3,))]
        both = keras.layers.Concatenate()(inputs)
        return keras.Model(inputs, keras.layers.Dense(given)(both))

    for encoder, decoder, rule in (
        (network(6, 3), network(2, 6), "2 \\* latent"),
        (network(6, 4), network(2, 5), "shape of the data"),
    ):
        with pytest.raises(ValueError, match=f"{rule}.*Received"):
            ConditionalVAE(encoder, decoder).build([(None, 6), (None, 3)])
