"""Boxes from a CSV file: of one's own detector, for `facelm predict --boxes` and `facelm calibrate`."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

import numpy as np

from facelm import checked
from facelm.data.w300.annotations import LARGEST
from facelm.files import cell, typed
from facelm.geometry.affine import FloatArray

COLUMNS = ("x1", "y1", "x2", "y2")

BoxTable = Mapping[str, FloatArray]
"""Boxes `[N, 4]` by the name of their image, as written in the file."""


def read_box_table(path: Path) -> dict[str, FloatArray]:
    """The boxes of a CSV file: a row `image,x1,y1,x2,y2` for each face, with or without a header.

    With a header the four columns are found by name and the image's name is the first; without one further columns are
    ignored.

    Convention: image pixels, 0-based, x2 > x1 and y2 > y1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no rows, a missing column, or something that is no number; the message names the line.
    """
    path = typed(path)
    if not path.is_file():
        raise FileNotFoundError(f"no box file {str(path)!r}")
    boxes: dict[str, list[list[float]]] = {}
    for line, name, cells in _rows(path):
        try:
            numbers = list(checked.numbers([float(one) for one in cells], "a box", 4, -LARGEST, LARGEST))
        except ValueError:
            said = checked.shown(", ".join(cells))
            raise ValueError(f"{path}: line {line}: {said} are not four numbers x1, y1, x2, y2 of pixels") from None
        boxes.setdefault(name.removeprefix("./"), []).append(numbers)
    if not boxes:
        raise ValueError(f"{path}: no boxes; a row is image,x1,y1,x2,y2")
    return {name: np.array(rows, np.float64) for name, rows in boxes.items()}


def boxes_of(table: BoxTable, path: Path) -> FloatArray:
    """The boxes of the image at `path`: under its path as given, its file name, or that without ending.

    Each as it is, or as `files.cell` writes it into a table.

    Raises:
        ValueError: none.
    """
    names = (str(path), path.name, path.stem)  # a Path has lost its own ./
    for name in (*names, *(cell(name).removeprefix("./") for name in names)):
        if name in table:
            return table[name]
    some = ", ".join(repr(name) for name in list(table)[:3])
    raise ValueError(f"the box file has no row for it; it has {some}{', ...' if len(table) > 3 else ''}")


def _rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line, image name, the four cells) of every row; of a name nothing is stripped, nor is it cut at U+2028."""
    reader = csv.reader(StringIO(_text(path), newline=""))
    columns = [1, 2, 3, 4]
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: no CSV ({error})") from None
    for number, (line, row) in enumerate(rows):
        cells = [one.strip(' "\t') for one in row]  # also of ` "1.5"`, quoted behind a space
        if number == 0 and len(cells) > 1 and not _is_number(cells[1]):
            missing = [name for name in COLUMNS if name not in cells]
            if missing:
                raise ValueError(f"{path}: no column {', '.join(missing)} in the header {', '.join(cells)}")
            columns = [cells.index(name) for name in COLUMNS]
        elif any(cells):
            if len(cells) <= max(columns):
                raise ValueError(f"{path}: line {line}: {len(cells)} columns; a row is image,x1,y1,x2,y2")
            yield line, row[0], [cells[column] for column in columns]


def _text(path: Path) -> str:
    """The file's text, UTF-8 or UTF-16; names of files may hold bytes that are neither, and keep them."""
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", "surrogateescape")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
