"""Directives of the learning paths: what can be read today, from the catalogue."""

import re
import tomllib

import book
from book_pages import (
    BookDirective,
    card,
    cost,
    doc_link,
    is_written,
    plural,
    step,
)
from docutils import nodes
from sphinx.util.docutils import SphinxRole

PATHS = book.DOCS / "paths"
#: Written pages that a week needs to be taught.
ENOUGH = 2


def course():
    """The weeks of the course, each with the topics of its pages that are written."""
    weeks = tomllib.loads((PATHS / "course.toml").read_text(encoding="utf-8"))["week"]
    for number, week in enumerate(weeks, 1):
        topics = [book.topic(slug) for slug in week["topics"]]
        week["number"] = number
        week["written"] = [topic for topic in topics if is_written(topic)]
        week["planned"] = [topic for topic in topics if not is_written(topic)]
        week["taught"] = len(week["written"]) >= ENOUGH
    return weeks


class Course(BookDirective):
    """The weeks that can be taught, and how many of all they are."""

    def run(self):
        self.env.note_reread()
        weeks = course()
        intro = self.parse_text_to_nodes("\n".join(self.intro(weeks)))
        taught = [week for week in weeks if week["taught"]]
        return [*intro, *(self.week(week) for week in taught)]

    def intro(self, weeks):
        taught = sum(week["taught"] for week in weeks)
        yield f"**{taught} of {len(weeks)} weeks can be taught today**, each with at "
        yield f"least {ENOUGH} pages that are written. "
        waiting = [f"{w['number']} ({w['title']})" for w in weeks if not w["taught"]]
        if waiting:
            yield f"The others wait for their pages: weeks {', '.join(waiting)}. "
            yield "The :doc:`topic map </topics>` says what these will measure."

    def week(self, week):
        lines = [week["text"], "", ".. rst-class:: steps", ""]
        for topic in week["written"]:
            lines += step(topic)
        lines += ["", f"*To hand in.* {week['hand_in']}", ""]
        if week["planned"]:
            titles = ", ".join(book.escape(t["title"]) for t in week["planned"])
            lines += [f":muted:`Planned for this week: {titles}.`"]
        title = f"Week {week['number']}: {week['title']}"
        return self.section(title, lines)


def afternoon():
    """The topics of the path of one afternoon, in its order."""
    text = (PATHS / "afternoon.rst").read_text(encoding="utf-8")
    slugs = re.findall(r"^\.\. topics:: (.*)$", text, re.MULTILINE)
    return [book.topic(slug) for line in slugs for slug in line.split()]


class PathCards(BookDirective):
    """One card for each learning path, with what it holds today."""

    def lines(self):
        written = [topic for topic in afternoon() if is_written(topic)]
        seconds = cost([book.script_of(topic) for topic in written])
        names = [book.escape(t["title"].partition(": ")[0]) for t in written]
        weeks = course()
        taught = [week for week in weeks if week["taught"]]
        yield from [".. grid:: 1 1 3 3", "   :class-container: paths", ""]
        text = [
            f"{plural(len(written), 'page')} in a row: {'; '.join(names)}. You need"
        ]
        text += ["Python, some calculus, and nothing else.", ""]
        text += [f":muted:`{book.minutes(seconds)} of CPU`"]
        yield from card("One afternoon", "/paths/afternoon", text, classes="path")
        text = ["The book in the order of a master's course: for a lecturer, or a"]
        text += ["reader who wants the whole of it.", ""]
        text += [f":muted:`{len(taught)} of {len(weeks)} weeks can be taught today`"]
        title = f"A course of {len(weeks)} weeks"
        yield from card(title, "/paths/course", text, classes="path")
        text = [
            "TensorFlow Addons, tfp.layers, keras-rl and Stable-Baselines3, name by"
        ]
        text += ["name: what it is called here, and what is different."]
        yield from card(
            "I come from another library", "/paths/coming-from", text, classes="path"
        )


class TopicRole(SphinxRole):
    """``:topic:`momentum```: the page of a topic, or that it is planned."""

    def run(self):
        self.env.note_reread()
        topic = book.topic(self.text)
        if not is_written(topic):
            name = nodes.literal(self.text, self.text)
            return [nodes.Text("planned: "), name], []
        target = book.script_document(book.script_of(topic))
        title = nodes.inline("", topic["title"])
        return [doc_link(self.env.docname, title, target)], []


def setup(app):
    app.add_directive("course", Course)
    app.add_directive("path-cards", PathCards)
    app.add_role("topic", TopicRole())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
