"""Distributions of returns on a fixed grid of values (C51)."""

import numpy as np
from keras import ops


def categorical_projection(values, probabilities, support):
    r"""A distribution moved onto a grid, with its mass and, inside, its mean kept.

    The mass at a value between two points of the grid is shared between them, the more
    to the nearer; what lies outside goes to the end:

    .. math:: q_j = \sum_i p_i \left[ 1 - \frac{|\hat z_i - g_j|}{\Delta_{ij}}
        \right]_0^1, \qquad \hat z_i = \min(\max(z_i, g_1), g_m) ,

    where :math:`\Delta_{ij}` is the distance from :math:`g_j` to the next point of the
    grid on the side of :math:`z_i`.

    Args:
        values: Tensor :math:`z` ``(batch, n)``.
        probabilities: Tensor :math:`p` ``(batch, n)``.
        support: Increasing array :math:`g` ``(m,)`` of at least two values.

    Returns:
        Tensor :math:`q` ``(batch, m)``.

    Raises:
        ValueError: If ``support`` is not increasing.

    Example:
        >>> q = categorical_projection([[0.25, 7.0]], [[0.5, 0.5]], [0.0, 1.0, 2.0])
        >>> ops.convert_to_numpy(q).tolist()
        [[0.375, 0.125, 0.5]]

    References:
        Bellemare, Dabney and Munos, *A Distributional Perspective on Reinforcement
        Learning*, 2017, eq. 7. https://arxiv.org/abs/1707.06887
    """
    support = check_support(support)
    probabilities = ops.convert_to_tensor(probabilities)
    values = ops.cast(values, probabilities.dtype)
    gaps = np.diff(support)
    above = ops.cast(np.append(gaps, 1.0), values.dtype)  # the ends have no neighbour
    below = ops.cast(np.append(1.0, gaps), values.dtype)
    values = ops.clip(values, support[0].item(), support[-1].item())
    distance = values[:, None, :] - ops.cast(support, values.dtype)[:, None]
    share = ops.where(
        distance >= 0, distance / above[:, None], -distance / below[:, None]
    )
    share = ops.clip(1.0 - share, 0.0, 1.0)  # (batch, m, n)
    return ops.sum(share * probabilities[:, None, :], axis=-1)


def check_support(support):
    """Refuse anything but an increasing grid.

    Args:
        support: Sequence of at least two numbers.

    Returns:
        Float32 array.

    Raises:
        ValueError: If it is none.

    Example:
        >>> check_support([0, 1]).tolist()
        [0.0, 1.0]
    """
    grid = np.asarray(support, "float32")
    if grid.ndim != 1 or len(grid) < 2 or not (np.diff(grid) > 0).all():
        raise ValueError(
            "support must be increasing, of at least two numbers. "
            f"Received: support={support!r}"
        )
    return grid
