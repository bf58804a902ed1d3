"""Measure the claims again, on seeds that had no part in choosing settings and bounds.

    python docs/remeasure.py                    all scripts, on TensorFlow
    python docs/remeasure.py lookahead losses   these topics or chapters
    python docs/remeasure.py --list             what there is and what is missing
    KERAS_BACKEND=jax python docs/remeasure.py  on another backend

Each script runs on eight other sets of seeds on TensorFlow, and on one on JAX and on
PyTorch. What was measured goes into docs/claims_elsewhere.json after every run, so that
a table that was cut off half way goes on where it ended. A claim that is false is no
error here: the site says on how many it held.
"""

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS), str(DOCS.parent)]
# to this file the package is the catalogue: like its command line it goes without Keras
sys.argv[0] = "dlcompanion"

import book  # noqa: E402
import build  # noqa: E402
import elsewhere  # noqa: E402

import dlcompanion  # noqa: E402

writing = threading.Lock()


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="remeasure.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="topics or chapters")
    parser.add_argument("--list", action="store_true", help="run nothing, say what is")
    parser.add_argument("--jobs", type=int, default=1, help="scripts at a time")
    parser.add_argument(
        "--minutes", type=float, help="start no run after so many minutes"
    )
    options = parser.parse_args(arguments)
    scripts = build.select(options.names) if options.names else book.scripts()
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend not in elsewhere.WANTED:
        known = ", ".join(elsewhere.WANTED)
        print(f"KERAS_BACKEND must be one of {known}. Received: {backend!r}")
        return 2
    try:
        table = elsewhere.read_table()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    todo = missing(scripts, backend, table)
    if options.list:
        report(scripts, table)
        print(f"{len(todo)} runs are missing on {elsewhere.NAMES[backend]}")
        return 0
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    failed = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for line in pool.map(lambda job: run(*job, backend, end), todo):
            failed += line
    for line in failed:
        print(f"ERROR   {line}", file=sys.stderr)
    report(scripts, elsewhere.read_table())
    return 1 if failed else 0


def missing(scripts, backend, table):
    """(script, offset) of the runs to make, the first of every script first."""
    jobs = []
    for script in scripts:
        runs = elsewhere.runs(script, table)
        done = [run["offset"] for run in runs if run["backend"] == backend]
        digest = elsewhere.code_digest(script)
        wanted = elsewhere.offsets(digest, elsewhere.WANTED[backend])
        todo = [offset for offset in wanted if offset not in done]
        jobs += [(len(wanted) - len(todo) + i, script, o) for i, o in enumerate(todo)]
    return [job[1:] for job in sorted(jobs, key=lambda job: job[0])]


def run(script, offset, backend, end):
    """Run a script on other seeds and add what it claimed to the table."""
    if time.monotonic() > end:
        return []
    code = elsewhere.code_digest(script)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "claims.jsonl"
        environment = {
            **os.environ,
            "DLCOMPANION_SEED_OFFSET": str(offset),
            "DLCOMPANION_CLAIMS": str(record),
            "MPLBACKEND": "agg",
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(book.ROOT), os.environ.get("PYTHONPATH")])
            ),
        }
        done = subprocess.run(
            [sys.executable, str(script)],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        rows = record.read_text().splitlines() if record.exists() else []
    claims = [json.loads(row) for row in rows]
    about = f"{script.stem:40s} {offset:10d}"
    if crashed(done, claims):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{about}  failed", flush=True)
        return [f"{script.stem} at offset {offset} on {backend}: {last}"]
    held = sum(claim["holds"] for claim in claims)
    print(f"{about}  {held} of {len(claims)} hold", flush=True)
    row = {
        "backend": backend,
        "offset": offset,
        "seconds": claims[-1]["seconds"],
        "version": version_of_package(),
        "keras": version("keras"),
        "claims": [
            [c["value"], c["comparison"], c["bound"], c["holds"]] for c in claims
        ],
    }
    if elsewhere.code_digest(script) != code:
        return [f"{script.stem} was changed while it ran: its run does not count"]
    with writing:
        add(script, row)
    return []


def crashed(done, claims):
    """Whether a script did not come to its end; false claims alone are no crash."""
    if done.returncode not in (0, 1) or not claims:
        return True
    # at its end a script with a false claim has code 1, and says nothing but that
    false = not all(claim["holds"] for claim in claims)
    return "Traceback (most" in done.stderr or (done.returncode == 1 and not false)


def version_of_package():
    """The package's version and the commit, with a mark if code differs from it."""
    git = ["git", "-C", str(book.ROOT)]
    try:
        named = subprocess.run(
            [*git, "describe", "--always"], capture_output=True, text=True
        )
        code = [*git, "diff", "--quiet", "HEAD", "--", "dlcompanion", "gallery"]
        changed = subprocess.run(code, capture_output=True, text=True).returncode
        commit = named.stdout.strip() + ("+changes" if changed else "")
    except FileNotFoundError:
        commit = ""
    return f"{dlcompanion.__version__} {commit}".strip()


def add(script, row):
    """Write the table with one more run, whole or not at all."""
    table = elsewhere.read_table()
    code = elsewhere.code_digest(script)
    entry = table.get(script.stem)
    if entry is None or entry["code"] != code:
        entry = {"code": code, "runs": []}
    order = list(elsewhere.WANTED)
    entry["runs"] = sorted(
        [*entry["runs"], row], key=lambda r: (order.index(r["backend"]), r["offset"])
    )
    table[script.stem] = entry
    text = "{\n" + ",\n".join(
        f' "{name}": {{"code": "{entry["code"]}", "runs": [\n  '
        + ",\n  ".join(json.dumps(run) for run in entry["runs"])
        + "\n ]}"
        for name, entry in sorted(table.items())
    )
    part = elsewhere.TABLE.with_suffix(".part")
    part.write_text(text + "\n}\n", encoding="utf-8")
    part.replace(elsewhere.TABLE)


def report(scripts, table):
    """One line a script: on how many other sets of seeds its claims held."""
    for script in scripts:
        counts = elsewhere.counts(script, table=table)
        worst = min((c.held for c in counts), default=0)
        number = counts[0].runs if counts else 0
        state = f"all claims held on {number} of {number}" if number else "no runs"
        if worst < number:
            broken = sum(c.held < c.runs for c in counts)
            state = (
                f"{broken} of {len(counts)} claims failed, worst {worst} of {number}"
            )
        if elsewhere.is_outdated(script, table):
            state = "measured with other code"
        also = ", ".join(elsewhere.backends(script, table))
        print(f"{script.stem:40s} {state:45s} {also}")


if __name__ == "__main__":
    sys.exit(main())
