"""Tests of what a benchmark's record says about its sources."""

import importlib.util
import json

import pytest
from source_files import ROOT

pytestmark = pytest.mark.once

spec = importlib.util.spec_from_file_location("common", ROOT / "benchmarks/common.py")
common = importlib.util.module_from_spec(spec)
spec.loader.exec_module(common)

SOURCE = '''"""A module."""


def double(x):
    """Twice {what}."""
    return {factor} * x
'''


def test_the_hash_is_of_the_code(tmp_path):
    path = tmp_path / "source.py"
    hashes = []
    for what, factor in (("x", 2), ("what was given,\n\n    x", 2), ("x", 3)):
        path.write_text(SOURCE.format(what=what, factor=factor))
        hashes.append(common.digest(path))
    assert hashes[0] == hashes[1] != hashes[2]
    assert common.digest(tmp_path / "none.py") is None


def test_every_result_says_what_it_measured():
    results = sorted(common.RESULTS.glob("*.json"))
    assert len(results) >= 10
    for path in results:
        sources = json.loads(path.read_text(encoding="utf-8"))["sources"]
        assert sources and all(len(h) == 64 for h in sources.values()), path
