"""Many faces as a few arrays: a `Face` is a view, made when it is asked for.

A list of `Face` objects takes 6 kB a face, and every worker that touches one copies its page, since Python counts
references in the object itself. Arrays take a fifth of it (68 points are 1.1 kB), are shared by all processes, and can
lie in a mapped file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from facelm.data.faces import Face
from facelm.data.images import read_image
from facelm.data.storage.array_file import Arrays, Section, map_arrays
from facelm.data.storage.texts import all_texts, pack_texts, text_at, texts_at
from facelm.geometry.affine import FloatArray, Image
from facelm.geometry.boxes import Box

Rows = NDArray[np.int64]

_AT_ONCE = 1000
_APART = "\0"  # between the names of subsets


class FaceArrays(Sequence[Face]):
    """Faces in order, packed; an index gives a `Face`, a slice or positions give `FaceArrays` of the same arrays.

    `arrays` are, for N faces of K points:

        landmarks float64 [N, K, 2]    box float64 [N, 4]: centre x, y, side, rotation    orientation uint16 [N]
        occluded int8 [N, K]: 1 hidden, 0 not, -1 in the whole row where nothing is known; absent where no face has any
        NAME_bytes, NAME_ends: texts (see `storage.texts`) in UTF-8, undecodable bytes as they were on disk. `name` and
        `image` have one for each face, `folder` and `subsets` one for each that occurs, and int32 [N] say which

    Sent to another process, arrays of a mapped file travel as its path.
    """

    def __init__(self, arrays: Arrays, rows: Rows | None = None, section: Section | None = None) -> None:
        self._arrays = arrays
        self._rows = np.arange(len(arrays["landmarks"])) if rows is None else rows
        self._section = section
        self._folders = all_texts(arrays, "folder")
        self._subsets = [tuple(text.split(_APART)) if text else () for text in all_texts(arrays, "subsets")]

    @classmethod
    def of(cls, faces: Iterable[Face]) -> FaceArrays:
        """These faces, packed; `FaceArrays` as they are.

        Raises:
            ValueError: faces of different numbers of points.
        """
        if isinstance(faces, FaceArrays):
            return faces
        return cls(packed(faces))

    @classmethod
    def joined(cls, parts: Sequence[FaceArrays]) -> FaceArrays:
        """The faces of all parts, one after the other; of several parts a copy in memory.

        Raises:
            ValueError: faces of different numbers of points.
        """
        return parts[0] if len(parts) == 1 else cls(_joined([part.arrays() for part in parts]))

    @classmethod
    def from_arrays(cls, arrays: Arrays, section: Section | None = None) -> FaceArrays:
        """The faces of arrays that were read from a file, `section` of it if they are mapped.

        Raises:
            ValueError: they are none of `FaceArrays`.
        """
        _check(arrays)
        return cls(arrays, section=section)

    @classmethod
    def mapped(cls, path: Path, start: int = 0, *, check: bool = True) -> FaceArrays:
        """The faces of a section of a file, see `map_arrays`; raises what it raises, and ValueError for other arrays.

        The result's arrays are mapped: they take no memory but what is looked at, and that is shared.
        """
        arrays, section = map_arrays(path, start, check=check)
        return cls.from_arrays(arrays, section)

    def arrays(self) -> Arrays:
        """The arrays of these faces alone, as the class describes them; for `write_arrays`."""
        if self._is_whole():
            return dict(self._arrays)
        one_each = ("landmarks", "box", "orientation", "folder", "subsets", "occluded")
        chosen = {name: self._arrays[name][self._rows] for name in one_each if name in self._arrays}
        for name in ("name", "image"):
            chosen |= pack_texts(name, texts_at(self._arrays, name, self._rows))
        return chosen | {key: one for key, one in self._arrays.items() if key.startswith(("folder_", "subsets_"))}

    @property
    def landmarks_image(self) -> FloatArray:
        """The landmarks `[N, K, 2]`, see `Face`: a view of the arrays where all faces are these, else a copy."""
        return self._arrays["landmarks"] if self._is_whole() else self._arrays["landmarks"][self._rows]

    def _is_whole(self) -> bool:
        return len(self._rows) == len(self._arrays["landmarks"]) and bool((np.diff(self._rows) == 1).all())

    @property
    def boxes(self) -> FloatArray:
        """The boxes `[N, 4]`: centre x, y, side, rotation."""
        return self._arrays["box"][self._rows]

    @property
    def orientations(self) -> NDArray[np.uint16]:
        """How each photograph is turned `[N]`, see `Face`."""
        return self._arrays["orientation"][self._rows]

    def names(self) -> list[str]:
        """The names, in order."""
        return [text.decode("utf-8", "surrogateescape") for text in texts_at(self._arrays, "name", self._rows)]

    def images(self) -> list[bytes]:
        """The paths of the photographs, in order, as the file system has them."""
        texts = texts_at(self._arrays, "image", self._rows)
        return [os.fsencode(text.decode("utf-8", "surrogateescape")) for text in texts]

    def folders(self) -> dict[str, int]:
        """How many faces are in each folder."""
        counts = np.bincount(self._arrays["folder"][self._rows], minlength=len(self._folders))
        return dict(zip(self._folders, counts.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Face: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | NDArray[Any]) -> FaceArrays: ...
    def __getitem__(self, index: Any) -> Face | FaceArrays:
        rows = self._rows[np.asarray(index, np.int64) if isinstance(index, list | tuple) else index]
        if isinstance(rows, np.ndarray):
            return FaceArrays(self._arrays, rows, self._section)
        return self._view(int(rows))

    def __iter__(self) -> Iterator[Face]:
        for start in range(0, len(self), _AT_ONCE):  # no list of a million numbers
            yield from map(self._view, self._rows[start : start + _AT_ONCE].tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        if self._section:
            return _reopened, (self._section, self._rows)
        return FaceArrays, (self.arrays(),)

    def _view(self, row: int) -> Face:
        view = _View.__new__(_View)
        view.__dict__["_of"], view.__dict__["_row"] = self, row
        return view


class _View(Face):
    """A face of `FaceArrays`, each field made when it is first asked for."""

    _of: FaceArrays
    _row: int

    @cached_property
    def name(self) -> str:
        return text_at(self._of._arrays, "name", self._row).decode("utf-8", "surrogateescape")

    @cached_property
    def image(self) -> Path:
        return Path(text_at(self._of._arrays, "image", self._row).decode("utf-8", "surrogateescape"))

    @cached_property
    def landmarks_image(self) -> FloatArray:
        return np.array(self._of._arrays["landmarks"][self._row])  # a copy: torch wants arrays that can be written to

    @cached_property
    def box(self) -> Box:
        x, y, side, rotation = self._of._arrays["box"][self._row].tolist()
        return Box((x, y), side, rotation)

    @cached_property
    def folder(self) -> str:
        return self._of._folders[int(self._of._arrays["folder"][self._row])]

    @cached_property
    def orientation(self) -> int:
        return int(self._of._arrays["orientation"][self._row])

    @cached_property
    def subsets(self) -> tuple[str, ...]:
        return self._of._subsets[int(self._of._arrays["subsets"][self._row])]

    @cached_property
    def occluded(self) -> NDArray[np.bool_] | None:
        known = self._of._arrays.get("occluded")
        return None if known is None or known[self._row, 0] < 0 else known[self._row] > 0

    def read(self) -> Image:
        """See `Face.read`; without a `Path`, of each of which Python keeps the name in a table that grows to 20 MB."""
        if "image" in self.__dict__:  # asked for before, or another by `replace`
            return super().read()
        path = text_at(self._of._arrays, "image", self._row).decode("utf-8", "surrogateescape")
        return read_image(path, self.orientation)

    def __reduce__(self) -> tuple[Any, ...]:
        return Face, tuple(getattr(self, field.name) for field in fields(Face))


def packed(faces: Iterable[Face]) -> Arrays:
    """The arrays of `FaceArrays`; each face is looked at once, and none is kept.

    Raises:
        ValueError: faces of different numbers of points.
    """
    names, images, landmarks, boxes, orientations, occluded = [], [], [], [], [], []
    folders: dict[str, int] = {}
    subsets: dict[str, int] = {}
    folder, subset = [], []
    for face in faces:
        names.append(face.name.encode("utf-8", "surrogateescape"))
        images.append(str(face.image).encode("utf-8", "surrogateescape"))
        landmarks.append(face.landmarks_image)
        boxes.append((*face.box.center, face.box.side, face.box.rotation))
        orientations.append(face.orientation)
        occluded.append(face.occluded)
        folder.append(folders.setdefault(face.folder, len(folders)))
        subset.append(subsets.setdefault(_APART.join(face.subsets), len(subsets)))
    if len(counts := {one.shape for one in landmarks}) > 1:
        raise ValueError(f"faces of different numbers of points: {' and '.join(str(one[0]) for one in sorted(counts))}")
    arrays: Arrays = {
        **pack_texts("name", names),
        **pack_texts("image", images),
        **pack_texts("folder", (text.encode("utf-8", "surrogateescape") for text in folders)),
        **pack_texts("subsets", (text.encode("utf-8", "surrogateescape") for text in subsets)),
        "landmarks": np.array(landmarks, "<f8").reshape(len(names), *(landmarks[0].shape if landmarks else (0, 2))),
        "box": np.array(boxes, "<f8").reshape(-1, 4),
        "orientation": np.array(orientations, "<u2"),
        "folder": np.array(folder, "<i4"),
        "subsets": np.array(subset, "<i4"),
    }
    if any(one is not None for one in occluded):
        unknown = np.full(arrays["landmarks"].shape[1], -1, np.int8)
        arrays["occluded"] = np.array([unknown if one is None else one for one in occluded], np.int8)
    return arrays


def _joined(parts: Sequence[Arrays]) -> Arrays:
    parts = [part for part in parts if len(part["landmarks"])] or [parts[0]]
    if len(counts := {part["landmarks"].shape[1] for part in parts}) > 1:
        raise ValueError(f"faces of different numbers of points: {' and '.join(map(str, sorted(counts)))}")
    whole = {name: np.concatenate([part[name] for part in parts]) for name in ("landmarks", "box", "orientation")}
    for name in ("name", "image"):
        whole[f"{name}_bytes"] = np.concatenate([part[f"{name}_bytes"] for part in parts])
        lengths = [np.diff(part[f"{name}_ends"], prepend=0) for part in parts]
        whole[f"{name}_ends"] = np.cumsum(np.concatenate(lengths), dtype="<i8")
    for name in ("folder", "subsets"):
        known: dict[bytes, int] = {}
        numbers = []
        for part in parts:
            texts = texts_at(part, name, np.arange(len(part[f"{name}_ends"])))
            numbers.append(np.array([known.setdefault(text, len(known)) for text in texts], "<i4")[part[name]])
        whole |= {name: np.concatenate(numbers), **pack_texts(name, known)}
    if any("occluded" in part for part in parts):
        unknown = [np.full(part["landmarks"].shape[:2], -1, np.int8) for part in parts]
        whole["occluded"] = np.concatenate(
            [part.get("occluded", none) for part, none in zip(parts, unknown, strict=True)]
        )
    return whole


def _reopened(section: Section, rows: Rows) -> FaceArrays:
    """What another process sent.

    Raises:
        ValueError: the file is another by now.
    """
    arrays, now = map_arrays(section.path, section.start, check=False)
    if now != section:
        raise ValueError(f"'{section.path}' was replaced while faces of it were in use; start again")
    return FaceArrays(arrays, rows, now)


def _check(arrays: Arrays) -> None:
    """Refuses arrays that are not those of `FaceArrays`, or that point beyond each other."""
    wanted = {"landmarks": ("<f8", 3), "box": ("<f8", 2), "orientation": ("<u2", 1)}
    wanted |= {"folder": ("<i4", 1), "subsets": ("<i4", 1)}
    wanted |= {f"{name}_bytes": ("|u1", 1) for name in ("name", "image", "folder", "subsets")}
    wanted |= {f"{name}_ends": ("<i8", 1) for name in ("name", "image", "folder", "subsets")}
    if "occluded" in arrays:
        wanted["occluded"] = ("|i1", 2)
    if missing := wanted.keys() - arrays.keys():
        raise ValueError(f"no faces: {', '.join(sorted(missing))} is missing")
    if odd := [name for name, kind in wanted.items() if (arrays[name].dtype.str, arrays[name].ndim) != kind]:
        raise ValueError(f"no faces: {', '.join(odd)} is of another kind")
    count, points, _ = arrays["landmarks"].shape
    shapes = {"landmarks": (count, points, 2), "box": (count, 4), "occluded": (count, points)}
    shapes |= dict.fromkeys(("orientation", "folder", "subsets", "name_ends", "image_ends"), (count,))
    if odd := [name for name, shape in shapes.items() if name in arrays and arrays[name].shape != shape]:
        raise ValueError(f"no faces: {', '.join(odd)} has another shape than {count} faces of {points} points need")
    for name in ("name", "image", "folder", "subsets"):
        ends, whole = arrays[f"{name}_ends"], len(arrays[f"{name}_bytes"])
        if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != whole:
            raise ValueError(f"no faces: the ends of {name} do not fit its bytes")
    for name in ("folder", "subsets"):
        if count and not (arrays[name].min() >= 0 and arrays[name].max() < len(arrays[f"{name}_ends"])):
            raise ValueError(f"no faces: {name} points beyond its texts")
