"""The rows of the catalogue: read from one TOML file a chapter, and checked.

A row has what nobody can derive: ``slug``, ``title``, ``do`` (``"build"``: the package
has the component, ``"show"``: Keras has it), ``target`` (what the page has to measure)
and, once it is measured, ``verdict`` on the target. ``script`` names the topic whose
page shows this one too, ``component`` the file, where that is infrastructure, and
``names`` lists other usual names of the topic.
"""

import re
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
#: The chapters in the book's order.
CHAPTERS = (
    "foundations",
    "optimization",
    "losses",
    "normalization",
    "regularization",
    "convolution",
    "recurrence",
    "attention",
    "language",
    "vision",
    "graphs",
    "generative",
    "uncertainty",
    "reinforcement",
    "meta",
    "search",
    "federated",
    "continual",
    "practice",
)
DO = ("build", "show")
VERDICTS = ("held", "weaker", "false")

_NEEDED = ("slug", "title", "do", "target")
_OPTIONAL = ("verdict", "script", "component", "names")


def read_chapters(folder=FOLDER):
    """Read and check every chapter's file.

    Args:
        folder: ``pathlib.Path`` of the TOML files.

    Returns:
        Dict of chapter slug, in the book's order, to a dict of ``title``,
        ``description`` and ``topic``, the list of rows as dicts.

    Raises:
        ValueError: If a file or a row breaks a rule; one line with the rule, the file
            and the row.

    Example:
        >>> read_chapters()["losses"]["title"]
        'Losses'
    """
    strays = sorted({p.stem for p in folder.glob("*.toml")} - {*CHAPTERS})
    if strays:
        raise ValueError(
            f"Every file of the catalogue is named for a chapter. {strays[0]}.toml is "
            f"named for none. Received: {strays[0]!r}"
        )
    found = {name: _read(folder / f"{name}.toml") for name in CHAPTERS}
    rows = [(name, row) for name, c in found.items() for row in c["topic"]]
    homes = {}
    for name, row in rows:
        slug = row["slug"]
        if slug in homes:
            rule = f"A slug is used once, and {homes[slug]}.toml has it too"
            raise _broken(rule, name, slug, f"slug={slug!r}")
        homes[slug] = name
    for name, row in rows:
        host = row.get("script", row["slug"])
        if host not in homes:
            rule = "script is the slug of the topic whose page shows this one"
            raise _broken(rule, name, row["slug"], f"script={host!r}")
    _check_names(rows)
    return found


def simplified(name):
    """A name without what nobody should have to mind: case, hyphens, spaces, signs.

    Args:
        name: String.

    Returns:
        String, the letters and digits of ``name`` in lower case.

    Example:
        >>> simplified("Deep ensembles") == simplified("deep-ensembles")
        True
    """
    return "".join(filter(str.isalnum, name.casefold()))


def _check_names(rows):
    """Refuse another name of a topic that is a name of a second topic, too."""
    owners = {
        simplified(row[key]): row["slug"]
        for _, row in rows
        for key in ("title", "slug")
    }
    for chapter, row in rows:
        slug = row["slug"]
        for name in row.get("names", ()):
            owner = owners.setdefault(simplified(name), slug)
            if owner != slug:
                rule = f"No two topics share a name, and {owner!r} has this one too"
                raise _broken(rule, chapter, slug, f"names={row['names']!r}")


def _read(path):
    name = path.stem
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"Every chapter has its file in the catalogue. Received: no {path.name}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not TOML. Received: {error}") from None
    rows = table.pop("topic", [])
    _check_keys(table, ("title", "description"), (), name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _broken("Every topic opens with [[topic]]", name, None, f"topic={rows!r}")
    for number, row in enumerate(rows, 1):
        _check_row(row, name, row.get("slug") or number)
    return {**table, "topic": rows}


def _check_row(row, chapter, slug):
    _check_keys(row, _NEEDED, _OPTIONAL, chapter, slug)
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z]+)*", slug):
        rule = "A slug is words in lower case, joined by underscores"
        raise _broken(rule, chapter, slug, f"slug={slug!r}")
    for key, choices in (("do", DO), ("verdict", VERDICTS)):
        if row.get(key, choices[0]) not in choices:
            rule = f"{key} is one of {', '.join(choices)}"
            raise _broken(rule, chapter, slug, f"{key}={row[key]!r}")
    if "component" in row and row["do"] == "show":
        rule = "A topic to show has no component, since Keras has it"
        raise _broken(rule, chapter, slug, f"component={row['component']!r}")


def _check_keys(table, needed, optional, chapter, slug=None):
    """Refuse a key that is not known, is missing, or holds no text."""
    thing = "chapter" if slug is None else "topic"
    for key in table:
        if key not in (*needed, *optional):
            rule = f"The keys of a {thing} are {', '.join((*needed, *optional))}"
            raise _broken(rule, chapter, slug, f"{key}={table[key]!r}")
    for key in dict.fromkeys((*needed, *table)):
        value = table.get(key)
        if key == "names":
            if not _is_list_of_names(value):
                rule = "'names' of a topic is a list of texts, none of them empty"
                raise _broken(rule, chapter, slug, f"{key}={value!r}")
        elif not isinstance(value, str) or not value.strip():
            rule = f"Every {thing} needs {key!r}, a text"
            if key in optional:
                rule = f"{key!r} of a {thing} is a text"
            raise _broken(rule, chapter, slug, f"{key}={value!r}")


def _is_list_of_names(value):
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(name, str) and simplified(name) for name in value)
    )


def _broken(rule, chapter, slug, received):
    where = f"{chapter}.toml"
    if slug is not None:
        where += f", topic {slug!r}" if isinstance(slug, str) else f", topic {slug}"
    return ValueError(f"{rule}. In {where}. Received: {received}")
