"""masked_mean: a mean over the steps that a mask keeps."""

from keras import ops


def masked_mean(values, mask=None):
    """Mean over the entries that a mask keeps.

    Layers pass it to ``add_loss``, which no mask reaches by itself.

    Args:
        values: Tensor ``(batch, ...)``, with a mask ``(batch, time, ...)``.
        mask: Boolean tensor ``(batch, time)``, or None for the mean of all.

    Returns:
        Scalar tensor. It is 0 if the mask keeps nothing.

    Example:
        >>> values = ops.array([[1.0, 3.0, 100.0]])
        >>> float(masked_mean(values, ops.array([[True, True, False]])))
        2.0
    """
    if mask is None:
        return ops.mean(values)
    kept = spread_mask(mask, values)
    count = ops.sum(ops.cast(kept, values.dtype))
    return ops.sum(ops.where(kept, values, 0)) / ops.maximum(count, 1)


def spread_mask(mask, values):
    """A mask ``(batch, time)`` as a boolean tensor of the shape of the values.

    Args:
        mask: Boolean tensor ``(batch, time)``.
        values: Tensor ``(batch, time, ...)``.

    Returns:
        Boolean tensor.

    Example:
        >>> mask = ops.array([[True, False]])
        >>> ops.convert_to_numpy(spread_mask(mask, ops.ones((1, 2, 3)))).tolist()
        [[[True, True, True], [False, False, False]]]
    """
    axes = (1,) * (len(values.shape) - 2)
    mask = ops.reshape(ops.cast(mask, "bool"), (*ops.shape(mask), *axes))
    return ops.broadcast_to(mask, ops.shape(values))
