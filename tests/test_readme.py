"""What README.md and the Start page say of the package is so."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from source_files import SCRIPTS, imports

import dlcompanion
from dlcompanion import topics

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
INSTALL = [README, ROOT / "docs/start.rst", ROOT / "docs/index.rst"]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "optional-dependencies"
]


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


# -- installation -------------------------------------------------------------


def libraries(extra):
    """The libraries that an extra brings, those of the extras in it included."""
    found = set()
    for requirement in EXTRAS[extra]:
        name, inner = re.match(r"([\w.-]+)(?:\[([^]]+)\])?", requirement).groups()
        if name == "dlcompanion":
            found = found.union(*(libraries(e) for e in inner.split(",")))
        else:
            found.add(name)
    return found


@pytest.mark.parametrize(
    "path",
    [*INSTALL, *sorted((ROOT / "dlcompanion").rglob("*.py"))],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_extras_that_a_text_names_are_there(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"(?:dlcompanion|whl|[\"` ]\.)\[([a-z,-]+)\]", text)
    assert {extra for names in named for extra in names.split(",")} <= EXTRAS.keys()
    assert named or path not in INSTALL


@pytest.mark.parametrize("path", INSTALL, ids=lambda path: path.name)
def test_a_text_says_that_the_package_is_on_no_index(path):
    text = " ".join(path.read_text(encoding="utf-8").split())
    assert "is not on PyPI yet" in text and 'pip install ".[tensorflow]"' in text
    wheels = set(re.findall(r"dlcompanion-[\w.]+-py3-none-any\.whl", text))
    assert wheels <= {f"dlcompanion-{dlcompanion.__version__}-py3-none-any.whl"}


@pytest.mark.parametrize(
    ("extra", "backend"),
    [
        ("gallery", {"tensorflow", "tensorflow-probability"}),
        ("gallery-jax", {"jax", "tfp-nightly"}),
        ("gallery-torch", {"torch"}),
    ],
)
def test_every_backend_has_an_extra_with_all_that_the_scripts_use(extra, backend):
    modules = set().union(*(imports(script) for script in SCRIPTS))
    roots = {module.partition(".")[0] for module in modules}
    roots -= sys.stdlib_module_names
    # scipy comes with scikit-learn; Keras and NumPy with the package
    roots -= {"dlcompanion", "keras", "numpy", "scipy"}
    names = {name.replace("sklearn", "scikit-learn") for name in roots}
    assert libraries(extra) == names | backend | {"pygame"}  # which draws for gymnasium
    assert f"``{extra}``" in (ROOT / "docs/start.rst").read_text()
    assert f"`{extra}`" in README.read_text()
