"""Tests of dlcompanion.reinforcement.environments.grid_world."""

import numpy as np
import pytest

from dlcompanion.reinforcement import FiniteMDP, GridWorld, value_iteration


def test_the_cliff_is_gymnasiums():
    ours, theirs = GridWorld.cliff(), FiniteMDP.of("CliffWalking-v1")
    free = np.isin(ours.cells.ravel(), [".", "S"])
    np.testing.assert_array_equal(ours.transitions[free], theirs.transitions[free])
    paid = ours.transitions * (ours.rewards - theirs.rewards)
    assert not paid[free].any()
    np.testing.assert_array_equal(ours.terminal | ~free, theirs.terminal | ~free)


def test_the_four_by_three_world_has_its_published_values():
    # Russell and Norvig, Artificial Intelligence, 2010, figure 17.3. There a state is
    # worth what it pays itself (-0.04) beside what follows.
    paid = {".": -0.04, "S": -0.04, "G": 1.0, "P": -1.0}
    world = GridWorld("...G\n.#.P\nS...", rewards=paid, slip=0.2)
    values = value_iteration(world, 1.0).values.reshape(3, 4) - 0.04
    published = np.array(
        [[0.812, 0.868, 0.918], [0.762, np.nan, 0.660], [0.705, 0.655, 0.611]]
    )
    open_cells = ~np.isnan(published)
    np.testing.assert_allclose(
        values[:, :3][open_cells], published[open_cells], atol=6e-4
    )
    assert values[2, 3] == pytest.approx(0.388, abs=6e-4)


def test_slipping_walls_and_cliffs():
    world = GridWorld("S.\nCG\nS#", slip=0.3)
    # right of cell 1 is the border, above it too, and below it the goal
    assert world.transitions[1, 1].tolist() == [0, 0.85, 0, 0.15, 0, 0]
    assert world.rewards[1, 1, [1, 3]].tolist() == [-1.0, -1.0]
    # below cell 0 is the cliff: to either start, for its price; slips go to 0 and 1
    np.testing.assert_allclose(world.transitions[0, 2], [0.5, 0.15, 0, 0, 0.35, 0])
    assert world.rewards[0, 2, 4] == -100.0
    # right of cell 4 is a wall, above it the cliff
    np.testing.assert_allclose(
        world.transitions[4, 1], [0.075, 0, 0, 0, 0.7 + 0.15 + 0.075, 0]
    )
    assert world.terminal.tolist() == [False, False, True, True, False, True]
    assert world.start.tolist() == [0.5, 0, 0, 0, 0.5, 0]
    assert GridWorld("S.\n.P").terminal.tolist() == [False, False, False, True]


def test_a_reward_of_several_ways_is_their_mean():
    # against the border one stays with 0.85 + 0 for -1; down is the cliff with 0.15
    world = GridWorld("S.\nCG", slip=0.3)
    stays, falls = 0.7, 0.15
    assert world.transitions[0, 3, 0] == pytest.approx(stays + 0.15 + falls)
    total = -1.0 * (stays + 0.15) - 100.0 * falls
    assert world.expected_rewards[0, 3] == pytest.approx(total)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"rows": []}, r"rows of one length.*Received: rows=\[\]"),
        ({"rows": ["S.", "G"]}, "rows of one length"),
        ({"rows": ["Sx"]}, "letters . S G # C P"),
        ({"rows": [".G"]}, "needs a start, S. Received: rows="),
        ({"rows": ["SG"], "rewards": {"#": 1}}, "Received: rewards="),
        (
            {"rows": ["SG"], "rewards": {"G": np.inf}},
            "finite numbers.*Received: ",
        ),
        ({"rows": ["SG"], "slip": 1.5}, "Received: slip=1.5"),
    ],
)
def test_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(**arguments)
