"""What a page measured: one small JSON file a page, written by the build of the site.

A record has ``seconds``, the CPU seconds of the script on one thread, ``keras`` and
``backend``, and ``claims``, each with ``text``, ``value``, ``comparison``, ``bound``,
``unit`` and ``seeds``.
"""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "measured"
CLAIM = ("text", "value", "comparison", "bound", "unit", "seeds")

_RECORD = {"seconds": (int, float), "keras": str, "backend": str, "claims": list}


def read_record(slug, folder=FOLDER):
    """The record of a page.

    Args:
        slug: String, the topic whose page it is.
        folder: ``pathlib.Path`` of the records.

    Returns:
        Dict, or ``None`` if the page was not measured yet.

    Raises:
        ValueError: If the file is cut off or is no record.

    Example:
        >>> sorted(read_record("lookahead"))
        ['backend', 'claims', 'keras', 'seconds']
    """
    path = folder / f"{slug}.json"
    if not path.is_file():
        return None
    remedy = f"python docs/build.py --only {slug} --record"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"A record is JSON. {path.name} is not; write it anew: {remedy}. "
            f"Received: {error}"
        ) from None
    whole = isinstance(record, dict) and all(
        isinstance(record.get(key), kind) for key, kind in _RECORD.items()
    )
    if not whole or not all(set(CLAIM) == set(c) for c in record["claims"]):
        raise ValueError(
            f"A record has {', '.join(_RECORD)}, and a claim {', '.join(CLAIM)}. "
            f"{path.name} has not; write it anew: {remedy}. "
            f"Received: {str(record)[:80]}"
        )
    return record


def write_record(slug, run, claims, folder=FOLDER):
    """Write the record of a page, whole or not at all.

    Args:
        slug: String, the topic whose page it is.
        run: Dict with ``cpu_seconds``, ``keras`` and ``backend`` of the run.
        claims: List of dicts, what :func:`dlcompanion.claims.claim` recorded.
        folder: ``pathlib.Path`` of the records.

    Returns:
        ``pathlib.Path``, the file.

    Raises:
        ValueError: If nothing was claimed, or a claim is false.

    Example:
        >>> import tempfile
        >>> run = {"cpu_seconds": 1.25, "keras": "3.15.1", "backend": "jax"}
        >>> row = {**dict.fromkeys(CLAIM), "text": "one is less", "holds": True}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = write_record("a_topic", run, [row], Path(folder))
        ...     read_record("a_topic", file.parent)["claims"][0]["text"]
        'one is less'
    """
    if not claims or not all(claim["holds"] for claim in claims):
        raise ValueError(
            f"A record is of claims that hold. Those of {slug!r} do not all. "
            f"Received: {[claim['text'] for claim in claims if not claim['holds']]}"
        )
    record = {
        "seconds": round(run["cpu_seconds"], 1),
        "keras": run["keras"],
        "backend": run["backend"],
        "claims": [{key: claim[key] for key in CLAIM} for claim in claims],
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{slug}.json"
    part = path.with_suffix(".part")
    part.write_text(
        json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return part.replace(path)
