"""Tests of what happens at import: chapters, wrong paths, a missing backend."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys

import keras
import pytest

import dlcompanion
from dlcompanion import paths, startup, topics

pytestmark = pytest.mark.once

PUBLIC = [
    (chapter, name)
    for chapter in dlcompanion.__all__
    for name in getattr(dlcompanion, chapter).__all__
]


def run(code, python_path=(), **environment):
    """Run Python in a process of its own, with the package on its path."""
    path = os.pathsep.join([*map(str, python_path), str(topics.PACKAGE.parent)])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def test_every_chapter_is_imported_and_named_in_the_books_order_of_letters():
    folders = [p.parent.name for p in topics.PACKAGE.glob("*/__init__.py")]
    chapters = sorted(set(folders) & set(topics.chapters()))
    assert dlcompanion.__all__ == chapters
    assert all(f"dlcompanion.{chapter}" in sys.modules for chapter in chapters)


def test_version_is_that_of_the_distribution_form():
    assert re.fullmatch(r"\d+\.\d+\.\d+", dlcompanion.__version__)


def test_modules_that_were_not_imported_come_as_attributes():
    done = run(
        "import sys; sys.argv = ['dlcompanion']\n"
        "import dlcompanion\n"
        "assert 'keras' not in sys.modules\n"
        "print(dlcompanion.topics.find_topic('lookahead')['chapter'])\n"
        "assert 'keras' not in sys.modules\n"
    )
    assert done.stdout.split() == ["optimization"], done.stderr
    assert dlcompanion.__getattr__("graphs") is dlcompanion.graphs


def test_only_the_command_line_itself_skips_the_chapters(monkeypatch):
    def started(argv, orig_argv):
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "orig_argv", orig_argv)
        return startup.is_command_line()

    assert started(["-m", "list"], ["python", "-X", "dev", "-m", "dlcompanion", "list"])
    assert started(["/venv/bin/dlcompanion", "list"], ["python", "dlcompanion", "list"])
    assert not started(["-m"], ["python", "-m", "dlcompanion.datasets"])
    assert not started(["-m", "-m"], ["python", "-m", "pytest", "-m", "dlcompanion"])
    assert not started(["-c"], ["python", "-c", "import dlcompanion"])
    assert not started(["train.py"], ["python", "train.py"])
    assert not started([], ["python"])


# -- wrong paths --------------------------------------------------------------


@pytest.mark.parametrize(("chapter", "name"), PUBLIC)
def test_every_public_name_is_told_at_every_wrong_path(chapter, name):
    right = f"from dlcompanion.{chapter} import {name}"
    with pytest.raises(AttributeError, match=re.escape(right)):
        getattr(dlcompanion, name)
    with pytest.raises(ImportError, match=re.escape(right)):
        exec(f"from dlcompanion import {name}")
    other = next(c for c in dlcompanion.__all__ if c != chapter)
    with pytest.raises(ImportError, match=re.escape(right)):
        exec(f"from dlcompanion.{other} import {name}")
    assert not hasattr(dlcompanion, name)
    exec(right)


@pytest.mark.parametrize("kind", list(paths.KINDS))
def test_a_tree_by_kind_says_that_there_are_chapters(kind):
    for code in (
        f"import dlcompanion.{kind}",
        f"from dlcompanion import {kind}",
        f"from dlcompanion.{kind} import Anything",
        f"import dlcompanion.{kind}.anything",
    ):
        with pytest.raises(ImportError, match="every component is in its chapter"):
            exec(code)
    with pytest.raises(AttributeError, match="every component is in its chapter"):
        getattr(dlcompanion, kind)
    assert not hasattr(dlcompanion, kind)


def test_a_tree_by_kind_lists_what_is_of_that_kind_and_nothing_else():
    def listed(kind):
        text = paths.explain(kind, dlcompanion.__all__)
        return set(re.findall(r"\b[A-Z]\w+", text.split("\n", 1)[-1]))

    things = {name: getattr(getattr(dlcompanion, c), name) for c, name in PUBLIC}
    classes = {n: t for n, t in things.items() if isinstance(t, type)}
    models = {n for n, t in classes.items() if issubclass(t, keras.Model)}
    layers = {n for n, t in classes.items() if issubclass(t, keras.layers.Layer)}
    assert listed("layers") == layers - models
    assert listed("models") == models
    assert "Lookahead" in listed("optimizers")
    assert "Lookahead" not in listed("layers")


def test_near_misses_are_suggested():
    with pytest.raises(ImportError, match=r"mean dlcompanion\.optimization\.Lookahead"):
        exec("from dlcompanion import LookAhead")
    with pytest.raises(ImportError, match=r"mean dlcompanion\.regularization\?"):
        importlib.import_module("dlcompanion.regularisation")


def test_names_that_mean_nothing_fail_as_python_fails():
    with pytest.raises(AttributeError, match="no attribute 'zzzzzz'"):
        dlcompanion.zzzzzz  # noqa: B018
    with pytest.raises(ModuleNotFoundError, match="No module named") as caught:
        importlib.import_module("dlcompanion.zzzzzz")
    assert caught.value.name == "dlcompanion.zzzzzz"
    with pytest.raises(ImportError, match="cannot import name 'zzzzzz'"):
        exec("from dlcompanion import zzzzzz")
    assert importlib.util.find_spec("dlcompanion.zzzzzz") is None
    assert getattr(dlcompanion, "__wrapped__", None) is None


def test_other_packages_are_left_alone():
    finder = paths.WrongPathFinder(dlcompanion.__all__)
    for name in ("layers", "Lookahead", "keras.Lookahead", "dlcompanion2.layers"):
        assert finder.find_spec(name) is None
    assert finder.find_spec("dlcompanion.testing.Lookahead") is None


def test_inside_a_module_of_a_topic_names_are_looked_up_as_ever():
    with pytest.raises(ModuleNotFoundError, match="is not a package"):
        importlib.import_module("dlcompanion.optimization.lookahead.Lookahead")


# -- load_model ---------------------------------------------------------------


def test_a_saved_component_loads_after_import_dlcompanion_alone(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    inner = keras.optimizers.SGD(0.1)
    model.compile(dlcompanion.optimization.Lookahead(inner), loss="mse")
    model.save(tmp_path / "model.keras")
    done = run(
        "import dlcompanion, keras\n"
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r})\n"
        "print(type(model.optimizer).__name__)"
    )
    assert done.stdout.split() == ["Lookahead"], done.stderr


# -- no backend ---------------------------------------------------------------


def without(folder, *missing):
    """A folder for PYTHONPATH under which some packages cannot be imported."""
    folder.joinpath("sitecustomize.py").write_text(
        "import sys\n" + "".join(f"sys.modules[{m!r}] = None\n" for m in missing)
    )
    return [folder]


@pytest.mark.parametrize("chosen", startup.BACKENDS)
def test_without_any_backend_the_three_ways_are_named(tmp_path, chosen):
    path = without(tmp_path, *startup.BACKENDS)
    done = run("import dlcompanion", path, KERAS_BACKEND=chosen)
    assert done.returncode == 1
    message = done.stderr[done.stderr.index("ImportError: ") :]
    for backend in startup.BACKENDS:
        assert f'pip install "dlcompanion[{backend}]"' in message
    assert "KERAS_BACKEND" in message and "keras.json" in message
    assert "During handling" not in done.stderr


def test_the_chosen_backend_is_missing_and_another_is_there(tmp_path):
    here = keras.backend.backend()
    chosen = next(name for name in startup.BACKENDS if name != here)
    others = [name for name in startup.BACKENDS if name != here]
    path = without(tmp_path, *others)
    done = run("import dlcompanion", path, KERAS_BACKEND=chosen)
    message = done.stderr[done.stderr.index("ImportError: ") :]
    assert f"backend {chosen!r} (by KERAS_BACKEND)" in message
    assert f'pip install "dlcompanion[{chosen}]"' in message
    assert message.rstrip().endswith(f"what is installed: {here}")


def test_an_import_error_of_something_else_is_left_as_it_is(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'absl'", name="absl")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="^No module named 'absl'$"):
        startup.import_keras()
