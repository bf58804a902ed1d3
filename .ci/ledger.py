"""The ledger of a CI run: minutes, counts, CPU seconds, what is above budget.

Fails when an environment failed, when a test was skipped that is not allowed to
be, or when something that should have run left no result. What passed is recorded in
``.ci/verified.json``, for the next run to build upon: commit the file. Closes with one
line: ``N passed, N failed, N skipped``.
"""

import datetime
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from affected import ITEMS, RECORD

ENVIRONMENTS = ("lint", "tests", "tests-jax", "tests-torch", "docs", "site")
NO_TESTS_OF_ITS_OWN = ("lint", "docs")
RECORDED = ("tests", *ITEMS)
#: CPU seconds of a script, and of the tests of a topic by environment; those of agents
#: may take longer.
SCRIPT_BUDGET = {"mean": 12, "each": 30}
TOPIC_BUDGET = {"tests": 8, "tests-jax": 6, "tests-torch": 6}
AGENT_BUDGET = {"tests": 25}
AGENTS = "reinforcement"
MINUTES = 60


class Case(NamedTuple):
    """One test, or one script of the gallery."""

    name: str
    chapter: str
    seconds: float
    cpu_seconds: float
    state: str
    reason: str


def cases(path):
    """Every test in a JUnit file."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        state, reason, cpu = "passed", "", 0.0
        for child in case.iter():
            if child.tag in ("failure", "error"):
                state, reason = "failed", child.get("message") or ""
            elif child.tag == "skipped":
                state, reason = "skipped", child.get("message") or ""
            elif child.tag == "property" and child.get("name") == "cpu_seconds":
                cpu = float(child.get("value"))
        place = case.get("classname")
        yield Case(
            f"{place}::{case.get('name')}",
            chapter_of(place),
            float(case.get("time") or 0),
            cpu,
            state,
            reason,
        )


def chapter_of(place):
    """The chapter of ``tests.<chapter>...`` or ``dlcompanion.<chapter>...``."""
    parts = place.split(".")  # an installed package stands in .tox/tests/lib/...
    root = "dlcompanion" if "dlcompanion" in parts else "tests"
    inner = parts[parts.index(root) + 1 :] if root in parts else []
    return inner[0] if inner and Path("gallery", inner[0]).is_dir() else "all chapters"


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
    selection = json.loads((out / "selection.json").read_text(encoding="utf-8"))
    total = {"passed": 0, "failed": 0, "skipped": 0}
    faults, notes, counts = [], [], {}

    print("\nLedger\n------")
    print(f"{'environment':13s} {'minutes':>7s} {'passed':>7s} {'failed':>7s} skipped")
    everything = {}
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
        for case in found:
            count[case.state] += 1
            if case.state == "failed":
                faults.append(f"{name}: {case.name} failed")
            if case.state == "skipped" and (name, case.reason) not in allowed:
                faults.append(f"{name}: {case.name} was skipped: {case.reason}")
        for state in total:
            total[state] += count[state]
        everything[name], counts[name] = found, count
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
    for name, found in everything.items():
        if found:
            print(f"\nslowest of {name}, seconds")
            for case in sorted(found, key=lambda case: -case.seconds)[:10]:
                print(f"  {case.seconds:7.1f}  {case.name}")
    by_chapter(everything, notes)
    print()
    for name, chosen in selection["environments"].items():
        print(f"{name}: {chosen['why']}")
        for item in chosen["left_out"]:
            print(f"  left out: {item}")
    minutes = ended["all"][1] / 60  # environments run side by side
    if minutes > MINUTES:
        notes.append(f"the run took {minutes:.0f} minutes, more than {MINUTES}")
    print(f"\n{minutes:.1f} minutes in all")
    for note in notes:
        print("above budget:", note)
    for fault in faults:
        print("FAULT", fault)
    record(selection, counts, faults)
    print(
        f"\n{total['passed']} passed, {total['failed']} failed, "
        f"{total['skipped']} skipped"
    )
    return 1 if faults else 0


def by_chapter(everything, notes):
    """Print CPU seconds by chapter, and note which tests of a topic are too dear."""
    names = [
        name for name in everything if any(c.cpu_seconds for c in everything[name])
    ]
    spent = {}
    for name in names:
        for case in everything[name]:
            row = spent.setdefault(case.chapter, dict.fromkeys(names, 0.0))
            row[name] += case.cpu_seconds
    print(f"\nCPU seconds{' ':5s}" + "".join(f"{name:>12s}" for name in names))
    for chapter, row in sorted(spent.items()):
        print(f"{chapter:16s}" + "".join(f"{row[name]:12.0f}" for name in names))
    for chapter, row in sorted(spent.items()):
        topics = len(list(Path("gallery", chapter).glob("plot_*.py")))
        for name in set(names) & set(TOPIC_BUDGET) if topics else ():
            budget = TOPIC_BUDGET[name]
            if chapter == AGENTS:
                budget = AGENT_BUDGET.get(name, budget)
            if row[name] > budget * topics:
                files = {}
                for case in everything[name]:
                    if case.chapter == chapter:
                        place = case.name.partition("::")[0]
                        files[place] = files.get(place, 0) + case.cpu_seconds
                dear = sorted(files.items(), key=lambda item: -item[1])[:5]
                notes.append(
                    f"{name}: the tests of a topic of {chapter} take "
                    f"{row[name] / topics:.1f} CPU seconds on average, more than "
                    f"{budget}: " + ", ".join(f"{p} {s:.0f}" for p, s in dear)
                )


def record(selection, counts, faults):
    """Write down what passed, for each environment, at the commit that was tested."""
    if selection["changed"]:
        print(f"\n{RECORD} is left as it is: changed, {selection['changed'][0]}")
        return
    path = Path(RECORD)
    try:
        verified = json.loads(path.read_text(encoding="utf-8"))
        verified = {name: verified[name] for name in RECORDED if name in verified}
    except (OSError, ValueError, TypeError):
        verified = {}
    for name in RECORDED:
        parts = ("docs", "site") if name == "docs" else (name,)
        if any(fault.startswith(f"{part}:") for fault in faults for part in parts):
            continue
        chosen = selection["environments"].get(name, {"left_out": []})
        verified[name] = {
            "commit": selection["commit"],
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            **counts[name],
            "files_left_out": len(chosen["left_out"]),
        }
    path.write_text(json.dumps(verified, indent=1) + "\n", encoding="utf-8")
    print(f"\n{RECORD} names what passed: commit it")


def scripts(faults, notes):
    """The gallery scripts as tests, from what the build of the site wrote."""
    path = Path("docs/_build/ledger.json")
    if not path.exists():
        faults.append("docs: the build left no ledger")
        return []
    ledger = json.loads(path.read_text())
    rows = [
        Case(
            name,
            row["chapter"],
            row["cpu_seconds"] or 0.0,
            row["cpu_seconds"] or 0.0,
            "failed" if row["failed"] else "passed",
            "",
        )
        for name, row in ledger["scripts"].items()
        if row["executed"]
    ]
    if not rows:
        faults.append("docs: no script ran")
        return rows
    mean = sum(row.cpu_seconds for row in rows) / len(rows)
    if mean > SCRIPT_BUDGET["mean"]:
        notes.append(f"a script takes {mean:.1f} CPU seconds on average")
    for row in rows:
        if row.cpu_seconds > SCRIPT_BUDGET["each"]:
            notes.append(f"{row.name} takes {row.cpu_seconds:.1f} CPU seconds")
    for name, row in sorted(ledger["scripts"].items()):
        if row["chosen"] and not row["executed"]:
            faults.append(f"docs: {name} was not executed")
    if ledger["gallery_pages"] < len(ledger["scripts"]):
        faults.append(
            f"docs: {ledger['gallery_pages']} pages, {len(ledger['scripts'])} scripts"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
