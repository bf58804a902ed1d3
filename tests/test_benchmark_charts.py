"""Tests of the verdicts and bars of the benchmarks: docs/_ext/benchmark_charts.py."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
ROWS = [
    {"task": "A", "contender": "SB3", "CPU s / SB3": 1.0},
    {"task": "A", "contender": "JAX", "CPU s / SB3": 0.25},
    {"task": "A", "contender": "PyTorch", "CPU s / SB3": 2.0},
    {"task": "B", "contender": "SB3", "CPU s / SB3": 1},
    {"task": "B", "contender": "JAX", "CPU s / SB3": 0.5},
    {"task": "B", "contender": "PyTorch", "CPU s / SB3": 12.0},
    {"task": "C", "contender": "JAX", "CPU s / SB3": "-"},
]
AGENTS = ("reinforcement", {"rows": ROWS})

pytestmark = pytest.mark.once


@pytest.fixture
def charts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import benchmark_charts

    return benchmark_charts


def test_the_sentence_is_made_of_the_numbers(charts):
    assert charts.verdict(*AGENTS) == (
        "The cheapest of ours (JAX) takes 0.25 to 0.50 times the CPU time of "
        "Stable-Baselines3 to the same return, over 2 tasks; the dearest (PyTorch) 2.0 "
        "to 12 times."
    )
    assert charts.strength(*AGENTS) == pytest.approx((0.25 * 0.5) ** 0.5)


def test_a_row_has_a_bar_if_it_has_a_ratio(charts):
    bars = charts.bars(*AGENTS)
    assert [(b.group, b.label, b.ratio, b.ours) for b in bars[:3]] == [
        ("A", "SB3", 1.0, False),
        ("A", "JAX", 0.25, True),
        ("A", "PyTorch", 2.0, True),
    ]
    assert len(bars) == 6


def test_a_bar_lies_between_one_and_its_ratio(charts):
    row = {"contender": "DenseFlipout", "to tfp.layers": "0.5 (0.25-1.0)"}
    drawn = charts.chart("bayesian_layers", {"rows": [row]})
    low, high = -1.386 - 0.05, 0.05  # logarithms of 0.25 and 1, and a margin
    left = 100 * (-0.693 - low) / (high - low)
    one = 100 * (0 - low) / (high - low)
    assert f'class="fill" style="left:{left:.1f}%;width:{one - left:.1f}%"' in drawn
    assert f'class="one" style="left:{one:.1f}%"' in drawn
    assert '<span class="value">0.50</span>' in drawn


def test_ours_counts_where_it_plays_as_well(charts):
    peer = {"player": "OpenSpiel, 10,000 rollouts", "training": None}
    rows = [
        {"player": "weak", "training": "yes", "value kept": 0.7, "CPU ms a move": 1},
        {"player": "good", "training": "yes", "value kept": 0.9, "CPU ms a move": 2},
        {**peer, "value kept": 0.9, "CPU ms a move": 8},
    ]
    assert charts.verdict("alphazero", {"rows": rows}).startswith(
        "Ours (AlphaZero, good, 90.0% of values kept) takes 0.25 times"
    )


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_committed_result_has_a_verdict_and_a_chart(charts, path):
    data = json.loads(path.read_text(encoding="utf-8"))
    bars = charts.bars(path.stem, data)
    assert any(bar.ours for bar in bars)
    assert all(0 < b.low <= b.ratio * 1.001 <= 1.002 * b.high for b in bars)
    assert charts.verdict(path.stem, data).endswith(".")
    assert charts.chart(path.stem, data).count('class="one"') == len(bars)


def test_a_result_that_is_not_known_says_nothing(charts):
    assert charts.verdict("unknown", {"rows": ROWS}) == ""
    assert charts.chart("unknown", {"rows": ROWS}) == ""
    assert charts.strength("unknown", {"rows": ROWS}) == float("inf")


@pytest.mark.parametrize(
    "ratio, text",
    [(0.068, "0.068"), (0.4, "0.40"), (0.998, "1.00"), (1.03, "1.03"), (2.86, "2.9"),
     (84.98, "85")],
)  # fmt: skip
def test_digits(charts, ratio, text):
    assert charts.digits(ratio) == text
