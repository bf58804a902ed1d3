r"""The papers that pages cite, read from ``references.bib`` without a library for it.

The file is written by hand in one form: one field a line, in braces, authors as
``Surname, First`` joined by ``and``, accents as LaTeX writes them, ``{\"o}``.
"""

import re
import unicodedata

from dlcompanion.topics.files import PACKAGE, gallery, is_checkout

_ENTRY = re.compile(r"^@\w+\{(\w+),\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^ *(\w+) = \{(.*)\},?$", re.MULTILINE)
_LETTERS = {"o": "ø", "O": "Ø", "l": "ł", "L": "Ł", "ss": "ß", "aa": "å", "ae": "æ"}
_ACCENTS = {"'": "\u0301", "`": "\u0300", '"': "\u0308", "^": "\u0302", "~": "\u0303"}
_ACCENTS |= {"c": "\u0327", "v": "\u030c", "u": "\u0306", "=": "\u0304", ".": "\u0307"}
_SIGNS = {"--": "–", "``": "“", "''": "”", r"\&": "&"}
_ACCENT = re.compile(r"\\(?:([^A-Za-z])\{?([A-Za-z])\}?|([cvu])\{([A-Za-z])\})")


def bibliography():
    """Every paper that a page may cite.

    Returns:
        Dict of key to a dict with ``authors`` (list of strings, ``"Surname, First"``),
        ``title``, ``year`` and ``url`` (``None`` if there is none), in plain text.

    Raises:
        OSError: If the file is not there.
        ValueError: If an entry is not written as this file is.

    Example:
        >>> bibliography()["kingma2014auto"]["authors"]
        ['Kingma, Diederik P.', 'Welling, Max']
    """
    folder = PACKAGE.parent / "docs" if is_checkout() else gallery()
    text = (folder / "references.bib").read_text(encoding="utf-8")
    return {key: _entry(key, body) for key, body in _ENTRY.findall(text)}


def _entry(key, body):
    fields = {name: _plain(value) for name, value in _FIELD.findall(body)}
    try:
        authors, title, year = (fields[name] for name in ("author", "title", "year"))
    except KeyError as error:
        raise ValueError(
            "An entry of references.bib has author, title and year, one a line. "
            f"Received: {key} without {error}"
        ) from None
    if re.search(r"[{}\\]", "".join(fields.values())):
        raise ValueError(
            f"references.bib has accents as known here. Received: {key}, {fields}"
        )
    url = fields.get("url") or fields.get("doi")
    if url and not url.startswith("http"):
        url = f"https://doi.org/{url}"
    return {"authors": authors.split(" and "), "title": title, "year": year, "url": url}


def _plain(text):
    """LaTeX as Unicode, without the braces that keep capitals."""
    text = re.sub(r"\{\\([A-Za-z]+)\}", lambda m: _LETTERS.get(m[1], m[0]), text)
    text = _ACCENT.sub(lambda m: (m[2] or m[4]) + _ACCENTS[m[1] or m[3]], text)
    text = re.sub(r"[{}]", "", unicodedata.normalize("NFC", text))
    for latex, sign in _SIGNS.items():
        text = text.replace(latex, sign)
    return text


def cite(paper):
    """Authors and year of a paper, as a text names them.

    Args:
        paper: A value of :func:`bibliography`.

    Returns:
        Pair of strings, ``("Kingma and Welling", "2014")``.

    Example:
        >>> cite(bibliography()["zhang2019lookahead"])
        ('Zhang et al.', '2019')
    """
    names = [author.partition(", ")[0] for author in paper["authors"]]
    if len(names) > 2 or names[-1] == "others":
        return f"{names[0]} et al.", paper["year"]
    return " and ".join(names), paper["year"]


def reference(paper):
    """A paper as a list of references has it, in Markdown.

    Args:
        paper: A value of :func:`bibliography`.

    Returns:
        String.

    Example:
        >>> reference(bibliography()["kingma2014auto"])
        'Diederik P. Kingma and Max Welling. *Auto-Encoding Variational Bayes*. 2014...'
    """
    names = [" ".join(reversed(a.split(", "))) for a in paper["authors"]]
    last = names.pop()
    if names:
        last = f"{', '.join(names)} and {last}"
    link = f" <{paper['url']}>" if paper["url"] else ""
    return f"{last}. *{paper['title']}*. {paper['year']}.{link}"
