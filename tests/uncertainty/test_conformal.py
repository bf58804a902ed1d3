"""Tests of dlcompanion.uncertainty.conformal."""

from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.arrays import stored
from helpers.models import echo
from scipy import stats

from dlcompanion.testing import check_layer
from dlcompanion.uncertainty import (
    AdaptivePredictionSets,
    RegularizedPredictionSets,
    SplitConformal,
)
from dlcompanion.uncertainty.conformal import ConformalPredictor, conformal_quantile

FILE = Path(__file__).parents[1] / "references/conformal.npz"
EVERY = {
    "split": (SplitConformal, {}),
    "adaptive": (AdaptivePredictionSets, {"seed": 1}),
    "regularized": (RegularizedPredictionSets, {"seed": 1, "penalty": 0.05}),
}
each = pytest.mark.parametrize(("make", "kwargs"), EVERY.values(), ids=EVERY)


@pytest.fixture(scope="module")
def vectors():
    return stored(FILE)


def drawn(n, seed=0, classes=4, scale=1.5):
    """Probabilities, and labels that follow them."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (n, classes))
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return p.astype("float32"), (z + rng.gumbel(size=z.shape)).argmax(axis=1)


@each
def test_contract(make, kwargs):
    p, _ = drawn(6)
    check_layer(
        make,
        lambda: {"model": echo(4), **kwargs},
        p,
        output_shape=(6, 4),
        # one draw for each example: the rows of a smaller batch get other draws
        skip=() if make is SplitConformal else ("dynamic", "batch"),
    )


def test_quantile_is_the_order_statistic():
    scores = np.random.default_rng(0).permutation(19) + 1.0
    assert conformal_quantile(scores, 0.1) == 18  # ceil(20 * 0.9)
    assert conformal_quantile(scores, 0.05) == 19
    assert conformal_quantile(scores, 0.11) == 18  # ceil(17.8)
    assert conformal_quantile(scores[:9], 0.1) == scores[:9].max()
    assert conformal_quantile(scores[:1], 0.5) == scores[0]


@pytest.mark.once
@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_coverage_given_the_calibration_scores_is_beta_distributed(alpha):
    """Of uniform scores the coverage is the quantile itself."""
    n, rng = 37, np.random.default_rng(1)
    coverage = [conformal_quantile(rng.uniform(size=n), alpha) for _ in range(3_000)]
    rank = int(np.ceil((n + 1) * (1 - alpha) - 1e-9))
    law = stats.beta(rank, n + 1 - rank)
    assert stats.kstest(coverage, law.cdf).pvalue > 0.01
    assert 1 - alpha - 1e-9 <= law.mean() <= 1 - alpha + 1 / (n + 1)
    shifted = np.minimum(np.array(coverage) * 1.03, 1)  # the test would see 3 %
    assert stats.kstest(shifted, law.cdf).pvalue < 1e-6


def test_is_that_of_mapie(vectors):
    p, labels, new = (vectors[f"in/{name}"] for name in ("p", "labels", "new"))
    sets = SplitConformal(echo(5), alpha=0.2).calibrate(p, labels).predict(new)
    some = sets.any(axis=1)  # MAPIE never leaves a set empty
    assert some.sum() > 30
    np.testing.assert_array_equal(sets[some], vectors["out/lac"][some])


def test_scores_are_those_of_the_papers():
    p = np.array([[0.1, 0.6, 0.3], [0.5, 0.2, 0.3]], "float32")
    last = AdaptivePredictionSets(echo(3), randomize=False).all_scores(p)
    np.testing.assert_allclose(last, [[1.0, 0.6, 0.9], [0.5, 1.0, 0.8]], rtol=1e-6)
    paid = RegularizedPredictionSets(
        echo(3), penalty=0.2, free=1, randomize=False
    ).all_scores(p)
    np.testing.assert_allclose(paid - last, [[0.4, 0, 0.2], [0, 0.4, 0.2]], atol=1e-6)
    some = AdaptivePredictionSets(echo(3), seed=0).all_scores(p)
    u = 1 - (last - some) / p  # one draw for each example
    np.testing.assert_allclose(u, u[:, :1].repeat(3, axis=1), atol=1e-5)
    assert 0 < u.min() < u.max() < 1


@pytest.mark.once
@each
def test_sets_cover_as_often_as_promised(make, kwargs):
    p, labels = drawn(20_000)
    predictor = make(echo(4), alpha=0.2, **kwargs).calibrate(p[:4_000], labels[:4_000])
    sets = predictor.predict(p[4_000:], batch_size=4_000)
    covered = sets[np.arange(16_000), labels[4_000:]]
    # the deviation of the Beta distribution with n = 4,000 is 0.0063
    assert abs(covered.mean() - 0.8) < 0.025


@pytest.mark.once
def test_adaptive_sets_of_true_probabilities_cover_every_kind_of_input():
    p, labels = drawn(20_000, scale=3)
    hard = p.max(axis=1) < np.quantile(p.max(axis=1), 0.3)
    gaps = {}
    for make in (SplitConformal, AdaptivePredictionSets):
        predictor = make(echo(4), alpha=0.2).calibrate(p[:8_000], labels[:8_000])
        covered = predictor.predict(p, batch_size=4_000)[np.arange(20_000), labels]
        gaps[make] = abs(covered[hard].mean() - covered[~hard].mean())
    assert gaps[AdaptivePredictionSets] < 0.03 < 0.1 < gaps[SplitConformal]


def test_logits_are_probabilities_in_another_scale():
    p, labels = drawn(300)
    sets = SplitConformal(echo(4)).calibrate(p, labels).predict(p)
    of_logits = SplitConformal(echo(4), from_logits=True)
    z = np.log(p)
    np.testing.assert_array_equal(of_logits.calibrate(z, labels).predict(z), sets)


@each
def test_comes_back_calibrated_and_with_its_draws(make, kwargs, tmp_path):
    p, labels = drawn(200)
    predictor = make(echo(4), alpha=0.3, **kwargs).calibrate(p, labels)
    predictor.save(tmp_path / "sets.keras")
    loaded = keras.saving.load_model(tmp_path / "sets.keras")
    assert loaded.alpha == 0.3 and isinstance(loaded, ConformalPredictor)
    np.testing.assert_array_equal(loaded.predict(p), predictor.predict(p))
    np.testing.assert_array_equal(loaded.predict(p), predictor.predict(p))


def test_refuses_arguments():
    for kwargs, rule in (
        ({"alpha": 0}, "alpha must be"),
        ({"alpha": 1}, "alpha must be"),
        ({"alpha": np.nan}, "alpha must be"),
        ({"from_logits": 1}, "from_logits must be"),
        ({"randomize": "no"}, "randomize must be"),
        ({"penalty": -1}, "penalty must be"),
        ({"free": 1.5}, "free must be"),
        ({"model": np.ones(3)}, "model must be"),
    ):
        with pytest.raises(ValueError, match=f"{rule}.*Received: "):
            RegularizedPredictionSets(**{"model": echo(4), **kwargs})


def test_refuses_data():
    p, labels = drawn(50)
    with pytest.raises(ValueError, match="at least 9 calibration.*Received: 8"):
        SplitConformal(echo(4)).calibrate(p[:8], labels[:8])
    SplitConformal(echo(4)).calibrate(p[:9], labels[:9])
    for x, y in ((p * 2, labels), (p * np.nan, labels), (p, labels + 1), (p, p)):
        with pytest.raises(ValueError, match="Received: "):
            SplitConformal(echo(4)).calibrate(x, y)
    with pytest.raises(ValueError, match="at least two classes.*Received: "):
        SplitConformal(echo(1)).calibrate(p[:, :1], labels)
    with pytest.raises(ValueError, match="Call calibrate.*Received: "):
        SplitConformal(echo(4)).predict(p)
    for bad in (np.array([1.0, np.nan] * 20), np.ones((40, 1))):
        with pytest.raises(ValueError, match="one row of numbers.*Received: "):
            conformal_quantile(bad, 0.1)


@each
def test_scores_that_tie_but_for_rounding_are_ties(make, kwargs):
    """As a network rounds: otherwise in a batch of another size."""
    rng = np.random.default_rng(0)
    kinds = np.array([[0.7, 0.2, 0.06, 0.04], [0.4, 0.31, 0.19, 0.1]], "float32")
    p = np.repeat(kinds, 100, axis=0)
    labels = np.array([rng.choice(4, p=q / q.sum()) for q in p.astype("float64")])
    if make is not SplitConformal:
        kwargs = {**kwargs, "randomize": False}
    predictor = make(echo(4), alpha=0.2, **kwargs).calibrate(p, labels)
    rounded = p * (1 + 3e-7 * rng.choice([-1, 1], size=p.shape)).astype("float32")
    assert (rounded != p).any()
    sets = predictor.predict(p)
    np.testing.assert_array_equal(predictor.predict(rounded), sets)
    assert sets[np.arange(200), labels].mean() >= 0.8
