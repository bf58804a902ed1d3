"""What the source may say: imports, registered names, docstrings, words."""

import ast
import graphlib
import re
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from source_files import (
    CHAPTERS,
    MODULES,
    PACKAGE,
    PAGES,
    ROOT,
    TESTS,
    all_of,
    called,
    chapter_of,
    definitions,
    each,
    imports,
    name,
    registered,
    tree,
)

import dlcompanion

pytestmark = pytest.mark.once

BACKENDS = {"tensorflow", "torch", "jax", "jaxlib"}
PROBABILITY = {"tensorflow_probability"}


def top(path):
    """The first folder or module of the package that a path leads through."""
    return path.relative_to(PACKAGE).parts[0]


BACKEND_FILES = [p for p in MODULES if top(p) == "backend"]


def public_definitions():
    """What users may import: all of a module, or what a package's __init__ names."""
    for path in MODULES:
        if path in BACKEND_FILES or path.parent == PACKAGE and path.name[0] == "_":
            continue  # the backend is for this package alone
        inside = path.parent != PACKAGE
        named = all_of(PACKAGE / top(path) / "__init__.py") if inside else None
        for node in definitions(path):
            if named is None or node.name in named:
                yield path, node


# -- which way imports go -----------------------------------------------------


@each(MODULES)
def test_a_module_imports_keras_numpy_and_ours_alone(path):
    roots = {module.split(".")[0] for module in imports(path, everywhere=False)}
    assert roots <= {"keras", "numpy", "dlcompanion"} | sys.stdlib_module_names
    assert not {m for m in imports(path, everywhere=False) if m.startswith("keras.src")}


@each(p for p in MODULES if p not in BACKEND_FILES)
def test_backend_packages_and_private_keras_are_imported_in_the_backend_alone(path):
    private = {m for m in imports(path) if m.startswith(("keras.src", "keras._"))}
    assert not private
    roots = {module.split(".")[0] for module in imports(path)}
    assert not roots & BACKENDS
    if top(path) != "probability":
        assert not roots & PROBABILITY
    # not by way of a longer path either: keras.backend.tensorflow, layers.src, ...
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"src", *BACKENDS}, f"line {node.lineno}"


@each(p for p in MODULES if not chapter_of(p))
def test_infrastructure_imports_no_chapter(path):
    if path == PACKAGE / "__init__.py":
        return
    ours = {m.split(".")[1] for m in imports(path) if m.startswith("dlcompanion.")}
    assert not ours & set(CHAPTERS)


@each(p for p in MODULES if chapter_of(p))
def test_a_chapter_imports_no_later_chapter(path):
    ours = {m.split(".")[1] for m in imports(path) if m.startswith("dlcompanion.")}
    earlier = CHAPTERS[: CHAPTERS.index(chapter_of(path)) + 1]
    assert ours & set(CHAPTERS) <= set(earlier)


def arrows(paths, root=ROOT):
    """Who imports whom in the chapters: topics, and rooms as a whole.

    Returns:
        Dict from node to the set of nodes that it imports; a node is a topic's module
        or a room, as a dotted name.
    """

    def node(module):
        parts = module.split(".")[1:]
        if len(parts) < 2 or parts[0] not in CHAPTERS:
            return None
        return ".".join(parts[:2])

    graph = {}
    for path in paths:
        source = node(".".join(path.relative_to(root).with_suffix("").parts))
        targets = {node(module) for module in imports(path)} - {source, None}
        graph.setdefault(source, set()).update(targets)
    return graph


def circle(graph):
    """Nodes of a circle, or an empty list."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_topics_and_rooms_import_each_other_in_a_circle():
    graph = arrows(PAGES)
    assert sum(map(len, graph.values())) > 50
    assert not circle(graph)


def test_a_room_that_imports_a_topic_that_imports_it_would_be_noticed(tmp_path):
    chapter = tmp_path / "dlcompanion/reinforcement"
    (chapter / "games").mkdir(parents=True)
    room, topic = chapter / "games/boards.py", chapter / "ppo.py"
    topic.write_text("from dlcompanion.reinforcement.games.minimax import Minimax\n")
    room.write_text("from dlcompanion.reinforcement.ppo import PPO\n")
    found = circle(arrows([room, topic], tmp_path))
    assert set(found) == {"reinforcement.games", "reinforcement.ppo"}


# -- names --------------------------------------------------------------------


def test_a_public_name_is_used_once_in_the_package():
    where = {}
    for path, node in public_definitions():
        where.setdefault(node.name, []).append(name(path))
    twice = {n: files for n, files in where.items() if len(files) > 1}
    assert not twice


def test_registered_names_are_ours_and_used_once():
    # what the checks of dlcompanion.testing save on the way has a package of its own
    product = [p for p in MODULES if top(p) != "testing"]
    found = [pair for path in product for pair in registered(path).items()]
    assert found
    assert not [n for n, k in Counter(n for n, _ in found).items() if k > 1]
    assert {package for _, package in found} == {"dlcompanion"}
    in_keras = keras.saving.get_custom_objects()
    for n, _ in found:
        assert in_keras[f"dlcompanion>{n}"].__module__.startswith("dlcompanion.")


def test_every_public_class_of_keras_is_registered():
    kinds = (
        keras.layers.Layer,
        keras.losses.Loss,
        keras.metrics.Metric,
        keras.optimizers.Optimizer,
        keras.optimizers.schedules.LearningRateSchedule,
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
    )
    for chapter in dlcompanion.__all__:
        module = getattr(dlcompanion, chapter)
        for public_name in module.__all__:
            thing = getattr(module, public_name)
            if isinstance(thing, type) and issubclass(thing, kinds):
                registered_as = keras.saving.get_registered_name(thing)
                assert registered_as.startswith("dlcompanion>"), public_name


# -- docstrings ---------------------------------------------------------------


def parameters(function):
    """Names that a docstring has to explain."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [a.arg for a in every if a.arg not in ("self", "cls")]


def explained(text):
    """Names that the Args section of a docstring explains."""
    match = re.search(r"^Args:\n((?:(?: .*)?\n)*)", f"{text}\n", re.MULTILINE)
    entry = r"^    (?:`*)([\w*, `]+):"
    heads = re.findall(entry, match[1], re.MULTILINE) if match else []
    return {word.strip("*` ") for head in heads for word in head.split(",")}


def raises_value_errors(node):
    kept = [n for n in ast.walk(node) if isinstance(n, ast.Raise) and n.exc]
    return any("ValueError" in ast.dump(n.exc) for n in kept)


def returns_a_value(function):
    inner = [n for n in ast.walk(function) if isinstance(n, ast.FunctionDef)][1:]
    inside = {id(r) for f in inner for r in ast.walk(f) if isinstance(r, ast.Return)}
    return any(
        isinstance(n, ast.Return) and n.value is not None and id(n) not in inside
        for n in ast.walk(function)
    )


@pytest.mark.parametrize(
    "node",
    [
        pytest.param(node, id=f"{name(p)}::{node.name}")
        for p, node in public_definitions()
    ],
)
def test_a_docstring_has_the_sections_that_fit(node):
    text = ast.get_docstring(node) or ""
    assert len(text.split("\n")[0]) > 10, "says what it is"
    assert re.search(r"^Examples?:", text, re.MULTILINE) and ">>> " in text
    if isinstance(node, ast.FunctionDef):
        needed = parameters(node)
        if returns_a_value(node):
            assert re.search(r"^(Returns|Yields):", text, re.MULTILINE)
        if raises_value_errors(node):
            assert re.search(r"^Raises:", text, re.MULTILINE)
    else:
        made = [n for n in node.body if getattr(n, "name", None) == "__init__"]
        needed = parameters(made[0]) if made else []
        if any(raises_value_errors(n) for n in made):
            assert re.search(r"^Raises:", text, re.MULTILINE)
    unexplained = set(needed) - explained(text)
    assert not unexplained


@each(PAGES)
def test_a_layer_states_its_shapes(path):
    for node in definitions(path):
        bases = [ast.unparse(base) for base in getattr(node, "bases", [])]
        if "keras.layers.Layer" in bases:
            text = ast.get_docstring(node)
            assert "Input shape:" in text or "Call arguments:" in text, node.name
            assert "Output shape:" in text or "Returns:" in text, node.name


@each(MODULES)
def test_a_module_and_all_without_underscore_in_it_say_what_they_are(path):
    for node in [tree(path), *definitions(path)]:
        assert len(ast.get_docstring(node) or "") > 10, getattr(node, "name", "module")


# -- words --------------------------------------------------------------------

#: What no file may say, and for each pattern a text in which it must be found.
FORBIDDEN = {
    r"\b(TODO|FIXME|XXX|HACK)\b": "# TODO: later",
    r"\bFILL IN\b": "FILL IN: the equation",  # what tools/new_topic.py drafts
    r"raise NotImplementedError(\(\))?[ \t]*$": "raise NotImplementedError()\nx = 1",
    r"pragma:\s*no cover": "if x:  # pragma: no cover",
    r"(?<![\w.])/(work|shared)/": 'open("/work/data.csv")',
    r"type:\s*ignore": "x = f()  # type: ignore[call]",
    r"except\b[^\n]*:(\s*#.*)?\s*(pass|\.\.\.)$": "except ValueError:\n    pass\n",
    r"\bpickle\.load|safe_mode=False|allow_pickle=True": "load(f, safe_mode=False)",
}


def texts():
    kinds = {".py", ".rst", ".md", ".toml", ".bib", ".ini", ".cff"}
    kinds |= {".css", ".html", ".js", ".mplstyle", ".txt", ".yaml"}
    generated = {"_build", "_generated", "_inv", "generated", "results", "out", "venv"}
    files = [p for p in ROOT.glob("*") if p.is_file()]
    folders = (".ci", "benchmarks", "changelog.d", "dlcompanion", "docs", "gallery")
    for folder in (*folders, "tests"):
        files += sorted((ROOT / folder).rglob("*"))
    return [
        path
        for path in files
        if path.suffix in kinds
        and path != Path(__file__).resolve()
        and not generated & set(path.relative_to(ROOT).parts)
        and ROOT / "docs/gallery" not in path.parents  # what sphinx-gallery writes
    ]


def test_nothing_unfinished_and_nothing_of_another_machine_is_left():
    found, paths = [], texts()
    assert {*MODULES, *TESTS} - {Path(__file__).resolve()} <= set(paths)
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for pattern in FORBIDDEN:
            for match in re.finditer(pattern, text, re.MULTILINE):
                number = text.count("\n", 0, match.start()) + 1
                found.append(f"{name(path)}:{number}: {match[0]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_what_is_forbidden_would_be_found(pattern):
    assert re.search(pattern, FORBIDDEN[pattern], re.MULTILINE)


def test_a_skip_is_one_that_the_ledger_allows():
    rows = (ROOT / ".ci/allowed_skips.txt").read_text(encoding="utf-8").splitlines()
    allowed = {row.split("|")[1].strip() for row in rows if not row.startswith("#")}
    reasons = set()
    for path in TESTS:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                assert called(node) not in ("importorskip", "xfail"), name(path)
                if called(node) in ("skip", "skipif"):
                    words = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    reasons.add(ast.literal_eval(words["reason"]))
    assert reasons == allowed


# -- references ---------------------------------------------------------------


def test_every_reference_is_used_by_a_test_and_can_be_made_anew():
    folder = ROOT / "tests/references"
    vectors = {p.stem for p in folder.glob("*.npz")}
    scripts = {p.stem.removeprefix("make_") for p in folder.glob("make_*.py")} - {"all"}
    assert vectors == scripts
    tests = [p for p in TESTS if p.name.startswith("test_") and p.parent != folder]
    text = "\n".join(p.read_text(encoding="utf-8") for p in tests)
    unused = [v for v in vectors if not re.search(rf"\b{v}(\.npz|[\"'])", text)]
    assert not unused


@pytest.mark.parametrize("path", sorted((ROOT / "tests/references").glob("*.npz")))
def test_a_reference_says_where_it_comes_from(path):
    with np.load(path, allow_pickle=False) as vectors:
        assert "meta" in vectors and len(str(vectors["meta"])) > 20
        assert len(vectors.files) > 1
