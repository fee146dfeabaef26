"""Faces from a table: a .csv with a row a face, the photograph's path and two columns for each point."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
    """One row: where it stands, its photograph's path, points `[K, 2]` as stored (NaN where empty), box where given.

    `split` is what the column of splits says, "" where there is none.
    """

    where: str
    image_name: str
    landmarks: FloatArray
    box: Box | None
    split: str = ""


@dataclass(frozen=True)
class Table:
    """Names of the points (none where they are numbers), the rows that can be used, and what is wrong with others."""

    names: tuple[str, ...]
    rows: list[Row]
    problems: list[str]


def read_table(path: Path, num_landmarks: int | None, split_column: str | None = None) -> Table:
    """A table whose header has columns in pairs: x0, y0 or nose_x, nose_y; `num_landmarks` None: of any number.

    Columns `scale`, `center_w`, `center_h`, as the HRNet authors have them, give the box. An empty cell is a point that
    is not labelled.

    Raises:
        ValueError: no header with such columns, another number of points, no row, or no column of splits.
    """
    lines = read_rows(path)
    if len(lines) < 2:
        raise ValueError(f"'{path}' holds no row below a header")
    header = [cell.strip() for cell in lines[0]]
    points = _points(header)
    if not points or num_landmarks not in (None, len(points)):
        raise ValueError(
            f"'{path}' has columns for {len(points)} points, and there are to be {num_landmarks or 'some'}. Columns of "
            "a point are called x0 and y0, or NAME_x and NAME_y"
        )
    if split_column is not None and split_column not in header:
        raise ValueError(
            f"'{path}' has no column {split_column!r} (data.split_column); there are {', '.join(header[:8])}"
        )
    rows, problems = [], []
    for number, line in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in line):
            where = f"{path.name}: line {number}"
            try:
                rows.append(_row(where, header, line, points, split_column))
            except ValueError as error:
                problems.append(f"{where}: {error}")
    numbered = list(points) in ([str(i + first) for i in range(len(points))] for first in (0, 1))
    return Table(() if numbered else tuple(points), rows, problems)


def _row(
    where: str, header: list[str], line: list[str], points: Mapping[str, tuple[int, int]], split_column: str | None
) -> Row:
    if len(line) != len(header):
        raise ValueError(f"{len(line)} cells, and the header has {len(header)}")
    landmarks = np.array([[_number(line[i], header[i]) for i in pair] for pair in points.values()], dtype=np.float64)
    landmarks[np.isnan(landmarks).any(axis=1)] = np.nan
    if np.isnan(landmarks).all():
        raise ValueError("no point is labelled")
    lowered = [cell.lower() for cell in header]
    image = next((lowered.index(name) for name in IMAGE_COLUMNS if name in lowered), 0)
    split = "" if split_column is None else line[header.index(split_column)].strip().lower()
    return Row(where, line[image].strip(), landmarks, _box(line, lowered), split)


def _points(header: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The columns of x and y of each point, by its name, in their order."""
    found: dict[str, dict[str, int]] = {}
    for column, cell in enumerate(header):
        match = _COORDINATE.fullmatch(cell)
        if match and (match["before"] or match["number"]):
            name = match["before"].rstrip("_ .-") + match["number"]
            found.setdefault(name, {}).setdefault(match["axis"].lower(), column)
    return {name: (axes["x"], axes["y"]) for name, axes in found.items() if axes.keys() == {"x", "y"}}


def _number(cell: str, column: str) -> float:
    if not cell.strip() or cell.strip().lower() == "nan":
        return float("nan")
    try:
        if "_" in cell:  # Python's float reads 1_0 as 10
            raise ValueError(cell)
        return checked.number(float(cell), column, -_FAR, _FAR)
    except ValueError as error:
        raise ValueError(f"{column} is {checked.shown(cell)}, no place in a photograph") from error


def _box(line: Sequence[str], header: Sequence[str]) -> Box | None:
    if not all(name in header for name in _BOX_COLUMNS):
        return None
    scale, x, y = (_number(line[header.index(name)], name) for name in _BOX_COLUMNS)
    return Box((x, y), 200.0 * scale) if scale > 0 else None
