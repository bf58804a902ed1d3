"""The notebooks of the pages are those of ``dlcompanion copy NAME --notebook``.

sphinx-gallery writes notebooks, and archives of them, when it has run the scripts. This
hook comes right after it, before a page is read, and puts ours in their place.
"""

from pathlib import Path

import book

from dlcompanion import topics


def write(app):
    """Write the notebook of every page, and the archives that hold them, anew."""
    from sphinx_gallery.downloads import generate_zipfiles
    from sphinx_gallery.utils import zip_files

    gallery = Path(app.srcdir, "gallery")
    changed = []
    for path in gallery.glob("*/plot_*.ipynb"):
        script = book.GALLERY / path.parent.name / f"{path.stem}.py"
        notebook = topics.notebook(script)
        if path.read_text(encoding="utf-8") != notebook:
            path.write_text(notebook, encoding="utf-8")
            both = [str(path.with_suffix(".py")), str(path)]
            zip_files(both, path.with_suffix(".zip"), path.parent)
            changed.append(path)
    if changed:
        generate_zipfiles(gallery, app.srcdir, app.config.sphinx_gallery_conf)


def setup(app):
    app.connect("builder-inited", write, priority=600)  # sphinx-gallery's is 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
