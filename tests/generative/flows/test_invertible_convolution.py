"""Tests of dlcompanion.generative.flows.invertible_convolution, on every backend."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import numpy
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import InvertibleConvolution1x1
from dlcompanion.testing import check_flow, check_layer

VECTORS = Path(__file__).parents[2] / "references" / "glow.npz"


def stored(name):
    with np.load(VECTORS) as vectors:
        return {k: vectors[k] for k in vectors.files if f"/{name}/" in k}


def pictures(channels=4, seed=0):
    shape = (5, 2, 3, channels)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def far_from_a_rotation(channels=4, shape=None):
    layer = InvertibleConvolution1x1(seed=0)
    layer.build(shape or (None, 2, 3, channels))
    rng = np.random.default_rng(1)
    for weight in (layer.lower, layer.upper, layer.log_diagonal):
        weight.assign(0.4 * rng.normal(size=weight.shape))
    return layer


def test_contract():
    shapes = [(5, 2, 3, 4), (5,)]
    check_layer(InvertibleConvolution1x1, {"seed": 1}, pictures(), output_shape=shapes)


def test_inverse_and_log_det():
    check_flow(InvertibleConvolution1x1, {"seed": 1}, pictures()[:, :, :1], scale=0.4)


def test_starts_as_a_rotation():
    layer = InvertibleConvolution1x1(seed=3)
    layer.build((None, 5))
    matrix = numpy(layer.matrix()).astype("float64")
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(5), atol=1e-5)
    permutation, lower, upper = (numpy(f) for f in layer.factors())
    assert set(np.abs(np.tril(lower) - lower).ravel()) == {0.0}
    assert set(np.abs(np.triu(upper) - upper).ravel()) == {0.0}
    assert (permutation.sum(0) == 1).all() and np.abs(lower).max() <= 1 + 1e-6
    again = InvertibleConvolution1x1(seed=3)
    again.build((None, 5))
    np.testing.assert_array_equal(numpy(again.matrix()), numpy(layer.matrix()))


def test_equals_normflows():
    layer, vectors = far_from_a_rotation(), stored("convolution")
    for weight, name in [
        (layer.lower, "L"), (layer.upper, "U"), (layer.log_diagonal, "log_S"),
        (layer.sign, "sign_S"), (layer.permutation, "P"),
    ]:  # fmt: skip
        weight.assign(vectors[f"w/convolution/{name}"])
    x = vectors["in/convolution/x"]
    layer.built = True
    weights = layer.trainable_variables  # lower, upper, log_diagonal

    def total(x):
        y, _ = layer(x)
        cotangent = np.cos(np.arange(y.shape[0] * 36)).astype("float32")
        return ops.sum(ops.reshape(y, (-1,)) * ops.convert_to_tensor(cotangent))

    y, log_det = layer(x)
    np.testing.assert_allclose(numpy(y), vectors["out/convolution/y"], atol=1e-5)
    # normflows's pictures are 3 x 3 and say one number for all of them
    np.testing.assert_allclose(
        numpy(log_det), np.full(2, vectors["out/convolution/log_det"]), rtol=1e-5
    )
    _, gradients = autodiff.value_and_grad(lambda: total(x), variables=weights)()
    for ours, name in zip(gradients, ("L", "U", "log_S"), strict=True):
        theirs = vectors[f"g/convolution/{name}"]
        np.testing.assert_allclose(numpy(ours), theirs, rtol=1e-4, atol=1e-5)
    by_x = autodiff.grad(total)(x)
    np.testing.assert_allclose(numpy(by_x), vectors["g/convolution/x"], atol=1e-5)


def test_on_vectors_it_is_the_linear_layer_of_nflows():
    layer, vectors = far_from_a_rotation(shape=(None, 4)), stored("linear")
    upper = vectors["w/linear/upper"]
    layer.permutation.assign(np.eye(4))
    layer.sign.assign(np.ones(4))
    layer.lower.assign(vectors["w/linear/lower"])
    layer.upper.assign(upper)
    layer.log_diagonal.assign(np.log(np.diag(upper)))
    y, log_det = layer(vectors["in/linear/x"])
    y = numpy(y) + vectors["w/linear/bias"]
    np.testing.assert_allclose(y, vectors["out/linear/y"], atol=1e-5)
    np.testing.assert_allclose(numpy(log_det), vectors["out/linear/log_det"], rtol=1e-5)


def test_log_det_is_slogdet_and_the_inverse_undoes():
    layer, x = far_from_a_rotation(), pictures()
    y, log_det = layer(x)
    matrix = numpy(layer.matrix()).astype("float64")
    np.testing.assert_allclose(numpy(y), x @ matrix.T, atol=1e-5)
    _, expected = np.linalg.slogdet(matrix)
    np.testing.assert_allclose(numpy(log_det), np.full(5, 6 * expected), rtol=1e-5)
    back, back_log_det = layer(y, inverse=True)
    np.testing.assert_allclose(numpy(back), x, atol=1e-5)
    np.testing.assert_allclose(numpy(back_log_det), -numpy(log_det))


@pytest.mark.parametrize("shape", [(4,), (None, None), (None, 3, None, 4)])
def test_needs_known_sizes(shape):
    with pytest.raises(ValueError, match="of known size. Received: inputs_shape="):
        InvertibleConvolution1x1().build(shape)


def test_without_a_seed_it_follows_set_random_seed():
    matrices = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        layer = InvertibleConvolution1x1()
        layer.build((None, 3))
        matrices.append(numpy(layer.matrix()))
    np.testing.assert_array_equal(matrices[0], matrices[1])
    assert np.abs(matrices[0] - matrices[2]).max() > 0.1
