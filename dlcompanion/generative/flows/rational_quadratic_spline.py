"""The monotone rational-quadratic spline: any increasing curve, and its inverse."""

import math

from keras import ops

from dlcompanion.checks import check_number


def spline_bins(widths, heights, slopes, bound=3.0, floor=1e-3):
    r"""Widths, heights and slopes of a spline, from numbers without constraints.

    With :math:`K` bins in the square :math:`[-B, B]^2` and the least size
    :math:`\epsilon`,

    .. math:: w = 2B \, (\epsilon + (1 - K\epsilon) \operatorname{softmax}(\theta^w),
              \qquad d = \epsilon + \operatorname{softplus}(\theta^d),

    and heights like widths. A raw slope of ``spline_unit_slope`` means a slope
    of one.

    Args:
        widths: Tensor of shape ``(..., K)``.
        heights: Tensor of shape ``(..., K)``.
        slopes: Tensor of shape ``(..., K - 1)``, those of the inner knots, or
            ``(..., K + 1)``, of all knots.
        bound: Positive number, :math:`B`.
        floor: Positive number below ``1 / K``, :math:`\epsilon`.

    Returns:
        Tuple of three tensors of the same shapes, for
        :func:`rational_quadratic_spline` with ``low=-bound``.

    Raises:
        ValueError: If ``bound`` or ``floor`` is out of its range, or the shapes do not
            fit together.

    Example:
        >>> zeros = ops.zeros((4,))
        >>> widths, _, _ = spline_bins(zeros, zeros, zeros[1:], bound=2.0)
        >>> print([round(float(w), 5) for w in widths])
        [1.0, 1.0, 1.0, 1.0]

    References:
        Durkan et al., *Neural Spline Flows*, 2019, section 3.1.
        https://arxiv.org/abs/1906.04032
    """
    bins = _check_bins(widths, heights, slopes)
    check_number("bound", bound, open_ends=True)
    check_number("floor", floor, 0, 1 / bins, open_ends=True)

    def share(raw):
        return 2 * bound * (floor + (1 - bins * floor) * ops.softmax(raw, axis=-1))

    return share(widths), share(heights), floor + ops.softplus(slopes)


def spline_unit_slope(floor=1e-3):
    r"""Raw number that ``spline_bins`` turns into the slope one.

    Args:
        floor: Number between 0 and 1, the least slope :math:`\epsilon`.

    Returns:
        Float, :math:`\log(e^{1 - \epsilon} - 1)`.

    Raises:
        ValueError: If ``floor`` is not between 0 and 1.

    Example:
        >>> round(spline_unit_slope(), 4)
        0.5397
    """
    floor = check_number("floor", floor, 0, 1, open_ends=True)
    return math.log(math.expm1(1 - floor))


def rational_quadratic_spline(x, widths, heights, slopes, low=-3.0, inverse=False):
    r"""Monotone curve through knots, a quotient of two parabolas in every bin.

    In a bin of width :math:`w`, height :math:`h`, mean slope :math:`s = h / w` and
    slopes :math:`d_0, d_1` at its knots :math:`(x_0, y_0)` and :math:`(x_1, y_1)`, with
    :math:`\xi = (x - x_0) / w`,

    .. math:: y = y_0 + h \, \frac{s \xi^2 + d_0 \xi (1 - \xi)}
                     {s + (d_0 + d_1 - 2s) \, \xi (1 - \xi)}, \qquad
              \frac{dy}{dx} = s^2 \, \frac{d_1 \xi^2 + 2 s \xi (1 - \xi)
                     + d_0 (1 - \xi)^2}{(s + (d_0 + d_1 - 2s) \, \xi (1 - \xi))^2} .

    Value and slope are continuous, and the inverse solves one quadratic equation.
    The first knot is ``(low, low)``. Given the inner slopes alone, the outermost are
    one and the curve goes on as the identity, which is meant for widths and heights
    of the same sum; given all slopes, it goes on in straight lines.

    Args:
        x: Tensor of shape ``(...)``.
        widths: Tensor of shape ``(..., K)``, positive.
        heights: Tensor of shape ``(..., K)``, positive.
        slopes: Tensor of shape ``(..., K - 1)`` or ``(..., K + 1)``, positive.
        low: Number, both coordinates of the first knot.
        inverse: Boolean, whether ``x`` is a value of the curve and its place is asked
            for.

    Returns:
        Tuple of two tensors of the shape of ``x``: the value, and the logarithm of
        the slope of the direction that was asked for. NaN in, NaN out.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:
        >>> bins = spline_bins(ops.zeros((4,)), ops.ones((4,)), ops.zeros((3,)))
        >>> y, log_slope = rational_quadratic_spline(0.7, *bins)
        >>> x, _ = rational_quadratic_spline(y, *bins, inverse=True)
        >>> round(float(x), 4)
        0.7

    References:
        Gregory & Delbourgo, *Piecewise Rational Quadratic Interpolation to Monotonic
        Data*, 1982. https://doi.org/10.1093/imanum/2.2.123

        Durkan et al., *Neural Spline Flows*, 2019, eqs. 4 and 5.
        https://arxiv.org/abs/1906.04032
    """
    bins = _check_bins(widths, heights, slopes)
    x, widths, heights, slopes = (
        ops.convert_to_tensor(a) for a in (x, widths, heights, slopes)
    )
    own_ends = slopes.shape[-1] == bins + 1
    if not own_ends:
        one = ops.ones_like(widths[..., :1])
        slopes = ops.concatenate([one, slopes, one], axis=-1)
    right = low + ops.cumsum(widths, axis=-1)  # upper knot of each bin
    top = low + ops.cumsum(heights, axis=-1)
    ends = top if inverse else right
    inside = (x >= low) & (x <= ends[..., -1])
    # outside, a place in the first bin: what is not used must be finite for gradients
    u = ops.where(inside, x, low)

    # one for the bin that holds u: the difference of "past the knot before" and
    # "past the knot after"; sums over K compile to less than gathers do
    past = ops.cast(u[..., None] >= ends[..., :-1], x.dtype)
    edge = ops.ones_like(u[..., None])
    here = ops.concatenate([edge, past], -1) - ops.concatenate([past, 0 * edge], -1)

    def pick(values):
        return ops.sum(values * here, axis=-1)

    w, h, d0, d1 = (
        pick(v) for v in (widths, heights, slopes[..., :-1], slopes[..., 1:])
    )
    x0, y0, s = pick(right) - w, pick(top) - h, h / w
    if inverse:
        t = _between(u - y0, h)
        b = h * d0 - t * (d0 + d1 - 2 * s)
        # b^2 - 4ac of the quadratic, as a sum that rounding cannot make negative
        root = ops.sqrt(ops.square(b - 2 * s * t) + 4 * s * s * t * (h - t))
        # of the two forms of its solution the one that adds what has the same sign
        steep = b < 0
        over = ops.where(steep, 2 * (h * s - b), b + root)
        xi = ops.where(steep, root - b, 2 * s * t) / over
        y = x0 + xi * w
    else:
        xi = _between(u - x0, w) / w
    bend = xi * (1 - xi)
    below = s + (d0 + d1 - 2 * s) * bend
    if not inverse:
        y = y0 + h * (s * xi * xi + d0 * bend) / below
    above = d1 * xi * xi + 2 * s * bend + d0 * ops.square(1 - xi)
    log_slope = 2 * ops.log(s / below) + ops.log(above)
    tail, log_tail = x, ops.where(ops.isnan(x), x, 0.0)
    if own_ends:
        tail, log_tail = _straight(x, low, right, top, slopes, inverse)
    log_slope = -log_slope if inverse else log_slope
    return ops.where(inside, y, tail), ops.where(inside, log_slope, log_tail)


def _between(t, size):
    """What lies in a bin, where rounding puts a knot a little beside it."""
    inside = ops.minimum(ops.maximum(t, 0.0), size)
    return t + ops.stop_gradient(inside - t)  # the slope is that of t


def _straight(x, low, right, top, slopes, inverse):
    """The tails as straight lines with the slopes of the first and the last knot."""
    first = x < low
    x0 = ops.where(first, low, right[..., -1])
    y0 = ops.where(first, low, top[..., -1])
    slope = ops.where(first, slopes[..., 0], slopes[..., -1])
    y = x0 + (x - y0) / slope if inverse else y0 + (x - x0) * slope
    log_slope = ops.log(slope)
    return y, -log_slope if inverse else log_slope


def _check_bins(widths, heights, slopes):
    """Number of bins, if the last axes fit together."""
    shapes = [tuple(a.shape) for a in (widths, heights, slopes)]
    bins, high, knots = (shape[-1] if shape else 0 for shape in shapes)
    if bins < 1 or high != bins or knots not in (bins - 1, bins + 1):
        raise ValueError(
            "A spline of K bins needs K widths, K heights and K - 1 or K + 1 slopes "
            f"along the last axis. Received: shapes={shapes}"
        )
    return bins
