"""Tests of the claims measured on other seeds: docs/remeasure.py and its table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """\
\"\"\"
Name: claim
===========
\"\"\"
import numpy as np

from dlcompanion import claims
from dlcompanion.claims import claim

x = np.random.default_rng(claims.seed()).normal(size=9)
# a comment
claim("the mean", abs(x.mean()), "<", 0.5, unit="nats", seeds=1)
"""

pytestmark = pytest.mark.once


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import elsewhere

    monkeypatch.setattr(elsewhere, "TABLE", tmp_path / "table.json")
    return elsewhere


@pytest.fixture
def remeasure(elsewhere, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.setattr(sys, "argv", ["dlcompanion"])
    import book
    import remeasure

    script = tmp_path / "gallery" / "losses" / "plot_something.py"
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT)
    monkeypatch.setattr(book, "scripts", lambda chapter="*": [script])
    monkeypatch.setitem(elsewhere.WANTED, "tensorflow", 3)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    remeasure.script = script
    return remeasure


def pretend(claimed, code=0, errors=""):
    """A process in place of a script, which claims values below a bound."""
    calls = []

    def run(command, env=None, **kwargs):
        if "git" in command:
            return subprocess.CompletedProcess(command, 0, "abc\n", "")
        calls.append(int(env["DLCOMPANION_SEED_OFFSET"]))
        rows = [
            {"value": v, "comparison": "<", "bound": 1, "holds": v < 1, "seconds": 2.5}
            for v in claimed
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        Path(env["DLCOMPANION_CLAIMS"]).write_text(lines)
        return subprocess.CompletedProcess(command, code, "", errors)

    run.calls = calls
    return run


@pytest.mark.parametrize(
    "old, new",
    [
        ("# a comment", "# another"),
        ('"the mean"', '"the mean of nine numbers"'),
        ('unit="nats", ', ""),
        ("Name: claim", "Name: something else"),
        ("from dlcompanion import claims\n", "import dlcompanion.claims as claims\n"),
    ],
)
def test_prose_leaves_what_was_measured(elsewhere, old, new):
    assert old in SCRIPT
    assert elsewhere._code_digest(SCRIPT.replace(old, new)) == elsewhere._code_digest(
        SCRIPT
    )


@pytest.mark.parametrize(
    "old, new", [("0.5", "0.6"), ('"<"', '"<="'), ("size=9", "size=10"), ("abs", "max")]
)
def test_code_and_bounds_do_not(elsewhere, old, new):
    assert old in SCRIPT
    assert elsewhere._code_digest(SCRIPT.replace(old, new)) != elsewhere._code_digest(
        SCRIPT
    )


def test_other_code_has_other_seeds_none_near_those_of_the_site(elsewhere):
    first = elsewhere.offsets("0123456789abcdef", 8)
    other = elsewhere.offsets("0123456789abcdee", 8)
    assert len(set(first + other)) == 16
    assert min(first + other) >= 10_000
    assert max(first + other) < 2**31 - 1_000
    assert elsewhere.offsets("0123456789abcdef", 3) == first[:3]


def test_runs_what_is_missing_and_goes_on_where_it_was_cut_off(
    remeasure, elsewhere, monkeypatch, capsys
):
    process = pretend([0.5, 1.5], code=1)  # the second is false: no error
    monkeypatch.setattr(subprocess, "run", process)
    wanted = elsewhere.offsets(elsewhere.code_digest(remeasure.script), 3)
    todo = remeasure.missing([remeasure.script], "tensorflow", {})
    assert [offset for _, offset in todo] == wanted
    remeasure.run(*todo[0], "tensorflow", float("inf"))
    assert process.calls == wanted[:1]
    assert remeasure.main([]) == 0
    assert process.calls == wanted
    assert "1 of 2 claims failed, worst 0 of 3" in capsys.readouterr().out
    counts = elsewhere.counts(remeasure.script, table=elsewhere.read_table())
    assert counts == [(3, 3), (0, 3)]
    assert remeasure.main([]) == 0  # nothing left
    assert process.calls == wanted


def test_other_code_starts_without_a_table(remeasure, elsewhere, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pretend([0.5]))
    assert remeasure.main([]) == 0
    table = elsewhere.read_table()
    assert elsewhere.sentence(remeasure.script, table) == (
        "all held on 3 other sets of seeds"
    )
    remeasure.script.write_text(SCRIPT.replace("0.5", "0.4"))
    assert elsewhere.runs(remeasure.script, table) == []
    assert elsewhere.sentence(remeasure.script, table) == (
        "not measured on other seeds since it changed"
    )
    assert elsewhere.sentence(remeasure.script, {}) == "not measured on other seeds yet"


@pytest.mark.parametrize(
    "claimed, code, errors",
    [
        ([], 1, "ModuleNotFoundError: no module named torch"),
        ([0.5], 1, "Traceback (most recent call last):\nTypeError: it broke"),
        ([1.5], 1, "Traceback (most recent call last):\nTypeError: it broke"),
        ([0.5], -11, ""),
        ([0.5], 1, ""),
    ],
)
def test_a_crash_is_an_error_and_leaves_the_table(
    remeasure, elsewhere, monkeypatch, capsys, claimed, code, errors
):
    monkeypatch.setattr(subprocess, "run", pretend(claimed, code, errors))
    assert remeasure.main([]) == 1
    last = errors.splitlines()[-1] if errors else "no message"
    assert last in capsys.readouterr().err
    assert elsewhere.read_table() == {}


def test_a_script_that_is_edited_while_it_runs_does_not_count(
    remeasure, elsewhere, monkeypatch, capsys
):
    process = pretend([0.5])

    def edited(command, **kwargs):
        remeasure.script.write_text(SCRIPT.replace("0.5", "0.4"))
        return process(command, **kwargs)

    monkeypatch.setattr(subprocess, "run", edited)
    job = (remeasure.script, 5_000, "tensorflow", float("inf"))
    (error,) = remeasure.run(*job)
    assert "was changed while it ran" in error
    assert elsewhere.read_table() == {}


def test_no_run_is_started_after_the_time_is_over(remeasure, monkeypatch):
    process = pretend([0.5])
    monkeypatch.setattr(subprocess, "run", process)
    assert remeasure.main(["--minutes", "1e-9"]) == 0
    assert process.calls == []


@pytest.mark.parametrize("text", ["{", "[1]", '{"plot_a": {"code": 1}}', '{"a": 2}'])
def test_a_table_that_was_cut_off_says_so(elsewhere, remeasure, capsys, text):
    elsewhere.TABLE.write_text(text)
    assert remeasure.main([]) == 2
    assert "Remove table.json and measure anew" in capsys.readouterr().err


def test_an_unknown_backend_is_refused(remeasure, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "mxnet")
    assert remeasure.main([]) == 2
    assert "KERAS_BACKEND must be one of" in capsys.readouterr().out


def test_a_name_that_is_not_there_has_neighbors(remeasure, capsys):
    with pytest.raises(SystemExit) as stop:
        remeasure.main(["somethin"])
    assert stop.value.code == 2
    assert "Did you mean: something" in capsys.readouterr().out
