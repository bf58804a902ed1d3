"""Tests of dlcompanion.generative.information_bottleneck."""

import keras
import numpy as np
import pytest
from helpers.arrays import numbers
from keras import ops
from sklearn.metrics import mutual_info_score

from dlcompanion.generative import (
    DonskerVaradhanEstimator,
    InfoNCEEstimator,
    InformationPlane,
    VariationalBottleneck,
)
from dlcompanion.generative.information_bottleneck import (
    binned_information,
    discrete_information,
)
from dlcompanion.testing import check_callback, check_layer, check_model
from dlcompanion.training import ResumableCheckpoint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 3)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


def network(**kwargs):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh", name="first"),
            keras.layers.Dense(2, "tanh", name="second"),
            keras.layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, "mse", metrics=["mae"], **kwargs)
    return model


def test_contract():
    check_layer(
        VariationalBottleneck, {"latent": 2, "beta": 0.1}, X[:6], output_shape=(6, 2)
    )


def test_loss_is_beta_times_the_divergence_and_rate_its_terms():
    layer = VariationalBottleneck(2, beta=0.3, seed=0)
    code = numbers(layer(X))
    mean, log_variance = np.split(numbers(layer.dense(X)), 2, axis=1)
    np.testing.assert_allclose(code, mean, rtol=1e-5)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(axis=1)
    np.testing.assert_allclose(numbers(layer.rate(X)), kl, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(numbers(layer.losses[0]), 0.3 * kl.mean(), rtol=1e-4)


def test_code_in_training_is_the_normal_of_the_equation():
    layer = VariationalBottleneck(2, seed=0)
    one = np.repeat(X[:1], 20_000, axis=0)
    code = numbers(layer(one, training=True))
    mean, log_variance = np.split(numbers(layer.dense(X[:1]))[0], 2)
    scale = np.exp(0.5 * log_variance)
    np.testing.assert_allclose(code.mean(axis=0), mean, atol=4 * scale.max() / 141)
    np.testing.assert_allclose(code.std(axis=0), scale, rtol=0.03)


@pytest.mark.once
def test_a_high_price_leaves_nothing_and_a_low_one_what_the_target_needs():
    found = {}
    x, y = np.tile(X, (50, 1)), np.tile(Y, 50)  # each batch holds all examples once
    for beta in (1e-3, 10.0):
        keras.utils.set_random_seed(0)
        layer = VariationalBottleneck(1, beta=beta, seed=0)
        model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.05), loss)
        model.fit(x, y, batch_size=32, epochs=3, shuffle=False, verbose=0)
        found[beta] = numbers(layer.rate(X)).mean()
    assert found[10.0] < 0.01 < 0.5 < found[1e-3]


def plane(**kwargs):
    return InformationPlane(X, Y, ["first", "second"], **kwargs)


def test_callback_contract():
    def make_model():  # not compiled, for each of the fits makes a new one
        return network(run_eagerly=True)

    check_callback(plane, {}, make_model=make_model, data=(X, Y[:, None]))


def test_values_are_those_of_the_activations():
    model, seen = network(), plane(low=-1, high=1, bins=5, epochs=[1, 3])
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[seen])
    assert [epoch for epoch, _ in seen.history] == [1, 3]
    first = numbers(model.layers[0](X))
    for row, t in enumerate((first, numbers(model.layers[1](first)))):
        wanted = binned_information(t, Y, -1, 1, 5)
        np.testing.assert_allclose(seen.history[-1][1][row], wanted, atol=1e-6)


@pytest.mark.once
def test_bins_without_ends_reach_from_the_smallest_to_the_largest():
    model, seen = network(), plane(bins=7)
    model.fit(X, Y, epochs=1, verbose=0, callbacks=[seen])
    t = numbers(model.layers[0](X))
    wanted = binned_information(t, Y, t.min(), t.max(), 7)
    np.testing.assert_allclose(seen.history[0][1][0], wanted, atol=0.1)


@pytest.mark.once
def test_history_is_carried_on(tmp_path):
    def fit(epochs, seen, folder):
        carry = ResumableCheckpoint(tmp_path / folder, carry=[seen])
        network().fit(X, Y, epochs=epochs, verbose=0, callbacks=[seen, carry])
        return seen.history

    whole = fit(4, plane(), "whole")
    fit(2, plane(), "half")
    rest = fit(4, plane(), "half")
    assert [epoch for epoch, _ in rest] == [1, 2, 3, 4]
    np.testing.assert_allclose([v for _, v in rest], [v for _, v in whole], atol=1e-5)


def test_refuses():
    for kwargs in ({"latent": 0}, {"latent": 2, "beta": -1}):
        with pytest.raises(ValueError, match="Received: "):
            VariationalBottleneck(**kwargs)
    layer = VariationalBottleneck(2)
    layer(X)
    with pytest.raises(ValueError, match="built for 3 features.*Received: "):
        layer.rate(X[:, :2])
    with pytest.raises(ValueError, match="Every input needs.*Received: "):
        InformationPlane(X, Y[:3], ["first"])
    with pytest.raises(ValueError, match="bins must be.*Received: "):
        plane(bins=0)
    with pytest.raises(ValueError, match="layers must be among.*Received: "):
        wrong = InformationPlane(X, Y, ["third"])
        network().fit(X, Y, verbose=0, callbacks=[wrong])
    with pytest.raises(ValueError, match="between low and high.*Received: "):
        network().fit(X, Y, verbose=0, callbacks=[plane(low=0, high=0.01)])


BOTH = {"donsker varadhan": DonskerVaradhanEstimator, "infonce": InfoNCEEstimator}
each = pytest.mark.parametrize("make", BOTH.values(), ids=BOTH)


@keras.saving.register_keras_serializable(package="tests")
class LogRatio(keras.layers.Layer):
    """The best critic of two normals of correlation rho, with a scale to learn."""

    def __init__(self, rho, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.rho, self.start = rho, start

    def build(self, input_shape):
        start = keras.initializers.Constant(self.start)
        self.scale = self.add_weight(name="scale", shape=(3,), initializer=start)

    def call(self, pairs):
        x, y = pairs[:, :1], pairs[:, 1:]
        rest = 1 - self.rho**2
        a, b, c = ops.unstack(ops.convert_to_tensor(self.scale))
        square = self.rho**2 * (a * x * x + b * y * y) - 2 * c * self.rho * x * y
        return -0.5 * square / rest - 0.5 * np.log(rest)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)


def normals(n, rho, seed=0):
    x, noise = np.random.default_rng(seed).normal(size=(2, n, 1)).astype("float32")
    return x, (rho * x + np.sqrt(1 - rho**2) * noise).astype("float32")


def small_critic():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    )


@each
def test_information_estimators_contract(make):
    x = RNG.normal(size=(8, 1)).astype("float32")
    y = RNG.normal(size=(8, 2)).astype("float32")
    check_model(
        make,
        lambda: {"critic": small_critic()},
        [x, y],
        compile_kwargs={"optimizer": "adam"},
        output_shape=(8, 8),
        batch_independent=False,
    )


def test_a_single_pair_says_nothing():
    """A last batch of one leaves the critic and the mean of the bounds as they are."""
    x, y = (RNG.normal(size=(5, n)).astype("float32") for n in (1, 2))
    found = []
    for rows in (5, 4):
        model = DonskerVaradhanEstimator(small_critic())
        model.compile(keras.optimizers.SGD(0.1))
        data = [x[:rows], y[:rows]]
        logs = model.fit(data, batch_size=4, shuffle=False, verbose=0).history
        found.append((logs["information"][0], model.get_weights()))
    assert np.isfinite(found[0][0])
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    for a, b in zip(*(weights for _, weights in found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("error", [0.01, 0.1, 0.4])
def test_a_binary_symmetric_channel_has_its_capacity(error):
    x = RNG.integers(0, 2, 50_000)
    y = x ^ (RNG.uniform(size=50_000) < error)
    exact = 1 + error * np.log2(error) + (1 - error) * np.log2(1 - error)
    assert abs(discrete_information(x, y) - exact) < 0.02


@pytest.mark.once
def test_a_channel_of_several_symbols():
    """A joint table of 4 x 5, whose information is summed exactly."""
    joint = RNG.dirichlet(np.full(20, 0.5)).reshape(4, 5)
    cells = RNG.choice(20, p=joint.ravel(), size=100_000)
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    exact = (joint * np.log2(joint / outer)).sum()
    x, y = cells // 5, cells % 5
    assert abs(discrete_information(x, y) - exact) < 0.02
    assert abs(discrete_information(y.astype("U"), -1.5 * x) - exact) < 0.02


@pytest.mark.once
def test_is_that_of_scikit_learn_and_of_rows_the_joint_symbol():
    x, y = RNG.integers(0, 5, (300, 2)), RNG.integers(0, 3, 300)
    wanted = mutual_info_score(5 * x[:, 0] + x[:, 1], y) / np.log(2)
    np.testing.assert_allclose(discrete_information(x, y), wanted, atol=1e-9)
    np.testing.assert_allclose(discrete_information(y, 0.5 * x), wanted, atol=1e-9)


@pytest.mark.once
def test_the_bias_of_independent_symbols_is_the_known_one():
    values = [
        discrete_information(RNG.integers(0, 8, 500), RNG.integers(0, 6, 500))
        for _ in range(200)
    ]
    np.testing.assert_allclose(np.mean(values), 7 * 5 / (1_000 * np.log(2)), rtol=0.1)


@pytest.mark.once
def test_bins_merge_what_they_share():
    t = np.array([[-1.0, 0.1], [-0.9, 0.2], [0.9, 0.1], [1.0, -0.2]])
    y = [0, 1, 1, 1]
    about_x, about_y = binned_information(t, y, -1, 1, bins=2)
    assert about_x == 1.5  # two inputs share a row of bins
    np.testing.assert_allclose(about_y, 0.75 * np.log2(4 / 3) + 0.5 - 0.5, atol=0.1)
    np.testing.assert_allclose(about_y, mutual_info_score([0, 0, 1, 2], y) / np.log(2))
    assert binned_information(t, y, -1, 1, bins=200)[0] == 2.0
    assert binned_information(t, y, -1, 1, bins=1) == (0.0, 0.0)


@pytest.mark.once
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_best_critic_measures_the_information_of_normals(rho):
    exact = -0.5 * np.log(1 - rho**2)
    x, y = normals(20_000, rho)
    for make in BOTH.values():
        found = make(LogRatio(rho)).estimate(x, y, batch_size=200)
        assert abs(found - exact) < 0.03


@pytest.mark.once
def test_infonce_has_a_ceiling_and_donsker_varadhan_has_none():
    rho = 0.9999
    exact = -0.5 * np.log(1 - rho**2)  # 4.3 nats
    x, y = normals(4_000, rho)
    for n in (4, 16):
        capped = InfoNCEEstimator(LogRatio(rho)).estimate(x, y, batch_size=n)
        assert 0.9 * np.log(n) < capped <= np.log(n) + 1e-5
    free = DonskerVaradhanEstimator(LogRatio(rho)).estimate(x, y, batch_size=1_000)
    assert abs(free - exact) < 0.3


def test_bounds_are_their_equations():
    scores = RNG.normal(size=(5, 5)).astype("float32")
    joint, off = np.mean(np.diag(scores)), ~np.eye(5, dtype=bool)
    for make, wanted in (
        (DonskerVaradhanEstimator, joint - np.log(np.exp(scores[off]).mean())),
        (InfoNCEEstimator, joint - np.log(np.exp(scores).mean(axis=1)).mean()),
    ):
        found = make(LogRatio(0.5)).bound(ops.convert_to_tensor(scores))
        np.testing.assert_allclose(float(found), wanted, rtol=1e-5)


@pytest.mark.once
@each
def test_training_finds_the_best_critic(make):
    x, y = normals(2_000, 0.8)
    estimator = make(LogRatio(0.8, start=0.2))
    # the last steps are short: a batch with one rare pair throws Donsker-Varadhan far
    rate = keras.optimizers.schedules.CosineDecay(0.1, 120)
    estimator.compile(keras.optimizers.Adam(rate))
    estimator.fit([x, y], batch_size=100, epochs=6, verbose=0)
    exact = -0.5 * np.log(1 - 0.8**2)
    assert abs(estimator.estimate(*normals(4_000, 0.8, seed=1)) - exact) < 0.06


def test_information_estimators_refuses():
    for x, y in (([0, 1], [0]), ([], []), ([np.nan, 1], [0, 1]), (0, [1])):
        with pytest.raises(ValueError, match="Received: "):
            discrete_information(x, y)
    t, y = np.zeros((4, 2)), [0, 1, 0, 1]
    for bad, kwargs in (
        (t, {"bins": 0}),
        (t, {"low": 2}),
        (t + 3, {}),
        (t * np.nan, {}),
        (t[0], {}),
        (t[:2], {}),
        (t, {"high": np.inf}),
    ):
        with pytest.raises(ValueError, match="Received: "):
            binned_information(bad, y, **{"low": -1, "high": 1, **kwargs})
    for make in BOTH.values():
        with pytest.raises(ValueError, match="critic must be.*Received: "):
            make("network")
        wide = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        with pytest.raises(ValueError, match="one number an example.*Received: "):
            make(wide).build([(None, 1), (None, 1)])
        with pytest.raises(ValueError, match="must be a pair.*Received: "):
            make(LogRatio(0.5)).build([(None, 1, 1), (None, 1)])
        x, y = normals(50, 0.5)
        with pytest.raises(ValueError, match="one whole batch.*Received: "):
            make(LogRatio(0.5)).estimate(x, y, batch_size=51)
        with pytest.raises(ValueError, match="must be finite.*Received: "):
            make(LogRatio(0.5)).estimate(x, y * np.nan, batch_size=10)
