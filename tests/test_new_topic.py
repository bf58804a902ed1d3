"""Tests of tools/new_topic.py: what it writes, and what it refuses to write."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from style_check import passes_lint

from dlcompanion import topics

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("new_topic", ROOT / "tools/new_topic.py")
new_topic = importlib.util.module_from_spec(spec)
spec.loader.exec_module(new_topic)

MARK = "FILL" + " IN"  # no file of the repository may have it
PLANNED = [  # of which nothing is there: a component may come before its page
    slug
    for slug, row in topics.topics().items()
    if row["state"] == "planned"
    and not any((ROOT / row.get(f, "")).is_file() for f in ("component", "script"))
]


def first(condition):
    """The first planned topic for which a condition on its row holds."""
    return next(slug for slug in PLANNED if condition(topics.topics()[slug]))


def is_opened(topic):
    return (ROOT / "dlcompanion" / topic["chapter"]).is_dir()


def has_page(topic):
    return Path(topic["script"]).stem == f"plot_{topic['slug']}"


LAYER = first(
    lambda t: (
        (t["do"], has_page(t), is_opened(t)) == ("build", True, True)
        and t["chapter"] not in ("optimization", "losses")
    )
)


@pytest.fixture
def shared(tmp_path):
    """The files that a draft adds a line to, in a place of their own."""
    python = ("dlcompanion/*.py", "dlcompanion/**/__init__.py")
    for pattern in (*python, "docs/api/*.rst", "pyproject.toml"):
        for path in ROOT.glob(pattern):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    return tmp_path


def write(files):
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_the_draft_of_every_planned_topic_passes_lint(shared):
    before = {p for p in shared.rglob("*") if p.is_file()}
    for slug in PLANNED:
        write(new_topic.draft(slug, root=shared))
    written = {p for p in shared.rglob("*") if p.is_file()} - before
    assert len(written) > 3 * len(PLANNED) > 0
    passes_lint(shared)


@pytest.mark.parametrize("kind", new_topic.KINDS)
def test_a_draft_of_each_kind_passes_lint(shared, kind):
    write(new_topic.draft(LAYER, kind, shared))
    passes_lint(shared)


def test_a_draft_is_the_files_of_the_topic_and_a_line_in_its_chapter(shared):
    topic = topics.topics()[LAYER]
    chapter = shared / f"dlcompanion/{topic['chapter']}/__init__.py"
    before = chapter.read_text()
    files = new_topic.draft(LAYER, root=shared)
    names = {path.relative_to(shared).as_posix() for path in files}
    own = {topic["component"], topic["test"], topic["script"]}
    own |= {f"tests/references/make_{LAYER}.py", f"changelog.d/{LAYER}.added.md"}
    header = str(Path(topic["script"]).with_name("GALLERY_HEADER.rst"))
    assert names == {*own, header, chapter.relative_to(shared).as_posix()}
    assert all(MARK in files[shared / name] for name in own)
    assert before == chapter.read_text()  # a draft is text, main() writes it
    name = new_topic.class_name(topic)
    line = f"from dlcompanion.{topic['chapter']}.{LAYER} import {name}\n"
    added = files[chapter].replace(line, "")
    assert line in files[chapter] and f'"{name}"' in files[chapter]
    assert added.split("__all__")[0] == before.split("__all__")[0]


def test_a_fragment_that_is_there_stays(shared):
    fragment = shared / f"changelog.d/{LAYER}.added.md"
    write({fragment: "Mine.\n"})
    assert fragment not in new_topic.draft(LAYER, root=shared)


def test_the_first_component_of_a_chapter_opens_the_chapter(shared):
    slug = first(lambda t: t["do"] == "build" and not is_opened(t))
    chapter = topics.topics()[slug]["chapter"]
    write(new_topic.draft(slug, root=shared))
    package = (shared / "dlcompanion/__init__.py").read_text()
    assert f"        {chapter},\n" in package and f'    "{chapter}",\n' in package
    assert f"public:: {chapter}" in (shared / f"docs/api/{chapter}.rst").read_text()
    index = (shared / "docs/api/index.rst").read_text().split()
    shown = [name for name in index if name in topics.chapters()]
    assert chapter in shown
    assert shown == [name for name in topics.chapters() if name in shown]
    assert (shared / f"gallery/{chapter}/GALLERY_HEADER.rst").is_file()
    passes_lint(shared)


def test_a_topic_to_show_has_a_page_alone(shared):
    slug = first(lambda t: t["do"] == "show" and has_page(t))
    names = {p.name for p in new_topic.draft(slug, root=shared)}
    assert names == {f"plot_{slug}.py", f"{slug}.added.md", "GALLERY_HEADER.rst"}


def test_a_topic_on_the_page_of_another_has_no_page(shared):
    slug = first(lambda t: t["do"] == "build" and not has_page(t))
    files = new_topic.draft(slug, root=shared)
    assert not [p for p in files if p.name.startswith("plot_")]
    assert shared / topics.topics()[slug]["component"] in files


# -- in a copy of the repository ----------------------------------------------


def copied(root):
    """The repository without what builds leave behind."""
    built = ("__pycache__", "_build", "_generated", "_inv", "generated", "out", "venv")
    skip = shutil.ignore_patterns(*built)
    names = (".ci", "benchmarks", "changelog.d", "dlcompanion", "gallery", "tests")
    for name in (*names, "tools", "docs/api"):
        shutil.copytree(ROOT / name, root / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the repository to which nothing may be written."""
    return copied(tmp_path_factory.mktemp("copy"))


def command(root, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def state(root):
    files = [p for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    return {path: path.read_bytes() for path in files}


def refused(root, *arguments, rule):
    before = state(root)
    done = command(root, "tools/new_topic.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("new_topic.py: ") and done.stderr.count("\n") == 1
    assert rule in done.stderr and "Received: " in done.stderr
    assert state(root) == before


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["lookahead"], "'lookahead' has dlcompanion/optimization/lookahead.py"),
        (["curse_of_dimensionality"], "has gallery/foundations/plot_curse_of"),
        (["lokahead"], "has its row in dlcompanion/topics/<chapter>.toml before"),
        (["../lookahead"], "has its row in"),
        ([LAYER, "--kind", "sofa"], "kind is one of layer, loss, optimizer, callback"),
    ],
)
def test_a_slug_that_cannot_be_drafted(copy, arguments, rule):
    refused(copy, *arguments, rule=rule)


@pytest.mark.parametrize("key", ["title", "do", "target"])
def test_a_row_that_lacks_something(copy, key):
    topic = topics.topics()[LAYER]
    file = copy / f"dlcompanion/topics/{topic['chapter']}.toml"
    whole = file.read_text()
    line = next(n for n in whole.splitlines() if n.startswith(f'{key} = "{topic[key]}'))
    head, tail = whole.split(f'slug = "{LAYER}"')
    file.write_text(head + f'slug = "{LAYER}"' + tail.replace(line + "\n", "", 1))
    try:
        refused(copy, LAYER, rule=f"Every topic needs '{key}'")
    finally:
        file.write_text(whole)


def test_a_draft_fails_its_tests_and_they_say_what_is_missing(tmp_path):
    copy = copied(tmp_path)
    topic = topics.topics()[LAYER]
    before = state(copy)
    done = command(copy, "tools/new_topic.py", LAYER)
    assert (done.returncode, done.stderr) == (0, "")
    new = {path.relative_to(copy).as_posix() for path in {*state(copy)} - {*before}}
    assert new <= {*done.stdout.split()} and topic["component"] in new
    rules = "tests/test_source_rules.py::test_nothing_unfinished_and_nothing_of"
    ran = command(
        copy,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", topic["test"]),
        f"tests/test_layout.py::test_what_is_begun_is_done[{LAYER}]",
        f"{rules}_another_machine_is_left",
    )
    assert ran.returncode == 1, ran.stderr
    assert "6 failed" in ran.stdout and "passed" not in ran.stdout
    for missing in (
        "the equation",
        f"a script makes {LAYER}.npz",
        "an inverse, an invariance, a limit case",
        "each rule, a ValueError",
        f"no dlcompanion/topics/measured/{LAYER}.json",
        "no verdict on the target",
        f"{topic['component']}:",
        f"{topic['script']}:",
        f"changelog.d/{LAYER}.added.md:1",
    ):
        assert missing in ran.stdout, missing
