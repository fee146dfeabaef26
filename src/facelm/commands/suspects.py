"""Annotated faces that are refused or worth a look, and the sheet that shows them with their numbered points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facelm.commands.contact_sheet import contact_sheet, write_png
from facelm.data.images import read_image
from facelm.evaluation.overlay import draw_landmarks
from facelm.geometry.affine import FloatArray, Image, transform, warp
from facelm.geometry.boxes import Box, box_from_landmarks, crop_from_image
from facelm.geometry.landmarks import IBUG68, LandmarkScheme

_TILE, _AROUND, _BARE = 384, 1.8, 96
_MOST = 60  # faces on a sheet


@dataclass(frozen=True)
class Suspect:
    """A face that is refused or worth a look, and why.

    `photograph` gives (path, orientation) and `points` `[K, 2]` in its pixels; each raises ValueError or OSError where
    there are none.
    """

    name: str
    reason: str
    refused: bool
    photograph: Callable[[], tuple[Path, int]]
    points: Callable[[], FloatArray]

    def told(self) -> str:
        """A line on it."""
        return f"{'refused' if self.refused else 'in doubt'} {self.name}: {self.reason}"


def write_sheet(path: Path, suspects: Sequence[Suspect], columns: int, scheme: LandmarkScheme = IBUG68) -> None:
    """Writes the first suspects into `path` and says so; nothing where there is none."""
    if not suspects:
        print(f"{path} is not written: there is no suspect")
        return
    shown = suspects[:_MOST]
    titles = [f"{suspect.name} {'refused' if suspect.refused else 'in doubt'}" for suspect in shown]
    write_png(path, contact_sheet([_tile(one, scheme) for one in shown], titles, columns))
    print(f"{path}: {len(shown):,} of {len(suspects):,} suspects")


def _tile(suspect: Suspect, scheme: LandmarkScheme) -> Image:
    """`[384, 384, 3]`: the face with numbered points, the whole photograph where it has none, grey without either."""
    try:
        pixels = read_image(*suspect.photograph())
    except (OSError, ValueError):
        return np.full((_TILE, _TILE, 3), _BARE, np.uint8)
    height, width, _ = pixels.shape
    try:
        landmarks_image = suspect.points()
        labelled = landmarks_image[np.isfinite(landmarks_image).all(axis=1)]
        inside = labelled.clip((0, 0), (width - 1, height - 1))  # else a point far off makes the face a speck
        tile_from_image = crop_from_image(box_from_landmarks(inside), _TILE, _AROUND)
    except (OSError, ValueError):  # unreadable, or all points in one place
        whole = Box(((width - 1) / 2, (height - 1) / 2), max(width, height))
        return warp(pixels, crop_from_image(whole, _TILE, 1.0), _TILE)
    tile, landmarks_tile = warp(pixels, tile_from_image, _TILE), transform(tile_from_image, landmarks_image)
    return draw_landmarks(tile, landmarks_tile, scheme, numbers=True)  # reasons name points by number
