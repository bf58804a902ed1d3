"""What every page of the gallery has, beyond the parts that test_layout names."""

import ast
import re
from xml.etree import ElementTree

import pytest
from source_files import ROOT, SCRIPTS, called, claims_of, each, tree

from dlcompanion import topics

pytestmark = pytest.mark.once

TOPICS = topics.topics()
LEVELS = {"introductory", "intermediate", "advanced"}
SEEDED = {"set_random_seed", "default_rng", "SeedGenerator", "RandomState", "PRNGKey"}


def topic_of(path):
    return TOPICS[path.stem.removeprefix("plot_")]


def docstring(path):
    return ast.get_docstring(tree(path)).strip()


# -- the title and what follows -------------------------------------------------


@each(SCRIPTS)
def test_the_title_is_the_topic_and_a_claim(path):
    title = docstring(path).splitlines()[0]
    assert title.startswith(f"{topic_of(path)['title']}: ")
    assert len(title) <= 95


@each(SCRIPTS)
def test_the_page_comes_after_its_prerequisites(path):
    order = list(TOPICS)
    for slug in topics.prerequisites(topic_of(path)):
        assert order.index(slug) < order.index(topic_of(path)["slug"])


@each(SCRIPTS)
def test_every_figure_has_an_alt_text(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import alt_texts

    text = path.read_text(encoding="utf-8")
    given = alt_texts.texts(text)
    assert len(given) >= text.count("plt.show()")
    for words in given:
        assert 20 <= len(words) <= 300, words


@each(SCRIPTS)
def test_exercises_have_hints(path):
    text = path.read_text(encoding="utf-8").partition("# Try it\n")[2]
    exercises = re.findall(r"^# (\d)\. ", text, re.MULTILINE)
    hints = re.findall(r"^# \.\. dropdown:: Hint to (\d)", text, re.MULTILINE)
    assert len(exercises) >= 2 and hints == exercises


@each(SCRIPTS)
def test_the_tags_are_kinds_and_one_level(path):
    text = path.read_text(encoding="utf-8")
    (tags,) = re.findall(r"^# sphinx_gallery_tags = (\[.*\])$", text, re.MULTILINE)
    tags = ast.literal_eval(tags)
    assert len(LEVELS & set(tags)) == 1
    # on which backends a script runs is measured: docs/remeasure.py
    assert not [t for t in tags if re.search("backend|TensorFlow|JAX|PyTorch", t)]


# -- chance -----------------------------------------------------------------------


@each(SCRIPTS)
def test_every_seed_comes_from_claims(path):
    assert list(literal_seeds(tree(path))) == []


def literal_seeds(module):
    """Where a script has a seed that no offset shifts."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            given = [
                k.value for k in node.keywords if k.arg in ("seed", "random_state")
            ]
            if called(node) in SEEDED:
                given += node.args[:1] or ([] if node.keywords else [None])
            for value in given:
                if value is None or not is_derived(value):
                    yield f"line {node.lineno}: {ast.unparse(node)[:60]}"
        elif isinstance(node, ast.For | ast.comprehension):
            if "seed" in ast.unparse(node.target) and called_range(node.iter):
                yield f"{ast.unparse(node.target)} in {ast.unparse(node.iter)}"
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [ast.unparse(target) for target in node.targets]
            if any("seed" in name for name in names):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def is_derived(value):
    """Whether a seed is computed from something that has a name."""
    return any(isinstance(node, ast.Name) for node in ast.walk(value))


def called_range(node):
    return isinstance(node, ast.Call) and called(node) == "range"


@pytest.mark.parametrize(
    "line, clean",
    [
        ("keras.utils.set_random_seed(claims.seed())", True),
        ("rng = np.random.default_rng([claims.seed(), 1])", True),
        ("for seed in claims.seeds(5): f(seed=seed)", True),
        ("keras.utils.set_random_seed(0)", False),
        ("rng = np.random.default_rng()", False),
        ("rng = np.random.default_rng([0, 1])", False),
        ("split(x, random_state=7)", False),
        ("f(seed=3)", False),
        ("for seed in range(5): f(seed)", False),
        ("x = [f(seed) for seed in range(5)]", False),
        ("seed = 0", False),
    ],
)
def test_a_literal_seed_is_noticed(line, clean):
    assert (list(literal_seeds(ast.parse(line))) == []) == clean


# -- claims -----------------------------------------------------------------------


@each(SCRIPTS)
def test_a_claim_can_be_read_alone(path):
    record = topics.read_record(path.stem.removeprefix("plot_"))
    assert len(record["claims"]) >= len(claims_of(path))
    for claim in record["claims"]:
        text = claim["text"]
        assert 3 <= len(text.split()) and len(text) <= 110, text
        first = text.split()[0].lower()
        assert first not in {"and", "but", "it", "its", "there", "they", "this"}, text
        assert not re.search(r"\bthe same\b(?! \w)", text), text


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    import elsewhere

    return elsewhere


@each(SCRIPTS)
def test_a_verdict_is_not_better_than_other_seeds(path, elsewhere):
    if topic_of(path)["verdict"] == "held":
        assert [c for c in elsewhere.counts(path) if c.held < c.runs] == []


@each(SCRIPTS)
def test_a_claim_holds_on_most_other_seeds(path, elsewhere):
    for number, count in enumerate(elsewhere.counts(path), 1):
        if count.runs >= 4:  # fewer tell little
            assert 2 * count.held > count.runs, f"claim {number}"


# -- the landing page ---------------------------------------------------------------


def test_the_pictures_of_the_landing_page_are_of_topics_that_are_written():
    index = (ROOT / "docs" / "index.rst").read_text(encoding="utf-8")
    (slugs,) = re.findall(r"^\.\. pictures:: ((?:.+\n)+)", index, re.MULTILINE)
    slugs = slugs.split()
    assert len(set(slugs)) == len(slugs) >= 6
    for slug in slugs:
        assert TOPICS[slug]["state"] == "done", slug
        assert "plt.show()" in (ROOT / TOPICS[slug]["script"]).read_text("utf-8")


# -- drawings -----------------------------------------------------------------------

DRAWINGS = sorted((ROOT / "docs" / "drawings").glob("*.svg"))
DRAWN = re.compile(
    r"^# \.\. figure:: /drawings/(\w+)\.svg\n"
    r"#    :figclass: drawing\n"
    r"#    :alt: (.*(?:\n#       .*)*)\n#\n",
    re.MULTILINE,
)


@each(SCRIPTS)
def test_a_drawing_is_that_of_the_page_and_has_an_alt_text(path):
    text = path.read_text(encoding="utf-8")
    found = DRAWN.findall(text)
    assert len(found) == len(re.findall(r"\.\. (?:figure|image)::", text)) <= 1
    for slug, alt in found:
        assert path.stem == f"plot_{slug}" and slug in [p.stem for p in DRAWINGS]
        assert 20 <= len(re.sub(r"\s*\n# +", " ", alt)) <= 300


@each(DRAWINGS)
def test_a_drawing_can_be_read_on_a_phone_and_stands_alone(path):
    text = path.read_text(encoding="utf-8")
    assert f"/drawings/{path.name}" in (ROOT / TOPICS[path.stem]["script"]).read_text(
        encoding="utf-8"
    )
    svg = ElementTree.fromstring(text)
    _, _, width, height = map(float, svg.get("viewBox").split())
    assert width <= 520  # a phone shows it at two thirds of its size
    shape = float(svg.get("width")) / float(svg.get("height"))
    assert shape == pytest.approx(width / height, rel=0.01)
    assert min(map(int, re.findall(r"font(?:-size)?: (\d+)px", text))) >= 16
    for words in svg.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(words.get("x")) <= width
        assert 16 <= float(words.get("y")) <= height - 4
    # it has its own ground, so that it is seen in the dark, and loads nothing
    ground = svg.find("{http://www.w3.org/2000/svg}rect")
    assert (ground.get("fill"), ground.get("width")) == (
        "#fff",
        svg.get("viewBox").split()[2],
    )
    assert not re.search(r"href|@import|url\((?!#)|<script|<image", text)
    marks = set(re.findall(r'<marker id="(\w+)"', text))
    assert set(re.findall(r"url\(#(\w+)\)", text)) == marks
