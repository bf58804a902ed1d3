"""Tests of dlcompanion.uncertainty.laplace."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import KroneckerLaplace, LastLayerLaplace
from dlcompanion.uncertainty.laplace import classification_data, evidence, tuned

FILE = Path(__file__).parents[1] / "references/laplace.npz"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype("float32")
Y = RNG.integers(0, 3, size=30)
both = pytest.mark.parametrize("laplace", [LastLayerLaplace, KroneckerLaplace])


def network(units=3, activation=None, hidden=5):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), keras.layers.Dense(hidden, "tanh")]
    return keras.Sequential([*layers, keras.layers.Dense(units, activation)])


def features(model, x=X):
    hidden, last = model.layers
    kernel, bias = (numpy(w) for w in hidden.weights)
    phi = np.tanh(x @ kernel + bias)
    phi = np.concatenate([phi, np.ones((len(x), 1))], axis=1).astype("float64")
    return phi, np.concatenate([numpy(last.kernel), numpy(last.bias)[None]])


@both
def test_contract(laplace):
    def arguments():
        return {"model": network(), "prior_precision": 2.0}

    class Fitted(laplace):  # the checks want numbers, which come with fit
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.fit(X, Y)

    keras.saving.register_keras_serializable("test", laplace.__name__)(Fitted)
    check_layer(Fitted, arguments, X, output_shape=(30, 3), training=False)


@both
def test_linear_regression_is_exact_and_tuned_as_scikit_learn_does(laplace):
    with np.load(FILE) as vectors:
        v = {k: vectors[k] for k in vectors.files}
    last = keras.layers.Dense(1, use_bias=False)
    model = keras.Sequential([keras.Input((3,)), last])
    last.kernel.assign(v["weights/kernel"])
    posterior = laplace(model, "regression").fit(v["in/x"], v["in/y"])
    for name in ("prior", "log_evidence"):
        found = numpy(getattr(posterior, name))
        np.testing.assert_allclose(found, v[f"out/{name}"], rtol=2e-4)
    np.testing.assert_allclose(numpy(posterior.noise_scale), v["out/noise"], rtol=1e-4)
    mean, variance = np.split(posterior.predict(v["in/x_new"]), 2, axis=1)
    np.testing.assert_allclose(mean[:, 0], v["out/mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance[:, 0] ** 0.5, v["out/deviation"], rtol=1e-4)
    if laplace is LastLayerLaplace:
        found = numpy(posterior.covariance)[:, 0, :, 0]
        np.testing.assert_allclose(found, v["out/covariance"], rtol=1e-3, atol=1e-6)


def test_classification_is_the_hessian():
    """Against second derivatives of the penalized loss, by central differences."""
    model = network()
    posterior = LastLayerLaplace(model, prior_precision=0.5).fit(X, Y)
    phi, theta = features(model)

    def loss(theta):
        f = phi @ theta
        nll = np.logaddexp.reduce(f, axis=1) - f[np.arange(30), Y]
        return nll.sum() + 0.25 * (theta**2).sum()

    size, step = theta.size, 1e-4
    hessian = np.empty((size, size))
    eye = step * np.eye(size).reshape(size, *theta.shape)
    for i in range(size):
        for j in range(size):
            signs = ((1, 1), (-1, -1), (1, -1), (-1, 1))
            four = [loss(theta + a * eye[i] + b * eye[j]) for a, b in signs]
            hessian[i, j] = (four[0] + four[1] - four[2] - four[3]) / (4 * step**2)
    covariance = np.linalg.inv(hessian)
    found = numpy(posterior.covariance).reshape(size, size)
    np.testing.assert_allclose(found, covariance, rtol=1e-3, atol=1e-4)
    # and what the predictions make of it
    mean, of_outputs = map(numpy, posterior.latent(X[:2]))
    jacobian = np.einsum("ni,kl->nkil", phi[:2], np.eye(3)).reshape(2, 3, size)
    expected = jacobian @ covariance @ jacobian.transpose(0, 2, 1)
    np.testing.assert_allclose(of_outputs, expected, rtol=1e-3, atol=1e-3)
    f = mean / np.sqrt(1 + np.pi / 8 * np.diagonal(expected, axis1=1, axis2=2))
    p = np.exp(f) / np.exp(f).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(posterior.predict(X[:2]), p, rtol=1e-3)


def test_kronecker_is_exact_where_all_examples_curve_alike():
    model = network()
    last = model.layers[-1]
    last.kernel.assign(np.zeros((5, 3)))
    last.bias.assign([1.0, 0.0, -1.0])  # the same probabilities for every input
    full = LastLayerLaplace(model).fit(X, Y)
    factored = KroneckerLaplace(model).fit(X, Y)
    np.testing.assert_allclose(full.predict(X), factored.predict(X), atol=1e-5)
    for name in ("prior", "log_evidence"):
        found = [numpy(getattr(m, name)) for m in (full, factored)]
        np.testing.assert_allclose(*found, rtol=1e-4)
    last.kernel.assign(RNG.normal(size=(5, 3)))  # and is not where they do not
    full, factored = (c(model).fit(X, Y) for c in (LastLayerLaplace, KroneckerLaplace))
    assert np.abs(full.predict(X) - factored.predict(X)).max() > 1e-4


@both
def test_samples_are_those_of_a_normal_with_that_covariance(laplace):
    posterior = laplace(network()).fit(X, Y)
    draws = posterior.predict_samples(X[:3], samples=20000)
    mean, covariance = map(numpy, posterior.latent(X[:3]))
    rng = np.random.default_rng(5)
    for n in range(3):
        root = np.linalg.cholesky(covariance[n].astype("float64") + 1e-5 * np.eye(3))
        f = mean[n] + rng.normal(size=(20000, 3)) @ root.T
        p = np.exp(f - f.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(draws[:, n].mean(axis=0), p.mean(axis=0), atol=0.01)
        np.testing.assert_allclose(np.cov(draws[:, n].T), np.cov(p.T), atol=0.004)
    numbers = laplace(network(2), "regression").fit(X, X[:, :2])
    variance = np.diagonal(numpy(numbers.latent(X[:3])[1]), axis1=1, axis2=2)
    draws = numbers.predict_samples(X[:3], samples=20000)
    np.testing.assert_allclose(draws.var(axis=0), variance, rtol=0.1)


@pytest.mark.once
@both
def test_fits_in_one_batch_as_in_several(laplace):
    one, several = (laplace(network()).fit(X, Y, batch_size=n) for n in (30, 7))
    np.testing.assert_allclose(one.predict(X), several.predict(X), rtol=1e-5)


@both
def test_a_strong_prior_leaves_the_model(laplace):
    model = network(1)
    posterior = laplace(model, prior_precision=1e8).fit(X, Y % 2)
    p = 1 / (1 + np.exp(-model.predict(X, verbose=0)))
    np.testing.assert_allclose(posterior.predict(X), p, atol=1e-5)
    softmax = laplace(network(3, "softmax"), prior_precision=1e8).fit(X, Y)
    np.testing.assert_allclose(
        softmax.predict(X), softmax.model.predict(X, verbose=0), atol=1e-5
    )


@both
def test_saves_and_loads(laplace, tmp_path):
    posterior = laplace(network()).fit(X, Y)
    posterior.save(tmp_path / "laplace.keras")
    loaded = keras.saving.load_model(tmp_path / "laplace.keras")
    np.testing.assert_allclose(loaded.predict(X), posterior.predict(X), rtol=1e-6)
    for seed in (0, 1):
        np.testing.assert_allclose(
            loaded.predict_samples(X, 2, seed), posterior.predict_samples(X, 2, seed)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"likelihood": "poisson"}, "likelihood must be"),
        ({"prior_precision": 0.0}, "prior_precision must be positive"),
        ({"noise": -1.0}, "noise must be a finite number of at least 0"),
        ({"model": keras.Sequential([keras.layers.Dense(2)])}, "end in a Dense layer"),
        (
            {"model": keras.Sequential([keras.Input((2, 2)), keras.layers.Dense(2)])},
            "end in a Dense layer",
        ),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        LastLayerLaplace(**{"model": network(), **arguments})


def test_rejects_wrong_targets_and_a_missing_fit():
    posterior = LastLayerLaplace(network(2), "regression")
    with pytest.raises(ValueError, match="Call fit on the training data"):
        posterior.predict(X)
    with pytest.raises(ValueError, match=r"targets of shape \(30, 2\)"):
        posterior.fit(X, Y)


def test_the_evidence_of_a_line_is_the_density_of_its_targets():
    """Whatever prior and noise: log N(y | 0, noise^2 I + X X' / prior)."""
    x, y, prior, noise = RNG.normal(size=(12, 3)), RNG.normal(size=12), 0.7, 0.4
    precision = prior * np.eye(3) + x.T @ x / noise**2
    theta = np.linalg.solve(precision, x.T @ y) / noise**2
    error = ((y - x @ theta) ** 2).sum()
    fit = -6 * np.log(2 * np.pi * noise**2) - error / (2 * noise**2)
    values = np.linalg.eigvalsh(x.T @ x / noise**2)
    of_y = noise**2 * np.eye(12) + x @ x.T / prior
    expected = np.linalg.slogdet(2 * np.pi * of_y)[1] + y @ np.linalg.solve(of_y, y)
    found = evidence(fit, (theta**2).sum(), values, prior)
    np.testing.assert_allclose(found, -0.5 * expected, rtol=1e-10)


def test_tuning_finds_the_maximum():
    values, squared, count, error = np.array([50.0, 9.0, 0.2]), 2.0, 30, 6.0

    def at(prior, noise):
        fit = -0.5 * count * np.log(2 * np.pi * noise**2) - error / (2 * noise**2)
        return evidence(fit, squared, values / noise**2, prior)

    prior, noise, scaled = tuned(values, squared, count, error)
    np.testing.assert_allclose(scaled, values / noise**2)
    best = at(prior, noise)
    for factor in (0.9, 1.1):
        assert at(prior * factor, noise) < best
        assert at(prior, noise * factor) < best
    assert tuned(values, squared, count, error, prior=3.0)[0] == 3.0
    assert tuned(values, squared, count, error, noise=0.3)[1] == pytest.approx(0.3)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_curvature_is_the_second_derivative(columns):
    logits, labels = RNG.normal(size=(4, columns)), np.array([0, 1, 1, 0])
    total, curvature = classification_data(logits, labels)
    step = 1e-4
    for i in range(columns):
        for j in range(columns):
            second = 0.0
            for si in (1, -1):
                for sj in (1, -1):
                    moved = logits.copy()
                    moved[:, i] += si * step
                    moved[:, j] += sj * step
                    second += si * sj * classification_data(moved, labels)[0]
            second /= 4 * step**2
            np.testing.assert_allclose(-second, curvature[:, i, j].sum(), atol=1e-5)
    assert total < 0


@pytest.mark.parametrize(
    "labels", [[0, 1], [0, 1, 2, 3], [0, 0.5, 1, 1], [-1, 0, 1, 1]]
)
def test_rejects_labels_that_are_no_classes(labels):
    with pytest.raises(ValueError, match="one class index from 0 to 2"):
        classification_data(np.zeros((4, 3)), labels)


def test_rejects_what_has_no_maximum():
    with pytest.raises(ValueError, match="weights of the last layer are 0"):
        tuned(np.ones(2), 0.0, 5, noise=1.0)
    with pytest.raises(ValueError, match="met exactly"):
        tuned(np.ones(2), 1.0, 5, error=0.0)


@both
def test_masked_steps_change_neither_features_nor_posterior(laplace):
    """A recurrent trunk skips padded steps, however many there are."""
    L = keras.layers
    x = RNG.normal(size=(12, 3, 2)).astype("float32")
    padded = np.concatenate([x, np.zeros((12, 2, 2), "float32")], axis=1)
    found = []
    for data in (x, padded):
        keras.utils.set_random_seed(0)
        layers = [keras.Input((None, 2)), L.Masking(), L.GRU(4), L.Dense(3)]
        model = laplace(keras.Sequential(layers), prior_precision=1.0)
        model.fit(data, Y[:12], batch_size=5)
        found.append((model.predict(data), model.predict_samples(data, 3)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_outputs_at_every_step_are_refused():
    L = keras.layers
    layers = [keras.Input((3, 2)), L.Masking(), L.GRU(4, return_sequences=True)]
    with pytest.raises(ValueError, match="inputs .batch, features.*Received: "):
        LastLayerLaplace(keras.Sequential([*layers, L.Dense(3)]))
