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


@pytest.mark.parametrize("names", [[], "VAE", ["VAE", ""], ["VAE", "-"], [1], None])
def test_other_names_are_a_list_of_texts(folder, names):
    more = {} if names is None else {"names": names}
    (folder / "losses.toml").write_text(GOOD + toml({**ROW, "names": ["VAE"]}))
    assert topics.read_chapters(folder)["losses"]["topic"][0]["names"] == ["VAE"]
    (folder / "losses.toml").write_text(GOOD + toml({**ROW, **more}))
    if names is None:
        assert topics.read_chapters(folder)["losses"]["topic"] == [ROW]
    else:
        rule = "'names' of a topic is a list of texts"
        assert refused(folder, rule).endswith(f"Received: names={names!r}")


OTHER = {**ROW, "slug": "ae_of_two_numbers", "title": "The VAE", "names": ["VAE"]}


@pytest.mark.parametrize("shared", ["vae", "THE-VAE", "ae of two numbers", "V A E"])
@pytest.mark.parametrize("chapter", ["losses", "vision"])
def test_another_name_belongs_to_one_topic(folder, chapter, shared):
    (folder / "graphs.toml").write_text(GOOD + toml(OTHER))
    file = folder / f"{chapter}.toml"
    row = {**ROW, "slug": "a_second", "title": "A second", "names": ["GAN", shared]}
    file.write_text(file.read_text() + toml(row))
    message = refused(folder, "No two topics share a name, and ")
    assert "'ae_of_two_numbers'" in message and "'a_second'" in message


def test_another_name_may_repeat_a_name_of_its_own_topic(folder):
    row = {**OTHER, "names": ["VAE", "the vae", "vae"]}
    (folder / "graphs.toml").write_text(GOOD + toml(row))
    assert topics.read_chapters(folder)["graphs"]["topic"] == [row]


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


# -- names --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "deep_ensembles",
        "deep-ensembles",
        "Deep Ensembles",
        "DeepEnsemble",
        "deepensemble",
        topics.topics()["deep_ensembles"]["title"],
        topics.topics()["deep_ensembles"]["title"].upper(),
    ],
)
def test_a_topic_is_found_whatever_the_case_hyphens_and_spaces(name):
    assert topics.find_topic(name)["slug"] == "deep_ensembles"


def test_every_slug_title_and_public_name_finds_its_topic():
    for slug, topic in topics.topics().items():
        for name in (slug, topic["title"], *topics.public_names(topic)):
            for written in (name, name.upper(), name.replace("_", "-")):
                assert topics.find_topic(written)["slug"] == slug, written


@pytest.fixture
def named(monkeypatch):
    """The catalogue, with another title and other names for two topics."""
    from dlcompanion.topics import catalogue

    rows = {**topics.topics()}
    rows["dqn"] = {**rows["dqn"], "title": "Deep Q-network (DeepQ)"}
    rows["dqn"]["names"] = ["Nature agent", "Atari player"]
    monkeypatch.setattr(catalogue, "topics", lambda: rows)
    catalogue._names.cache_clear()
    yield
    catalogue._names.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        "nature-agent",
        "ATARIPLAYER",
        "deep q network",
        "deepq",
        "Deep Q-network (DeepQ)",
    ],
)
def test_a_topic_is_found_by_its_other_names(named, name):
    assert topics.find_topic(name)["slug"] == "dqn"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("relnvp", "Did you mean RealNVP?"),
        ("atari playr", "Did you mean 'Atari player'"),
        ("deep q netwrk", "Did you mean 'Deep Q-network'"),
    ],
)
def test_near_misses_are_of_all_names_one_a_topic(named, name, near):
    with pytest.raises(ValueError) as error:
        topics.find_topic(name)
    message = str(error.value)
    assert near in message and message.startswith(f"There is no topic {name!r}.")


# -- what a page names ----------------------------------------------------------


def test_prerequisites_are_read_from_the_page(tmp_path, monkeypatch):
    script = tmp_path / "optimization" / "plot_lookahead.py"
    script.parent.mkdir()
    monkeypatch.setattr("dlcompanion.topics.files.gallery", lambda: tmp_path)
    topic = topics.find_topic("lookahead")
    assert topics.prerequisites(topic) == []
    two = (
        "Prerequisites: :doc:`/gallery/reinforcement/plot_ppo` and\n"
        ":ref:`the digits <sphx_glr_gallery_losses_plot_triplet.py>`. "
    )
    later = "Notation: :doc:`/notation`.\n\nSee :doc:`/gallery/graphs/plot_late`."
    for said, found in ((two, ["ppo", "triplet"]), ("", [])):
        script.write_text(f'r"""\nTitle\n=====\n\n{said}{later}\n"""\n')
        assert topics.prerequisites(topic) == found


@pytest.mark.parametrize("slug", list(topics.topics()))
def test_prerequisites_are_topics(slug):
    assert set(topics.prerequisites(topics.topics()[slug])) <= {*topics.topics()}


def test_a_topic_to_show_has_neither_component_nor_tests():
    topic = topics.find_topic("curse_of_dimensionality")
    assert not {"component", "test"} & set(topic)
    assert topics.public_names(topic) == [] and topics.import_line(topic) is None
