"""Tests of dlcompanion.generative.flows.actnorm, on every backend."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion import backend
from dlcompanion.generative import ActNorm
from dlcompanion.testing import check_flow, check_layer
from dlcompanion.training import fit_in_memory


def pictures(rows=6, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, 2, 3, 4))
    return (x * [1.0, 2.0, 0.5, 3.0] + [0.0, -1.0, 5.0, 2.0]).astype("float32")


def test_contract():
    # the first batch is no example like the others: it sets what all see
    check_layer(ActNorm, {}, pictures(), output_shape=[(6, 2, 3, 4), (6,)])


def test_inverse_and_log_det():
    check_flow(ActNorm, {}, pictures()[:, :, :1])


def test_the_first_training_batch_is_normalized_and_no_other():
    layer, x, other = ActNorm(), pictures(), pictures(seed=1) * 3
    layer.build(x.shape)
    np.testing.assert_array_equal(numpy(layer(x)[0]), x)  # not trained: identity
    step = backend.compile(lambda x: layer(x, training=True), jit=True)
    y, log_det = (numpy(a) for a in step(x))
    np.testing.assert_allclose(y.mean((0, 1, 2)), np.zeros(4), atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), np.ones(4), atol=1e-5)
    deviation = x.std((0, 1, 2))
    expected = np.full(6, -6 * np.log(deviation).sum())
    np.testing.assert_allclose(log_det, expected, rtol=1e-5)
    expected = (other - x.mean((0, 1, 2))) / deviation
    for found in (step(other)[0], layer(other)[0]):
        np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=1e-5)
    assert float(layer.started) == 1


def test_formula_and_inverse():
    layer, x = ActNorm(), pictures()
    layer.build(x.shape)
    layer(x, training=True)
    s, b = np.array([0.1, -0.5, 1.0, 0.0]), np.array([1.0, 2.0, 0.0, -3.0])
    layer.log_scale.assign(s)
    layer.shift.assign(b)
    y, log_det = layer(x)
    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2))
    np.testing.assert_allclose(
        numpy(y), np.exp(s) * (x - mean) / deviation + b, rtol=1e-4, atol=1e-5
    )
    expected = np.full(6, 6 * (s - np.log(deviation)).sum())
    np.testing.assert_allclose(numpy(log_det), expected, rtol=1e-5)
    back, back_log_det = layer(y, inverse=True)
    np.testing.assert_allclose(numpy(back), x, atol=1e-5)
    np.testing.assert_allclose(numpy(back_log_det), -numpy(log_det))


def test_a_constant_channel_is_only_shifted():
    layer, x = ActNorm(), pictures()
    x[..., 1] = 7
    y, log_det = layer(x, training=True)
    np.testing.assert_array_equal(numpy(y)[..., 1], np.zeros((6, 2, 3)))
    assert np.isfinite(numpy(log_det)).all()


@pytest.mark.parametrize("fit", ["fit", "fit_in_memory"])
def test_starts_in_the_first_step_of_training(fit):
    layer = ActNorm()

    class Only(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = layer

        def call(self, inputs, training=False):
            return self.norm(inputs, training=training)[0]

    model, x = Only(), pictures(rows=8)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.evaluate(x, x, verbose=0)
    assert float(layer.started) == 0
    settings = {"batch_size": 4, "epochs": 1, "shuffle": False, "verbose": 0}
    if fit == "fit":
        model.fit(x, x, **settings)
    else:
        fit_in_memory(model, x, x, **settings)
    first = x[:4].mean((0, 1, 2)), x[:4].std((0, 1, 2))
    found = numpy(layer.mean), numpy(layer.deviation)
    np.testing.assert_allclose(found, first, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (None, None), (None, 3, None, 4)])
def test_needs_known_sizes(shape):
    with pytest.raises(ValueError, match="of known size. Received: inputs_shape="):
        ActNorm().build(shape)
