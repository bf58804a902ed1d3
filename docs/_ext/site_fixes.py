"""What is added to, and repaired in, the HTML of a page; each with the reason."""

import html
import re
from pathlib import Path

import book
import elsewhere
import page_parts
from sphinx.util.index_entries import split_index_msg

THUMBNAIL = re.compile(
    r'(<p><a class="reference internal" )'
    r'(href="[^"]*"><span class="doc">([^<]*)</span></a></p>\s*'
    r'<div class="sphx-glr-thumbnail-title">)'
)
CARD = re.compile(r'(<div class="sphx-glr-thumbnail-title">)([^<]*?): ([^<]*)(</div>)')
OUTPUT = re.compile(r'(<div class="sphx-glr-script-out.*?</pre>)', re.DOTALL)
TAGS = "<div id='sg-tag-list' class='sphx-glr-tag-list'></div>"
HOLDS = re.compile(r"(^|<pre>)((?:<span></span>)?)holds(?=   )", re.MULTILINE)
FILM = re.compile(
    r'<video autoplay="True" ([^>]*>)(<source [^>]*>)([^<]*)(?=</video>)', re.DOTALL
)


def repair(app, pagename, templatename, context, doctree):
    context["built"] = built()
    body = context.get("body")
    if not body:
        return
    # sphinx-gallery hides the text of a thumbnail's link: name the link.
    body = THUMBNAIL.sub(lambda m: f'{m[1]}aria-label="{m[3]}" {m[2]}', body)
    body = CARD.sub(card, body)
    # sphinx-gallery writes this id once a chapter, and uses the first
    before, tags, after = body.partition(TAGS)
    body = before + tags + after.replace(TAGS, "")
    # roles that ARIA has withdrawn, from docutils
    body = body.replace(' role="doc-biblioentry"', "")
    body = body.replace('<div role="list" class="citation-list">', "<div>")
    if "/plot_" in pagename:
        # the lines of claim() stand out from what else a script prints
        mark = r'\1\2<span class="holds">holds</span>'
        body = OUTPUT.sub(lambda m: HOLDS.sub(mark, m[1]), body)
        # a phone plays a film in its place, and without a tap, only if it is silent;
        # what it shows is read out only as its name
        body = FILM.sub(
            r'<video autoplay muted playsinline aria-label="\3" \1\2\3', body
        )
        context["short_title"] = page_parts.short_name(context["title"])
        body = body.replace("</h1>", f"</h1>\n{about(pagename)}", 1)
    context["body"] = body


def built():
    """What the foot of a page says about the scripts."""
    scripts = book.scripts()
    executed = sum(bool(book.run(script)) for script in scripts)
    if executed == len(scripts):
        return "Every script on this site was executed when it was built"
    return f"{executed} of {len(scripts)} scripts were executed for this site"


def about(pagename):
    """One line under the title of a page: what it cost and what it claims."""
    script = book.ROOT / f"{pagename}.py"
    run, claims = book.run(script), book.claims(script)
    if not run:
        return '<p class="kind-line">Not executed in this build.</p>'
    held = sum(c["holds"] for c in claims)
    chapter = html.escape(book.CHAPTERS[script.parent.name]["title"])
    slug = script.stem.removeprefix("plot_").replace("_", "-")
    link = f"../../claims.html#claims-of-{slug}"
    count = f'<a href="{link}">{held} of {len(claims)} claims hold</a>'
    parts = [
        chapter,
        f"{run['cpu_seconds']:.0f} s of CPU",
        count,
        elsewhere.sentence(script),
    ]
    names = elsewhere.backends(script)
    if len(names) > 1:
        parts.append(f"ran on {', '.join(names[:-1])} and {names[-1]}")
    return f'<p class="kind-line">{" · ".join(parts)}</p>'


def card(match):
    """Topic and claim of a thumbnail, each on its line."""
    opened, name, claim, closed = match.groups()
    return (
        f'{opened}<strong>{name}</strong><span class="claimed">{claim}</span>{closed}'
    )


def tags(app, docname, source):
    source[0] = source[0].replace("🏷 Tags:", "Tags:")  # a box without an emoji font


def complete_the_index(app):
    """Give the search the index entries of all documents.

    Sphinx keeps those of the documents that this build wrote, and forgets the others.
    """
    entries_of = app.builder.indexer._index_entries
    for document, entries in app.env.domains.index_domain.entries.items():
        entries_of[document] = sorted(
            {
                (part, target or "", main)
                for kind, value, target, main, _ in entries
                for part in split_index_msg(kind, value)
            }
        )
    return []  # no further pages


def remove_old_pages(app, exception):
    """Sphinx leaves the HTML of a page whose source went."""
    out = Path(app.outdir)
    made = app.env.found_docs | {"genindex", "search", "py-modindex"}
    for page in [*out.glob("*.html"), *out.glob("[!_]*/**/*.html")]:
        if str(page.relative_to(out).with_suffix("")) not in made:
            page.unlink()


def setup(app):
    app.connect("build-finished", remove_old_pages)
    app.connect("source-read", tags)
    app.connect("html-collect-pages", complete_the_index)
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
