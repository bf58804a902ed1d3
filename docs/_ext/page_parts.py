"""The pages of the gallery: short names, folded code, a table of what was claimed.

The title of a page is ``Topic: claim``. Where pages are listed, the topic is enough.
"""

import html
import re

import book
import elsewhere
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

from dlcompanion import topics as catalogue

DRAWS = re.compile(r"\bplt\.show\(\)|\bFuncAnimation\(|\bplt\.subplots\(")
CLAIM_CODE = "Code of the claims"
CLAIMS = re.compile(r"^\s*claim\(", re.MULTILINE)


def short_name(title):
    """``Lookahead`` of ``Lookahead: two sets of weights``."""
    return title.partition(": ")[0]


def shorten(app, doctree):
    """Sidebar, breadcrumbs and links show the topic; the page shows the whole title."""
    env, name = app.env, app.env.docname
    if "/plot_" not in name or name not in env.titles:
        return
    short = nodes.Text(short_name(env.titles[name].astext()))
    env.titles[name] = nodes.title("", "", short)
    for reference in env.tocs[name].findall(nodes.reference):
        if not reference.get("anchorname"):  # the page itself
            reference.children = [short.copy()]


def fold(app, doctree):
    """Code that draws or claims waits behind a line that opens it."""
    if "/plot_" not in app.env.docname:
        return
    for block in list(doctree.findall(nodes.literal_block)):
        if block.get("language") != "Python":
            continue
        text = block.astext()
        if CLAIMS.search(text):
            label = CLAIM_CODE
        elif DRAWS.search(text):
            label = "Code of the figure"
        else:
            continue
        opened = f'<details class="folded"><summary>{label}</summary>'
        parent, place = block.parent, block.parent.index(block)
        end = place + 1
        if label == CLAIM_CODE and end < len(parent) and only_claims(parent[end]):
            end += 1  # what it printed is in the table above it
        parent.insert(end, nodes.raw("", "</details>", format="html"))
        parent.insert(place, nodes.raw("", opened, format="html"))


def only_claims(node):
    """Whether a node is output of a script, all lines of it those of claim().

    What is longer than a line goes on below its first word.
    """
    if "sphx-glr-script-out" not in node.get("classes", ()):
        return False
    lines = [line for line in node.astext().splitlines() if line.strip()]
    begin = ("holds   ", "FALSE   ", " " * 8)
    return all(line.startswith(begin) for line in lines)


def show_claims(app, pagename, templatename, context, doctree):
    """A table of what a page claims, in place of a wall of calls."""
    opened = f'<details class="folded"><summary>{CLAIM_CODE}</summary>'
    if "/plot_" in pagename and opened in context.get("body", ""):
        table = claims_table(book.ROOT / f"{pagename}.py")
        context["body"] = context["body"].replace(opened, f"{table}\n{opened}", 1)


def claims_table(script):
    """What a script claimed: value, bound, and on how many other seeds it held."""
    claims = book.claims(script)
    others = elsewhere.cells(script, claims)
    rows = []
    for claim, other in zip(claims, others, strict=True):
        value, sign, bound = book.parts(claim)
        mark = "done" if claim["holds"] else "false"
        word = "holds" if claim["holds"] else "false"
        if len({*other.split(" of ")}) > 1:
            mark, word = "planned", "holds here"
        cells = [
            f'<span class="{mark}">{word}</span> {html.escape(claim["text"])}',
            html.escape(value),
            html.escape(f"{sign} {bound}"),
            f"{claim['seeds'] or '–'}",
            other,
        ]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    names = ("Claim", "Value", "Bound", "Seeds", "Other seeds")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<div class="pst-scrollable-table-container"><table class="table claims">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


class Names(SphinxTransform):
    """Index entries for the names of a topic, with which the search finds its page."""

    default_priority = 800  # before Sphinx collects the entries of a page

    def apply(self, **kwargs):
        _, page, slug = self.env.docname.rpartition("/plot_")
        if page:
            # no target within the page: an entry is for all of it
            names = search_names(book.topic(slug))
            entries = [("single", name, "", "main", None) for name in names]
            self.document.insert(0, addnodes.index(entries=entries))


def search_names(topic):
    """What people may type who look for a topic: its title, slug and other names.

    Example:
        >>> search_names({"slug": "ppo", "title": "PPO (on-policy)", "names": ["a"]})
        ['PPO', 'on-policy', 'a']
    """
    found = [*catalogue.names_in_title(topic), topic["slug"].replace("_", " ")]
    found += topic.get("names", [])
    known = {}
    for name in found:
        known.setdefault(name.lower(), name)
    return list(known.values())


def outdated(app, env, added, changed, removed):
    """Pages whose measurements on other seeds changed since they were written."""
    table = elsewhere.read_table()
    now = {
        book.script_document(path)[1:]: repr(table.get(path.stem))
        for path in book.scripts()
    }
    before = getattr(env, "claims_elsewhere", {})
    env.claims_elsewhere = now
    return [d for d, e in now.items() if before.get(d) != e and d in env.found_docs]


def setup(app):
    app.add_transform(Names)
    app.connect("doctree-read", shorten, priority=900)
    app.connect("doctree-read", fold)
    app.connect("env-get-outdated", outdated)
    app.connect("html-page-context", show_claims)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
