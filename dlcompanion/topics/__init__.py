"""The catalogue of the book, read from one TOML file a chapter.

Nothing here imports Keras, so the command line answers at once and on machines without
a backend.
"""

from dlcompanion.topics.catalogue import (
    chapters,
    did_you_mean,
    find_chapter,
    find_topic,
    names_in_title,
    topics,
)
from dlcompanion.topics.files import (
    PACKAGE,
    gallery,
    import_line,
    is_checkout,
    missing_files,
    prerequisites,
    public_names,
    script_path,
    test_file,
)
from dlcompanion.topics.notebooks import notebook
from dlcompanion.topics.records import read_record, write_record
from dlcompanion.topics.rows import read_chapters

__all__ = [
    "PACKAGE",
    "chapters",
    "did_you_mean",
    "find_chapter",
    "find_topic",
    "gallery",
    "import_line",
    "is_checkout",
    "missing_files",
    "names_in_title",
    "notebook",
    "prerequisites",
    "public_names",
    "read_chapters",
    "read_record",
    "script_path",
    "test_file",
    "topics",
    "write_record",
]
