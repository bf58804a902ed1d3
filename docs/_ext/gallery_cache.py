"""Re-run a script when what it measures has changed, and forget scripts that went.

sphinx-gallery keeps a page while the text of its script stays the same (the .md5
beside it). This hook runs first and takes that mark away from scripts whose
components changed, or whose record of claims is missing.
"""

import re
import shutil

import book


def forget_stale(app):
    out = book.DOCS / "gallery"
    only = re.compile(app.config.sphinx_gallery_conf["filename_pattern"])
    for script in book.scripts():
        mark = out / script.parent.name / f"{script.name}.md5"
        claims = book.GENERATED / "claims" / f"{script.stem}.jsonl"
        current = book.run(script).get("fingerprint") == book.fingerprint(script)
        if only.search(str(script)) and not (current and claims.exists()):
            mark.unlink(missing_ok=True)

    names = {p.stem for p in book.scripts()}
    for record in [*book.GENERATED.glob("*/plot_*.json*")]:
        if record.stem not in names:
            record.unlink()
    for page in out.glob("*/plot_*.rst"):
        if page.stem not in names:
            for path in out.rglob(f"*{page.stem}*"):
                path.unlink()
    for folder in out.glob("*/"):
        if folder.name not in book.gallery_chapters():
            shutil.rmtree(folder)


def setup(app):
    app.connect("builder-inited", forget_stale, priority=50)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
