"""Files that are on disk whole or not at all, whoever writes them and whatever stops the writing."""

from __future__ import annotations

import errno
import itertools
import os
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_TEMPORARY = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.tmp\.(?P<name>.+)", re.DOTALL)
_count = itertools.count()


@contextmanager
def replacing(path: Path | str, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, of the same ending, whose file takes `path`'s place when the block ends well.

    For libraries that want a path to write to; see `writing` for an open file. What a killed process has left of the
    same file is removed. The folder is made. `sync=False` saves the wait for the disk: after a power cut the file may
    then be missing or empty.

    Raises:
        OSError: the folder cannot be written, or the disk is full; a former file at `path` is untouched, and the error
            names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{_host()}-{os.getpid()}-{next(_count)}.tmp.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename in (None, temporary, str(temporary)):
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def writing(path: Path | str, mode: str = "wb", *, sync: bool = True) -> Iterator[IO[Any]]:
    """An open file that takes the place of `path` when the block ends well; text is UTF-8, newlines as written.

    Raises: as `replacing`.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with replacing(path, sync=sync) as temporary, temporary.open(mode, **text) as file:  # type: ignore[call-overload]
        yield file


def write_whole(path: Path | str, content: bytes | str, *, sync: bool = True) -> None:
    """Writes `path` whole or not at all.

    Raises: as `replacing`.
    """
    with writing(path, "wb" if isinstance(content, bytes) else "w", sync=sync) as file:
        file.write(content)


def take_lock(file: IO[Any], *, wait: bool = True) -> bool:
    """Locks an open file for this process until it is closed; False where another has it and `wait` is off.

    Raises:
        OSError: the file system, or a system without POSIX, has no locks; the error names the file.
    """
    try:
        import fcntl  # where there is POSIX: whatever takes no lock runs without
    except ImportError:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file.name) from None

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        # What file systems without locks say is not one number: NFS has ENOLCK, others EOPNOTSUPP or ENOSYS.
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file.name) from error
    return True


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that `replacing` has not finished."""
    return _TEMPORARY.fullmatch(name) is not None


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _remove_left_behind(path: Path) -> None:
    """Removes unfinished files for `path` of processes of this machine that are gone."""
    literally = re.sub(r"([*?[])", r"[\1]", path.name)
    for other in path.parent.glob(f".{_host()}-*.tmp.{literally}"):
        match = _TEMPORARY.fullmatch(other.name)
        if match and match["name"] == path.name and not process_lives(int(match["pid"])):
            with suppress(OSError):
                other.unlink()


def process_lives(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # not every file system syncs folders
            raise
    finally:
        os.close(descriptor)
