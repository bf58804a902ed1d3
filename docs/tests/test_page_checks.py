"""Each fault that the checks of a page look for, planted in a page without any."""

import page_checks
import pytest

PAGE = """<!DOCTYPE html><html lang="en"><head><title>A page</title>
<script src="_static/mathjax/tex.js"></script></head><body>
<h1>A page<a href="#end" title="Link to this heading">#</a></h1><h2>Part</h2>
<p>An <a href="other.html#place">other page</a>, <a href="https://keras.io">Keras</a>,
<span class="math">\\(x^2\\)</span>.</p>
<img class="sphx-glr-single-img" src="_images/a.png" srcset="_images/a.png 2x" alt="A">
<label for="field">Word</label><input id="field"><button aria-label="Go"></button>
<p id="end" style="background: url(_images/a.png)"></p></body></html>"""

PLANTED = {
    "2 headings of level 1": ("<h2>Part", "<h1>Part"),
    "h3 after h1: Part": ("<h2>Part</h2>", "<h3>Part</h3>"),
    "an empty h2": ("<h2>Part", "<h2>"),
    "the page names no language": (' lang="en"', ""),
    "the page has no title": ("<title>A page", "<title>"),
    "no alt text: _images/a.png": (' alt="A"', ""),
    "a figure with an empty alt text: _images/a.png": (' alt="A"', ' alt=""'),
    "a link without words: https://keras.io": (">Keras<", "><"),
    "a button without a name": (' aria-label="Go"', ""),
    "a input without a name": (">Word<", "><"),
    "id 'end' twice": ("<h2>", '<h2 id="end">'),
    "a formula without delimiters: x^2": ("\\(x^2\\)", "x^2"),
    "formulas, and no MathJax": ('<script src="_static/mathjax/tex.js"></script>', ""),
    "loads from a foreign host: https://a.org/b.js": (
        "_static/mathjax/tex.js",
        "https://a.org/b.js",
    ),
    "loads from a foreign host: //a.org/b.png": (
        "_images/a.png 2x",
        "//a.org/b.png 2x",
    ),
    "loads from a foreign host: http://a.org/c": (
        "url(_images/a.png",
        "url(http://a.org/c",
    ),
    "leads to no file: none.html": ("other.html#place", "none.html"),
    "leads to no file: _images/b.png": ('src="_images/a.png"', 'src="_images/b.png"'),
    "leads to no place on the page: other.html#where": ("#place", "#where"),
    "leads to no place on the page: #start": ("#end", "#start"),
    "leads out of the site: ../outside.html": ("other.html#place", "../outside.html"),
}


@pytest.fixture
def site(tmp_path):
    for name in ("_static/mathjax/tex.js", "_images/a.png", "../outside.html"):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    other = PAGE.replace('id="end"', 'id="place"').replace("#end", "#place")
    (tmp_path / "site" / "other.html").write_text(other)
    return tmp_path / "site"


def faults(site, text):
    (site / "page.html").write_text(text)
    return list(page_checks.faults(site / "page.html", site))


def test_a_page_without_faults_has_none(site):
    assert faults(site, PAGE) == []


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(site, fault):
    old, new = PLANTED[fault]
    assert old in PAGE
    found = faults(site, PAGE.replace(old, new, 1))
    assert fault in found
    # MathJax goes with the address of its script
    assert set(found) <= {fault, "formulas, and no MathJax"}


def test_a_planted_fault_of_a_style_sheet_is_found(site):
    sheet = site / "_static" / "a.css"
    sheet.write_text("@import 'https://a.org/b.css'; p { background: url(b.png) }")
    assert list(page_checks.style_faults(sheet, site)) == [
        "loads from a foreign host: https://a.org/b.css",
        "leads to no file: b.png",
    ]
