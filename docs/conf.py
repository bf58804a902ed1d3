"""Configuration of the site. `python docs/build.py` is the way to build it."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE / "_ext"), str(ROOT)]

# The workers of a parallel build inherit the environment and never read this file.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(HERE / "_ext"), str(ROOT), os.environ.get("PYTHONPATH")])
)
os.environ["DLCOMPANION_GENERATED"] = str(HERE / "_generated")
for key, value in {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "-1",
    "MPLBACKEND": "agg",
    "SDL_VIDEODRIVER": "dummy",
    "SDL_AUDIODRIVER": "dummy",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}.items():
    os.environ.setdefault(key, value)

import book  # noqa: E402
import inventories  # noqa: E402

import dlcompanion  # noqa: E402
from dlcompanion.topics.markdown import MACROS  # noqa: E402

project = "dlcompanion"
author = "the dlcompanion authors"
project_copyright = "the dlcompanion authors. Code and text under Apache-2.0"
version = release = dlcompanion.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "sphinxcontrib.video",
    "gallery_cache",
    "notebooks",
    "api_pages",
    "book_pages",
    "page_parts",
    "path_pages",
    "site_fixes",
    "mathjax_files",
]
nitpicky = True
nitpick_ignore_regex = [
    # words that docstrings use for types
    ("py:class", r"(callable|array_like|array|scalar|optional|sequence|iterable)"),
]
exclude_patterns = [
    "_build",
    "_generated",
    "_inv",
    "tests",
    "**/GALLERY_HEADER.rst",
    "**/sg_execution_times.rst",
    "gallery/**/*.py",
    "gallery/**/*.ipynb",
    "gallery/**/*.json",
    "api/backreferences/**",
]
# sphinx-gallery's configuration holds functions once it is read
suppress_warnings = ["config.cache"]
templates_path = ["_templates"]

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [
    ("Call arguments", "params_style"),
    "Input shape",
    "Output shape",
    "Shapes",
]

# Links to Keras, NumPy and friends, from inventories made of what is installed:
# a nitpicky build needs no network.
intersphinx_mapping = inventories.write(HERE / "_inv")
intersphinx_disabled_reftypes = []
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

mathjax_path = "mathjax/tex-chtml-full.js"
mathjax3_config = {
    "tex": {"macros": MACROS},
    "options": {"enableMenu": False},
}

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
# An ASCII prompt-free copy button on input only, not on what a script printed.
copybutton_selector = "div:not(.sphx-glr-script-out) > div.highlight > pre"

_only = os.environ.get("DLCOMPANION_ONLY")  # a regular expression, set by build.py
_jobs = int(os.environ.get("DLCOMPANION_JOBS", "1"))
sphinx_gallery_conf = {
    "examples_dirs": ["../gallery"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": _only or r"/plot_",
    "subsection_order": [f"../gallery/{name}" for name in book.gallery_chapters()],
    "within_subsection_order": "book.position",
    "nested_sections": True,
    "copyfile_regex": r"",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("dlcompanion",),
    "inspect_global_variables": False,
    "log_level": {"backreference_missing": "debug"},
    "reset_modules": ("matplotlib", "gallery_hooks.reset"),
    "reset_modules_order": "both",
    "abort_on_example_error": False,
    "parallel": _jobs if _jobs > 1 else False,
    "junit": "../gallery-junit.xml",
    "image_scrapers": ("alt_texts",),
    "matplotlib_animations": (True, "mp4"),
    "image_srcset": ["2x"],
    "thumbnail_size": (640, 360),
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "show_signature": False,
    "min_reported_time": 10_000,
    "write_computation_times": False,
    "recommender": {"enable": True, "n_examples": 4, "min_df": 1, "max_df": 1.0},
}

html_theme = "pydata_sphinx_theme"
html_title = "dlcompanion"
html_short_title = "dlcompanion"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_search_scorer = str(HERE / "_ext" / "scorer.js")
html_context = {"default_mode": "auto"}
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
pygments_style = "a11y-high-contrast-light"
html_theme_options = {
    "logo": {
        "text": "dlcompanion",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo.svg",
        "alt_text": "",
    },
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_nav_level": 1,
    "back_to_top_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "search_bar_text": "Search topics, classes, scripts …",
    "secondary_sidebar_items": {
        "gallery/*/plot_*": ["page-toc", "sg_download_links"],
        "api/**": ["page-toc"],
        "gallery/index": ["page-toc"],
        "gallery/*/index": [],
        "index": [],
        "start": ["page-toc"],
        "topics": ["page-toc"],
        "claims": ["page-toc"],
        "benchmarks": ["page-toc"],
        "notation": ["page-toc"],
        "glossary": [],
        "references": [],
        "paths/*": ["page-toc"],
        "migrating/*": ["page-toc"],
    },
    "footer_start": ["copyright"],
    "footer_end": ["built"],
    "article_footer_items": [],
}
html_sidebars = {
    "index": [],
    "start": [],
    "topics": [],
    "claims": [],
    "benchmarks": [],
    "notation": [],
    "glossary": [],
    "references": [],
}
