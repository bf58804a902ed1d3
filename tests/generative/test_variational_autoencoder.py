"""Tests of dlcompanion.generative.variational_autoencoder."""

import keras
import numpy as np
import pytest
from helpers.arrays import numbers
from helpers.models import scramble
from keras import ops

from dlcompanion import backend
from dlcompanion.generative import VAE
from dlcompanion.generative.variational_autoencoder import kl_to_standard_normal
from dlcompanion.testing import check_model

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(32, 6)).astype("float32")


def compiled(f):
    """Compile: an eager call on JAX compiles each of its operations by itself."""
    return backend.compile(f, jit=False)


def small(**kwargs):
    """A VAE whose weights are the same on every backend."""
    vae = VAE.dense(6, latent=2, hidden=(8,), **{"seed": 0, **kwargs})
    return scramble(vae, 0.5, seed=5)


def parts(**kwargs):
    """Arguments of the class, with new networks."""
    made = small()
    return {"encoder": made.encoder, "decoder": made.decoder, "seed": 0, **kwargs}


def test_contract():
    check_model(
        VAE,
        lambda: parts(likelihood="gaussian", beta=0.5, free_bits=0.01),
        X,
        # on TensorFlow, XLA draws other numbers from a seed than the eager call does
        compile_kwargs={"optimizer": "adam", "jit_compile": "auto"},
    )


def test_analytic_divergence_is_that_of_monte_carlo():
    mean, log_variance = np.array([[0.5, -1.0, 2.0]]), np.array([[-1.0, 0.3, 0.0]])
    noise = RNG.normal(size=(400_000, 3))
    z = mean + np.exp(0.5 * log_variance) * noise
    log_q = -0.5 * (noise**2 + log_variance)
    monte_carlo = np.mean(log_q + 0.5 * z**2, axis=0)
    exact = numbers(
        kl_to_standard_normal(*map(ops.convert_to_tensor, (mean, log_variance)))
    )
    np.testing.assert_allclose(exact[0], monte_carlo, rtol=0.01)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_loss_is_the_equation(likelihood):
    """One draw, beta and free bits, written out in NumPy."""
    vae = small(likelihood=likelihood, beta=0.7, free_bits=0.08)
    vae.build((None, 6))
    if likelihood == "gaussian":
        vae.log_scale.assign(-0.4)
    out = vae(X)
    weight = RNG.uniform(size=len(X)).astype("float32")
    loss = numbers(vae.compute_loss(x=X, y_pred=out, sample_weight=weight))
    mean, log_variance, decoded = (
        numbers(out[k]) for k in ("mean", "log_variance", "decoded")
    )
    if likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-decoded))
        log_likelihood = (X * np.log(p) + (1 - X) * np.log(1 - p)).sum(axis=1)
    else:
        variance = np.exp(-0.8)
        log_likelihood = -0.5 * (
            (X - decoded) ** 2 / variance + np.log(2 * np.pi * variance)
        ).sum(axis=1)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1)
    per_code = (weight[:, None] * kl).mean(axis=0)
    assert per_code.min() < 0.08 < per_code.max()  # the free bits are at work
    expected = 0.7 * np.maximum(per_code, 0.08).sum() - np.mean(weight * log_likelihood)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def linear_vae_at_its_optimum():
    """Probabilistic PCA in closed form, put into a VAE; its log p(x) as well.

    Maximum likelihood (Tipping and Bishop 1999, eq. 7 and 8): the noise is the mean
    of the discarded eigenvalues, W = U (L - noise)^1/2. The posterior is N(M^-1 W^T
    (x - m), noise M^-1) with M = W^T W + noise, diagonal for this W.
    """
    mix = RNG.normal(size=(5, 5))
    x = (RNG.normal(size=(200, 5)) @ mix).astype("float32")
    mean, cov = x.mean(axis=0), np.cov(x.T, bias=True)
    values, vectors = np.linalg.eigh(cov)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[2:].mean()
    w = vectors[:, :2] * np.sqrt(values[:2] - noise)
    to_code = w / values[:2]  # M is diagonal: the kept eigenvalues
    vae = VAE.dense(5, latent=2, hidden=(), likelihood="gaussian", seed=0)
    vae.build((None, 5))
    log_variance = np.log(noise / values[:2])
    vae.encoder.set_weights(
        [
            np.concatenate([to_code, np.zeros((5, 2))], axis=1),
            np.concatenate([-mean @ to_code, log_variance]),
        ]
    )
    vae.decoder.set_weights([w.T, mean])
    vae.log_scale.assign(0.5 * np.log(noise))
    c = w @ w.T + noise * np.eye(5)
    d = x - mean
    distance = np.einsum("ni,ij,nj->n", d, np.linalg.inv(c), d)
    log_p = -0.5 * (5 * np.log(2 * np.pi) + np.linalg.slogdet(c)[1] + distance)
    return vae, x, log_p


def test_linear_vae_reaches_the_likelihood_of_probabilistic_pca():
    vae, x, log_p = linear_vae_at_its_optimum()
    # the posterior is exact there, so that every single draw has the weight p(x)
    results = compiled(lambda x: (vae.iwae(x, 1), vae.elbo(x, 500), vae.reconstruct(x)))
    weight, bound, again = map(numbers, results(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(weight, log_p, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bound.mean(), log_p.mean(), rtol=2e-3)
    np.testing.assert_allclose(again.mean(0), x.mean(0), atol=1e-4)


def test_the_optimum_of_the_linear_vae_is_a_maximum():
    vae, x, log_p = linear_vae_at_its_optimum()
    weights = vae.get_weights()
    bound = compiled(lambda x: vae.elbo(x, 50))
    x = ops.convert_to_tensor(x)
    for k in range(4):
        moved = [w + 0.1 * RNG.normal(size=w.shape) * (w != 0) for w in weights[:5]]
        vae.set_weights([*moved, *weights[5:]])
        assert numbers(bound(x)).mean() < log_p.mean() - 0.01, k


def test_importance_weighting_never_loosens_the_bound():
    vae = small()
    bounds = compiled(lambda x: (vae.elbo(x, 2000), vae.iwae(x, 2000)))
    elbo, many = map(numbers, bounds(ops.convert_to_tensor(X)))
    assert np.all(many >= elbo - 1e-3)
    tiled = ops.convert_to_tensor(np.tile(X, (1000, 1)))
    few = compiled(lambda x: (vae.iwae(x, 1), vae.iwae(x, 5)))
    one, five = (numbers(bound).mean() for bound in few(tiled))
    np.testing.assert_allclose(one, elbo.mean(), atol=0.05)
    gap = many.mean() - elbo.mean()
    assert elbo.mean() + 0.3 * gap < five < many.mean() - 0.1 * gap, gap


def test_seeds_fix_the_samples():
    first, second, other = (small(seed=s) for s in (3, 3, 4))
    for vae in (first, second, other):
        vae.build((None, 6))
    second.set_weights(first.get_weights())
    other.set_weights(first.get_weights())
    a, b = numbers(first.sample(4)), numbers(first.sample(4))
    assert np.abs(a - b).max() > 1e-6
    np.testing.assert_array_equal(a, numbers(second.sample(4)))
    assert np.abs(a - numbers(other.sample(4))).max() > 1e-6
    assert a.min() >= 0 and a.max() <= 1


def test_pictures_keep_their_shape():
    vae = VAE.dense((4, 4, 1), latent=3, hidden=(8,))
    x = RNG.uniform(size=(5, 4, 4, 1)).astype("float32")
    vae.build(x.shape)
    both = compiled(lambda x: (vae.reconstruct(x), vae.elbo(x, 3)))
    again, bound = both(ops.convert_to_tensor(x))
    assert tuple(again.shape) == (5, 4, 4, 1)
    assert tuple(bound.shape) == (5,)


def test_data_outside_the_unit_interval_make_the_compiled_loss_nan():
    vae = small()
    vae.compile("sgd")
    assert np.isfinite(vae.train_on_batch(X, return_dict=True)["loss"])
    assert np.isnan(vae.train_on_batch(X + 0.5, return_dict=True)["loss"])


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("likelihood must be one of", {"likelihood": "poisson"}),
        ("beta must be a finite", {"beta": -0.1}),
        ("beta must be a finite", {"beta": np.nan}),
        ("free_bits must be a finite", {"free_bits": -1}),
        ("free_bits must be a finite", {"free_bits": np.inf}),
        ("latent must be an integer of at least 1", {"latent": 0}),
    ],
)
def test_refuses_arguments(rule, arguments):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        VAE.dense(6, **{"latent": 2, **arguments})


def test_refuses_networks_that_do_not_fit():
    def dense(taken, given):
        return keras.Sequential([keras.Input((taken,)), keras.layers.Dense(given)])

    for encoder, decoder, rule in (
        (dense(6, 3), dense(2, 6), "2 \\* latent"),
        (dense(6, 4), dense(3, 6), "decoder must go from"),
        (dense(6, 4), dense(2, 5), "decoder must go from"),
    ):
        with pytest.raises(ValueError, match=f"{rule}.*Received: "):
            VAE(encoder, decoder).build((None, 6))


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_refuses_to_count_steps_that_the_encoder_masks(method):
    L = keras.layers
    encoder = keras.Sequential([keras.Input((3, 2)), L.Masking(), L.GRU(4)])
    decoder = keras.Sequential([keras.Input((2,)), L.Dense(6), L.Reshape((3, 2))])
    vae = VAE(encoder, decoder, likelihood="gaussian", seed=0)
    vae.compile("sgd")
    x = X.reshape(-1, 3, 2)
    with pytest.raises(ValueError, match="counts every step.*Received: .*masking"):
        getattr(vae, method)(x, verbose=0)
    assert vae.predict(x, verbose=0)["decoded"].shape == x.shape


BAD = {
    "NaN": np.where(X > 0.99, np.nan, X) + np.where(np.arange(6) == 3, np.nan, 0),
    "over one": X + 0.5,
    "negative": X - 0.5,
    "empty": X[:0],
    "text": X.astype(str),
    "one row": X[0],
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "elbo", "iwae"])
def test_refuses_data(method, data):
    vae = small()
    vae.compile("sgd")
    with pytest.raises(ValueError, match="Received: "):
        getattr(vae, method)(data)


def test_refuses_validation_data_targets_counts_and_sampling_before_build():
    vae = small(likelihood="gaussian")
    with pytest.raises(ValueError, match="hold no NaN"):
        vae.elbo(np.full_like(X, np.inf))
    assert np.isfinite(numbers(vae.elbo(X - 5))).all()  # any number is a Gaussian's
    vae = small()
    vae.compile("sgd")
    with pytest.raises(ValueError, match="between 0 and 1"):
        vae.fit(X, validation_data=(X + 1, None), verbose=0)
    with pytest.raises(ValueError, match="no targets"):
        vae.fit(X, X, verbose=0)
    with pytest.raises(ValueError, match="samples must be an integer of at least 1"):
        vae.iwae(X, 0)
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        vae.sample(2.5)
    with pytest.raises(ValueError, match="after fit"):
        small().sample(2)
