"""Pictures that people would rather look at than read a table.

Each function takes data and, if it is to draw into a figure of yours, a Matplotlib
``Axes``; it returns the one that it drew on. Needs ``pip install
"dlcompanion[gallery]"`` or Matplotlib alone.
"""

import keras
import numpy as np

from dlcompanion import backend
from dlcompanion.checks import check_count, check_labels, check_share


def plot_learning_curves(curves, x=None, band=1.0, ax=None):
    """Draw the median of several seeds against training, with a band.

    Args:
        curves: Dict from a name to an array ``(seeds, points)``, one row a run.
        x: Array ``(points,)`` of what was spent, for example environment steps; by
            default epochs from 1 on.
        band: Number in (0, 1], the middle share of the seeds that is shaded; 1 is from
            the least to the most. With few seeds nothing else means much.
        ax: Matplotlib ``Axes`` to draw on, or None for new ones.

    Returns:
        The ``Axes``, with one line a name, of its color the band.

    Raises:
        ValueError: If curves have other shapes, or ``band`` is no such number.
        ImportError: If Matplotlib is missing.

    Example:
        >>> losses = {"SGD": [[3.0, 2.0], [5.0, 4.0], [4.0, 1.0]]}
        >>> ax = plot_learning_curves(losses)
        >>> ax.lines[0].get_ydata().tolist()
        [4.0, 2.0]
    """
    check_share("band", band, zero=False)
    runs = {name: np.asarray(values, "float64") for name, values in curves.items()}
    points = {values.shape[-1:] for values in runs.values()}
    points |= set() if x is None else {np.shape(x)}
    if len(points) != 1 or any(v.ndim != 2 or not v.size for v in runs.values()):
        raise ValueError(
            "curves need shape (seeds, points), with as many points as x. Received: "
            f"shapes={ {name: values.shape for name, values in runs.items()} }, "
            f"x.shape={None if x is None else np.shape(x)}"
        )
    x = np.arange(1, points.pop()[0] + 1) if x is None else np.asarray(x)
    ax = _axes(ax)
    for name, values in runs.items():
        low, middle, high = np.quantile(
            values, [(1 - band) / 2, 0.5, (1 + band) / 2], axis=0
        )
        (line,) = ax.plot(x, middle, label=name)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
    ax.legend()
    return ax


def plot_density(log_prob, xlim, ylim, data=None, points=200, ax=None):
    """Draw a density in two dimensions as a picture.

    Args:
        log_prob: Function from an array ``(n, 2)`` to log-densities ``(n,)``, such as
            ``flow.log_prob``.
        xlim: Pair of numbers, the range of the first variable.
        ylim: Pair of numbers, the range of the second.
        data: Array ``(n, 2)`` of points to lay over it, or None.
        points: Integer of at least 2, the points of the grid in each direction.
        ax: Matplotlib ``Axes`` to draw on, or None for new ones.

    Returns:
        The ``Axes``; ``ax.images[0]`` is what a color bar asks for.

    Raises:
        ValueError: If ``log_prob`` returns no array ``(n,)``, or data have another
            shape.
        ImportError: If Matplotlib is missing.

    Example:
        >>> ax = plot_density(lambda z: -(z**2).sum(1) / 2, (-3, 3), (-3, 3), points=3)
        >>> ax.images[0].get_array().round(2).tolist()[1]
        [0.01, 1.0, 0.01]
    """
    check_count("points", points, 2)
    grid = np.meshgrid(np.linspace(*xlim, points), np.linspace(*ylim, points))
    grid = np.stack(grid, axis=-1).reshape(-1, 2).astype("float32")
    logs = keras.ops.convert_to_numpy(log_prob(grid)).astype("float64")
    if logs.shape != (points**2,):
        raise ValueError(
            "log_prob must return one log-density for each point, (n,). "
            f"Received: shape {logs.shape} for n={points**2}"
        )
    if data is not None and (np.ndim(data) != 2 or np.shape(data)[1] != 2):
        raise ValueError(f"data must be (n, 2). Received: data.shape={np.shape(data)}")
    ax = _axes(ax)
    picture = np.exp(logs).reshape(points, points)
    extent = (*xlim, *ylim)
    ax.imshow(picture, extent=extent, origin="lower", cmap="magma", aspect="auto")
    if data is not None:
        ax.scatter(*np.transpose(data), s=2, color="w", alpha=0.5, linewidths=0)
        ax.set(xlim=xlim, ylim=ylim)
    return ax


def plot_image_grid(images, columns=None, row_labels=None, gap=1, ax=None):
    """Draw many images as one sheet: samples, or what a grid of codes decodes to.

    Args:
        images: Array of numbers in [0, 1], ``(rows, columns, height, width)`` or with
            channels ``(rows, columns, height, width, 1 or 3)``. With ``columns`` the
            first two axes are one, ``(n, height, width)`` or ``(n, height, width, 1
            or 3)``, and the last row may be short.
        columns: Positive integer, the images in a row, or None.
        row_labels: List of one string for each row, or None.
        gap: Integer of at least 0, the white pixels between two images.
        ax: Matplotlib ``Axes`` to draw on, or None for new ones.

    Returns:
        The ``Axes``, with a single picture.

    Raises:
        ValueError: If images have another shape, or there is not one label a row.
        ImportError: If Matplotlib is missing.

    Example:
        >>> ax = plot_image_grid(np.zeros((10, 8, 8)), columns=4)
        >>> ax.images[0].get_array().shape  # three rows of four, with gaps
        (26, 35)
    """
    images = np.asarray(images, "float64")
    check_count("gap", gap, 0)
    received = images.shape
    if columns is not None:
        columns = check_count("columns", columns)
        rows = -(-len(images) // columns)
        spare = np.ones((rows * columns - len(images), *images.shape[1:]))
        images = np.concatenate([images, spare])
        images = images.reshape(rows, columns, *images.shape[1:])
    if images.ndim == 4:
        images = images[..., None]
    if images.ndim != 5 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(
            "images must be (rows, columns, height, width), or (n, height, width) with "
            f"columns, and may have 1 or 3 channels. Received: shape {received}, "
            f"columns={columns}"
        )
    rows, columns, height, width, channels = images.shape
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(
            f"row_labels needs one label for each of {rows} rows. "
            f"Received: row_labels={row_labels}"
        )
    images = np.pad(
        images, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=1
    )
    sheet = images.transpose(0, 2, 1, 3, 4)
    sheet = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    sheet = sheet[: len(sheet) - gap, : sheet.shape[1] - gap]
    ax = _axes(ax)
    if channels == 1:
        # ink on paper: 1 is black, and so is a gap white
        blank = _gaps(sheet.shape[:2], height, width, gap)
        sheet = np.ma.masked_array(sheet[..., 0], blank)
        ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
    else:
        ax.imshow(sheet)
    ax.set(xticks=[], yticks=[])
    if row_labels is not None:
        middles = np.arange(rows) * (height + gap) + (height - 1) / 2
        ax.set_yticks(middles, row_labels)
    return ax


def _gaps(shape, height, width, gap):
    """Which pixels of a sheet lie between its images."""
    rows, columns = np.indices(shape)
    return (rows % (height + gap) >= height) | (columns % (width + gap) >= width)


def plot_intervals(x, low, high, y=None, ax=None):
    """Draw intervals over an input, and the outcomes inside and outside of them.

    Args:
        x: Array ``(n,)``, in any order.
        low: Array ``(n,)``, the lower ends.
        high: Array ``(n,)``, the upper ends.
        y: Array ``(n,)`` of outcomes, or None.
        ax: Matplotlib ``Axes`` to draw on, or None for new ones.

    Returns:
        The ``Axes``: a band, and with ``y`` two groups of points, whose legend says
        which share is covered.

    Raises:
        ValueError: If the arrays are not of one length, or an end is on the wrong side.
        ImportError: If Matplotlib is missing.

    Example:
        >>> ax = plot_intervals([0.0, 1.0], [0.0, 0.0], [1.0, 1.0], y=[0.5, 2.0])
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['covered: 50%', 'outside']
    """
    given = [x, low, high, *([] if y is None else [y])]
    arrays = [np.asarray(values, "float64") for values in given]
    shapes = [values.shape for values in arrays]
    if len(set(shapes)) != 1 or arrays[0].ndim != 1 or not arrays[0].size:
        raise ValueError(
            f"x, low, high and y must all be (n,). Received: shapes={shapes}"
        )
    x, low, high, *outcomes = arrays
    if (low > high).any():
        raise ValueError(
            "An interval ends where it begins or above. Received: low > high at "
            f"x={x[low > high][0]}"
        )
    ax = _axes(ax)
    order = np.argsort(x, kind="stable")
    ax.fill_between(x[order], low[order], high[order], alpha=0.3, lw=0)
    for y in outcomes:
        inside = (low <= y) & (y <= high)
        share = f"covered: {inside.mean():.0%}"
        ax.plot(x[inside], y[inside], ".", ms=3, color="0.5", label=share)
        ax.plot(x[~inside], y[~inside], ".", ms=4, color="C3", label="outside")
        ax.legend()
    return ax


def plot_prediction_sets(sets, labels=None, class_names=None, ax=None):
    """Draw sets of classes: a row for each example, a filled square for each member.

    Args:
        sets: Boolean array ``(n, classes)``.
        labels: Integer array ``(n,)`` of true classes, marked by a dot, or None.
        class_names: List of one string for each class, or None for numbers.
        ax: Matplotlib ``Axes`` to draw on, or None for new ones.

    Returns:
        The ``Axes``; dots of classes that a set lacks are of another color.

    Raises:
        ValueError: If an array has another shape, or a label is not a class.
        ImportError: If Matplotlib is missing.

    Example:
        >>> sets = np.array([[True, False], [True, True]])
        >>> ax = plot_prediction_sets(sets, labels=[1, 0])
        >>> [len(dots.get_offsets()) for dots in ax.collections]  # inside, outside
        [1, 1]
    """
    sets = np.asarray(sets)
    if sets.ndim != 2 or sets.dtype != bool or not sets.size:
        raise ValueError(
            "sets must be a boolean array (n, classes). "
            f"Received: shape {sets.shape}, dtype={sets.dtype}"
        )
    count, classes = sets.shape
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"class_names needs one name for each of {classes} classes. "
            f"Received: class_names={class_names}"
        )
    if labels is not None:
        labels = check_labels("labels", labels, classes, count)
    ax = _axes(ax)
    ax.imshow(sets, cmap="Blues", vmin=0, vmax=2, aspect="auto")
    if labels is not None:
        inside = sets[np.arange(count), labels]
        for kept, color in ((inside, "0.2"), (~inside, "C3")):
            ax.scatter(labels[kept], np.flatnonzero(kept), s=14, color=color)
    ax.set_xticks(range(classes), class_names or range(classes))
    ax.set(xlabel="class", ylabel="example")
    return ax


def plot_reliability(
    probability, frequency, share, band=None, band_label="calibrated", ax=None
):
    """Draw frequencies against predicted probabilities, bin by bin.

    :func:`~dlcompanion.uncertainty.reliability_diagram` makes the bins and the band
    from labels and predictions.

    Args:
        probability: Array ``(bins,)``, the mean prediction of each bin.
        frequency: Array ``(bins,)``, how often it came true.
        share: Array ``(bins,)``, the share of all examples, drawn as the area.
        band: Pair of arrays ``(bins,)`` between which frequencies of a calibrated
            model would lie, or None.
        band_label: String, what a legend says of the band.
        ax: Matplotlib ``Axes`` to draw on, or None for new ones.

    Returns:
        The ``Axes``.

    Raises:
        ValueError: If the arrays are not of one length.
        ImportError: If Matplotlib is missing.

    Example:
        >>> ax = plot_reliability([0.25, 0.75], [0.5, 0.7], [0.5, 0.5])
        >>> ax.lines[1].get_ydata().tolist()
        [0.5, 0.7]
    """
    given = [probability, frequency, share, *(band or ())]
    arrays = [np.asarray(values, "float64") for values in given]
    shapes = [values.shape for values in arrays]
    if len(set(shapes)) != 1 or arrays[0].ndim != 1 or len(arrays) not in (3, 5):
        raise ValueError(
            "probability, frequency, share and both ends of band must be (bins,). "
            f"Received: shapes={shapes}"
        )
    x, y, share, *band = arrays
    ax = _axes(ax, figsize=(4, 4))
    ax.plot([0, 1], [0, 1], color="0.6", lw=1, zorder=0)
    if band:
        ax.fill_between(x, *band, color="0.6", alpha=0.3, lw=0, label=band_label)
    ax.plot(x, y, color="C0", lw=1)
    ax.scatter(x, y, s=8 + 150 * share, color="C0", zorder=3)
    ax.set(xlabel="probability", ylabel="frequency", xlim=(0, 1), ylim=(-0.02, 1.02))
    ax.set_aspect("equal")
    return ax


def _axes(ax, **kwargs):
    """The axes that were given, or those of a new figure."""
    if ax is not None:
        return ax
    pyplot = backend.require("matplotlib.pyplot", "gallery")
    return pyplot.figure(layout="constrained", **kwargs).add_subplot()
