"""The thumbnails of a page: JPEG, in a folder beside it, named by a hash of the face's name."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from facelm.data.faces import name_hash
from facelm.data.images import read_image
from facelm.evaluation.metrics import IntArray
from facelm.evaluation.overlay import cut_tile, encoded, tile_matrix
from facelm.evaluation.plots import ImageOf
from facelm.evaluation.scores import EvaluationResult
from facelm.files import write_whole
from facelm.geometry.affine import FloatArray, Image, transform

FOLDER = "index_files"

Writer = Callable[[Path, bytes], None]
"""Writes a file whole or not at all."""

SIZE = 320
"""Pixels of a thumbnail's side."""

_STEPS = 16  # of a thumbnail's pixel, in the 16 bits of a coordinate on the page
_NOWHERE = -(2**15)
_THUMBNAIL = r"[0-9a-f]{16}\.jpg"
_SHEET = r"[0-9a-f]{16}-[0-9a-f]{8}\.png"


def thumbnail(name: str) -> str:
    """The file of a face's thumbnail, relative to the page."""
    return f"{FOLDER}/{name_hash(name):016x}.jpg"


def write_thumbnails(
    folder: Path, result: EvaluationResult, rows: IntArray, image_of: ImageOf | None, write: Writer
) -> tuple[list[str | None], FloatArray]:
    """Thumbnails of the faces `rows` beside the page in `folder`: their files, and how sharp each picture is.

    Without `image_of` those that are there stay.

    Sharpness is the standard deviation of the Laplacian of the grey thumbnail: what is out of focus, or was a small
    face that is shown larger, is below 5.
    """
    files: list[str | None] = []
    sharp = np.full(len(rows), np.nan)
    for place, row in enumerate(rows):
        file = folder / thumbnail(result.names[row])
        tile = None
        if image_of is not None and (where := where_face_is(result, row)) is not None:
            tile, _ = cut_tile(image_of(int(result.predictions.index[row])), where, size=SIZE)
            write(file, encoded(tile, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 80]))
        elif image_of is None and file.is_file():
            tile = read_image(file)
        if tile is not None:
            sharp[place] = sharpness(tile)
        files.append(None if tile is None else thumbnail(result.names[row]))
    return files, sharp


def borrow_thumbnails(folder: Path, names: Sequence[str], reports: Iterable[Path]) -> None:
    """Copies the thumbnails of the faces `names` beside the page in `folder` from the first of `reports` that has them.

    Raises:
        OSError: one cannot be written.
    """
    places = list(reports)
    for name in names:
        found = next((report / thumbnail(name) for report in places if (report / thumbnail(name)).is_file()), None)
        if found is not None and found.parent.resolve() != (folder / FOLDER).resolve():
            write_whole(folder / thumbnail(name), found.read_bytes(), sync=False)


def in_one_file(page: Path, most: int) -> str:
    """The HTML of a `page` that needs no file beside it: its first `most` thumbnails in it, all else left out.

    Raises:
        OSError: the page cannot be read.
    """
    left = most

    def inside(found: re.Match[str]) -> str:
        nonlocal left
        file = page.parent / found[1]
        if file.suffix != ".jpg":
            return "null"
        left -= 1
        if left < 0 or not file.is_file():
            return "null"
        return f'"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"'

    return re.sub(rf'"({FOLDER}/(?:{_THUMBNAIL}|{_SHEET}))"', inside, page.read_text(encoding="utf-8"))


def remove_others(folder: Path, kept: Collection[str | None]) -> None:
    """Removes what an earlier page in `folder` showed and this one does not; nothing that is called otherwise."""
    if (folder / FOLDER).is_dir() and not (folder / FOLDER).is_symlink():
        for file in (folder / FOLDER).iterdir():
            if re.fullmatch(f"{_THUMBNAIL}|{_SHEET}", file.name) and f"{FOLDER}/{file.name}" not in kept:
                file.unlink(missing_ok=True)


def sharpness(tile: Image) -> float:
    """The standard deviation of the Laplacian of `tile` `[S, S, 3]` in grey."""
    return float(cv2.Laplacian(cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std())


def where_face_is(result: EvaluationResult, row: int) -> FloatArray | None:
    """The landmarks `[K, 2]` that say where a face is: its annotation, else what is predicted; None where nothing."""
    for landmarks in (result.predictions.target[row], result.predictions.predicted[row]):
        try:
            tile_matrix(landmarks)
        except ValueError:
            continue
        return np.asarray(landmarks)
    return None


def in_thumbnails(landmarks: FloatArray, result: EvaluationResult, rows: IntArray) -> str:
    """`landmarks` `[N, K, 2]` of the faces `rows`, in pixels of their thumbnails: 16 bits each, as base64.

    Convention: `landmarks` are in image pixels; 1/16 of a thumbnail's pixel is the unit, -32768 no number.
    """
    packed = np.full((len(rows), *landmarks.shape[1:]), _NOWHERE, dtype="<i2")
    for place, row in enumerate(rows):
        where = where_face_is(result, row)
        if where is not None:
            points = transform(tile_matrix(where, size=SIZE), landmarks[row]) * _STEPS
            known = np.isfinite(points).all(axis=-1)
            packed[place, known] = np.clip(np.round(points[known]), _NOWHERE + 1, 2**15 - 1).astype("<i2")
    return base64.b64encode(packed.tobytes()).decode()
