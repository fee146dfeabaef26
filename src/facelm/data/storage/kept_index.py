"""The faces of a source, kept in a mapped file from one start to the next as long as nothing has changed.

Reading 150,000 annotations and headers takes a core half a minute, asking for names, sizes and times of files a second.
What is certain about them is said in `watched.py`. One process of a machine reads, or asks; those that began to wait
before it asked take its word for it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import cv2
import numpy as np

import facelm
from facelm import checked
from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face, FaceSource
from facelm.data.storage.all_cores import apart
from facelm.data.storage.array_file import map_arrays, write_arrays
from facelm.data.storage.cache import default_folder
from facelm.data.storage.watched import NOTHING, State, Watched, state_of
from facelm.files import take_turn, writing

log = logging.getLogger(__name__)

FEWEST = 1000
"""Faces that are worth an index; fewer are read in less than half a second."""

MANY = 20_000
"""Files from which on they are read in a process apart, since of what reading takes Python gives little back."""

SETTLED = 2.0
"""Seconds since the last change of a file from which on its times tell the next one: clocks of file systems are coarse,
and two changes within one tick leave the same times."""

_FORMAT = f"index 1, {facelm.__version__}, {cv2.__version__}, {bool(importlib.util.find_spec('pillow_heif'))}"
"""What an index rests on beside the files: another version may read them in another way."""

Remark = tuple[str, int, str]
"""(logger, level, text) of what was logged while faces were read; of a warning, ("", 0, text)."""


class KeptSource:
    """`source` with its faces kept in `folder`, see `kept`; those of classes that are not facelm's are read anew."""

    def __init__(self, source: FaceSource, folder: str | Path | None = None) -> None:
        self.source = source
        self.subsets, self.group, self.nothing_to_evaluate = source.subsets, source.group, source.nothing_to_evaluate
        self.folder = Path(folder).expanduser() if folder else default_folder()

    @property
    def published(self) -> tuple[str, ...]:
        """The source's, asked for late: it may have a file to open."""
        return self.source.published

    @property
    def validates(self) -> tuple[str, tuple[str, ...]]:
        """The source's."""
        return self.source.validates

    @property
    def grouped(self) -> str:
        """The source's."""
        return self.source.grouped

    def faces(self, split: str, list_file: str | None = None) -> FaceArrays:
        """As `source.faces`, with the same messages and errors."""
        read = partial(self.source.faces, split, list_file)
        watches: Callable[..., Watched] | None = getattr(self.source, "watches", None)
        if watches is None or not type(self.source).__module__.startswith("facelm."):
            return FaceArrays.of(read())
        try:
            watched = watches(split, list_file)
        except (OSError, ValueError):
            return FaceArrays.of(read())  # which says what is wrong
        places = [os.path.abspath(path) for path in (*watched.folders, *watched.files)]
        name = hashlib.sha256(f"{split}\n{watched}\n{places}".encode("utf-8", "surrogateescape")).hexdigest()[:20]
        return kept(read, watched, self.folder / f"{name}.index")


def kept(read: Callable[[], Sequence[Face]], watched: Watched, path: Path) -> FaceArrays:
    """The faces that `read` gives, from the index at `path` where what is watched stands as it did, else written there.

    What `read` logs and warns of is said again each time. No index is made of few faces, of files that changed just
    now, and where none can be written.
    """
    asked = _Moment.now()
    with _alone(path.with_name(f"index-{path.name[0]}.lock")) or nullcontext() as lock:
        if found := _unchanged(path, watched, lock, asked):
            faces, remarks = found
            log.info(f"{len(faces):,} faces from the index {path}: no file has changed")
            _say(remarks)
            return faces
        began = time.time_ns()
        state = state_of(watched)  # before reading: what changes meanwhile makes the index stale, not wrong
        make = partial(_made, read, path if lock else None, state, began)
        if state.files < MANY:
            return make()[0]
        log.info(f"reading the faces of {state.files:,} files")
        faces, remarks = apart(partial(make, aloud=False))
        _say(remarks)
        return faces


def _made(
    read: Callable[[], Sequence[Face]], path: Path | None, state: State, began: int, aloud: bool = True
) -> tuple[FaceArrays, list[Remark]]:
    """What `read` gives, written to the index where it may be, and what it said."""
    faces, remarks = _listened(read, aloud)
    if path is None or len(faces) < FEWEST:
        return faces, remarks
    elsewhere = _elsewhere(faces, state)
    others = state_of(NOTHING, elsewhere)
    if max(state.latest, others.latest) <= began - SETTLED * 1e9:
        faces = _written(path, faces, remarks, _digest(state, others), elsewhere)
    return faces, remarks


def _say(remarks: Sequence[Remark]) -> None:
    for name, level, text in remarks:
        logging.getLogger(name).log(level, "%s", text) if name else warnings.warn(text, stacklevel=3)


def read_index(path: Path) -> tuple[FaceArrays, bytes, list[Remark], list[bytes]]:
    """The faces of an index file, mapped; the digest of the files it was made of; remarks; photographs elsewhere.

    Raises:
        ValueError: it is damaged, or no index of this version.
        OSError: it cannot be read.
    """
    arrays, section = map_arrays(path)
    try:
        digest, said, elsewhere = (arrays.pop(name).tobytes() for name in ("files", "remarks", "elsewhere"))
        remarks = [_remark(one) for one in json.loads(said)]
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"'{path}' is no index of faces ({error})") from error
    return FaceArrays.from_arrays(arrays, section), digest, remarks, elsewhere.split(b"\0") if elsewhere else []


def _unchanged(
    path: Path, watched: Watched, lock: IO[str] | None, asked: _Moment
) -> tuple[FaceArrays, list[Remark]] | None:
    """What the index holds, if it is whole and nothing has changed; None otherwise."""
    try:
        faces, digest, remarks, elsewhere = read_index(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.info(f"the index of faces is made anew: {error}")
        return None
    if lock is None or not _told_since(asked, lock, digest):
        began = _Moment.now()
        if _digest(state_of(watched), state_of(NOTHING, elsewhere)) != digest:
            log.info(f"the index of faces {path} is made anew: files have changed")
            return None
        if lock:
            lock.truncate(0)
            lock.write(f"{socket.gethostname()} {began.clock} {began.running} {digest.hex()}")
            lock.flush()
    return faces, remarks


def _told_since(asked: _Moment, lock: IO[str], digest: bytes) -> bool:
    """Whether another process of this machine found these files unchanged after this one began to ask."""
    lock.seek(0)
    try:
        host, clock, running, told = lock.read(1000).split()
        then, now = _Moment(int(clock), int(running)), _Moment.now()
    except ValueError:
        return False
    # Both: one may be set back, the other begins anew with the machine.
    since = asked.clock <= then.clock <= now.clock and asked.running <= then.running <= now.running
    return since and host == socket.gethostname() and told == digest.hex()


def _listened(read: Callable[[], Sequence[Face]], aloud: bool) -> tuple[FaceArrays, list[Remark]]:
    """The faces that `read` gives, and what it logged and warned of, which others hear too where it is `aloud`."""
    heard: list[Remark] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append((record.name, record.levelno, record.getMessage()))  # type: ignore[method-assign]
    room = logging.getLogger("facelm.data")
    room.propagate, former = aloud and room.propagate, room.propagate
    warned: list[warnings.WarningMessage] = []
    room.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            faces = FaceArrays.of(read())
    finally:
        room.removeHandler(listener)
        room.propagate = former
        for one in warned if aloud else ():
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return faces, heard + [("", 0, str(one.message)) for one in warned if one.category is UserWarning]


def _elsewhere(faces: FaceArrays, state: State) -> list[bytes]:
    """The photographs in none of the folders that were looked through."""
    return [path for path in faces.images() if os.path.dirname(path) not in state.folders]


def _written(
    path: Path, faces: FaceArrays, remarks: list[Remark], digest: bytes, elsewhere: Sequence[bytes]
) -> FaceArrays:
    """`faces` from the index, which is written; from memory where it cannot be."""
    texts = {"files": digest, "remarks": json.dumps(remarks).encode(), "elsewhere": b"\0".join(elsewhere)}
    more = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    try:
        with writing(path, sync=False) as file:  # what a power cut leaves is noticed by its checksum
            write_arrays(file, {**faces.arrays(), **more})
        return FaceArrays.mapped(path, check=False)
    except OSError as error:
        log.info(f"no index of faces is kept: {error}")
        return faces


def _digest(watched: State, others: State) -> bytes:
    return hashlib.sha256(_FORMAT.encode() + watched.digest + others.digest).digest()


def _remark(one: object) -> Remark:
    if not isinstance(one, list) or len(one) != 3:
        raise ValueError(f"{checked.shown(one)} is no remark")
    name, level, text = one
    if not isinstance(text, str):
        raise ValueError(f"{checked.shown(text)} is no text")
    return checked.text(name, "a logger") if name else "", checked.integer(level, "a level", 0, 100), text


class _Moment(NamedTuple):
    """Nanoseconds since 1970, and since this machine was started."""

    clock: int
    running: int

    @classmethod
    def now(cls) -> _Moment:
        return cls(time.time_ns(), time.monotonic_ns())


def _alone(path: Path) -> IO[str] | None:
    """The lock at `path`, held; None where none can be had."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="ascii", errors="replace")
    except OSError as error:
        log.info(f"no index of faces is kept: {error}")
        return None
    try:
        take_turn(file, log.info, "another process of this machine reads the faces; waiting for it")
    except OSError as error:
        file.close()
        log.info(f"no index of faces is kept: {error}")
        return None
    return file
