"""What the tests of layout and source rules read: files, syntax trees, imports."""

import ast
import io
import tokenize
from functools import cache
from pathlib import Path

import pytest

from dlcompanion import topics

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dlcompanion"
CHAPTERS = list(topics.chapters())

MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("gallery/*/plot_*.py"))
TESTS = sorted(ROOT.glob("tests/**/*.py"))
NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def name(path):
    return path.relative_to(ROOT).as_posix()


def chapter_of(path, root=ROOT):
    """The chapter of a file by its path, however deep it lies; None if it has none.

    The folder that counts is the first one under ``dlcompanion``, ``tests`` or
    ``gallery``: a room called ``search`` in another chapter is no chapter.
    """
    parts = path.relative_to(root).parts
    return parts[1] if len(parts) > 2 and parts[1] in CHAPTERS else None


def room_of(path, root=ROOT):
    """The room of a module or test, such as ``"games"``; None at the top level."""
    if chapter_of(path, root) is None:
        return None
    return "/".join(path.relative_to(root).parts[2:-1]) or None


#: Modules of chapters, in rooms too: the topics, and the files that topics share.
PAGES = [p for p in MODULES if chapter_of(p) and p.name != "__init__.py"]


def each(paths):
    """Parametrize a test with one case a file."""
    return pytest.mark.parametrize("path", [pytest.param(p, id=name(p)) for p in paths])


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node):
    """The modules that an import statement, or a call that imports, names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        inner = [f"{node.module}.{alias.name}" for alias in node.names]
        return inner if node.module in ("dlcompanion", "keras") else [node.module]
    if isinstance(node, ast.Call) and called(node) in ("import_module", "require"):
        if node.args and isinstance(node.args[0], ast.Constant):
            return [node.args[0].value]
    return []


def called(node):
    """The last part of the name of the function that a call calls."""
    function = node.func
    return getattr(function, "attr", getattr(function, "id", None))


def imports(path, everywhere=True):
    nodes = ast.walk(tree(path)) if everywhere else module_level(tree(path).body)
    return {module for node in nodes for module in imported(node)}


def module_level(body):
    """All nodes that run at import: not the bodies of functions."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield node
        yield from module_level(ast.iter_child_nodes(node))


def definitions(path):
    """Public classes and functions of a module."""
    kinds = ast.ClassDef | ast.FunctionDef
    return [
        node
        for node in tree(path).body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]


def registered(path):
    """Name to package, of what a module registers with Keras."""
    found = {}
    for node in ast.walk(tree(path)):
        for decorator in getattr(node, "decorator_list", []):
            if not isinstance(decorator, ast.Call):
                continue
            if called(decorator) == "register_keras_serializable":
                words = {k.arg: ast.literal_eval(k.value) for k in decorator.keywords}
                found[words.get("name", node.name)] = words.get("package")
    return found


def all_of(path):
    """The names in ``__all__``."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":
            return ast.literal_eval(node.value)
    return []


def sizes(path):
    """Lines of code, and lines in all: docstrings, comments and blanks are no code."""
    text = path.read_text(encoding="utf-8")
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree(path)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            code -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(code), len(text.splitlines())


def claim_calls(script):
    """The arguments of every claim() of a script, name to syntax."""
    names = ("text", "value", "comparison", "bound", "unit", "seeds")
    return [
        dict(zip(names, node.args, strict=False))
        | {k.arg: k.value for k in node.keywords}
        for node in ast.walk(tree(script))
        if isinstance(node, ast.Call) and called(node) == "claim"
    ]


def claims_of(script):
    """The value of every claim() of a script, as syntax."""
    return [call["value"] for call in claim_calls(script)]


def is_constant(value, script):
    """Whether an expression is made of literals, and of names given to literals."""
    harmless = {"abs", "float", "int", "len", "max", "min", "round", "sum"}
    stores, values = {}, {}
    for node in ast.walk(tree(script)):
        stored = isinstance(getattr(node, "ctx", None), ast.Store)
        if stored and isinstance(node, ast.Subscript):  # table[key] = measured
            node = node.value
        if stored and isinstance(node, ast.Name):
            stores[node.id] = stores.get(node.id, 0) + 1
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value

    def literal(node, seen):
        inner = list(ast.walk(node))
        names = {n.id for n in inner if isinstance(n, ast.Name)} - harmless
        if any(isinstance(n, ast.Attribute) for n in inner):
            return False
        return all(
            n not in seen
            and stores.get(n) == 1
            and n in values
            and literal(values[n], {*seen, n})
            for n in names
        )

    return literal(value, set())
