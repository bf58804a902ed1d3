"""Tests of dlcompanion.uncertainty.prediction_sets.coverage."""

import numpy as np
import pytest
from helpers.models import echo
from keras import ops

from dlcompanion.testing import check_metric
from dlcompanion.uncertainty import (
    ClassConditionalConformal,
    ConformalizedQuantileRegression,
    GroupConditionalConformal,
    IntervalCoverage,
    MeanIntervalWidth,
    MeanSetSize,
    SetCoverage,
    SplitConformal,
    SplitConformalRegression,
)

RNG = np.random.default_rng(0)
SETS = RNG.uniform(size=(40, 5)) < 0.4
LABELS = RNG.integers(0, 5, size=40)
ENDS = np.sort(RNG.normal(size=(40, 2)), axis=1).astype("float32")
TARGETS = RNG.normal(size=40).astype("float32")
WEIGHTS = RNG.uniform(size=40).astype("float32")
CLASSES = (SetCoverage, MeanSetSize)
NUMBERS = (IntervalCoverage, MeanIntervalWidth)
EVERY = [
    *[(metric, LABELS, SETS) for metric in CLASSES],
    *[(metric, TARGETS, ENDS) for metric in NUMBERS],
]


def numpy_values(metric, y, given):
    """The number of each example, in NumPy."""
    if metric is SetCoverage:
        return given[np.arange(len(y)), y].astype("float64")
    if metric is MeanSetSize:
        return given.sum(axis=1)
    low, high = given.T
    if metric is IntervalCoverage:
        return ((low <= y) & (y <= high)).astype("float64")
    return np.maximum(high - low, 0).astype("float64")


def value(metric, y, given, weights=None):
    metric = metric()
    metric.update_state(y, given, weights)
    return float(metric.result())


@pytest.mark.parametrize(("metric", "y", "given"), EVERY)
def test_contract(metric, y, given):
    check_metric(metric, {}, y, given)
    steps = [np.stack([np.roll(a, k, axis=0) for k in range(3)], 1) for a in (y, given)]
    check_metric(metric, {}, *steps)  # with masks of sequences


@pytest.mark.parametrize(("metric", "y", "given"), EVERY)
def test_is_the_weighted_mean_of_numpy(metric, y, given):
    each = numpy_values(metric, y, given)
    assert each.std() > 0
    np.testing.assert_allclose(value(metric, y, given), each.mean(), rtol=1e-5)
    for targets in (y, y[:, None]):
        found = value(metric, targets, given, WEIGHTS)
        wanted = np.average(each, weights=WEIGHTS)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def evaluated(predictor, x, y, metrics, **kwargs):
    predictor.compile(metrics=[metric() for metric in metrics])
    logs = predictor.evaluate(x, y, verbose=0, return_dict=True, **kwargs)
    return {metric: logs[metric().name] for metric in metrics}


def predictors_of_sets():
    split = SplitConformal(echo(5), alpha=0.3)
    p = RNG.dirichlet(np.ones(5), size=200).astype("float32")
    y = (np.log(p) + RNG.gumbel(size=p.shape)).argmax(axis=1)
    group = np.arange(200) % 2
    yield split.calibrate(p, y), p, y
    yield ClassConditionalConformal(split).calibrate(p, y), p, y
    predictor = GroupConditionalConformal(split, groups=2)
    yield predictor.calibrate([p, group], y), [p, group], y


def predictors_of_intervals():
    x = RNG.normal(size=(200, 2)).astype("float32")
    y = x[:, 0] + RNG.normal(size=200).astype("float32")
    one = SplitConformalRegression(echo(1), alpha=0.3)
    yield one.calibrate(x[:, :1], y), x[:, :1], y
    ends = np.sort(x, axis=1)
    two = ConformalizedQuantileRegression(echo(2), alpha=0.3)
    yield two.calibrate(ends, y), ends, y


@pytest.mark.parametrize(
    ("make", "metrics"),
    [(predictors_of_sets, CLASSES), (predictors_of_intervals, NUMBERS)],
)
def test_evaluates_conformal_predictors(make, metrics):
    for predictor, x, y in make():
        given = predictor.predict(x)
        for metric, found in evaluated(predictor, x, y, metrics, batch_size=64).items():
            wanted = numpy_values(metric, y, given).mean()
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_predictor_without_calibration_is_not_evaluated():
    predictor = SplitConformal(echo(5))
    with pytest.raises(ValueError, match="Call calibrate.*Received: "):
        evaluated(predictor, SETS.astype("float32"), LABELS, CLASSES)
    with pytest.raises(ValueError, match="Call calibrate.*Received: "):
        evaluated(ClassConditionalConformal(predictor), SETS, LABELS, CLASSES)


def test_an_empty_interval_covers_nothing_and_has_no_width():
    crossed, y = np.array([[1.0, 0.0]] * 2), np.array([0.5, 0.0])
    assert value(IntervalCoverage, y, crossed) == 0
    assert value(MeanIntervalWidth, y, crossed) == 0
    endless = np.array([[-np.inf, np.inf]])
    assert value(IntervalCoverage, y[:1], endless) == 1
    assert value(MeanIntervalWidth, y[:1], endless) == np.inf


@pytest.mark.parametrize(
    ("metric", "y", "given"),
    [
        (SetCoverage, [5], [[1.0, 0.0]]),
        (SetCoverage, [-1], [[1.0, 0.0]]),
        (SetCoverage, [0], [[0.7, 0.3]]),
        (MeanSetSize, [0], [[0.7, 0.3]]),
        (MeanSetSize, [0], [[np.nan, 1.0]]),
        (IntervalCoverage, [np.nan], [[0.0, 1.0]]),
        (IntervalCoverage, [0.5], [[np.nan, 1.0]]),
        (MeanIntervalWidth, [0.5], [[0.0, np.nan]]),
    ],
)
def test_bad_tensors_make_nan(metric, y, given):
    tensors = ops.convert_to_tensor(y), ops.convert_to_tensor(given, "float32")
    assert np.isnan(value(metric, *tensors))


@pytest.mark.parametrize(
    ("metric", "y", "given", "rule"),
    [
        (SetCoverage, LABELS, SETS * 0.5, "booleans, or zeros and ones"),
        (MeanSetSize, LABELS, SETS * 0.5, "booleans, or zeros and ones"),
        (SetCoverage, LABELS + 1, SETS, "one class index from 0 to 4"),
        (SetCoverage, np.eye(5, dtype=int)[LABELS], SETS, "take the argmax"),
        (SetCoverage, LABELS, SETS[:, 0], "shape .batch, ..., classes."),
        (IntervalCoverage, TARGETS, SETS, "lower and upper end"),
        (MeanIntervalWidth, TARGETS, TARGETS, "lower and upper end"),
        (IntervalCoverage, ENDS, ENDS, "one target an interval"),
    ],
)
def test_refuses(metric, y, given, rule):
    with pytest.raises(ValueError, match=f"{rule}.*Received: "):
        value(metric, y, given)
