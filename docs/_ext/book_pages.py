"""Directives for what the site says about itself: chapters, topics, claims, results.

All of it is read when the pages are read, which is after the scripts ran.
"""

import ast
import json
import re

import benchmark_charts
import book
import elsewhere
from docutils import nodes
from docutils.parsers.rst import directives, roles
from learning_curves import learning_curves
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from benchmarks import sources
from dlcompanion import topics as catalogue

GALLERY = "/gallery/index"


class BookDirective(SphinxDirective):
    """A directive whose reStructuredText comes from `lines()`, anew in every build."""

    has_content = False
    final_argument_whitespace = True

    def run(self):
        self.env.note_reread()
        return self.parse_text_to_nodes("\n".join(self.lines()))

    def section(self, title, lines, label=None):
        """A section with a heading, for the table of contents beside the page."""
        section = nodes.section(ids=[nodes.make_id(label or title)])
        section += nodes.title(title, title)
        section += self.parse_text_to_nodes("\n".join(lines))
        return section


def cost(paths):
    """CPU seconds of the last runs of some scripts."""
    return sum(book.run(p).get("cpu_seconds", 0) for p in paths)


def plural(count, word):
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def card(title, target, text, picture=None, classes=""):
    """Lines of one linked card of a grid."""
    lines = [f"   .. grid-item-card:: {title}", f"      :link: {target}"]
    lines += ["      :link-type: doc", f"      :class-card: {classes}"]
    if picture:
        lines += [f"      :img-top: {picture}", "      :img-alt:"]
    return [*lines, "", *(f"      {line}" for line in text), ""]


def picture_of(script):
    """Path, from docs/, of the first figure of a script; its thumbnail if none."""
    base = book.DOCS / "gallery" / script.parent.name / "images"
    figures = sorted(base.glob(f"sphx_glr_{script.stem}_[0-9][0-9][0-9].png"))
    figures += base.glob(f"thumb/sphx_glr_{script.stem}_thumb.*")
    return f"/{figures[0].relative_to(book.DOCS)}" if figures else None


def doc_link(here, content, target):
    """A link from one document to another, as ``:doc:`` makes it."""
    return addnodes.pending_xref(
        "",
        content,
        refdomain="std",
        reftype="doc",
        refdoc=here,
        reftarget=target,
        refexplicit=True,
        refwarn=True,
    )


class Facts(BookDirective):
    """One line of numbers: scripts, claims, CPU time, topics."""

    def run(self):
        self.env.note_reread()
        scripts = book.scripts()
        claims = [c for s in scripts for c in book.claims(s)]
        held = sum(c["holds"] for c in claims)
        facts = nodes.bullet_list(classes=["facts"])
        for value, text, target in (
            (sum(bool(book.run(s)) for s in scripts), "scripts executed", GALLERY),
            (f"{held} of {len(claims)}", "claims hold", "/claims"),
            (book.minutes(cost(scripts)), "of CPU runs them all", "/benchmarks"),
            (len(book.topics()), "topics on the map", "/topics"),
        ):
            link = doc_link(self.env.docname, nodes.Text(text), target)
            number = nodes.inline("", str(value), classes=["number"])
            line = nodes.paragraph("", "", number, nodes.Text(" "), link)
            facts += nodes.list_item("", line)
        return [facts]


class Claimed(BookDirective):
    """One claim of each of a few chapters, as a script prints it."""

    def lines(self):
        yield from [":muted:`What the scripts of this site printed when it was built`"]
        yield from ["", ".. rst-class:: receipt", ""]
        first = {}
        for script in book.scripts():
            if book.claims(script):
                first.setdefault(script.parent.name, script)
        for script in list(first.values())[:6]:
            claim = book.claims(script)[0]
            yield f"- :done:`holds` {book.escape(claim['text'])}"
            yield ""
            target = book.script_document(script)
            chapter = book.CHAPTERS[script.parent.name]["title"]
            yield f"  **{' '.join(book.parts(claim))}** · :doc:`{chapter} <{target}>`"
            yield ""


class ChapterCards(BookDirective):
    """Cards of the chapters that have scripts, then the names of those to come."""

    def lines(self):
        ready = [name for name in book.gallery_chapters() if book.scripts(name)]
        yield from [".. grid:: 1 2 3 3", "   :class-container: cards", ""]
        for number, (name, chapter) in enumerate(book.CHAPTERS.items(), 1):
            if name not in ready:
                continue
            scripts = book.scripts(name)
            text = [
                book.escape(chapter["description"]) + ".",
                "",
                f":muted:`{plural(len(scripts), 'script')} · "
                f"{book.minutes(cost(scripts))} of CPU`",
            ]
            title = f":numeral:`{number}` {chapter['title']}"
            yield from card(title, f"/gallery/{name}/index", text, classes="chapter")
        coming = [c["title"] for s, c in book.CHAPTERS.items() if s not in ready]
        if coming:
            yield f":muted:`Planned chapters:` {', '.join(coming)}. :doc:`The map"
            yield "</topics>` lists all their topics, and what each page will measure."


class Pictures(BookDirective):
    """``.. pictures:: ppo dqn``: large pictures that lead to the pages of topics."""

    required_arguments = 1

    def lines(self):
        yield from [".. grid:: 1 2 2 3", "   :class-container: pictures", ""]
        for slug in self.arguments[0].split():
            topic = catalogue.topics().get(slug)
            if topic is None or not is_written(topic):
                raise self.error(
                    f"A picture is of a topic that is written. Received: {slug!r}"
                )
            script = book.script_of(topic)
            title = book.escape(book.script_title(script))
            picture = picture_of(script)
            if picture:
                target = book.script_document(script)
                yield from card(title, target, [], picture, "picture")


class Topics(BookDirective):
    """``.. topics:: backpropagation momentum``: what to read, in order."""

    required_arguments = 1

    def lines(self):
        yield ".. rst-class:: steps"
        yield ""
        for slug in self.arguments[0].split():
            yield from step(book.topic(slug))


def step(topic):
    """Lines of a list item for one topic: a link, or what is planned."""
    title = book.escape(topic["title"])
    script = book.script_of(topic)
    if script:
        yield f"- :doc:`{title} <{book.script_document(script)}>`"
        seconds = book.run(script).get("cpu_seconds")
        if seconds:
            yield f"  :muted:`{book.minutes(seconds)} of CPU`"
    else:
        yield f"- {title} :planned:`planned`"


class TopicMap(BookDirective):
    """Every topic of the book, chapter by chapter, with what is measured."""

    def run(self):
        self.env.note_reread()
        result = []
        for name, chapter in book.CHAPTERS.items():
            topics = [t for t in book.topics() if t["chapter"] == name]
            lines = [f"{book.escape(chapter['description'])}.", ""]
            lines += [f":raw-html:`{share(sum(map(is_written, topics)), len(topics))}`"]
            lines += ["", ".. rst-class:: topic-map", ""]
            for topic in topics:
                lines += self.topic(topic)
            section = self.section(chapter["title"], lines, label=name)
            items = next(section.findall(nodes.bullet_list)).children
            for item, topic in zip(items, topics, strict=True):
                item["classes"].append(
                    "is-written" if is_written(topic) else "is-planned"
                )
            result.append(section)
        return result

    def topic(self, topic):
        script, title = book.script_of(topic), book.escape(topic["title"])
        if is_written(topic):
            yield f"- :done:`done` :doc:`{title} <{book.script_document(script)}>`"
        else:
            yield f"- :planned:`planned` **{title}**"
        yield ""
        text = f"  :muted:`{topic['slug']}` {book.escape(topic['target'])}."
        yield text
        yield ""
        if topic["state"] == "done":
            yield from measured(topic)


def is_written(topic):
    """Whether a topic is done and has its page."""
    return topic["state"] == "done" and book.script_of(topic) is not None


def share(written, count):
    """A bar of HTML: how many of some topics are written."""
    return (
        f'<span class="share"><span aria-hidden="true"><span style="width: '
        f'{100 * written / max(count, 1):.0f}%"></span></span>'
        f"<span>{written} of {count} written</span></span>"
    )


def measured(topic):
    """Lines that open on what the page of a topic measured, and on the verdict."""
    count = plural(len(topic["claims"]), "claim")
    verdict = {"held": "held", "weaker": "held in part", "false": "did not hold"}
    yield f"  .. dropdown:: The target {verdict[topic['verdict']]}: {count} on the page"
    yield ""
    for claim in topic["claims"]:
        value, sign, bound = book.parts(claim)
        yield f"     - {book.escape(claim['text'])}: **{value}** {sign} {bound}"
    yield ""


class Claims(BookDirective):
    """Every claim of every script, with value, bound, seeds and seconds."""

    def run(self):
        self.env.note_reread()
        found = []
        for name in book.gallery_chapters():
            lines = [line for s in book.scripts(name) for line in self.script(s)]
            if not lines:
                continue
            found.append(self.section(book.CHAPTERS[name]["title"], lines, label=name))
        return found

    def script(self, script):
        run, claims = book.run(script), book.claims(script)
        title = book.escape(book.script_title(script))
        yield from [f".. _claims-of-{script.stem.removeprefix('plot_')}:", ""]
        yield f".. rubric:: :doc:`{title} <{book.script_document(script)}>`"
        yield from ["   :heading-level: 3", ""]
        if not claims:
            yield "Not executed in this build."
            yield ""
            return
        others = elsewhere.cells(script, claims)
        claim = closest(claims)
        value, sign, bound = book.parts(claim)
        held = f"{sum(c['holds'] for c in claims)} of {len(claims)} hold"
        yield f"{held}; {elsewhere.sentence(script)}. Closest to its bound: "
        yield f"{book.escape(claim['text'])}, **{value}** {sign} {bound}."
        yield ""
        yield f".. dropdown:: {plural(len(claims), 'claim')} in full"
        yield ""
        yield f"   :muted:`{script.parent.name}/{script.name} · "
        yield f"   {run['cpu_seconds']:.1f} s of CPU · Keras {run['keras']} on "
        yield f"   {run['backend']} · {run['finished'][:10]}`"
        yield ""
        yield from ["   .. list-table::", "      :class: claims"]
        yield from ["      :header-rows: 1", "      :widths: 50 16 16 8 10", ""]
        lines = [*row("Claim", "Value", "Bound", "Seeds", "Other seeds")]
        for number, claim in enumerate(claims):
            value, sign, bound = book.parts(claim)
            mark = ":done:`holds`" if claim["holds"] else ":false:`false`"
            lines += row(
                f"{mark} {book.escape(claim['text'])}",
                value,
                f"{sign} {bound}",
                claim["seeds"] or "–",
                others[number],
            )
        yield from (f"   {line}" for line in lines)
        yield ""


def closest(claims):
    """The claim with the least room between value and bound, in parts of the bound."""

    def room(claim):
        value, bound = float(claim["value"]), float(claim["bound"])
        return abs(value - bound) / max(abs(value), abs(bound), 1e-12)

    return min([c for c in claims if c["comparison"] != "=="] or claims, key=room)


def row(*cells):
    for i, cell in enumerate(cells):
        yield f"   {'* ' if i == 0 else '  '}- {cell}"


class Benchmarks(BookDirective):
    """Every committed result in benchmarks/results, and whether it is still current."""

    def run(self):
        self.env.note_reread()
        folder = book.ROOT / "benchmarks" / "results"
        results = [(f.stem, json.loads(f.read_text())) for f in folder.glob("*.json")]
        results.sort(key=lambda result: (benchmark_charts.strength(*result), result[0]))
        return [self.record(*result) for result in results]

    def record(self, stem, data):
        lines = [".. rst-class:: verdict", ""]
        lines += [book.escape(benchmark_charts.verdict(stem, data)), ""]
        lines += self.outdated(data)
        lines += [f":raw-html:`{benchmark_charts.chart(stem, data)}`", ""]
        lines += explained(stem)
        if any("curve" in run for run in data.get("runs", ())):
            lines += learning_curves(data["runs"])
        lines += [".. dropdown:: All numbers, and the command that measures them", ""]
        folded = [*self.table(data["rows"])]
        folded += [".. code-block:: console", "", f"   $ {data['command']}", ""]
        about = f"{data['date'][:10]} · {data['machine']} · {versions(data)}"
        folded += [f":muted:`{book.escape(about)}`"]
        lines += [f"   {line}".rstrip() for line in folded]
        known = {**book.CHAPTERS, **{t["slug"]: t for t in book.topics()}}
        title = stem.replace("_", " ").capitalize()
        title = known.get(stem, {}).get("title", title)
        return self.section(title, lines, label=stem)

    def outdated(self, data):
        """Lines that name what has changed since it was measured."""
        now = sources.definitions(data["sources"])
        changed = sources.changed(data["definitions"], now)
        if not changed:
            return
        yield ".. admonition:: Measured before the sources changed"
        yield "   :class: warning"
        yield ""
        more = f" and {len(changed) - 12} more" if len(changed) > 12 else ""
        yield f"   {', '.join(f'``{name}``' for name in changed[:12])}{more}"
        yield ""

    def table(self, rows):
        """Lines of the table of a result."""
        columns = [k for r in rows for k, v in r.items() if not is_versions(v)]
        columns = list(dict.fromkeys(columns))
        yield from [".. list-table::", "   :header-rows: 1", "   :class: benchmark", ""]
        yield from row(*(book.escape(c.replace("_", " ")) for c in columns))
        for r in rows:
            yield from row(*(cell(r.get(c, "")) for c in columns))
        yield ""


def explained(stem):
    """What a benchmark measures: its docstring, but for the command."""
    source = (book.ROOT / "benchmarks" / f"{stem}.py").read_text()
    lines = []
    for paragraph in ast.get_docstring(ast.parse(source)).split("\n\n"):
        if not paragraph.startswith(" "):
            paragraph = re.sub("::$", ".", paragraph)
            lines += [*paragraph.splitlines(), ""]
    return lines


def is_versions(value):
    return isinstance(value, dict)


def versions(data):
    """The versions of everything that took part, each package once."""
    found = {}
    groups = [data["versions"], *data.get("peers", {}).values()]
    groups += [v for r in data["rows"] for v in r.values() if is_versions(v)]
    for group in groups:
        for package, version in group.items():
            found.setdefault(package, version)
    return ", ".join(f"{package} {version}" for package, version in found.items())


def cell(value):
    """A value of a result as reStructuredText."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int | float):
        return book.number(value)
    if isinstance(value, list) and value and isinstance(value[0], list):
        return f":raw-html:`{sparkline(value)}`"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    text = book.escape(str(value))
    return f"\\{text}" if text[:1] in ("-", "+") else text or "–"


def sparkline(points, width=120, height=28):
    """A learning curve, ``[[x, y], ...]``, as a small drawing."""
    xs, ys = zip(*points, strict=True)
    right, top = max(xs) or 1, max(ys) or 1
    line = " ".join(
        f"{2 + x / right * (width - 4):.0f},{height - 2 - y / top * (height - 4):.0f}"
        for x, y in points
    )
    label = f"from {ys[0]:.4g} at {xs[0]:.4g} to {ys[-1]:.4g} at {xs[-1]:.4g}"
    return (
        f'<svg class="sparkline" role="img" aria-label="{label}" width="{width}" '
        f'height="{height}"><polyline points="{line}"/></svg>'
    )


class SearchBox(SphinxDirective):
    """A search field that works without a server, for the front page."""

    option_spec = {"label": directives.unchanged}

    def run(self):
        label = self.options.get("label", "Search")
        html = (
            '<form class="search-box" role="search" action="search.html" method="get">'
            f'<input type="search" name="q" aria-label="{label}" '
            f'placeholder="{label}" autocomplete="off" spellcheck="false">'
            '<button type="submit">Search</button></form>'
        )
        return [nodes.raw("", html, format="html")]


def setup(app):
    for name in ("done", "planned", "false", "muted", "numeral"):
        role = roles.CustomRole(name, roles.generic_custom_role, {"class": [name]})
        app.add_role(name, role)
    raw = roles.CustomRole("raw-html", roles.raw_role, {"format": "html"})
    app.add_role("raw-html", raw)
    for name, directive in {
        "facts": Facts,
        "claimed": Claimed,
        "chapter-cards": ChapterCards,
        "pictures": Pictures,
        "topics": Topics,
        "topic-map": TopicMap,
        "claims": Claims,
        "benchmarks": Benchmarks,
        "search-box": SearchBox,
    }.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
