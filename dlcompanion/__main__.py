"""The command line: ``python -m dlcompanion list | show | copy | run``."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from dlcompanion import __version__, startup, topics
from dlcompanion.checks import check_count


def main(arguments=None):
    """Run the command line.

    Args:
        arguments: List of strings, by default those of the process.

    Returns:
        Integer, the exit code: 0, the exit code of the script that ``run`` ran, or 2
        where one line on stderr says what is wrong and nothing was written.

    Example:
        >>> main(["show", "lookahead"]) == 0
        lookahead: Lookahead optimizer
        ...
        True
    """
    try:
        return _app()(arguments, standalone_mode=False) or 0
    except (ImportError, OSError, ValueError) as error:
        message = _one_line(error)
    except Exception as error:
        if not hasattr(error, "format_message"):  # Typer's own: unknown command, ...
            raise
        message = error.format_message()
        if "\n" in message:  # no arguments at all: the help
            print(message)
            return 2
    print(f"dlcompanion: {message}", file=sys.stderr)
    return 2


def _app():
    import typer

    def print_versions(asked: bool):
        if asked:
            print(versions())
            raise typer.Exit()

    app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
    version = typer.Option(
        "--version",
        callback=print_versions,
        is_eager=True,
        help="Print the versions of the package and of Keras, and the backend.",
    )
    name = typer.Argument(help="A topic such as lookahead, or another name of it.")
    chapter = typer.Argument(help="A chapter such as optimization.")
    folder = typer.Argument(help="Where to copy it; made if it is not there.")
    planned = typer.Option("--planned", help="Also what is not written yet.")
    seed_offset = typer.Option(
        "--seed-offset", help="Shifts the seeds: do the claims hold for others?"
    )
    force = typer.Option("--force", help="Overwrite a file that is there.")
    notebook = typer.Option("--notebook", help="Copy it as a Jupyter notebook.")

    @app.callback()
    def options(version: Annotated[bool, version] = False):
        """The deep-learning textbook that one can pip install."""

    @app.command("list")
    def list_(
        chapter: Annotated[str | None, chapter] = None,
        planned: Annotated[bool, planned] = False,
    ):
        """List the topics that can be read and run, of one chapter or of all."""
        list_topics(chapter, planned)

    @app.command()
    def show(name: Annotated[str, name]):
        """Show a topic: its claim, how to import it, where its script is."""
        show_topic(topics.find_topic(name))

    @app.command()
    def copy(
        name: Annotated[str, name],
        folder: Annotated[Path, folder] = Path(),
        force: Annotated[bool, force] = False,
        notebook: Annotated[bool, notebook] = False,
    ):
        """Copy a topic's script, to read, change and run it."""
        write = copy_notebook if notebook else copy_script
        print(write(topics.find_topic(name), folder, force))

    @app.command()
    def run(
        name: Annotated[str, name],
        seed_offset: Annotated[int, seed_offset] = 0,
    ):
        """Run a topic's script; the exit code is the script's."""
        raise typer.Exit(run_script(topics.find_topic(name), seed_offset))

    return app


def versions():
    """The package, Keras and its backend, in one line.

    Returns:
        String.

    Example:
        >>> versions()  # doctest: +ELLIPSIS
        'dlcompanion 0.1.0, Keras 3..., backend ...'
    """
    try:
        keras = importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        keras = "not installed"
    backend = startup.backend_name()
    return f"dlcompanion {__version__}, Keras {keras}, backend {backend}"


def list_topics(chapter=None, planned=False):
    """Print a table of topics.

    Args:
        chapter: String, a chapter's slug, or ``None`` for all.
        planned: Boolean, whether to show what is only planned, too.

    Raises:
        ValueError: If there is no such chapter.

    Example:
        >>> list_topics("losses")  # doctest: +ELLIPSIS
        <BLANKLINE>
        Losses ...
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    shown = [topics.find_chapter(chapter)] if chapter else topics.chapters().values()
    left_out = 0
    for head in shown:
        slug = head["slug"]
        rows = [t for t in topics.topics().values() if t["chapter"] == slug]
        finished = [t for t in rows if t["state"] == "done"]
        if not planned:
            left_out += len(rows) - len(finished)
            if not finished and not chapter:
                continue
        console.print(
            f"\n[bold]{head['title']}[/bold] ({slug}): "
            f"{len(finished)} of {len(rows)} topics are there"
        )
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, min_width=30)
        table.add_column(no_wrap=True, min_width=7)
        table.add_column(justify="right", no_wrap=True, min_width=5)
        table.add_column()
        for topic in rows if planned else finished:
            seconds = f"{topic['seconds']:.0f} s" if "seconds" in topic else ""
            style = None if topic["state"] == "done" else "dim"
            state = topic["state"]
            table.add_row(topic["slug"], state, seconds, topic["title"], style=style)
        if table.rows:
            console.print(table)
    if left_out:
        more = "1 more topic is" if left_out == 1 else f"{left_out} more topics are"
        console.print(f"\n{more} planned; --planned lists them, too.")


def show_topic(topic):
    """Print what there is to know about a topic.

    Args:
        topic: A topic's dict.

    Example:
        >>> show_topic(topics.find_topic("yogi"))  # doctest: +ELLIPSIS
        yogi: Yogi
        chapter   Optimization (optimization)
        state     planned
        target    The trajectory equals the reference
        ...
    """
    from dlcompanion.claims import comparison_text

    title = topics.chapters()[topic["chapter"]]["title"]
    line = topics.import_line(topic)
    if line is None:
        line = "comes with Keras" if topic["do"] == "show" else "planned"
    try:
        script = topics.script_path(topic)
    except ValueError:
        script = "planned"
    facts = {
        "chapter": f"{title} ({topic['chapter']})",
        "state": topic["state"],
        "target": topic["target"],
        "verdict": topic.get("verdict"),
        "builds on": ", ".join(topics.prerequisites(topic)) or None,
        "import": line,
        "script": script,
        "seconds": topic.get("seconds"),
    }
    print(f"{topic['slug']}: {topic['title']}")
    for key, value in facts.items():
        if value is not None:
            print(f"{key:9s} {value}")
    for claim in topic.get("claims", ()):
        words = {key: value for key, value in claim.items() if key != "text"}
        print(f"measured  {claim['text']}: {comparison_text(**words)}")


def copy_script(topic, folder, force=False):
    """Copy a topic's script into a folder.

    Args:
        topic: A topic's dict.
        folder: ``pathlib.Path``, made if it is not there.
        force: Boolean, whether to overwrite a file of the same name.

    Returns:
        ``pathlib.Path``, the copy.

    Raises:
        ValueError: If the topic has no script yet, or the copy is there already.
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     copy_script(topics.find_topic("lookahead"), Path(folder)).name
        'plot_lookahead.py'
    """
    script = topics.script_path(topic)
    return _write(folder / script.name, script.read_bytes(), force)


def copy_notebook(topic, folder, force=False):
    """Write a topic's script into a folder as a Jupyter notebook.

    Args:
        topic: A topic's dict.
        folder: ``pathlib.Path``, made if it is not there.
        force: Boolean, whether to overwrite a file of the same name.

    Returns:
        ``pathlib.Path``, the notebook.

    Raises:
        ValueError: If the topic has no script yet, or the notebook is there already.
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     copy_notebook(topics.find_topic("lookahead"), Path(folder)).name
        'plot_lookahead.ipynb'
    """
    script = topics.script_path(topic)
    text = topics.notebook(script)
    return _write(folder / f"{script.stem}.ipynb", text.encode(), force)


def _write(target, data, force):
    if os.path.lexists(target) and not force:
        raise ValueError(f"{target} is there already; --force overwrites it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    # whole or not at all: the text goes to a new file that then takes the name
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            file.write(data)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target


def run_script(topic, seed_offset=0):
    """Run a topic's script in a process of its own.

    The backend is that of the environment (``KERAS_BACKEND``). Without a display the
    pictures are drawn and not shown.

    Args:
        topic: A topic's dict.
        seed_offset: Integer of at least 0, by which the seeds of the script are
            shifted (:func:`dlcompanion.claims.seeds`).

    Returns:
        Integer, the exit code of the script.

    Raises:
        ValueError: If the topic has no script yet, or the offset is negative.
        ImportError: If Matplotlib is missing, which every script needs.

    Example:
        >>> run_script(topics.find_topic("yogi"))
        Traceback (most recent call last):
        ValueError: The page of 'yogi' is planned and not there yet.
    """
    script = str(topics.script_path(topic))
    if importlib.util.find_spec("matplotlib") is None:
        extra = {"jax": "gallery-jax", "torch": "gallery-torch"}
        extra = extra.get(startup.backend_name(), "gallery")
        raise ImportError(f'The scripts need: pip install "dlcompanion[{extra}]"')
    environment = dict(os.environ)
    if check_count("seed_offset", seed_offset, least=0):
        environment["DLCOMPANION_SEED_OFFSET"] = str(seed_offset)
    shown = "DISPLAY" in environment or "WAYLAND_DISPLAY" in environment
    if sys.platform.startswith("linux") and not shown:
        environment.setdefault("MPLBACKEND", "agg")
    if topics.is_checkout():
        path = [str(topics.PACKAGE.parent), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    code = subprocess.run([sys.executable, script], env=environment).returncode
    return 128 - code if code < 0 else code  # a signal, as the shell counts it


def _one_line(error):
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
