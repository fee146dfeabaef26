"""A report as it lies on disk, read again and checked: it may be anybody's, or damaged."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from facelm import checked

_MOST = 1e9  # percent


class FaceRow(NamedTuple):
    """A face of per_face.csv: its name, the subsets it is in, and its error in percent; None where that is none."""

    name: str
    subsets: tuple[str, ...]
    nme: float | None


def in_report(folder: Path, name: str) -> Path | None:
    """The file `name` of the report of a run folder, or of a report folder itself, as `facelm.evaluate` leaves one."""
    return next((path for path in (folder / "report" / name, folder / name) if path.is_file()), None)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What summary.json says, None where there is none: `subsets` and `checkpoint`, with what is read of them checked.

    Raises:
        ValueError: it is damaged, or a value is of another type than facelm writes.
    """
    path = in_report(folder, "summary.json")
    if path is None:
        return None
    try:
        content = checked.mapping(checked.plain(checked.read_json(path), "it"), "it")
        content["subsets"] = {
            name: _subset(row, name) for name, row in checked.mapping(content.get("subsets", {}), "subsets").items()
        }
        content["checkpoint"] = facts = _within(content, "checkpoint")
        spec = _within(_within(facts, "checkpoint"), "spec")
        _within(spec, "codec")
        for name, digest in _within(_within(facts, "data"), "fingerprints").items():
            checked.text(digest, f"the fingerprint of {checked.shown(name)}", longest=200)
    except ValueError as error:
        raise ValueError(
            f"'{path}' was not written by facelm, or was changed: {error}. facelm.evaluate writes it anew"
        ) from error
    return content


def read_faces(path: Path) -> list[FaceRow]:
    """The rows of a per_face.csv.

    Raises:
        ValueError: it is damaged, or lacks a column.
    """
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        try:
            return [_face(row) for row in reader]
        except (csv.Error, ValueError) as error:
            raise ValueError(
                f"'{path}', line {reader.line_num}: {error}. facelm.evaluate writes this file anew"
            ) from error


def _subset(row: object, name: str) -> dict[str, Any]:
    entries = checked.mapping(row, f"subsets.{checked.shown(name)}")
    if entries.get("nme") is not None:
        checked.number(entries["nme"], f"the nme of {checked.shown(name)}", 0, _MOST)
    return {"nme": None, **entries}


def _within(entries: Mapping[str, Any], name: str) -> dict[str, Any]:
    return checked.mapping(entries.get(name, {}), name)


def _face(row: Mapping[str, str | None]) -> FaceRow:
    name, subset, nme = (row.get(column) for column in ("name", "subset", "nme"))
    if name is None or subset is None or nme is None:
        raise ValueError("a face has the columns name, subset and nme")
    return FaceRow(
        name, tuple(subset.split("+")) if subset else (), checked.number(float(nme), "nme", 0, _MOST) if nme else None
    )
