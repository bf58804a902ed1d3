"""Tests of dlcompanion.generative.reparameterization."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import (
    GaussianSampler,
    GumbelSoftmax,
    StraightThrough,
    StraightThroughBernoulli,
    measure_valued_gradient,
    pathwise_gradient,
    score_function_gradient,
)
from dlcompanion.generative.reparameterization import straight_through
from dlcompanion.testing import check_layer

RNG = np.random.default_rng(0)
LOGITS = np.array([0.5, -0.3, 0.1, -1.0], "float32")


def z_scores(found, expected):
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    return np.abs((found.mean(axis=0) - expected) / error)


# -- gradients ------------------------------------------------------------------


def test_pathwise_is_unbiased_and_varies_less():
    # E[(x - 1)^2] of a normal: 2 (mu - 1) by mu, 2 sigma^2 by log sigma
    rng = np.random.default_rng(0)
    mu, log_sigma = np.float32(0.5), np.float32(-0.2)
    noise = rng.normal(size=(4, 4000)).astype("float32")
    many = [np.full(4000, value, "float32") for value in (mu, log_sigma)]

    def sampler(params, noise):
        return params[0] + ops.exp(params[1]) * noise

    def squared(x):
        return ops.square(x - 1.0)

    def normal(params, x):
        z = (x - params[0]) * ops.exp(-params[1])
        return -0.5 * ops.square(z) - params[1]

    samples = mu + np.exp(log_sigma) * noise
    expected = [2 * (mu - 1), 2 * np.exp(2 * log_sigma)]
    path = pathwise_gradient(sampler, squared, many, noise)
    score = score_function_gradient(normal, squared, many, samples)
    for one, other, value in zip(path, score, expected, strict=True):
        one, other = numpy(one), numpy(other)
        for found in (one, other):
            assert z_scores(found, value) < 3
        assert other.var() > 2 * one.var()


def test_measure_valued_is_unbiased_for_a_step_that_has_no_slope():
    """P(x > 0) of a normal: density / sigma by mean, -mean density / sigma^2 by it."""
    mu, sigma = np.float32(0.4), np.float32(1.5)
    mean = np.full((5000, 1), mu, "float32")

    def step(x):
        return ops.cast(x[..., 0] > 0, "float32")

    found = measure_valued_gradient(step, mean, 0 * mean + sigma, 2, seed=3)
    density = np.exp(-0.5 * (mu / sigma) ** 2) / np.sqrt(2 * np.pi)
    expected = density / sigma, -mu * density / sigma**2
    for gradient, value in zip(found, expected, strict=True):
        assert z_scores(numpy(gradient)[:, 0], value) < 3


def test_measure_valued_of_coordinates_that_depend_on_each_other():
    """E[x_0^2 x_1] = (m_0^2 + s_0^2) m_1."""
    m, s = np.array([0.5, -1.0], "float32"), np.array([0.8, 1.2], "float32")
    mean, scale = np.tile(m, (4000, 1)), np.tile(s, (4000, 1))
    by_mean, by_scale = measure_valued_gradient(
        lambda x: ops.square(x[..., 0]) * x[..., 1], mean, scale, 4, seed=1
    )
    square = m[0] ** 2 + s[0] ** 2
    assert z_scores(numpy(by_mean), [2 * m[0] * m[1], square]).max() < 3
    assert z_scores(numpy(by_scale), [2 * s[0] * m[1], 0.0]).max() < 3


def test_measure_valued_of_a_linear_cost_by_hand():
    # f = 3 x: f(mu + sigma w) - f(mu - sigma w) = 6 sigma w, of mean 6 sigma sqrt(pi/2)
    mean = np.zeros((4000, 1), "float32")
    by_mean, _ = measure_valued_gradient(
        lambda x: 3 * x[..., 0], mean, mean + 0.7, 1, seed=0
    )
    found = numpy(by_mean)[:, 0]
    assert found.min() > 0 and z_scores(found, 3.0) < 3
    # 6 w / sqrt(2 pi), with w Rayleigh: its standard deviation
    expected = 6 * np.sqrt((2 - np.pi / 2) / (2 * np.pi))
    np.testing.assert_allclose(found.std(), expected, rtol=0.05)


def test_gradients_refuse():
    one = np.ones(3, "float32")
    with pytest.raises(ValueError, match=r"\(samples, ...\).*Received: shape=\(\)"):
        pathwise_gradient(lambda p, e: p * e, ops.sum, np.float32(1), one)
    with pytest.raises(ValueError, match="floating-point.*Received: shape=.*dtype=int"):
        measure_valued_gradient(
            lambda x: ops.cast(x[..., 0], "int32"), one, one, 1, seed=0
        )
    with pytest.raises(ValueError, match="one number a point.*Received"):
        measure_valued_gradient(lambda x: x, one, one, 1, seed=0)
    with pytest.raises(ValueError, match="one shape.*Received"):
        measure_valued_gradient(ops.sum, one, one[:1], 1, seed=0)
    with pytest.raises(ValueError, match="samples must be an integer.*Received"):
        measure_valued_gradient(ops.sum, one, one, 0, seed=0)


# -- layers ---------------------------------------------------------------------


def test_contract_of_the_sampler():
    x = [RNG.normal(size=(4, 3)).astype("float32") for _ in range(2)]
    check_layer(
        GaussianSampler, {"seed": 1}, x, output_shape=(4, 3), batch_independent=False,
        large=5.0,
    )  # fmt: skip


def test_sampler_draws_the_normal_and_passes_its_gradient():
    mean = np.tile(np.array([1.0, -2.0], "float32"), (20_000, 1))
    log_variance = np.tile(np.array([0.0, 1.0], "float32"), (20_000, 1))
    layer = GaussianSampler(seed=0)
    z = numpy(layer([mean, log_variance]))
    assert z_scores(z, mean[0]).max() < 3
    assert z_scores((z - mean) ** 2, np.exp(log_variance[0])).max() < 3

    state = numpy(layer.seed_generator.state)

    def loss(mean, log_variance):
        return ops.sum(ops.square(layer([mean, log_variance])))

    both = autodiff.grad(loss, argnums=(0, 1))(mean, log_variance)
    layer.seed_generator.state.assign(state)
    z = numpy(layer([mean, log_variance]))
    np.testing.assert_allclose(numpy(both[0]), 2 * z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        numpy(both[1]), z * (z - mean), rtol=1e-3, atol=1e-4
    )  # dz / dlog_variance = (z - mean) / 2


@pytest.mark.parametrize("hard", [False, True])
def test_contract_of_gumbel_softmax(hard):
    x = RNG.normal(size=(4, 3)).astype("float32")
    check_layer(
        GumbelSoftmax,
        {"temperature": 0.7, "hard": hard, "seed": 1},
        x,
        output_shape=(4, 3),
        batch_independent=False,
        # hard: the gradient is not that of the forward pass; the rest is the same code
        skip=("gradient", "reload", "float16", "bfloat16") if hard else (),
    )


def test_the_largest_entry_has_the_probabilities_of_softmax():
    # chi-square with three degrees of freedom: 99.9 % lie below 16.27
    count = 20_000
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    for temperature, hard in ((0.5, False), (5.0, True)):
        layer = GumbelSoftmax(temperature, hard=hard, seed=4)
        y = numpy(layer(np.tile(LOGITS, (count, 1))))
        np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
        found = np.bincount(y.argmax(axis=1), minlength=4)
        assert np.sum((found - count * p) ** 2 / (count * p)) < 16.27


def test_two_classes_are_distributed_as_the_concrete_density_says():
    """P(y_0 < q) = sigmoid(tau logit(q) - (x_0 - x_1)), in closed form."""
    tau, x = 0.6, np.array([0.8, -0.1], "float32")
    y = numpy(GumbelSoftmax(tau, seed=2)(np.tile(x, (20_000, 1))))[:, 0]
    for q in (0.05, 0.3, 0.5, 0.8, 0.99):
        p = 1 / (1 + np.exp(-(tau * np.log(q / (1 - q)) - (x[0] - x[1]))))
        error = np.sqrt(p * (1 - p) / len(y))
        assert abs((y < q).mean() - p) < 3.5 * error, q


def test_temperature_from_one_hot_to_uniform_and_it_can_be_assigned():
    layer = GumbelSoftmax(temperature=1e-3, seed=0)
    x = np.tile(LOGITS, (200, 1))
    cold = numpy(layer(x))
    assert np.median(cold.max(axis=1)) > 1 - 1e-6 and (cold.max(axis=1) > 0.99).all()
    layer.temperature.assign(1e4)
    np.testing.assert_allclose(numpy(layer(x)), 0.25, atol=1e-3)
    assert layer.trainable_variables == []


def test_hard_is_one_hot_forward_and_soft_backward():
    weights = np.arange(4, dtype="float32")
    tensor = ops.convert_to_tensor(weights)
    x = np.tile(LOGITS, (5, 1))
    soft, hard = (GumbelSoftmax(0.8, hard=h, seed=7) for h in (False, True))
    y, corners = numpy(soft(x)), numpy(hard(x))
    np.testing.assert_array_equal(corners, np.eye(4)[y.argmax(axis=1)])

    def gradient(hard):
        layer = GumbelSoftmax(0.8, hard=hard, seed=7)
        return numpy(autodiff.grad(lambda x: ops.sum(layer(x) * tensor))(x))

    # of sum w_k y_k by the logits: y (w - y.w) / tau
    expected = y * (weights - (y @ weights)[:, None]) / 0.8
    for h in (False, True):
        np.testing.assert_allclose(gradient(h), expected, rtol=1e-4, atol=1e-6)


def test_nan_stays_nan():
    x = np.array([[np.nan, 0.0]], "float32")
    for hard in (False, True):
        assert np.isnan(numpy(GumbelSoftmax(hard=hard, seed=0)(x))).any()
    assert np.isnan(numpy(GaussianSampler(seed=0)([x, x]))[0, 0])


def test_layers_refuse():
    for bad in (0, -1, np.nan, np.inf, "cold"):
        with pytest.raises(ValueError, match="temperature must be .*Received"):
            GumbelSoftmax(bad)
    with pytest.raises(ValueError, match="needs logits of shape.*Received"):
        GumbelSoftmax()(np.ones(3, "float32"))
    with pytest.raises(ValueError, match="of one shape.*Received"):
        GaussianSampler().build([(None, 3), (None, 2)])
    with pytest.raises(ValueError, match="of one shape.*Received"):
        GaussianSampler()(np.ones((2, 3), "float32"))


X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
WEIGHTS = np.arange(12, dtype="float32").reshape(4, 3)
AS_TENSOR = ops.convert_to_tensor(WEIGHTS)


@keras.saving.register_keras_serializable(package="test_straight_through")
def nearest_half(x):
    return ops.round(2 * x) / 2


def test_contract_of_the_quantizer():
    # finite differences of a step are not the identity: that is the point
    skip = ("gradient",)
    check_layer(StraightThrough, {"quantizer": nearest_half}, X, skip=skip)


def test_contract_of_the_bits():
    skip = ("gradient",)
    check_layer(StraightThroughBernoulli, {"seed": 1}, X, output_shape=X.shape,
                batch_independent=False, skip=skip)  # fmt: skip


def test_value_of_the_one_and_gradient_of_the_other():
    big = 1e6 * X  # where forward + backward - backward would be rounded
    y = straight_through(X, big)
    np.testing.assert_array_equal(numpy(y), X)

    def loss(forward, backward):
        return ops.sum(AS_TENSOR * straight_through(forward, backward))

    by_forward, by_backward = autodiff.grad(loss, argnums=(0, 1))(X, big)
    np.testing.assert_array_equal(numpy(by_forward), 0 * X)
    np.testing.assert_array_equal(numpy(by_backward), WEIGHTS)


def test_quantizer_has_the_gradient_of_the_identity():
    for quantizer in (nearest_half, keras.layers.Lambda(nearest_half)):
        layer = StraightThrough(quantizer)
        np.testing.assert_array_equal(numpy(layer(X)), np.round(2 * X) / 2)
        gradient = autodiff.grad(lambda x, f=layer: ops.sum(AS_TENSOR * f(x)))(X)
        np.testing.assert_array_equal(numpy(gradient), WEIGHTS)


def test_bits_have_the_frequencies_and_the_gradient_of_their_probabilities():
    logits = np.array([-2.0, 0.0, 1.0], "float32")
    p = 1 / (1 + np.exp(-logits))
    layer = StraightThroughBernoulli(seed=0)
    many = np.tile(logits, (20_000, 1))
    bits = numpy(layer(many))
    assert set(np.unique(bits)) == {0.0, 1.0}
    z = (bits.mean(axis=0) - p) / np.sqrt(p * (1 - p) / len(bits))
    assert np.abs(z).max() < 3

    def linear(logits):
        return ops.sum(AS_TENSOR[1] * layer(logits))

    gradient = numpy(autodiff.grad(linear)(logits))
    np.testing.assert_allclose(gradient, WEIGHTS[1] * p * (1 - p), rtol=1e-5)


def test_straight_through_nan_stays_nan():
    x = np.array([[np.nan, 100.0]], "float32")
    bits = numpy(StraightThroughBernoulli(seed=0)(x))
    assert np.isnan(bits[0, 0]) and bits[0, 1] == 1
    assert np.isnan(numpy(StraightThrough("hard_tanh")(x))[0, 0])


def test_refuses():
    with pytest.raises(ValueError, match="one shape. Received"):
        straight_through(X, X[:, :1])
    with pytest.raises(ValueError, match="quantizer=None"):
        StraightThrough(None)
    with pytest.raises(ValueError, match="keep the shape.*Received"):
        StraightThrough(keras.layers.Dense(5)).build((None, 3))
