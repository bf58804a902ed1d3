"""Tests of what a benchmark's record says about its sources."""

import ast
import importlib
import json
import shutil

import pytest
from source_files import ROOT

pytestmark = pytest.mark.once

RESULTS = sorted((ROOT / "benchmarks/results").glob("*.json"))

# A benchmark of the class Layer, in a chapter whose __init__ exports it.
FILES = {
    "benchmarks/speed.py": '''"""How fast it is."""
import numpy as np
from library.chapter import Layer

def main():
    from library import tools
    print(np.exp(tools.rate(3)), Layer().call(1))

if __name__ == "__main__":
    main()
''',
    "library/__init__.py": "",
    "library/tools.py": "def rate(n):\n    return n + 1\n",
    "library/chapter/__init__.py": '''"""A chapter."""
from library.chapter.layer import Layer
from library.chapter.other import Other
__all__ = ["Layer", "Other"]
''',
    "library/chapter/layer.py": '''"""A layer."""
import functools
from library.chapter.parts import SIZE, scaled

class Layer:
    """What it does."""

    @functools.cache
    def call(self, x, shift=2.0):
        """Call it."""
        return scaled(x) * SIZE + shift  # once
''',
    "library/chapter/other.py": "class Other:\n    pass\n",
    "library/chapter/parts.py": '''"""Parts."""
SIZE = 3

def scaled(x):
    return x / 2
''',
}


@pytest.fixture
def sources(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.sources")


@pytest.fixture
def record(sources):
    return importlib.import_module("benchmarks.record")


@pytest.fixture
def measured(sources, tmp_path):
    """A function that hashes what a benchmark among some files measures."""

    def hashes(files, modules=("benchmarks.speed",)):
        root = tmp_path / "repository"
        shutil.rmtree(root, ignore_errors=True)
        for path, text in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return sources.definitions(modules, root)

    return hashes


def edited(*edits):
    """The files after replacements, each of a text that one file has once."""
    files = dict(FILES)
    for old, new in edits:
        (path,) = [p for p, text in files.items() if old in text]
        assert files[path].count(old) == 1
        files[path] = files[path].replace(old, new)
    return files


def moved(old, new):
    """The files with one of them moved, and its new path in every import."""
    names = [path[:-3].replace("/", ".") for path in (old, new)]
    return {new if p == old else p: t.replace(*names) for p, t in FILES.items()}


def merged():
    """The files with the layer's parts in the layer's file."""
    files = edited(("from library.chapter.parts import SIZE, scaled\n", ""))
    files["library/chapter/layer.py"] += files.pop("library/chapter/parts.py")
    return files


def split():
    """The files with the layer's parts in two, one of them in a room."""
    imports = ("SIZE, scaled", "SIZE\nfrom library.chapter.room.scale import scaled")
    size, scaled = FILES["library/chapter/parts.py"].split("\n\n")
    return edited(imports) | {
        "library/chapter/parts.py": size,
        "library/chapter/room/scale.py": scaled,
    }


SAME = {
    "move": moved("library/chapter/layer.py", "library/room/layers.py"),
    "merge": merged(),
    "split": split(),
    "docstring": edited(("What it does.", "More\n\n    of it.")),
    "no docstring": edited(('        """Call it."""\n', "")),
    "comment": edited(("  # once", "")),
    "format": edited(("return n + 1", "return (n  +\n        1)")),
    "import path": edited(("chapter import Layer", "chapter.layer import Layer")),
    "import of a module": edited(
        ("from library.chapter import Layer", "import library.chapter as chapter"),
        (", Layer()", ", chapter.Layer()"),
    ),
    "import of a dotted module": edited(
        ("from library.chapter import Layer", "import library.chapter.layer"),
        (", Layer()", ", library.chapter.layer.Layer()"),
    ),
    "import of a function": edited(
        ("import numpy as np\n", "from numpy import exp as e\n"), ("np.exp", "e")
    ),
    "import at the top": edited(
        ("    from library import tools\n", ""),
        ("import numpy", "from library import tools\nimport numpy"),
    ),
    "relative import": edited(("from library.chapter.parts", "from .parts")),
    "fewer exports": edited(
        ("from library.chapter.other import Other\n", ""), (', "Other"', "")
    ),
    "what is not reached": edited(("pass", "x = 1")),
}


@pytest.mark.parametrize("files", SAME.values(), ids=SAME)
def test_the_same_code_has_the_same_hashes(measured, files):
    assert files != FILES
    assert measured(files) == measured(FILES)


CHANGED = {
    "operator": (["rate"], ("n + 1", "n - 1")),
    "default": (["Layer"], ("shift=2.0", "shift=2.5")),
    "type of a number": (["Layer"], ("shift=2.0", "shift=2")),
    "decorator": (["Layer"], ("    @functools.cache\n", "")),
    "third-party name": (["Layer"], ("functools.cache", "functools.lru_cache")),
    "third-party module": (["main"], ("import numpy as np", "import jax.numpy as np")),
    "constant": (["SIZE"], ("SIZE = 3", "SIZE = 4")),
    "script": (["module level"], ('== "__main__"', '!= "__main__"')),
    "executed on import": (["module level"], ("SIZE = 3", "SIZE = 3\nprint(SIZE)")),
    "export": (
        ["Layer", "Other", "SIZE", "main", "scaled"],
        ("chapter.layer import Layer", "chapter.other import Other as Layer"),
    ),
}


@pytest.mark.parametrize(("names", "edit"), CHANGED.values(), ids=CHANGED)
def test_a_change_of_code_is_named(sources, measured, names, edit):
    assert sources.changed(measured(FILES), measured(edited(edit))) == names


def test_definitions_of_one_name_are_told_apart(measured):
    files = edited(("return n + 1\n", "return scaled(n)\n"))
    files["library/tools.py"] += "\ndef scaled(x):\n    return x\n"
    one, two = (measured(f)["scaled"].split() for f in (FILES, files))
    assert len(one) == 1 and len(two) == 2 and set(one) < set(two)


def test_a_local_name_is_not_followed(measured):
    """Neither an argument, nor a variable of a comprehension."""
    names = "\ndef n(x):\n    return x\n\ndef m(x):\n    return x\n"
    edit = ("return n + 1\n", "return n + sum(m for m in [1])\n")
    files = edited(edit)
    files["library/tools.py"] += names
    assert measured(files) == measured(edited(edit))


def test_a_function_may_have_the_name_of_its_module(measured):
    files = edited(("chapter.layer import Layer", "chapter.Layer import Layer"))
    files["library/chapter/Layer.py"] = files.pop("library/chapter/layer.py")
    assert measured(files) == measured(FILES)
    files = files | {
        "benchmarks/speed.py": files["benchmarks/speed.py"].replace(
            "library.chapter import", "library.chapter.Layer import"
        )
    }
    assert measured(files) == measured(FILES)


def test_a_module_as_a_value_is_followed_as_a_whole(measured):
    found = measured(edited(("tools.rate(3)", "vars(tools)")))
    assert found.keys() == measured(FILES).keys()


def test_of_an_imported_script_the_part_under_main_is_left_out(measured):
    files = edited(("def main", "TIMES = 3\n\ndef main"))
    files["benchmarks/more.py"] = "from benchmarks.speed import TIMES\nTIMES + 1\n"
    found = measured(files, ["benchmarks.more"])
    assert set(found) == {"TIMES", "module level"}
    assert "main" in measured(files, ["benchmarks.more", "benchmarks.speed"])


def test_an_attribute_of_an_exported_class_is_code(sources, measured):
    one, other = (
        measured(edited(("Layer().call(1)", f"Layer.{name}"))) for name in ("a", "b")
    )
    assert sources.changed(one, other) == ["main"]


@pytest.mark.parametrize(
    ("edit", "unknown"),
    [
        (("chapter import Layer", "chapters import Layer"), "library.chapters"),
        (("import tools", "import tool as tools"), "library.tool"),
        (("chapter import Layer", "chapter import Layers as Layer"), "chapter.Layers"),
        (("tools.rate", "tools.rates"), "library.tools.rates"),
    ],
)
def test_refuses_what_is_not_there(measured, edit, unknown):
    with pytest.raises(ValueError, match=rf"must be modules.*Received: .*{unknown}$"):
        measured(edited(edit))


def test_refuses_an_unknown_benchmark(measured):
    with pytest.raises(ValueError, match=r"Received: benchmarks\.speeed$"):
        measured(FILES, ["benchmarks.speeed"])


def test_keeps_what_was_measured_while_the_code_is_the_same(
    record, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(record.common, "ROOT", tmp_path)
    modules = ["benchmarks.common"]
    assert record.kept("speed", modules) == []
    record.save("speed", [{"seconds": 1}], modules, runs=[{"seed": 0}])
    assert record.kept("speed", modules) == [{"seconds": 1}]
    assert record.kept("speed", modules, "runs") == [{"seed": 0}]
    path = tmp_path / "speed.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    saved["definitions"]["ratio"] = "0" * 16
    path.write_text(json.dumps(saved), encoding="utf-8")
    assert record.kept("speed", modules) == []
    assert "changed, so beginning anew: ratio\n" in capsys.readouterr().out


def test_every_benchmark_names_itself_and_its_peer():
    named = {}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "SOURCES"
            ):
                named[path] = ast.literal_eval(node.value)
    assert len(named) >= 10
    for path, modules in named.items():
        assert modules[0] == f"benchmarks.{path.stem}"
        peer = path.with_name(f"{path.stem}_peer.py").exists()
        assert (f"benchmarks.{path.stem}_peer" in modules) == peer


def test_every_result_says_what_it_measured(sources):
    assert len(RESULTS) >= 10
    for path in RESULTS:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert all(len(h) >= 16 for h in record["definitions"].values()), path
        assert "main" in record["definitions"], path
        sources.changed(record["definitions"], sources.definitions(record["sources"]))


def test_writing_a_record_is_not_measured(sources):
    found = sources.definitions(["benchmarks.tree_search"])
    assert {"main", "table", "tree_search"} < set(found)
    assert not {"save", "kept", "definitions"} & set(found)
