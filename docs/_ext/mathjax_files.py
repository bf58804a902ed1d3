"""Copy MathJax and its fonts from the PyPI package sphinx-mathjax-offline.

The package would copy all of its 24 MB. The site needs one file and the fonts.
"""

import importlib.metadata
import shutil
from pathlib import Path


def copy(app):
    if app.builder.format != "html":
        return
    files = importlib.metadata.distribution("sphinx-mathjax-offline")
    source = Path(files.locate_file("sphinx-mathjax-offline/static/mathjax"))
    target = Path(app.outdir, "_static", "mathjax")
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copy(source / "tex-chtml-full.js", target)


def setup(app):
    app.connect("builder-inited", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
