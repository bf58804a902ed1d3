"""The catalogue: every chapter and every topic, with what is derived about it."""

import difflib
import functools

from dlcompanion.topics.files import missing_files, public_names, test_file
from dlcompanion.topics.records import read_record
from dlcompanion.topics.rows import read_chapters


@functools.cache
def chapters():
    """The chapters in the book's order.

    Returns:
        Dict of slug to a dict with ``slug``, ``title`` and ``description``.

    Example:
        >>> list(chapters())[:3]
        ['foundations', 'optimization', 'losses']
    """
    return {
        slug: {"slug": slug, "title": c["title"], "description": c["description"]}
        for slug, c in read_chapters().items()
    }


@functools.cache
def topics():
    """The topics in the book's order.

    Returns:
        Dict of slug to a dict with ``slug``, ``chapter``, ``title``, ``do``,
        ``target``, ``state`` (``"done"`` or ``"planned"``), ``script`` (the file of the
        page) and, if the package has the component, ``component`` (its file) and
        ``test`` (the file of its tests), from the root of the repository. A topic that
        is done has ``verdict``, ``seconds`` (CPU seconds of the page) and
        ``claims`` (a list of dicts, what the page measured).

    Example:
        >>> topics()["lookahead"]["chapter"]
        'optimization'
    """
    rows = {
        row["slug"]: {**row, "chapter": chapter}
        for chapter, table in read_chapters().items()
        for row in table["topic"]
    }
    return {slug: _derived(row, rows) for slug, row in rows.items()}


def _derived(row, rows):
    slug, chapter = row["slug"], row["chapter"]
    host = row.get("script", slug)
    topic = {**row, "script": f"gallery/{rows[host]['chapter']}/plot_{host}.py"}
    if row["do"] == "build":
        topic.setdefault("component", f"dlcompanion/{chapter}/{slug}.py")
        topic["test"] = test_file(topic["component"])
    topic["state"] = "planned" if missing_files(topic) else "done"
    if topic["state"] == "done":
        record = read_record(host)
        topic |= {"seconds": record["seconds"], "claims": record["claims"]}
    return topic


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
