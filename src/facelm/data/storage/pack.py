"""A pack: one file with the faces of a data set and their crops, from which it trains without its photographs.

    head | crops, one after the other | index: a section of `array_file`

The index holds the faces (`FaceArrays`), which split and photograph each is of, the digest of its photograph's bytes,
where its crops lie, and as JSON what else there is to know. Each training face has its surroundings, as large as
the augmentation reaches, and every face the crop that evaluation sees (`framing.py`). No path of a machine is in it.
Head and index are checked when a pack is opened, a crop when it is first looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.data.face_arrays import FaceArrays
from facelm.data.storage.array_file import Arrays, Section, map_arrays
from facelm.data.storage.coding import Coding, Jpeg, coding_of
from facelm.data.storage.crop_file import Crops, DamagedCropError, has_length
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.geometry.affine import FloatArray, Image
from facelm.geometry.landmarks import LandmarkScheme, told_scheme

MAGIC = b"facelm pack 1\n\0\0"  # the number counts layouts of the file and changes of what framings store
HEAD = struct.Struct("<16sQQ32x")  # magic, the index's first byte, bytes of the file
KINDS = ("surroundings", "crop")
"""Of crops: what training faces are augmented from, and what evaluation sees."""

AGAIN = "Copy it again from where it is whole, or make it anew with facelm pack"

_LARGEST = 2**14  # pixels of a crop's side
_FAR = 1e7
_COLUMNS = {"offset": ("<i8", ()), "length": ("<i8", ()), "checksum": ("<i8", ()), "size": ("<i4", (2,)),
            "matrix": ("<f8", (3, 3))}  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What a pack says of its faces beside their arrays.

    `splits` are the names that `split` counts in, `published`, `validates` and `grouped` as `FaceSource` has them.
    `surroundings` and `crop` say what was stored, `coding` how.
    """

    scheme: LandmarkScheme
    splits: tuple[str, ...]
    published: tuple[str, ...]
    validates: tuple[str, tuple[str, ...]]
    grouped: str
    pixel_origin: int
    surroundings: Surroundings
    crop: EvaluationCrop
    coding: Coding
    version: str

    @property
    def quality(self) -> int | None:
        """Of JPEG; None where pixels are stored as they are."""
        return self.coding.quality if isinstance(self.coding, Jpeg) else None

    @classmethod
    def told(cls, said: object) -> Facts:
        """As a pack says them.

        Raises:
            ValueError: an entry is missing or not what it should be.
        """
        entries = checked.mapping(said, "what it says of its faces")
        try:
            union, validating = entries["validates"]
            wide, crop = (checked.mapping(entries[kind], kind) for kind in KINDS)
            quality = entries["quality"]
            return cls(
                scheme=told_scheme(entries["scheme"]),
                splits=checked.strings(entries["splits"], "splits", most=1000),
                published=checked.strings(entries["published"], "published", most=1000),
                validates=(checked.text(union, "validates"), checked.strings(validating, "validates", most=1000)),
                grouped=checked.text(entries["grouped"], "grouped", longest=1000),
                pixel_origin=checked.integer(entries["pixel_origin"], "pixel_origin", 0, 1),
                surroundings=Surroundings(
                    checked.number(wide["reach"], "reach", 0.01, 100),
                    checked.integer(wide["max_side"], "max_side", 64, _LARGEST),
                ),
                crop=EvaluationCrop(
                    checked.integer(crop["size"], "crop size", 1, _LARGEST),
                    checked.number(crop["scale"], "crop scale", 0.01, 100),
                ),
                coding=coding_of("raw") if quality is None else coding_of("jpeg", quality),
                version=checked.text(entries["version"], "version", longest=100),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"what it says of its faces is not complete ({error})") from error


class Pack:
    """An opened pack.

    `faces` are all of its faces: of each, `image` says nothing but its number. `split` `[N]` is its split's number in
    `facts.splits`, `group` `[N]` its photograph's or clip's, and `contents` `[N, 32]` the SHA-256 of its photograph's
    bytes. `section` is where the index lies.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no pack, of another version, cut or damaged.
    """

    def __init__(self, path: Path, *, check: bool = True) -> None:
        self.path = path
        start, size = _head(path)
        arrays, self.section = map_arrays(path, start, check=check)
        if self.section.end != size:
            raise ValueError(f"'{path}' is damaged: its index does not end where it should. {AGAIN}")
        try:
            text = _array(arrays, "facts", "|u1", 1).tobytes()
            self.facts = Facts.told(checked.from_json(text, "what it says of its faces"))
            self.faces = FaceArrays.from_arrays(arrays, self.section)
            count, points = len(self.faces), self.facts.scheme.num_landmarks
            self.split = _array(arrays, "split", "<i4", (count,))
            self.group = _array(arrays, "group", "<i8", (count,))
            self.contents = _array(arrays, "contents", "|u1", (count, 32))
            if check:
                _check_faces(arrays, points, self.split, len(self.facts.splits))
            self._rows = {kind: _rows(arrays, kind, count, start, self.facts.coding) for kind in KINDS}
        except ValueError as error:
            raise ValueError(f"'{path}' is no pack that can be used: {error}. {AGAIN}") from error
        content = np.memmap(path, np.uint8, "r")
        self._crops = {kind: Crops(content, rows, self.facts.coding) for kind, (_, rows) in self._rows.items()}

    def load(self, kind: str, number: int) -> tuple[Image, FloatArray]:
        """The crop `[h, w, 3]` of one of KINDS of face `number`, and its `image_from_stored` `[3, 3]`.

        Raises:
            ValueError: it is damaged; the message names the face. Or a face that does not train has no surroundings.
        """
        row = int(self._rows[kind][0][number])
        if row < 0:
            raise ValueError(f"'{self.path}' holds no {kind} of {self.faces[number].name}: it is no training face")
        try:
            return self._crops[kind].read(row)
        except DamagedCropError as error:
            raise ValueError(
                f"'{self.path}' is damaged: {self.faces[number].name} cannot be read ({error}). {AGAIN}; "
                "data.on_error=skip leaves damaged faces out, and facelm info FILE --verify names them all"
            ) from error

    def damaged(self) -> list[int]:
        """The numbers of faces with a crop that cannot be read; reads all of the file."""
        found = []
        for number in range(len(self.faces)):
            try:
                for kind in KINDS:
                    if self._rows[kind][0][number] >= 0:
                        self.load(kind, number)
            except ValueError:
                found.append(number)
        return found

    def numbers(self, split: str) -> NDArray[np.int64]:
        """The numbers of the faces of a split, in order.

        Raises:
            ValueError: there is no such split.
        """
        if split not in self.facts.splits:
            raise ValueError(f"'{self.path}' holds no '{split}', but {', '.join(self.facts.splits)}")
        return np.flatnonzero(self.split == self.facts.splits.index(split))


class PackedCrops:
    """Crops of one of KINDS of the faces `numbers`, an `ImageSource`; a copy sent to a worker opens the file itself."""

    def __init__(self, pack: Pack, kind: str, numbers: Sequence[int]) -> None:
        self.pack, self.kind, self.numbers = pack, kind, numbers

    @property
    def reach(self) -> float:
        """As far around the box's centre as was stored, in sides of the box."""
        facts = self.pack.facts
        return facts.surroundings.reach if self.kind == KINDS[0] else facts.crop.reach

    def load(self, index: int) -> tuple[Image, FloatArray]:
        """As `Pack.load`, of the face at `index` in `numbers`."""
        return self.pack.load(self.kind, self.numbers[index])

    def content(self, index: int) -> bytes:
        """The SHA-256 of its photograph's bytes."""
        return bytes(self.pack.contents[self.numbers[index]].tobytes())

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.pack.section, self.kind, self.numbers)


def _reopened(section: Section, kind: str, numbers: Sequence[int]) -> PackedCrops:
    """What another process sent.

    Raises:
        ValueError: the file is another by now.
    """
    pack = Pack(section.path, check=False)
    if pack.section != section:
        raise ValueError(f"'{section.path}' was replaced while faces of it were in use; start again")
    return PackedCrops(pack, kind, numbers)


def _head(path: Path) -> tuple[int, int]:
    """Where the index begins, and the size of the file."""
    with path.open("rb") as file:
        head = file.read(HEAD.size)
        size = file.seek(0, 2)
    if not head.startswith(MAGIC[:12]):
        raise ValueError(f"'{path}' is no pack of faces. facelm pack DATA --out FILE makes one")
    if len(head) < HEAD.size or not head.startswith(MAGIC):
        raise ValueError(f"'{path}' was written by another version of facelm, or is damaged. {AGAIN}")
    _, start, whole = HEAD.unpack(head)
    if whole != size or not HEAD.size <= start < size:
        raise ValueError(f"'{path}' holds {size:,} bytes of {whole:,}: it was cut or added to. {AGAIN}")
    return start, size


def _array(arrays: Arrays, name: str, dtype: str, shape: int | tuple[int, ...]) -> NDArray[Any]:
    """The array of that name, type and shape, or number of dimensions."""
    one = arrays.get(name)
    if one is None or one.dtype.str != dtype or (one.ndim if isinstance(shape, int) else one.shape) != shape:
        raise ValueError(f"its array {name} is missing or of another kind")
    return one


def _check_faces(arrays: Arrays, points: int, split: NDArray[Any], splits: int) -> None:
    """Refuses faces that no reader would have given."""
    landmarks, box = arrays["landmarks"], arrays["box"]
    if landmarks.shape[1] != points:
        raise ValueError(f"its faces have {landmarks.shape[1]} points, and its scheme has {points}")
    if len(split) and not (split.min() >= 0 and split.max() < splits):
        raise ValueError("a face is of no split")
    if np.isinf(landmarks).any() or (np.abs(np.nan_to_num(landmarks)) > _FAR).any():
        raise ValueError("a landmark lies in no photograph")
    if not (np.isfinite(box).all() and (np.abs(box) < _FAR).all() and (box[:, 2] > 0).all()):
        raise ValueError("a face has no box")


def _rows(arrays: Arrays, kind: str, faces: int, end: int, coding: Coding) -> tuple[NDArray[np.int64], Any]:
    """Which row is each face's, -1 for none, and the rows, as `Crops` has them."""
    row_of = _array(arrays, f"{kind}_row", "<i8", (faces,))
    count = len(_array(arrays, f"{kind}_offset", "<i8", 1))
    rows = np.zeros(count, coding.row)
    column = {
        name: _array(arrays, f"{kind}_{name}", dtype, (count, *shape)) for name, (dtype, shape) in _COLUMNS.items()
    }
    offset, length, size, matrix = (column[name] for name in ("offset", "length", "size", "matrix"))
    if faces and not (row_of.min() >= -1 and row_of.max() < count):
        raise ValueError("a face points to no crop")
    if (offset < HEAD.size).any() or (length < 1).any() or (length > end - offset).any():
        raise ValueError("a crop lies outside of the file")
    if (size < 1).any() or (size > _LARGEST).any() or not np.isfinite(matrix).all() or (np.abs(matrix) > _FAR).any():
        raise ValueError("a crop is of no size")
    rows["offset"], rows["checksum"], rows["image_from_stored"] = offset, column["checksum"] & 0xFFFFFFFF, matrix
    rows["width"], rows["height"] = size.T
    if has_length(rows):
        rows["length"] = length
    elif (length != size[:, 0].astype(np.int64) * size[:, 1] * 3).any():
        raise ValueError("a crop has other bytes than pixels")
    return row_of, rows
