"""Points in the plane that a straight line cannot separate."""

import numpy as np

from dlcompanion.checks import check_count, check_number, generator


def two_moons(n=1000, noise=0.05, seed=0):
    """Two half circles that reach into each other.

    Args:
        n: Integer, the number of points. The two classes differ by at most one point.
        noise: Number, the standard deviation of the Gaussian noise on each coordinate.
        seed: Integer, fixes angles, noise and order.

    Returns:
        ``x`` of shape ``(n, 2)``, ``float32``, and ``y`` of shape ``(n,)``, ``int32``:
        0 for the upper moon around (0, 0), 1 for the lower around (1, 0.5).

    Raises:
        ValueError: If ``n`` or ``seed`` is not a valid integer or ``noise < 0``.

    Example:
        >>> x, y = two_moons(200)
        >>> x.shape, int(y.sum())
        ((200, 2), 100)
    """
    rng, y, noise = _start(n, 2, noise, seed)
    angle = rng.uniform(0, np.pi, len(y))
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return _finish(np.where(y[:, None] == 0, upper, lower), y, noise, rng)


def rings(n=1000, classes=2, noise=0.05, seed=0):
    """Concentric circles of radius 1, 2, and so on, one a class.

    Args:
        n: Integer, the number of points, spread evenly over the classes.
        classes: Integer, the number of rings.
        noise: Number, the standard deviation of the Gaussian noise on each coordinate.
        seed: Integer, fixes angles, noise and order.

    Returns:
        ``x`` of shape ``(n, 2)``, ``float32``, and ``y`` of shape ``(n,)``, ``int32``:
        the class ``k`` lies on the circle of radius ``k + 1``.

    Raises:
        ValueError: If an argument is outside its range or ``n < classes``.

    Example:
        >>> x, y = rings(300, classes=3, noise=0.0)
        >>> bool(np.allclose(np.linalg.norm(x, axis=1), y + 1))
        True
    """
    rng, y, noise = _start(n, classes, noise, seed)
    angle = rng.uniform(0, 2 * np.pi, len(y))
    x = (y + 1)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _finish(x, y, noise, rng)


def spirals(n=1000, classes=2, noise=0.05, seed=0):
    """Arms of Archimedes' spiral wound around each other for one and a half turns.

    Args:
        n: Integer, the number of points, spread evenly over the classes.
        classes: Integer, the number of arms.
        noise: Number, the standard deviation of the Gaussian noise on each coordinate.
        seed: Integer, fixes positions, noise and order.

    Returns:
        ``x`` of shape ``(n, 2)``, ``float32``, within radius 3 before noise, and ``y``
        of shape ``(n,)``, ``int32``, the arm.

    Raises:
        ValueError: If an argument is outside its range or ``n < classes``.

    Example:
        >>> x, y = spirals(300, classes=3)
        >>> np.bincount(y)
        array([100, 100, 100])
    """
    rng, y, noise = _start(n, classes, noise, seed)
    # the square root spreads the points evenly along the arm, near enough
    turn = np.sqrt(rng.uniform(0.02, 1, len(y)))
    angle = 3 * np.pi * turn + 2 * np.pi * y / classes
    x = 3 * turn[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _finish(x, y, noise, rng)


def blobs(n=1000, classes=3, features=2, spread=0.5, seed=0):
    """Gaussian clouds around centers that keep away from each other.

    Each center is the one of 32 candidates in the cube ``[-3, 3] ** features`` that is
    farthest from the centers before it.

    Args:
        n: Integer, the number of points, spread evenly over the classes.
        classes: Integer, the number of clouds.
        features: Integer, the number of coordinates.
        spread: Number, the standard deviation of a cloud on each coordinate.
        seed: Integer, fixes centers, points and order.

    Returns:
        ``x`` of shape ``(n, features)``, ``float32``, and ``y`` of shape ``(n,)``,
        ``int32``, the cloud.

    Raises:
        ValueError: If an argument is outside its range or ``n < classes``.

    Example:
        >>> x, y = blobs(90, features=5)
        >>> x.shape, x.dtype, y.dtype
        ((90, 5), dtype('float32'), dtype('int32'))
    """
    features = check_count("features", features)
    spread = check_number("spread", spread)
    rng, y, _ = _start(n, classes, 0.0, seed)
    centres = rng.uniform(-3, 3, (1, features))
    while len(centres) < classes:
        candidates = rng.uniform(-3, 3, (32, features))
        gaps = np.linalg.norm(candidates[:, None] - centres, axis=-1).min(axis=1)
        centres = np.concatenate([centres, candidates[[gaps.argmax()]]])
    return _finish(centres[y], y, spread, rng)


def _start(n, classes, noise, seed):
    """Check what all share and deal out the labels in a shuffled order."""
    n, classes = check_count("n", n), check_count("classes", classes)
    noise, rng = check_number("noise", noise), generator(seed)
    if n < classes:
        raise ValueError(
            "Every class needs a point, so n must be at least the number of classes. "
            f"Received: n={n}, classes={classes}"
        )
    return rng, rng.permutation(np.arange(n) % classes), noise


def _finish(x, y, noise, rng):
    x = x + noise * rng.normal(size=x.shape)
    return x.astype("float32"), y.astype("int32")
