"""The committed record of a benchmark: results, what ran, and what was measured.

Command, versions, machine and day, and a hash of every definition that was measured
(``benchmarks/sources.py``), by which the site marks a result when one has changed.
"""

import contextlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import common, sources

RESULTS = Path(__file__).resolve().parent / "results"


def machine(used="one thread used"):
    """One line about the processor."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, {used}"


def command(topic):
    """The command line, with interpreters of other environments as ``python``."""
    arguments = ["python" if os.path.isabs(a) else a for a in sys.argv[1:]]
    return " ".join(["python", "-m", f"benchmarks.{topic}", *arguments])


def kept(topic, modules, part="rows"):
    """What an earlier run measured, if the code that it measured is still the same.

    Args:
        topic: String, the name of the benchmark.
        modules: As of :func:`save`.
        part: String, ``"rows"`` or ``"runs"``.

    Returns:
        List of dicts, empty where there is nothing to keep.
    """
    path = RESULTS / f"{topic}.json"
    if not path.exists():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    changed = sources.changed(record["definitions"], sources.definitions(modules))
    if changed:
        print(f"changed, so beginning anew: {', '.join(changed)}")
        return []
    return record[part]


def save(topic, rows, modules, peers=None, runs=None, used="one thread used"):
    """Write ``benchmarks/results/<topic>.json`` and print where.

    Args:
        topic: String, the name of the benchmark.
        rows: List of dicts, what :func:`benchmarks.common.table` prints.
        modules: Dotted names of the modules that were run, in whichever process. The
            definitions that they reach are what was measured; the site marks the
            result when one of them has changed since.
        peers: Dict of name to versions, of the peers that ran in other processes.
        runs: List of dicts, each run that the rows sum up, or None.
        used: String, what of the machine was used, and by what it was timed if not in
            CPU seconds.
    """
    record = {
        "command": command(topic),
        "versions": common.versions(),
        "peers": peers or {},
        "machine": machine(used),
        "date": datetime.now(UTC).date().isoformat(),
        "sources": modules,
        "definitions": sources.definitions(modules),
        "rows": rows,
        **({} if runs is None else {"runs": runs}),
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{topic}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(common.ROOT)}")
