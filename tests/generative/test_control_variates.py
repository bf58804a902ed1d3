"""Tests of dlcompanion.generative.control_variates."""

import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff, backend
from dlcompanion.generative import rebar_control, relax_gradient
from dlcompanion.generative.control_variates import relaxed_samples

LOGITS = np.array([[0.5, -0.3, 0.1], [-1.0, 0.2, 0.4]], "float32")  # two categoricals
COSTS = np.array([[3.0, 5.0, 4.0], [9.0, 2.0, 6.0], [0.0, 1.0, -2.0]], "float32")
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def cost(b):
    """Bilinear in the two one-hot vectors."""
    rows = ops.matmul(b[..., 0, :], COSTS)
    return ops.sum(rows * b[..., 1, :], axis=-1)


def enumerated():
    f = COSTS
    by_first = P[0] * (f @ P[1] - P[0] @ f @ P[1])
    by_second = P[1] * (P[0] @ f - P[0] @ f @ P[1])
    return np.stack([by_first, by_second])


def uniform(samples, tries, seed=0):
    rng = np.random.default_rng(seed)
    shape = (2, samples, tries, 2, 3)
    return rng.uniform(1e-6, 1 - 1e-6, size=shape).astype("float32")


def estimate(control, logits, noise):
    """One compiled program: an eager call on JAX compiles each operation by itself."""
    gradient = backend.compile(
        lambda logits, noise: relax_gradient(cost, control, logits, noise), jit=False
    )
    return numpy(gradient(logits, ops.convert_to_tensor(noise)))


CONTROLS = {
    "zero": lambda z: 0 * z[..., 0, 0],
    "wrong": lambda z: 5 * ops.sin(z[..., 0, 0] + z[..., 1, 2]),
    "rebar": rebar_control(cost, temperature=0.5, scale=0.8),
}


@pytest.fixture(scope="module")
def estimates():
    noise, many = uniform(1, 4000), np.tile(LOGITS, (4000, 1, 1))
    return {name: estimate(control, many, noise) for name, control in CONTROLS.items()}


@pytest.mark.once
@pytest.mark.parametrize("name", CONTROLS)
def test_unbiased_against_enumeration_whatever_the_control(estimates, name):
    found = estimates[name]
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.abs((found.mean(axis=0) - enumerated()) / error).max() < 3.2


def test_without_the_correction_it_would_be_biased():
    # the planted fault that the test above must be able to see
    noise, many = uniform(1, 4000), np.tile(LOGITS, (4000, 1, 1))
    control = CONTROLS["rebar"]
    right = estimate(control, many, noise)

    def correction(logits):
        _, z, z_given_b = relaxed_samples(logits, noise)
        return ops.sum(control(z) - control(z_given_b))

    found = right - numpy(autodiff.grad(correction)(many))
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    assert np.abs((found.mean(axis=0) - enumerated()) / error).max() > 5


def test_rebar_cuts_the_variance(estimates):
    plain = estimates["zero"].var(axis=0).sum()
    assert plain / estimates["rebar"].var(axis=0).sum() > 2
    assert estimates["wrong"].var(axis=0).sum() > plain  # and no control need help


def test_a_control_of_zero_is_the_score_function():
    noise = uniform(3, 2, seed=5)
    many = np.tile(LOGITS, (2, 1, 1))
    b = numpy(relaxed_samples(many, noise)[0])
    f = numpy(cost(ops.convert_to_tensor(b)))
    expected = (f[..., None, None] * (b - P)).mean(axis=0)
    found = estimate(CONTROLS["zero"], many, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_second_relaxed_draw_is_the_first_one_given_the_sample():
    """Same winner, and over all samples Gumbels at the log-probabilities again."""
    b, z, z_given_b = map(numpy, relaxed_samples(LOGITS, uniform(20_000, 1)[:, :, 0]))
    np.testing.assert_array_equal(z_given_b.argmax(-1), z.argmax(-1))
    np.testing.assert_array_equal(z_given_b.argmax(-1), b.argmax(-1))
    for draw in (z, z_given_b):
        # P(z_k < t) = exp(-p_k exp(-t))
        for t in (-1.0, 0.0, 1.0):
            p = np.exp(-P * np.exp(-t))
            error = np.sqrt(p * (1 - p) / len(draw))
            assert (np.abs((draw < t).mean(axis=0) - p) / error).max() < 3.5
    # given the sample, the rest is drawn anew
    first = b[:, 0, 0] == 1
    rest = np.corrcoef(z[first, 0, 1], z_given_b[first, 0, 1])[0, 1]
    assert abs(rest) < 4 / np.sqrt(first.sum())


def test_the_control_can_be_trained_on_the_variance():
    """The gradient by the weights of the control equals finite differences."""
    noise, many = uniform(1, 50, seed=2), np.tile(LOGITS, (50, 1, 1))

    def variance(scale):
        control = rebar_control(cost, temperature=0.5, scale=scale)
        return ops.mean(ops.square(relax_gradient(cost, control, many, noise)))

    both = backend.compile(autodiff.value_and_grad(variance), jit=False)
    (below, _), (value, gradient), (above, _) = (
        [float(numpy(x)) for x in both(np.float32(scale))] for scale in (0.2, 0.3, 0.4)
    )
    # quadratic in the scale: central differences are exact
    np.testing.assert_allclose(gradient, (above - below) / 0.2, rtol=2e-3)
    assert gradient < 0 and above < value


def test_refuses():
    noise = uniform(1, 4)
    many = np.tile(LOGITS, (4, 1, 1))
    with pytest.raises(ValueError, match="both excluded. Received: values from 0"):
        relaxed_samples(many, 0 * noise)
    with pytest.raises(ValueError, match="before the shape of the logits. Received"):
        relaxed_samples(LOGITS, noise)
    with pytest.raises(ValueError, match="leading axes of the samples. Received"):
        relax_gradient(cost, lambda z: z[0], many, noise)
