"""Tests of dlcompanion.uncertainty.evidence."""

import numpy as np
import pytest

from dlcompanion.uncertainty.evidence import classification_data, evidence, tuned

RNG = np.random.default_rng(0)


def test_the_evidence_of_a_line_is_the_density_of_its_targets():
    """Whatever prior and noise: log N(y | 0, noise^2 I + X X' / prior)."""
    x, y, prior, noise = RNG.normal(size=(12, 3)), RNG.normal(size=12), 0.7, 0.4
    precision = prior * np.eye(3) + x.T @ x / noise**2
    theta = np.linalg.solve(precision, x.T @ y) / noise**2
    error = ((y - x @ theta) ** 2).sum()
    fit = -6 * np.log(2 * np.pi * noise**2) - error / (2 * noise**2)
    values = np.linalg.eigvalsh(x.T @ x / noise**2)
    of_y = noise**2 * np.eye(12) + x @ x.T / prior
    expected = np.linalg.slogdet(2 * np.pi * of_y)[1] + y @ np.linalg.solve(of_y, y)
    found = evidence(fit, (theta**2).sum(), values, prior)
    np.testing.assert_allclose(found, -0.5 * expected, rtol=1e-10)


def test_tuning_finds_the_maximum():
    values, squared, count, error = np.array([50.0, 9.0, 0.2]), 2.0, 30, 6.0

    def at(prior, noise):
        fit = -0.5 * count * np.log(2 * np.pi * noise**2) - error / (2 * noise**2)
        return evidence(fit, squared, values / noise**2, prior)

    prior, noise, scaled = tuned(values, squared, count, error)
    np.testing.assert_allclose(scaled, values / noise**2)
    best = at(prior, noise)
    for factor in (0.9, 1.1):
        assert at(prior * factor, noise) < best
        assert at(prior, noise * factor) < best
    assert tuned(values, squared, count, error, prior=3.0)[0] == 3.0
    assert tuned(values, squared, count, error, noise=0.3)[1] == pytest.approx(0.3)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_curvature_is_the_second_derivative(columns):
    logits, labels = RNG.normal(size=(4, columns)), np.array([0, 1, 1, 0])
    total, curvature = classification_data(logits, labels)
    step = 1e-4
    for i in range(columns):
        for j in range(columns):
            second = 0.0
            for si in (1, -1):
                for sj in (1, -1):
                    moved = logits.copy()
                    moved[:, i] += si * step
                    moved[:, j] += sj * step
                    second += si * sj * classification_data(moved, labels)[0]
            second /= 4 * step**2
            np.testing.assert_allclose(-second, curvature[:, i, j].sum(), atol=1e-5)
    assert total < 0


@pytest.mark.parametrize(
    "labels", [[0, 1], [0, 1, 2, 3], [0, 0.5, 1, 1], [-1, 0, 1, 1]]
)
def test_rejects_labels_that_are_no_classes(labels):
    with pytest.raises(ValueError, match="one class index from 0 to 2"):
        classification_data(np.zeros((4, 3)), labels)


def test_rejects_what_has_no_maximum():
    with pytest.raises(ValueError, match="weights of the last layer are 0"):
        tuned(np.ones(2), 0.0, 5, noise=1.0)
    with pytest.raises(ValueError, match="met exactly"):
        tuned(np.ones(2), 1.0, 5, error=0.0)
