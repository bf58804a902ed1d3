"""Tests of dlcompanion.datasets."""

import inspect
import sys

import networkx
import numpy as np
import pytest

from dlcompanion import datasets
from dlcompanion.datasets import (
    adding,
    blobs,
    copy_sequence,
    digits,
    karate_club,
    reverse_sequence,
    rings,
    shapes,
    spirals,
    stochastic_block_model,
    two_moons,
)

pytestmark = pytest.mark.once

FUNCTIONS = [
    getattr(datasets, name)
    for name in datasets.__all__
    if inspect.isfunction(getattr(datasets, name))
]
SEEDED = [f for f in FUNCTIONS if "seed" in inspect.signature(f).parameters]
SIZED = [f for f in FUNCTIONS if "n" in inspect.signature(f).parameters]


def flat(data):
    """All arrays of a nested tuple, in order."""
    if isinstance(data, np.ndarray):
        return [data]
    return [array for part in data for array in flat(part)]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_same_arguments_same_arrays_of_documented_types(function):
    first, again = flat(function()), flat(function())
    for a, b in zip(first, again, strict=True):
        assert a.dtype in ("float32", "int32", "bool")
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


@pytest.mark.parametrize("function", SEEDED)
def test_another_seed_gives_other_arrays(function):
    pairs = zip(flat(function(seed=1)), flat(function(seed=2)), strict=True)
    assert any(a.shape != b.shape or (a != b).any() for a, b in pairs)


@pytest.mark.parametrize("function", SEEDED)
@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_refuses_a_seed_that_is_no_integer(function, seed):
    with pytest.raises(ValueError, match="seed must be .* Received: seed="):
        function(seed=seed)


@pytest.mark.parametrize("function", SIZED)
@pytest.mark.parametrize("n", [0, -3, 2.0, "7"])
def test_refuses_a_size_that_is_no_positive_integer(function, n):
    with pytest.raises(ValueError, match="n must be .* Received: n="):
        function(n)


@pytest.mark.parametrize(
    ("function", "arguments", "rule"),
    [
        (digits, {"test": 0.0}, "both excluded"),
        (digits, {"test": 1}, "both excluded"),
        (digits, {"test": float("nan")}, "finite"),
        (digits, {"test": 0.001}, "each digit in both parts"),
        (two_moons, {"noise": -0.1}, "noise must be"),
        (rings, {"classes": 0}, "classes must be"),
        (rings, {"n": 2, "classes": 3}, "Every class needs a point"),
        (spirals, {"noise": float("inf")}, "noise must be"),
        (blobs, {"features": 0}, "features must be"),
        (blobs, {"spread": -1.0}, "spread must be"),
        (adding, {"length": 1}, "length must be"),
        (copy_sequence, {"delay": 0}, "delay must be"),
        (copy_sequence, {"symbols": 0}, "symbols must be"),
        (reverse_sequence, {"length": 0}, "length must be"),
        (stochastic_block_model, {"sizes": ()}, "at least one community"),
        (stochastic_block_model, {"sizes": (3, 0)}, "sizes must be"),
        (stochastic_block_model, {"p_in": 1.1}, "p_in must be"),
        (stochastic_block_model, {"p_out": -0.1}, "p_out must be"),
        (shapes, {"size": 15}, "size must be"),
        (shapes, {"max_shapes": 0}, "max_shapes must be"),
    ],
)
def test_bad_arguments_name_the_rule(function, arguments, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        function(**arguments)
    assert "Received: " in str(caught.value)


# -- digits -------------------------------------------------------------------


def test_digits_are_all_of_scikit_learn_split_within_each_class():
    from sklearn.datasets import load_digits

    (x_train, y_train), (x_test, y_test) = digits(flat=True, test=0.25, seed=3)
    assert x_train.shape[1:] == (64,)
    both = np.concatenate([x_train, x_test]) * 16
    truth = load_digits()
    np.testing.assert_array_equal(
        np.sort(both.astype(int) @ np.arange(1, 65)),
        np.sort(truth.data.astype(int) @ np.arange(1, 65)),
    )
    total = np.bincount(truth.target)
    assert np.all(np.abs(np.bincount(y_test) - 0.25 * total) <= 0.5)
    np.testing.assert_array_equal(np.bincount(y_train) + np.bincount(y_test), total)


def test_digits_flat_or_not_are_the_same_pictures_with_their_labels():
    from sklearn.datasets import load_digits

    (x, y), (x_test, _) = digits(seed=5)
    (rows, labels), _ = digits(flat=True, seed=5)
    assert (x.min(), x.max()) == (0, 1)
    np.testing.assert_array_equal(x.reshape(-1, 64), rows)
    np.testing.assert_array_equal(y, labels)
    known = {r.tobytes(): t for r, t in zip(*load_digits(return_X_y=True), strict=True)}
    assert all(
        known[(16 * r).astype(float).tobytes()] == t
        for r, t in zip(rows, y, strict=True)
    )
    assert not {r.tobytes() for r in x} & {r.tobytes() for r in x_test}


# -- the plane ----------------------------------------------------------------


@pytest.mark.parametrize("function", [rings, spirals, blobs])
def test_classes_differ_by_at_most_one_point_and_are_shuffled(function):
    x, y = function(101, classes=4)
    counts = np.bincount(y, minlength=4)
    assert counts.max() - counts.min() == 1
    assert (np.diff(y) != 0).sum() > 50  # in order there would be 3 changes


def test_moons_without_noise_lie_on_their_half_circles():
    x, y = two_moons(500, noise=0.0)
    upper, lower = x[y == 0], x[y == 1]
    np.testing.assert_allclose(np.linalg.norm(upper, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(lower - [1, 0.5], axis=1), 1, rtol=1e-5)
    assert upper[:, 1].min() >= 0 and lower[:, 1].max() <= 0.5


def test_rings_and_noise_have_their_sizes():
    x, y = rings(20_000, classes=3, noise=0.1)
    radius = np.linalg.norm(x, axis=1)
    for k in range(3):
        assert abs(radius[y == k].mean() - (k + 1)) < 0.01
        assert abs(radius[y == k].std() - 0.1) < 0.005


def test_spiral_arms_are_rotations_of_each_other():
    x, y = spirals(300, classes=3, noise=0.0)
    radius = np.linalg.norm(x, axis=1)
    assert radius.max() <= 3
    angle = np.arctan2(x[:, 1], x[:, 0]) - np.pi * radius - 2 * np.pi * y / 3
    np.testing.assert_allclose(np.cos(angle), 1, atol=1e-4)


def test_blobs_have_the_spread_and_distinct_centres():
    x, y = blobs(30_000, classes=4, features=6, spread=0.25)
    centres = np.stack([x[y == k].mean(axis=0) for k in range(4)])
    assert np.all(np.abs(x - centres[y]).max(axis=1) < 0.25 * 7)
    assert abs((x - centres[y]).std() - 0.25) < 0.005
    gaps = np.linalg.norm(centres[:, None] - centres, axis=-1) + 9 * np.eye(4)
    assert gaps.min() > 2


# -- sequences ----------------------------------------------------------------


def test_adding_marks_one_step_of_each_half():
    x, y = adding(500, length=11)
    markers = x[..., 1]
    assert set(np.unique(markers)) == {0, 1}
    np.testing.assert_array_equal(markers[:, :5].sum(axis=1), 1)
    np.testing.assert_array_equal(markers[:, 5:].sum(axis=1), 1)
    np.testing.assert_allclose(y[:, 0], (x[..., 0] * markers).sum(axis=1), rtol=1e-6)
    # the documented baseline: the constant 1 has an error of 1/6
    assert abs(np.mean((adding(20_000)[1] - 1) ** 2) - 1 / 6) < 0.005


def test_copy_repeats_after_the_signal():
    x, y = copy_sequence(50, length=4, symbols=5, delay=3)
    assert x.shape == y.shape == (50, 11)
    np.testing.assert_array_equal(y[:, 7:], x[:, :4])
    assert not y[:, :7].any() and not x[:, 7:].any() and not x[:, 4:6].any()
    np.testing.assert_array_equal(x[:, 6], 6)
    assert set(np.unique(x[:, :4])) == {1, 2, 3, 4, 5}


def test_reverse_is_its_own_inverse():
    x, y = reverse_sequence(50, length=7, symbols=4)
    np.testing.assert_array_equal(y[:, ::-1], x)
    assert set(np.unique(x)) == {1, 2, 3, 4}


# -- graphs -------------------------------------------------------------------


@pytest.mark.parametrize(
    "graph", [karate_club(), stochastic_block_model((20, 30), seed=4)]
)
def test_edges_go_both_ways_sorted_by_target_without_loops_or_doubles(graph):
    source, target = graph.edges
    pairs = list(zip(target.tolist(), source.tolist(), strict=True))
    assert pairs == sorted(set(pairs))
    assert {(b, a) for a, b in pairs} == set(pairs)
    assert np.all(source != target)
    np.testing.assert_array_equal(graph.x, np.eye(len(graph.y)))


def test_karate_club_is_zacharys():
    graph, truth = karate_club(), networkx.karate_club_graph()
    ours = networkx.Graph(graph.edges.T.tolist())
    assert networkx.utils.edges_equal(ours.edges, truth.edges)
    assert graph.y[0] == 0 and graph.y[33] == 1
    np.testing.assert_array_equal(np.bincount(graph.y), [17, 17])


def test_block_model_has_its_densities():
    graph = stochastic_block_model((150, 250), p_in=0.2, p_out=0.05)
    np.testing.assert_array_equal(np.bincount(graph.y), [150, 250])
    same = graph.y[graph.edges[0]] == graph.y[graph.edges[1]]
    inside = 150 * 149 + 250 * 249
    assert abs(same.sum() / inside - 0.2) < 0.01
    assert abs((~same).sum() / (2 * 150 * 250) - 0.05) < 0.005


def test_block_model_with_probability_one_is_complete():
    graph = stochastic_block_model((2, 3), p_in=1.0, p_out=1.0)
    assert graph.edges.shape[1] == 5 * 4


# -- shapes -------------------------------------------------------------------


def test_boxes_labels_and_masks_agree():
    images, boxes, labels, masks = shapes(60, size=32, max_shapes=4, seed=2)
    found = labels >= 0
    assert found.any(axis=1).all() and set(np.unique(labels)) == {-1, 0, 1, 2}
    assert (boxes[~found] == -1).all() and not masks[~found].any()
    assert masks.sum(axis=1).max() == 1  # no pixel belongs to two shapes
    for box, mask, label in zip(boxes[found], masks[found], labels[found], strict=True):
        left, top, right, bottom = box.astype(int)
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert side.any()
        share = inside.mean()
        expected = {0: 1.0, 1: np.pi / 4, 2: 0.5}[label]
        assert abs(share - expected) < 0.11


def test_shapes_are_bright_of_one_color_on_dark_ground():
    images, _, _, masks = shapes(20)
    covered = masks.any(axis=1)
    assert images[~covered].max() <= 0.1 < 0.3 <= images[covered].min()
    for image, its_masks in zip(images, masks, strict=True):
        for mask in its_masks[its_masks.any(axis=(1, 2))]:
            assert len(np.unique(image[mask], axis=0)) == 1


def test_a_missing_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "networkx", None)
    for function in (digits, karate_club):
        with pytest.raises(ImportError, match=r"dlcompanion\[datasets\]"):
            function()
