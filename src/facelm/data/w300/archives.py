"""iBUG's archives unpacked into the layout that facelm reads, then counted against what iBUG published.

afw.zip, helen.zip, ibug.zip, lfpw.zip, and 300w.zip.001 ... 300w.zip.004 from https://ibug.doc.ic.ac.uk/resources/300-W/.
Numbered parts are one zip file cut into pieces, and are read in place; zip's own split format (.z01, .z02, ..., .zip)
is refused. Only photographs and .pts files of 300W's folders are written, whole or not at all and through no link; so
an interrupted run is simply repeated, and files that are there with the archive's content (its CRC) are left alone.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import struct
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

from facelm.data.images import IMAGE_ENDINGS
from facelm.data.w300.layout import FOLDER_COUNTS, SPLITS, count_faces, count_table, parse_name
from facelm.files import take_turn, typed, writing

LARGEST_PHOTOGRAPH, LARGEST_PTS, LARGEST_ARCHIVE = 64 * 2**20, 64 * 2**10, 8 * 2**30
"""Bytes when unpacked, well above anything of 300W."""

MOST_COMPRESSED = 50
"""Photographs are compressed already: one of a megabyte or more that unpacks to over 50 times its size is a bomb."""

_NUMBERED = re.compile(r"(.*)\.(\d{3})")
_SPANNED = re.compile(r".*\.z\d\d", re.IGNORECASE)


def prepare_archives(
    archives: Sequence[str | Path], out: str | Path, *, report: Callable[[str], object] = print
) -> dict[str, int]:
    """Faces in each official folder under `out` after unpacking `archives` there.

    Of a zip in numbered parts any one part will do; the others are found beside it. What goes on, and the table of
    found against official at the end, is said to `report`.

    Raises:
        FileNotFoundError: an archive or a numbered part is absent.
        ValueError: no zip file, damaged, cut short, encrypted, too large, with names that lead out of `out` or cannot
            be printed, or without 300W; or a link under `out` is in the way.
    """
    if not archives:
        raise ValueError("no archives given; name iBUG's files: afw.zip helen.zip ibug.zip lfpw.zip 300w.zip.001")
    out = typed(out)
    whole = {tuple(_parts(typed(archive))): None for archive in archives}
    for parts in whole:
        written, kept = _unpack(parts, out, report)
        report(f"{parts[0].name}: {written:,} files unpacked, {kept:,} were there")
    counts = count_faces(out)
    report(count_table(counts))
    return counts


def _parts(archive: Path) -> list[Path]:
    """The files that make up a zip, in order."""
    if _SPANNED.fullmatch(archive.name):
        raise ValueError(
            f"{archive}: a part of a split zip (.z01, .z02, ..., .zip), which is not supported. "
            "Join it first: zip -s 0 NAME.zip --out WHOLE.zip"
        )
    if not archive.is_file():
        raise FileNotFoundError(
            f"no archive {str(archive)!r}; iBUG's are at https://ibug.doc.ic.ac.uk/resources/300-W/"
        )
    if archive.name.endswith((".tar.gz", ".tgz", ".tar")):
        raise ValueError(
            f"{archive}: a tar archive, and iBUG's are zip files. dlib's ibug_300W_large_face_landmark_dataset.tar.gz "
            "holds their photographs and a mirrored copy of each: unpack with tar xzf FILE --exclude='*_mirror*', and "
            "train with data.root=FOLDER"
        )
    numbered = _NUMBERED.fullmatch(archive.name)
    if not numbered:
        return [archive]
    stem = re.escape(numbered[1])
    found = sorted(path for path in archive.parent.iterdir() if re.fullmatch(rf"{stem}\.\d{{3}}", path.name))
    expected = [archive.with_name(f"{numbered[1]}.{number:03d}") for number in range(1, len(found) + 1)]
    if found != expected:
        missing = ", ".join(path.name for path in expected if path not in found)
        raise FileNotFoundError(f"{archive}: part {missing} is not beside it; all parts are needed. Download it too")
    return found


def _unpack(parts: Sequence[Path], out: Path, report: Callable[[str], object]) -> tuple[int, int]:
    """Numbers of files written and of files that were there already."""
    name = parts[0].name
    try:
        with io.BufferedReader(_Joined(parts)) as stream, zipfile.ZipFile(stream) as archive:
            targets = _targets(archive, name)
            _check_sizes(targets.values(), name)
            with _alone(out, report):
                written = sum(_write(archive, info, out, target) for target, info in targets.items())
    except (
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        struct.error,
        UnicodeDecodeError,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno is not None:  # bz2 says what is damaged with one without
            raise
        of = f" (read as {len(parts)} parts, up to {parts[-1].name}; is the last one there?)" if len(parts) > 1 else ""
        raise ValueError(f"{parts[0]}: damaged or cut short, or no zip file{of}: {error}. Download it again") from None
    except RuntimeError as error:
        raise ValueError(f"{parts[0]}: cannot be read: {error}") from None
    return written, len(targets) - written


def _targets(archive: zipfile.ZipFile, name: str) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Where each photograph and .pts goes below the output folder; everything else in the archive is left out."""
    targets: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if not info.filename.isprintable():
            raise ValueError(
                f"{name}: holds {info.filename!r}, a name of control characters; nothing of it was written"
            )
        if path.is_absolute() or ".." in path.parts or ":" in str(path):
            raise ValueError(f"{name}: holds {info.filename!r}, a name that leads elsewhere; nothing of it was written")
        hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
        if info.is_dir() or hidden or path.suffix.lower() not in (*IMAGE_ENDINGS, ".pts"):
            continue
        # helen.zip may start at trainset/, so the archive's own name stands for a folder around it
        folder, _ = parse_name(f"{name.split('.')[0]}/{path}")
        if folder:
            parent = "300W" if folder in SPLITS["test"] else ""
            targets[PurePosixPath(parent, folder, path.name)] = info
    if not targets:
        raise ValueError(f"{name}: nothing of 300W inside (looked for {', '.join(FOLDER_COUNTS)})")
    return targets


def _check_sizes(files: Iterable[zipfile.ZipInfo], name: str) -> None:
    """Refuses what is no photograph by its size; a zip file's reader gives no more bytes than the size says."""
    total = 0
    for info in files:
        most = LARGEST_PTS if info.filename.lower().endswith(".pts") else LARGEST_PHOTOGRAPH
        bomb = info.file_size > max(2**20, MOST_COMPRESSED * info.compress_size)
        total += info.file_size
        if info.file_size > most or bomb or total > LARGEST_ARCHIVE:
            raise ValueError(
                f"{name}: {info.filename!r} unpacks to {info.file_size:,} bytes from {info.compress_size:,}, {total:,} "
                "with those before it, which nothing of 300W does; nothing of it was written. Download it again"
            )


@contextmanager
def _alone(out: Path, report: Callable[[str], object]) -> Iterator[None]:
    """Waits while another process unpacks into `out`; where the file system has no locks, nobody waits."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / ".facelm-prepare.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666), "r+b") as file:
        with suppress(ImportError, OSError):
            take_turn(file, report, f"another facelm prepare unpacks into {out}; this one goes on when it ends")
        yield


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, out: Path, target: PurePosixPath) -> bool:
    """Whether the file had to be written; one of the right size and CRC is the same."""
    path = out / target
    for place in (path, *(out / parent for parent in target.parents if parent.name)):
        if place.is_symlink():
            raise ValueError(
                f"{place} is a link, and files are unpacked through none. Remove it, or choose another --out"
            )
    if path.is_file() and path.stat().st_size == info.file_size and _crc(path) == info.CRC:
        return False
    with archive.open(info) as source, writing(path, sync=False) as file:
        shutil.copyfileobj(source, file)
    return True


def _crc(path: Path) -> int:
    return zlib.crc32(path.read_bytes())


class _Joined(io.RawIOBase):
    """Files read as if they were one, without a copy of them on disk."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb", buffering=0) for path in paths]
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ends[-1]}[whence]
        if position < 0:
            raise OSError("before the start of the file")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        index = bisect_right(self._ends, self._position)
        if index == len(self._files):
            return 0
        file = self._files[index]
        file.seek(self._position - (self._ends[index - 1] if index else 0))
        count = file.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
