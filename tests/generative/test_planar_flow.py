"""Tests of dlcompanion.generative.planar_flow, on every backend."""

from pathlib import Path

import numpy as np
import pytest
from helpers.arrays import normal, numpy, stored
from helpers.models import scramble
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import PlanarFlow, RadialFlow
from dlcompanion.generative.planar_flow import Planar, Radial
from dlcompanion.testing import check_flow, check_layer, check_model

VECTORS = Path(__file__).parents[1] / "references" / "planar_flow.npz"
LAYERS = [Planar, Radial]
FLOWS = [PlanarFlow, RadialFlow]


def scrambled(layer_class, size, seed, scale=2.0):
    layer = layer_class()
    layer.build((None, size))
    return scramble(layer, scale, seed)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_contract_of_the_layer(layer_class):
    check_layer(layer_class, {}, normal(6, 3), output_shape=[(6, 3), (6,)])


@pytest.mark.parametrize("flow_class", FLOWS)
def test_contract_of_the_flow(flow_class):
    arguments = {"event_size": 2, "length": 2, "seed": 3}
    check_model(
        flow_class, arguments, normal(8, 2), compile_kwargs={"optimizer": "adam"},
        output_shape=(8,), export=flow_class is PlanarFlow,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["planar", "radial"])
def test_layer_of_normflows(name):
    vectors = stored(VECTORS)
    w = {k.split("/")[-1]: v for k, v in vectors.items() if k.startswith(f"w/{name}/")}
    x = vectors["in/x"]
    layer = Planar() if name == "planar" else Radial()
    layer.build(x.shape)
    if name == "planar":
        variables = {"w": layer.w, "u": layer.u, "b": layer.b}
    else:
        alpha = np.abs(w.pop("alpha"))
        layer.a.assign(np.log(np.expm1(alpha))[0])  # softplus(a) = alpha
        variables = {"z_0": layer.centre, "beta": layer.c}
    for key, variable in variables.items():
        variable.assign(w[key].reshape(variable.shape))
    y, log_det = layer(x)
    np.testing.assert_allclose(numpy(y), vectors[f"out/{name}/z"], atol=1e-5)
    np.testing.assert_allclose(numpy(log_det), vectors[f"out/{name}/logdet"], atol=1e-5)

    def total(x):
        y, log_det = layer(x)
        cotangent = np.cos(np.arange(24)).reshape(6, 4).astype("float32")
        return ops.sum(y * ops.convert_to_tensor(cotangent)) + ops.sum(log_det)

    np.testing.assert_allclose(
        numpy(autodiff.grad(total)(x)), vectors[f"g/{name}/x"], rtol=1e-4, atol=1e-5
    )
    _, gradients = autodiff.value_and_grad(
        lambda: total(x), variables=list(variables.values())
    )()
    for key, gradient in zip(variables, gradients, strict=True):
        expected = vectors[f"g/{name}/{key}"].reshape(gradient.shape)
        np.testing.assert_allclose(numpy(gradient), expected, rtol=1e-4, atol=1e-5)


# -- laws ---------------------------------------------------------------------------


@pytest.mark.parametrize("layer_class", LAYERS)
def test_inverse_and_log_det(layer_class):
    check_flow(layer_class, {}, normal(5, 3), scale=2.0, atol=1e-4)


@pytest.mark.parametrize("flow_class", FLOWS)
def test_inverse_log_det_and_density(flow_class):
    arguments = {"event_size": 2, "length": 2, "seed": 3}
    check_flow(flow_class, arguments, normal(5, 2), atol=1e-4)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_both_directions_keep_the_orientation(layer_class):
    layer, x = scrambled(layer_class, 3, seed=1), normal(5, 3)
    y, _ = layer(x)
    for inverse, at in ((False, x), (True, numpy(y))):
        # rows do not see each other: the sum over the rows has the rows' Jacobians;
        # backward, they are those of the step after the search
        jacobian = autodiff.jacobian(
            lambda x, inverse=inverse: ops.sum(layer(x, inverse=inverse)[0], axis=0)
        )(at)
        jacobian = np.swapaxes(numpy(jacobian), 0, 1).astype("float64")
        np.testing.assert_array_equal(np.linalg.slogdet(jacobian)[0], 1)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_the_determinant_is_positive_whatever_the_weights(layer_class):
    x = normal(200, 3)
    layer = layer_class()
    layer.build(x.shape)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        scale = 3.0 if layer_class is Radial else 5.0
        layer.set_weights(
            [scale * rng.normal(size=w.shape) for w in layer.get_weights()]
        )
        y, log_det = layer(x)
        assert np.isfinite(numpy(log_det)).all()
        back, _ = layer(y, inverse=True)
        error = np.abs(numpy(back) - x) * np.minimum(1, np.exp(numpy(log_det)))[:, None]
        assert error.max() < 1e-3  # where space was squeezed, float32 holds less


def test_without_the_correction_a_plane_folds():
    """The u that would fold space, w'u < -1, is carried to one that does not."""
    layer = Planar()
    layer.build((None, 2))
    layer.set_weights([np.array([2.0, 0]), np.array([-3.0, 1]), np.array(0.0)])
    x = np.linspace(-1, 1, 201, dtype="float32")
    y = numpy(layer(np.stack([x, 0 * x], axis=1))[0])[:, 0]
    folded = x - 3 * np.tanh(2 * x)
    assert np.diff(folded).min() < 0 < np.diff(y).min()


def test_a_radial_layer_that_attracts_and_one_that_repels():
    layer, x = Radial(), normal(50, 2)
    layer.build(x.shape)
    distances = []
    for c in (-5.0, 5.0):  # beta close to -alpha, and large
        layer.set_weights([np.zeros(2), np.array(1.0), np.array(c)])
        distances.append(np.linalg.norm(numpy(layer(x)[0]), axis=1))
    before = np.linalg.norm(x, axis=1)
    assert np.all(distances[0] < before) and np.all(distances[1] > before)


@pytest.mark.once
@pytest.mark.parametrize("flow_class", FLOWS)
def test_density_integrates_to_one_and_what_is_drawn_has_it(flow_class):
    flow = flow_class(2, length=3, seed=0)
    flow.build((None, 2))
    scramble(flow)
    axis = np.linspace(-10, 10, 201, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(numpy(flow.log_prob(grid)).astype("float64"))
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 0.02
    x, log_prob = flow.sample_and_log_prob(200, seed=1)
    np.testing.assert_allclose(numpy(log_prob), numpy(flow.log_prob(x)), atol=1e-3)


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize("flow_class", FLOWS)
@pytest.mark.parametrize("bad", [{"event_size": 0}, {"length": 0}])
def test_sizes(flow_class, bad):
    with pytest.raises(ValueError, match="must be an integer of at least 1. Received"):
        flow_class(**{"event_size": 2, **bad})


@pytest.mark.parametrize("layer_class", LAYERS)
def test_events_are_vectors(layer_class):
    with pytest.raises(ValueError, match=r"\(batch, event_size\). Received: inputs_sh"):
        layer_class().build((None, 3, 3))
