"""The catalogue: every chapter and every topic, with what is derived about it."""

import difflib
import functools
import re

from dlcompanion.topics.files import missing_files, public_names, test_file
from dlcompanion.topics.records import read_record
from dlcompanion.topics.rows import read_chapters, simplified


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
    """The topic of a name, whatever its case, hyphens and spaces.

    Args:
        name: String: a slug, a public name such as ``"Lookahead"``, a title, or another
            usual name of the topic.

    Returns:
        The topic's dict.

    Raises:
        ValueError: If there is no such topic; the message names near misses.

    Example:
        >>> find_topic("Deep-Ensembles")["slug"]
        'deep_ensembles'
        >>> find_topic("lookahed")
        Traceback (most recent call last):
        ValueError: There is no topic 'lookahed'. Did you mean lookahead?
    """
    names = _names()
    found = {simplified(known): slug for known, slug in reversed(names.items())}
    if simplified(name) in found:
        return topics()[found[simplified(name)]]
    near = {}  # one name a topic: the nearest
    for known in _near(name, names):
        near.setdefault(names[known], known)
    raise ValueError(f"There is no topic {name!r}.{_question(near.values())}")


@functools.cache
def _names():
    """Every name of a topic and the topic's slug; of equal names the first counts."""
    kinds = (
        lambda topic: [topic["slug"]],
        public_names,
        lambda topic: [topic["title"], *topic.get("names", ())],
        names_in_title,
    )
    names = {}
    for kind in kinds:
        for slug, topic in topics().items():
            for name in kind(topic):
                names.setdefault(name, slug)
    return names


def names_in_title(topic):
    """The two names in a title such as "Variational autoencoder (VAE)", or the one.

    Args:
        topic: A topic's dict.

    Returns:
        List of strings.

    Example:
        >>> names_in_title({"title": "Variational autoencoder (VAE)"})
        ['Variational autoencoder', 'VAE']
    """
    found = re.fullmatch(r"(.*?)(?: \((.*)\))?", topic["title"]).groups()
    return [name for name in found if name]


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
    return _question(_near(name, names))


def _near(name, names):
    """The names that are like a name or hold it, the likest first."""
    known = {simplified(n): n for n in reversed([*names])}
    name = simplified(name)
    near = difflib.get_close_matches(name, known, n=9, cutoff=0.6)
    near += [key for key in known if name in key and len(name) > 3]
    return [known[key] for key in dict.fromkeys(near)]


def _question(near):
    if not near:
        return " See: python -m dlcompanion list"
    quoted = [f"'{name}'" if " " in name else name for name in [*near][:3]]
    return f" Did you mean {' or '.join(quoted)}?"
