"""LaPa: 22,176 faces with 106 points.

Source: Liu et al., A new dataset and boundary-attention semantic segmentation for face parsing, AAAI 2020,
https://github.com/JDAI-CV/lapa-dataset. Some of its photographs are of 300W, test faces among them. The box is the
rectangle around the points, cut at the photograph's edge, as in mmpose.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from facelm.data.annotated import Annotated, each_read
from facelm.data.faces import Face
from facelm.data.published import (
    Forms,
    Found,
    PublishedFaceDataModule,
    PublishedFaces,
    annotated,
    converted,
    points_of,
    tight_cut_box,
)
from facelm.data.w300.annotations import read_text
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box

SPLITS = ("train", "val", "test")
_POINTS = 106


class LapaFaces(PublishedFaces):
    """LaPa's faces under `root`, see `PublishedFaces`."""

    title, points = "LaPa", "lapa106"
    published = ("val", "test")
    grouped = "Faces whose names differ in the last number alone (PHOTO_0, PHOTO_1) are taken for one photograph's."
    official: ClassVar[Mapping[str, int]] = {"train": 18176, "val": 2000, "test": 2000}
    forms: ClassVar[Forms] = {
        "txt": {split: (f"{split}/landmarks",) for split in SPLITS},
        **converted("lapa_{}", {split: (split,) for split in SPLITS}, ("json",)),
    }
    photographs = ("", "images", *(f"{split}/images" for split in SPLITS))

    def read(self, form: str, path: Path) -> Found:
        """As `PublishedFaces.read`; a file of points that cannot be used is a problem of its own."""
        if form != "txt":
            return super().read(form, path)
        return each_read(_from_file, sorted(path.glob("*.txt")))

    def group(self, face: Face) -> str:
        """Its name without the number of the face."""
        return re.sub(r"_\d{1,2}$", "", face.name)

    def _box(self, landmarks: FloatArray, size: tuple[int, int]) -> Box:
        return tight_cut_box(landmarks, size)


def _from_file(path: Path) -> Annotated:
    """The number of points on the first line, then a line x y for each."""
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if lines[:1] != [[str(_POINTS)]]:
        raise ValueError(f"'{path}' does not begin with {_POINTS}, LaPa's number of points; unpack it again")
    if len(lines) != _POINTS + 1 or any(len(line) != 2 for line in lines[1:]):
        raise ValueError(f"'{path}' has {len(lines) - 1} lines of points, and LaPa's have {_POINTS}, two numbers each")
    landmarks = points_of([cell for line in lines[1:] for cell in line], f"'{path}'")
    return annotated(str(path), path, f"{path.parent.parent.name}/images/{path.stem}.jpg", landmarks, None)


class LapaFaceDataModule(PublishedFaceDataModule):
    """See `LapaFaces`."""

    reader = LapaFaces
