"""Build the site: run the scripts, write the pages, refuse every warning.

    python docs/build.py                      everything that changed
    python docs/build.py --only lookahead     run only this script, or chapter
    python docs/build.py --clean              from nothing, every script executed
    python docs/build.py --record             write what the scripts measured to
                                              dlcompanion/topics/measured, to commit
    python docs/build.py --seed-offset 1000   with other seeds: do the claims hold?

The site is in docs/_build/html. What was run, and what it cost, is in
docs/_build/ledger.json.
"""

import argparse
import difflib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]
# to this file the package is the catalogue: like its command line it goes without Keras
sys.argv[0] = "dlcompanion"

import book  # noqa: E402

from dlcompanion.claims import SEED_OFFSET  # noqa: E402

BUILD = DOCS / "_build"
HTML = BUILD / "html"


def main():
    parser = argparse.ArgumentParser(
        prog="build.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="run only these topics or chapters; other pages stay as they are",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="scripts that run at the same time, one thread each "
        "(default: two when there are many to run, else one)",
    )
    parser.add_argument("--clean", action="store_true", help="forget earlier builds")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the committed records of the scripts that were chosen",
    )
    parser.add_argument(
        "--seed-offset",
        type=offset,
        default=0,
        metavar="N",
        help="shift all seeds of the scripts by N",
    )
    options = parser.parse_args()
    if options.record and options.seed_offset:
        parser.error("--record is of the site's own seeds, without --seed-offset")
    os.environ[SEED_OFFSET] = str(options.seed_offset)
    chosen = select(options.only) if options.only else book.scripts()
    if options.clean:
        clean()
    before = {p: book.run(p).get("finished") for p in book.scripts()}

    many = len([p for p in chosen if needs_run(p)]) > 6
    jobs = options.jobs or min(2 if many else 1, os.cpu_count() or 1)
    environment = {**os.environ, "DLCOMPANION_JOBS": str(jobs)}
    if options.only:
        names = "|".join(re.escape(f"/{p.parent.name}/{p.name}") for p in chosen)
        environment["DLCOMPANION_ONLY"] = names
    # the theme copies its logo here even after a build that ended early
    (HTML / "_static").mkdir(parents=True, exist_ok=True)
    start = time.time()
    code = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-b", "html"]
        + ["-d", str(BUILD / "doctrees"), str(DOCS), str(HTML)],
        env=environment,
    ).returncode

    ran = [p for p in book.scripts() if book.run(p).get("finished") != before.get(p)]
    problems = list(record(chosen)) if options.record and not code else []
    ledger = write_ledger(chosen, ran, time.time() - start, code)
    report(ledger)
    problems += missing(ledger)
    for problem in problems:
        print(f"ERROR   {problem}", file=sys.stderr)
    if code or problems:
        print("The site is not whole: see the messages above.", file=sys.stderr)
        return 1
    page = HTML / "index.html"
    if options.only:
        page = HTML / f"gallery/{chosen[0].parent.name}/{chosen[0].stem}.html"
    print(f"Open {page.relative_to(Path.cwd()) if inside(page) else page}")
    return 0


def offset(text):
    """An integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"must be an integer of at least 0. Received: {text!r}"
        )
    return int(text)


def select(names):
    """The scripts that some topics or chapters name."""
    found = []
    for name in names:
        stem = f"plot_{name.removesuffix('.py').removeprefix('plot_')}"
        hits = [p for p in book.scripts() if name in (p.parent.name,) or p.stem == stem]
        if not hits:
            known = [p.stem.removeprefix("plot_") for p in book.scripts()]
            known += book.gallery_chapters()
            near = difflib.get_close_matches(name, known, cutoff=0.4) or known
            print(f"No script or chapter {name!r}. Did you mean: {', '.join(near)}?")
            sys.exit(2)
        found += [p for p in hits if p not in found]
    return found


def needs_run(script):
    return book.run(script).get("fingerprint") != book.fingerprint(script)


def clean():
    """Remove everything that a build makes."""
    for name in ("_build", "_generated", "_inv", "gallery"):
        shutil.rmtree(DOCS / name, ignore_errors=True)
    for name in ("generated", "backreferences"):
        shutil.rmtree(DOCS / "api" / name, ignore_errors=True)


def write_ledger(chosen, ran, wall, code):
    """Write ledger.json: what was to run, what ran, what failed, what it cost."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    junit = BUILD / "gallery-junit.xml"
    failed = []
    if junit.exists():
        cases = xml.etree.ElementTree.parse(junit).iter("testcase")
        failed = [c.get("classname") for c in cases if c.find("failure") is not None]
    scripts = {}
    for path in book.scripts():
        claims = book.claims(path)
        scripts[path.stem] = {
            "chapter": path.parent.name,
            "cpu_seconds": book.run(path).get("cpu_seconds"),
            "chosen": path in chosen,
            "executed": path in ran,
            "failed": path.stem in failed,
            "claims": len(claims),
            "false_claims": sum(not c["holds"] for c in claims),
            "outdated_record": book.outdated_record(path),
        }
    ledger = {
        "ok": code == 0,
        "scripts": scripts,
        "scripts_executed": len(ran),
        "scripts_failed": sorted(failed),
        "scripts_cpu_seconds": round(
            sum(s["cpu_seconds"] or 0 for s in scripts.values()), 1
        ),
        "pages": len(list(HTML.rglob("*.html"))),
        "gallery_pages": len(list(HTML.glob("gallery/*/plot_*.html"))),
        "topics_done": [t["slug"] for t in book.topics() if t["state"] == "done"],
        "build_cpu_minutes": round((use.ru_utime + use.ru_stime) / 60, 2),
        "build_wall_minutes": round(wall / 60, 2),
    }
    BUILD.mkdir(exist_ok=True)
    (BUILD / "ledger.json").write_text(json.dumps(ledger, indent=1) + "\n")
    return ledger


def record(chosen):
    """Write the committed records of some scripts; what could not be written."""
    for path in chosen:
        try:
            print(f"recorded {book.record(path).relative_to(DOCS.parent)}")
        except ValueError as error:
            yield str(error)


def missing(ledger):
    """What a whole site should have and this one lacks."""
    for topic in book.topics():
        if topic["state"] != "done":
            continue
        script = book.script_of(topic)
        if script is None:
            yield f"topic {topic['slug']} is done and has no script"
        elif not (HTML / f"{book.script_document(script)[1:]}.html").exists():
            yield f"topic {topic['slug']} is done and has no page"
    for name, script in ledger["scripts"].items():
        if not script["chosen"]:
            continue
        if script["cpu_seconds"] is None:
            yield f"{name} was not executed"
        elif not script["claims"]:
            yield f"{name} claims nothing"
        elif script["false_claims"]:
            yield f"{name}: {script['false_claims']} of its claims are false"
        elif script["outdated_record"]:
            yield (
                f"{name} claims what its record in dlcompanion/topics/measured has "
                f"not: python docs/build.py --only {name} --record"
            )


def report(ledger):
    """The slowest scripts and the totals, as lines."""
    costs = [
        (s["cpu_seconds"] or 0, name, s["executed"])
        for name, s in ledger["scripts"].items()
    ]
    print("\nCPU seconds of the scripts, slowest first (* ran in this build)")
    for seconds, name, executed in sorted(costs, reverse=True)[:10]:
        print(f"  {seconds:6.1f} {'*' if executed else ' '} {name}")
    print(
        f"{ledger['pages']} pages; {ledger['scripts_executed']} of {len(costs)} "
        f"scripts executed; build {ledger['build_cpu_minutes']} CPU minutes, "
        f"{ledger['build_wall_minutes']} minutes"
    )


def inside(path):
    return path.is_relative_to(Path.cwd())


if __name__ == "__main__":
    sys.exit(main())
