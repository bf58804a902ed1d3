"""Tests of the notebooks that are made of the gallery scripts."""

import ast
import builtins
import json
import re
from pathlib import Path

import pytest
from source_files import ROOT, SCRIPTS, each

from dlcompanion import topics
from dlcompanion.topics.bibliography import bibliography, cite, reference
from dlcompanion.topics.markdown import MACROS, Converter

pytestmark = pytest.mark.once

SHORT = next(ROOT.glob("gallery/*/plot_curse_of_dimensionality.py"))


def cells(script, kind):
    content = json.loads(topics.notebook(script))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 4)
    return ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == kind]


# -- all pages ----------------------------------------------------------------


@each(SCRIPTS)
def test_all_code_of_a_script_is_there_in_order(path):
    code = cells(path, "code")
    for cell in code:
        compile(cell, path.name, "exec")
        assert cell.strip() and "sphinx_gallery" not in cell and "%%" not in cell
    found = ast.parse("\n".join(code[1:])).body
    docstring, *body = ast.parse(path.read_text(encoding="utf-8")).body
    assert [ast.dump(node) for node in found] == [ast.dump(node) for node in body]


@each(SCRIPTS)
def test_no_raw_markup_is_left(path):
    text = "\n".join(cells(path, "markdown"))
    assert not re.findall(r":[a-z:]+:`.*", text)
    assert not re.findall(r"^.*\.\. .*", text, re.MULTILINE)
    assert not re.findall(r"^(?:=+|-{3,})$|::$|`_\b", text, re.MULTILINE)
    assert text.count("$$") % 2 == 0 and not re.search(r"\\[RE]\b", text)
    assert text.startswith("# ")


@each(SCRIPTS)
def test_all_words_of_a_script_are_there(path):
    """Every long word of the text, outside of roles, and every formula."""
    source = path.read_text(encoding="utf-8")
    said = [ast.get_docstring(ast.parse(source))]
    said += re.findall(r"^# %%.*\n((?:#.*\n)+)", source, re.MULTILINE)
    said = re.sub(r"^# ?", "", "\n".join(said), flags=re.MULTILINE)
    formulas = re.findall(r":math:`([^`]+)`", said)
    plain = re.sub(r":[a-z:]+:`[^`]+`|^ *\.\. .*|^ +:\w+:.*", "", said, flags=re.M)
    text = " ".join("\n".join(cells(path, "markdown")).split())
    missing = [w for w in set(re.findall(r"[A-Za-z]{6,}", plain)) if w not in text]
    assert not missing
    for formula in formulas:
        for name, command in MACROS.items():
            formula = re.sub(rf"\\{name}\b", lambda m: command, formula)  # noqa: B023
        assert f"${' '.join(formula.split())}$" in text


@each(SCRIPTS)
def test_every_paper_that_is_cited_is_in_the_references(path):
    source = path.read_text(encoding="utf-8")
    keys = re.findall(r":cite:\w:`([^`]+)`", source)
    keys = {key.strip() for group in keys for key in group.split(",")}
    *_, last = cells(path, "markdown")
    rows = last.splitlines()
    assert rows[0] == "**References in full**"
    expected = {f"- {reference(bibliography()[key])}" for key in keys}
    assert set(rows[2:]) == expected and len(rows) == len(expected) + 2


@each(SCRIPTS)
def test_links_lead_to_notebooks_of_pages(path):
    text = "\n".join(cells(path, "markdown"))
    pages = {f"{script.stem}.ipynb" for script in SCRIPTS}
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert all(link in pages or link.startswith("https://") for link in links)


# -- one page, run ------------------------------------------------------------


def test_the_cells_of_a_notebook_run_in_order(tmp_path, monkeypatch, capsys):
    import matplotlib.pyplot

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    record = tmp_path / "claims.jsonl"
    monkeypatch.delenv("DLCOMPANION_SEED_OFFSET", raising=False)
    monkeypatch.setenv("DLCOMPANION_CLAIMS", str(record))
    names = {"__name__": "__main__"}
    for cell in cells(SHORT, "code"):
        exec(cell, names)
    matplotlib.pyplot.close("all")
    made = [json.loads(line) for line in record.read_text().splitlines()]
    texts = [claim["text"] for claim in topics.find_topic(SHORT.stem[5:])["claims"]]
    assert [claim["text"] for claim in made] == texts
    assert all(claim["holds"] for claim in made)
    out = capsys.readouterr().out
    assert out.count("holds") >= len(texts) and "not installed" not in out


def test_the_first_cell_says_how_to_install(capsys):
    first, *_ = cells(SHORT, "code")
    exec(first, without("dlcompanion"))
    out = capsys.readouterr().out
    for words in ("not on PyPI yet", 'pip install ".[gallery]"', "whl[gallery]"):
        assert words in out
    assert "%pip" not in first
    # what the package itself misses, it says itself
    with pytest.raises(ModuleNotFoundError, match="keras"):
        exec(first, without("keras"))


def without(name):
    """The names of a notebook whose every import ends in a missing package."""

    def import_(*args, **kwargs):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return {"__builtins__": {**vars(builtins), "__import__": import_}}


# -- markup -------------------------------------------------------------------


def convert(text):
    titles = {"ppo": "PPO", "dqn": "Deep Q-network"}
    papers = {"a": ("Zhang et al.", "2019"), "b": ("Kool", "2019")}
    return Converter(titles, papers.__getitem__)(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("``x`` and ``:math:`y` ``", "`x` and `:math:`y` `"),
        (":math:`a\n  b`", "$a b$"),
        (r":math:`x \in \R^n, \Rightarrow \E[x]`",)
        + (r"$x \in \mathbb{R}^n, \Rightarrow \mathbb{E}[x]$",),
        (r":math:`k`\ -th", "$k$-th"),
        (":class:`~keras.layers.Dense`", "`Dense`"),
        (":py:class:`keras.layers.Dense`", "`keras.layers.Dense`"),
        (":func:`the gradient <keras.grad>`", "`the gradient`"),
        (":doc:`/gallery/reinforcement/plot_ppo`", "[PPO](plot_ppo.ipynb)"),
        (":doc:`its page\n</gallery/reinforcement/plot_ppo>`",)
        + ("[its page](plot_ppo.ipynb)",),
        (":ref:`sphx_glr_gallery_reinforcement_plot_dqn.py`",)
        + ("[Deep Q-network](plot_dqn.ipynb)",),
        (":doc:`/notation`", "the page *notation* of the site"),
        (":doc:`benchmarks </benchmarks>`", "benchmarks"),
        (":term:`logit`", "logit"),
        (":cite:p:`a`", "(Zhang et al., 2019)"),
        (":cite:p:`a, b`", "(Zhang et al., 2019; Kool, 2019)"),
        (":cite:t:`a`, eq. 1", "Zhang et al. (2019), eq. 1"),
        ("`Keras <https://keras.io>`_", "[Keras](https://keras.io)"),
        ("*this* and **that**", "*this* and **that**"),
        ("A title\n=======\n\nText", "# A title\n\nText"),
        ("- one\n  more\n- two", "- one\n  more\n- two"),
        (".. math:: a = b", "$$\na = b\n$$"),
        ("As\n\n.. math::\n\n   a\n\n   b \\\\ c\n\nsays",)
        + ("As\n\n$$\na\n$$\n\n$$\n\\begin{aligned}\nb \\\\ c\n\\end{aligned}\n$$"
           "\n\nsays",),
        ("- if\n\n  .. math:: a\n\n  then", "- if\n\n  $$\n  a\n  $$\n\n  then"),
        (".. code-block:: python\n\n   if x:\n\n       :math:`y`\n",)
        + ("```python\nif x:\n\n    :math:`y`\n```",),
        (".. dropdown:: Hint to 1\n   :animate: fade\n\n   Use :math:`k`.\n\nOn",)
        + ("<details>\n<summary>Hint to 1</summary>\n\nUse $k$.\n\n</details>\n\nOn",),
        (".. figure:: /drawings/x.svg\n   :figclass: drawing\n   :alt: One arrow\n"
         "      from a to b.\n\n   Of :math:`k`.\n\nOn",)
        + ("*Drawing on the page of the site.* One arrow from a to b.\n\nOf $k$."
           "\n\nOn",),
        (".. note:: Of :math:`k`.", "> **Note**\n> \n> Of $k$."),
    ],
)  # fmt: skip
def test_markup(text, expected):
    assert convert(text) == expected


def test_headings_have_one_level_over_all_cells():
    converter = Converter({}, None)
    assert converter("Page\n====\n\nPart\n----") == "# Page\n\n## Part"
    assert converter("Other\n-----\n\nSmall\n~~~~~") == "## Other\n\n### Small"


@pytest.mark.parametrize(
    ("text", "received"),
    [
        (".. frob:: it", ".. frob::"),
        ("of :frob:`it`", ":frob:`it`"),
    ],
)
def test_unknown_markup_is_refused(text, received):
    with pytest.raises(ValueError, match=f"Received: {re.escape(received)}"):
        convert(text)


def test_a_paper_that_is_not_known_is_refused(tmp_path):
    script = tmp_path / "plot_x.py"
    script.write_text('"""\nX\n=\n\n:cite:p:`nobody1900nothing`\n"""\n')
    with pytest.raises(ValueError, match="Received: 'nobody1900nothing'"):
        topics.notebook(script)


def test_a_script_is_cut_where_its_cells_are(tmp_path):
    script = tmp_path / "plot_x.py"
    script.write_text(
        'r"""\nPage\n====\n"""\n\nimport a\n\n# %%\n# Part\n# ----\n#\n# Text.\n\n'
        '# code\nb = """\n# no text\n"""\n# %% More\nc = 1\n\n# %%\n# Last.\n\n'
        '# sphinx_gallery_tags = ["loss"]\n'
    )
    content = json.loads(topics.notebook(script))["cells"][1:]
    found = [(c["cell_type"], "".join(c["source"])) for c in content]
    assert found == [
        ("markdown", "# Page"),
        ("code", "import a"),
        ("markdown", "## Part\n\nText."),
        ("code", '# code\nb = """\n# no text\n"""'),
        ("markdown", "More"),
        ("code", "c = 1"),
        ("markdown", "Last."),
    ]


# -- papers -------------------------------------------------------------------


def test_every_entry_is_read_as_plain_text():
    text = Path(ROOT / "docs/references.bib").read_text(encoding="utf-8")
    papers = bibliography()
    assert list(papers) == re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE)
    for key, paper in papers.items():
        assert re.fullmatch(r"\d{4}", paper["year"]) and paper["year"] in key, key
        text = " ".join([*paper["authors"], paper["title"]])
        assert not re.search(r"[{}\\$~]|``|''", text), key
        assert all(", " in a for a in paper["authors"] if a != "others"), key
        assert paper["url"] is None or paper["url"].startswith("https://"), key


def test_papers_as_they_are_printed():
    papers = bibliography()
    assert reference(papers["sonderby2016ladder"]) == (
        "Casper Kaae Sønderby, Tapani Raiko, Lars Maaløe, Søren Kaae Sønderby and Ole "
        "Winther. *Ladder Variational Autoencoders*. 2016."
    )
    assert cite(papers["lattimore2020bandit"]) == ("Lattimore and Szepesvári", "2020")
    assert reference(papers["mnih2015human"]).startswith(
        "Volodymyr Mnih, Koray Kavukcuoglu, David Silver and others. *Human-level"
    )
    assert reference(papers["mnih2015human"]).endswith(
        "2015. <https://doi.org/10.1038/nature14236>"
    )


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ("  title = {T},\n  year = {2000}\n", "author, title and year.*x2000 without"),
        (
            "  title = {T},\n  author = {A, B{\\frob}},\n  year = {2000}\n",
            "accents as known.*x2000",
        ),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(tmp_path, monkeypatch, entry, rule):
    from dlcompanion.topics import bibliography as module

    (tmp_path / "references.bib").write_text(f"@misc{{x2000,\n{entry}}}\n")
    monkeypatch.setattr(module, "is_checkout", lambda: False)
    monkeypatch.setattr(module, "gallery", lambda: tmp_path)
    with pytest.raises(ValueError, match=f"{rule}.*"):
        module.bibliography()
