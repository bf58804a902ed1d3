"""Tests of dlcompanion.topics: rows, records, and what is derived from files."""

import json
import shutil
from pathlib import Path

import pytest

from dlcompanion import topics
from dlcompanion.topics import records, rows

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
GOOD = 'title = "A chapter"\ndescription = "Of the book"\n'
ROW = {
    "slug": "a_topic",
    "title": "A topic",
    "do": "build",
    "target": "It measures what it says",
}


def toml(row):
    lines = [f"{key} = {json.dumps(value)}" for key, value in row.items()]
    return "\n".join(["[[topic]]", *lines, ""])


@pytest.fixture
def folder(tmp_path):
    """A catalogue of one topic, in the chapter losses."""
    for chapter in rows.CHAPTERS:
        (tmp_path / f"{chapter}.toml").write_text(GOOD)
    (tmp_path / "losses.toml").write_text(GOOD + toml(ROW))
    return tmp_path


def refused(folder, *parts):
    with pytest.raises(ValueError) as error:
        topics.read_chapters(folder)
    message = str(error.value)
    assert "\n" not in message and " Received: " in message
    for part in parts:
        assert part in message
    return message


# -- rows ---------------------------------------------------------------------


def test_a_good_catalogue_is_read_in_the_order_of_the_book(folder):
    found = topics.read_chapters(folder)
    assert tuple(found) == rows.CHAPTERS
    assert found["losses"]["topic"] == [ROW]
    assert found["graphs"] == {
        "title": "A chapter",
        "description": "Of the book",
        "topic": [],
    }


@pytest.mark.parametrize("key", ["title", "do", "target"])
@pytest.mark.parametrize("value", [None, "", "  ", 3])
def test_a_row_that_lacks_something_is_named(folder, key, value):
    row = {k: v for k, v in {**ROW, key: value}.items() if v is not None}
    (folder / "losses.toml").write_text(GOOD + toml(row))
    message = refused(folder, f"needs {key!r}", "losses.toml", "'a_topic'")
    assert message.endswith(f"Received: {key}={value!r}")


def test_a_row_without_a_slug_is_counted(folder):
    nameless = {key: value for key, value in ROW.items() if key != "slug"}
    (folder / "losses.toml").write_text(GOOD + toml(ROW) + toml(nameless))
    refused(folder, "needs 'slug'", "losses.toml, topic 2")


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"state": "done"}, "The keys of a topic are slug, title, do, target, verdict"),
        ({"chapter": "losses"}, "The keys of a topic are"),
        ({"verdict": "maybe"}, "verdict is one of held, weaker, false"),
        ({"verdict": 1}, "'verdict' of a topic is a text"),
        ({"do": "think"}, "do is one of build, show"),
        ({"slug": "A-Topic"}, "words in lower case"),
        ({"script": "nowhere"}, "script is the slug of the topic whose page"),
        ({"do": "show", "component": "x.py"}, "has no component, since Keras has it"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(folder, more, rule):
    (folder / "losses.toml").write_text(GOOD + toml({**ROW, **more}))
    key, value = list(more.items())[-1]
    slug = more.get("slug", "a_topic")
    message = refused(folder, rule, "losses.toml", repr(slug))
    assert message.endswith(f"Received: {key}={value!r}")


@pytest.mark.parametrize("chapter", ["losses", "vision"])
def test_a_slug_is_used_once(folder, chapter):
    file = folder / f"{chapter}.toml"
    file.write_text(file.read_text() + toml({**ROW, "title": "Another"}))
    refused(folder, "A slug is used once", f"In {chapter}.toml", "losses.toml has it")


def test_a_file_is_named_for_a_chapter(folder):
    (folder / "losses.toml").rename(folder / "loss.toml")
    refused(folder, "loss.toml is named for none")


def test_every_chapter_has_its_file(folder):
    (folder / "losses.toml").unlink()
    refused(folder, "Every chapter has its file", "losses.toml")


def test_a_file_that_is_no_toml(folder):
    file = folder / "losses.toml"
    file.write_text(file.read_text()[:-5])
    refused(folder, "losses.toml is not TOML")
    file.write_bytes(b"\xff\xfe")
    refused(folder, "losses.toml is not TOML")


@pytest.mark.parametrize(
    ("head", "rule"),
    [
        ('description = "Of the book"\n', "Every chapter needs 'title'"),
        (GOOD + 'number = "3"\n', "The keys of a chapter are title, description"),
        (GOOD + 'topic = "x"\n', "Every topic opens with [[topic]]"),
    ],
)
def test_the_head_of_a_chapter(folder, head, rule):
    (folder / "losses.toml").write_text(head)
    refused(folder, rule, "losses.toml")


# -- records ------------------------------------------------------------------

RUN = {"cpu_seconds": 12.345, "keras": "3.15.1", "backend": "tensorflow"}
CLAIM = {
    "script": "plot_a_topic",
    "text": "it is small",
    "value": 1 / 3,
    "comparison": "<",
    "bound": 0.5,
    "unit": None,
    "seeds": 5,
    "holds": True,
    "seconds": 11.0,
}


def test_a_record_comes_back_as_it_was_written(tmp_path):
    folder = tmp_path / "measured"
    assert topics.read_record("a_topic", folder) is None
    path = topics.write_record("a_topic", RUN, [CLAIM], folder)
    assert [p.name for p in folder.iterdir()] == ["a_topic.json"] == [path.name]
    assert topics.read_record("a_topic", folder) == {
        "seconds": 12.3,
        "keras": "3.15.1",
        "backend": "tensorflow",
        "claims": [{key: CLAIM[key] for key in records.CLAIM}],
    }


@pytest.mark.parametrize("claims", [[], [CLAIM, {**CLAIM, "holds": False}]])
def test_only_claims_that_hold_are_recorded(tmp_path, claims):
    with pytest.raises(ValueError, match="claims that hold.*'a_topic'.*Received"):
        topics.write_record("a_topic", RUN, claims, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_record_that_is_cut_off_or_lacks_a_key_names_the_remedy(tmp_path):
    path = topics.write_record("a_topic", RUN, [CLAIM], tmp_path)
    whole = path.read_text()
    for broken in (
        whole[: len(whole) // 2],
        "[]",
        whole.replace("seconds", "minutes"),
        whole.replace('"unit"', '"units"'),
    ):
        path.write_text(broken)
        remedy = "a_topic.json.*build.py --only a_topic --record.*Received: "
        with pytest.raises(ValueError, match=remedy) as error:
            topics.read_record("a_topic", tmp_path)
        assert "\n" not in str(error.value)


# -- what is derived ----------------------------------------------------------


def derived(slug):
    return topics.topics.__wrapped__()[slug]


@pytest.mark.parametrize(
    "file",
    [
        "dlcompanion/optimization/lookahead.py",
        "gallery/optimization/plot_lookahead.py",
        "tests/optimization/test_lookahead.py",
        "dlcompanion/topics/measured/lookahead.json",
    ],
)
def test_a_topic_is_done_when_all_its_files_are_there(tmp_path, monkeypatch, file):
    package = tmp_path / "dlcompanion"
    for part in ("dlcompanion/optimization", "gallery/optimization"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copytree(ROOT / "tests/optimization", tmp_path / "tests/optimization")
    measured = package / "topics/measured"
    shutil.copytree(records.FOLDER, measured)
    monkeypatch.setattr("dlcompanion.topics.files.PACKAGE", package)
    monkeypatch.setattr("dlcompanion.topics.files.RECORDS", measured)
    topic = derived("lookahead")
    assert topic["state"] == "done" and topic["seconds"] > 0 and topic["claims"]
    (tmp_path / file).unlink()
    topic = derived("lookahead")
    assert topic["state"] == "planned"
    assert not {"seconds", "claims"} & set(topic)
    assert len(topics.missing_files(topic)) == 1


def test_a_topic_without_a_verdict_is_not_done():
    topic = dict(topics.find_topic("lookahead"))
    assert topics.missing_files(topic) == []
    del topic["verdict"]
    assert topics.missing_files(topic) == ["no verdict on the target"]


def test_a_topic_may_be_shown_on_the_page_of_another():
    guest, host = topics.find_topic("value_iteration"), topics.find_topic("tabular")
    for key in ("script", "seconds", "claims"):
        assert guest[key] == host[key]
    assert guest["component"] != host["component"]


@pytest.mark.parametrize(
    ("component", "test"),
    [
        ("dlcompanion/losses/triplet.py", "tests/losses/test_triplet.py"),
        ("dlcompanion/losses/search/a.py", "tests/losses/search/test_a.py"),
        ("dlcompanion/autodiff.py", "tests/test_autodiff.py"),
        ("dlcompanion/testing/__init__.py", "tests/test_testing.py"),
        ("dlcompanion/training/checkpoint.py", "tests/test_checkpoint.py"),
    ],
)
def test_tests_stand_where_the_component_stands(component, test):
    assert topics.test_file(component) == test


def test_a_topic_to_show_has_neither_component_nor_tests():
    topic = topics.find_topic("curse_of_dimensionality")
    assert not {"component", "test"} & set(topic)
    assert topics.public_names(topic) == [] and topics.import_line(topic) is None
