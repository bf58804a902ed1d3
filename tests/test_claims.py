"""Tests of dlcompanion.claims."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlcompanion import claims
from dlcompanion.claims import RECORD, claim

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.once


@pytest.fixture
def record(tmp_path, monkeypatch):
    path = tmp_path / "claims.jsonl"
    monkeypatch.setenv(RECORD, str(path))
    return path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("value", "comparison", "bound"),
    [(1, "<", 2), (2, "<=", 2), (3, ">", 2), (2, ">=", 2), (2.0, "==", 2)],
)
def test_what_holds_returns_its_value(value, comparison, bound):
    assert claim("two and another", value, comparison, bound) == value


@pytest.mark.parametrize(
    ("value", "comparison", "bound"),
    [(2, "<", 2), (3, "<=", 2), (2, ">", 2), (1, ">=", 2), (1, "==", 2)],
)
def test_what_is_false_says_so_and_goes_on(record, capsys, value, comparison, bound):
    assert claim("two and another", value, comparison, bound) == value
    assert capsys.readouterr().out.startswith("FALSE   two and another")
    assert rows(record)[0]["holds"] is False


@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">=", "=="])
@pytest.mark.parametrize(
    ("value", "bound"), [(math.nan, 1.0), (1.0, math.nan), (math.nan, math.nan)]
)
def test_nan_on_either_side_is_false(record, comparison, value, bound):
    claim("nothing is known", value, comparison, bound)
    assert rows(record)[0]["holds"] is False


@pytest.mark.parametrize("second, code", [("<", 0), (">", 1)])
def test_a_script_reports_all_its_claims_and_fails_at_its_end(tmp_path, second, code):
    script = tmp_path / "script.py"
    script.write_text(
        "from dlcompanion.claims import claim\n"
        f"claim('the first', 1, '{second}', 2)\nclaim('the second', 1, '<', 2)\n"
        "print('all is said')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True
    )
    assert run.returncode == code
    assert "the second" in run.stdout and run.stdout.endswith("all is said\n")
    assert ("1 false: the first" in run.stderr) == bool(code)


def test_the_lines_of_a_script_are_aligned(capsys):
    claim("short", 0.123456, "<", 1)
    claim("a longer one", 12, ">", 3, unit="nats", seeds=5)
    first, second = capsys.readouterr().out.splitlines()
    assert first.index("0.1235 < 1") == second.index("12 > 3 nats  (5 seeds)")


def test_a_long_text_goes_on_in_its_column(capsys):
    claim("short", 1, "<", 2)
    text = "test loss of Lookahead(Adam) to that of Adam, rate 0.1, median of five"
    claim(text, 3, "<", 4, seeds=5)
    claim("x" * 55, 5, "<", 6)
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    column = first.index("1 < 2")
    assert second == "holds   test loss of Lookahead(Adam) to that of Adam, rate 0.1,"
    assert third == f"{'        median of five':{column}s}3 < 4  (5 seeds)"
    assert fourth.index("5 < 6") == column


def test_records_what_held_and_what_did_not(record):
    claim("it holds", 0.5, "<", 1, unit="bits", seeds=3)
    claim("it does not", math.inf, "<", 1)
    good, bad = rows(record)
    assert good["holds"] is True and bad["holds"] is False
    assert (good["value"], good["comparison"], good["bound"]) == (0.5, "<", 1.0)
    assert (good["unit"], good["seeds"]) == ("bits", 3)
    assert good["script"] == "test_claims"
    assert good["seconds"] > 0
    assert bad["value"] == "inf"


def test_numbers_of_any_library_are_numbers(record):
    import keras
    import numpy as np

    claim("a NumPy scalar", np.float32(0.5), "<", np.int64(1))
    claim("a tensor", keras.ops.convert_to_tensor(0.5), "==", 0.5)
    assert [row["value"] for row in rows(record)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (("", 1, "<", 2), "A claim needs a text"),
        ((None, 1, "<", 2), "A claim needs a text"),
        (("text", 1, "!=", 2), "comparison must be one of"),
        (("text", "many", "<", 2), "value must be one number"),
        (("text", [1, 2], "<", 2), "value must be one number"),
        (("text", 1, "<", None), "bound must be one number"),
    ],
)
def test_rejects_what_is_not_a_claim(record, bad, message):
    with pytest.raises(ValueError, match=message):
        claim(*bad)
    assert not record.exists()


@pytest.mark.parametrize("seeds", [0, -1, 2.5])
def test_rejects_impossible_seeds(seeds):
    with pytest.raises(ValueError, match="seeds must be an integer of at least 1"):
        claim("text", 1, "<", 2, seeds=seeds)


# -- seeds ------------------------------------------------------------------------


def test_seeds_are_shifted_as_a_whole(monkeypatch):
    monkeypatch.delenv(claims.SEED_OFFSET, raising=False)
    assert list(claims.seeds(3)) == [0, 1, 2] and claims.seed() == 0
    monkeypatch.setenv(claims.SEED_OFFSET, "7000")
    assert list(claims.seeds(3)) == [7000, 7001, 7002] and claims.seed() == 7000


@pytest.mark.parametrize("given", ["-1", "1.5", "many", ""])
def test_an_offset_that_is_no_integer_is_refused(monkeypatch, given):
    monkeypatch.setenv(claims.SEED_OFFSET, given)
    with pytest.raises(ValueError, match=f"SEED_OFFSET must be.*Received: '{given}'"):
        claims.seeds(3)


@pytest.mark.parametrize("count, offset", [(0, 0), (1.5, 0), (1, -1), (1, "0")])
def test_seeds_refuse_what_is_no_count(count, offset):
    with pytest.raises(ValueError, match="Received: (count|offset)="):
        claims.seeds(count, offset)
