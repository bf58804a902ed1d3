"""The lines that a page offers to paste run as they stand."""

import re
import textwrap
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "gallery").glob("*/plot_*.py"))
BLOCK = re.compile(
    r"\nIn your own model\n-+\n(?:.*\n)*?\n?\.\. code-block:: python\n\n"
    r"(?P<code>(?:   .*\n|\n)+)"
)
LONGEST = 14


def lines_to_paste(text):
    """The first block of code under the heading, without its indent."""
    found = BLOCK.search(text)
    return textwrap.dedent(found["code"]) if found else ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_runs_as_it_stands(script):
    code = lines_to_paste(script.read_text(encoding="utf-8"))
    assert code, "the page has no section 'In your own model' with a block of code"
    keras.utils.set_random_seed(0)  # the data to paste are drawn
    try:
        exec(compile(code, script.name, "exec"), {"__name__": "pasted"})
    except ImportError as error:
        assert keras.backend.backend() == "torch"
        assert "TensorFlow Probability" in str(error)


@pytest.mark.once
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_is_short_and_uses_the_package_or_keras(script):
    code = lines_to_paste(script.read_text(encoding="utf-8"))
    lines = [line for line in code.splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("import ", "from "))]
    assert 3 <= len(own) <= LONGEST, f"{len(own)} lines"
    assert re.search(r"^(from|import) (dlcompanion|keras)\b", code, re.MULTILINE)


@pytest.mark.once
def test_finds_the_lines():
    page = (
        'r"""\nName: claim\n===\n\nText.\n\nIn your own model\n-----------------\n\n'
        "Some words.\n\n.. code-block:: python\n\n   import keras\n\n   a = 1\n\n"
        'More text.\n"""\n'
    )
    assert lines_to_paste(page) == "import keras\n\na = 1\n\n"
    assert lines_to_paste(page.replace("own", "other")) == ""
