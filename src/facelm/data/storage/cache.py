"""Faces decoded once: what crops need of every photograph, in one memory-mapped file that all processes share.

Decoding a photograph of 3000 x 2000 pixels takes a hundred times as long as warping a crop from it, and training
decodes each one sixty times. `open_cache` cuts what a `Framing` asks for out of every photograph, once, into

    head | one row a face: where its picture lies, its matrix, its checksum | the pictures, face after face

The pictures are pixels as they are, or JPEG (`coding.py`).

The file's name is made from the faces and the framing, its head from the sizes and times of the photographs. It is
written under another name, by one process while others wait, and takes its own name when it is complete and on disk;
so whatever bears that name is whole. What happens to it later is noticed: at opening by its size and the rows' digest,
and at the first look at a face by the checksum of its pixels, upon which that face is cut out anew.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from facelm.data.faces import Face
from facelm.data.images import AS_STORED, image_size
from facelm.data.storage.coding import RAW, Coding
from facelm.data.storage.crop_file import (
    DISK_FULL,
    Crops,
    DamagedCropError,
    Rows,
    end_of,
    estimated_bytes,
    no_room,
    require_room,
    write_at,
    write_crops,
)
from facelm.data.storage.framing import Framing
from facelm.files import take_turn
from facelm.geometry.affine import FloatArray, Image

log = logging.getLogger(__name__)

_HEAD = struct.Struct("<16s32s32s")  # magic, fingerprint of the photographs, digest of the rows
_CURES = (
    "Make room, set data.cache_dir to a folder on another disk, store smaller pictures with data.cache=jpeg or "
    "data.cache_size, or go without: data.cache=none"
)


class _UnusableError(Exception):
    """Why there is no cache to use: absent, of other photographs, or damaged."""


def open_cache(
    faces: Sequence[Face], framing: Framing, folder: str | Path | None = None, coding: Coding = RAW
) -> CropCache:
    """The cache of `faces` in `folder` (by default `$FACELM_CACHE/faces` or `~/.cache/facelm/faces`).

    Built first where there is none, or where the photographs have changed since or the file is damaged: on all cores
    with a progress bar, by one process while others wait.

    Raises:
        OSError: the folder cannot be written, or its disk has no room (no part of a cache is left behind then).
        ValueError: a photograph cannot be decoded.
    """
    path = cache_path(faces, framing, folder, coding)
    try:
        return CropCache(path, faces, framing, coding)
    except _UnusableError:
        pass
    with _alone(path.with_suffix(".lock")):
        try:
            return CropCache(path, faces, framing, coding)  # built while this process waited
        except _UnusableError as reason:
            log.info(f"crop cache {path}: {reason}")
        _build(path, faces, framing, coding)
        return CropCache(path, faces, framing, coding)


def cache_path(faces: Sequence[Face], framing: Framing, folder: str | Path | None, coding: Coding) -> Path:
    """Where the cache of `faces` is, or would be."""
    folder = Path(folder).expanduser() if folder else default_folder()
    return folder / f"{_identity(faces, framing)}{coding.ending}"


def default_folder() -> Path:
    """`$FACELM_CACHE/faces`, or `~/.cache/facelm/faces`."""
    return Path(os.environ.get("FACELM_CACHE") or Path.home() / ".cache" / "facelm") / "faces"


class CropCache:
    """The pictures of `faces` in an existing cache file; an `ImageSource`. `open_cache` makes one.

    The pixels are mapped, not read: workers and ranks of a machine share them in memory. A copy sent to a worker opens
    the file by itself.
    """

    def __init__(self, path: Path, faces: Sequence[Face], framing: Framing, coding: Coding = RAW) -> None:
        self.path = path
        self.faces = faces
        self.framing = framing
        self.coding = coding
        self._file, self._rows = _map(path, faces, coding)
        content = np.frombuffer(self._file, np.uint8)
        content.flags.writeable = False
        self._crops = Crops(content, self._rows, coding)

    @property
    def reach(self) -> float:
        """As far around the box's centre as the framing keeps pixels, in sides of the box."""
        return self.framing.reach

    def load(self, index: int) -> tuple[Image, FloatArray]:
        """The stored picture `[h, w, 3]` of face `index`, read-only, and its `image_from_stored`.

        Checked at the first call of each process; damaged pixels are cut out of the photograph anew.
        """
        try:
            return self._crops.read(index)
        except DamagedCropError:
            return self._restore(index)

    def _restore(self, index: int) -> tuple[Image, FloatArray]:
        """Face `index` from its photograph, put back into the file if it is what the file held before."""
        face, offset = self.faces[index], int(self._rows["offset"][index])
        log.warning(f"crop cache {self.path}: {face.name} is damaged and is cut out of {face.image} anew")
        picture, image_from_stored = self.framing.cut(face.read(), face.box)
        coded = self.coding.encode(picture)
        if zlib.crc32(coded.data) == self._rows["checksum"][index]:
            try:
                self._file[offset : offset + coded.size] = coded.tobytes()
            except TypeError:
                log.warning(f"crop cache {self.path} may only be read here: this face stays damaged, and slow")
        return self.coding.decode(coded, picture.shape[1], picture.shape[0]), image_from_stored

    def __reduce__(self) -> tuple[Any, ...]:
        return CropCache, (self.path, self.faces, self.framing, self.coding)


def _identity(faces: Sequence[Face], framing: Framing) -> str:
    """20 hex digits for these faces, boxes, turns and places of files, framed like this."""
    digest = hashlib.sha256(repr(framing).encode())
    for face in faces:
        digest.update(f"\n{face.name}\t{os.path.abspath(face.image)}\t{face.box}".encode())
        if face.orientation != AS_STORED:
            digest.update(b"\tturned %d" % face.orientation)
    return digest.hexdigest()[:20]


def _photographs(faces: Sequence[Face]) -> bytes:
    """A digest of the photographs' sizes and times of change: another one, and the cache is stale."""
    digest = hashlib.sha256()
    for face in faces:
        status = face.image.stat()
        digest.update(struct.pack("<qq", status.st_size, status.st_mtime_ns))
    return digest.digest()


def _map(path: Path, faces: Sequence[Face], coding: Coding) -> tuple[mmap.mmap, Rows]:
    """The whole, current cache at `path` in memory, writable where it may be written, and its rows.

    Raises:
        _UnusableError: there is none.
    """
    access = mmap.ACCESS_WRITE if os.access(path, os.W_OK) else mmap.ACCESS_READ
    try:
        with path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as stream:
            if os.fstat(stream.fileno()).st_size < _HEAD.size + len(faces) * coding.row.itemsize:
                raise _UnusableError("the file is damaged")
            file = mmap.mmap(stream.fileno(), 0, access=access)
    except (FileNotFoundError, NotADirectoryError):
        raise _UnusableError("there is none yet") from None
    magic, photographs, digest = _HEAD.unpack_from(file)
    rows = np.frombuffer(file, coding.row, len(faces), _HEAD.size).copy()
    if magic != coding.magic:
        raise _UnusableError("the file is damaged, or was written by another version")
    if hashlib.sha256(rows.tobytes()).digest() != digest or len(file) != end_of(rows):
        raise _UnusableError("the file is damaged")
    if photographs != _photographs(faces):
        raise _UnusableError("photographs have changed since it was built")
    return file, rows


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Holds `lock` against other processes; they let go when they end, however they end."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    except OSError as error:
        raise OSError(
            f"no crop cache can be written to {lock.parent} ({error.strerror}). Set data.cache_dir to a folder of your "
            "own, or go without: data.cache=none"
        ) from error
    with file:
        take_turn(file, log.info, f"another process builds the crop cache {lock.stem}; waiting for it")
        yield


def _build(path: Path, faces: Sequence[Face], framing: Framing, coding: Coding) -> None:
    """Writes the cache beside `path` and moves it there when it is complete; leaves nothing otherwise."""
    photographs = _photographs(faces)  # before decoding: a change meanwhile makes the cache stale, not wrong
    for killed in path.parent.glob(f"{path.stem}.*.partial"):
        killed.unlink()
    start = _HEAD.size + len(faces) * coding.row.itemsize
    size = start + (_pixels(faces, framing) if coding == RAW else round(1.1 * estimated_bytes(faces, framing, coding)))
    require_room(path.parent, size, "the crop cache", _CURES)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    log.info(f"decoding {len(faces):,} photographs once, into {'about ' * (coding != RAW)}{size / 1e6:,.0f} MB")
    try:
        with partial.open("xb") as file, _progress(len(faces)) as seen:
            descriptor = file.fileno()
            if coding == RAW:
                _reserve(descriptor, size)
            rows = write_crops(descriptor, start, faces, framing, coding, seen)
            os.ftruncate(descriptor, end_of(rows))
            write_at(descriptor, rows, _HEAD.size)
            write_at(descriptor, _HEAD.pack(coding.magic, photographs, hashlib.sha256(rows.tobytes()).digest()), 0)
            os.fsync(descriptor)
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(no_room(path.parent, size, "the crop cache", _CURES)) from error
    finally:
        partial.unlink(missing_ok=True)


def _pixels(faces: Sequence[Face], framing: Framing) -> int:
    """Bytes of all raw pictures, by the photographs' headers."""
    sizes = (framing.size(face.box, image_size(face.image, face.orientation)) for face in faces)
    return sum(3 * width * height for width, height in sizes)


def _reserve(descriptor: int, size: int) -> None:
    """Takes the space before minutes of decoding, so that a full disk is known at once."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        os.ftruncate(descriptor, size)  # macOS and some file systems cannot


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, which is told how many are done."""
    from rich.console import Console  # a tenth of a second of import time
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("crop cache", total=total)
        yield lambda done: bar.update(task, completed=done)
