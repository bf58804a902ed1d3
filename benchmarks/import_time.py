"""What ``import dlcompanion`` costs beyond ``import keras``.

    python -m benchmarks.import_time [--repeats 11]

Each import happens in a process of its own, which prints its CPU seconds at the end:
an interpreter that imports nothing, one that imports Keras, one that imports
dlcompanion, and the command line, in turn. The backend is the one of KERAS_BACKEND,
TensorFlow by default. The goal is a ratio of at most 1.15.
"""

import argparse
import os
import subprocess
import sys

from benchmarks import common, record

common.one_thread()

# the package itself; not the chapters that it imports, which would be all of its code
SOURCES = ["benchmarks.import_time", "dlcompanion", "dlcompanion.__main__"]
STATEMENTS = {
    "nothing": "",
    "import keras": "import keras",
    "import dlcompanion": "import dlcompanion",
    "python -m dlcompanion show lookahead": (
        "sys.argv = ['dlcompanion', 'show', 'lookahead']\n"
        "from dlcompanion.__main__ import main\n"
        "main()"
    ),
}


def cpu_seconds(statement):
    """CPU seconds of a fresh interpreter that runs one statement."""
    code = (
        f"import sys, time\n{statement}\nprint(time.process_time(), len(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(common.ROOT)},
    )
    seconds, modules = done.stdout.splitlines()[-1].split()
    return float(seconds), int(modules)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    modules = {n: cpu_seconds(s)[1] for n, s in STATEMENTS.items()}  # fills __pycache__
    seconds = {n: [] for n in STATEMENTS}
    for _ in range(repeats):
        for n, statement in STATEMENTS.items():
            seconds[n].append(cpu_seconds(statement)[0])
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    rows = []
    for n, values in seconds.items():
        found = common.summary(values)
        ratio = common.ratio(values, seconds["import keras"])
        text = f"{ratio['median']:.3f} ({ratio['min']:.3f}-{ratio['max']:.3f})"
        rows.append(
            {
                "statement": n,
                "backend": backend,
                "CPU s": round(found["median"], 3),
                "spread": round(found["spread"], 3),
                "least": round(found["min"], 3),
                "modules": modules[n],
                "to import keras": text,
            }
        )
    common.table(rows)
    least = min(seconds["import dlcompanion"]) / min(seconds["import keras"])
    print(f"ratio of the least times {least:.3f}, goal 1.15, {repeats} repeats")
    suffix = "" if backend == "tensorflow" else f"_{backend}"
    record.save(f"import_time{suffix}", rows, SOURCES)


if __name__ == "__main__":
    main()
