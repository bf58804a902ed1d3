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


def test_the_search_knows_every_term_of_the_glossary():
    terms = page_checks.parse(SITE / "glossary.html").xpath("//dl//dt/@id")
    text = (SITE / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    entries = index["indexentries"].values()
    known = {target for entry in entries for _, target, _ in entry}
    assert len(terms) >= 20
    assert set(terms) - known == set()


@pytest.mark.parametrize("page", SCRIPTS)
def test_the_path_above_a_page_ends_in_its_topic(page):
    parsed = page_checks.parse(SITE / page)
    (last,) = parsed.xpath("//ul[@class='bd-breadcrumbs']/li[@aria-current]")
    topic, _, claim = page_checks.words(parsed.find(".//h1")).partition(": ")
    assert claim and page_checks.words(last) == topic


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


def kind_of(page):
    """``Agent`` or ``Model`` of the API page of one; else other words, or none."""
    lines = page_checks.parse(SITE / page).find_class("kind-line")
    return lines[0].text_content().split(" · ")[0] if lines else ""


OBJECTS = [p for p in PAGES if p.startswith("api/generated/")]
MODELS = [p for p in OBJECTS if kind_of(p) in ("Agent", "Model")]
CHAPTERS = [p for p in PAGES if p.startswith("api/") and p.count("/") == 1]


@pytest.mark.parametrize("page", MODELS)
def test_the_page_of_a_model_says_how_it_is_used(page):
    parsed = page_checks.parse(SITE / page)
    stem = page.rpartition("/")[2].removesuffix(".html")
    full = {e.get("id", "").removeprefix(f"{stem}.") for e in parsed.iter("dt")}
    named = {e.text_content().partition("(")[0] for e in parsed.iter("td")}
    agent = kind_of(page) == "Agent"
    used = {"fit", "predict", "evaluate", "save"}
    used |= {"load"} if agent else {"keras.saving.load_model"}
    assert used <= full | named
    internal = {"attach", "learn_from_rollout", "arrays", "parts_of", "get_config"}
    assert not internal & full


def test_there_are_models_and_agents():
    assert {kind_of(page) for page in MODELS} == {"Agent", "Model"}


@pytest.mark.parametrize("page", CHAPTERS)
def test_the_headings_of_a_chapter_are_words(page):
    headings = [page_checks.words(e) for e in page_checks.parse(SITE / page).iter("h2")]
    assert [h for h in headings if "_" in h or "." in h.rstrip("#. ")] == []


@pytest.mark.parametrize("page", SCRIPTS)
def test_every_claim_that_holds_is_marked(page):
    for block in page_checks.parse(SITE / page).find_class("sphx-glr-script-out"):
        lines = block.text_content().splitlines()
        marked = [e.text_content() for e in block.find_class("holds")]
        if block.tag == "div":
            assert len(marked) == sum(line.startswith("holds   ") for line in lines)


def test_the_bars_of_the_topic_map_tell_how_much_is_written():
    page = page_checks.parse(SITE / "topics.html")
    lists = page.find_class("topic-map")
    bars = [e.text_content().split(" of ") for e in page.find_class("share")]
    counts = [(len(e.find_class("is-written")), len(e)) for e in lists]
    assert [(int(w), int(n.split()[0])) for w, n in bars] == counts
    assert sum(written for written, _ in counts) >= len(SCRIPTS) // 2


def test_the_course_shows_the_weeks_that_can_be_taught():
    page = page_checks.parse(SITE / "paths/course.html")
    weeks = [
        section for section in page.iter("section") if section.find("h2") is not None
    ]
    shown = re.search(r"(\d+) of (\d+) weeks can be taught", page.text_content())
    assert int(shown[1]) == len(weeks) > 0
    assert int(shown[2]) == 12
    for week in weeks:
        (pages,) = week.find_class("steps")
        assert len(pages) >= 2
        assert all(item.find(".//a") is not None for item in pages)
    card = page_checks.parse(SITE / "paths/index.html").text_content()
    assert shown[0] in card


def test_a_benchmark_says_what_it_found_before_its_table():
    page = page_checks.parse(SITE / "benchmarks.html")
    results = [
        section for section in page.iter("section") if section.find("h2") is not None
    ]
    assert len(results) >= 10
    for result in results:
        (verdict,) = result.find_class("verdict")
        assert "times" in verdict.text_content()
        assert result.find_class("cost")
        (table,) = result.find_class("benchmark")
        assert any(e.tag == "details" for e in table.iterancestors())
