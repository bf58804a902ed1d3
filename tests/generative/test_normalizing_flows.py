"""Tests of dlcompanion.generative.normalizing_flows."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from dlcompanion import autodiff
from dlcompanion.datasets import two_moons
from dlcompanion.generative import NICE, AffineCoupling, NormalizingFlow, RealNVP
from dlcompanion.testing import check_model
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
    rng = np.random.default_rng(1)
    weights = [scale * rng.normal(size=w.shape) for w in flow.get_weights()]
    flow.set_weights(weights)
    return flow


@pytest.mark.tfp
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


@pytest.mark.tfp
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


@pytest.mark.tfp
@pytest.mark.parametrize("flow_class", FLOWS)
def test_inverse_log_det_and_jacobian(flow_class):
    flow, z = scrambled(flow_class, size=3, couplings=3), points(6, 3)
    x = flow.bijector().forward(z)
    # a new bijector each time: one remembers what it was just asked
    back = flow.bijector().inverse(ops.convert_to_numpy(x))
    np.testing.assert_allclose(ops.convert_to_numpy(back), z, atol=1e-5)
    jacobian = autodiff.jacobian(
        lambda x: ops.sum(flow.bijector().inverse(x), axis=0)
    )(ops.convert_to_numpy(x))  # fmt: skip
    jacobian = np.swapaxes(ops.convert_to_numpy(jacobian), 0, 1)
    _, log_det = np.linalg.slogdet(jacobian.astype("float64"))
    found = flow.bijector().inverse_log_det_jacobian(ops.convert_to_numpy(x), 1)
    found = np.broadcast_to(ops.convert_to_numpy(found), log_det.shape)
    np.testing.assert_allclose(found, log_det, atol=1e-4)
    expected = stats.norm.logpdf(z).sum(axis=1) + log_det
    np.testing.assert_allclose(
        ops.convert_to_numpy(flow.log_prob(x)), expected, atol=1e-4
    )


@pytest.mark.tfp
@pytest.mark.parametrize("flow_class", FLOWS)
def test_density_integrates_to_one(flow_class):
    flow = scrambled(flow_class)
    axis = np.linspace(-12, 12, 401, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(ops.convert_to_numpy(flow.log_prob(grid)).astype("float64"))
    assert abs(density.sum() * (axis[1] - axis[0]) ** 2 - 1) < 0.02


@pytest.mark.tfp
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


@pytest.mark.tfp
def test_additive_couplings_keep_volume():
    flow = scrambled(NICE)
    scale = flow.transforms[-1].log_scale
    found = flow.bijector().inverse_log_det_jacobian(points(), 1)
    expected = np.broadcast_to(float(ops.sum(scale)), 16)
    np.testing.assert_allclose(
        np.broadcast_to(ops.convert_to_numpy(found), 16), expected, rtol=1e-5
    )


@pytest.mark.tfp
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


@pytest.mark.tfp
def test_sample_weights_weigh():
    x, flow = points(4), scrambled(RealNVP)
    flow.compile("sgd")
    weights = np.array([1.0, 0.0, 2.0, 0.5], "float32")
    loss = flow.evaluate(x, sample_weight=weights, verbose=0)
    expected = -np.mean(weights * ops.convert_to_numpy(flow.log_prob(x)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.tfp
def test_seeds_and_exact_save(tmp_path):
    flow = scrambled(RealNVP)
    first = ops.convert_to_numpy(flow.sample(4))
    again = ops.convert_to_numpy(scrambled(RealNVP).sample(4))
    np.testing.assert_array_equal(first, again)
    flow.compile("adam")
    flow.fit(points(), verbose=0)
    flow.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    for _ in range(2):  # the sequence goes on where it stopped, and moves
        a, b = (ops.convert_to_numpy(f.sample(4)) for f in (flow, loaded))
        np.testing.assert_array_equal(a, b)
        assert not np.allclose(a, first)
        first = a
    fixed = [ops.convert_to_numpy(f.sample(4, seed=5)) for f in (flow, flow, loaded)]
    np.testing.assert_array_equal(fixed[0], fixed[1])
    np.testing.assert_array_equal(fixed[0], fixed[2])


@pytest.mark.tfp
def test_own_chain_is_saved(tmp_path):
    conditioner = keras.Sequential([keras.layers.Dense(4, "tanh")])
    flow = NormalizingFlow(4, [AffineCoupling(conditioner)], seed=0)
    x = points(5, 4)
    expected = flow.predict(x, verbose=0)
    flow.save(tmp_path / "flow.keras")
    loaded = keras.saving.load_model(tmp_path / "flow.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)


@pytest.mark.tfp
def test_compiled_functions_see_later_training():
    flow, x = RealNVP(**SMALL), points(64) + 3
    before = ops.convert_to_numpy(flow.log_prob(x)).mean()
    flow.compile(keras.optimizers.Adam(0.1))
    flow.fit(x, epochs=3, verbose=0)
    after = ops.convert_to_numpy(flow.log_prob(x)).mean()
    assert after > before + 1


@pytest.mark.tfp
def test_half_precision_conditioners():
    flow = RealNVP(**SMALL, dtype="mixed_bfloat16")
    dense = flow.transforms[0].conditioner.layers[0]
    assert dense.compute_dtype == "bfloat16"
    log_prob = flow.log_prob(points())
    assert keras.backend.standardize_dtype(log_prob.dtype) == "float32"


# -- bad input ----------------------------------------------------------------------


@pytest.mark.tfp
@pytest.mark.parametrize("flow_class", FLOWS)
@pytest.mark.parametrize(
    "bad", [{"event_size": 1}, {"couplings": 0}, {"hidden_units": (8, 0)}]
)
def test_sizes(flow_class, bad):
    with pytest.raises(ValueError, match=r"must be an integer of at least .*Received: "):
        flow_class(**{**SMALL, **bad})


@pytest.mark.tfp
def test_a_flow_has_transforms():
    with pytest.raises(ValueError, match="at least one transform"):
        NormalizingFlow(2, [])


@pytest.mark.tfp
@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((4, 3), "float32"), "points of shape .*Received: shape="),
        (np.zeros(4, "float32"), "points of shape .*Received: shape="),
        (np.zeros((4, 2, 1), "float32"), "points of shape .*Received: shape="),
        (np.zeros((0, 2), "float32"), "at least one of them"),
        (np.zeros((4, 2), "int32"), "floating point data. Received: dtype=int32"),
        (np.array([[0, 1], [np.nan, 0]]), r"finite data. Received: 1 rows .* x\[1\]"),
    ],
)
def test_data_is_checked_at_the_door(x, message):
    flow = RealNVP(**SMALL)
    flow.compile("sgd")
    for method in (flow.fit, flow.evaluate, flow.predict):
        with pytest.raises(ValueError, match=message):
            method(x, verbose=0)
    if np.isfinite(x).all():
        with pytest.raises(ValueError, match=message):
            flow.log_prob(x)
    else:
        found = ops.convert_to_numpy(flow.log_prob(x))
        np.testing.assert_array_equal(np.isnan(found), [False, True])


@pytest.mark.tfp
def test_targets_and_counts():
    flow = RealNVP(**SMALL)
    flow.compile("sgd")
    with pytest.raises(ValueError, match="without targets"):
        flow.fit(points(), points())
    with pytest.raises(ValueError, match="n must be an integer of at least 1"):
        flow.sample(0)
    with pytest.raises(ValueError, match="needs inputs of shape"):
        flow.build((None, 3))


def test_pytorch_is_told_what_to_do(backend):
    if backend == "torch":
        with pytest.raises(ImportError, match=r"pip install \"dlcompanion\[tensorflow"):
            RealNVP(**SMALL)
    else:
        assert RealNVP(**SMALL).event_size == 2
