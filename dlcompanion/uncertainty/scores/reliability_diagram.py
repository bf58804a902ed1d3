"""The picture of calibration: frequency against probability."""

import numpy as np

from dlcompanion.checks import (
    check_count,
    check_labels,
    check_number,
    check_probabilities,
    generator,
)
from dlcompanion.plotting import plot_reliability


def reliability_diagram(y_true, y_pred, bins=15, level=0.9, axes=None, seed=0):
    r"""Draw frequency against probability, with the band of perfect calibration.

    Each bin of equal width is a point: mean confidence, and accuracy; its area shows
    how many examples it holds. Points do not lie on the diagonal even if the model is
    calibrated, so the band says how far off they would be then: outcomes are drawn
    from the predicted probabilities themselves, 1,000 times, and in each bin the
    middle ``level`` of the frequencies is shaded. A point inside is no evidence of
    anything. Of several classes the largest probability is taken, of one column the
    probability of class 1.

    Args:
        y_true: Integer array of labels, ``(n,)`` or ``(n, 1)``.
        y_pred: Array of probabilities, ``(n, classes)`` or ``(n, 1)``.
        bins: Positive integer.
        level: Number between 0 and 1, the share of the band.
        axes: Matplotlib axes to draw on, or None for new ones.
        seed: Integer, fixes the draws of the band.

    Returns:
        The Matplotlib axes.

    Raises:
        ValueError: If predictions are no probabilities, a label is not a class, or an
            argument is out of its range.
        ImportError: If Matplotlib is missing.

    Example:
        >>> y = np.array([0, 1, 1, 1])
        >>> axes = reliability_diagram(y, np.array([[0.2], [0.8], [0.8], [0.7]]))
        >>> axes.get_ylabel()
        'frequency'

    References:
        Broecker and Smith, *Increasing the Reliability of Reliability Diagrams*, 2007,
        for the band. https://doi.org/10.1175/WAF993.1
    """
    bins = check_count("bins", bins)
    level = check_number("level", level, 0, 1, open_ends=True)
    rng = generator(seed)
    p = np.asarray(y_pred, "float64")
    if p.ndim != 2:
        raise ValueError(
            "y_pred must have shape (n, classes) or (n, 1). "
            f"Received: y_pred.shape={p.shape}"
        )
    check_probabilities("y_pred", p)
    label = check_labels("labels", y_true, max(p.shape[1], 2), len(p))
    hit, words = label == 1, ("probability", "frequency")
    if p.shape[1] > 1:
        hit, words = p.argmax(axis=1) == label, ("confidence", "accuracy")
    p = p.max(axis=1)
    cell = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(cell, minlength=bins)
    filled = np.flatnonzero(count)

    def means(values):
        return np.bincount(cell, values, minlength=bins)[filled] / count[filled]

    x, y = means(p), means(hit)
    drawn = np.stack([means(rng.uniform(size=len(p)) < p) for _ in range(1_000)])
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    words_of_band = f"calibrated, {level:.0%}"
    axes = plot_reliability(
        x, y, count[filled] / len(p), (low, high), words_of_band, axes
    )
    axes.set(xlabel=words[0], ylabel=words[1])
    return axes
