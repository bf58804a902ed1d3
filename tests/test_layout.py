"""The naming rule, the catalogue, what "done" means, and the parts of a page."""

import ast
import operator as op
import re
import sys
from collections import Counter

import pytest
from source_files import (
    CHAPTERS,
    MODULES,
    PACKAGE,
    PAGES,
    ROOT,
    SCRIPTS,
    TESTS,
    all_of,
    called,
    chapter_of,
    claim_calls,
    claims_of,
    definitions,
    each,
    imports,
    is_constant,
    name,
    registered,
    room_of,
    sizes,
    tree,
)

import dlcompanion
from dlcompanion import topics

pytestmark = pytest.mark.once

TOPICS = topics.topics()
SCRIPTS_MAY_IMPORT = {"dlcompanion", "gymnasium", "keras", "matplotlib", "networkx"}
SCRIPTS_MAY_IMPORT |= {"numpy", "scipy", "sklearn"}


# -- one naming rule ----------------------------------------------------------


def test_a_file_name_is_used_once():
    twice = [n for n, k in Counter(p.stem for p in PAGES).items() if k > 1]
    assert not twice


@each(PAGES)
def test_a_module_has_its_test_at_the_same_place(path):
    assert place_of_test(path).is_file()


@each(PAGES)
def test_the_top_level_of_a_chapter_holds_topics_only(path):
    assert not misplaced(path)


@each(p for p in TESTS if chapter_of(p) and p.name.startswith("test_"))
def test_a_test_has_its_module_at_the_same_place(path):
    assert place_of_module(path).is_file()


@each(SCRIPTS)
def test_a_script_is_the_page_of_a_topic(path):
    topic = TOPICS[path.stem.removeprefix("plot_")]
    assert topic["chapter"] == chapter_of(path)
    assert (path.parent / "GALLERY_HEADER.rst").is_file()


def test_a_chapter_of_the_package_is_a_chapter_of_the_book():
    infrastructure = {"backend", "datasets", "probability", "testing", "topics"}
    infrastructure |= {"training"}
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert folders - infrastructure == set(dlcompanion.__all__)
    assert set(dlcompanion.__all__) <= set(CHAPTERS)


@each(p for p in MODULES if p.name == "__init__.py" and room_of(p))
def test_a_room_says_what_it_holds_and_imports_nothing(path):
    (docstring,) = tree(path).body
    assert isinstance(docstring, ast.Expr) and len(ast.get_docstring(tree(path))) > 10


def misplaced(path, root=ROOT):
    """What is wrong with the place of a module of a chapter, as a sentence."""
    topic, room = TOPICS.get(path.stem), room_of(path, root)
    if room is None and topic is None:
        return "parts that topics share stand in a room"
    if room is not None and topic is not None:
        return "a topic stands at the top level of its chapter"
    if room is not None and "/" in room:
        return "a room has no rooms"
    if topic and (topic["chapter"], topic["do"]) != (chapter_of(path, root), "build"):
        return f"the topic is one of {topic['chapter']}: {topic['do']}"
    return None


def place_of_test(path, root=ROOT):
    """Where the test of a module of a chapter is."""
    place = path.relative_to(root / "dlcompanion").parent
    return root / "tests" / place / f"test_{path.stem}.py"


def place_of_module(test, root=ROOT):
    """Where the module is that a test of a chapter tests."""
    place = test.relative_to(root / "tests").parent
    return root / "dlcompanion" / place / f"{test.stem.removeprefix('test_')}.py"


def test_a_nested_module_is_under_the_same_rules(tmp_path):
    made = tmp_path / "dlcompanion/reinforcement/games/chess.py"
    assert (chapter_of(made, tmp_path), room_of(made, tmp_path)) == (
        "reinforcement",
        "games",
    )
    wanted = tmp_path / "tests/reinforcement/games/test_chess.py"
    assert (
        place_of_test(made, tmp_path) == wanted
        and place_of_module(wanted, tmp_path) == made
    )
    assert not misplaced(made, tmp_path)
    for wrong, rule in {
        "reinforcement/chess.py": "stand in a room",
        "reinforcement/games/ppo.py": "at the top level",
        "reinforcement/games/old/chess.py": "no rooms",
        "graphs/ppo.py": "one of reinforcement",
    }.items():
        assert rule in misplaced(tmp_path / "dlcompanion" / wrong, tmp_path)


def test_a_room_that_is_called_like_a_chapter_is_none(tmp_path):
    assert "search" in CHAPTERS
    room = tmp_path / "dlcompanion/reinforcement/search/tree.py"
    assert chapter_of(room, tmp_path) == "reinforcement"
    assert chapter_of(tmp_path / "dlcompanion/testing/search/tree.py", tmp_path) is None
    assert chapter_of(tmp_path / "dlcompanion/search/tree.py", tmp_path) == "search"


@each(
    p for p in MODULES if p.name == "__init__.py" and chapter_of(p) and not room_of(p)
)
def test_a_chapter_imports_by_hand_and_does_nothing_else(path):
    docstring, *body = tree(path).body
    assert isinstance(docstring, ast.Expr)
    *lines, last = body
    assert all(isinstance(node, ast.ImportFrom) for node in lines)
    assert isinstance(last, ast.Assign) and last.targets[0].id == "__all__"
    names = [alias.asname or alias.name for node in lines for alias in node.names]
    assert sorted(names) == sorted(all_of(path)) and len(names) == len(set(names))


@each(MODULES)
def test_a_module_fits_in_one_sitting(path):
    code, lines = sizes(path)
    assert code <= 250 and lines <= 600


def test_docstrings_comments_and_blanks_are_no_code(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""Two\nlines."""\n\n# a comment\n\n\ndef f(\n    x,\n):\n'
        '    """What it does."""\n    return """a\nb"""  # two lines\n'
    )
    assert sizes(module) == (5, 12)


@each(SCRIPTS)
def test_no_script_outgrows_600_lines(path):
    assert sizes(path)[1] <= 600


# -- the catalogue ------------------------------------------------------------


def test_no_two_topics_have_one_title():
    titles = Counter(row["title"] for row in TOPICS.values())
    assert not [title for title, count in titles.items() if count > 1]


@pytest.mark.parametrize("slug", list(TOPICS))
def test_a_row_says_what_is_needed(slug):
    row = TOPICS[slug]
    assert len(row["target"]) > 20
    assert not set("`|*") & set(row["title"] + row["target"])
    assert row["state"] == "planned" or 0 < row["seconds"] <= 60
    assert topics.missing_files(row) != ["no verdict on the target"]


def is_begun(row):
    """Whether a topic has a verdict, or a page of its own."""
    script = ROOT / row["script"]
    own = script.stem == f"plot_{row['slug']}"
    return "verdict" in row or own and script.is_file()


@pytest.mark.parametrize("slug", [s for s, row in TOPICS.items() if is_begun(row)])
def test_what_is_begun_is_done(slug):
    missing = what_is_missing(TOPICS[slug])
    assert not missing, f"{slug} is not done: {'; '.join(missing)}"
    assert TOPICS[slug]["state"] == "done"


def what_is_missing(row):
    """What keeps a topic from being done, as sentences."""
    missing = topics.missing_files(row)
    script = ROOT / row["script"]
    if script.is_file() and all(is_constant(c, script) for c in claims_of(script)):
        missing.append(f"{name(script)} claims nothing that it measured")
    if row["do"] == "show":
        return missing
    module, test = ROOT / row["component"], ROOT / row["test"]
    absent = [f"no {name(path)}" for path in (module, test) if not path.is_file()]
    if absent:  # an installed package knows nothing of tests
        return sorted({*missing, *absent})
    chapter = chapter_of(module)
    if chapter:
        public = set(all_of(PACKAGE / chapter / "__init__.py"))
        if not public & {node.name for node in definitions(module)}:
            missing.append(f"nothing of {name(module)} is public")
    words = set(re.findall(r"\w+", test.read_text(encoding="utf-8")))
    checks = {w for w in words if w.startswith("check_")}
    if is_agent(module):  # no component of a model: it plays, and must go on as it was
        if "check_agent" not in checks:
            missing.append(f"{name(test)} does not call check_agent")
    elif registered(module) and chapter and not checks:
        missing.append(f"{name(test)} calls no conformance check")
    for public in registered(module):
        if public not in words:
            missing.append(f"{name(test)} does not know {public}")
    if not any(measures(node) for node in tree(test).body):
        missing.append(f"{name(test)} has neither a reference nor a law")
    return missing


# -- what was measured --------------------------------------------------------


def test_every_page_and_nothing_else_has_a_record():
    recorded = {p.stem for p in PACKAGE.glob("topics/measured/*.json")}
    assert recorded == {p.stem.removeprefix("plot_") for p in SCRIPTS}


@each(SCRIPTS)
def test_a_record_is_of_what_the_script_claims(path):
    claims = topics.read_record(path.stem.removeprefix("plot_"))["claims"]
    assert len(claims) >= len(claims_of(path))
    for claim in claims:
        value, bound = float(claim["value"]), float(claim["bound"])
        assert COMPARISONS[claim["comparison"]](value, bound), claim["text"]
    for call in claim_calls(path):
        said = {k: literal(v) for k, v in call.items() if k != "value"}
        said = {"unit": None, "seeds": None} | said
        assert any(
            all(word in (claim[key], COMPUTED) for key, word in said.items())
            for claim in claims
        ), f"build the site with --record: its record lacks {said}"


COMPARISONS = {"<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge, "==": op.eq}
COMPUTED = object()


def literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return COMPUTED


def is_agent(module):
    classes = [n for n in definitions(module) if isinstance(n, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    return bool(bases & {"BaseAgent", "Agent", "RolloutAgent", "PPO", "DQN"})


def measures(node):
    """Whether a test compares numbers, beyond the contract and the errors."""
    if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
        return False
    asserts = any(isinstance(inner, ast.Assert) for inner in ast.walk(node))
    calls = {called(n) or "" for n in ast.walk(node) if isinstance(n, ast.Call)}
    return "raises" not in calls and (
        asserts or any(c.startswith("assert_") for c in calls)
    )


# -- scripts ------------------------------------------------------------------


@each(SCRIPTS)
def test_a_script_claims_what_it_measured(path):
    values = claims_of(path)
    assert values
    for value in values:
        assert not is_constant(value, path), f"line {value.lineno} claims a constant"


@each(SCRIPTS)
def test_a_script_has_the_parts_of_a_page(path):
    text = path.read_text(encoding="utf-8")
    title, rule = ast.get_docstring(tree(path)).strip().splitlines()[:2]
    assert set(rule) == {"="} and len(rule) >= len(title) and len(title.split()) > 3
    assert re.search(r":(class|func|mod|doc|ref|meth):`", text)
    for heading in ("What to notice", "Try it", "References"):
        assert re.search(rf"^# {heading}\n# -+$", text, re.MULTILINE), heading
    assert "plt.show()" in text
    if "keras" in imports(path):
        assert "set_random_seed(" in text


@each(SCRIPTS)
def test_a_script_imports_only_what_the_gallery_installs(path):
    roots = {module.split(".")[0] for module in imports(path)}
    assert roots <= SCRIPTS_MAY_IMPORT | sys.stdlib_module_names
    assert not {m for m in imports(path) if m.startswith("keras.src")}
    assert not roots & {"http", "urllib", "socket", "ftplib"}


def test_a_claim_of_a_constant_is_noticed(tmp_path):
    script = tmp_path / "plot_x.py"
    script.write_text(
        "bound = 3\nhalf = float(bound) / 2\nfor i in range(3):\n    x = i\n"
        "y = model.evaluate()\n"
        "claim('a', 3, '<', 4)\nclaim('b', max(half, bound), '<', 4)\n"
        "claim('c', x, '<', 4)\nclaim('d', value=y + bound, comparison='<', bound=4)\n"
        "claim('e', i, '<', 4)\n"
    )
    found = [is_constant(value, script) for value in claims_of(script)]
    assert found == [True, True, False, False, False]
