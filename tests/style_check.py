"""Ruff, for tests of code that the repository writes or shows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def passes_lint(folder):
    """Assert that ruff finds nothing in a folder that has a pyproject.toml."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ruff = shutil.which("ruff", path=places)
    assert ruff, "the dependency group test installs ruff"
    for command in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run(
            [ruff, *command], cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
