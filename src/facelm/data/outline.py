"""What annotations say of their points before a scheme says what they are: names, lines, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facelm.data.coco import read_coco
from facelm.data.table import read_table
from facelm.data.w300.annotations import read_pts, read_text
from facelm.geometry.affine import FloatArray


@dataclass(frozen=True)
class Outline:
    """Points of annotated faces: their names (none where they are numbers), lines between them, and their mean places.

    `shape` `[K, 2]` is from 0 to 1 within the box of a face's labelled points, y down; `remarks` say what is odd.
    """

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    shape: FloatArray
    remarks: list[str]


def read_outline(path: Path) -> Outline:
    """The outline of a COCO-keypoints .json, a table .csv, or a folder with .pts files.

    Raises:
        FileNotFoundError: no such file, or no .pts file in the folder.
        ValueError: it is none of them, or holds no face that can be used.
    """
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    if path.is_dir():
        faces, remarks = _faces_of_pts(path), []
    elif path.suffix.lower() == ".csv":
        table = read_table(path, None)
        names, faces, remarks = table.names, [row.landmarks for row in table.rows], table.problems
    elif path.suffix.lower() == ".json":
        file = read_coco(path)
        names, skeleton = file.names, file.skeleton
        faces, remarks = [face.landmarks for face in file.faces], [*file.remarks, *file.problems]
    else:
        raise ValueError(f"'{path}' is no .json (COCO keypoints), no .csv and no folder of .pts files")
    if not faces:
        raise ValueError(f"'{path}' holds no face with points: {'; '.join(remarks[:3]) or 'none at all'}")
    return Outline(names, skeleton, _mean_shape(faces), remarks)


def _faces_of_pts(folder: Path) -> list[FloatArray]:
    paths = sorted(folder.rglob("*.pts"))
    if not paths:
        raise FileNotFoundError(f"no .pts file under '{folder}'")
    first = points_of(paths[0])
    return [first, *(read_pts(path, num_landmarks=len(first)) for path in paths[1:])]


def points_of(path: Path) -> FloatArray:
    """The landmarks `[K, 2]` of a .pts file, as many as it has; raises ValueError as `read_pts`."""
    lines = read_text(path).partition("{")[2].partition("}")[0].splitlines()
    return read_pts(path, num_landmarks=sum(bool(line.strip()) for line in lines))


def _mean_shape(faces: Sequence[FloatArray]) -> FloatArray:
    """Where the points `[K, 2]` lie on average; a point that no face has lies in the middle."""
    inside = []
    for points in faces:
        low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
        inside.append((points - low) / max(float((high - low).max()), 1e-9))
    stacked = np.stack(inside)
    known = np.isfinite(stacked)
    mean = np.where(known, stacked, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.asarray(np.where(known.any(axis=0), mean, 0.5))
