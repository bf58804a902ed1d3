"""Tests of dlcompanion.generative.masked_autoregressive_flow."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import normal, numpy, stored
from helpers.models import scramble
from keras import ops
from scipy import stats

from dlcompanion import autodiff, backend
from dlcompanion.generative import (
    MADE,
    InverseAutoregressiveFlow,
    MaskedAutoregressiveFlow,
    NormalizingFlow,
)
from dlcompanion.generative.flows.inverted_transform import Inverted
from dlcompanion.generative.masked_autoregressive_flow import MaskedAutoregressive
from dlcompanion.probability import tfb
from dlcompanion.testing import check_flow, check_layer, check_model
from dlcompanion.training import fit_in_memory

VECTORS = Path(__file__).parents[1] / "references" / "masked_autoregressive_flow.npz"
FLOWS = [MaskedAutoregressiveFlow, InverseAutoregressiveFlow]


def small():
    return {"conditioner": MADE(2, (8,), "tanh")}


def scrambled(flow_class, size=3, blocks=2, scale=0.4, **arguments):
    """A flow far from the identity."""
    flow = flow_class(size, blocks, (8,), "tanh", seed=3, **arguments)
    flow.build((None, size))
    return scramble(flow, scale)


def test_contract_of_the_layer():
    check_layer(MaskedAutoregressive, small, normal(6, 3), output_shape=[(6, 3), (6,)])


@pytest.mark.parametrize("flow_class", FLOWS)
def test_contract_of_the_flow(flow_class):
    arguments = {"event_size": 3, "blocks": 2, "hidden_units": (8,), "seed": 3}
    check_model(
        flow_class, arguments, normal(8, 3), compile_kwargs={"optimizer": "adam"},
        output_shape=(8,), export=flow_class is MaskedAutoregressiveFlow,
    )  # fmt: skip


def made_layers(made):
    return [*made.hidden, made.output_layer]


# -- reference ----------------------------------------------------------------------


class ZukoAutoregressive(MaskedAutoregressive):
    """zuko's z = x exp(s) + t, with the log-scale bounded its way."""

    def move(self, x, params, inverse):
        t, raw = params[..., 0], params[..., 1]
        s = raw / (1 + ops.abs(raw / math.log(1e-3)))
        if inverse:
            return (x - t) * ops.exp(-s), -ops.sum(s, axis=-1)
        return x * ops.exp(s) + t, ops.sum(s, axis=-1)


def test_flow_of_zuko():
    vectors = stored(VECTORS)
    x, context = vectors["in/x"], vectors["in/context"]
    layers = [
        ZukoAutoregressive(MADE(2, (8, 7), order=o)) for o in ("forward", "backward")
    ]
    flow = NormalizingFlow(3, layers, context_size=2)
    flow.build([(None, 3), (None, 2)])
    variables = {}
    for number, layer in enumerate(layers):
        made = layer.conditioner
        for place, dense in zip((0, 2, 4), made_layers(made), strict=True):
            name = f"transform.transforms.{number}.hyper.{place}"
            dense.set_weights([vectors[f"w/{name}.{p}"].T for p in ("weight", "bias")])
            variables[f"{name}.weight"], variables[f"{name}.bias"] = dense.weights
    noise, _ = flow.to_noise(x, context)
    np.testing.assert_allclose(numpy(noise), vectors["out/noise"], atol=1e-5)
    data, _ = flow.to_data(vectors["in/z"], context)
    np.testing.assert_allclose(numpy(data), vectors["out/data"], atol=1e-5)
    found = numpy(flow.log_prob(x, context))
    np.testing.assert_allclose(found, vectors["out/log_prob"], rtol=1e-5)

    def total(x, context):
        cotangent = ops.convert_to_tensor(np.cos(np.arange(6)), "float32")
        return ops.sum(flow((x, context)) * cotangent)

    by_x, by_context = autodiff.grad(total, argnums=(0, 1))(x, context)
    np.testing.assert_allclose(numpy(by_x), vectors["g/x"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        numpy(by_context), vectors["g/context"], rtol=1e-4, atol=1e-5
    )
    _, gradients = autodiff.value_and_grad(
        lambda: total(x, context), variables=list(variables.values())
    )()
    for name, gradient in zip(variables, gradients, strict=True):
        np.testing.assert_allclose(
            numpy(gradient), vectors[f"g/{name}"].T, rtol=1e-4, atol=1e-5, err_msg=name
        )


class Plain(MaskedAutoregressive):
    """The paper's log-scale, without a bound."""

    def log_scale(self, raw):
        return raw


@pytest.mark.tfp
def test_flow_of_tfp():
    layer, x = Plain(MADE(2, (8,), "tanh")), normal(5, 3)
    flow = NormalizingFlow(3, [layer])
    theirs = tfb().MaskedAutoregressiveFlow(
        lambda x, **_: ops.unstack(layer.conditioner(x), 2, axis=-1)
    )
    u, log_det = flow.to_noise(x)
    np.testing.assert_allclose(numpy(u), numpy(theirs.inverse(x)), atol=1e-5)
    np.testing.assert_allclose(
        numpy(log_det), numpy(theirs.inverse_log_det_jacobian(x, 1)), atol=1e-5
    )
    again = theirs.forward(numpy(u) + 0.0)
    np.testing.assert_allclose(numpy(flow.to_data(u)[0]), numpy(again), atol=1e-5)


# -- laws ---------------------------------------------------------------------------


@pytest.mark.parametrize("context", [None, normal(4, 2, seed=1)])
def test_inverse_and_log_det_of_the_layer(context):
    check_flow(MaskedAutoregressive, small, normal(4, 3), context=context, scale=0.4)


@pytest.mark.parametrize("flow_class", FLOWS)
def test_inverse_log_det_and_density(flow_class):
    arguments = {"event_size": 3, "blocks": 2, "hidden_units": (8,), "seed": 3}
    check_flow(flow_class, arguments, normal(4, 3), scale=0.4)


@pytest.mark.parametrize("flow_class", FLOWS)
def test_the_jacobian_is_triangular(flow_class):
    flow, x = scrambled(flow_class, blocks=1), normal(4, 3)
    # rows do not see each other: the sum over the rows has the rows' Jacobians
    jacobian = autodiff.jacobian(lambda x: ops.sum(flow.to_noise(x)[0], axis=0))(x)
    jacobian = np.swapaxes(numpy(jacobian), 0, 1)  # (rows, out, in)
    above = np.triu_indices(3, 1)
    np.testing.assert_array_equal(jacobian[:, above[0], above[1]], 0.0)  # exactly
    assert np.all(np.abs(jacobian[:, above[1], above[0]]) > 1e-6)


@pytest.mark.once
@pytest.mark.parametrize("flow_class", FLOWS)
def test_density_integrates_to_one_and_what_is_drawn_has_it(flow_class):
    flow = scrambled(flow_class, size=2)
    axis = np.linspace(-10, 10, 161, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(numpy(flow.log_prob(grid)).astype("float64"))
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 0.02
    x, log_prob = flow.sample_and_log_prob(len(grid), seed=1)
    expected = numpy(flow.log_prob(x))
    np.testing.assert_allclose(numpy(log_prob), expected, rtol=1e-4, atol=1e-4)


def test_one_is_the_other_run_backwards():
    masked = scrambled(MaskedAutoregressiveFlow, blocks=1)
    inverse = scrambled(InverseAutoregressiveFlow, blocks=1)
    assert isinstance(inverse.transforms[0], Inverted)
    x = normal(4, 3)
    for a, b in zip(masked.to_noise(x), inverse.to_data(x), strict=True):
        np.testing.assert_array_equal(numpy(a), numpy(b))


class Counting(MADE):
    """Says how often it was called."""

    def call(self, inputs, context=None):
        self.counted.append(1)
        return super().call(inputs, context)


def test_one_pass_one_way_and_one_for_each_variable_the_other(monkeypatch):
    # a compiled loop is traced once: count with a loop that runs
    def loop(count, body, value):
        for step in range(count):
            value = body(step, value)
        return value

    monkeypatch.setattr(backend, "repeat", loop)
    for size in (2, 5):
        made = Counting(2, (8,))
        made.counted = []
        layer = MaskedAutoregressive(made)
        layer.build((None, size))
        for inverse, passes in ((False, 1), (True, size)):
            before = len(made.counted)
            layer(normal(2, size), inverse=inverse)
            assert len(made.counted) - before == passes


def test_gradients_of_samples_reach_the_weights():
    flow = scrambled(InverseAutoregressiveFlow)
    noise = normal(64, 3)

    def energy():
        x, log_det = flow.to_data(noise)
        return ops.mean(ops.sum((x - 2.0) ** 2, axis=-1) - log_det)

    value, gradients = autodiff.value_and_grad(
        energy, variables=flow.trainable_variables
    )()
    for variable, gradient in zip(flow.trainable_variables, gradients, strict=True):
        variable.assign(variable - 1e-3 * gradient)
    assert float(numpy(energy())) < float(numpy(value)) - 0.01


def test_garbage_that_is_not_known_yet_cannot_overflow():
    layer = Plain(MADE(2, (), order="forward"))
    layer.build((None, 3))
    layer.conditioner.output_layer.bias.assign([0, 0, 0, 60.0, 0, 60.0])
    layer.conditioner.output_layer.set_weights(
        [np.full((3, 6), -60.0, "float32"), *layer.conditioner.get_weights()[1:]]
    )
    x = np.array([[1.0, 0.5, -1.0]], "float32")
    u, _ = layer(x)
    back, _ = layer(u, inverse=True)
    np.testing.assert_allclose(numpy(back), x, rtol=1e-3)


@pytest.mark.once
def test_fit_learns_what_a_normal_cannot():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(512, 1))
    second = first**2 + 0.3 * rng.normal(size=(512, 1))
    x = np.concatenate([first, second], axis=1).astype("float32")
    flow = MaskedAutoregressiveFlow(2, 2, (16,), "tanh", seed=0)
    flow.compile(keras.optimizers.Adam(0.01))
    fit_in_memory(flow, x, batch_size=64, epochs=40, verbose=0)
    normal = -stats.multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(x).mean()
    assert flow.evaluate(x, verbose=0) < normal - 0.4


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize("flow_class", FLOWS)
@pytest.mark.parametrize(
    "bad", [{"event_size": 0}, {"blocks": 0}, {"hidden_units": (8, 0)}]
)
def test_sizes(flow_class, bad):
    with pytest.raises(ValueError, match="must be an integer of at least 1. Received"):
        flow_class(**{"event_size": 2, **bad})


def test_the_conditioner_must_fit():
    with pytest.raises(ValueError, match="needs a MADE.*Received: conditioner="):
        MaskedAutoregressive(keras.layers.Dense(4))
    with pytest.raises(ValueError, match="needs 2 outputs.*Received: conditioner.outp"):
        MaskedAutoregressive(MADE(3))
