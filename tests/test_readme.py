"""The example of README.md runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from dlcompanion import topics

pytestmark = pytest.mark.once

README = Path(__file__).parents[1] / "README.md"


def test_the_first_example_trains():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8, 8, 1)).astype("float32")
    y = rng.integers(0, 10, size=32)
    before = names["model"].evaluate(x, y, verbose=0)
    names["model"].fit(x, y, epochs=3, verbose=0)
    assert names["model"].evaluate(x, y, verbose=0) < before


def test_the_table_of_chapters_is_that_of_the_catalogue():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", README.read_text(), re.M)
    chapters = topics.chapters().values()
    assert rows == [
        (str(number), chapter["slug"], chapter["description"])
        for number, chapter in enumerate(chapters, 1)
    ]
