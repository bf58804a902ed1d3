"""The ledger of a CI run: minutes, counts, the slowest, what is above budget.

Fails when an environment failed, when a test was skipped that is not allowed to
be, or when something that should have run left no result. Closes with one line:
``N passed, N failed, N skipped``.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ENVIRONMENTS = ("lint", "tests", "tests-jax", "tests-torch", "docs", "site")
NO_TESTS_OF_ITS_OWN = ("lint", "docs")
SCRIPT_BUDGET = {"mean": 12, "each": 30}  # CPU seconds
MINUTES = 60


def cases(path):
    """(name, seconds, state, reason) of every test in a JUnit file."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        state, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error"):
                state, reason = "failed", child.get("message") or ""
            elif child.tag == "skipped":
                state, reason = "skipped", child.get("message") or ""
        yield name, float(case.get("time") or 0), state, reason


def allowed_skips(path):
    rows = [line.split("|") for line in path.read_text().splitlines()]
    return {(r[0].strip(), r[1].strip()) for r in rows if len(r) == 2}


def main(out):
    out = Path(out)
    allowed = allowed_skips(Path(__file__).with_name("allowed_skips.txt"))
    ended = {
        name: (int(code), int(seconds))
        for name, code, seconds in (
            line.split() for line in (out / "environments.txt").read_text().splitlines()
        )
    }
    total = {"passed": 0, "failed": 0, "skipped": 0}
    faults, notes = [], []

    print("\nLedger\n------")
    print(f"{'environment':13s} {'minutes':>7s} {'passed':>7s} {'failed':>7s} skipped")
    slowest = {}
    for name in ENVIRONMENTS:
        code, seconds = ended.get(name, (None, 0))
        found = []
        report = out / f"{name}.xml"
        if name not in NO_TESTS_OF_ITS_OWN:
            if report.exists():
                found = list(cases(report))
            if not found:
                faults.append(f"{name}: no test ran")
        if name == "docs":
            found = scripts(faults, notes)
        count = dict.fromkeys(total, 0)
        for case, _, state, reason in found:
            count[state] += 1
            if state == "failed":
                faults.append(f"{name}: {case} failed")
            if state == "skipped" and (name, reason) not in allowed:
                faults.append(f"{name}: {case} was skipped: {reason}")
        for state in total:
            total[state] += count[state]
        slowest[name] = sorted(found, key=lambda c: -c[1])[:10]
        if code is None:
            faults.append(f"{name}: did not run")
        elif code:
            faults.append(f"{name}: ended with exit code {code}")
            # a crash outside any test must not read as nothing failed
            total["failed"] += count["failed"] == 0
        print(
            f"{name:13s} {seconds / 60:7.1f} {count['passed']:7d} "
            f"{count['failed']:7d} {count['skipped']:7d}"
        )
    for name, rows in slowest.items():
        if rows:
            print(f"\nslowest of {name}, seconds")
            for case, seconds, _, _ in rows:
                print(f"  {seconds:7.1f}  {case}")
    minutes = sum(seconds for _, seconds in ended.values()) / 60
    if minutes > MINUTES:
        notes.append(f"the run took {minutes:.0f} minutes, more than {MINUTES}")
    print(f"\n{minutes:.1f} minutes in all")
    for note in notes:
        print("above budget:", note)
    for fault in faults:
        print("FAULT", fault)
    print(
        f"\n{total['passed']} passed, {total['failed']} failed, "
        f"{total['skipped']} skipped"
    )
    return 1 if faults else 0


def scripts(faults, notes):
    """The gallery scripts as tests, from what the build of the site wrote."""
    path = Path("docs/_build/ledger.json")
    if not path.exists():
        faults.append("docs: the build left no ledger")
        return []
    ledger = json.loads(path.read_text())
    rows = [
        (name, row["cpu_seconds"] or 0.0, "failed" if row["failed"] else "passed", "")
        for name, row in ledger["scripts"].items()
        if row["executed"]
    ]
    if not rows:
        faults.append("docs: no script ran")
        return rows
    mean = sum(row[1] for row in rows) / len(rows)
    if mean > SCRIPT_BUDGET["mean"]:
        notes.append(f"a script takes {mean:.1f} CPU seconds on average")
    for name, seconds, _, _ in rows:
        if seconds > SCRIPT_BUDGET["each"]:
            notes.append(f"{name} takes {seconds:.1f} CPU seconds")
    left_out = set(ledger["scripts"]) - {row[0] for row in rows}
    for name in sorted(left_out):
        faults.append(f"docs: {name} was not executed")
    if ledger["gallery_pages"] < len(ledger["scripts"]):
        faults.append(
            f"docs: {ledger['gallery_pages']} pages, {len(ledger['scripts'])} scripts"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
