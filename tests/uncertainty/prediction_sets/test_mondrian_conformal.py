"""Tests of dlcompanion.uncertainty.prediction_sets.mondrian_conformal."""

import keras
import numpy as np
import pytest
from helpers.models import echo

from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import (
    AdaptivePredictionSets,
    ClassConditionalConformal,
    GroupConditionalConformal,
    SplitConformal,
)
from dlcompanion.uncertainty.conformal import conformal_quantile


def drawn(n, seed=0):
    """Probabilities that are too bold for class 2 and in group 1; the truth; groups."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 3))
    group = rng.integers(0, 2, n)
    noise = rng.gumbel(size=z.shape) * np.where(group == 1, 3, 1)[:, None]
    truth = (z + noise).argmax(axis=1)
    z = z - [0, 0, 2.5]
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return p.astype("float32"), truth, group


def test_contract():
    p, _, group = drawn(6)
    check_layer(
        ClassConditionalConformal,
        lambda: {"predictor": SplitConformal(echo(3))},
        p,
        output_shape=(6, 3),
    )
    check_layer(
        GroupConditionalConformal,
        lambda: {"predictor": SplitConformal(echo(3)), "groups": 2},
        [p, group.astype("int32")],
        output_shape=(6, 3),
    )


def test_thresholds_are_quantiles_of_the_categories():
    p, y, group = drawn(400)
    scores = 1 - p[np.arange(400), y]
    by_class = ClassConditionalConformal(SplitConformal(echo(3))).calibrate(p, y)
    by_group = GroupConditionalConformal(SplitConformal(echo(3)), groups=2)
    by_group.calibrate([p, group], y)
    for predictor, category, count in ((by_class, y, 3), (by_group, group, 2)):
        wanted = [conformal_quantile(scores[category == k], 0.1) for k in range(count)]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(predictor.threshold), wanted, rtol=1e-6
        )


@pytest.mark.once
@pytest.mark.parametrize("make", [SplitConformal, AdaptivePredictionSets])
def test_every_category_is_covered_where_the_marginal_promise_fails(make):
    p, y, group = drawn(24_000)
    cal, new = slice(0, 8_000), slice(8_000, None)
    rows = np.arange(16_000)

    def coverage(predictor, x, x_new, category):
        predictor.calibrate(x, y[cal])
        sets = predictor.predict(x_new, batch_size=4_000)
        covered = sets[rows, y[new]]
        return [covered[category[new] == k].mean() for k in np.unique(category)]

    def plain():
        return make(echo(3), alpha=0.2)

    for category, predictor, x, x_new in (
        (y, ClassConditionalConformal(plain()), p[cal], p[new]),
        (
            group,
            GroupConditionalConformal(plain(), groups=2),
            [p[cal], group[cal]],
            [p[new], group[new]],
        ),
    ):
        marginal = coverage(plain(), p[cal], p[new], category)
        assert min(marginal) < 0.77
        repaired = coverage(predictor, x, x_new, category)
        np.testing.assert_allclose(repaired, 0.8, atol=0.03)


def test_comes_back_calibrated(tmp_path):
    p, y, group = drawn(300)
    by_class = ClassConditionalConformal(SplitConformal(echo(3))).calibrate(p, y)
    by_group = GroupConditionalConformal(AdaptivePredictionSets(echo(3), seed=1), 2)
    by_group.calibrate([p, group], y)
    for predictor, x in ((by_class, p), (by_group, [p, group])):
        predictor.predict(x)
        predictor.save(tmp_path / "sets.keras")
        loaded = keras.saving.load_model(tmp_path / "sets.keras")
        np.testing.assert_array_equal(loaded.predict(x), predictor.predict(x))


def test_an_unknown_group_has_an_empty_set():
    p, y, group = drawn(100)
    predictor = GroupConditionalConformal(SplitConformal(echo(3)), groups=2)
    predictor.calibrate([p, group], y)
    assert not predictor.predict([p, np.full(100, 2)]).any()
    assert predictor.predict([p, group]).any(axis=1).mean() > 0.9


def test_refuses():
    p, y, group = drawn(60)
    with pytest.raises(ValueError, match="predictor must be.*Received: "):
        ClassConditionalConformal(echo(3))
    with pytest.raises(ValueError, match="groups must be.*Received: "):
        GroupConditionalConformal(SplitConformal(echo(3)), groups=0)
    by_class = ClassConditionalConformal(SplitConformal(echo(3)))
    with pytest.raises(ValueError, match="Call calibrate.*Received: "):
        by_class.predict(p)
    few = np.where(y == 2, 1, y)
    few[:3] = 2
    with pytest.raises(ValueError, match="Category 2: .*at least 9.*Received: 3"):
        by_class.calibrate(p, few)
    by_group = GroupConditionalConformal(SplitConformal(echo(3)), groups=2)
    for bad in (group + 1, group - 1, group / 2, group[:9]):
        with pytest.raises(ValueError, match="Groups must be.*Received: "):
            by_group.calibrate([p, bad], y)
    with pytest.raises(ValueError, match="Category 1: .*Received: 0"):
        by_group.calibrate([p, 0 * group], y)
