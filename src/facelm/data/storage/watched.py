"""Whether files are what they were, told by their names, sizes and times: no content is read.

The times are the last change of the content (mtime) and of the file's entry (ctime), in nanoseconds. A program can set
the first back, none the second; so a file that was changed in any way, replaced, added or removed is noticed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from facelm.data.images import IMAGE_ENDINGS
from facelm.geometry.landmarks import LandmarkScheme, plain_scheme

_ENDINGS = tuple(os.fsencode(ending) for ending in (*IMAGE_ENDINGS, ".pts", ".mat", ".txt", ".json", ".csv"))
_ROW = struct.Struct("<qqq")


@dataclass(frozen=True)
class Watched:
    """What the answer of a source rests on: its `options`, folders, and files that may be absent.

    Of the folders, files count that end as photographs and annotations do; with `below` those of all folders in them.
    """

    options: str
    folders: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    below: bool = False


NOTHING = Watched("")


def options_of(source: object) -> str:
    """What a source is and was told, as a text: its class, and attributes but for those with an underscore before."""
    told = {name: value for name, value in vars(source).items() if not name.startswith("_")}
    plain = {name: plain_scheme(one) if isinstance(one, LandmarkScheme) else one for name, one in told.items()}
    return f"{type(source).__qualname__} {sorted(plain.items())}"


@dataclass(frozen=True)
class State:
    """How files stand: a digest, the latest ctime in nanoseconds, their number, and the folders looked through."""

    digest: bytes
    latest: int
    files: int
    folders: frozenset[bytes]


def state_of(watched: Watched, more: Iterable[bytes] = ()) -> State:
    """How what is watched stands now, and `more` files; raises OSError for a folder that may not be read."""
    digest, latest, files = hashlib.sha256(watched.options.encode("utf-8", "surrogateescape")), 0, 0
    queue, folders, known = [os.fsencode(folder) for folder in watched.folders], set(), set()
    for folder in queue:  # which grows meanwhile
        folders.add(folder)
        rows = [b"\0" + folder]
        try:
            status = os.stat(folder)
            entries = os.scandir(folder)
        except (FileNotFoundError, NotADirectoryError):
            entries = None
        if entries and (status.st_dev, status.st_ino) not in known:  # links may make a circle
            known.add((status.st_dev, status.st_ino))
            with entries:
                for entry in entries:
                    if entry.name.lower().endswith(_ENDINGS):
                        row, changed = _row(entry.name, entry)
                        rows.append(row)
                        latest = max(latest, changed)
                    elif watched.below and entry.is_dir():
                        queue.append(entry.path)
        digest.update(b"".join(sorted(rows)))
        files += len(rows) - 1
    for path in (*map(os.fsencode, watched.files), *more):
        row, changed = _row(path, path)
        digest.update(row)
        latest = max(latest, changed)
    return State(digest.digest(), latest, files, frozenset(folders))


def _row(name: bytes, at: bytes | os.DirEntry[bytes]) -> tuple[bytes, int]:
    """Name, size and times of a file as bytes, and its ctime; of a link those of what it leads to."""
    try:
        status = at.stat() if isinstance(at, os.DirEntry) else os.stat(at)
    except (FileNotFoundError, NotADirectoryError):
        return name + b"\0absent", 0
    changed = status.st_ctime_ns
    return name + b"\0" + _ROW.pack(status.st_size, status.st_mtime_ns, changed), changed
