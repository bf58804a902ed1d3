"""Run benchmarks: ``python -m benchmarks [TOPIC ...] [-- what each is to be told]``.

Without a topic all run, one after the other. What stands behind ``--`` is passed on
to each, for example the interpreters of environments of their own for the peers.
"""

import difflib
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NOT_ALONE = ("__main__", "__init__", "common", "record", "sources")
TOPICS = sorted(
    path.stem
    for path in HERE.glob("*.py")
    if path.stem not in NOT_ALONE and not path.stem.endswith("_peer")
)


def main(arguments):
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, passed_on = arguments[:cut] or TOPICS, arguments[cut + 1 :]
    for name in chosen:
        if name not in TOPICS:
            near = difflib.get_close_matches(name, TOPICS, cutoff=0.4) or TOPICS
            sys.exit(f"No benchmark {name!r}. Did you mean: {', '.join(near)}?")
    failed = [
        name
        for name in chosen
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *passed_on]
        ).returncode
    ]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
