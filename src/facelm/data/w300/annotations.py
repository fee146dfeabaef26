"""Annotation files of 300W: iBUG's .pts, mmpose's COCO-style JSON, the HRNet authors' CSV; and a .pts writer.

All three hold the same numbers, 1-based as MATLAB counts pixels (checked by others on 554 published rows). Reading
subtracts `pixel_origin`: 1 gives facelm's 0-based pixels; 0 leaves the numbers as they are, which is what mmpose and
the HRNet authors train on. The published boxes are not read: `facelm.geometry.boxes.box_from_landmarks` gives the same.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from facelm.checked import shown
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import IBUG68

NUM_LANDMARKS = IBUG68.num_landmarks
CSV_POINTS = tuple(f"original_{i}_{axis}" for i in range(NUM_LANDMARKS) for axis in "xy")
CSV_COLUMNS = ("image_name", *CSV_POINTS)
"""Columns that are read; the published scale, center_w and center_h may be absent."""

LARGEST = 1e6
"""No photograph has so many pixels on a side: a coordinate beyond is damage."""
JSON_FIELDS = ("image_id", "keypoints")  # of an annotation; center and scale are not read and may be absent

# The published files that make up a split, the first complete set that is found.
_PUBLISHED: dict[str, tuple[tuple[str, ...], ...]] = {
    "train": (("train",),),
    "common": (("valid_common",), ("valid",)),
    "challenge": (("valid_challenge",), ("valid",)),
    "full": (("valid",), ("valid_common", "valid_challenge")),
    "test": (("test",),),
}


@dataclass(frozen=True)
class Annotation:
    """One annotated photograph.

    `image_name` is written as in the file, `where` says which row it is. `read(pixel_origin)` gives the landmarks
    `[68, 2]`, or raises ValueError where they are no 68 points.
    """

    image_name: str
    where: str
    read: Callable[[int], FloatArray]


def read_pts(path: Path, pixel_origin: int = 1, num_landmarks: int = NUM_LANDMARKS) -> FloatArray:
    """The landmarks `[K, 2]` of a .pts file, float64. Windows line ends and byte-order marks are fine.

    Convention: image pixels; 0-based with `pixel_origin=1`, as stored with 0.

    Raises:
        ValueError: no braces, or more than one pair of them, which is several faces in one file; another number of
            points than `num_landmarks`; anything but finite numbers between the braces; points that nobody placed.
    """
    _, opening, rest = read_text(path).partition("{")
    body, closing, after = rest.partition("}")
    if not opening or not closing:
        raise ValueError(
            f"{path}: no points between braces; the file is cut short, or no .pts file. "
            "Unpack it again from iBUG's archive"
        )
    if "{" in body or "{" in after:
        raise ValueError(f"{path}: more than one block of points; a .pts file holds one face. Split it, a file a face")
    points = list(filter(None, map(str.split, body.splitlines())))
    for number, point in enumerate(points if set(map(len, points)) != {2} else ()):
        if len(point) != 2:
            hint = "; numbers are separated by a space, not a comma" if "," in "".join(point) else ""
            raise ValueError(f"{path}: point {number} is {' '.join(point)!r}, not two numbers{hint}")
    return _landmarks([value for point in points for value in point], str(path), pixel_origin, num_landmarks)


def write_pts(path: Path, landmarks_image: FloatArray) -> None:
    """A .pts file of the landmarks `[K, 2]`, such that `read_pts` gives them back.

    Convention: `landmarks_image` are 0-based image pixels; the file is 1-based, as iBUG's are.

    Raises:
        ValueError: not of shape `[K, 2]`, or not finite.
    """
    landmarks_image = np.asarray(landmarks_image, dtype=np.float64)
    if landmarks_image.ndim != 2 or landmarks_image.shape[1] != 2 or not np.isfinite(landmarks_image).all():
        raise ValueError(f"{path}: landmarks of shape {landmarks_image.shape}; finite [K, 2] are needed")
    points = "\n".join(f"{x!r} {y!r}" for x, y in (landmarks_image + 1).tolist())
    path.write_text(f"version: 1\nn_points: {len(landmarks_image)}\n{{\n{points}\n}}\n", encoding="ascii", newline="\n")


def read_annotations(path: Path, kind: str) -> list[Annotation]:
    """Every face of an annotation file, in its order: mmpose's (`kind` "json") or the HRNet authors' ("csv").

    Raises:
        ValueError: not such a file, or columns or fields of the published files are missing.
    """
    return _read_csv(path) if kind == "csv" else _read_json(path)


def find_annotation_files(root: Path, split: str, kind: str, annotations_at: Path | None = None) -> list[Path]:
    """The files `face_landmarks_300w_*.{kind}` that make up a split.

    They are looked for in `root`, then in `root/annotations`. `annotations_at` replaces both: a folder, or one file
    that holds the split's faces (and, if it likes, those of other splits).

    Raises:
        FileNotFoundError: none, with the names and folders that were tried.
    """
    if annotations_at is not None and annotations_at.is_file():
        return [annotations_at]
    folders = [annotations_at] if annotations_at is not None else [root, root / "annotations"]
    choices = [[f"face_landmarks_300w_{part}.{kind}" for part in parts] for parts in _PUBLISHED[split]]
    for names in choices:
        for folder in folders:
            if all((folder / name).is_file() for name in names):
                return [folder / name for name in names]
    raise FileNotFoundError(
        f"no {kind} annotations for split {split!r}: looked for {', or '.join(' + '.join(names) for names in choices)} "
        f"in {' and '.join(repr(str(folder)) for folder in folders)}. Put the published files there, name their folder "
        "or a file with data.annotations_at=..., or set data.annotations=pts; to try facelm without data: "
        "experiment=demo"
    )


def read_text(path: Path) -> str:
    """The file's text: UTF-8 with or without a byte-order mark, or UTF-16 with one.

    Raises:
        ValueError: neither.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: no text file; it is damaged. Unpack or download it again") from None


def read_rows(path: Path) -> list[list[str]]:
    """The lines of a CSV file, cell by cell.

    Raises:
        ValueError: it is damaged, or no text.
    """
    try:
        return list(csv.reader(StringIO(read_text(path), newline=""), skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{path}: no CSV ({error}); it is damaged. Download or export it again") from None


def _read_json(path: Path) -> list[Annotation]:
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of too many digits
        raise ValueError(f"{path}: no JSON ({error}); the file is damaged or cut short. Download it again") from None
    images, faces = (_objects(path, content, key) for key in ("images", "annotations"))
    _require(path, "image", images, ("id", "file_name"))
    _require(path, "annotation", faces, JSON_FIELDS)
    names = {str(image.get("id")): image.get("file_name") for image in images}
    rows = []
    for number, face in enumerate(faces):
        where, image_id = f"{path}: annotation {number}", str(face.get("image_id"))
        image_name = str(names.get(image_id) or f"image_id {image_id}")
        rows.append(Annotation(image_name, where, partial(_from_keypoints, face.get("keypoints"), where)))
    return rows


def _read_csv(path: Path) -> list[Annotation]:
    first, *rows = read_rows(path) or [[]]
    header = [column.strip() for column in first]
    missing = [column for column in CSV_COLUMNS if column not in header]
    if missing:
        raise ValueError(
            f"{path}: missing column {_some(missing)}. The HRNet authors' files have image_name, scale, center_w, "
            "center_h, original_0_x, original_0_y ... original_67_y, separated by commas"
        )
    name, points = header.index("image_name"), [header.index(column) for column in CSV_POINTS]
    return [
        Annotation(row[name] if name < len(row) else "", where, partial(_from_row, row, points, where))
        for line, row in enumerate(rows, start=2)
        for where in [f"{path}: line {line}"]
        if row
    ]


def _objects(path: Path, content: Any, key: str) -> list[dict[str, Any]]:
    """The list of objects under `key` of a COCO-style file."""
    items = content.get(key) if isinstance(content, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError(f"{path}: no list {key!r}; mmpose's files have the lists 'images' and 'annotations'")
    return items


def _require(path: Path, what: str, items: list[dict[str, Any]], fields: Sequence[str]) -> None:
    """Raise where a field is missing throughout; where only some faces lack it, those are refused one by one."""
    missing = [field for field in fields if items and not any(field in item for item in items)]
    if missing:
        raise ValueError(
            f"{path}: missing field {', '.join(missing)} in every {what}; mmpose's files have {', '.join(fields)}"
        )


def _from_keypoints(keypoints: Any, where: str, pixel_origin: int) -> FloatArray:
    """Landmarks of mmpose's [x0, y0, visible0, x1, ...]."""
    if not isinstance(keypoints, list) or len(keypoints) != 3 * NUM_LANDMARKS:
        count = len(keypoints) if isinstance(keypoints, list) else "no list of"
        raise ValueError(f"{where}: {count} keypoint numbers, not {NUM_LANDMARKS} times x, y, visible")
    if any(visible == 0 for visible in keypoints[2::3]):
        raise ValueError(f"{where}: points marked as not labelled (visible 0); 300W labels all {NUM_LANDMARKS}")
    coordinates = [value for i, value in enumerate(keypoints) if i % 3 < 2]
    return _landmarks(coordinates, where, pixel_origin)


def _from_row(row: list[str], points: list[int], where: str, pixel_origin: int) -> FloatArray:
    """Landmarks of one line of the HRNet authors' CSV."""
    if len(row) <= max(points):
        raise ValueError(f"{where}: {len(row)} columns where the header has more; the file is cut short or edited")
    return _landmarks([row[column] for column in points], where, pixel_origin)


def _landmarks(values: Sequence[Any], where: str, pixel_origin: int, count: int = NUM_LANDMARKS) -> FloatArray:
    """Landmarks `[K, 2]` from x0, y0, x1, ... as numbers or text, less `pixel_origin`."""
    if len(values) != 2 * count:
        expected = f"300W has {count}" if count == NUM_LANDMARKS else f"and there are to be {count}"
        raise ValueError(f"{where}: {len(values) // 2} points, {expected}")
    stored = np.array(_numbers(values, where)).reshape(count, 2)
    if not (largest := abs(stored).max()) < np.inf:
        bad = int(np.argmin(np.isfinite(stored).all(axis=1)))
        raise ValueError(f"{where}: point {bad} is ({stored[bad, 0]}, {stored[bad, 1]}), not finite")
    if largest > LARGEST:
        bad = int(abs(stored).max(axis=1).argmax())
        raise ValueError(f"{where}: point {bad} is ({stored[bad, 0]:g}, {stored[bad, 1]:g}), far beyond any photograph")
    if said := unplaced(stored):
        raise ValueError(f"{where}: {said}; this format has no mark for them. Label them, or leave the face out")
    return stored - pixel_origin


def _numbers(values: Sequence[Any], where: str) -> list[float]:
    """x0, y0, x1, ... as numbers; raises ValueError for the first that is none."""
    try:
        texts = "".join(values)
    except TypeError:  # most of them are numbers
        texts = "".join(value for value in values if isinstance(value, str))
    try:
        if "_" not in texts:  # Python's float reads 1_0 as 10
            return list(map(float, values))
    except (TypeError, ValueError, OverflowError):
        pass
    for i, value in enumerate(values):
        try:
            if isinstance(value, str) and "_" in value:
                raise ValueError
            float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{where}: {'xy'[i % 2]} of point {i // 2} is {shown(value)}, not a number") from None
    raise ValueError(f"{where}: no numbers")


def unplaced(stored: FloatArray) -> str:
    """Which of the points `[K, 2]`, as a file has them, nobody placed, as tools write those; "" where there is none.

    300W's formats have no other mark for them.
    """
    x, y = stored.T
    found = [point for point in np.flatnonzero(x == y).tolist() if x[point] in (0, -1)]
    return f"point {_some(found)} at (0, 0) or (-1, -1), as tools write points that nobody placed" if found else ""


def _some(items: Sequence[object], most: int = 5) -> str:
    """The first few, and how many more."""
    shown = ", ".join(str(item) for item in items[:most])
    return f"{shown} and {len(items) - most:,} more" if len(items) > most else shown
