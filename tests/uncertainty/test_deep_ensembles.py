"""Tests of dlcompanion.uncertainty.deep_ensembles."""

import logging
import random

import keras
import numpy as np
import pytest

from dlcompanion.losses import GaussianNLL
from dlcompanion.testing import check_model
from dlcompanion.training import fit_in_memory
from dlcompanion.uncertainty import DeepEnsemble, deep_ensembles

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4)).astype("float32")
Y = RNG.integers(0, 3, size=20)
TORCH = keras.backend.backend() == "torch"
L = keras.layers
SIZES = iter((2, 3))


def linear(activation="softmax", units=3):
    return keras.Sequential([keras.Input((4,)), L.Dense(units, activation)])


def logits():
    return linear(None)


def network():
    """Everything that may go wrong in a stack: statistics, noise, penalties."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(5, "relu", kernel_regularizer="l2", activity_regularizer="l1"),
            L.BatchNormalization(),
            L.Dropout(0.3, seed=random.randrange(10**6)),
            L.LayerNormalization(),
            L.Dense(3, kernel_constraint="unit_norm"),
        ]
    )


def convolutional():
    return keras.Sequential(
        [
            keras.Input((4,)),
            L.Reshape((4, 1)),
            L.Conv1D(2, 2),
            L.Flatten(),
            L.Dropout(0.3, seed=random.randrange(10**6)),
            L.Dense(3),
        ]
    )


def compiled(model, optimizer="adam", learning_rate=0.05):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.get(optimizer)
    optimizer.learning_rate = learning_rate
    model.compile(optimizer, loss)
    return model


def train(model, x=X, y=Y, epochs=3, **arguments):
    arguments = {"batch_size": 8, "verbose": 0, "seed": 5, **arguments}
    return fit_in_memory(model, x, y, epochs=epochs, **arguments)


def arrays(model):
    variables = model.trainable_variables + model.non_trainable_variables
    return [keras.ops.convert_to_numpy(v) for v in variables]


def assert_same(model, other, atol=1e-5):
    for a, b in zip(arrays(model), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def begin_again(model, new):
    """All of a new model, dropout's state too, in a program that is compiled."""
    for state, value in (
        (model.trainable_variables, new.trainable_variables),
        (model.non_trainable_variables, new.non_trainable_variables),
    ):
        for variable, start in zip(state, value, strict=True):
            variable.assign(keras.ops.copy(start))
    for variable in model.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(0 * variable)


def new_ensemble():
    ensemble = compiled(DeepEnsemble(network, 3, seed=1, outputs="logits"))
    history = train(ensemble)
    return ensemble, history


@pytest.fixture(scope="module")
def trained():
    """For tests that do not train it further."""
    return new_ensemble()


def test_contract():
    compile_kwargs = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy"}
    check_model(
        DeepEnsemble,
        lambda: {"build_fn": linear, "members": 2},
        X[:8],
        Y[:8],
        compile_kwargs=compile_kwargs,
        output_shape=(8, 3),
        export=True,
        skip=["config"],
    )


@pytest.mark.parametrize("build", [network, convolutional])
def test_each_member_is_what_it_would_be_alone(build, trained):
    """With shuffling, dropout, statistics, penalties and constraints."""
    if build is network:
        ensemble, history = trained
    else:
        ensemble = compiled(DeepEnsemble(build, 2, seed=1, outputs="logits"))
        history = train(ensemble)
    slow = build is convolutional or TORCH
    assert ensemble.execution == ("member by member" if slow else "vectorized")
    losses, alone = [], compiled(build())
    for m, seed in enumerate(ensemble.seeds):
        keras.utils.set_random_seed(seed)
        begin_again(alone, build())
        losses.append(train(alone).history["loss"])
        assert_same(ensemble.member(m), alone)
        answer = keras.ops.softmax(alone(X))
        np.testing.assert_allclose(
            ensemble.predict_members(X, batch_size=7)[m],
            keras.ops.convert_to_numpy(answer),
            atol=1e-5,
        )
    np.testing.assert_allclose(history.history["loss"], np.mean(losses, 0), rtol=1e-4)


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.SGD(momentum=0.9), keras.optimizers.Nadam()]
)
def test_members_with_data_of_their_own(optimizer):
    """Bootstrap samples and weights: arrays (examples, members, ...)."""
    rows = RNG.integers(0, 20, size=(16, 2))
    weight = RNG.uniform(size=(16, 2)).astype("float32")
    renew = type(optimizer).from_config
    ensemble = DeepEnsemble(logits, 2, outputs="logits")
    compiled(ensemble, renew(optimizer.get_config()))
    ensemble.fit(
        X[rows], Y[rows], sample_weight=weight, shuffle=False, epochs=2, verbose=0
    )
    for m, seed in enumerate(ensemble.seeds):
        keras.utils.set_random_seed(seed)
        alone = compiled(logits(), renew(optimizer.get_config()))
        x, y, w = X[rows[:, m]], Y[rows[:, m]], weight[:, m]
        alone.fit(x, y, sample_weight=w, shuffle=False, epochs=2, verbose=0)
        assert_same(ensemble.member(m), alone)
    own = keras.ops.convert_to_numpy(ensemble(X[rows]))
    shared = ensemble.predict_members(X)
    for m in range(2):
        np.testing.assert_allclose(own[:, m], shared[m, rows[:, m]], atol=1e-5)


def test_one_member_is_the_model():
    ensemble = DeepEnsemble(linear, 1)
    alone = ensemble.member(0)
    np.testing.assert_allclose(
        ensemble.predict(X, verbose=0), alone.predict(X, verbose=0), atol=1e-6
    )


@pytest.mark.once
def test_the_mixture_is_the_mean_and_its_likelihood_is_no_worse(trained):
    ensemble, _ = trained
    members = ensemble.predict_members(X)
    mean = ensemble.predict(X, verbose=0)
    np.testing.assert_allclose(mean, members.mean(axis=0), atol=1e-6)
    logs = ensemble.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    rows = np.arange(20)
    nll = -np.log(mean[rows, Y])
    member_nll = -np.log(members[:, rows, Y]).mean(axis=0)
    assert (nll <= member_nll + 1e-6).all()  # Jensen, example by example
    assert logs["loss"] < logs["member_loss"]
    penalty = logs["member_loss"] - member_nll.mean()  # regularizers of a member
    np.testing.assert_allclose(logs["loss"], nll.mean(), rtol=1e-4)
    assert penalty > 0


def test_gaussian_members_make_the_moments_of_their_mixture():
    ensemble = DeepEnsemble(lambda: linear(None, 4), 3, outputs="gaussian")
    ensemble.compile("sgd", GaussianNLL())
    y = X[:, :2]
    members = ensemble.predict_members(X)
    mean, variance = np.split(ensemble.predict(X, verbose=0), 2, axis=1)
    rng = np.random.default_rng(1)
    draws = members[:, :, :2] + rng.normal(size=(40000, 3, 20, 2)) * np.sqrt(
        members[:, :, 2:]
    )
    np.testing.assert_allclose(mean, draws.mean(axis=(0, 1)), atol=0.05)
    np.testing.assert_allclose(variance, draws.var(axis=(0, 1)), rtol=0.05)
    expected = 0.5 * np.log(2 * np.pi * variance) + (y - mean) ** 2 / (2 * variance)
    loss = ensemble.evaluate(X, y, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(loss, expected.sum(axis=1).mean(), rtol=1e-4)


def test_one_logit_is_a_probability():
    ensemble = DeepEnsemble(lambda: linear(None, 1), 3, outputs="logits")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    ensemble.compile("sgd", loss, metrics=["accuracy"])
    y = (Y > 0).astype("float32")[:, None]
    p = ensemble.predict_members(X).mean(axis=0)
    np.testing.assert_allclose(ensemble.predict(X, verbose=0), p, atol=1e-6)
    logs = ensemble.evaluate(X, y, verbose=0, return_dict=True)
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(logs["accuracy"], np.mean((p > 0.5) == y), atol=1e-6)


def test_resumes_from_a_file_exactly(tmp_path):
    ensemble, _ = new_ensemble()
    path = tmp_path / "ensemble.keras"
    ensemble.save(path)
    loaded = keras.saving.load_model(path)
    train(ensemble, epochs=4, initial_epoch=3)
    train(loaded, epochs=4, initial_epoch=3)
    assert loaded.execution == ensemble.execution
    assert_same(ensemble, loaded, atol=1e-7)


def test_says_which_way(caplog):
    with caplog.at_level(logging.INFO, "dlcompanion"):
        DeepEnsemble(convolutional, 2)
    assert "2 members, member by member, because of conv1d" in caplog.text


def test_rejects_a_strategy_of_several_replicas(monkeypatch):
    ensemble = compiled(DeepEnsemble(logits, 2, outputs="logits"))
    monkeypatch.setattr(deep_ensembles.backend, "replicas", lambda: 2)
    with pytest.raises(ValueError, match="one device of TensorFlow"):
        ensemble.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": 0}, "members must be an integer of at least 1"),
        ({"outputs": "softmax"}, "outputs must be one of 'probabilities'"),
        ({"build_fn": lambda: keras.Sequential([L.Dense(2)])}, "with its Input"),
        ({"build_fn": lambda: linear(units=next(SIZES))}, "same architecture"),
    ],
)
def test_rejects_what_makes_no_ensemble(arguments, message):
    arguments = {"build_fn": linear, "members": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        DeepEnsemble(**arguments)


def test_rejects_members_that_start_alike():
    def build():
        start = keras.initializers.RandomNormal(seed=1)
        return keras.Sequential(
            [keras.Input((4,)), L.Dense(3, kernel_initializer=start)]
        )

    with pytest.raises(ValueError, match="start from different weights"):
        DeepEnsemble(build, 2)


def test_rejects_more_members_than_memory(monkeypatch):
    monkeypatch.setattr(deep_ensembles, "available_memory", lambda: 15 * 4 * 4 * 3)
    DeepEnsemble(linear, 3)  # 15 weights, of 4 bytes, 4 times
    with pytest.raises(ValueError, match=r"memory that are free. Received: members=4"):
        DeepEnsemble(linear, 4)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adam(global_clipnorm=1.0),
        keras.optimizers.Lamb(),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(clipnorm=1.0)),
    ],
)
def test_rejects_optimizers_that_mix_members(optimizer):
    with pytest.raises(ValueError, match="treat every number by itself"):
        DeepEnsemble(linear, 2).compile(optimizer, "mse")


# -- masks --------------------------------------------------------------------------


def padded(rows=12, steps=5):
    """Sequences of zeros after their end, with targets there that must not count."""
    x = RNG.normal(size=(rows, steps, 2)).astype("float32")
    y = RNG.normal(size=(rows, steps, 1)).astype("float32")
    for n in range(rows):
        length = 1 + n % steps
        x[n, length:], y[n, length:] = 0, 50
    return x, y


def of_sequences():
    return keras.Sequential([keras.Input((5, 2)), L.Masking(), L.Dense(1)])


def masked(model):
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    return model


@pytest.mark.parametrize("stacked", [False, True])
def test_padded_steps_count_as_they_do_for_a_member(stacked):
    x, y = padded()
    weight = RNG.uniform(size=(12, 5)).astype("float32")
    ensemble = masked(DeepEnsemble(of_sequences, 2, seed=3, outputs="values"))
    alone = masked(ensemble.member(0))
    for member in (ensemble, alone):  # one member twice: the ensemble is the member
        state = member.trainable_variables
        for v in state:
            value = keras.ops.convert_to_numpy(v)
            v.assign(
                np.broadcast_to(value[:1], value.shape) if member is ensemble else v
            )
    found = ensemble.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    expected = alone.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert found.pop("member_loss") == pytest.approx(expected["loss"], rel=1e-4)
    assert found == pytest.approx(expected, rel=1e-4)
    data = [np.stack([a, a], 1) if stacked else a for a in (x, y, weight)]
    settings = {"batch_size": 12, "verbose": 0}
    settings["validation_data"] = (x, y)
    train = ensemble.fit(*data[:2], sample_weight=data[2], **settings).history
    train.pop("val_member_loss")
    wanted = alone.fit(x, y, sample_weight=weight, **settings).history
    if keras.backend.backend() == "jax":  # where Keras's own metrics in fit see no mask
        wanted = {k: v for k, v in wanted.items() if k == "loss" or "val_" in k}
        train = {k: train[k] for k in wanted}
    assert {k: v[0] for k, v in train.items()} == pytest.approx(
        {k: v[0] for k, v in wanted.items()}, rel=1e-4
    )


def test_an_ensemble_hands_the_mask_on():
    x, y = padded()
    ensemble = DeepEnsemble(of_sequences, 2, outputs="values")
    behind = keras.Sequential([keras.Input((5, 2)), ensemble, L.Rescaling(2.0)])
    behind.compile("sgd", "mse")
    assert behind.evaluate(x, y, verbose=0) < 50 < np.mean(y**2)
