"""The API pages: one page for every public name, lists by module, an index by kind.

The names come from the package itself (``__all__`` of each module), so that no page
has to be told about a new component.
"""

import collections
import functools
import importlib
import importlib.util
import inspect
import itertools
import re
import sys

import api_methods
import book
import inventories
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

INFRASTRUCTURE = {
    "autodiff": "Gradients",
    "training": "Training",
    "probability": "Probability",
    "datasets": "Data",
    "plotting": "Pictures",
    "claims": "Claims",
    "testing": "Testing your own components",
    "backend": "Backends",
}
KINDS = {
    "Layers": "layer",
    "Losses": "loss",
    "Optimizers": "optimizer",
    "Learning-rate schedules": "schedule",
    "Callbacks": "callback",
    "Metrics": "metric",
    "Models": "model",
    "Agents": "agent",
    "Other classes": "class",
    "Functions": "function",
}

#: Modules whose classes are there to be subclassed: their hooks are shown.
FOR_SUBCLASSES = ("dlcompanion.training",)
LOADED = [
    "   * - :py:func:`keras.saving.load_model(path) <keras.saving.load_model>`",
    "     - The saved object, after ``import dlcompanion``. :muted:`keras.saving`",
]

Public = collections.namedtuple("Public", "module name object kind")


def modules():
    """Public modules of the package: chapters in order, then infrastructure."""
    names = [name for name in book.CHAPTERS if (book.PACKAGE / name).is_dir()]
    for name in itertools.chain(names, INFRASTRUCTURE):
        if importlib.util.find_spec(f"dlcompanion.{name}"):
            yield name


def public(module):
    """Every public name of `dlcompanion.<module>` with its kind."""
    loaded = importlib.import_module(f"dlcompanion.{module}")
    names = getattr(loaded, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(loaded).items()
            if getattr(value, "__module__", None) == loaded.__name__
            and not name.startswith("_")
        ]
    for name in sorted(names, key=str.lower):
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            yield Public(f"dlcompanion.{module}", name, value, kind(value))


def kind(value):
    """What a public object is to someone who thinks in Keras's kinds."""
    import keras

    from dlcompanion.reinforcement.agents.base_agent import BaseAgent

    if not inspect.isclass(value):
        return "function"
    for base, name in (
        (BaseAgent, "agent"),
        (keras.Model, "model"),
        (keras.layers.Layer, "layer"),
        (keras.losses.Loss, "loss"),
        (keras.optimizers.Optimizer, "optimizer"),
        (keras.optimizers.schedules.LearningRateSchedule, "schedule"),
        (keras.callbacks.Callback, "callback"),
        (keras.metrics.Metric, "metric"),
    ):
        if issubclass(value, base):
            return name
    return "class"


def everything():
    return [item for module in modules() for item in public(module)]


def path(item):
    """The documented path of a public name."""
    return f"{item.module}.{item.name}"


def summary(value):
    """First paragraph of a docstring on one line, links as plain code."""
    text = " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
    return re.sub(r":(?:py:)?[a-z]{3,5}:`[~.]?(?:[\w.]+\.)?(\w+)`", r"``\1``", text)


# -- pages --------------------------------------------------------------------

PAGE = """\
{name}
{underline}

.. object-card:: {module} {name}

.. currentmodule:: {module}

.. auto{role}:: {name}
{options}
"""
USED_IN = """
.. minigallery:: {full}
   :add-heading: Scripts that use it
   :heading-level: -
"""


INHERITED = """
Inherited methods
-----------------

.. list-table::
   :class: names
   :widths: 46 54

"""


def members(item, pages):
    """Options of autodoc for a class, and the table of what it inherits."""
    options = "   :show-inheritance:\n"
    if not api_methods.has_methods(item.object, item.kind):
        return f"   :members:\n{options}", ""
    full, linked = api_methods.methods(item.object, item.kind, set(pages))
    if item.module in FOR_SUBCLASSES:
        options = f"   :members:\n{options}"
    else:  # one by one: autodoc would sort what is inherited by name
        for name in full:
            is_property = isinstance(getattr(item.object, name), property)
            role = "property" if is_property else "method"
            options += f"\n   .. auto{role}:: {path(item)}.{name}\n"
    lines = [line for o, name in linked for line in inherited(item, o, name, pages)]
    if item.kind == "model":
        lines += LOADED
    return options, INHERITED + "\n".join(lines) + "\n" if lines else ""


def inherited(item, owner, name, pages):
    """Lines of a row: how an inherited method is called here, and what it does."""
    home = pages.get(owner, "keras.Model")
    call = book.escape(api_methods.call_of(item.object, name))
    text = re.split(r"(?<=\.)\s", summary(getattr(owner, name)))[0]
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)  # Keras's Markdown
    yield f"   * - :py:meth:`{call} <{home}.{name}>`"
    yield f"     - {text} :muted:`{home.rpartition('.')[2]}`"


def write_pages(app):
    """Write docs/api/generated/<full name>.rst; runs when the gallery is made."""
    folder = book.DOCS / "api" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = set()
    pages = {item.object: path(item) for item in everything()}
    for item in everything():
        full = path(item)
        is_class = inspect.isclass(item.object)
        options, more = members(item, pages) if is_class else ("", "")
        text = PAGE.format(
            name=item.name,
            underline="=" * len(item.name),
            module=item.module,
            role="class" if is_class else "function",
            options=options,
        )
        text += more
        uses = book.DOCS / "api" / "backreferences" / f"{full}.examples"
        if uses.exists() and uses.stat().st_size:
            text += USED_IN.format(full=full)
        file = folder / f"{full}.rst"
        wanted.add(file)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
    for file in set(folder.glob("*.rst")) - wanted:
        file.unlink()
    pages = {p.stem for p in (book.DOCS / "api").glob("*.rst")}
    missing = sorted(set(modules()) - pages)
    if missing:
        raise ValueError(f"docs/api/ has no page for: {', '.join(missing)}")


class PublicNames(SphinxDirective):
    """``.. public:: optimization``: every public name, by topic, and its pages."""

    required_arguments = 1

    def run(self):
        self.env.note_reread()
        module = self.arguments[0]
        items = list(public(module))
        by_topic = collections.defaultdict(list)
        for item in items:
            by_topic[item.object.__module__].append(item)
        shown = {_component_file(t): t for t in book.topics()}
        lines = [f".. py:module:: dlcompanion.{module}", ""]
        lines += [".. toctree::", "   :hidden:", ""]
        lines += [f"   generated/{path(i)}" for i in items] + [""]
        order = [home for home in shown if home in by_topic]
        order += sorted(by_topic.keys() - shown.keys())
        for home in order:
            group, topic = by_topic[home], shown.get(home)
            if module in book.CHAPTERS:
                words = api_methods.heading(sys.modules[home])
                title = book.escape(topic["title"] if topic else words)
                lines += [f".. rubric:: {title}", "   :heading-level: 2", ""]
                script = book.script_of(topic) if topic else None
                if script:
                    lines += [f"The page: :doc:`{book.script_document(script)}`.", ""]
            lines += table(group)
        return self.parse_text_to_nodes("\n".join(lines))


def _component_file(topic):
    return f"dlcompanion.{topic['chapter']}.{topic['slug']}"


def table(items, with_chapter=False):
    """Lines of a table of public names with what each is."""
    lines = [".. list-table::", "   :class: names", "   :widths: 34 66", ""]
    for item in items:
        role = "class" if inspect.isclass(item.object) else "func"
        full = path(item)
        lines.append(f"   * - :py:{role}:`~{full}`")
        where = f":muted:`{item.module}` — " if with_chapter else ""
        lines.append(f"     - {where}{summary(item.object) or '–'}")
    return [*lines, ""]


class Kinds(SphinxDirective):
    """``.. kinds::``: all public names, grouped by what they are."""

    def run(self):
        self.env.note_reread()
        items = everything()
        found = []
        for title, name in KINDS.items():
            group = [item for item in items if item.kind == name]
            if group:
                section = nodes.section(ids=[nodes.make_id(title)])
                section += nodes.title("", f"{title} ({len(group)})")
                group.sort(key=lambda item: item.name.lower())
                section += self.parse_text_to_nodes("\n".join(table(group, True)))
                found.append(section)
        return found


class ObjectCard(SphinxDirective):
    """One line above an object: its kind and the import that gets it."""

    required_arguments = 2

    def run(self):
        module, name = self.arguments
        value = getattr(importlib.import_module(module), name)
        chapter = module.rpartition(".")[2]
        title = INFRASTRUCTURE.get(chapter) or book.CHAPTERS[chapter]["title"]
        lines = [
            ".. rst-class:: kind-line",
            "",
            f"{kind(value).capitalize()} · :doc:`{title} </api/{chapter}>`",
            "",
            ".. code-block:: python",
            "",
            f"   from {module} import {name}",
        ]
        return self.parse_text_to_nodes("\n".join(lines))


# -- what autodoc shows -------------------------------------------------------


def signature(app, what, name, obj, options, text, returns):
    """Show __init__'s signature: keras.Layer.__new__(*args, **kwargs) hides it."""
    if what == "class" and inspect.isclass(obj) and text == "(*args, **kwargs)":
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
        return str(inspect.Signature(parameters)), returns
    return None


def skip_member(app, what, name, obj, skip, options):
    """The fields of a named tuple are described in its docstring."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def bases(app, name, obj, options, found):
    """Name base classes by their public path; skip the private ones between."""
    names = {**_keras_names(), **{i.object: path(i) for i in everything()}}
    known = [base for base in inspect.getmro(obj)[1:] if base in names]
    found[:] = [f":py:class:`{names[base]}`" for base in known[:1]] or [object]


@functools.cache
def _keras_names():
    """Keras class -> public name, the longest: keras.layers.Layer, not keras.Layer."""
    import keras

    names = {}
    for full, value in inventories.public(keras, depth=2):
        if inspect.isclass(value) and full.count(".") >= names.get(value, "").count(
            "."
        ):
            names[value] = full
    return names


def setup(app):
    app.connect("builder-inited", write_pages, priority=600)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-bases", bases)
    app.connect("autodoc-skip-member", skip_member)
    app.add_directive("public", PublicNames)
    app.add_directive("kinds", Kinds)
    app.add_directive("object-card", ObjectCard)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
