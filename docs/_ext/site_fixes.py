"""Small repairs of generated HTML, each with the reason."""

import re

THUMBNAIL = re.compile(
    r'(<p><a class="reference internal" )'
    r'(href="[^"]*"><span class="doc">([^<]*)</span></a></p>\s*'
    r'<div class="sphx-glr-thumbnail-title">)'
)


def repair(app, pagename, templatename, context, doctree):
    body = context.get("body")
    if not body:
        return
    # sphinx-gallery hides the text of a thumbnail's link: name the link.
    body = THUMBNAIL.sub(lambda m: f'{m[1]}aria-label="{m[3]}" {m[2]}', body)
    context["body"] = body


def setup(app):
    app.connect("html-page-context", repair)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
