"""The worked example of STYLE.md runs as it stands there; its files are there."""

import doctest
import re
import shutil
from pathlib import Path

import keras
import pytest
from style_check import passes_lint

ROOT = Path(__file__).resolve().parents[1]
STYLE = (ROOT / "STYLE.md").read_text(encoding="utf-8")
COMPONENT, TESTS = re.findall(r"```python\n(.*?)```", STYLE, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """The component and its tests, in one module."""
    names = {"__name__": "maxout"}
    exec(COMPONENT, names)
    exec(TESTS, names)
    yield names
    keras.saving.get_custom_objects().pop("dlcompanion>Maxout")


def cases():
    """Every test of the example, with the arguments that its decorator gives."""
    return re.findall(r"^def (test_\w+)", TESTS, re.MULTILINE)


@pytest.mark.parametrize("test", cases())
def test_the_example_passes_its_tests(names, test):
    function = names[test]
    marks = [m for m in getattr(function, "pytestmark", ()) if m.name == "parametrize"]
    if not marks:
        function()
    for mark in marks:
        name, values = mark.args
        for value in values:
            function(**{name: value})


def test_the_example_of_its_docstring_runs(names):
    globs = {"Maxout": names["Maxout"], "keras": keras}
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(names["Maxout"], "Maxout", module=False, globs=globs)
    assert test.examples and not doctest.DocTestRunner().run(test).failed


def test_the_example_passes_lint(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "dlcompanion").mkdir()
    for path in ("__init__.py", "testing.py"):
        (tmp_path / "dlcompanion" / path).write_text('"""Here."""\n')
    (tmp_path / "maxout.py").write_text(COMPONENT)
    line = "from dlcompanion.testing import check_layer\n"
    assert line in TESTS
    imported = TESTS.replace(line, f"{line}from maxout import Maxout\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_maxout.py").write_text(imported)
    passes_lint(tmp_path)


@pytest.mark.parametrize("file", ["STYLE.md", "CONTRIBUTING.md"])
def test_the_files_that_are_named_are_there(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    paths = re.findall(r"`([\w./]+/[\w.]+\.(?:py|md|json|toml))`", text)
    made = ("yogi", ".ci/verified.json")  # by a command that the text names
    there = [p for p in paths if not any(name in p for name in made)]
    package = [p if (ROOT / p).exists() else f"dlcompanion/{p}" for p in there]
    assert paths and not [p for p in package if not (ROOT / p).is_file()]
