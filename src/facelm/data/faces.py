"""One annotated face, whatever data set it is of, and the identity of many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box


@dataclass(frozen=True, eq=False)
class Face:
    """One annotated face.

    `name` is its folder and file name without spaces and ending, `helen/trainset/100032540_1`; `folder` the first part.

    Convention: `landmarks_image` `[68, 2]` float64 and `box` are in image pixels; 0-based if indexed with
    `pixel_origin=1`, as stored if with 0.
    """

    name: str
    image: Path
    landmarks_image: FloatArray
    box: Box
    folder: str


def data_fingerprint(faces: Iterable[Face]) -> str:
    """12 hex digits that change with any name or coordinate, whatever the order (start of a SHA-256)."""
    digest = hashlib.sha256()
    for face in sorted(faces, key=lambda face: face.name):
        digest.update(face.name.encode() + b"\0" + face.landmarks_image.astype("<f8").tobytes())
    return digest.hexdigest()[:12]
