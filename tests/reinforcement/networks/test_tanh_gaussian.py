"""Tests of dlcompanion.reinforcement.networks.tanh_gaussian."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from dlcompanion import autodiff
from dlcompanion.reinforcement.networks.tanh_gaussian import TanhGaussian

numpy = ops.convert_to_numpy


@pytest.mark.parametrize("mean, log_std", [(0.7, -0.5), (-1.0, 0.2), (0.0, -3.0)])
def test_the_density_integrates_to_one(mean, log_std):
    # evenly in u, so that the ends of the space are seen well
    actions = np.tanh(np.linspace(-6.0, 6.0, 20_001))[:, None]
    outputs = np.tile(np.array([[mean, log_std]], "float32"), (len(actions), 1))
    density = np.exp(numpy(TanhGaussian(1).log_prob(outputs, actions)))
    total = np.trapezoid(density.astype("float64"), actions[:, 0])
    assert total == pytest.approx(1.0, abs=2e-3)


def test_the_density_is_that_of_a_change_of_variables():
    rng = np.random.default_rng(0)
    outputs = rng.uniform(-2, 1, size=(50, 6)).astype("float32")
    noise = rng.normal(size=(50, 3)).astype("float32")
    actions, got = map(numpy, TanhGaussian(3).draw(outputs, noise))
    mean, std = outputs[:, :3].astype("float64"), np.exp(outputs[:, 3:])
    u = mean + std * noise
    want = stats.norm(mean, std).logpdf(u) - np.log(1 - np.tanh(u) ** 2)
    np.testing.assert_allclose(actions, np.tanh(u), atol=1e-6)
    np.testing.assert_allclose(got, want.sum(axis=1), rtol=1e-4, atol=1e-4)
    inner = np.abs(actions).max(axis=1) < 0.99  # float32 can still go back
    again = numpy(TanhGaussian(3).log_prob(outputs[inner], actions[inner]))
    np.testing.assert_allclose(again, got[inner], rtol=1e-3, atol=1e-3)


def test_samples_have_this_density():
    outputs = np.tile(np.array([[0.4, -0.7]], "float32"), (20_000, 1))
    drawn = TanhGaussian(1).sample(outputs, np.random.default_rng(0))
    assert np.abs(drawn).max() < 1
    fit = stats.kstest(np.arctanh(drawn[:, 0]), stats.norm(0.4, np.exp(-0.7)).cdf)
    assert fit.pvalue > 0.01
    best = TanhGaussian(1).best(outputs[:1])[0, 0]
    assert np.median(drawn) == pytest.approx(best, abs=0.02)  # the median


def test_it_is_finite_at_the_ends_of_the_space():
    v = keras.Variable(np.array([[30.0, 0.0]], "float32"))
    (value, gradients) = autodiff.value_and_grad(
        lambda: ops.sum(TanhGaussian(1).draw(v, np.array([[1.0]], "float32"))[1]),
        variables=[v],
    )()
    # log 4 - 2 u is the slope of the tangent out there
    want = stats.norm.logpdf(1.0) - (np.log(4) - 2 * 31.0)
    assert float(value) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(numpy(gradients[0]), [[2.0, 2.0 * 1.0 - 1.0]], rtol=1e-5)


def test_the_deviation_is_clipped():
    noise = np.ones((2, 1), "float32")
    wide = np.array([[0.0, 2.0], [0.0, 9.0]], "float32")
    _, (a, b) = map(numpy, TanhGaussian(1).draw(wide, noise))
    assert a == b
    drawn = TanhGaussian(1).sample(wide, np.random.default_rng(0))
    assert np.isfinite(drawn).all()


def test_config_round_trip():
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(TanhGaussian(3))
    )
    assert type(again) is TanhGaussian and again.get_config() == {"size": 3}
    assert again.outputs == 6


def test_rejects():
    with pytest.raises(ValueError, match="Received: size=0"):
        TanhGaussian(0)
