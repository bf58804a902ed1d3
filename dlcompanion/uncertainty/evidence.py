"""The evidence of a Gaussian posterior, and the prior and noise that maximise it."""

import numpy as np


def evidence(log_likelihood, squared, values, prior):
    r"""Logarithm of the evidence in the Laplace approximation.

    .. math:: \log p(D \mid \hat\theta) - \tfrac\alpha2 \|\hat\theta\|^2
        + \tfrac12 \sum_i \log \frac{\alpha}{\alpha + \lambda_i}

    Args:
        log_likelihood: Number, of the data at :math:`\hat\theta`.
        squared: Number :math:`\|\hat\theta\|^2`.
        values: Array of the eigenvalues :math:`\lambda_i` of the data's precision.
        prior: Number :math:`\alpha`, the precision of the prior.

    Returns:
        Float.

    Example:
        >>> round(evidence(-1.0, 1.0, np.array([1.0]), 1.0), 3)  # -1 - 1/2 - log(2)/2
        -1.847
    """
    fit = log_likelihood - 0.5 * prior * squared
    return float(fit - 0.5 * np.log1p(np.asarray(values) / prior).sum())


def tuned(values, squared, count, error=None, prior=None, noise=None):
    r"""Prior and noise at which the evidence is stationary, by MacKay's iteration.

    With :math:`\gamma = \sum_i \lambda_i / (\lambda_i + \alpha)`, the number of weights
    that the data determine,

    .. math:: \alpha \leftarrow \frac{\gamma}{\|\hat\theta\|^2}, \qquad
        \sigma^2 \leftarrow \frac{\sum_n \|y_n - f_n\|^2}{N - \gamma} .

    Args:
        values: Array of the eigenvalues of the data's precision for noise 1.
        squared: Positive number :math:`\|\hat\theta\|^2`.
        count: Integer :math:`N`, the number of target values.
        error: Number, the sum of squared errors. Needed where ``noise`` is None.
        prior: Number that fixes :math:`\alpha`, or None.
        noise: Number that fixes :math:`\sigma`, or None.

    Returns:
        ``(prior, noise, values)``, the eigenvalues now for that noise.

    Raises:
        ValueError: If there is no maximum: all weights are zero, or the targets are
            met exactly.

    Example:
        >>> prior, noise, _ = tuned(np.array([9.0]), 0.5, 10, noise=1.0)
        >>> round(prior, 4)  # a = g / 0.5 with g = 9 / (9 + a)
        1.6847
    """
    if prior is None and not squared > 0:
        raise ValueError(f"All weights of the last layer are 0. Received: {squared=}")
    if noise is None and not error > 1e-12 * count:
        raise ValueError(
            "No noise can be found where the targets are met exactly; give noise. "
            f"Received: squared error={error}"
        )
    alpha = prior or 1.0
    variance = noise**2 if noise else error / count
    for _ in range(10000):
        determined = (values / (values + alpha * variance)).sum()
        new = prior or determined / squared
        new_variance = variance
        if noise is None:
            new_variance = error / max(count - determined, 1e-3 * count)
        change = max(abs(np.log(new / alpha)), abs(np.log(new_variance / variance)))
        alpha, variance = new, new_variance
        if change < 1e-10:
            break
    return float(alpha), float(np.sqrt(variance)), values / variance


def classification_data(logits, labels):
    """Log-likelihood of labels, and the curvature of the loss in the logits.

    Args:
        logits: Array ``(n, classes)``, or ``(n, 1)`` for class 1 against class 0.
        labels: Array of class indices, ``(n,)`` or ``(n, 1)``.

    Returns:
        The sum of log-probabilities, and an array ``(n, k, k)`` for ``k`` columns.

    Raises:
        ValueError: If the labels are not a class index for each example.

    Example:
        >>> total, curvature = classification_data(np.zeros((1, 1)), [1])
        >>> round(total, 3), curvature.tolist()
        (-0.693, [[[0.25]]])
    """
    n, columns = logits.shape
    labels = np.asarray(labels)
    given = labels.reshape(-1)
    classes = max(columns, 2)
    whole = given.dtype.kind in "biu" or np.all(given == np.round(given))
    if len(given) != n or not whole or given.min() < 0 or given.max() >= classes:
        raise ValueError(
            f"y must hold one class index from 0 to {classes - 1} for each of the {n} "
            f"examples. Received: y.shape={labels.shape}"
        )
    given = given.astype(int)
    if columns == 1:
        sign = np.where(given == 1, 1.0, -1.0)
        p = 1 / (1 + np.exp(-logits[:, 0]))
        total = -np.logaddexp(0.0, -sign * logits[:, 0]).sum()
        return float(total), (p * (1 - p))[:, None, None]
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    p = np.exp(logs)
    curvature = p[:, :, None] * np.eye(columns) - p[:, :, None] * p[:, None, :]
    return float(logs[np.arange(n), given].sum()), curvature
