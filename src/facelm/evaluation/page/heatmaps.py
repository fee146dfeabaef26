"""Heatmaps of the faces on a page that are looked at first: a grey PNG a face, in it a tile a point.

A tile shows what the thumbnail shows: a map is warped into its frame, so that the page needs no matrix, nor does a page
that is made again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.faces import name_hash
from facelm.evaluation.faces_shown import numbers
from facelm.evaluation.kept import confidences
from facelm.evaluation.metrics import IntArray
from facelm.evaluation.overlay import encoded, tile_matrix
from facelm.evaluation.page.pictures import FOLDER, SIZE, Writer, where_face_is
from facelm.evaluation.scores import EvaluationResult
from facelm.geometry.affine import FloatArray, Image

HeatmapsOf = Callable[[int], tuple[NDArray[np.float32], FloatArray]]
"""Gives the heatmaps `[K, H, W]` of the face with that index, and `image_from_heatmap` `[3, 3]`."""

EACH = 12
"""So many of the worst, the median and the best faces of a page have heatmaps: about 2 MB at 68 points."""

TILE, COLUMNS = 80, 10
"""Pixels of a tile's side, a quarter of the thumbnail's, and tiles in a row of the sheet."""


def sheet(result: EvaluationResult, row: int) -> str:
    """The file of a face's heatmaps, relative to the page; of other predictions or annotations it is another one."""
    faces = result.predictions
    of = zlib.crc32(np.stack([faces.predicted[row], faces.target[row]]).astype("<f8").tobytes())
    return f"{FOLDER}/{name_hash(result.names[row]):016x}-{of:08x}.png"


def write_heatmaps(
    folder: Path, result: EvaluationResult, rows: IntArray, heatmaps_of: HeatmapsOf | None, write: Writer
) -> dict[str, Any]:
    """Sheets beside the page in `folder` of those faces of `rows` that are looked at first; what the page says of them.

    `files` and `peaks` (the maps' heights) are by the place of a face in `rows`. Without `heatmaps_of` the sheets of
    these very predictions that are there stay.
    """
    files: dict[int, str] = {}
    if heatmaps_of is None:
        known = {place: sheet(result, row) for place, row in enumerate(rows)}
        files = {place: file for place, file in known.items() if (folder / file).is_file()}
    else:
        for place in looked_at(result.errors.nme[rows]):
            row = int(rows[place])
            if (where := where_face_is(result, row)) is None:
                continue
            maps, image_from_heatmap = heatmaps_of(int(result.predictions.index[row]))
            files[place] = sheet(result, row)
            write(
                folder / files[place], encoded(tiles(maps, tile_matrix(where, size=SIZE) @ image_from_heatmap), ".png")
            )
    peaks = confidences(result.predictions)
    return {
        "tile": TILE,
        "columns": COLUMNS,
        "files": files,
        "peaks": {place: numbers(peaks[rows[place]], 3) for place in files},
    }


def looked_at(errors: FloatArray) -> list[int]:
    """Places of the `EACH` worst, median and best of faces with those errors `[N]`; one without an error is worst."""
    known = np.sort(errors[np.isfinite(errors)])
    middle = known[len(known) // 2] if len(known) else 0.0
    worst = np.nan_to_num(errors, nan=np.inf, posinf=np.inf)
    orders = (-worst, np.abs(worst - middle), worst)
    return sorted({int(place) for order in orders for place in np.argsort(order, kind="stable")[:EACH]})


def tiles(maps: NDArray[np.float32], thumbnail_from_heatmap: FloatArray) -> Image:
    """The sheet of heatmaps `[K, H, W]`: each as bright at its peak as another, black where it is not above 0 or NaN.

    Convention: pixel `i` is centred on `i`, of maps, thumbnails and tiles.
    """
    scale = TILE / SIZE
    tile_from_thumbnail = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1]])
    tile_from_heatmap = (tile_from_thumbnail @ thumbnail_from_heatmap)[:2]
    drawn = np.zeros((-(-len(maps) // COLUMNS) * TILE, COLUMNS * TILE), dtype=np.uint8)
    for point, one in enumerate(maps):
        if (peak := float(one.max())) > 0 and np.isfinite(peak):
            tile = cv2.warpAffine((one.clip(0) * (255 / peak)).astype(np.float32), tile_from_heatmap, (TILE, TILE))
            y, x = TILE * (point // COLUMNS), TILE * (point % COLUMNS)
            drawn[y : y + TILE, x : x + TILE] = np.rint(tile)
    return drawn
