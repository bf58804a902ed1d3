"""Tests of dlcompanion.uncertainty.stochastic_layers.variational_model."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.losses import GaussianNLL
from dlcompanion.testing import check_model
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import (
    DenseFlipout,
    DenseReparameterization,
    NormalPosterior,
    PredictiveMean,
    VariationalModel,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(22, 3)).astype("float32")
Y = X[:, :1] + 0.1 * RNG.normal(size=(22, 1)).astype("float32")
L = keras.layers
N = 22


def network(outputs=2, regularizer=None):
    scale = {"kernel_posterior": NormalPosterior(initial_scale=0.3)}
    bias = {"bias_posterior": NormalPosterior(initial_scale=0.2)}
    return keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(4, "tanh", kernel_regularizer=regularizer),
            DenseReparameterization(4, training_examples=N, seed=0, **scale),
            DenseFlipout(outputs, training_examples=N, seed=1, **bias),
        ]
    )


def normal_divergence(posterior):
    """KL from N(0, 1) of independent normals, in NumPy."""
    mean, scale = numpy(posterior.mean()), numpy(posterior.stddev())
    terms = -np.log(scale) + (scale**2 + mean**2 - 1) / 2
    return terms.sum(dtype="float64")


def divergence(model):
    """What the Bayesian layers of a network add to the loss of an example."""
    first, second = model.layers[1:]
    posteriors = (
        first.kernel_posterior, second.kernel_posterior, second.bias_posterior,
    )  # fmt: skip
    return sum(map(normal_divergence, posteriors)) / N


def compiled(model, **kwargs):
    model.compile(**{"optimizer": keras.optimizers.SGD(0.01), **kwargs})
    return model


def test_contract():
    check_model(
        VariationalModel,
        lambda: {"model": network(outputs=1)},
        X,
        Y,
        # on TensorFlow, XLA draws other numbers from a seed than the eager call does
        compile_kwargs={"optimizer": "adam", "loss": "mse", "jit_compile": "auto"},
        output_shape=(N, 1),
    )


def test_evaluate_gives_the_divergence_of_the_weights_and_the_rest_of_the_loss():
    model = network(regularizer="l2")
    wrapper = compiled(VariationalModel(model), loss=GaussianNLL())
    logs = wrapper.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["kl"], divergence(model), rtol=1e-5)
    np.testing.assert_allclose(logs["loss"], logs["nll_loss"] + logs["kl"], rtol=1e-5)
    assert set(logs) == {"loss", "nll_loss", "kl"}


def test_nll_is_the_loss_of_the_same_draws():
    """Batches of 8, 8 and 6 count by their sizes, as in Keras's own loss."""
    wrapper = compiled(VariationalModel(network()), loss=GaussianNLL())
    batches = [slice(0, 8), slice(8, 16), slice(16, 22)]
    seeds = [s for s in wrapper.variables if s.path.endswith("seed_generator_state")]
    state = [numpy(s) for s in seeds]
    total = sum(
        len(X[rows]) * float(numpy(GaussianNLL()(Y[rows], wrapper(X[rows]))))
        for rows in batches
    )
    for seed, value in zip(seeds, state, strict=True):
        seed.assign(value)
    logs = wrapper.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["nll_loss"], total / N, rtol=1e-4)


@pytest.mark.parametrize("fit", ["fit", "fit_in_memory"])
def test_training_is_that_of_the_model_itself(fit):
    results = []
    for wrap in (VariationalModel, lambda model: model):
        keras.utils.set_random_seed(0)
        model = network(outputs=1)
        trained = compiled(wrap(model), loss="mse", jit_compile=False)
        settings = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
        if fit == "fit":
            logs = trained.fit(X, Y, validation_data=(X, Y), **settings).history
        else:
            logs = fit_in_memory(trained, X, Y, **settings).history
        results.append((logs, model.get_weights()))
    (logs, weights), (plain, wanted) = results
    for a, b in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logs["loss"], plain["loss"], rtol=1e-5)
    extra = {"nll_loss", "kl"} | ({"val_nll_loss", "val_kl"} if fit == "fit" else set())
    assert set(logs) == set(plain) | extra
    for name in ("", "val_") if fit == "fit" else ("",):
        parts = np.add(logs[f"{name}nll_loss"], logs[f"{name}kl"])
        np.testing.assert_allclose(logs[f"{name}loss"], parts, rtol=1e-5)


def test_logs_the_same_after_loading(tmp_path):
    wrapper = compiled(VariationalModel(network()), loss=GaussianNLL())
    wrapper.fit(X, Y, verbose=0)
    wrapper.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    logs = [m.evaluate(X, Y, verbose=0, return_dict=True) for m in (wrapper, loaded)]
    assert set(logs[0]) == {"loss", "nll_loss", "kl"}
    for name, value in logs[0].items():
        np.testing.assert_allclose(logs[1][name], value, rtol=1e-5)


def test_a_frozen_layer_adds_no_divergence():
    model = network()
    wrapper = VariationalModel(model)
    model.layers[1].trainable = False
    compiled(wrapper, loss=GaussianNLL())
    logs = wrapper.evaluate(X, Y, verbose=0, return_dict=True)
    left = divergence(model) - normal_divergence(model.layers[1].kernel_posterior) / N
    np.testing.assert_allclose(logs["kl"], left, rtol=1e-5)


def test_masks_and_weights():
    """Padded steps are no part of the likelihood, and none of the divergence."""
    layer = DenseReparameterization(1, training_examples=N, seed=0)
    layers = [keras.Input((4, 2)), L.Masking(), layer]
    x = RNG.normal(size=(8, 4, 2)).astype("float32")
    x[:, 2:] = 0
    y = np.zeros((8, 4, 1), "float32")
    far = y.copy()
    far[:, 2:] = 1e3
    wrapper = compiled(VariationalModel(keras.Sequential(layers)), loss="mse")
    wanted = normal_divergence(layer.kernel_posterior) / N
    for weight in (1.0, 0.0):
        kwargs = {"sample_weight": np.full((8, 4), weight), "return_dict": True}
        logs = wrapper.evaluate(x, far, verbose=0, **kwargs)
        np.testing.assert_allclose(logs["kl"], wanted, rtol=1e-5)
        assert 0 <= logs["nll_loss"] + 1e-6 < 100
        assert (abs(logs["nll_loss"]) < 1e-5) == (weight == 0)


def test_around_a_predictive_mean():
    model = compiled(VariationalModel(PredictiveMean(network(1), 3)), loss="mse")
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    np.testing.assert_allclose(logs["kl"], divergence(model.model.model), rtol=1e-5)


def test_refuses_a_model_without_bayesian_layers():
    model = keras.Sequential([keras.Input((3,)), L.Dense(1)])
    with pytest.raises(ValueError, match="must have a Bayesian layer.*Received: "):
        VariationalModel(model)
