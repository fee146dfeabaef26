"""Faces from a table: a .csv with a row a face, the photograph's path and two columns for each point."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facelm import checked
from facelm.data.w300.annotations import read_rows
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box

IMAGE_COLUMNS = ("image", "image_name", "image_path", "file", "file_name", "filename", "path")
"""Headers of the photograph's path; else it is the first column."""

_BOX_COLUMNS = ("scale", "center_w", "center_h")  # the HRNet authors'
_COORDINATE = re.compile(r"(?P<before>.*?)(?:^|[_ .-])?(?P<axis>[xyXY])(?P<number>\d*)")
_FAR = 1e7


@dataclass(frozen=True)
class Row:
    """One row: where it stands, its photograph's path, points `[K, 2]` as stored (NaN where empty), box where given."""

    where: str
    image_name: str
    landmarks: FloatArray
    box: Box | None


def read_table(path: Path, num_landmarks: int) -> tuple[tuple[str, ...], list[Row]]:
    """(names of the points, rows) of a table whose header has columns in pairs: x0, y0 or nose_x, nose_y.

    Columns `scale`, `center_w`, `center_h`, as the HRNet authors have them, give the box. An empty cell is a point that
    is not labelled.

    Raises:
        ValueError: no header with such columns, another number of points, or a cell that is no number.
    """
    lines = read_rows(path)
    if len(lines) < 2:
        raise ValueError(f"'{path}' holds no row below a header")
    header = [cell.strip() for cell in lines[0]]
    points = _points(header)
    if len(points) != num_landmarks:
        raise ValueError(
            f"'{path}' has columns for {len(points)} points, and there are to be {num_landmarks}. Columns of a point "
            "are called x0 and y0, or NAME_x and NAME_y"
        )
    lowered = [cell.lower() for cell in header]
    image = next((lowered.index(name) for name in IMAGE_COLUMNS if name in lowered), 0)
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        where = f"{path.name}: line {number}"
        if len(line) != len(header):
            raise ValueError(f"{where} has {len(line)} cells, the header {len(header)}")
        values = [[_number(line[i], where, header[i]) for i in pair] for pair in points.values()]
        landmarks = np.array(values, dtype=np.float64)
        landmarks[np.isnan(landmarks).any(axis=1)] = np.nan
        if np.isnan(landmarks).all():
            raise ValueError(f"{where}: no point is labelled")
        rows.append(Row(where, line[image].strip(), landmarks, _box(line, lowered, where)))
    return tuple(points), rows


def _points(header: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The columns of x and y of each point, by its name, in their order."""
    found: dict[str, dict[str, int]] = {}
    for column, cell in enumerate(header):
        match = _COORDINATE.fullmatch(cell)
        if match and (match["before"] or match["number"]):
            name = match["before"].rstrip("_ .-") + match["number"]
            found.setdefault(name, {}).setdefault(match["axis"].lower(), column)
    return {name: (axes["x"], axes["y"]) for name, axes in found.items() if axes.keys() == {"x", "y"}}


def _number(cell: str, where: str, column: str) -> float:
    if not cell.strip() or cell.strip().lower() == "nan":
        return float("nan")
    try:
        if "_" in cell:  # Python's float reads 1_0 as 10
            raise ValueError(cell)
        return checked.number(float(cell), column, -_FAR, _FAR)
    except ValueError as error:
        raise ValueError(f"{where}: {column} is {checked.shown(cell)}, no place in a photograph") from error


def _box(line: Sequence[str], header: Sequence[str], where: str) -> Box | None:
    if not all(name in header for name in _BOX_COLUMNS):
        return None
    scale, x, y = (_number(line[header.index(name)], where, name) for name in _BOX_COLUMNS)
    return Box((x, y), 200.0 * scale) if scale > 0 else None
