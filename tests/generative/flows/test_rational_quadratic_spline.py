"""Tests of dlcompanion.generative.flows.rational_quadratic_spline, on every backend."""

from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion import autodiff, backend, probability
from dlcompanion.generative import rational_quadratic_spline
from dlcompanion.generative.flows.rational_quadratic_spline import (
    spline_bins,
    spline_unit_slope,
)

VECTORS = Path(__file__).parents[2] / "references" / "spline_flow.npz"


def numpy(structure):
    return keras.tree.map_structure(ops.convert_to_numpy, structure)


def run(f, *args):
    """Compiled as one program: on JAX each operation of its own would be one."""
    return numpy(backend.compile(f, jit=False)(*args))


def draw(bins=6, slopes=5, rows=(64,), spread=1.5, seed=0):
    """Raw parameters of many splines."""
    rng = np.random.default_rng(seed)
    sizes = (bins, bins, slopes)
    return [spread * rng.normal(size=(*rows, k)).astype("float32") for k in sizes]


def of_nflows(kind, x, w, h, d, inverse):
    """The spline as nflows has it: the unit interval is ours of bound 1/2, moved."""
    if kind == "tails":
        return rational_quadratic_spline(x, *spline_bins(w, h, d), inverse=inverse)
    bins = spline_bins(w, h, d, bound=0.5)
    return rational_quadratic_spline(x, *bins, low=0.0, inverse=inverse)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", ["tails", "unit"])
def test_equals_nflows(kind, inverse):
    with np.load(VECTORS) as stored:
        given = {k: stored[f"in/{kind}/{k}"] for k in "xwhd"}
        names = ("x", "back_log_slope") if inverse else ("y", "log_slope")
        expected = [stored[f"out/{kind}/{name}"] for name in names]
        prefix = f"g/{kind}/{'back_' if inverse else ''}"
        gradients = [stored[prefix + k] for k in "xwhd"]

    def spline(x, w, h, d):
        return of_nflows(kind, x, w, h, d, inverse)

    found = run(spline, *given.values())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def total(*inputs):
        y, _ = spline(*inputs)
        cotangent = np.cos(np.arange(24)).astype("float32")
        return ops.sum(ops.reshape(y, (-1,)) * ops.convert_to_tensor(cotangent))

    found = run(autodiff.grad(total, argnums=(0, 1, 2, 3)), *given.values())
    for name, ours, theirs in zip("xwhd", found, gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.tfp
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64")  # TFP on JAX
def test_equals_tensorflow_probability():
    widths, heights, slopes = spline_bins(*draw())
    x = np.random.default_rng(1).uniform(-4, 4, 64).astype("float32")
    theirs = probability.tfb().RationalQuadraticSpline(
        widths, heights, slopes, range_min=-3
    )
    expected = theirs.forward(x), theirs.forward_log_det_jacobian(x, 0)
    found = rational_quadratic_spline(x, widths, heights, slopes)
    np.testing.assert_allclose(numpy(found), numpy(expected), rtol=1e-5, atol=1e-5)
    back, _ = rational_quadratic_spline(x, widths, heights, slopes, inverse=True)
    np.testing.assert_allclose(numpy(back), numpy(theirs.inverse(x)), atol=1e-5)


@pytest.mark.parametrize("slopes", [5, 7])
def test_increases_and_turns_back_and_its_slope_is_the_derivative(slopes):
    bins = spline_bins(*draw(slopes=slopes, rows=(16, 1)))
    x = np.tile(np.linspace(-5, 5, 301, dtype="float32"), (16, 1))
    # compiled by XLA where there is XLA
    spline = backend.compile(lambda x: rational_quadratic_spline(x, *bins), jit=True)
    y, log_slope = numpy(spline(x))
    assert (np.diff(y, axis=1) > 0).all()
    back, back_log_slope = run(
        lambda y: rational_quadratic_spline(y, *bins, inverse=True), y
    )
    # the error of y, 2e-7, is divided by a slope that may be small
    assert (np.abs(back - x) * np.exp(log_slope)).max() < 2e-6
    total = autodiff.grad(lambda x: ops.sum(rational_quadratic_spline(x, *bins)[0]))
    np.testing.assert_allclose(np.log(run(total, x)), log_slope, atol=2e-4)
    gentle = np.abs(log_slope) < 3
    np.testing.assert_allclose(back_log_slope[gentle], -log_slope[gentle], atol=2e-3)


def test_inverse_where_slopes_are_extreme():
    # slopes of 1000 and 0.001 beside a mean slope of one: b + root would cancel
    ones = np.ones((1, 2), "float32")
    slopes = np.array([[0.001, 1000.0, 0.001]], "float32")
    x = np.linspace(0, 2, 81, dtype="float32")

    def both(x):
        y, log_slope = rational_quadratic_spline(x, ones, ones, slopes, low=0.0)
        back = rational_quadratic_spline(y, ones, ones, slopes, 0.0, inverse=True)
        return back[0], log_slope

    back, log_slope = run(both, x)
    assert (np.abs(back - x) * np.exp(log_slope)).max() < 1e-6


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("scale", [1, 8])
def test_knots_are_finite_and_lead_to_knots(scale, inverse):
    raw = draw(bins=8, slopes=7, rows=(2_000,), spread=scale)

    def ends(*raw):
        widths, heights, slopes = spline_bins(*raw)
        right, top = (ops.cumsum(x, axis=-1) - 3.0 for x in (widths, heights))
        here, there = (top, right) if inverse else (right, top)
        bins = [ops.repeat(x[:, None], 7, 1) for x in (widths, heights, slopes)]
        found, log_slope = rational_quadratic_spline(
            here[:, :-1], *bins, inverse=inverse
        )
        return found, log_slope, there[:, :-1], slopes

    found, log_slope, there, slopes = run(ends, *raw)
    assert np.isfinite(found).all() and np.isfinite(log_slope).all()
    sign = -1 if inverse else 1
    # a rounded place moves the result by as many times itself as the curve is steep
    steep = 1 + np.exp(np.maximum(log_slope, sign * np.log(slopes)))
    assert (np.abs(found - there) <= 4e-6 * steep).all()


def test_outside_it_is_the_identity_or_a_straight_line():
    x = np.array([[-3.5], [3.25], [100.0]], "float32")
    for inverse in (False, True):
        bins = spline_bins(*draw(rows=(3, 1)))
        spline = partial(rational_quadratic_spline, inverse=inverse)
        y, log_slope = run(spline, x, *bins)
        np.testing.assert_array_equal(numpy(y), x)
        np.testing.assert_array_equal(numpy(log_slope), np.zeros_like(x))
        bins = spline_bins(*draw(slopes=7, rows=(3, 1)))
        first, last = numpy(bins[2])[:, 0, [0, -1]].T
        slope = np.array([first[0], last[1], last[2]])[:, None]
        slope = 1 / slope if inverse else slope
        border = np.array([[-3.0], [3.0], [3.0]])
        y, log_slope = run(spline, x, *bins)
        np.testing.assert_allclose(numpy(y), border + (x - border) * slope, rtol=1e-5)
        np.testing.assert_allclose(numpy(log_slope), np.log(slope), atol=1e-5)


def test_equal_bins_with_unit_slopes_are_the_identity():
    zeros, unit = np.zeros(8, "float32"), np.full(7, spline_unit_slope(), "float32")
    x = np.linspace(-4, 4, 50, dtype="float32")

    def spline(x):
        return rational_quadratic_spline(x, *spline_bins(zeros, zeros, unit))

    y, log_slope = run(spline, x)
    np.testing.assert_allclose(numpy(y), x, atol=1e-6)
    np.testing.assert_allclose(numpy(log_slope), np.zeros(50), atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_are_finite_everywhere_and_nan_passes(inverse):
    raw = draw(rows=(5,))
    x = np.array([-1e6, -3.0, 3.0, 0.0, 1e6], "float32")  # far outside and on a knot

    def spline(x, *raw):
        return rational_quadratic_spline(x, *spline_bins(*raw), inverse=inverse)

    def total(*inputs):
        y, log_slope = spline(*inputs)
        return ops.sum(y) + ops.sum(log_slope)

    for gradient in run(autodiff.grad(total, argnums=(0, 1, 2, 3)), x, *raw):
        assert np.isfinite(gradient).all()
    x[2] = np.nan
    for found in run(spline, x, *raw):
        np.testing.assert_array_equal(np.isnan(found), np.isnan(x))


def test_bad_shapes_and_numbers():
    zeros = np.zeros((3, 4), "float32")
    for widths, heights, slopes in (
        (zeros, zeros, zeros),
        (zeros, zeros[:, 1:], zeros[:, 1:]),
        (zeros[:, :0], zeros[:, :0], zeros[:, :1]),
    ):
        with pytest.raises(ValueError, match=r"K - 1 or K \+ 1 .*Received: shapes="):
            spline_bins(widths, heights, slopes)
        with pytest.raises(ValueError, match=r"K - 1 or K \+ 1 .*Received: shapes="):
            rational_quadratic_spline(zeros[:, 0], widths, heights, slopes)
    for bad, name in (({"bound": 0.0}, "bound"), ({"floor": 0.25}, "floor")):
        with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
            spline_bins(zeros, zeros, zeros[:, 1:], **bad)
    with pytest.raises(ValueError, match="floor must be"):
        spline_unit_slope(1.0)
