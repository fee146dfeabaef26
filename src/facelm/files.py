"""Files that are on disk whole or not at all, whoever writes them and whatever stops the writing."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_TEMPORARY = re.compile(r"\.[0-9a-f]{8}-(?P<pid>\d+)-\d+\.tmp\.[0-9a-f]{16}(?:\..*)?", re.DOTALL)
_LONGEST_ENDING = 16  # bytes
_count = itertools.count()
_tidied: set[Path] = set()


@contextmanager
def replacing(path: Path | str, *, sync: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, of the same ending, whose file takes `path`'s place when the block ends well.

    For libraries that want a path to write to; see `writing` for an open file. The folder is made; what killed
    processes have left in it is removed when this process first writes there. `sync=False` saves the wait for the disk:
    after a power cut the file may then be missing or empty.

    Raises:
        OSError: the folder cannot be written, or the disk is full; a former file at `path` is untouched, and the error
            names `path`.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path.parent)
        temporary.unlink(missing_ok=True)  # one that was left by a process of the same number, or a link
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as error:
        _name(error, temporary, path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def unfinished_folder(path: Path | str) -> Iterator[Path]:
    """A new folder beside `path`, to be renamed when it is full; what is there under its name at the end is removed.

    What killed processes have left there is removed first, as with `replacing`.

    Raises:
        OSError: it cannot be made or filled; the error names `path`.
    """
    folder = _temporary(Path(path).absolute())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(folder.parent)
        folder.mkdir()
        yield folder
    except OSError as error:
        _name(error, folder, path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(path: Path | str, mode: str = "wb", *, sync: bool = True) -> Iterator[IO[Any]]:
    """An open file that takes the place of `path` when the block ends well; text is UTF-8, newlines as written.

    Raises: as `replacing`.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    mode = mode.replace("w", "x")  # through no link
    with replacing(path, sync=sync) as temporary, temporary.open(mode, **text) as file:  # type: ignore[call-overload]
        yield file


def write_whole(path: Path | str, content: bytes | str, *, sync: bool = True) -> None:
    """Writes `path` whole or not at all.

    Raises: as `replacing`.
    """
    with writing(path, "wb" if isinstance(content, bytes) else "w", sync=sync) as file:
        file.write(content)


def cell(path: str) -> str:
    """A path in a CSV file: one that a spreadsheet would take for a formula with `./` before it, the same path.

    A control character, which a terminal would obey, is written as its number: a backslash, x and two digits.
    """
    path = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", path)
    return f"./{path}" if path.startswith(("=", "+", "-", "@")) else path


def typed(name: str | os.PathLike[str]) -> Path:
    """The path that a person typed: `~` is the home folder, unless a file is called so. Not for names found on disk."""
    return Path(name if os.path.lexists(name) else os.path.expanduser(name))


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


def take_turn(file: IO[Any], say: Callable[[str], object], waiting: str) -> None:
    """Locks an open file as `take_lock`; where another process has it, says `waiting` and waits.

    Raises:
        OSError: as `take_lock`.
    """
    if not take_lock(file, wait=False):
        say(waiting)
        take_lock(file)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{_host()}-{os.getpid()}-{next(_count)}.tmp.{_short(path)}")


def _name(error: OSError, temporary: Path, path: Path | str) -> None:
    """Raises the error of a full disk anew, about `path`, if it is about nothing or about what is temporary."""
    about = error.filename
    if error.errno is not None and (about is None or os.fsdecode(about).startswith(str(temporary))):
        raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _short(path: Path) -> str:
    """Stands for a file's name in that of its temporary: names may fill all the bytes that a file system has for them.

    The ending stays, since libraries choose the format by it.
    """
    ending = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_ENDING else ""
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16] + ending


def _remove_left_behind(folder: Path) -> None:
    """Removes what processes of this machine that are gone left unfinished in `folder`; once, since listing takes time.

    A folder of results may hold a million files.
    """
    if folder in _tidied:
        return
    _tidied.add(folder)
    for other in folder.glob(f".{_host()}-*.tmp.*"):
        match = _TEMPORARY.fullmatch(other.name)
        if match and not process_lives(int(match["pid"])):
            if other.is_dir() and not other.is_symlink():
                shutil.rmtree(other, ignore_errors=True)
            else:
                other.unlink(missing_ok=True)


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
