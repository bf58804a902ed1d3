"""Tests of dlcompanion.generative.normalizing_flows."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.models import scramble
from keras import ops
from scipy import stats

from dlcompanion import autodiff
from dlcompanion.datasets import two_moons
from dlcompanion.generative import NICE, AffineCoupling, NormalizingFlow, RealNVP
from dlcompanion.testing import check_flow, check_model
from dlcompanion.training import fit_in_memory

VECTORS = Path(__file__).parents[1] / "references" / "normalizing_flows.npz"
SMALL = {"event_size": 2, "couplings": 2, "hidden_units": (8,), "seed": 3}
FLOWS = [NICE, RealNVP]


def points(rows=16, size=2, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, size)).astype("float32")


def scrambled(flow_class, size=2, scale=0.4, **arguments):
    """A flow far from the identity."""
    flow = flow_class(**{**SMALL, "event_size": size, **arguments})
    flow.build((None, size))
    return scramble(flow, scale)


@pytest.mark.parametrize("flow_class", FLOWS)
def test_contract(flow_class):
    check_model(
        flow_class, SMALL, points(), compile_kwargs={"optimizer": "adam"},
        output_shape=(16,),
    )  # fmt: skip


# -- reference ----------------------------------------------------------------------


class NflowsCoupling(AffineCoupling):
    """nflows's way to keep the scale positive."""

    def log_scale(self, raw):
        return ops.log(ops.sigmoid(raw + 2.0) + 1e-3)


class ZukoCoupling(AffineCoupling):
    """zuko's way to keep the scale above 1e-3."""

    def log_scale(self, raw):
        return raw / (1 + ops.abs(raw / math.log(1e-3)))


def load(layer, vectors, name):
    """Torch's Linear into a Dense; ``last`` splits interleaved (shift, scale)."""
    kernel, bias = vectors[f"{name}.weight"].T, vectors[f"{name}.bias"]
    layer.set_weights([kernel, bias])


def reference(library):
    stored = np.load(VECTORS)
    key = f"{library}/"
    pick = {
        part: {k[len(part + key) + 1 :]: v for k, v in stored.items()
               if k.startswith(f"{part}/{key}")}
        for part in ("in", "w", "out", "g")
    }  # fmt: skip
    return pick["in"]["x"], pick["w"], pick["out"], pick["g"]


def check_gradients(f, variables, x, expected):
    """Gradients of sum(f(x) * cos(arange)) by variables and x, against ``expected``."""

    def total(x):
        out = f(x)
        flat = ops.reshape(out, (-1,))
        cotangent = np.cos(np.arange(flat.shape[0])).astype("float32")
        return ops.sum(flat * ops.convert_to_tensor(cotangent))

    by_x = autodiff.grad(total)(x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(by_x), expected["x"], rtol=1e-4, atol=1e-5
    )
    _, gradients = autodiff.value_and_grad(
        lambda: total(x), variables=list(variables.values())
    )()
    for name, gradient in zip(variables, gradients, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(gradient),
            expected[name].T if name.endswith("weight") else expected[name],
            rtol=1e-4, atol=1e-5, err_msg=name,
        )  # fmt: skip


def dense_variables(layers):
    found = {}
    for name, layer in layers.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = layer.kernel, layer.bias
    return found


def test_coupling_of_nflows():
    x, weights, out, gradients = reference("nflows")
    dense = {
        f"transform_net.{name}": keras.layers.Dense(units)
        for name, units in [
            ("initial_layer", 8),
            ("blocks.0.linear_layers.0", 8),
            ("blocks.0.linear_layers.1", 8),
            ("final_layer", 4),
        ]
    }
    first, one, two, last = dense.values()
    kept = keras.Input((2,))
    hidden = first(kept)
    block = two(ops.relu(one(ops.relu(hidden))))
    conditioner = keras.Model(kept, last(hidden + block))
    for name, layer in dense.items():
        load(layer, weights, name)
    coupling = NflowsCoupling(conditioner)
    order = [1, 3, 0, 2]  # nflows keeps 1 and 3, we keep the first half
    back = np.argsort(order)

    def forward(x):
        return ops.take(coupling(ops.take(x, order, axis=1))[0], back, axis=1)

    np.testing.assert_allclose(ops.convert_to_numpy(forward(x)), out["z"], atol=1e-5)
    log_det = ops.convert_to_numpy(coupling(x[:, order])[1])
    np.testing.assert_allclose(log_det, out["logdet"], atol=1e-5)
    check_gradients(forward, dense_variables(dense), x, gradients)


def test_flow_of_zuko():
    x, weights, out, gradients = reference("zuko")
    dense, couplings = {}, []
    for number, (kept_size, moved) in enumerate([(2, 1), (1, 2)]):
        kept = hidden = keras.Input((kept_size,))
        for layer, units in [(0, 8), (2, 8), (4, 2 * moved)]:
            one = keras.layers.Dense(units, "relu" if layer < 4 else None)
            dense[f"transform.transforms.{number}.hyper.{layer}"] = one
            hidden = one(hidden)
        # zuko's outputs are (shift, scale) variable by variable
        both = ops.reshape(hidden, (-1, moved, 2))
        params = ops.concatenate([both[:, :, 0], both[:, :, 1]], axis=-1)
        conditioner = keras.Model(kept, params)
        couplings.append(ZukoCoupling(conditioner, swap=number == 0))
    for name, layer in dense.items():
        load(layer, weights, name)
    flow = NormalizingFlow(3, couplings)
    order = [1, 0, 2]  # the first coupling keeps 0 and 2, the second half of ours

    def log_prob(x):
        return flow(ops.take(x, order, axis=1))

    np.testing.assert_allclose(
        ops.convert_to_numpy(log_prob(x)), out["log_prob"], rtol=1e-5, atol=1e-5
    )
    check_gradients(log_prob, dense_variables(dense), x, gradients)


# -- laws ---------------------------------------------------------------------------


@pytest.mark.parametrize("context_size", [0, 2])
@pytest.mark.parametrize("flow_class", FLOWS)
def test_inverse_log_det_and_density(flow_class, context_size):
    size = {"event_size": 3, "couplings": 3, "context_size": context_size}
    context = points(6, context_size, seed=1) if context_size else None
    check_flow(flow_class, {**SMALL, **size}, points(6, 3), context=context, scale=0.4)


@pytest.mark.once
@pytest.mark.parametrize("flow_class", FLOWS)
def test_density_integrates_to_one(flow_class):
    flow = scrambled(flow_class)
    axis = np.linspace(-12, 12, 401, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(ops.convert_to_numpy(flow.log_prob(grid)).astype("float64"))
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 0.02


def test_without_its_last_layers_a_flow_is_the_standard_normal():
    for flow_class in FLOWS:
        flow, x = flow_class(**{**SMALL, "event_size": 5}), points(4, 5)
        expected = stats.norm.logpdf(x).sum(axis=1)
        fresh = ops.convert_to_numpy(flow(x))
        np.testing.assert_allclose(fresh, expected, atol=0.5)  # begins close to it
        for transform in flow.transforms[: flow.couplings]:
            last = transform.conditioner.layers[-1]
            last.kernel.assign(np.zeros(last.kernel.shape))
        found = ops.convert_to_numpy(flow(x))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_additive_couplings_keep_volume():
    flow = scrambled(NICE)
    scale = flow.transforms[-1].log_scale
    _, found = flow.to_noise(points())
    expected = np.full(16, ops.convert_to_numpy(scale).sum())
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-5)


@pytest.mark.once
def test_fit_learns_what_a_normal_cannot():
    x, _ = two_moons(512, noise=0.08, seed=0)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    flow = RealNVP(2, couplings=4, hidden_units=(32, 32), seed=0)
    flow.compile(keras.optimizers.Adam(5e-3))
    fit_in_memory(flow, x, batch_size=64, epochs=50, verbose=0)
    covariance = np.cov(x.T)
    normal = -stats.multivariate_normal(x.mean(0), covariance).logpdf(x).mean()
    loss = flow.evaluate(x, verbose=0)
    assert loss < normal - 0.3
    np.testing.assert_allclose(loss, -flow.predict(x, verbose=0).mean(), rtol=1e-4)
    # what is drawn has the density that was learned: the same mean log-density
    sample = flow.sample(4000, seed=1)
    drawn = -float(np.mean(ops.convert_to_numpy(flow.log_prob(sample))))
    assert abs(drawn - loss) < 0.3  # not more: the flow has begun to overfit


def test_half_precision_conditioners():
    flow = RealNVP(**SMALL, dtype="mixed_bfloat16")
    dense = flow.transforms[0].conditioner.layers[0]
    assert dense.compute_dtype == "bfloat16"
    log_prob = flow.log_prob(points())
    assert keras.backend.standardize_dtype(log_prob.dtype) == "float32"


# -- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize("flow_class", FLOWS)
@pytest.mark.parametrize(
    "bad", [{"event_size": 1}, {"couplings": 0}, {"hidden_units": (8, 0)}]
)
def test_sizes(flow_class, bad):
    with pytest.raises(
        ValueError, match=r"must be an integer of at least .*Received: "
    ):
        flow_class(**{**SMALL, **bad})
