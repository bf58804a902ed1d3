"""A page of the book as a Jupyter notebook, made of its script."""

import ast
import json
import re

from dlcompanion import __version__
from dlcompanion.topics.bibliography import bibliography, cite, reference
from dlcompanion.topics.catalogue import topics
from dlcompanion.topics.markdown import Converter

_CELL = re.compile(r"^# ?%%(.*)\n((?:#.*\n?)*)", re.MULTILINE)
_SETTING = re.compile(r"^# sphinx_gallery_\w+ = .*$", re.MULTILINE)
_FIRST = f"""\
# This notebook is a page of dlcompanion {__version__} and needs that package.
try:
    import dlcompanion
except ModuleNotFoundError as error:
    if error.name != "dlcompanion":
        raise
    print(
        "dlcompanion is not installed for the Python of this notebook. "
        "It is not on PyPI yet.\\n"
        "From a clone of its repository:   pip install \\".[gallery]\\"\\n"
        "From a wheel that was built:      "
        "pip install \\"dlcompanion-{__version__}-py3-none-any.whl[gallery]\\"\\n"
        "On JAX it is gallery-jax, on PyTorch gallery-torch, instead of gallery.\\n"
        "Then restart the kernel and run this cell again."
    )
"""


def notebook(script):
    """The notebook of a gallery script.

    The docstring and the text after each ``# %%`` become Markdown, all else becomes
    code, in the order of the script. A first cell says how to install the package if
    it is missing, a last one has the papers that the page cites.

    Args:
        script: ``pathlib.Path`` of a gallery script.

    Returns:
        String, the content of an ``.ipynb`` file.

    Raises:
        ValueError: If the text has markup that notebooks cannot show, or cites a paper
            that is not in the bibliography.

    Example:
        >>> from dlcompanion.topics import find_topic, script_path
        >>> print(notebook(script_path(find_topic("lookahead"))))  # doctest: +ELLIPSIS
        {
         "cells": [
        ...
    """
    papers, cited = bibliography(), set()

    def cite_key(key):
        if key not in papers:
            raise ValueError(
                f"A page cites papers of docs/references.bib. Received: {key!r}"
            )
        cited.add(key)
        return cite(papers[key])

    titles = {slug: topic["title"] for slug, topic in topics().items()}
    convert = Converter(titles, cite_key)
    cells = [_code(_FIRST)]
    for kind, text in _parts(script.read_text(encoding="utf-8")):
        if kind == "text":
            cells.append(_markdown(convert(text)))
        else:
            cells.append(_code(text))
    if cited:
        rows = sorted(cited, key=lambda key: (papers[key]["authors"], key))
        rows = [f"- {reference(papers[key])}" for key in rows]
        cells.append(_markdown("\n".join(["**References in full**", "", *rows])))
    python = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": python},
        "nbformat": 4,
        "nbformat_minor": 4,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _parts(source):
    """The kind, ``"text"`` or ``"code"``, and the content of each part of a script."""
    docstring = ast.parse(source).body[0]
    yield "text", ast.literal_eval(docstring.value)
    rest = "".join(source.splitlines(keepends=True)[docstring.end_lineno :])
    # code, and then a title, the text under it and code again, for each cell
    code, *cells = _CELL.split(_SETTING.sub("", rest))
    yield from _if_any("code", code)
    for title, text, code in zip(*[iter(cells)] * 3, strict=True):
        lines = [title.strip(), *re.sub(r"^# ?", "", text, flags=re.M).splitlines()]
        yield from _if_any("text", "\n".join(lines))
        yield from _if_any("code", code)


def _if_any(kind, content):
    if content.strip():
        yield kind, content.strip("\n")


def _markdown(text):
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(text):
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {**cell, "source": _lines(text)}


def _lines(text):
    return text.strip("\n").splitlines(keepends=True)
