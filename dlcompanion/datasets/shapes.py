"""Pictures of colored shapes, with boxes, labels and masks."""

from typing import NamedTuple

import numpy as np

from dlcompanion.checks import check_count, generator


class Shapes(NamedTuple):
    """Pictures and what is on them.

    Args:
        images: Array of shape ``(n, size, size, 3)``, ``float32`` in ``[0, 1]``.
        boxes: Array of shape ``(n, max_shapes, 4)``, ``float32``: left, top, right and
            bottom in pixels, right and bottom one past the last pixel ("xyxy"). -1 in
            the rows without a shape.
        labels: Array of shape ``(n, max_shapes)``, ``int32``: 0 rectangle, 1 disc,
            2 triangle, -1 no shape.
        masks: Array of shape ``(n, max_shapes, size, size)``, ``bool``: the pixels of
            each shape.

    Example:
        >>> empty = Shapes(*[np.zeros((0,))] * 4)
        >>> empty._fields
        ('images', 'boxes', 'labels', 'masks')
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def shapes(n=100, size=32, max_shapes=3, seed=0):
    """Draw rectangles, discs and triangles that do not touch.

    Each picture has between one and ``max_shapes`` shapes, each in a bright color of
    its own on a dark, slightly noisy ground. A shape that finds no free place after 20
    tries is left out, so crowded pictures hold fewer than were drawn.

    Args:
        n: Integer, the number of pictures.
        size: Integer of at least 16, height and width of a picture in pixels.
        max_shapes: Integer, the largest number of shapes in a picture.
        seed: Integer, fixes everything.

    Returns:
        :class:`Shapes`, a named tuple ``(images, boxes, labels, masks)``. Boxes are
        tight: each side touches a pixel of the mask.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> images, boxes, labels, masks = shapes(10)
        >>> images.shape, boxes.shape, labels.shape, masks.shape
        ((10, 32, 32, 3), (10, 3, 4), (10, 3), (10, 3, 32, 32))
    """
    n, size = check_count("n", n), check_count("size", size, least=16)
    max_shapes, rng = check_count("max_shapes", max_shapes), generator(seed)
    images = rng.uniform(0, 0.1, (n, size, size, 3)).astype("float32")
    boxes = np.full((n, max_shapes, 4), -1, "float32")
    labels = np.full((n, max_shapes), -1, "int32")
    masks = np.zeros((n, max_shapes, size, size), bool)
    for i, count in enumerate(rng.integers(1, max_shapes + 1, n)):
        taken = np.zeros((size, size), bool)
        found = 0
        for _ in range(count):
            label = rng.integers(3)
            mask = _place(label, taken, rng)
            if mask is None:
                continue
            images[i][mask] = rng.uniform(0.3, 1, 3)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[i, found] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            labels[i, found], masks[i, found] = label, mask
            taken |= mask
            found += 1
    return Shapes(images, boxes, labels, masks)


def _place(label, taken, rng):
    """The mask of one shape on free ground, or None after 20 tries."""
    size = len(taken)
    for _ in range(20):
        height, width = rng.integers(size // 4, size // 2, 2)
        if label == 1:
            width = height
        top = rng.integers(0, size - height + 1)
        left = rng.integers(0, size - width + 1)
        around = taken[max(top - 1, 0) : top + height + 1]
        if not around[:, max(left - 1, 0) : left + width + 1].any():
            mask = np.zeros_like(taken)
            mask[top : top + height, left : left + width] = _draw(label, height, width)
            return mask
    return None


def _draw(label, height, width):
    """One shape that fills a box of ``height`` x ``width`` pixels to its sides."""
    row, column = np.mgrid[:height, :width]
    # centers of the pixels, -1 ... 1 from side to side of the box
    v, u = (2 * row + 1) / height - 1, (2 * column + 1) / width - 1
    if label == 0:
        return np.ones((height, width), bool)
    if label == 1:
        return u**2 + v**2 <= 1
    return np.abs(u) <= np.maximum((v + 1) / 2, 1 / width)
