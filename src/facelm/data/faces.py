"""One annotated face, whatever data set it is of, and the identity of many."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from facelm.data.images import AS_STORED, read_image
from facelm.geometry.affine import FloatArray, Image
from facelm.geometry.boxes import Box

if TYPE_CHECKING:
    from facelm.data.face_arrays import FaceArrays

_AT_ONCE = 1000  # faces whose landmarks are copied at once


@dataclass(frozen=True, eq=False)
class Face:
    """One annotated face.

    `name` is its folder and file name without ending, `helen/trainset/100032540_1`; `folder` the first part.
    `orientation` is how the photograph is turned before anything else, as EXIF counts: 1 leaves it as it is stored.
    `subsets` are those of its split's that it is in, which may overlap: each is a row of the table of its own.
    `occluded` `[K]` are points that are labelled but hidden, where the data set says so; they count as all others.

    Convention: `landmarks_image` `[K, 2]` float64, NaN where a point is not labelled, and `box` are in pixels of the
    turned image; 0-based if indexed with `pixel_origin=1`, as stored if with 0.
    """

    name: str
    image: Path
    landmarks_image: FloatArray
    box: Box
    folder: str
    orientation: int = AS_STORED
    subsets: tuple[str, ...] = ()
    occluded: NDArray[np.bool_] | None = None

    def read(self) -> Image:
        """The pixels `[H, W, 3]` that the landmarks belong to; raises what `read_image` raises."""
        return read_image(self.image, self.orientation)


class FaceSource(Protocol):
    """A data set: the faces of its splits. Nothing else in the package knows which one it is."""

    @property
    def published(self) -> tuple[str, ...]:
        """The subsets of which tables are made; a report says which of them are absent."""

    @property
    def validates(self) -> tuple[str, tuple[str, ...]]:
        """The subsets that choose the best epoch where they are there, after the name of their union."""

    @property
    def grouped(self) -> str:
        """The rule of `group` in a sentence."""

    def faces(self, split: str, list_file: str | None = None) -> Sequence[Face]:
        """The faces of `train` or of a subset, sorted by name; of a list file, those alone that it names.

        Raises:
            FileNotFoundError: no photographs, annotations or list.
            ValueError: faces that cannot be used, all of them named.
        """

    def subsets(self) -> list[str]:
        """The names of the evaluation subsets that are there, each with its own faces."""

    def group(self, face: Face) -> str:
        """The photograph or clip that a face is of: what is held out of training is held out with all of it."""

    def nothing_to_evaluate(self) -> str:
        """What to say where there is no subset, in a sentence with its cure."""


def name_hashes(faces: Iterable[Face]) -> list[int]:
    """A number for each face, ascending: the first 63 bits of its name's SHA-256, by which it is known again."""
    return sorted(map(name_hash, _packed(faces).names()))


def name_hash(name: str) -> int:
    """The number of a name, see `name_hashes`."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) >> 1


def data_fingerprint(faces: Iterable[Face]) -> str:
    """12 hex digits that change with any name, coordinate or turn, whatever the order (start of a SHA-256)."""
    digest, packed = hashlib.sha256(), _packed(faces)
    names = packed.names()
    order = sorted(range(len(names)), key=names.__getitem__)
    for start in range(0, len(order), _AT_ONCE):
        chosen = order[start : start + _AT_ONCE]
        some = packed[chosen]
        for number, points, turn in zip(chosen, some.landmarks_image, some.orientations.tolist(), strict=True):
            digest.update(names[number].encode("utf-8", "surrogateescape") + b"\0" + points.tobytes())
            if turn != AS_STORED:
                digest.update(b"turned %d" % turn)
    return digest.hexdigest()[:12]


def _packed(faces: Iterable[Face]) -> FaceArrays:
    from facelm.data.face_arrays import FaceArrays  # which imports this file

    return FaceArrays.of(faces)
