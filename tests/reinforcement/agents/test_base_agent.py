"""Tests of reinforcement.agents.base_agent, with an agent that only draws."""

import numpy as np
import pytest

from dlcompanion.reinforcement.agents.base_agent import BaseAgent


class Drawer(BaseAgent):
    """Adds up random numbers, in a world that is a name."""

    counters = ("rounds",)

    def __init__(self, environment, scale=1.0, seed=None):
        super().__init__(seed, {"scale": scale})
        self.name, self.scale = environment, scale
        self.rounds, self.sums = 0, np.zeros(3)
        self._draws = self.random(1, 0)

    def fit(self, rounds):
        for _ in range(rounds):
            self.sums = self.sums + self.scale * self.random(0, self.rounds).normal(
                size=3
            )
            self.rounds += 1

    def predict(self):
        return self._draws.random()

    def arrays(self):
        return {"sums": self.sums}

    def restore(self, arrays):
        self.sums = arrays["sums"]

    def world_config(self):
        return self.name if self.name != "nameless" else None


class Other(Drawer):
    pass


def test_chance_follows_from_seed_purpose_and_count_alone():
    a, b, c = Drawer("x", seed=1), Drawer("x", seed=1), Drawer("x", seed=2)
    np.random.seed(0)
    first = [a.number(purpose, count) for purpose in range(2) for count in range(2)]
    np.random.seed(1)
    again = [b.number(purpose, count) for purpose in range(2) for count in range(2)]
    assert first == again and len(set(first)) == 4 and c.number(0, 0) not in first
    assert all(0 <= n < 2**32 for n in first)
    assert a.random(0, 3).random() == b.random(0, 3).random() != c.random(0, 3).random()
    assert Drawer("x").seed != Drawer("x").seed
    assert a.config == {"scale": 1.0, "seed": 1}


def test_goes_on_from_a_file(tmp_path):
    whole, part = (Drawer("x", scale=2.0, seed=3) for _ in range(2))
    whole.fit(5)
    part.fit(2)
    drawn = part.predict(), whole.predict()
    part.save(tmp_path / "agent")
    loaded = Drawer.load(tmp_path / "agent")
    assert loaded.name == "x" and loaded.rounds == 2 and drawn[0] == drawn[1]
    loaded.fit(3)
    np.testing.assert_array_equal(loaded.sums, whole.sums)
    assert loaded.predict() == whole.predict()
    assert Drawer.load(tmp_path / "agent", "y").name == "y"


def test_refuses(tmp_path):
    Drawer("nameless", seed=0).save(tmp_path / "agent")
    with pytest.raises(ValueError, match="environment=....*Received: environment=None"):
        Drawer.load(tmp_path / "agent")
    assert Drawer.load(tmp_path / "agent", "y").name == "y"
    with pytest.raises(ValueError, match="Received: Drawer in the file, Other asked"):
        Other.load(tmp_path / "agent", "y")
    for seed in (-1, 0.5, True, "0"):
        with pytest.raises(ValueError, match="Received: seed="):
            Drawer("x", seed=seed)
    for method in (BaseAgent.world_config, BaseAgent.parts_of):
        with pytest.raises(NotImplementedError, match="must define"):
            method(None)
