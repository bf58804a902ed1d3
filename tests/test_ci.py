"""What CI runs of a repository that has changed, and what it records."""

import importlib.util
import json
import subprocess
import sys

import pytest
from source_files import PAGES, ROOT, name

pytestmark = pytest.mark.once


def load(stem):
    spec = importlib.util.spec_from_file_location(stem, ROOT / f".ci/{stem}.py")
    module = sys.modules[stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


affected = load("affected")
ledger = load("ledger")

ADDS_ALL = "from dlcompanion.sums import add\n"
DOUBLES = "from dlcompanion.sums.twice import twice\n"
ADDS = "from dlcompanion.sums.adding import add\n"
FILES = {
    ".gitignore": "__pycache__/\n",
    "dlcompanion/__init__.py": "from dlcompanion import sums\n",
    "dlcompanion/sums/__init__.py": '"""Sums."""\n' + ADDS + '__all__ = ["add"]\n',
    "dlcompanion/sums/adding.py": "def add(a, b):\n    return a + b\n",
    "dlcompanion/sums/twice.py": (
        "def twice(a):\n    from dlcompanion.sums import add\n    return add(a, a)\n"
    ),
    "tests/conftest.py": "",
    "tests/helpers/numbers_of.py": "ONE = 1\n",
    "tests/references/table.npz": "numbers",
    "tests/sums/test_adding.py": ADDS_ALL + "\ndef test_add():\n    assert add(1, 2)\n",
    "tests/sums/test_twice.py": f'CODE = """\n{DOUBLES}"""\n',
    "tests/sums/test_helped.py": "from numbers_of import ONE\n",
    "tests/sums/test_table.py": 'PATH = __file__ + "/../references/table.npz"\n',
    "tests/sums/test_alone.py": '"""Says dlcompanion.sums.adding in passing."""\n',
    "gallery/sums/plot_adding.py": ADDS_ALL + "print(add(1, 1))\n",
    "gallery/sums/plot_alone.py": "print(2)\n",
    "README.md": "Sums.\n",
}
FILES |= {f"tests/more/test_{number}.py": f"# {number}\n" for number in range(20)}


class Clone(affected.Repository):
    """A small repository of its own, at its first commit."""

    def __init__(self, root):
        for path, text in FILES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        super().__init__(root)
        self.git("init", "-q")
        self.commit()

    def commit(self, **files):
        """Change files, ``__`` for a slash and ``_dot_`` for a dot, and commit."""
        for path, text in files.items():
            self.write(path.replace("__", "/").replace("_dot_", "."), text)
        self.git("add", "-A")
        who = ("-c", "user.name=Nobody", "-c", "user.email=nobody@localhost")
        self.git(*who, "commit", "-q", "--allow-empty", "-m", "A change")
        return self.git("rev-parse", "HEAD").strip()

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def verified(self, commit, environments=tuple(affected.ITEMS)):
        record = {environment: {"commit": commit} for environment in environments}
        self.write(affected.RECORD, json.dumps(record))


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


def stems(paths):
    return {path.rpartition("/")[2].removesuffix(".py") for path in paths}


# -- what a change reaches ----------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "tests", "scripts"),
    [
        ("dlcompanion/sums/adding.py", {"test_adding", "test_twice"}, {"plot_adding"}),
        ("dlcompanion/sums/twice.py", {"test_twice"}, set()),
        ("dlcompanion/sums/__init__.py", set(), set()),
        ("tests/helpers/numbers_of.py", {"test_helped"}, set()),
        ("tests/references/table.npz", {"test_table"}, set()),
        ("tests/sums/test_alone.py", {"test_alone"}, set()),
        ("gallery/sums/plot_alone.py", set(), {"plot_alone"}),
        ("README.md", set(), set()),
        ("docs/index.rst", set(), set()),
        (".ci/verified.json", set(), set()),
    ],
)
def test_a_change_reaches_what_uses_it(clone, changed, tests, scripts):
    found, culprit = affected.reached(clone, "tests-jax", [changed])
    assert (stems(found), culprit) == (tests, None)
    found, culprit = affected.reached(clone, "docs", [changed])
    assert (stems(found), culprit) == (scripts, None)


@pytest.mark.parametrize(
    "changed",
    ["tox.ini", "pyproject.toml", "tests/conftest.py", ".ci/run"]
    + ["dlcompanion/__init__.py", "dlcompanion/sums/unknown.csv"],
)
def test_some_changes_reach_everything(clone, changed):
    for environment in affected.ITEMS:
        assert affected.reached(clone, environment, [changed]) == (None, changed)


def test_what_runs_the_scripts_reaches_all_of_them_and_no_test(clone):
    changed = ["docs/_ext/gallery_hooks.py"]
    assert affected.reached(clone, "docs", changed) == (None, changed[0])
    assert affected.reached(clone, "tests-torch", changed) == (set(), None)


def test_a_package_with_code_in_its_init_reaches_what_imports_it(clone):
    text = FILES["dlcompanion/sums/__init__.py"] + "\ndef total():\n    pass\n"
    clone.write("dlcompanion/sums/__init__.py", text)
    again = affected.Repository(clone.root)
    found, _ = affected.reached(again, "docs", ["dlcompanion/sums/__init__.py"])
    assert stems(found) == {"plot_adding"}


def test_every_module_is_reached_by_its_own_test_and_not_by_all():
    repository = affected.Repository(ROOT)
    everything = repository.items("tests-jax")
    closures = {item: repository.closure(item) for item in everything}
    for page in map(name, PAGES):
        folder, _, stem = page.rpartition("/")
        test = f"tests/{folder.partition('/')[2]}/test_{stem}"
        assert page in closures[test], page
        assert sum(page in closure for closure in closures.values()) < len(closures) / 2


# -- the rotating fifth -------------------------------------------------------


def test_five_commits_in_a_row_choose_every_file_once(clone):
    clone.verified(clone.commit())
    chosen = []
    for _ in range(5):
        chosen += affected.select(clone, "tests-jax")["run"]
        clone.commit()
    assert sorted(chosen) == clone.items("tests-jax")


def test_a_planted_failure_in_an_unchanged_file_is_found_within_five_commits(clone):
    clone.write("tests/sums/test_adding.py", "def test_add():\n    assert False\n")
    clone.verified(clone.commit())  # a record that lies
    found = []
    for _ in range(5):
        clone.commit(**{"tests__sums__test_alone_dot_py": f"# {len(found)}\n"})
        run = affected.select(clone, "tests-torch")["run"]
        assert run and len(run) < len(clone.items("tests-torch"))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *run],
            cwd=clone.root,
            capture_output=True,
            text=True,
        )
        found.append("test_adding.py::test_add" in done.stdout)
    assert found.count(True) == 1


# -- the record ---------------------------------------------------------------

UNKNOWN = "0123456789" * 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "there is no .ci/verified.json"),
        ('{"tests-jax": {"com', "is no JSON, cut off perhaps"),
        ("[]", "names no commit for"),
        ("{}", "names no commit for"),
        (json.dumps(dict.fromkeys(affected.ITEMS, 7)), "names no commit for"),
        (json.dumps(dict.fromkeys(affected.ITEMS, {"commit": 7})), "names no commit"),
        (
            json.dumps(dict.fromkeys(affected.ITEMS, {"commit": "HEAD"})),
            "no commit for",
        ),
        (
            json.dumps(dict.fromkeys(affected.ITEMS, {"commit": UNKNOWN})),
            "unknown here",
        ),
    ],
)
def test_a_record_that_cannot_be_trusted_runs_everything(clone, text, why):
    if text is not None:
        clone.write(affected.RECORD, text)
    for environment in affected.ITEMS:
        selection = affected.select(clone, environment)
        assert selection["run"] is None and selection["left_out"] == []
        assert selection["why"].startswith("everything: ") and why in selection["why"]
        assert "\n" not in selection["why"]


def test_a_full_run_is_asked_for(clone):
    clone.verified(clone.commit())
    assert affected.select(clone, "docs", full=True)["run"] is None
    assert affected.select(clone, "docs", full=True)["why"].endswith("CI_FULL is set")


def test_changes_that_are_not_committed_count(clone):
    clone.verified(clone.commit())
    clone.write("dlcompanion/sums/twice.py", "def twice(a):\n    return 2 * a\n")
    clone.write("tests/sums/test_new.py", "")
    again = affected.Repository(clone.root)
    assert {"test_twice", "test_new"} <= stems(
        affected.select(again, "tests-jax")["run"]
    )


def test_without_git_everything_runs(tmp_path):
    tmp_path.joinpath(".ci").mkdir()
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    record = json.dumps(dict.fromkeys(affected.ITEMS, {"commit": UNKNOWN}))
    (tmp_path / affected.RECORD).write_text(record)
    selection = affected.select(affected.Repository(tmp_path), "docs")
    assert selection["run"] is None


@pytest.mark.parametrize(
    ("run", "lines"),
    [
        (None, ["--clean"]),
        (["gallery/sums/plot_adding.py"], ["--clean", "--only", "adding"]),
    ],
)
def test_the_site_is_built_anew_of_what_was_chosen(run, lines):
    assert affected.arguments("docs", run) == lines


COUNTS = dict.fromkeys(ledger.ENVIRONMENTS, {"passed": 3, "failed": 0, "skipped": 1})


def record(clone, monkeypatch, changed=(), faults=()):
    monkeypatch.chdir(clone.root)
    environments = {e: {"left_out": ["a file"]} for e in affected.ITEMS}
    selection = {"commit": "c" * 40, "changed": changed, "environments": environments}
    ledger.record(selection, COUNTS, faults)
    return json.loads((clone.root / affected.RECORD).read_text())


def test_what_passed_is_recorded(clone, monkeypatch):
    clone.verified("b" * 40)
    found = record(clone, monkeypatch, faults=["tests-jax: a failed", "site: b failed"])
    assert {environment: row["commit"][0] for environment, row in found.items()} == {
        "tests": "c",
        "tests-jax": "b",
        "tests-torch": "c",
        "docs": "b",
    }
    row = found["tests-torch"]
    assert (row["passed"], row["skipped"], row["files_left_out"]) == (3, 1, 1)
    assert len(row["date"]) == 10


def test_nothing_is_recorded_of_files_that_no_commit_has(clone, monkeypatch, capsys):
    clone.verified("b" * 40)
    found = record(clone, monkeypatch, changed=["tests/sums/test_new.py"])
    assert {row["commit"] for row in found.values()} == {"b" * 40}
    assert "tests/sums/test_new.py" in capsys.readouterr().out


def test_a_record_that_is_cut_off_is_written_anew(clone, monkeypatch):
    clone.write(affected.RECORD, '{"tests-jax": {"com')
    assert set(record(clone, monkeypatch)) == set(ledger.RECORDED)


# -- the ledger ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "chapter"),
    [
        ("tests.losses.test_triplet", "losses"),
        ("tests.generative.flows.test_actnorm", "generative"),
        (
            ".tox.tests.lib.python3.11.site-packages.dlcompanion.losses.triplet",
            "losses",
        ),
        ("tests.test_autodiff", "all chapters"),
        ("dlcompanion.autodiff", "all chapters"),
    ],
)
def test_the_chapter_of_a_test(place, chapter, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert ledger.chapter_of(place) == chapter


def test_tests_above_the_budget_are_named(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    topics = len(list(ROOT.glob("gallery/losses/plot_*.py")))
    cases = {
        environment: [
            ledger.Case("tests.losses.test_a::b", "losses", 1.0, cpu, "passed", ""),
            ledger.Case("tests.test_c::d", "all chapters", 1.0, 999.0, "passed", ""),
        ]
        for environment, cpu in (("tests", 7.5 * topics), ("tests-jax", 7.5 * topics))
    }
    notes = []
    ledger.by_chapter(cases, notes)
    assert len(notes) == 1
    assert notes[0].startswith("tests-jax: the tests of a topic of losses take 7.5 CPU")
    assert "tests.losses.test_a" in notes[0]
    assert "losses" in capsys.readouterr().out
