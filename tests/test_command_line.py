"""Tests of the command line, from the package as it is and from a wheel built here."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dlcompanion import startup, topics
from dlcompanion.__main__ import _one_line, main, run_script

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[1]
HERE = topics.PACKAGE.parent
DONE = "curse_of_dimensionality"
PLANNED = next(t["slug"] for t in topics.topics().values() if t["state"] == "planned")


def command(*arguments, python_path=HERE, cwd=None, **environment):
    """Run ``python -m dlcompanion`` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dlcompanion", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(python_path), **environment},
    )


def refused(capsys, arguments, message):
    """Exit code 2 and exactly one line, on stderr."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dlcompanion: ") and err.count("\n") == 1
    assert message in err


# -- list and show ------------------------------------------------------------


def test_list_has_every_topic_under_its_chapter(capsys):
    assert main(["list", "--planned"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [
        line.split()[0] for line in lines if line and "topics are there" not in line
    ]
    assert listed == list(topics.topics())
    heads = [line.split("(")[1].split(")")[0] for line in lines if "are there" in line]
    assert heads == list(topics.chapters())


def test_list_of_a_chapter_shows_state_and_seconds(capsys):
    assert main(["list", "foundations"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith(DONE))
    seconds = topics.topics()[DONE]["seconds"]
    assert line.split()[1:4] == ["done", f"{seconds:.0f}", "s"]
    assert "lookahead" not in out


def test_list_leaves_the_plans_out_and_counts_them(capsys):
    assert main(["list"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    rows = topics.topics().values()
    done = [topic["slug"] for topic in rows if topic["state"] == "done"]
    assert [line.split()[0] for line in lines if " done " in line] == done
    assert not any("planned" in line for line in lines)
    left = len(rows) - len(done)
    assert last == f"{left} more topics are planned; --planned lists them, too."


def test_list_of_a_chapter_counts_its_own_plans(capsys):
    rows = [t for t in topics.topics().values() if t["chapter"] == "losses"]
    left = sum(topic["state"] == "planned" for topic in rows)
    assert main(["list", "losses"]) == 0
    assert f"\n{left} more topic" in capsys.readouterr().out
    assert main(["list", "losses", "--planned"]) == 0
    assert "more topic" not in capsys.readouterr().out


def test_version_says_what_keras_says(capsys):
    import keras

    import dlcompanion

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == (
        f"dlcompanion {dlcompanion.__version__}, Keras {keras.__version__}, "
        f"backend {keras.backend.backend()}\n"
    )


@pytest.mark.parametrize(
    ("variable", "file", "backend"),
    [
        ("torch", '{"backend": "jax"}', "torch"),
        ("", '{"backend": "jax"}', "jax"),
        (None, '{"backend": "jax"}', "jax"),
        (None, "{}", "tensorflow"),
        (None, "cut off {", "tensorflow"),
        (None, "[]", "tensorflow"),
        (None, None, "tensorflow"),
    ],
)
def test_the_backend_is_that_of_keras(monkeypatch, tmp_path, variable, file, backend):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable is not None:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    assert startup.backend_name() == backend


def test_show_gives_claim_import_and_script(capsys):
    assert main(["show", "LOOK-ahead"]) == 0  # any writing of a name finds its topic
    out = capsys.readouterr().out
    topic = topics.topics()["lookahead"]
    assert topic["title"] in out and topic["verdict"] in out
    measured = [line for line in out.splitlines() if line.startswith("measured  ")]
    assert len(measured) == len(topic["claims"]) > 0
    assert topic["claims"][0]["text"] in measured[0]
    assert "from dlcompanion.optimization import Lookahead" in out
    assert str(topics.script_path(topic)) in out


def test_show_names_the_pages_to_read_before(capsys):
    assert main(["show", "ppo"]) == 0
    assert "\nbuilds on actor_critic\n" in capsys.readouterr().out
    assert main(["show", PLANNED]) == 0
    assert "builds on" not in capsys.readouterr().out


@pytest.mark.parametrize("slug", list(topics.topics()))
def test_every_topic_can_be_shown_and_its_import_line_runs(slug, capsys):
    assert main(["show", slug]) == 0
    out = capsys.readouterr().out
    assert topics.topics()[slug]["title"] in out
    line = topics.import_line(topics.topics()[slug])
    if line:
        exec(line, {})


# -- copy ---------------------------------------------------------------------


def test_copy_writes_the_script_and_nothing_else(tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    assert main(["copy", DONE, str(folder)]) == 0
    copy = Path(capsys.readouterr().out.strip())
    assert list(folder.iterdir()) == [copy]
    assert copy.read_bytes() == topics.script_path(topics.topics()[DONE]).read_bytes()


def test_copy_goes_to_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["copy", DONE]) == 0
    assert [p.name for p in tmp_path.iterdir()] == [f"plot_{DONE}.py"]


def test_copy_overwrites_only_with_force(tmp_path, capsys):
    mine = tmp_path / f"plot_{DONE}.py"
    mine.write_text("mine")
    refused(capsys, ["copy", DONE, str(tmp_path)], "--force overwrites it")
    assert mine.read_text() == "mine"
    assert main(["copy", DONE, str(tmp_path), "--force"]) == 0
    assert mine.read_text() != "mine"
    assert list(tmp_path.iterdir()) == [mine]


def test_copy_does_not_follow_a_dangling_link_without_force(tmp_path, capsys):
    link = tmp_path / f"plot_{DONE}.py"
    link.symlink_to(tmp_path / "elsewhere.py")
    refused(capsys, ["copy", DONE, str(tmp_path)], "is there already")
    assert not (tmp_path / "elsewhere.py").exists()


def test_copy_to_a_folder_that_cannot_be_written(tmp_path, capsys):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    if os.geteuid() == 0:  # root writes everywhere but into the kernel's files
        folder = Path("/proc")
    refused(capsys, ["copy", DONE, str(folder)], str(folder))
    assert not list(tmp_path.glob("**/*plot_*"))


def test_copy_to_a_file(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    refused(capsys, ["copy", DONE, str(file)], str(file))
    assert file.read_text() == "mine"


NOTEBOOK = f"plot_{DONE}.ipynb"


def test_copy_writes_a_notebook_and_nothing_else(tmp_path, capsys):
    assert main(["copy", DONE, str(tmp_path), "--notebook"]) == 0
    copy = Path(capsys.readouterr().out.strip())
    assert [*tmp_path.iterdir()] == [copy] == [tmp_path / NOTEBOOK]
    script = topics.script_path(topics.topics()[DONE])
    assert copy.read_text(encoding="utf-8") == topics.notebook(script)


def test_copy_overwrites_a_notebook_only_with_force(tmp_path, capsys):
    mine = tmp_path / NOTEBOOK
    mine.write_text("mine")
    arguments = ["copy", DONE, str(tmp_path), "--notebook"]
    refused(capsys, arguments, f"{NOTEBOOK} is there already; --force overwrites it")
    assert mine.read_text() == "mine"
    assert main([*arguments, "--force"]) == 0
    assert mine.read_text() != "mine"
    assert list(tmp_path.iterdir()) == [mine]


def test_a_notebook_that_cannot_be_made_leaves_no_file(tmp_path, capsys, monkeypatch):
    text = '"""\nTitle\n=====\n\n.. frob:: it\n"""\n'
    small_script(monkeypatch, tmp_path, text)
    folder = tmp_path / "folder"
    refused(capsys, ["copy", DONE, str(folder), "--notebook"], "Received: .. frob::")
    assert not folder.exists()


# -- names that are not there -------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "lokahead"], "Did you mean lookahead?"),
        (["show", "LokAhead"], "Did you mean"),
        (["show", "relnvp"], "Did you mean RealNVP?"),
        (["copy", "drop_blok"], "Did you mean dropblock"),
        (["run", "zzzzzz"], "python -m dlcompanion list"),
        (["show", "attention"], "Did you mean self_attention"),
        (["list", "optimisation"], "Did you mean optimization"),
        (["list", "zzzzzz"], "There is no chapter 'zzzzzz'"),
        (["lst"], "No such command"),
        (["show"], "argument"),
        (["list", "--frob"], "No such option"),
        (["list", "--done"], "No such option"),
    ],
)
def test_unknown_names_get_one_line_with_near_misses(arguments, message, capsys):
    refused(capsys, arguments, message)


@pytest.mark.parametrize("action", [["copy"], ["copy", "--notebook"], ["run"]])
def test_a_planned_page_cannot_be_copied_or_run(action, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, [*action, PLANNED], "is planned and not there yet")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_system_is_one_line():
    assert _one_line(OSError("two\nlines")) == "two lines"
    assert _one_line(OSError(13, "Permission denied", "x")) == "Permission denied: x"


# -- run ----------------------------------------------------------------------


def small_script(monkeypatch, tmp_path, text):
    script = tmp_path / "plot_small.py"
    script.write_text(text)
    monkeypatch.setattr(topics, "script_path", lambda topic: script)


def test_run_passes_the_exit_code_through(monkeypatch, tmp_path, capsys):
    small_script(monkeypatch, tmp_path, "raise SystemExit(7)")
    assert main(["run", DONE]) == 7


@pytest.mark.parametrize("offset, seen", [([], 0), (["--seed-offset", "1000"], 1000)])
def test_run_shifts_the_seeds(monkeypatch, tmp_path, offset, seen):
    text = "from dlcompanion import claims\nraise SystemExit(claims.seed() // 10)"
    small_script(monkeypatch, tmp_path, text)
    assert main(["run", DONE, *offset]) == seen // 10


def test_run_refuses_an_offset_that_is_no_integer(monkeypatch, tmp_path, capsys):
    small_script(monkeypatch, tmp_path, "")
    refused(capsys, ["run", DONE, "--seed-offset", "-1"], "Received: seed_offset=-1")
    refused(capsys, ["run", DONE, "--seed-offset", "few"], "--seed-offset")


def test_run_without_matplotlib_names_the_extra(monkeypatch, tmp_path, capsys):
    small_script(monkeypatch, tmp_path, "")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(capsys, ["run", DONE], 'pip install "dlcompanion[gallery]"')
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    refused(capsys, ["run", DONE], 'pip install "dlcompanion[gallery-jax]"')


def test_run_counts_a_signal_as_the_shell_does(monkeypatch, tmp_path):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    small_script(monkeypatch, tmp_path, kill)
    assert run_script(topics.topics()[DONE]) == 128 + 15


def test_run_keeps_the_backend_and_needs_no_display(monkeypatch, tmp_path, capfd):
    small_script(
        monkeypatch,
        tmp_path,
        "import os, sys; print(os.environ['KERAS_BACKEND'], os.environ['MPLBACKEND'])\n"
        "from dlcompanion import startup; print(startup.__file__)",
    )
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    # the package of the command is that of the script, wherever it was started
    monkeypatch.chdir(tmp_path)
    # a script that calls itself dlcompanion imports the package without Keras
    renamed = tmp_path / "dlcompanion"
    shutil.copy(tmp_path / "plot_small.py", renamed)
    monkeypatch.setattr(topics, "script_path", lambda topic: renamed)
    if sys.platform != "linux":
        monkeypatch.setenv("MPLBACKEND", "agg")
    assert run_script(topics.topics()[DONE]) == 0
    backend, package = capfd.readouterr().out.splitlines()
    assert backend == "jax agg"
    assert Path(package).parent == topics.PACKAGE


# -- as a process, without a backend ------------------------------------------


@pytest.fixture(scope="module")
def no_backend(tmp_path_factory):
    """A folder for PYTHONPATH under which no backend, and no Keras, can be imported."""
    folder = tmp_path_factory.mktemp("no_backend")
    folder.joinpath("sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('tensorflow', 'jax', 'torch', 'keras'):\n"
        "    sys.modules[name] = None\n"
    )
    return folder


def test_the_process_answers_without_keras(no_backend, tmp_path):
    path = f"{no_backend}{os.pathsep}{HERE}"
    copy = ["copy", DONE, str(tmp_path)]
    notebook = [*copy, "--notebook"]
    for arguments in (["--version"], ["list"], ["show", DONE], copy, notebook):
        done = command(*arguments, python_path=path, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / f"plot_{DONE}.py").is_file()


def test_the_process_ends_with_code_2_and_one_line(tmp_path):
    done = command("copy", "lokahead", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "lookahead" in done.stderr
    assert not list(tmp_path.iterdir())


# -- from a wheel -------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that this checkout makes, unpacked."""
    from hatchling.builders.wheel import WheelBuilder

    source = tmp_path_factory.mktemp("source")
    for name in ("dlcompanion", "gallery"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    (source / "docs").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "docs/references.bib"):
        shutil.copy(ROOT / name, source / name)
    built = next(WheelBuilder(str(source)).build(directory=str(source / "dist")))
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(built).extractall(folder)
    return folder


def test_the_wheel_holds_every_script_and_the_catalogue(wheel):
    scripts = {
        p.relative_to(ROOT / "gallery").as_posix()
        for p in ROOT.glob("gallery/*/plot_*.py")
    }
    packed = wheel / "dlcompanion" / "_gallery"
    assert scripts
    assert {p.relative_to(packed).as_posix() for p in packed.glob("*/plot_*.py")} == (
        scripts
    )
    for pattern in ("topics/*.toml", "topics/measured/*.json"):
        files = {p.name for p in topics.PACKAGE.glob(pattern)}
        assert files == {p.name for p in wheel.glob(f"dlcompanion/{pattern}")} != set()


def test_the_wheel_copies_and_runs_away_from_the_checkout(wheel, no_backend, tmp_path):
    path = f"{no_backend}{os.pathsep}{wheel}"
    done = command("copy", DONE, str(tmp_path), python_path=path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    copy = tmp_path / f"plot_{DONE}.py"
    assert copy.read_bytes() == next(ROOT.glob(f"gallery/*/{copy.name}")).read_bytes()
    command("copy", DONE, str(tmp_path), "--notebook", python_path=path, cwd=tmp_path)
    made = (tmp_path / NOTEBOOK).read_text(encoding="utf-8")
    assert made == topics.notebook(copy)
    shown = command("show", DONE, python_path=path, cwd=tmp_path).stdout
    assert str(wheel / "dlcompanion" / "_gallery") in shown
    script = wheel / "dlcompanion/_gallery/foundations" / copy.name
    script.write_text("import sys; print(sys.argv); sys.exit(3)")
    ran = command("run", DONE, python_path=path, cwd=tmp_path)
    assert ran.returncode == 3 and str(script) in ran.stdout


def test_the_console_script_is_the_command_line(wheel, no_backend, tmp_path):
    entry = next(wheel.glob("*.dist-info/entry_points.txt")).read_text()
    assert "dlcompanion = dlcompanion.__main__:main" in entry
    # what pip writes for that line
    script = tmp_path / "dlcompanion"
    script.write_text(
        "import sys\nfrom dlcompanion.__main__ import main\nsys.exit(main())\n"
    )
    path = f"{no_backend}{os.pathsep}{wheel}"
    done = subprocess.run(
        [sys.executable, script, "show", "lokahead"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
