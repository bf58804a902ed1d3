"""Interquartile means of a handful of runs, with confidence intervals."""

import numpy as np

from dlcompanion.checks import check_count, check_number, generator


def interquartile_mean(scores):
    r"""Mean of the middle half of the scores.

    A quarter of them, rounded down, is left out at either end: one run that collapsed
    does not move it as it moves the mean, and unlike the median it uses half of what
    was measured. Of five runs it is the mean of the middle three, of fewer than four
    the mean of all.

    Args:
        scores: Array ``(runs,)`` or ``(runs, tasks)``, pooled over all axes.

    Returns:
        Float.

    Raises:
        ValueError: If there is no score, or one is not finite.

    Example:
        >>> interquartile_mean([-900.0, 1.0, 2.0, 3.0, 4.0])
        2.0

    References:
        Agarwal, Schwarzer, Castro, Courville and Bellemare, *Deep Reinforcement
        Learning at the Edge of the Statistical Precipice*, 2021.
        https://arxiv.org/abs/2108.13264
    """
    scores = np.sort(_scores(scores), axis=None)
    out = len(scores) // 4
    return float(scores[out : len(scores) - out].mean())


def bootstrap_interval(
    scores, statistic=interquartile_mean, level=0.95, resamples=2000, seed=0
):
    r"""Interval in which a statistic of the runs varies if other runs are drawn.

    As many runs as there are, are drawn from them with replacement, ``resamples``
    times, for every task apart; the ends of the interval are quantiles of what the
    statistic then is. Drawn from few runs it is too narrow: no resample has a run that
    was not made, and of three runs it can say next to nothing.

    Args:
        scores: Array ``(runs,)`` or ``(runs, tasks)``.
        statistic: Function from such an array to a number.
        level: Number in (0, 1), the share of resamples inside.
        resamples: Positive integer.
        seed: Integer of at least 0.

    Returns:
        ``(low, high)``, two floats.

    Raises:
        ValueError: If an argument is none of the above, there is no score, or one is
            not finite.

    Example:
        >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> low < 3.0 < high
        True

    References:
        Agarwal, Schwarzer, Castro, Courville and Bellemare, *Deep Reinforcement
        Learning at the Edge of the Statistical Precipice*, 2021.
        https://arxiv.org/abs/2108.13264
    """
    scores = _scores(scores)
    level = check_number("level", level, 0, 1, open_ends=True)
    random = generator(seed)
    shape = (check_count("resamples", resamples), *scores.shape)
    drawn = random.integers(len(scores), size=shape)
    if scores.ndim == 1:
        samples = scores[drawn]
    else:
        samples = np.take_along_axis(scores[None], drawn, axis=1)
    values = [statistic(sample) for sample in samples]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _scores(scores):
    scores = np.asarray(scores, "float64")
    if scores.ndim not in (1, 2) or not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            "scores must be finite numbers (runs,) or (runs, tasks), at least one. "
            f"Received: scores={scores!r}"
        )
    return scores
