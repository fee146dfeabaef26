"""Crops in a file, one after the other: how they are written, where each lies, and how one is read and checked."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facelm.data.faces import Face
from facelm.data.images import image_size
from facelm.data.storage.coding import RAW, Coding
from facelm.data.storage.framing import Framing
from facelm.geometry.affine import FloatArray, Image

Rows = NDArray[np.void]
"""What a file says of each crop, see `Coding.row`."""

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_TRIED = 24  # faces by which the size of all is told

Done = TypeVar("Done")


class DamagedCropError(ValueError):
    """The bytes of a crop are not those that were written."""


class Crops:
    """The crops of a mapped file: `content` `[B]` all its bytes, of which `rows` say where each crop lies."""

    def __init__(self, content: NDArray[np.uint8], rows: Rows, coding: Coding) -> None:
        self._content = content
        self._coding = coding
        self._matrices = rows["image_from_stored"]
        self._checksums = rows["checksum"]
        self._places = np.stack([rows["offset"].astype(np.int64), lengths(rows)], axis=1)
        self._sizes = np.stack([rows["width"], rows["height"]], axis=1)
        self._checked = np.zeros(len(rows), np.bool_)

    def read(self, index: int) -> tuple[Image, FloatArray]:
        """Picture `[h, w, 3]` and `image_from_stored` `[3, 3]` of a crop; checked at the first call of each process.

        Raises:
            DamagedCropError: other bytes than were written.
        """
        offset, length = self._places[index].tolist()
        stored = self._content[offset : offset + length]
        width, height = self._sizes[index].tolist()
        if not self._checked[index] and zlib.crc32(stored.data) != self._checksums[index]:
            raise DamagedCropError("its checksum is another")
        try:
            picture = self._coding.decode(stored, width, height)
        except ValueError as error:
            raise DamagedCropError(str(error)) from error
        self._checked[index] = True
        return picture, self._matrices[index]


def lengths(rows: Rows) -> NDArray[np.int64]:
    """Bytes of each crop `[N]`."""
    coded = has_length(rows)
    return np.asarray(rows["length"] if coded else 3 * rows["width"].astype(np.int64) * rows["height"], np.int64)


def has_length(rows: Rows) -> bool:
    """Whether the rows say how many bytes each crop has; else it is three a pixel."""
    return "length" in (rows.dtype.names or ())


def end_of(rows: Rows) -> int:
    """Where the last crop ends, 0 where there is none."""
    return int(rows["offset"][-1]) + int(lengths(rows)[-1]) if len(rows) else 0


def write_crops(
    descriptor: int,
    start: int,
    faces: Sequence[Face],
    framing: Framing,
    coding: Coding,
    seen: Callable[[int], object] | None = None,
) -> Rows:
    """Cuts every face out of its photograph and writes it from byte `start` on, in their order; where each lies.

    On all cores, by threads: decoding, reducing, coding and checksums happen outside Python's lock. `seen` is told how
    many are done.

    Raises:
        OSError: a photograph cannot be read, or the file not be written.
        ValueError: a photograph cannot be decoded.
    """

    def cut(index: int) -> tuple[tuple[int, ...], FloatArray, NDArray[np.uint8], int]:
        face = faces[index]
        picture, image_from_stored = framing.cut(face.read(), face.box)
        coded = coding.encode(picture)
        return picture.shape, image_from_stored, coded, zlib.crc32(coded.data)

    rows = np.zeros(len(faces), coding.row)
    for index, (shape, image_from_stored, coded, checksum) in enumerate(_in_order(cut, len(faces))):
        row = rows[index]
        row["height"], row["width"] = shape[:2]
        row["offset"], row["checksum"], row["image_from_stored"] = start, checksum, image_from_stored
        if has_length(rows):
            row["length"] = coded.size
        write_at(descriptor, coded, start)
        start += coded.size
        if seen:
            seen(index + 1)
    return rows


def _in_order(work: Callable[[int], Done], count: int) -> Iterator[Done]:
    """`work` of 0 to `count` - 1, on all cores, only so far ahead of who takes it that memory stays small."""
    cores = os.cpu_count() or 1
    pool, waiting = ThreadPoolExecutor(cores), deque[Future[Done]]()
    try:
        for index in range(count):
            waiting.append(pool.submit(work, index))
            if len(waiting) > 4 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def write_at(descriptor: int, data: Any, offset: int) -> None:
    """All of `data` from `offset` on; a disk that fills up takes a part first and fails at the next try."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def estimated_bytes(faces: Sequence[Face], framing: Framing, coding: Coding) -> int:
    """About how many bytes the crops of `faces` will take, told by a few of them.

    Raises:
        OSError, ValueError: one of them cannot be read or decoded.
    """
    if not len(faces):
        return 0
    tried = [faces[int(i)] for i in np.unique(np.linspace(0, len(faces) - 1, _TRIED).astype(int))]
    if coding == RAW:
        sizes = [framing.size(face.box, image_size(face.image, face.orientation)) for face in tried]
        total = sum(3 * width * height for width, height in sizes)
    else:
        total = sum(coding.encode(framing.cut(face.read(), face.box)[0]).size for face in tried)
    return round(total / len(tried) * len(faces))


def require_room(folder: Path, needed: int, what: str, cures: str) -> None:
    """Asks for the space before the first byte is written.

    Raises:
        OSError: the disk of `folder` has less than `needed` bytes free.
    """
    if shutil.disk_usage(folder).free < needed:
        raise OSError(no_room(folder, needed, what, cures))


def no_room(folder: Path, needed: int, what: str, cures: str) -> str:
    """The sentence about a disk that is, or would be, full."""
    free = shutil.disk_usage(folder).free
    return f"no room for {what} in {folder}: it takes {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free. {cures}"
