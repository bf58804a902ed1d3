"""What can be said about a built page without a browser: its faults, as sentences."""

import functools
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lxml.html

SOURCES = ("src", "href", "poster", "data", "srcset")
DELIMITED = re.compile(r"\\\(.*\\\)|\\\[.*\\\]", re.DOTALL)
IN_STYLE = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


PARSER = lxml.html.HTMLParser(encoding="utf-8")


@functools.cache
def parse(path):
    return lxml.html.fromstring(path.read_bytes(), parser=PARSER)


def faults(path, site):
    """Everything that is wrong with the page at ``path`` of the folder ``site``."""
    page = parse(path)
    yield from headings(page)
    yield from names(page)
    yield from formulas(page)
    yield from addresses(page, path, site)


def headings(page):
    """One h1, no level left out, no heading without words."""
    found = [e for e in page.iter("h1", "h2", "h3", "h4", "h5", "h6")]
    levels = [int(e.tag[1]) for e in found]
    if levels.count(1) != 1:
        yield f"{levels.count(1)} headings of level 1"
    for one, two, heading in zip(levels, levels[1:], found[1:], strict=False):
        if two > one + 1:
            yield f"h{two} after h{one}: {words(heading)}"
    yield from (f"an empty {e.tag}" for e in found if not words(e).strip("# "))


def names(page):
    """What a screen reader reads out: language, title, pictures, links, fields."""
    if not page.get("lang"):
        yield "the page names no language"
    if not (page.findtext(".//title") or "").strip():
        yield "the page has no title"
    for image in page.iter("img"):
        if image.get("alt") is None:
            yield f"no alt text: {image.get('src')}"
        elif is_figure(image) and not image.get("alt").strip():
            yield f"a figure with an empty alt text: {image.get('src')}"
    for link in page.iterfind(".//a[@href]"):
        if not named(link):
            yield f"a link without words: {link.get('href')}"
    labels = {label.get("for") for label in page.iter("label") if words(label)}
    for field in page.iter("button", "input", "select", "textarea"):
        labelled = field.get("type") == "hidden" or field.get("id") in labels
        if not labelled and not named(field):
            yield f"a {field.tag} without a name"
    ids = [e.get("id") for e in page.iterfind(".//*[@id]")]
    yield from (f"id {i!r} twice" for i in sorted({i for i in ids if ids.count(i) > 1}))


def is_figure(image):
    """Whether a picture says something that the text beside it does not."""
    parent = image.getparent()
    drawing = parent is not None and "drawing" in parent.classes
    return drawing or "sphx-glr-single-img" in image.classes


def words(element):
    return "".join(element.itertext()).strip()


def named(element):
    alone = (element.get(key, "").strip() for key in ("aria-label", "title"))
    inner = (image.get("alt", "").strip() for image in element.iter("img", "svg"))
    return bool(words(element) or any(alone) or any(inner))


def formulas(page):
    """Every formula is still TeX between its delimiters, and MathJax is on the page."""
    found = list(page.find_class("math"))
    for formula in found:
        if not DELIMITED.fullmatch(words(formula)):
            yield f"a formula without delimiters: {words(formula)}"
    scripts = [e.get("src", "") for e in page.iter("script")]
    if found and not any("mathjax" in source for source in scripts):
        yield "formulas, and no MathJax"


def tex(page):
    """Every formula of a page without its delimiters, and whether it is displayed."""
    for formula in page.find_class("math"):
        text = words(formula)
        yield text[2:-2].strip(), text.startswith("\\[")


def addresses(page, path, site):
    """Every address inside the site is there, and nothing else is loaded."""
    for element in page.iter(lxml.html.etree.Element):
        for key in SOURCES:
            value = element.get(key)
            if value is None:
                continue
            each = value.split(",") if key == "srcset" else [value]
            for address in each:
                address = (address.split() or [""])[0] if key == "srcset" else address
                loads = element.tag not in ("a", "area")
                yield from wrong(address, loads, path, site)
    styles = [e.get("style") for e in page.iterfind(".//*[@style]")]
    styles += [words(e) for e in page.iter("style")]
    for style in styles:
        for match in IN_STYLE.finditer(style):
            yield from wrong(match[1] or match[2], True, path, site)


def wrong(address, loads, path, site):
    """What is wrong with one address: nothing, or one sentence."""
    parts = urlsplit(address)
    if parts.scheme == "data" or (parts.scheme == "mailto" and not loads):
        return
    if parts.scheme or parts.netloc:
        if loads:
            yield f"loads from a foreign host: {address}"
        return
    target = resolved(path.parent, parts.path) if parts.path else path
    if target is None:
        yield f"leads to no file: {address}"
    elif not target.is_relative_to(site):
        yield f"leads out of the site: {address}"
    elif parts.fragment and target.suffix == ".html":
        if unquote(parts.fragment) not in anchors(target):
            yield f"leads to no place on the page: {address}"


@functools.cache
def resolved(folder, address):
    """The file that a relative address names, None if there is none."""
    target = Path(os.path.normpath(folder / unquote(address)))
    return target if target.is_file() else None


@functools.cache
def anchors(path):
    page = parse(path)
    return {e.get("id") for e in page.iterfind(".//*[@id]")} | {
        e.get("name") for e in page.iterfind(".//a[@name]")
    }


def style_faults(path, site):
    """What is wrong with the addresses of a style sheet."""
    for match in IN_STYLE.finditer(path.read_text(encoding="utf-8")):
        yield from wrong(match[1] or match[2], True, path, site)
