"""Tests of dlcompanion.generative.information_estimators."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import mutual_info_score

from dlcompanion.generative import (
    DonskerVaradhanEstimator,
    InfoNCEEstimator,
    binned_information,
    discrete_information,
)
from dlcompanion.testing import check_model

RNG = np.random.default_rng(0)
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
def test_contract(make):
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


@pytest.mark.parametrize("error", [0.01, 0.1, 0.4])
def test_a_binary_symmetric_channel_has_its_capacity(error):
    x = RNG.integers(0, 2, 50_000)
    y = x ^ (RNG.uniform(size=50_000) < error)
    exact = 1 + error * np.log2(error) + (1 - error) * np.log2(1 - error)
    assert abs(discrete_information(x, y) - exact) < 0.02


def test_a_channel_of_several_symbols():
    """A joint table of 4 x 5, whose information is summed exactly."""
    joint = RNG.dirichlet(np.full(20, 0.5)).reshape(4, 5)
    cells = RNG.choice(20, p=joint.ravel(), size=100_000)
    outer = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    exact = (joint * np.log2(joint / outer)).sum()
    x, y = cells // 5, cells % 5
    assert abs(discrete_information(x, y) - exact) < 0.02
    assert abs(discrete_information(y.astype("U"), -1.5 * x) - exact) < 0.02


def test_is_that_of_scikit_learn_and_of_rows_the_joint_symbol():
    x, y = RNG.integers(0, 5, (300, 2)), RNG.integers(0, 3, 300)
    wanted = mutual_info_score(5 * x[:, 0] + x[:, 1], y) / np.log(2)
    np.testing.assert_allclose(discrete_information(x, y), wanted, atol=1e-9)
    np.testing.assert_allclose(discrete_information(y, 0.5 * x), wanted, atol=1e-9)


def test_the_bias_of_independent_symbols_is_the_known_one():
    values = [
        discrete_information(RNG.integers(0, 8, 500), RNG.integers(0, 6, 500))
        for _ in range(200)
    ]
    np.testing.assert_allclose(np.mean(values), 7 * 5 / (1_000 * np.log(2)), rtol=0.1)


def test_bins_merge_what_they_share():
    t = np.array([[-1.0, 0.1], [-0.9, 0.2], [0.9, 0.1], [1.0, -0.2]])
    y = [0, 1, 1, 1]
    about_x, about_y = binned_information(t, y, -1, 1, bins=2)
    assert about_x == 1.5  # two inputs share a row of bins
    np.testing.assert_allclose(about_y, 0.75 * np.log2(4 / 3) + 0.5 - 0.5, atol=0.1)
    np.testing.assert_allclose(about_y, mutual_info_score([0, 0, 1, 2], y) / np.log(2))
    assert binned_information(t, y, -1, 1, bins=200)[0] == 2.0
    assert binned_information(t, y, -1, 1, bins=1) == (0.0, 0.0)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_best_critic_measures_the_information_of_normals(rho):
    exact = -0.5 * np.log(1 - rho**2)
    x, y = normals(20_000, rho)
    for make in BOTH.values():
        found = make(LogRatio(rho)).estimate(x, y, batch_size=200)
        assert abs(found - exact) < 0.03


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


def test_refuses():
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
