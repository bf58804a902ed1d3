"""Every page of the built site, without a browser: what it says and where it leads."""

import json
import os
import re
import zipfile
from pathlib import Path

import page_checks
import pytest

DOCS = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("DLCOMPANION_SITE", DOCS / "_build" / "html")).resolve()
NOT_EXECUTED = "Not executed in this build."


def found(pattern):
    return sorted(str(path.relative_to(SITE)) for path in SITE.glob(pattern))


PAGES = [page for page in found("**/*.html") if not page.startswith("_static/")]
SCRIPTS = found("gallery/*/plot_*.html")


def test_the_site_is_there():
    assert "index.html" in PAGES, "build the site first: tox run -e docs"
    assert SCRIPTS, "the site has no gallery page"


@pytest.mark.parametrize("page", PAGES)
def test_page_is_well_made(page):
    assert list(page_checks.faults(SITE / page, SITE)) == []


@pytest.mark.parametrize("sheet", found("_static/**/*.css"))
def test_a_style_sheet_loads_what_is_there(sheet):
    assert list(page_checks.style_faults(SITE / sheet, SITE)) == []


@pytest.mark.parametrize("page", SCRIPTS)
def test_a_script_shows_its_figures_and_claims(page):
    text = (SITE / page).read_text(encoding="utf-8")
    parsed = page_checks.parse(SITE / page)
    (line,) = parsed.find_class("kind-line")
    output = parsed.find_class("sphx-glr-script-out")
    figures = [e for e in parsed.iter("img", "video") if e.getparent() is not None]
    figures = [e for e in figures if f"sphx_glr_{Path(page).stem}_" in source(e)]
    if NOT_EXECUTED in text:
        assert not output and not figures
    else:
        assert output and figures
        held, claims = line.xpath("string(a)").split(" claims hold")[0].split(" of ")
        assert int(held) == int(claims) > 0


def source(element):
    """The address of a picture or of a video."""
    inner = element.find("source")
    return element.get("src") or (inner.get("src") if inner is not None else "")


@pytest.mark.parametrize("page", SCRIPTS)
def test_a_script_can_be_downloaded(page):
    stem = Path(page).stem
    text = (SITE / page).read_text(encoding="utf-8")
    for ending in (".py", ".ipynb"):
        files = list(SITE.glob(f"_downloads/*/{stem}{ending}"))
        assert len(files) == 1
        assert f"{files[0].parent.name}/{stem}{ending}" in text
    notebook = json.loads(files[0].read_text(encoding="utf-8"))
    first, *cells = notebook["cells"]
    for words in ("import dlcompanion", "pip install", ".[gallery]", "whl[gallery]"):
        assert words in "".join(first["source"])
    text = [c["source"] for c in cells if c["cell_type"] == "markdown"]
    raw = re.compile(r":[a-z:]+:`|^ *\.\. [a-z-]+::", re.MULTILINE)
    assert text and not raw.search("\n".join("".join(source) for source in text))
    # the archives hold the same notebook
    for archive in (f"{stem}.zip", "gallery_jupyter.zip"):
        (path,) = SITE.glob(f"_downloads/*/{archive}")
        with zipfile.ZipFile(path) as files_in_it:
            (name,) = [n for n in files_in_it.namelist() if n.endswith(files[0].name)]
            assert files_in_it.read(name) == files[0].read_bytes()
