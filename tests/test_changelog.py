"""Tests of changelog.d: one file a change, which towncrier can sort and join."""

import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
FRAGMENTS = sorted(set(ROOT.glob("changelog.d/*")) - {ROOT / "changelog.d/README.md"})


def kinds():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    return [kind["directory"] for kind in settings["towncrier"]["type"]]


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_one_sentence_of_a_known_kind(path):
    assert re.fullmatch(rf"[a-z][a-z0-9_]*\.({'|'.join(kinds())})\.md", path.name)
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") == 1 and text.endswith(".\n") and text[0] not in "-* "


def test_the_changelog_is_where_a_release_puts_them():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "<!-- towncrier release notes start -->" in text
