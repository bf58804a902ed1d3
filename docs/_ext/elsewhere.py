"""Claims elsewhere: what the scripts measured on other seeds and other backends.

``docs/remeasure.py`` writes the table ``docs/claims_elsewhere.json``, one entry a
script:

``code``
    digest of the code that was measured. Prose, imports and the words of a claim are
    left out: rewriting a page or moving a module makes nothing stale. The bounds are in
    it: a claim with a new bound starts without a table.
``runs``
    a list with ``backend``, ``offset``, ``seconds`` (of CPU), ``version`` (of the
    package), ``keras`` and ``claims``: value, comparison, bound and whether it held, in
    the order of the script.

The offsets come from the digest, so that nobody can have looked at them when settings
and bounds were chosen: other code, other seeds.
"""

import ast
import collections
import functools
import hashlib
import json

import book

TABLE = book.DOCS / "claims_elsewhere.json"
#: Backend -> how many other sets of seeds a script is run on.
WANTED = {"tensorflow": 8, "jax": 1, "torch": 1}
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}

Count = collections.namedtuple("Count", "held runs")


def code_digest(path):
    """Digest of what a script computes and of the bounds that it claims."""
    return _code_digest(path.read_text(encoding="utf-8"))


@functools.cache
def _code_digest(text):
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not _is_prose(node)]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [n for n in body if not _is_prose(n)]
        if _is_claim(node):
            node.args = node.args[1:] if node.args else []
            node.keywords = [k for k in node.keywords if k.arg not in ("text", "unit")]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]


def _is_prose(node):
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or isinstance(node, ast.Import | ast.ImportFrom)


def _is_claim(node):
    if not isinstance(node, ast.Call):
        return False
    return getattr(node.func, "id", getattr(node.func, "attr", None)) == "claim"


def offsets(digest, count):
    """Where the seeds of the first ``count`` other runs of a script begin.

    Example:
        >>> offsets("0123456789abcdef", 2) == offsets("0123456789abcdef", 3)[:2]
        True
    """
    found = []
    for number in range(count):
        drawn = hashlib.sha256(f"{digest} {number}".encode()).digest()
        found.append(1_000 * (10 + int.from_bytes(drawn[:4]) % 990_000))
    return found


def read_table(path=None):
    """The whole table, script -> entry, of this file or of the committed one.

    Raises:
        ValueError: If the file is cut off or is no table.
    """
    path = path or TABLE
    if not path.exists():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        for entry in table.values():
            entry["code"], [run["claims"] for run in entry["runs"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"A table of other seeds is JSON, code and runs of each script. Remove "
            f"{path.name} and measure anew: python docs/remeasure.py. "
            f"Received: {type(error).__name__} {error}"
        ) from None
    return table


def runs(path, table=None):
    """The runs of the code as it stands; none if the table is older than the script."""
    entry = (read_table() if table is None else table).get(path.stem)
    if entry is None or entry["code"] != code_digest(path):
        return []
    return entry["runs"]


def is_outdated(path, table=None):
    """Whether there is a table, of other code than today's."""
    entry = (read_table() if table is None else table).get(path.stem)
    return entry is not None and entry["code"] != code_digest(path)


def counts(path, backend="tensorflow", table=None):
    """Of each claim of a script, on how many other sets of seeds it held."""
    rows = [r["claims"] for r in runs(path, table) if r["backend"] == backend]
    claims = zip(*rows, strict=True)  # one tuple of runs a claim
    return [Count(sum(held for *_, held in rows), len(rows)) for rows in claims]


def cells(path, claims):
    """For each claim of the last run "7 of 8", or a dash where nothing was measured."""
    found = counts(path)
    if len(found) != len(claims):  # none, or the page was built from other code
        return ["–"] * len(claims)
    return [f"{count.held} of {count.runs}" for count in found]


def backends(path, table=None):
    """Names of the backends on which the script ran to its end."""
    found = {run["backend"] for run in runs(path, table)}
    return [name for backend, name in NAMES.items() if backend in found]


def sentence(path, table=None):
    """On how many other sets of seeds the claims of a script held, in words."""
    found = counts(path, table=table)
    if not found:
        older = is_outdated(path, table)
        return f"not measured on other seeds{' since it changed' if older else ' yet'}"
    always = sum(c.held == c.runs for c in found)
    runs = found[0].runs
    sets = f"{runs} other sets of seeds" if runs > 1 else "one other set of seeds"
    if always == len(found):
        return f"all held on {sets}"
    return f"{always} held on each of {sets}"
