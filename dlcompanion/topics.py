"""The catalogue: what ``topics.toml`` says, and where a topic's files are.

Nothing here imports Keras, so the command line answers at once and on machines without
a backend.
"""

import ast
import difflib
import functools
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


@functools.cache
def chapters():
    """The chapters in the book's order.

    Returns:
        Dict of slug to a dict with ``slug``, ``title`` and ``description``.

    Example:
        >>> list(chapters())[:3]
        ['foundations', 'optimization', 'losses']
    """
    return {row["slug"]: row for row in _catalogue()["chapter"]}


@functools.cache
def topics():
    """The topics in the book's order.

    Returns:
        Dict of slug to a dict with ``slug``, ``chapter``, ``title``, ``do``, ``state``
        and ``target``, and where the topic is done ``component``, ``script``,
        ``seconds``, ``measured`` and ``verdict``.

    Example:
        >>> topics()["lookahead"]["chapter"]
        'optimization'
    """
    return {row["slug"]: row for row in _catalogue()["topic"]}


def find_topic(name):
    """The topic of a slug, or of a public name such as ``"Lookahead"``.

    Args:
        name: String.

    Returns:
        The topic's dict.

    Raises:
        ValueError: If there is no such topic; the message names near misses.

    Example:
        >>> find_topic("lookahed")
        Traceback (most recent call last):
        ValueError: There is no topic 'lookahed'. Did you mean lookahead?
    """
    if name in topics():
        return topics()[name]
    for topic in topics().values():
        if name in public_names(topic):
            return topic
    names = [n for topic in topics().values() for n in public_names(topic)]
    hint = did_you_mean(name, [*topics(), *names])
    raise ValueError(f"There is no topic {name!r}.{hint}")


def find_chapter(name):
    """The chapter of a slug.

    Args:
        name: String.

    Returns:
        The chapter's dict.

    Raises:
        ValueError: If there is no such chapter; the message names near misses.

    Example:
        >>> find_chapter("graphs")["title"]
        'Graph networks'
    """
    if name not in chapters():
        raise ValueError(
            f"There is no chapter {name!r}.{did_you_mean(name, chapters())}"
        )
    return chapters()[name]


def did_you_mean(name, names):
    """The end of an error message that names up to three near misses.

    Args:
        name: String, what was asked for.
        names: Strings that exist.

    Returns:
        ``" Did you mean ...?"``, or a hint at the list if nothing is near.

    Example:
        >>> did_you_mean("graphz", ["graphs"])
        ' Did you mean graphs?'
    """
    known = {n.lower(): n for n in reversed([*names])}
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
    near += [key for key in known if name.lower() in key and len(name) > 3]
    near = [known[key] for key in dict.fromkeys(near)][:3]
    if not near:
        return " See: python -m dlcompanion list"
    return f" Did you mean {' or '.join(near)}?"


def script_path(topic):
    """The gallery script of a topic, in the wheel or in the checkout.

    Args:
        topic: A topic's dict.

    Returns:
        A ``pathlib.Path`` of an existing file.

    Raises:
        ValueError: If the topic has no script yet.

    Example:
        >>> script_path(find_topic("lookahead")).name
        'plot_lookahead.py'
    """
    where = topic.get("script", f"gallery/{topic['chapter']}/plot_{topic['slug']}.py")
    path = gallery() / Path(where).relative_to("gallery")
    if not path.is_file():
        raise ValueError(f"The page of {topic['slug']!r} is planned and not there yet.")
    return path


def gallery():
    """The folder of the gallery scripts, in the wheel or in the checkout.

    Returns:
        A ``pathlib.Path``.

    Example:
        >>> gallery().name in ("_gallery", "gallery")
        True
    """
    return PACKAGE.parent / "gallery" if is_checkout() else PACKAGE / "_gallery"


def is_checkout():
    """Whether the package runs from a clone of the repository.

    Returns:
        Boolean.

    Example:
        >>> is_checkout() in (True, False)
        True
    """
    return not (PACKAGE / "_gallery").is_dir()


def public_names(topic):
    """The public classes and functions of a topic's component, read from its source.

    Args:
        topic: A topic's dict.

    Returns:
        List of strings; empty if Keras has the component or it is not there yet.

    Example:
        >>> public_names(find_topic("curse_of_dimensionality"))
        []
    """
    source = _source(topic)
    if source is None:
        return []
    parts = source.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] in chapters():  # what the chapter makes public of it
        module = ".".join(["dlcompanion", *parts])
        nodes = ast.parse((PACKAGE / parts[0] / "__init__.py").read_bytes()).body
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
        >>> import_line(find_topic("lookahead"))
        'from dlcompanion.optimization import Lookahead'
    """
    names = public_names(topic)
    if not names:
        return None
    # a topic's documented path is its chapter, infrastructure is its own module
    module = _source(topic).relative_to(PACKAGE).parts[0].removesuffix(".py")
    return f"from dlcompanion.{module} import {', '.join(names)}"


def _source(topic):
    where = f"dlcompanion/{topic['chapter']}/{topic['slug']}.py"
    path = PACKAGE.parent / topic.get("component", where)
    return path if topic["do"] == "build" and path.is_file() else None


@functools.cache
def _catalogue():
    with open(PACKAGE / "topics.toml", "rb") as file:
        return tomllib.load(file)
