"""Make every vector anew: runs each make_<topic>.py, or those named."""

import subprocess
import sys
from pathlib import Path

here = Path(__file__).parent
wanted = sys.argv[1:]
scripts = [
    path
    for path in sorted(here.glob("make_*.py"))
    if path.name != Path(__file__).name
    and (not wanted or path.stem.removeprefix("make_") in wanted)
]
if not scripts:
    sys.exit(f"no make_<topic>.py for {wanted}")
for path in scripts:
    subprocess.run([sys.executable, path], check=True)
    print(path.with_name(path.stem.removeprefix("make_") + ".npz").name, "made")
