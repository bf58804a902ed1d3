"""Tests of dlcompanion.reinforcement.categorical_returns."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from dlcompanion.reinforcement import categorical_projection
from dlcompanion.reinforcement.categorical_returns import check_support

FILE = Path(__file__).parents[1] / "references/categorical_returns.npz"


@pytest.fixture(scope="module")
def rlax():
    with np.load(FILE) as file:
        return {name: file[name] for name in file.files}


def project(values, probabilities, support):
    return ops.convert_to_numpy(categorical_projection(values, probabilities, support))


@pytest.mark.parametrize("grid", ["even", "uneven"])
def test_equals_rlax(rlax, grid):
    got = project(
        rlax["in/values"], rlax["in/probabilities"], rlax[f"in/{grid}/support"]
    )
    np.testing.assert_allclose(got, rlax[f"out/{grid}/projected"], rtol=1e-5, atol=1e-6)


def random_distributions(scale, n=9, batch=50):
    rng = np.random.default_rng(0)
    values = rng.uniform(-scale, scale, size=(batch, n)).astype("float32")
    return values, rng.dirichlet(np.ones(n), size=batch).astype("float32")


def test_keeps_all_mass_and_inside_the_grid_the_mean():
    support = np.array([-3.0, -1.0, -0.5, 0.0, 2.0, 3.0], "float32")
    q = project(*random_distributions(9.0), support)
    assert q.min() >= 0
    np.testing.assert_allclose(q.sum(axis=1), 1.0, rtol=1e-5)
    values, p = random_distributions(3.0)
    q = project(values, p, support)
    np.testing.assert_allclose(q @ support, (p * values).sum(1), rtol=1e-4, atol=1e-5)


def test_leaves_what_is_on_the_grid():
    support = np.linspace(-1, 1, 9, dtype="float32")
    _, p = random_distributions(1.0)
    np.testing.assert_allclose(
        project(np.tile(support, (50, 1)), p, support), p, atol=1e-6
    )


@pytest.mark.parametrize("bad", [[1.0], [0.0, 0.0], [2.0, 1.0], [[0.0, 1.0]]])
def test_rejects(bad):
    with pytest.raises(ValueError, match="support must be increasing.*Received: supp"):
        check_support(bad)
    with pytest.raises(ValueError, match="support must be increasing"):
        categorical_projection([[0.0]], [[1.0]], bad)
