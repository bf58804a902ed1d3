"""Where the files of a topic are, in a checkout and in the wheel."""

import ast
import re
from pathlib import Path

from dlcompanion.topics.records import FOLDER as RECORDS
from dlcompanion.topics.rows import CHAPTERS

PACKAGE = Path(__file__).resolve().parents[1]


def is_checkout():
    """Whether the package runs from a clone of the repository.

    Returns:
        Boolean.

    Example:
        >>> is_checkout() in (True, False)
        True
    """
    return not (PACKAGE / "_gallery").is_dir()


def gallery():
    """The folder of the gallery scripts, in the wheel or in the checkout.

    Returns:
        A ``pathlib.Path``.

    Example:
        >>> gallery().name in ("_gallery", "gallery")
        True
    """
    return PACKAGE.parent / "gallery" if is_checkout() else PACKAGE / "_gallery"


def script_path(topic):
    """The gallery script of a topic.

    Args:
        topic: A topic's dict.

    Returns:
        A ``pathlib.Path`` of an existing file.

    Raises:
        ValueError: If the topic has no script yet.

    Example:
        >>> from dlcompanion.topics import find_topic
        >>> script_path(find_topic("lookahead")).name
        'plot_lookahead.py'
    """
    path = gallery() / Path(topic["script"]).relative_to("gallery")
    if not path.is_file():
        raise ValueError(f"The page of {topic['slug']!r} is planned and not there yet.")
    return path


def prerequisites(topic):
    """The pages that the page of a topic names as its prerequisites.

    Args:
        topic: A topic's dict.

    Returns:
        List of slugs; empty if the page names none or is not there yet.

    Example:
        >>> from dlcompanion.topics import find_topic
        >>> prerequisites(find_topic("ppo"))
        ['actor_critic']
    """
    path = gallery() / Path(topic["script"]).relative_to("gallery")
    if not path.is_file():
        return []
    text = ast.get_docstring(ast.parse(path.read_bytes()))
    said = re.search(r"Prerequisites?:(.*?)(?=\.\s+[A-Z]|\n\n|\Z)", text, re.DOTALL)
    pages = re.findall(r"/plot_(\w+)|_plot_(\w+)\.py", said[1]) if said else []
    return [*dict.fromkeys(a or b for a, b in pages)]


def test_file(component):
    """Where the tests of a component stand.

    Args:
        component: String, a file of the package from the root of the repository.

    Returns:
        String, a file from the root of the repository.

    Example:
        >>> test_file("dlcompanion/optimization/lookahead.py")
        'tests/optimization/test_lookahead.py'
        >>> test_file("dlcompanion/testing/__init__.py")
        'tests/test_testing.py'
    """
    path = Path(component).relative_to("dlcompanion")
    if path.name == "__init__.py":  # a package has its tests under its name
        path = path.parent
    # tests of a chapter mirror it, those of infrastructure stand side by side
    folder = path.parent if path.parts[0] in CHAPTERS else Path()
    return ("tests" / folder / f"test_{path.stem}.py").as_posix()


def missing_files(topic):
    """What a topic still needs to be done, as far as files tell.

    Args:
        topic: A topic's dict.

    Returns:
        List of strings, empty if the page, the component, its tests (in a checkout) and
        the record of what the page measured are there, and the row has a verdict.

    Example:
        >>> from dlcompanion.topics import find_topic
        >>> missing_files(find_topic("lookahead"))
        []
    """
    page = Path(topic["script"])
    record = f"{page.stem.removeprefix('plot_')}.json"
    needed = {
        topic["script"]: gallery() / page.relative_to("gallery"),
        f"dlcompanion/topics/measured/{record}": RECORDS / record,
    }
    for kind in ("component", "test"):
        if kind in topic and (kind == "component" or is_checkout()):
            needed[topic[kind]] = PACKAGE.parent / topic[kind]
    missing = [f"no {name}" for name, path in needed.items() if not path.is_file()]
    return missing + ([] if "verdict" in topic else ["no verdict on the target"])


def public_names(topic):
    """The public classes and functions of a topic's component, read from its source.

    Args:
        topic: A topic's dict.

    Returns:
        List of strings; empty if Keras has the component or it is not there yet.

    Example:
        >>> from dlcompanion.topics import find_topic
        >>> public_names(find_topic("curse_of_dimensionality"))
        []
    """
    inside = Path(topic.get("component", ""))
    source = PACKAGE.parent / inside
    if not source.is_file():
        return []
    if inside.parts[1] in CHAPTERS:  # what the chapter makes public of it
        module = ".".join(inside.with_suffix("").parts)
        chapter = PACKAGE / inside.parts[1] / "__init__.py"
        nodes = ast.parse(chapter.read_bytes()).body
        nodes = [n for n in nodes if isinstance(n, ast.ImportFrom)]
        return [a.name for n in nodes if n.module == module for a in n.names]
    nodes = ast.parse(source.read_bytes()).body
    names = [n.name for n in nodes if isinstance(n, ast.ClassDef | ast.FunctionDef)]
    if source.stem == "__init__":
        nodes = [n for n in nodes if isinstance(n, ast.ImportFrom)]
        names = [a.name for n in nodes for a in n.names]
    return [name for name in names if not name.startswith("_")]


def import_line(topic):
    """How to import a topic's component.

    Args:
        topic: A topic's dict.

    Returns:
        String, a line of Python, or ``None`` if there is nothing to import.

    Example:
        >>> from dlcompanion.topics import find_topic
        >>> import_line(find_topic("lookahead"))
        'from dlcompanion.optimization import Lookahead'
    """
    names = public_names(topic)
    if not names:
        return None
    # a topic's documented path is its chapter, infrastructure is its own module
    module = Path(topic["component"]).parts[1].removesuffix(".py")
    return f"from dlcompanion.{module} import {', '.join(names)}"
