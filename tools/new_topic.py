"""Write the first draft of a topic: python tools/new_topic.py SLUG [--kind KIND].

The topic has its row in dlcompanion/topics already. The draft is the component, its
tests, the script of its reference, the page and the fragment of the changelog, and the
component is made public by its chapter. It passes lint. Its tests fail, and say what is
missing, until every FILL IN is filled in.
"""

import argparse
import ast
import re
import string
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    # to this file the package is the catalogue: like its command line, without Keras
    sys.argv[0] = "dlcompanion"

from dlcompanion import topics  # noqa: E402

DRAFTS = Path(__file__).with_name("drafts")
ARRAY = 'np.random.default_rng(0).normal(size=(8, 5)).astype("float32")'
#: What a component can be, and how its tests call the check of its contract.
KINDS = {
    "layer": f"x = {ARRAY}\n    check_layer($name, {{}}, x, output_shape=x.shape)",
    "loss": f"y = {ARRAY}\n    check_loss($name, {{}}, y, y[::-1])",
    "optimizer": 'check_optimizer($name, {"learning_rate": 0.1})',
    "callback": "check_callback($name, {})",
}


def main():
    parser = argparse.ArgumentParser(
        prog="new_topic.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("slug", help="a topic of the catalogue that is not there yet")
    parser.add_argument(
        "--kind",
        help=f"one of {', '.join(KINDS)}; by default what its chapter is about",
    )
    options = parser.parse_args()
    try:
        files = draft(options.slug, options.kind)
    except ValueError as error:
        print(f"new_topic.py: {error}", file=sys.stderr)
        return 2
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
    print(f"Next: fill in, then python docs/build.py --only {options.slug} --record")
    return 0


def draft(slug, kind=None, root=ROOT):
    """The files of a first draft; nothing is written.

    Args:
        slug: String, a topic of the catalogue.
        kind: String, one of ``KINDS``, or ``None``.
        root: ``pathlib.Path`` of the repository.

    Returns:
        Dict of ``pathlib.Path`` to text: files to write, and files with a line more.

    Raises:
        ValueError: If there is no such topic, or something of it is there already.
    """
    if slug not in topics.topics():
        hint = topics.did_you_mean(slug, topics.topics())
        raise ValueError(
            "A topic has its row in dlcompanion/topics/<chapter>.toml before its "
            f"files.{hint} Received: {slug!r}"
        )
    topic = topics.topics()[slug]
    kind = kind or {"optimization": "optimizer", "losses": "loss"}.get(
        topic["chapter"], "layer"
    )
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}. Received: kind={kind!r}")
    files = {root / path: text for path, text in new_files(topic, kind).items()}
    there = [p.relative_to(root).as_posix() for p in files if p.exists()]
    fragment = f"changelog.d/{slug}.added.md"
    if [path for path in there if path != fragment]:
        raise ValueError(
            f"A draft is of a topic that has no files. {slug!r} has "
            f"{', '.join(there)}. Received: {slug!r}"
        )
    files = {path: text for path, text in files.items() if not path.exists()}
    return files | edited_files(topic, root)


def new_files(topic, kind):
    """Path to text, of the files that are the topic's own."""
    slug, chapter = topic["slug"], topic["chapter"]
    name = class_name(topic)
    own_component = topic.get("component") == f"dlcompanion/{chapter}/{slug}.py"
    own_page = Path(topic["script"]).stem == f"plot_{slug}"
    path = f"dlcompanion.{chapter}"
    heading = topic["title"].rstrip(".") + "."
    words = {"slug": slug, "chapter": chapter, "name": name, "heading": heading}
    files = {}
    if own_component:
        files[topic["component"]] = fill(f"{kind}.py", words)
        words["contract"] = string.Template(KINDS[kind]).substitute(words)
        ours = {path: name, "dlcompanion.testing": f"check_{kind}"}
        files[topic["test"]] = fill("test.py", words, imports=lines(ours))
        files[f"tests/references/make_{slug}.py"] = fill("reference.py", words)
    if own_page:
        title = f"{topic['title']}: FILL IN"
        others = "import keras\nimport matplotlib.pyplot as plt\nimport numpy as np\n\n"
        ours = {"dlcompanion": "claims", "dlcompanion.claims": "claim"}
        words |= {"title": title, "rule": "=" * len(title)}
        if own_component:
            ours[path] = name
            words["component"] = f"FILL IN: with :class:`~{path}.{name}`."
            words["use"] = f"{name}()  # FILL IN: in a model"
            words["paste"] = f"\n   {import_line(path, name)}"
        else:
            words["component"] = "FILL IN: the class of Keras, as a link to it."
            words["use"] = "None  # FILL IN: Keras's own, in a model"
            words["paste"] = ""
        target = textwrap.fill(topic["target"] + ".", 86, break_on_hyphens=False)
        words["target"] = textwrap.indent(target, "# ")
        files[topic["script"]] = fill("page.py", words, imports=others + lines(ours))
    public = f"`{name}`" if own_component else f"the page `{slug}`"
    files[f"changelog.d/{slug}.added.md"] = f"{chapter}: {public}. FILL IN: why.\n"
    return files


def edited_files(topic, root):
    """Path to text, of the shared files that get a line more: the chapter's, mostly."""
    slug, chapter = topic["slug"], topic["chapter"]
    head = topics.chapters()[chapter]
    title, rule = head["title"], "-" * len(head["title"])
    files = {}
    if topic.get("component") == f"dlcompanion/{chapter}/{slug}.py":
        path = root / f"dlcompanion/{chapter}/__init__.py"
        module, name = f"dlcompanion.{chapter}.{slug}", class_name(topic)
        if path.exists():
            files[path] = exported(path.read_text(encoding="utf-8"), module, name)
        else:
            files |= open_chapter(head, root)
            files[path] = (
                f'"""Chapter {chapter}."""\n\n'
                f'{import_line(module, name)}\n\n__all__ = ["{name}"]\n'
            )
    header = root / Path(topic["script"]).parent / "GALLERY_HEADER.rst"
    if not header.exists():
        text = f".. _chapter_{chapter}:\n\n{title}\n{rule}\n\n"
        files[header] = text + f"{head['description']}. FILL IN: the chapter.\n"
    return files


def open_chapter(head, root):
    """Path to text, of what the first component of a chapter asks for beside itself."""
    slug, title = head["slug"], head["title"]
    package, api = root / "dlcompanion/__init__.py", root / "docs/api/index.rst"
    text = inserted(
        package.read_text(), "from dlcompanion import (\n", f"        {slug},"
    )
    text = inserted(text, "__all__ = [\n", f'    "{slug}",')
    order = [*topics.chapters()]
    page = f"{title}\n{'=' * len(title)}\n\n``dlcompanion.{slug}``\n\n"
    page += f"{head['description']}.\n\n.. public:: {slug}\n"
    return {
        package: text,
        api: inserted(
            api.read_text(),
            "         :maxdepth: 1\n\n",
            f"         {slug}",
            key=lambda line: order.index(line.strip()),
        ),
        root / f"docs/api/{slug}.rst": page,
    }


def exported(text, module, name):
    """The text of a chapter's ``__init__.py`` with one public name more."""
    tree, old = ast.parse(text), text.splitlines(keepends=True)
    *imports, last = tree.body[1:]
    place = imports[-1].end_lineno
    place = next((n.lineno - 1 for n in imports if n.module > module), place)
    names = ast.literal_eval(last.value)
    after = [n for n in names if n > name]
    names.insert(names.index(after[0]) if after else len(names), name)
    line = f"__all__ = [{', '.join(quoted(names))}]\n"
    if len(line) > 89:
        line = "".join(
            ["__all__ = [\n", *(f"    {n},\n" for n in quoted(names)), "]\n"]
        )
    old.insert(place, import_line(module, name) + "\n")
    return "".join([*old[: last.lineno], line])


def inserted(text, opening, line, key=str):
    """A text with one line more in the sorted block that an opening starts."""
    head, found, rest = text.partition(opening)
    block = rest.splitlines()
    indent = len(line) - len(line.lstrip())
    place = 0
    while re.match(rf" {{{indent}}}\S", block[place]) and key(block[place]) < key(line):
        place += 1
    block.insert(place, line)
    return head + found + "\n".join(block) + "\n"


def class_name(topic):
    """The name in the row's title if it is one word in capitals, else the slug's."""
    title = topic["title"].partition(":")[0]
    if re.fullmatch(r"[A-Z][A-Za-z0-9]*", title):
        return title
    return "".join(word[0].upper() + word[1:] for word in topic["slug"].split("_"))


def quoted(names):
    return [f'"{name}"' for name in names]


def import_line(module, name):
    line = f"from {module} import {name}"
    return line if len(line) <= 88 else f"from {module} import (\n    {name},\n)"


def lines(imports):
    return "\n".join(import_line(path, imports[path]) for path in sorted(imports))


def fill(draft, words, **more):
    text = (DRAFTS / f"{draft}.txt").read_text(encoding="utf-8")
    return string.Template(text).substitute({**words, **more})


if __name__ == "__main__":
    sys.exit(main())
