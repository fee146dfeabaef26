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


def name_hashes(faces: Iterable[Face]) -> list[int]:
    """A number for each face, ascending: the first 63 bits of its name's SHA-256, by which it is known again."""
    return sorted(name_hash(face.name) for face in faces)


def name_hash(name: str) -> int:
    """The number of a name, see `name_hashes`."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) >> 1


def data_fingerprint(faces: Iterable[Face]) -> str:
    """12 hex digits that change with any name or coordinate, whatever the order (start of a SHA-256)."""
    digest = hashlib.sha256()
    for face in sorted(faces, key=lambda face: face.name):
        digest.update(
            face.name.encode("utf-8", "surrogateescape") + b"\0" + face.landmarks_image.astype("<f8").tobytes()
        )
    return digest.hexdigest()[:12]
