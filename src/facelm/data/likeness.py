"""Whether two photographs are one, by what they show: difference hashes, which recompression and resizing leave alone.

A picture is compared with pictures, and an annotated face with faces: a data set may hold crops of another's
photographs, as 300W-LP does of 300W's.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.coco import read_coco
from facelm.data.images import IMAGE_ENDINGS, read_image
from facelm.data.outline import points_of
from facelm.data.photographs import Photographs
from facelm.geometry.affine import FloatArray, Image, warp
from facelm.geometry.boxes import box_from_landmarks, crop_from_image

Hash = NDArray[np.uint64]

SIDE = 16
"""A hash has SIDE x SIDE bits."""

ALIKE = 42
"""Bits of 256 that may differ. Of 60 photographs of 300W one made smaller, brighter or JPEG of quality 30 differs in
18 at most, two faces of 300W-LP from those of 300W that they are in 14 and 35. Other photographs differ in 44 or more,
most in over 70, but for shots of one moment."""

_FACE = 128  # pixels of a face's crop before it is hashed


@dataclass(frozen=True)
class Hashes:
    """Hashes `[N, 4]` of pictures (`of_faces` false) and faces below a folder, and the photograph of each."""

    paths: list[Path]
    of_faces: NDArray[np.bool_]
    hashes: Hash


def difference_hash(image: Image) -> Hash:
    """The hash `[4]` of a picture `[H, W, 3]`: which cells of a 17 x 16 grid are brighter than their left neighbour."""
    exact = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)  # whole numbers would tie in even areas
    grey = cv2.resize(exact, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def face_hash(image: Image, landmarks_image: FloatArray) -> Hash:
    """The hash `[4]` of the square around the labelled landmarks `[K, 2]`."""
    box = box_from_landmarks(landmarks_image[np.isfinite(landmarks_image).all(axis=1)])
    return difference_hash(warp(image, crop_from_image(box, _FACE, 1.0), _FACE))


def hashes_below(root: Path) -> Hashes:
    """Of every photograph below `root`, and of every face that a .pts beside it or a COCO file below `root` annotates.

    Raises:
        FileNotFoundError: no photograph there.

    Warns:
        UserWarning: photographs that cannot be read.
    """
    faces: dict[Path, list[FloatArray]] = {}
    for path, landmarks in _annotated(root):
        faces.setdefault(path, []).append(landmarks)
    paths, of_faces, hashes, unreadable = [], [], [], []
    for path in _files(root, IMAGE_ENDINGS):
        try:
            image = read_image(path)
        except (OSError, ValueError):
            unreadable.append(path)
            continue
        found = [difference_hash(image), *(face_hash(image, one) for one in faces.get(path, []))]
        paths += [path] * len(found)
        of_faces += [False] + [True] * (len(found) - 1)
        hashes += found
    if unreadable:
        warnings.warn(f"{len(unreadable)} files cannot be read, for example '{unreadable[0]}'", stacklevel=2)
    if not paths:
        raise FileNotFoundError(f"no photograph below '{root}'")
    return Hashes(paths, np.array(of_faces), np.stack(hashes))


def alike(first: Hashes, second: Hashes) -> dict[Path, tuple[Path, int]]:
    """(photograph of the first, bits that differ) by photograph of the second that the first has too, or a face of it.

    A picture or face without any difference, such as a white sheet, is like none.
    """
    pairs: dict[Path, tuple[Path, int]] = {}
    for path, of_face, one in zip(second.paths, second.of_faces, second.hashes, strict=True):
        bits = np.bitwise_count(first.hashes ^ one).sum(axis=1).astype(int)
        bits[first.of_faces != of_face] = 256
        nearest, before = int(bits.argmin()), pairs.get(path, (path, ALIKE + 1))[1]
        if one.any() and bits[nearest] < before:
            pairs[path] = (first.paths[nearest], int(bits[nearest]))
    return pairs


def _annotated(root: Path) -> Iterator[tuple[Path, FloatArray]]:
    """(photograph, landmarks) of what can be read: other files than annotations are passed over."""
    for path in _files(root, (".pts",)):
        beside = (path.with_suffix(case) for e in IMAGE_ENDINGS for case in (e, e.upper()))
        if image := next((one for one in beside if one.is_file()), None):
            try:
                yield image, points_of(path)
            except ValueError:
                continue
    photographs = Photographs(root)
    for path in _files(root, (".json",)):
        try:
            faces = read_coco(path).faces
        except ValueError:
            continue
        for face in faces:
            try:
                yield photographs.find(face.image_name, path), face.landmarks
            except (OSError, ValueError):
                continue


def _files(root: Path, endings: tuple[str, ...]) -> list[Path]:
    found = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in found if path.suffix.lower() in endings)
