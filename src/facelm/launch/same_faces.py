"""Which faces the numbers of a run are about: those of different faces do not compare.

A column's faces are told by digests: `names`, and where they are known `landmarks` (names and coordinates) and
`photographs` (names and bytes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from facelm import checked
from facelm.evaluation.stored import in_report, read_faces

FACTS = "facts.json"

BEST = "best val"
"""The best validation's column; `val` is a subset of the report where `data.val_list` is given."""

Digests = Mapping[str, str]


def faces_of_report(folder: Path, summary: Mapping[str, Any]) -> dict[str, Digests]:
    """The faces of each subset that was measured, from a run or report folder and its `read_summary`.

    Raises:
        ValueError: the report is damaged.
    """
    path, names = in_report(folder, "per_face.csv"), dict[str, list[str]]()
    for face in read_faces(path) if path else ():
        for subset in face.subsets:
            names.setdefault(subset, []).append(face.name)
    data = summary.get("checkpoint", {}).get("data", {})
    known = {kind: data.get(key, {}) for kind, key in (("landmarks", "fingerprints"), ("photographs", "contents"))}
    return {
        subset: {"names": hashlib.sha256("\n".join(sorted(those)).encode("utf-8", "surrogateescape")).hexdigest()}
        | {kind: digests[subset] for kind, digests in known.items() if subset in digests}
        for subset, those in names.items()
    }


def faces_that_validated(folder: Path) -> Digests:
    """The faces that validated the run in `folder`, as its facts.json says; empty where it does not."""
    try:
        data = checked.read_json(folder / FACTS)["data"]
        validated = [str(one["fingerprint"]) for name, one in data.items() if name != "train"]
        return {"landmarks": " ".join(validated)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def of_other_faces(runs: Iterable[tuple[str, Mapping[str, Digests]]]) -> dict[str, tuple[str, str]]:
    """Columns that are not about the same faces in all `runs` (name, column -> digests), with two runs that differ."""
    first: dict[tuple[str, str], tuple[str, str]] = {}
    found: dict[str, tuple[str, str]] = {}
    for name, columns in runs:
        for column, digests in columns.items():
            for kind, digest in digests.items():
                other, expected = first.setdefault((column, kind), (name, digest))
                if digest != expected:
                    found.setdefault(column, (other, name))
    return found
