"""What the site knows about the book: chapters, topics, scripts, runs and claims.

Everything is read from the repository or from what the scripts left behind in
``_generated`` when they ran; nothing here is written by hand twice.
"""

import ast
import functools
import hashlib
import json
import os
import re
from pathlib import Path

from dlcompanion import topics as catalogue
from dlcompanion.claims import SEED_OFFSET

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
PACKAGE = ROOT / "dlcompanion"
GALLERY = ROOT / "gallery"
GENERATED = DOCS / "_generated"

#: Chapter slug -> its table (slug, title, description), in the book's order.
CHAPTERS = catalogue.chapters()


def gallery_chapters():
    """Chapters that have a gallery folder, in the book's order."""
    folders = {p.parent.name for p in GALLERY.glob("*/GALLERY_HEADER.rst")}
    unknown = sorted(folders - CHAPTERS.keys())
    if unknown:
        raise ValueError(f"gallery folders that are no chapter: {unknown}")
    return [name for name in CHAPTERS if name in folders]


def scripts(chapter="*"):
    """Every gallery script, in the order of the site."""
    order = list(CHAPTERS)
    found = GALLERY.glob(f"{chapter}/plot_*.py")
    return sorted(
        found, key=lambda p: (order.index(p.parent.name), position(p.name), p.name)
    )


def position(file):
    """Where a script stands in the book: at its topic, in the order of the catalogue.

    sphinx-gallery sorts the scripts of a chapter by it.
    """
    slugs = list(catalogue.topics())
    slug = Path(file).stem.removeprefix("plot_")
    return slugs.index(slug) if slug in slugs else len(slugs)


def script_title(path):
    """The title of a script: the first line of its docstring."""
    return ast.get_docstring(ast.parse(path.read_text())).strip().splitlines()[0]


def script_document(path):
    """The Sphinx document that sphinx-gallery makes of a script."""
    return f"/gallery/{path.parent.name}/{path.stem}"


def topics():
    """The topics of the catalogue, in the book's order."""
    return list(catalogue.topics().values())


def topic(slug):
    return catalogue.topics()[slug]


def script_of(topic):
    """The script that shows a topic, or None while there is none."""
    path = ROOT / topic["script"]
    return path if path.is_file() else None


def run(path):
    """What gallery_hooks noted about the last execution of a script, or {}."""
    file = GENERATED / "runs" / f"{path.stem}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def claims(path):
    """The claims that a script recorded when it last ran, in order."""
    file = GENERATED / "claims" / f"{path.stem}.jsonl"
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().splitlines()]


def outdated_record(path):
    """Whether the committed record of a script lacks what it claims now."""
    record = catalogue.read_record(path.stem.removeprefix("plot_"))
    recorded = (
        [(c["text"], c["comparison"]) for c in record["claims"]] if record else []
    )
    return recorded != [(c["text"], c["comparison"]) for c in claims(path)]


def record(path):
    """Write the committed record of a script from its last run."""
    slug = path.stem.removeprefix("plot_")
    return catalogue.write_record(slug, run(path), claims(path))


def number(value):
    """A number as a reader wants it: four digits, a true minus, 2×10⁻⁵."""
    text = value if isinstance(value, str) else f"{value:.4g}"
    if not isinstance(value, str) and 1e3 < abs(value) < 1e7:
        text = f"{value:,.0f}"
    if "e" in text and not isinstance(value, str):
        mantissa, exponent = text.split("e")
        raised = str(int(exponent)).translate(
            str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
        )
        text = f"{mantissa}×10{raised}"
    return text.replace("-", "−")


def parts(claim):
    """Value, comparison and bound of a claim, as a reader writes them."""
    sign = {"<=": "≤", ">=": "≥", "==": "="}
    unit = f" {claim['unit']}" if claim["unit"] else ""
    return (
        number(claim["value"]) + unit,
        sign.get(claim["comparison"], claim["comparison"]),
        number(claim["bound"]) + unit,
    )


def escape(text):
    """Plain text as reStructuredText that shows it unchanged."""
    return re.sub(r"([\\\\*_`|])", r"\\\1", text)


def minutes(seconds):
    """Seconds as '40 s' or '2.5 min'."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


# -- what a script depends on -------------------------------------------------


def fingerprint(script):
    """Hash of a script, its seeds and every file of the package that it uses.

    sphinx-gallery re-runs a script when its text has changed. A page must also be
    measured anew when the component behind it has changed.
    """
    digest = hashlib.sha256(os.environ.get(SEED_OFFSET, "0").encode())
    for path in sorted({script, *_imports(script, set())}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _imports(path, seen):
    """Files of the package that `path` imports, directly or not."""
    for file in _imported(path, path.read_text()):
        if file not in seen:
            seen.add(file)
            _imports(file, seen)
    return seen


@functools.cache
def _imported(path, text):
    """Files of the package that a file with this text imports."""
    files = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            names = [(_absolute(node, path), alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        else:
            continue
        for module, name in names:
            if module.split(".")[0] == "dlcompanion":
                files += _files(module, name)
    return files


def _absolute(node, path):
    """The module that an import statement of `path` names, dots resolved."""
    if not node.level:
        return node.module
    folder = path.relative_to(ROOT).parts[: -node.level]
    return ".".join([*folder, *([node.module] if node.module else [])])


def _files(module, name):
    """The file that defines `name` of `module`; the whole folder if that is unclear."""
    base = ROOT.joinpath(*module.split("."))
    if base.with_suffix(".py").exists():
        return [base.with_suffix(".py")]
    if name and (base / f"{name}.py").exists():
        return [base / f"{name}.py"]
    if name and (base / name).is_dir():
        return sorted((base / name).glob("*.py"))
    init = base / "__init__.py"
    if name and init.exists():
        for node in ast.walk(ast.parse(init.read_text())):
            if isinstance(node, ast.ImportFrom) and _absolute(node, init) != module:
                if name in {alias.asname or alias.name for alias in node.names}:
                    return _files(_absolute(node, init), name)
    if module == "dlcompanion":
        return [init]
    return sorted(base.glob("*.py"))
