"""Tests of dlcompanion.generative.glow, on every backend."""

import keras
import numpy as np
import pytest
from helpers.arrays import numpy

from dlcompanion.generative import Glow
from dlcompanion.generative.glow import ChannelCoupling
from dlcompanion.testing import check_flow, check_layer, check_model
from dlcompanion.training import fit_in_memory

SMALL = {"event_shape": (4, 4, 1), "levels": 2, "steps": 1, "filters": 4, "seed": 3}


def pictures(rows=6, shape=(4, 4, 1), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.02, 0.98, (rows, *shape)).astype("float32")


def network(channels):
    return keras.layers.Conv2D(
        channels, 3, padding="same", data_format="channels_last",
        bias_initializer="normal",
    )  # fmt: skip


@pytest.fixture
def scrambled():
    """A Glow far from the identity."""
    flow = Glow(**SMALL)
    flow.build((None, 4, 4, 1))
    rng = np.random.default_rng(1)
    for variable in flow.trainable_variables:
        variable.assign(variable + 0.2 * rng.normal(size=variable.shape))
    return flow


def test_contract_of_the_coupling():
    check_layer(
        ChannelCoupling,
        lambda: {"conditioner": network(4), "swap": True},
        pictures(shape=(2, 2, 4)),
        output_shape=[(6, 2, 2, 4), (6,)],
    )


def test_contract_of_the_model():
    check_model(
        Glow, {**SMALL, "levels": 1}, pictures(8), compile_kwargs={"optimizer": "adam"},
        output_shape=(8,),
    )  # fmt: skip


def test_coupling_in_numpy():
    x, conv = pictures(shape=(3, 3, 3)), network(4)
    layer = ChannelCoupling(conv)  # keeps one channel and moves two
    y, log_det = layer(x)
    params = numpy(conv(x[..., :1]))
    s = np.tanh(params[..., 2:])
    expected = x[..., 1:] * np.exp(s) + params[..., :2]
    np.testing.assert_allclose(numpy(y)[..., 1:], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(numpy(y)[..., :1], x[..., :1])
    np.testing.assert_allclose(numpy(log_det), s.sum((1, 2, 3)), rtol=1e-4, atol=1e-5)


def test_inverse_and_log_det_of_the_coupling():
    def arguments():
        return {"conditioner": network(4)}

    check_flow(ChannelCoupling, arguments, pictures(3, (2, 2, 3)))


def test_inverse_log_det_and_density():
    check_flow(Glow, SMALL, pictures(3), scale=0.2)


def test_temperature_scales_the_noise(scrambled):
    cold, warm = (
        numpy(scrambled.to_noise(scrambled.sample(4, temperature=t, seed=5))[0])
        for t in (0.5, 1.0)
    )
    assert cold.shape == (4, 16)
    np.testing.assert_allclose(cold, 0.5 * warm, atol=1e-3)
    base = super(Glow, scrambled).sample(4, seed=5)
    np.testing.assert_allclose(
        numpy(scrambled.sample(4, seed=5)), numpy(base), atol=1e-6
    )


def test_learns_starts_from_data_and_resumes_exactly(tmp_path):
    x = pictures(64) ** 3
    flow = Glow(**SMALL)
    flow.compile(keras.optimizers.Adam(5e-3))
    settings = {"batch_size": 32, "verbose": 0, "shuffle": False}
    before = float(flow.evaluate(x, verbose=0))
    norm = flow.transforms[2]
    assert float(norm.started) == 0  # an evaluation sets nothing
    fit_in_memory(flow, x, epochs=3, **settings)
    assert float(norm.started) == 1
    assert flow.evaluate(x, verbose=0) < before
    flow.save(tmp_path / "glow.keras")
    loaded = keras.saving.load_model(tmp_path / "glow.keras")
    losses = [fit_in_memory(f, x, epochs=2, **settings).history for f in (flow, loaded)]
    np.testing.assert_array_equal(losses[0]["loss"], losses[1]["loss"])
    for a, b in zip(flow.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    a, b = (numpy(f.sample(2)) for f in (flow, loaded))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "bad",
    [{"event_shape": (4, 6, 1)}, {"event_shape": (4, 4)}, {"levels": 3}],
)
def test_sides_divide(bad):
    with pytest.raises(ValueError, match=r"2 \*\* levels. Received: event_shape="):
        Glow(**{**SMALL, **bad})


def test_bad_arguments():
    for name in ("levels", "steps", "filters"):
        with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}=0"):
            Glow(**{**SMALL, name: 0})
    with pytest.raises(ValueError, match="temperature must be"):
        Glow(**SMALL).sample(2, temperature=0)
    with pytest.raises(ValueError, match=r"must return 2 x 2 channels. Received: 3"):
        ChannelCoupling(network(3)).build((None, 4, 4, 4))
    with pytest.raises(
        ValueError, match="at least 2 channels. Received: inputs_shape="
    ):
        ChannelCoupling(network(3)).build((None, 4, 4, 1))
