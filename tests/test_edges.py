"""Numbers at the edge: huge, tiny, far from zero, equal, or none at all."""

import math

import keras
import numpy as np
import pytest
from helpers.arrays import numbers, numpy
from helpers.magnitudes import MAGNITUDES, at_every_magnitude
from hypothesis import strategies
from keras import ops

from dlcompanion import autodiff
from dlcompanion.generative import (
    ActNorm,
    DonskerVaradhanEstimator,
    EMAVectorQuantizer,
    GumbelSoftmax,
    InfoNCEEstimator,
    VectorQuantizer,
)
from dlcompanion.generative.planar_flow import Planar
from dlcompanion.losses import StudentTNLL
from dlcompanion.uncertainty import (
    AdaptiveCalibrationError,
    BetaCalibration,
    BrierScore,
    ClasswiseCalibrationError,
    ExpectedCalibrationError,
    LastLayerLaplace,
    MatrixScaling,
    MaximumCalibrationError,
    PlattScaling,
    SmoothCalibrationError,
    TemperatureScaling,
    VectorScaling,
)
from dlcompanion.uncertainty.laplace import tuned

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 3)).astype("float32")


def float32(x):
    return np.asarray(x, "float32")


# -- ActNorm ----------------------------------------------------------------------


def normalized(x):
    layer = ActNorm()
    return layer, numbers(layer(float32(x), training=True)[0])


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3e-7, 1e30])
def test_actnorm_of_a_constant_channel_has_a_scale_of_one(value):
    layer, y = normalized(np.full((7, 5, 2), value))
    np.testing.assert_array_equal(numpy(layer.deviation), 1.0)
    np.testing.assert_array_equal(y, 0.0)


def test_actnorm_does_not_take_rounding_for_a_deviation():
    noise = np.nextafter(float32(1e4), [0, np.inf], dtype="float32")
    layer, _ = normalized(np.tile(noise, 6)[:, None])
    np.testing.assert_array_equal(numpy(layer.deviation), 1.0)


def test_actnorm_far_from_zero():
    x = float32(ROWS + 1e4)
    layer, y = normalized(x)
    wanted = x.astype("float64").std(axis=0)
    np.testing.assert_allclose(numpy(layer.deviation), wanted, rtol=1e-4)
    np.testing.assert_allclose(y.mean(axis=0), 0.0, atol=1e-3)


@at_every_magnitude()
def test_actnorm_of_any_magnitude(size):
    _, y = normalized(ROWS * size)
    np.testing.assert_allclose(y, normalized(ROWS)[1], rtol=1e-4, atol=1e-4)


# -- the nearest code -------------------------------------------------------------

CODES = float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


def quantizer(codes, layer_class=VectorQuantizer):
    layer = layer_class(len(codes))
    layer.build((None, codes.shape[1]))
    layer.codebook.assign(codes)
    return layer


@pytest.mark.parametrize("layer_class", [VectorQuantizer, EMAVectorQuantizer])
def test_the_nearest_code_far_from_the_origin(layer_class):
    chosen = np.arange(12) % 4
    z = CODES[chosen] + 0.2 * np.tanh(ROWS)
    layer = quantizer(CODES + 1e4, layer_class)
    np.testing.assert_array_equal(numpy(layer.encode(float32(z + 1e4))), chosen)
    equal = quantizer(np.full((3, 2), 1e4, "float32"))
    assert set(numpy(equal.encode(np.full((2, 2), 1e4, "float32"))).tolist()) <= {
        0,
        1,
        2,
    }


@at_every_magnitude()
def test_the_nearest_code_at_any_magnitude(size):
    chosen = np.arange(12) % 4
    z = CODES[chosen] + 0.2 * np.tanh(ROWS)
    layer = quantizer(float32(CODES * size))
    np.testing.assert_array_equal(numpy(layer.encode(float32(z * size))), chosen)


# -- Student's t ------------------------------------------------------------------


def student(residual, df):
    """The loss of one residual at scale 1, and its derivative."""
    loss, rho = StudentTNLL(df=df), math.log(math.expm1(1 - 1e-5))

    def value(mean):
        params = ops.concatenate([mean, ops.full((1, 1), rho)], axis=-1)
        return loss(float32([[residual]]), params)

    found, slope = autodiff.value_and_grad(value)(ops.zeros((1, 1)))
    return float(found), -float(numpy(slope)[0, 0])


def exact_student(r, v):
    """In float64, and its constant by a series where the gammas cancel."""
    far = math.log1p(v / r / r) + 2 * math.log(r) - math.log(v) if r > 1 else None
    log = math.log1p(r * r / v) if far is None or r * r < v else far
    constant = 0.5 * math.log(2 * math.pi)
    if v < 1e5:
        constant = math.lgamma(v / 2) - math.lgamma((v + 1) / 2)
        constant += 0.5 * math.log(v * math.pi)
    return 0.5 * (v + 1) * log + constant, (v + 1) * r / (v + r * r)


@pytest.mark.parametrize(
    "residual, df",
    [(1e20, 4.0), (1e30, 1.0), (2.0, 1e15), (2.0, 1e20), (1.0, 1e300), (1e10, 1e15)],
)
def test_students_t_at_the_edge(residual, df):
    value, slope = student(residual, df)
    wanted, derivative = exact_student(residual, min(df, 1e30))
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(slope, derivative, rtol=1e-4)


def test_the_constant_of_students_t_has_no_step():
    below, above = (student(0.5, v)[0] for v in (0.99999e5, 1.00001e5))
    assert abs(below - above) < 1e-6


@at_every_magnitude(MAGNITUDES, MAGNITUDES)
def test_students_t_at_any_magnitude(residual, df):
    value, slope = student(residual, df)
    wanted, derivative = exact_student(residual, df)
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slope, derivative, rtol=1e-3, atol=1e-30)


# -- planar flow ------------------------------------------------------------------


def planar(w, u=(0.3, -0.2, 0.5), b=0.4):
    layer = Planar()
    layer.build((None, 3))
    layer.set_weights([float32(w), float32(u), float32(b)])
    return layer


def test_planar_without_a_plane_moves_all_points_by_the_same():
    layer = planar(np.zeros(3))
    y, log_det = (numbers(x) for x in layer(ROWS))
    moved = np.tanh(0.4) * np.tile([0.3, -0.2, 0.5], (12, 1))
    np.testing.assert_allclose(y - ROWS, moved, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-6)
    back, opposite = (numbers(x) for x in layer(float32(y), inverse=True))
    np.testing.assert_allclose(back, ROWS, atol=1e-6)
    np.testing.assert_allclose(opposite, 0.0, atol=1e-6)

    def total():
        moved, log_det = layer(ROWS)
        return ops.sum(moved) + ops.sum(log_det)

    _, gradients = autodiff.value_and_grad(total, variables=layer.variables)()
    assert all(np.isfinite(numpy(g)).all() for g in gradients)


@at_every_magnitude()
def test_planar_of_any_normal(size):
    w = size * np.array([0.6, -0.8, 0.1])
    y, log_det = (numbers(x) for x in planar(w)(ROWS))
    inner = min(float(w @ [0.3, -0.2, 0.5]), 700.0)
    s = math.log1p(math.exp(inner)) if inner < 30 else float(w @ [0.3, -0.2, 0.5])
    push = np.tanh(ROWS @ w + 0.4)
    wanted = np.log(push**2 + (1 - push**2) * s)
    assert np.isfinite(y).all()
    np.testing.assert_allclose(log_det, wanted, rtol=1e-3, atol=1e-3)


# -- Gumbel -----------------------------------------------------------------------


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_at_the_largest_floats(hard):
    layer = GumbelSoftmax(temperature=0.1, hard=hard, seed=0)
    logits = float32([[3e38, 0, -3e38], [-3e38, -3e38, -3e38], [3e38, 3e38, 3e38]])
    y = numbers(layer(logits))
    np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(y[0], [1, 0, 0])
    slope = autodiff.grad(lambda x: ops.sum(layer(x)[:, 0]))(logits)
    assert np.isfinite(numpy(slope)).all()


@at_every_magnitude()
def test_gumbel_softmax_at_any_magnitude(size):
    y = numbers(GumbelSoftmax(temperature=0.5, seed=0)(float32(ROWS * size)))
    np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-5)
    if size > 1e4:
        np.testing.assert_array_equal(y.argmax(axis=1), ROWS.argmax(axis=1))


# -- estimators of information ------------------------------------------------------


@pytest.mark.parametrize("estimator", [DonskerVaradhanEstimator, InfoNCEEstimator])
def test_a_last_batch_of_one_pair_is_not_counted(estimator):
    critic = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model = estimator(critic)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    x, y = ROWS[:9, :1], ROWS[:9, 1:2]
    whole = model.evaluate([x[:8], y[:8]], batch_size=4, verbose=0, return_dict=True)
    odd = model.evaluate([x, y], batch_size=4, verbose=0, return_dict=True)
    np.testing.assert_allclose(odd["information"], whole["information"], rtol=1e-5)
    assert np.isfinite(model.fit([x, y], batch_size=4, verbose=0).history["loss"]).all()
    assert float(model.bound(ops.convert_to_tensor([[5.0]]))) == 0.0


# -- metrics ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, arguments",
    [
        (AdaptiveCalibrationError, {"classes": 3}),
        (BrierScore, {"classes": 3}),
        (ClasswiseCalibrationError, {"classes": 3}),
        (ExpectedCalibrationError, {}),
        (MaximumCalibrationError, {}),
        (SmoothCalibrationError, {}),
    ],
)
def test_metrics_without_any_weight_are_0_as_those_of_keras(make, arguments):
    metric = make(**arguments)
    assert float(metric.result()) == 0.0
    p = np.full((4, 3), 1 / 3, "float32")
    metric.update_state(np.zeros(4, "int32"), p, sample_weight=np.zeros(4))
    assert float(metric.result()) == 0.0
    if make is BrierScore:
        assert metric.decomposition()["reliability"] == 0.0
    bad = ops.convert_to_tensor(p * math.nan)
    metric.update_state(ops.zeros(4, "int32"), bad, sample_weight=np.zeros(4))
    assert math.isnan(float(metric.result()))


# -- the evidence -----------------------------------------------------------------


def separated(scale):
    """A linear classifier that is right everywhere, with this scale of its logits."""
    x = float32(np.sign(ROWS[:, :1]) * (1 + np.abs(ROWS[:, :1])))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([float32([[scale]])])
    return model, x, (x[:, 0] > 0).astype(int)


@pytest.mark.parametrize("scale", [1.0, 10.0, 25.0])
def test_the_evidence_is_stationary_on_separable_data(scale):
    model, x, y = separated(scale)
    posterior = LastLayerLaplace(model).fit(x, y)
    x = x.astype("float64")
    p, rest = (np.exp(-np.logaddexp(0, z)) for z in (-scale * x, scale * x))
    curvature = float((x**2 * p * rest).sum())
    alpha = float(numpy(posterior.prior))
    determined = curvature / (curvature + alpha)
    np.testing.assert_allclose(alpha * scale**2, determined, rtol=1e-4)


def test_certain_predictions_are_refused_by_name():
    model, x, y = separated(1e4)
    with pytest.raises(ValueError, match="determine no weight.*Received: largest"):
        LastLayerLaplace(model).fit(x, y)


@at_every_magnitude(MAGNITUDES, MAGNITUDES)
def test_the_evidence_is_stationary_at_any_magnitude(size, squared):
    values = size * np.array([0.0, 0.3, 1.0, 7.0])
    alpha, _, _ = tuned(values, squared, 10, noise=1.0)
    determined = (values / (values + alpha)).sum()
    np.testing.assert_allclose(alpha * squared, determined, rtol=1e-8)


# -- calibrators ------------------------------------------------------------------


def shown_and_true(gap, classes=3, n=300):
    """Logits so far apart, for labels of which one in five is another."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, n)
    shown = np.where(rng.uniform(size=n) < 0.2, (label + 1) % classes, label)
    return float32(np.eye(classes)[shown] * gap), label


@pytest.mark.once
@pytest.mark.parametrize("gap", [10.0, 100.0, 1e4])
@pytest.mark.parametrize(
    "calibrator",
    [TemperatureScaling, VectorScaling, MatrixScaling, PlattScaling, BetaCalibration],
)
def test_calibrators_of_logits_far_apart(calibrator, gap):
    logits, labels = shown_and_true(gap)
    p = calibrator().fit(logits, labels).predict(logits)
    right = (logits.argmax(axis=1) == labels).mean()
    np.testing.assert_allclose(p.max(axis=1).mean(), right, atol=0.01)


@pytest.mark.once
@at_every_magnitude(
    MAGNITUDES,
    strategies.sampled_from([TemperatureScaling, VectorScaling, MatrixScaling]),
    examples=30,
)
def test_calibration_does_not_depend_on_the_unit_of_the_logits(size, calibrator):
    z = np.random.default_rng(2).normal(size=(200, 3))
    labels = (0.5 * z + np.random.default_rng(1).gumbel(size=z.shape)).argmax(axis=1)
    given = float32(z * size)
    p = calibrator().fit(given, labels).predict(given)
    wanted = calibrator().fit(z, labels).predict(z)
    np.testing.assert_allclose(p, wanted, atol=1e-4)
