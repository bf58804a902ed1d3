"""Tests of dlcompanion.plotting: what is drawn, and what is refused."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from dlcompanion import plotting
from dlcompanion.plotting import (
    plot_density,
    plot_image_grid,
    plot_intervals,
    plot_learning_curves,
    plot_prediction_sets,
    plot_reliability,
)

RNG = np.random.default_rng(0)


@pytest.fixture
def ax():
    return Figure().add_subplot()


def ends(collection):
    """Least and most of a band at each x."""
    at = {}
    for x, y in collection.get_paths()[0].vertices:
        at.setdefault(round(x, 6), []).append(y)
    return {x: (min(ys), max(ys)) for x, ys in at.items()}


# -- learning curves ----------------------------------------------------------


def test_a_line_is_the_median_and_a_band_reaches_from_least_to_most(ax):
    runs = np.array([[1.0, 5.0], [2.0, 0.0], [9.0, 4.0]])
    assert plot_learning_curves({"A": runs, "B": runs + 1}, ax=ax) is ax
    first, second = ax.lines
    assert first.get_xdata().tolist() == [1, 2]
    assert first.get_ydata().tolist() == [2.0, 4.0]
    assert second.get_ydata().tolist() == [3.0, 5.0]
    assert ends(ax.collections[0]) == {1: (1.0, 9.0), 2: (0.0, 5.0)}
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["A", "B"]


def test_a_band_has_the_color_of_its_line(ax):
    plot_learning_curves({"A": [[1, 2], [3, 4]], "B": [[1, 2], [3, 4]]}, ax=ax)
    for line, band in zip(ax.lines, ax.collections, strict=True):
        assert tuple(band.get_facecolor()[0][:3]) == to_rgba(line.get_color())[:3]


def test_a_narrower_band_holds_the_middle_of_the_seeds(ax):
    runs = np.arange(101.0)[:, None] * np.ones(2)
    plot_learning_curves({"A": runs}, x=[10, 20], band=0.5, ax=ax)
    assert ends(ax.collections[0]) == {10: (25.0, 75.0), 20: (25.0, 75.0)}


@pytest.mark.parametrize(
    "curves, x",
    [
        ({"A": [1.0, 2.0]}, None),
        ({"A": np.ones((2, 3)), "B": np.ones((2, 4))}, None),
        ({"A": np.ones((2, 3))}, [1, 2]),
        ({"A": np.ones((0, 3))}, None),
        ({}, None),
    ],
)
def test_curves_of_other_shapes_are_refused(ax, curves, x):
    with pytest.raises(ValueError, match=r"\(seeds, points\).*Received"):
        plot_learning_curves(curves, x, ax=ax)


def test_a_band_that_is_no_share_is_refused(ax):
    with pytest.raises(ValueError, match="band must lie in"):
        plot_learning_curves({"A": np.ones((2, 3))}, band=0, ax=ax)


# -- density ------------------------------------------------------------------


def test_a_density_is_drawn_where_it_is(ax):
    plot_density(lambda z: -z[:, 0] - 2 * z[:, 1], (0, 1), (0, 3), points=4, ax=ax)
    image = ax.images[0]
    x, y = np.meshgrid(np.linspace(0, 1, 4), np.linspace(0, 3, 4))
    np.testing.assert_allclose(image.get_array(), np.exp(-x - 2 * y), rtol=1e-5)
    assert image.get_extent() == [0, 1, 0, 3] or image.get_extent() == (0, 1, 0, 3)
    assert image.origin == "lower"


def test_data_lie_over_a_density(ax):
    data = RNG.normal(size=(7, 2))
    plot_density(lambda z: z[:, 0], (-1, 1), (-2, 2), data=data, points=2, ax=ax)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), data)
    assert ax.get_xlim() == (-1, 1)
    assert ax.get_ylim() == (-2, 2)


def test_log_densities_of_another_shape_are_refused(ax):
    with pytest.raises(ValueError, match="one log-density for each point"):
        plot_density(lambda z: z, (0, 1), (0, 1), points=3, ax=ax)
    with pytest.raises(ValueError, match=r"data must be \(n, 2\)"):
        plot_density(lambda z: z[:, 0], (0, 1), (0, 1), data=np.ones(3), ax=ax)
    with pytest.raises(ValueError, match="points"):
        plot_density(lambda z: z[:, 0], (0, 1), (0, 1), points=1, ax=ax)


# -- images -------------------------------------------------------------------


def test_images_stand_in_their_place(ax):
    images = RNG.uniform(size=(2, 3, 4, 5))
    plot_image_grid(images, ax=ax)
    sheet = ax.images[0].get_array()
    assert sheet.shape == (2 * 5 - 1, 3 * 6 - 1)
    np.testing.assert_array_equal(sheet[5:9, 12:17], images[1, 2])
    assert sheet.mask[4].all() and sheet.mask[:, 5].all()
    assert not sheet.mask[5:9, 12:17].any()


def test_a_row_of_images_may_be_short(ax):
    images = RNG.uniform(size=(5, 2, 2, 3))
    plot_image_grid(images, columns=3, gap=0, ax=ax)
    sheet = ax.images[0].get_array()
    assert sheet.shape == (4, 6, 3)
    np.testing.assert_array_equal(sheet[2:, 2:4], images[4])
    np.testing.assert_array_equal(sheet[2:, 4:], 1.0)


def test_row_labels_stand_in_the_middle_of_their_rows(ax):
    labels = ["data", "sampled"]
    plot_image_grid(np.zeros((2, 1, 5, 5)), row_labels=labels, ax=ax)
    assert ax.get_yticks().tolist() == [2.0, 8.0]
    assert [t.get_text() for t in ax.get_yticklabels()] == labels
    assert len(ax.get_xticks()) == 0


@pytest.mark.parametrize(
    "shape, columns", [((3, 8, 8), None), ((3, 8), 2), ((2, 2, 8, 8, 2), None)]
)
def test_images_of_another_shape_are_refused(ax, shape, columns):
    with pytest.raises(ValueError, match=r"images must be \(rows, columns"):
        plot_image_grid(np.zeros(shape), columns, ax=ax)


def test_labels_that_do_not_fit_the_rows_are_refused(ax):
    with pytest.raises(ValueError, match="one label for each of 2 rows"):
        plot_image_grid(np.zeros((2, 1, 5, 5)), row_labels=["one"], ax=ax)


# -- intervals and sets -------------------------------------------------------


def test_points_inside_and_outside_are_told_apart(ax):
    x, low, high = [2.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 1.0, 4.0]
    plot_intervals(x, low, high, y=[0.5, 3.0, 4.0], ax=ax)
    assert ends(ax.collections[0]) == {0: (-1.0, 1.0), 1: (0.0, 4.0), 2: (0.0, 1.0)}
    inside, outside = ax.lines
    assert inside.get_xdata().tolist() == [2.0, 1.0]
    assert outside.get_ydata().tolist() == [3.0]
    assert inside.get_label() == "covered: 67%"


def test_intervals_alone_are_a_band(ax):
    plot_intervals([0, 1], [0, 0], [1, 1], ax=ax)
    assert len(ax.collections) == 1
    assert not ax.lines
    assert ax.get_legend() is None


def test_intervals_that_do_not_fit_are_refused(ax):
    with pytest.raises(ValueError, match=r"must all be \(n,\)"):
        plot_intervals([0, 1], [0, 0], [1], ax=ax)
    with pytest.raises(ValueError, match=r"must all be \(n,\)"):
        plot_intervals([[0, 1]], [[0, 0]], [[1, 1]], ax=ax)
    with pytest.raises(ValueError, match="low > high at x=1.0"):
        plot_intervals([0, 1], [0, 2], [1, 1], ax=ax)


def test_sets_are_rows_and_true_classes_dots(ax):
    sets = np.array([[True, False, True], [False, True, False]])
    names = ["cat", "dog", "owl"]
    plot_prediction_sets(sets, labels=[2, 0], class_names=names, ax=ax)
    np.testing.assert_array_equal(ax.images[0].get_array(), sets)
    inside, outside = ax.collections
    assert inside.get_offsets().tolist() == [[2, 0]]
    assert outside.get_offsets().tolist() == [[0, 1]]
    assert [t.get_text() for t in ax.get_xticklabels()] == names


def test_sets_that_do_not_fit_are_refused(ax):
    with pytest.raises(ValueError, match="boolean array"):
        plot_prediction_sets(np.ones((2, 3)), ax=ax)
    with pytest.raises(ValueError, match="one name for each of 3 classes"):
        plot_prediction_sets(np.ones((2, 3), bool), class_names=["a"], ax=ax)
    with pytest.raises(ValueError, match="labels"):
        plot_prediction_sets(np.ones((2, 3), bool), labels=[0, 3], ax=ax)


# -- reliability --------------------------------------------------------------


def test_reliability_is_drawn_beside_the_diagonal(ax):
    band = ([0.1, 0.6], [0.3, 0.9])
    plot_reliability([0.2, 0.8], [0.3, 0.7], [0.25, 0.75], band, ax=ax)
    diagonal, line = ax.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]
    assert line.get_ydata().tolist() == [0.3, 0.7]
    assert ends(ax.collections[0]) == {0.2: (0.1, 0.3), 0.8: (0.6, 0.9)}
    sizes = ax.collections[1].get_sizes()
    np.testing.assert_allclose((sizes[1] - 8) / (sizes[0] - 8), 3.0)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("probability", "frequency")


def test_bins_that_do_not_fit_are_refused(ax):
    with pytest.raises(ValueError, match=r"must be \(bins,\)"):
        plot_reliability([0.2, 0.8], [0.3], [0.5, 0.5], ax=ax)
    with pytest.raises(ValueError, match=r"must be \(bins,\)"):
        plot_reliability([0.2], [0.3], [1.0], band=([0.1],), ax=ax)


# -- all ----------------------------------------------------------------------


def test_without_axes_each_makes_its_own(monkeypatch):
    made = []

    class Pyplot:
        @staticmethod
        def figure(**kwargs):
            made.append(Figure(**kwargs))
            return made[-1]

    monkeypatch.setattr(plotting.backend, "require", lambda *_: Pyplot)
    ax = plot_intervals([0, 1], [0, 0], [1, 1])
    assert ax.figure is made[0]
