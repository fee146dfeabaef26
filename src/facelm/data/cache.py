"""Faces decoded once: what crops need of every photograph, in one memory-mapped file that all processes share.

Decoding a photograph of 3000 x 2000 pixels takes a hundred times as long as warping a crop from it, and training
decodes each one sixty times. `open_cache` cuts what a `Framing` asks for out of every photograph, once, into

    head | one row a face: where its picture lies, its matrix, its checksum | uint8 pixels, face after face

The file's name is made from the faces and the framing, its head from the sizes and times of the photographs. It is
written under another name, by one process while others wait, and takes its own name when it is complete and on disk;
so whatever bears that name is whole. What happens to it later is noticed: at opening by its size and the rows' digest,
and at the first look at a face by the checksum of its pixels, upon which that face is cut out anew.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import mmap
import os
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm.data.faces import Face
from facelm.data.framing import Framing
from facelm.data.images import AS_STORED, image_size
from facelm.files import take_lock
from facelm.geometry.affine import FloatArray, Image

log = logging.getLogger(__name__)

Rows = NDArray[np.void]

_MAGIC = b"facelm faces 1\n\0"  # the number counts layouts of the file and changes of what framings store
_HEAD = struct.Struct("<16s32s32s")  # magic, fingerprint of the photographs, digest of the rows
_ROW = np.dtype(
    [("offset", "<u8"), ("width", "<u4"), ("height", "<u4"), ("checksum", "<u4"), ("image_from_stored", "<f8", (3, 3))]
)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _UnusableError(Exception):
    """Why there is no cache to use: absent, of other photographs, or damaged."""


def open_cache(faces: Sequence[Face], framing: Framing, folder: str | Path | None = None) -> CropCache:
    """The cache of `faces` in `folder` (by default `$FACELM_CACHE/faces` or `~/.cache/facelm/faces`).

    Built first where there is none, or where the photographs have changed since or the file is damaged: on all cores
    with a progress bar, by one process while others wait.

    Raises:
        OSError: the folder cannot be written, or its disk is full (no part of a cache is left behind then).
        ValueError: a photograph cannot be decoded.
    """
    folder = Path(folder).expanduser() if folder else default_folder()
    path = folder / f"{_identity(faces, framing)}.faces"
    try:
        return CropCache(path, faces, framing)
    except _UnusableError:
        pass
    with _alone(path.with_suffix(".lock")):
        try:
            return CropCache(path, faces, framing)  # built while this process waited
        except _UnusableError as reason:
            log.info(f"crop cache {path}: {reason}")
        _build(path, faces, framing)
        return CropCache(path, faces, framing)


def default_folder() -> Path:
    """`$FACELM_CACHE/faces`, or `~/.cache/facelm/faces`."""
    return Path(os.environ.get("FACELM_CACHE") or Path.home() / ".cache" / "facelm") / "faces"


class CropCache:
    """The pictures of `faces` in an existing cache file; an `ImageSource`. `open_cache` makes one.

    The pixels are mapped, not read: workers and ranks of a machine share them in memory. A copy sent to a worker opens
    the file by itself.
    """

    def __init__(self, path: Path, faces: Sequence[Face], framing: Framing) -> None:
        self.path = path
        self.faces = faces
        self.framing = framing
        self._file, self._rows = _map(path, faces)
        self._bytes = np.frombuffer(self._file, np.uint8)
        self._bytes.flags.writeable = False
        self._places = self._rows[["offset", "width", "height"]].tolist()
        self._checked = np.zeros(len(faces), np.bool_)

    @property
    def reach(self) -> float:
        """As far around the box's centre as the framing keeps pixels, in sides of the box."""
        return self.framing.reach

    def load(self, index: int) -> tuple[Image, FloatArray]:
        """The stored picture `[h, w, 3]` of face `index`, read-only, and its `image_from_stored`.

        Checked at the first call of each process; damaged pixels are cut out of the photograph anew.
        """
        offset, width, height = self._places[index]
        pixels = self._bytes[offset : offset + width * height * 3]
        if not self._checked[index]:
            if zlib.crc32(pixels.data) != self._rows["checksum"][index]:
                return self._restore(index)
            self._checked[index] = True
        return pixels.reshape(height, width, 3), self._rows["image_from_stored"][index]

    def _restore(self, index: int) -> tuple[Image, FloatArray]:
        """Face `index` from its photograph, put back into the file if it is what the file held before."""
        face, offset = self.faces[index], self._places[index][0]
        log.warning(f"crop cache {self.path}: {face.name} is damaged and is cut out of {face.image} anew")
        picture, image_from_stored = self.framing.cut(face.read(), face.box)
        if zlib.crc32(picture.data) == self._rows["checksum"][index]:
            try:
                self._file[offset : offset + picture.size] = picture.tobytes()
            except TypeError:
                log.warning(f"crop cache {self.path} may only be read here: this face stays damaged, and slow")
        return picture, image_from_stored

    def __reduce__(self) -> tuple[Any, ...]:
        return CropCache, (self.path, self.faces, self.framing)


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


def _map(path: Path, faces: Sequence[Face]) -> tuple[mmap.mmap, Rows]:
    """The whole, current cache at `path` in memory, writable where it may be written, and its rows.

    Raises:
        _UnusableError: there is none.
    """
    access = mmap.ACCESS_WRITE if os.access(path, os.W_OK) else mmap.ACCESS_READ
    try:
        with path.open("r+b" if access == mmap.ACCESS_WRITE else "rb") as stream:
            if os.fstat(stream.fileno()).st_size < _HEAD.size + len(faces) * _ROW.itemsize:
                raise _UnusableError("the file is damaged")
            file = mmap.mmap(stream.fileno(), 0, access=access)
    except (FileNotFoundError, NotADirectoryError):
        raise _UnusableError("there is none yet") from None
    magic, photographs, digest = _HEAD.unpack_from(file)
    rows = np.frombuffer(file, _ROW, len(faces), _HEAD.size).copy()
    if magic != _MAGIC:
        raise _UnusableError("the file is damaged, or was written by another version")
    if hashlib.sha256(rows.tobytes()).digest() != digest or len(file) != _end(rows):
        raise _UnusableError("the file is damaged")
    if photographs != _photographs(faces):
        raise _UnusableError("photographs have changed since it was built")
    return file, rows


def _end(rows: Rows) -> int:
    last = rows[-1]
    return int(last["offset"]) + int(last["width"]) * int(last["height"]) * 3


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
        if not take_lock(file, wait=False):
            log.info(f"another process builds the crop cache {lock.stem}; waiting for it")
            take_lock(file)
        yield


def _build(path: Path, faces: Sequence[Face], framing: Framing) -> None:
    """Writes the cache beside `path` and moves it there when it is complete; leaves nothing otherwise."""
    photographs = _photographs(faces)  # before decoding: a change meanwhile makes the cache stale, not wrong
    rows = _lay_out(faces, framing)
    for killed in path.parent.glob(f"{path.stem}.*.partial"):
        killed.unlink()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    log.info(f"decoding {len(faces):,} photographs once, into {_end(rows) / 1e6:,.0f} MB")
    try:
        with partial.open("xb") as file:
            descriptor = file.fileno()
            _reserve(descriptor, _end(rows))
            _store_faces(descriptor, rows, faces, framing)
            _write_at(descriptor, rows, _HEAD.size)
            _write_at(descriptor, _HEAD.pack(_MAGIC, photographs, hashlib.sha256(rows.tobytes()).digest()), 0)
            os.fsync(descriptor)
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"no room for the crop cache in {path.parent}: it takes {_end(rows) / 1e6:,.0f} MB, {free / 1e6:,.0f} MB "
            "are free. Make room, set data.cache_dir to a folder on another disk, store smaller pictures with "
            "data.cache_size, or go without: data.cache=none"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _lay_out(faces: Sequence[Face], framing: Framing) -> Rows:
    """Rows that say where each picture will lie; matrices and checksums are still empty."""
    rows = np.zeros(len(faces), _ROW)
    sizes = np.array([framing.size(face.box, image_size(face.image, face.orientation)) for face in faces], np.int64)
    rows["width"], rows["height"] = sizes.T
    ends = _HEAD.size + rows.nbytes + np.cumsum(3 * sizes.prod(axis=1))
    rows["offset"] = ends - 3 * sizes.prod(axis=1)
    return rows


def _reserve(descriptor: int, size: int) -> None:
    """Takes the space before minutes of decoding, so that a full disk is known at once."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise
        os.ftruncate(descriptor, size)  # macOS and some file systems cannot


def _store_faces(descriptor: int, rows: Rows, faces: Sequence[Face], framing: Framing) -> None:
    """Cuts out and writes every face and completes `rows`, on all cores.

    Threads: decoding, reducing, checksums and writing all happen outside Python's lock.
    """

    def store(index: int) -> None:
        face, row = faces[index], rows[index]
        picture, row["image_from_stored"] = framing.cut(face.read(), face.box)
        if picture.shape[:2] != (row["height"], row["width"]):
            raise ValueError(f"{face.image} has other pixels than its header says, or changed while it was read")
        row["checksum"] = zlib.crc32(picture.data)
        _write_at(descriptor, picture, int(row["offset"]))

    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in _progress(pool.map(store, range(len(faces))), len(faces)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _progress(done: Iterator[None], total: int) -> Iterator[None]:
    from rich.console import Console  # a tenth of a second of import time
    from rich.progress import track

    yield from track(done, "crop cache", total, console=Console(stderr=True), transient=True)


def _write_at(descriptor: int, data: Any, offset: int) -> None:
    """All of `data` from `offset` on; a disk that fills up takes a part first and fails at the next try."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
