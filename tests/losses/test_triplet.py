"""Tests of dlcompanion.losses.triplet."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from dlcompanion.autodiff import grad
from dlcompanion.losses import TripletAll, TripletBatchHard, TripletSemiHard
from dlcompanion.losses.triplet import pairwise_distances
from dlcompanion.testing import check_loss

MININGS = {"hard": TripletBatchHard, "semi": TripletSemiHard, "all": TripletAll}
SETTINGS = {
    "unit": {"margin": 0.2},
    "euclidean": {"margin": 1.0},
    "squared": {"margin": 4.0, "distance": "squared"},
    "soft": {"margin": "soft"},
}
each_mining = pytest.mark.parametrize("mining", MININGS.values())


def batch(size=12, features=6, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = (np.arange(size) % classes).astype("int32")
    return labels, rng.normal(size=(size, features)).astype("float32")


def unit(x):
    return x / ops.sqrt(ops.sum(ops.square(x), axis=1, keepdims=True))


@each_mining
def test_contract(mining):
    check_loss(mining, {"margin": 0.7, "distance": "squared"}, *batch())


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", MININGS)
def test_equals_pytorch_metric_learning(name, setting):
    # triplet.npz: there the mean runs over all mined triplets, or over those with a
    # loss above zero ("nonzero", that library's default). Batch hard and semi-hard
    # count all, "all" counts those above zero; the other mean follows by counting.
    data = np.load(Path(__file__).parents[1] / "references/triplet.npz")
    x, y = ("close", "pairs") if name == "semi" else ("embeddings", "labels")
    x, y = ops.convert_to_tensor(data[f"in/{x}"]), data[f"in/{y}"]
    loss = MININGS[name](**SETTINGS[setting])
    prepare = unit if setting == "unit" else (lambda x: x)
    mean = "nonzero" if name == "all" else "mean"
    np.testing.assert_allclose(
        float(loss(y, prepare(x))), data[f"out/{name}/{setting}/{mean}"], rtol=1e-5
    )
    g = ops.convert_to_numpy(grad(lambda x: loss(y, prepare(x)))(x))
    want = data[f"g/{name}/{setting}/{mean}"]
    np.testing.assert_allclose(g, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    if name != "all":
        loss.reduction = None
        each = ops.convert_to_numpy(loss(y, prepare(x)))
        np.testing.assert_allclose(
            each.sum() / (each > 0).sum(),
            data[f"out/{name}/{setting}/nonzero"],
            rtol=1e-5,
        )


def semi_hard_by_loops(labels, x, margin):
    """The definition of TensorFlow Addons' tests, one pair after the other."""
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    losses = []
    for a, p in np.argwhere(labels[:, None] == labels[None]):
        if a != p:
            negatives = np.sort(d[a, labels != labels[a]])
            farther = negatives[negatives > d[a, p]]
            negative = farther[0] if len(farther) else negatives[-1]
            losses.append(max(0.0, margin + d[a, p] - negative))
    return np.mean(losses)


@pytest.mark.parametrize("seed", range(3))
def test_semi_hard_equals_the_loops_of_tensorflow_addons(seed):
    rng = np.random.default_rng(seed)
    labels, x = rng.integers(0, 4, 12), rng.random((12, 6)).astype("float32")
    np.testing.assert_allclose(
        float(TripletSemiHard(1.0)(labels, x)),
        semi_hard_by_loops(labels, x, 1.0),
        rtol=1e-5,
    )


def test_a_semi_hard_negative_is_strictly_farther():
    # the anchor at 0 has its positive at 1 and negatives at -1, a tie, and at 3
    x = np.array([[0.0], [1.0], [-1.0], [3.0]], "float32")
    each = TripletSemiHard(1.0, reduction=None)(np.array([0, 0, 1, 1]), x)
    assert ops.convert_to_numpy(each).tolist() == [0.0, 0.0, 3.0, 2.0]


@each_mining
def test_moving_renaming_and_reordering_change_nothing(mining):
    labels, x = batch()
    loss = mining(1.0)
    value = float(loss(labels, x))
    assert value > 0
    order = np.random.default_rng(1).permutation(len(x))
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    same = pytest.approx(value, rel=1e-5)
    assert float(loss(labels[order], x[order])) == same
    assert float(loss(5_000_000_01 + labels, x)) == same  # float32 would merge these
    assert float(loss(labels, (x @ rotation + 4).astype("float32"))) == same
    assert float(loss(labels[:, None], x)) == same


def test_minings_are_ordered_by_difficulty():
    labels, x = batch()
    every = mean_over_all_triplets(labels, x, 1.0)
    hard = float(TripletBatchHard(1.0)(labels, x))
    semi = float(TripletSemiHard(1.0)(labels, x))
    assert hard > every > 0 and hard > semi


def mean_over_all_triplets(labels, x, margin):
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    same = labels[:, None] == labels[None]
    positive = same & ~np.eye(len(x), dtype=bool)
    gaps = (margin + d[:, :, None] - d[:, None, :])[
        positive[..., None] & ~same[:, None]
    ]
    return np.maximum(gaps, 0).mean()


@each_mining
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
def test_collapsed_embeddings_have_loss_margin_and_finite_gradient(mining, distance):
    labels, _ = batch()
    x = ops.ones((12, 6))
    loss = mining(0.5, distance)
    assert float(loss(labels, x)) == pytest.approx(0.5)
    assert np.all(ops.convert_to_numpy(grad(lambda x: loss(labels, x))(x)) == 0)


def test_distances_of_close_embeddings_keep_their_digits():
    x = np.array([[100.0, 100.0], [100.0, 100.001]], "float32")
    want = np.linalg.norm(x.astype("float64")[0] - x.astype("float64")[1])
    np.testing.assert_allclose(float(pairwise_distances(x)[0, 1]), want, rtol=1e-6)


@each_mining
def test_anchors_without_a_triplet_do_not_count(mining):
    labels, x = np.array([0, 0, *range(1, 11)]), batch()[1]
    value = float(mining(9.0)(labels, x))
    without = mining(9.0, reduction=None)(labels, x)
    assert ops.convert_to_numpy(without)[2:].tolist() == [0.0] * 10
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    negatives = d[:2, 2:]  # margin 9: every triplet is active
    nearest, farthest = negatives.min(axis=1), negatives.max(axis=1)
    pair = d[0, 1]
    if mining is TripletAll:
        want = 9.0 + pair - negatives.mean()
    elif mining is TripletBatchHard:
        want = 9.0 + pair - nearest.mean()
    else:
        semi = [row[row > pair] for row in negatives]
        chosen = [s.min() if len(s) else f for s, f in zip(semi, farthest, strict=True)]
        want = 9.0 + pair - np.mean(chosen)
    assert value == pytest.approx(want, rel=1e-5)


@each_mining
@pytest.mark.parametrize("labels", [np.zeros(12, "int32"), np.arange(12)])
@pytest.mark.parametrize("margin", [1.0, "soft"])
def test_a_batch_without_triplets_has_loss_and_gradient_zero(mining, labels, margin):
    x = ops.convert_to_tensor(batch()[1])
    loss = mining(margin)
    assert float(loss(labels, x)) == 0
    assert np.all(ops.convert_to_numpy(grad(lambda x: loss(labels, x))(x)) == 0)


@each_mining
def test_sample_weight_weighs_anchors(mining):
    labels, x = batch()
    each = ops.convert_to_numpy(mining(1.0, reduction=None)(labels, x))
    weight = (np.arange(12) % 4).astype("float32")
    value = float(mining(1.0)(labels, x, sample_weight=weight))
    assert value == pytest.approx((each * weight).mean(), rel=1e-5)
    assert value != pytest.approx(each.mean(), rel=1e-2)


@each_mining
def test_nan_is_not_hidden(mining):
    labels, x = batch()
    x[0] = np.nan
    assert np.isnan(float(mining(1.0)(labels, x)))


@pytest.mark.once
@each_mining
def test_separates_classes_under_fit(mining):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 192).astype("int32")
    x = rng.normal(size=(192, 4)).astype("float32")
    x[:, 0] += 4 * (y - 1)  # classes differ along one of four directions
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.05), mining("soft"))
    model.fit(x, y, batch_size=64, epochs=6, shuffle=False, verbose=0)
    kernel = np.linalg.norm(ops.convert_to_numpy(model.layers[0].kernel), axis=1)
    assert kernel[0] > 2 * kernel[1:].max()


@pytest.mark.parametrize("margin", [-0.1, np.inf, np.nan, "hard", None, True])
def test_rejects_margin(margin):
    with pytest.raises(ValueError, match="finite number of at least 0. Received: mar"):
        TripletAll(margin)


def test_rejects_distance():
    with pytest.raises(ValueError, match="Received: distance='cosine'"):
        TripletBatchHard(distance="cosine")


@pytest.mark.parametrize(
    "labels, shape, message",
    [
        ([0, 1], (2, 3, 1), "embeddings .batch, features"),
        ([[0, 1]], (1, 3), "labels .batch,"),
        ([0, 1, 1], (2, 3), "equally many"),
        ([0.0, 1.0], (2, 3), "must be integers"),
        ([0], (1, 3), "at least two examples"),
        (np.zeros(0, "int32"), (0, 3), "at least two examples"),
        ([-1, 0], (2, 3), "between 0 and"),
        ([0, 2**31], (2, 3), "between 0 and"),
    ],
)
def test_rejects_batches(labels, shape, message):
    with pytest.raises(ValueError, match=message + r".*Received: "):
        TripletSemiHard()(labels, np.ones(shape, "float32"))
