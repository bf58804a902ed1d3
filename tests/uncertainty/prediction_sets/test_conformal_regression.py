"""Tests of dlcompanion.uncertainty.prediction_sets.conformal_regression."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.models import echo

from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import (
    ConformalizedQuantileRegression,
    SplitConformalRegression,
)

FILE = Path(__file__).parents[2] / "references/conformal.npz"
EVERY = {
    "split": (SplitConformalRegression, 1),
    "quantiles": (ConformalizedQuantileRegression, 2),
}
each = pytest.mark.parametrize(("make", "columns"), EVERY.values(), ids=EVERY)


def drawn(n, seed=0):
    """Noise that grows with x; predictions of the mean, and of quantiles too narrow."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 2, n)
    ends = np.stack([-1.5 * x, 1.5 * x], axis=1).astype("float32")
    return x, 0 * ends[:, :1], ends, x * rng.normal(size=n)


@each
def test_contract(make, columns):
    x = np.random.default_rng(0).normal(size=(6, columns)).astype("float32")

    def arguments():
        return {"model": echo(columns)}

    check_layer(make, arguments, x, output_shape=(6, 2), training=False)


def test_is_that_of_mapie():
    with np.load(FILE) as vectors:
        given, y = vectors["in/columns"], vectors["in/y"]
        new = vectors["in/new_columns"]
        for make, used, name in (
            (SplitConformalRegression, [0], "absolute"),
            (ConformalizedQuantileRegression, [1, 2], "cqr"),
        ):
            predictor = make(echo(len(used))).calibrate(given[:, used], y)
            found = predictor.predict(new[:, used])
            np.testing.assert_allclose(found, vectors[f"out/{name}"], atol=1e-5)


@pytest.mark.once
@each
def test_intervals_cover_as_often_as_promised(make, columns):
    _, mean, ends, y = drawn(20_000)
    outputs = mean if columns == 1 else ends
    predictor = make(echo(columns), alpha=0.2).calibrate(outputs[:5_000], y[:5_000])
    low, high = predictor.predict(outputs[5_000:], batch_size=5_000).T
    covered = (low <= y[5_000:]) & (y[5_000:] <= high)
    assert abs(covered.mean() - 0.8) < 0.025


@pytest.mark.once
def test_quantiles_keep_the_coverage_where_the_noise_is_large():
    x, mean, ends, y = drawn(20_000)
    wide, found = x > 1.5, {}
    for make, outputs in (
        (SplitConformalRegression, mean),
        (ConformalizedQuantileRegression, ends),
    ):
        predictor = make(echo(outputs.shape[1])).calibrate(outputs, y)
        low, high = predictor.predict(outputs, batch_size=5_000).T
        found[make] = np.mean(((low <= y) & (y <= high))[wide])
    assert found[SplitConformalRegression] < 0.8
    assert found[ConformalizedQuantileRegression] > 0.86


def test_quantiles_that_were_too_cautious_shrink():
    _, _, ends, y = drawn(2_000)
    predictor = ConformalizedQuantileRegression(echo(2)).calibrate(5 * ends, y)
    assert float(predictor.threshold) < 0


@each
def test_comes_back_calibrated(make, columns, tmp_path):
    _, mean, ends, y = drawn(100)
    outputs = mean if columns == 1 else ends
    predictor = make(echo(columns), alpha=0.2).calibrate(outputs, y)
    predictor.save(tmp_path / "interval.keras")
    loaded = keras.saving.load_model(tmp_path / "interval.keras")
    np.testing.assert_array_equal(loaded.predict(outputs), predictor.predict(outputs))


@each
def test_refuses(make, columns):
    _, mean, ends, y = drawn(40)
    right, wrong = (mean, ends) if columns == 1 else (ends, mean)
    with pytest.raises(ValueError, match="must give .batch.*Received: "):
        make(echo(wrong.shape[1])).calibrate(wrong, y)
    for bad in (np.stack([y, y], axis=1), y[:20]):
        with pytest.raises(ValueError, match="one number an example.*Received: "):
            make(echo(columns)).calibrate(right, bad)
    with pytest.raises(ValueError, match="must be finite.*Received: "):
        make(echo(columns)).calibrate(right, np.where(y > 0, np.nan, y))
    with pytest.raises(ValueError, match="must be finite.*Received: "):
        make(echo(columns)).calibrate(right + np.inf, y)
    with pytest.raises(ValueError, match="at least 9.*Received: 8"):
        make(echo(columns)).calibrate(right[:8], y[:8])


@each
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_ends_are_rounded_outwards(make, columns, policy):
    """In the dtype of the intervals none is narrower than the exact one."""
    rng = np.random.default_rng(3)
    outputs = np.sort(rng.integers(-120, 120, size=(500, columns)), axis=1)
    outputs = outputs.astype("float32")
    y = outputs.mean(axis=1).astype("float64") + rng.normal(size=500)
    inside = echo(columns)
    predictor = make(inside, alpha=0.3, dtype=policy).calibrate(outputs, y)
    scores = predictor.conformity(outputs, y)
    exact = np.sort(scores)[int(np.ceil(501 * 0.7)) - 1]
    assert float(predictor.threshold) >= exact
    ends = keras.ops.convert_to_numpy(
        keras.ops.cast(predictor(outputs), "float32")
    ).astype("float64")
    gaps = [outputs[:, 0] - exact - ends[:, 0], ends[:, 1] - outputs[:, -1] - exact]
    assert np.min(gaps) >= 0
    step = {"float32": 2.0**-22, "mixed_float16": 2.0**-9, "mixed_bfloat16": 2.0**-6}
    assert np.max(gaps / (np.abs(ends.T) + abs(exact))) <= step[policy]
