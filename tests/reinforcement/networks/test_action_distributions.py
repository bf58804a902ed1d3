"""Tests of dlcompanion.reinforcement.networks.action_distributions."""

import keras
import numpy as np
import pytest
from helpers.toy_networks import softmax
from keras import ops
from scipy import stats

from dlcompanion.reinforcement.networks.action_distributions import (
    Categorical,
    DiagonalGaussian,
    MultiCategorical,
)

numpy = ops.convert_to_numpy
OUTPUTS = np.random.default_rng(0).normal(size=(6, 6)).astype("float32")
KINDS = [Categorical(6), MultiCategorical([2, 4]), DiagonalGaussian(3)]


def test_log_probabilities_are_those_of_numpy_and_scipy():
    a = np.arange(6)
    got = numpy(KINDS[0].log_prob(OUTPUTS, a))
    np.testing.assert_allclose(got, np.log(softmax(OUTPUTS)[a, a]), rtol=1e-5)
    pairs = np.stack([a % 2, a % 4], axis=1)
    left, right = softmax(OUTPUTS[:, :2]), softmax(OUTPUTS[:, 2:])
    got = numpy(KINDS[1].log_prob(OUTPUTS, pairs))
    want = np.log(left[a, a % 2]) + np.log(right[a, a % 4])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    x = np.random.default_rng(1).normal(size=(6, 3)).astype("float32")
    normal = stats.norm(OUTPUTS[:, :3], np.exp(OUTPUTS[:, 3:]))
    got = numpy(KINDS[2].log_prob(OUTPUTS, x))
    np.testing.assert_allclose(got, normal.logpdf(x).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_entropy_is_the_mean_of_minus_the_log_probability(kind):
    assert kind.outputs == 6
    outputs = np.repeat(OUTPUTS[:1], 40_000, axis=0)
    drawn = kind.sample(outputs, np.random.default_rng(0))
    logs = numpy(kind.log_prob(outputs, drawn))
    error = logs.std() / 200
    entropy = float(numpy(kind.entropy(OUTPUTS[:1]))[0])
    assert abs(entropy + logs.mean()) < 4 * error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_best_action_is_the_most_probable(kind):
    best = numpy(kind.log_prob(OUTPUTS, kind.best(OUTPUTS)))
    rng = np.random.default_rng(2)
    for _ in range(50):
        drawn = kind.sample(OUTPUTS, rng)
        assert (numpy(kind.log_prob(OUTPUTS, drawn)) <= best + 1e-5).all()


def test_the_density_integrates_to_one():
    x = np.linspace(-12, 12, 4001, dtype="float32")[:, None]
    outputs = np.tile(np.array([[0.7, 0.4]], "float32"), (len(x), 1))
    density = np.exp(numpy(DiagonalGaussian(1).log_prob(outputs, x)))
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_config_round_trip(kind):
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(kind)
    )
    assert type(again) is type(kind) and again.get_config() == kind.get_config()


def test_rejects():
    with pytest.raises(ValueError, match="Received: n=0"):
        Categorical(0)
    with pytest.raises(ValueError, match="Received: n=0"):
        MultiCategorical([2, 0])
    with pytest.raises(ValueError, match="Received: size=1.5"):
        DiagonalGaussian(1.5)
