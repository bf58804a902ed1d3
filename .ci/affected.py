"""What must run again: the tests and scripts that a change reaches, and a fifth more.

    python .ci/affected.py OUT

``.ci/verified.json`` names, for each environment, the commit at which all of it last
passed. Here the files changed since then are followed along the imports to the test
files (for ``tests-jax`` and ``tests-torch``) and the scripts (for ``docs``) that they
reach. Of the rest a fifth is chosen too, another one at each commit, so that a record
that lies is found within five. Written are ``OUT/<environment>.args``, the arguments
for tox, none where everything runs, and ``OUT/selection.json``, which the ledger reads.

Everything runs when ``CI_FULL`` is set, when the record cannot be trusted, and when
something has changed that no import leads to: one line says which.
"""

import ast
import functools
import hashlib
import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

#: Environment to its items: what can be run or left out.
ITEMS = {
    "tests-jax": ("tests/", "**/test_*.py"),
    "tests-torch": ("tests/", "**/test_*.py"),
    "docs": ("gallery/", "*/plot_*.py"),
}
FOLDERS = ("benchmarks", "dlcompanion", "gallery", "tests")
RECORD = ".ci/verified.json"
#: Reach every item, though none imports them.
REACH_EVERYTHING = (
    "tox.ini",
    "pyproject.toml",
    ".ci/*",
    "tests/conftest.py",
    "dlcompanion/__init__.py",
    "dlcompanion/startup.py",
)
#: Reach no item. Texts, the catalogue and results are tested on TensorFlow, always.
REACH_NOTHING = (
    RECORD,
    "*.md",
    "*.rst",
    "*.bib",
    "*.cff",
    "*/topics/*.toml",
    "*/topics/measured/*.json",
    "tools/*",
    "LICENSE",
    ".gitignore",
    ".pre-commit-config.yaml",
    "benchmarks/*",
    "docs/claims_elsewhere.json",
    "docs/remeasure.py",
    "docs/_static/*",
    "docs/_templates/*",
    "docs/tests/*",
)
#: Folders of which an environment uses nothing.
FOREIGN = {
    "tests-jax": ("docs/", "gallery/"),
    "tests-torch": ("docs/", "gallery/"),
    "docs": ("tests/",),
}
SHARES = 5


class Repository:
    """The files of a repository, and which of them use which.

    Args:
        root: Path of the folder that holds ``dlcompanion``, ``tests`` and ``gallery``.
    """

    def __init__(self, root):
        self.root = Path(root).resolve()
        self.modules, self.by_name = {}, {}
        for path in self.files("**/*"):
            folder, _, name = path.rpartition("/")
            if name.endswith(".py"):
                dotted = path.removesuffix(".py").removesuffix("/__init__")
                self.modules[dotted.replace("/", ".")] = path
            # what tests name by file name: reference vectors, helpers, other scripts
            if name not in ("__init__.py", "conftest.py"):
                self.by_name.setdefault(name, set()).add(path)
                if folder.endswith("references") and not name.endswith(".py"):
                    stem = name.rpartition(".")[0]
                    self.by_name.setdefault(stem, set()).add(path)
        self.used = functools.cache(self.used)

    def files(self, pattern):
        """Files of the folders that hold code, as names from the root."""
        found = [p for folder in FOLDERS for p in (self.root / folder).glob(pattern)]
        names = [p.relative_to(self.root).as_posix() for p in found if p.is_file()]
        return sorted(name for name in names if "__pycache__" not in name)

    def git(self, *arguments):
        git = ["git", "-C", str(self.root), *arguments]
        done = subprocess.run(git, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"git {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def items(self, environment):
        folder, pattern = ITEMS[environment]
        return [p for p in self.files(pattern) if p.startswith(folder)]

    def changed_since(self, commit):
        """Files that differ from a commit, in the working tree too."""
        listed = self.git("diff", "--name-only", "--no-renames", commit)
        listed += self.git("ls-files", "--others", "--exclude-standard")
        return sorted(set(listed.splitlines()))

    def closure(self, path):
        """Every file that a file uses, directly or not, and the file itself."""
        seen, waiting = set(), [path]
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                waiting += self.used(path)
        return seen

    def used(self, path):
        """Files that a file imports or names, in functions and in strings too."""
        if not path.endswith(".py"):
            return set()
        tree = ast.parse((self.root / path).read_text(encoding="utf-8"))
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        prose = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, documented)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found |= self.named(alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = self.absolute(path, node)
                for alias in node.names:
                    found |= self.named(f"{base}.{alias.name}")
            elif isinstance(node, ast.Attribute):
                if (dotted := ast.unparse(node)).startswith("dlcompanion."):
                    found |= self.named(dotted)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if id(node) not in prose:
                    found |= self.in_text(node.value)
        return found - {path}

    def absolute(self, path, node):
        """The module of a ``from`` import, its dots resolved."""
        if not node.level:
            return node.module
        folder = path.split("/")[: -node.level]
        return ".".join([*folder, *([node.module] if node.module else [])])

    def named(self, dotted):
        """The files that define what a dotted name names, through ``__init__.py``."""
        parts = dotted.split(".")
        if parts[0] != "dlcompanion":  # a helper of tests, found by its name alone
            return set().union(*(self.by_name.get(f"{p}.py", ()) for p in parts[:2]))
        for length in range(len(parts), 0, -1):
            module = ".".join(parts[:length])
            if module not in self.modules:
                continue
            path = self.modules[module]
            if not path.endswith("__init__.py"):
                return {path}
            own = set() if self.names_only(path) or length == 1 else {path}
            exports = self.exports(path)
            if length == len(parts):  # the package as a whole
                return own.union(*map(self.named, exports.values()))
            if parts[length] in exports:
                return own | self.named(exports[parts[length]])
            return own
        return set()

    def names_only(self, path):
        """Whether an ``__init__.py`` imports names and does nothing else.

        A change of it reaches nothing: what it names is followed instead.
        """
        tree = ast.parse((self.root / path).read_text(encoding="utf-8"))
        kinds = ast.Expr | ast.ImportFrom | ast.Assign
        return all(isinstance(node, kinds) for node in tree.body)

    def exports(self, path):
        """Name to dotted name, of what an ``__init__.py`` imports from the package."""
        tree = ast.parse((self.root / path).read_text(encoding="utf-8"))
        found = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                base = self.absolute(path, node)
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{base}.{alias.name}"
        own = path.removesuffix("/__init__.py").replace("/", ".")
        return {
            name: dotted
            for name, dotted in found.items()
            if dotted.startswith("dlcompanion.") and dotted != f"{own}.{name}"
        }

    def in_text(self, text):
        """Files that a string names: code for another process, the name of a file."""
        found = set()
        if "dlcompanion" in text:
            for base, names in re.findall(
                r"from\s+(dlcompanion[\w.]*)\s+import\s+\(?([\w, \n]+)", text
            ):
                for name in re.findall(r"\w+", names):
                    found |= self.named(f"{base}.{name}")
            for dotted in re.findall(r"dlcompanion(?:\.\w+)+", text):
                found |= self.named(dotted)
        if len(text) < 200:
            for name in (text, *re.findall(r"[\w-]+\.\w+", text)):
                found |= self.by_name.get(name, set())
        for module in re.findall(r"^(?:from|import)\s+(\w+)", text, re.MULTILINE):
            found |= self.by_name.get(f"{module}.py", set())
        return found


def matches(path, patterns):
    return any(fnmatch(path, pattern) for pattern in patterns)


def reached(repository, environment, changed):
    """The items that changed files reach, or the file that reaches every one.

    Returns:
        Set of items and None, or None and a file.
    """
    items = repository.items(environment)
    closures = {item: repository.closure(item) for item in items}
    found = set()
    for path in changed:
        if path != RECORD and matches(path, REACH_EVERYTHING):
            return None, path
        if matches(path, REACH_NOTHING):
            continue
        if environment == "docs" and path.startswith("docs/"):  # it runs the scripts
            return None, path
        if path.startswith(FOREIGN[environment]):
            continue
        hit = {item for item, closure in closures.items() if path in closure}
        if not hit and not path.endswith(".py"):
            return None, path
        found |= hit
    return found, None


def share(item):
    """Which fifth an item belongs to, for ever: by its name alone."""
    return int(hashlib.sha256(item.encode()).hexdigest(), 16) % SHARES


def turn(repository):
    """Which fifth runs at this commit.

    It counts commits instead of hashing them: any five in a row, along first parents,
    have all five fifths.
    """
    return int(repository.git("rev-list", "--count", "--first-parent", "HEAD")) % SHARES


def recorded(repository, environment):
    """The commit at which an environment last passed, or ValueError that says why."""
    path = repository.root / RECORD
    if not path.is_file():
        raise ValueError(f"there is no {RECORD}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{RECORD} is no JSON, cut off perhaps: {error}") from None
    try:
        commit = record[environment]["commit"]
    except (KeyError, TypeError):
        raise ValueError(f"{RECORD} names no commit for {environment}") from None
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(f"{RECORD} names no commit for {environment}: {commit!r}")
    try:
        repository.git("cat-file", "-e", f"{commit}^{{commit}}")
    except ValueError:
        raise ValueError(f"{RECORD} names a commit unknown here: {commit}") from None
    return commit


def select(repository, environment, full=False):
    """What to run of an environment, what to leave out, and why.

    Returns:
        Dict with ``why``, a sentence; ``run``, a list of items, None for everything;
        ``left_out``, a list of items.
    """
    try:
        if full:
            raise ValueError("CI_FULL is set")
        commit = recorded(repository, environment)
        changed = repository.changed_since(commit)
        hit, culprit = reached(repository, environment, changed)
        if culprit:
            raise ValueError(f"{culprit} has changed since {commit[:10]}")
        now = turn(repository)
    except (ValueError, SyntaxError) as error:
        return {"why": f"everything: {error}", "run": None, "left_out": []}
    items = repository.items(environment)
    rotating = {item for item in items if share(item) == now} - hit
    run = sorted(hit | rotating)
    if not run:
        why = "everything: the fifth whose turn it is has no file"
        return {"why": why, "run": None, "left_out": []}
    left_out = sorted(set(items) - set(run))
    why = (
        f"{len(hit)} reached by what has changed since {commit[:10]}, {len(rotating)} "
        f"because it is their turn, {len(left_out)} of {len(items)} left out"
    )
    return {"why": why, "run": run, "left_out": left_out}


def arguments(environment, run):
    """What tox passes on to the command of an environment, a line each."""
    if environment == "docs":
        names = [Path(item).stem.removeprefix("plot_") for item in run or ()]
        return ["--clean", *(["--only", *names] if names else [])]
    return run or []


def main(out):
    out = Path(out)
    repository = Repository(Path(__file__).resolve().parents[1])
    chosen = {
        environment: select(repository, environment, bool(os.environ.get("CI_FULL")))
        for environment in ITEMS
    }
    for environment, selection in chosen.items():
        print(f"{environment}: {selection['why']}")
        lines = arguments(environment, selection["run"])
        (out / f"{environment}.args").write_text("".join(f"{a}\n" for a in lines))
    try:
        commit = repository.git("rev-parse", "HEAD").strip()
        changed = [p for p in repository.changed_since("HEAD") if p != RECORD]
    except ValueError as error:
        commit, changed = None, [str(error)]
    state = {"commit": commit, "changed": changed, "environments": chosen}
    (out / "selection.json").write_text(f"{json.dumps(state, indent=1)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
