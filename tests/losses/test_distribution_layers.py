"""Tests of dlcompanion.losses.distribution_layers."""

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.losses import DistributionSample, KLDivergencePenalty
from dlcompanion.probability import LogisticSpec, NormalSpec
from dlcompanion.testing import check_layer

ONE = float(np.log(np.expm1(1 - 1e-5)))  # the scale of it is 1
STANDARD = [0.0, 0.0, ONE, ONE]


def params(rows=6, size=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, size)).astype("float32")


def divergence(x):
    """Of independent normals from standard ones, in closed form."""
    mean, scale = x[:, :2], np.log1p(np.exp(x[:, 2:])) + 1e-5
    return 0.5 * (mean**2 + scale**2 - 1 - 2 * np.log(scale)).sum(axis=1)


@pytest.mark.tfp
def test_contract():
    check_layer(
        DistributionSample,
        {"spec": NormalSpec((2, 1)), "seed": 0},
        params(),
        output_shape=(6, 2, 1),
        batch_independent=False,
    )
    check_layer(
        KLDivergencePenalty,
        {"spec": NormalSpec(2), "prior_spec": NormalSpec(2), "prior_params": STANDARD},
        params(),
        output_shape=(6, 4),
        skip=("float16", "bfloat16"),  # parameters pass through as they come
    )


@pytest.mark.tfp
def test_divergence_is_that_of_the_closed_form_and_of_samples():
    x = params()
    expected = divergence(x).mean()
    arguments = (NormalSpec(2), NormalSpec(2), STANDARD)
    exact = KLDivergencePenalty(*arguments, weight=0.5)
    np.testing.assert_array_equal(ops.convert_to_numpy(exact(x)), x)
    assert float(exact.losses[0]) == pytest.approx(0.5 * expected, rel=1e-5)
    drawn = KLDivergencePenalty(*arguments, samples=4000, seed=0)
    drawn(x)
    assert float(drawn.losses[0]) == pytest.approx(expected, rel=0.05)


@pytest.mark.tfp
def test_draws_have_the_moments_and_go_on_after_a_reload(tmp_path):
    x = np.tile(np.array([[3.0, ONE + 1]], "float32"), (4000, 1))
    layer = DistributionSample(NormalSpec(), seed=1)
    drawn = ops.convert_to_numpy(layer(x))
    assert drawn.mean() == pytest.approx(3.0, abs=0.1)
    assert drawn.std() == pytest.approx(np.log1p(np.exp(ONE + 1)), rel=0.05)
    model = keras.Sequential([keras.Input((2,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    a, b = (ops.convert_to_numpy(m(x[:5])) for m in (model, loaded))
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, drawn[:5])


@pytest.mark.tfp
def test_a_logistic_has_no_closed_form():
    spec, x = LogisticSpec(), params(3, 2)
    layer = KLDivergencePenalty(spec, NormalSpec(), [0.0, ONE])
    with pytest.raises(ValueError, match="no closed form: give samples.* Received"):
        layer(x)
    layer = KLDivergencePenalty(spec, NormalSpec(), [0.0, ONE], samples=10, seed=0)
    layer(x)
    assert np.isfinite(float(layer.losses[0]))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DistributionSample("normal"), "spec must be .* Received: spec="),
        (
            lambda: KLDivergencePenalty(NormalSpec(), LogisticSpec(2), [0.0] * 4),
            "event shape .* Received: prior_spec=",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0.0]),
            "2 finite numbers .* Received: prior_params=",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0.0, np.nan]),
            "2 finite numbers .* Received: prior_params=",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0, 0], weight=-1),
            "weight must be .* Received: weight=-1",
        ),
        (
            lambda: KLDivergencePenalty(NormalSpec(), NormalSpec(), [0, 0], samples=0),
            "samples must be .* Received: samples=0",
        ),
        (
            lambda: DistributionSample(NormalSpec(2)).build((None, 3)),
            "needs parameters .* Received: input_shape=",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
