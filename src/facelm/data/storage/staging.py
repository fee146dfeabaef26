"""A pack on the node's own disk: copied there once, for all processes of the node and for runs that come later."""

from __future__ import annotations

import hashlib
import logging
import shutil
from pathlib import Path

from facelm.data.storage.crop_file import require_room
from facelm.data.storage.pack import Pack
from facelm.files import take_turn, writing

log = logging.getLogger(__name__)


def staged(path: Path, folder: Path) -> Path:
    """The copy of the pack at `path` in `folder`, made if there is none: by one process, while others wait.

    A copy is known by the digest of the pack's head and index, which hold the checksum of each crop. It is used again
    where its size, head and index are the pack's; when it is made, all its crops are read.

    Raises:
        OSError: it cannot be read or copied, or the folder's disk has no room.
        ValueError: it is no pack, or damaged; or the disk gives back other bytes than were written.
    """
    pack = Pack(path)
    index = _index(pack)
    name = f"{path.stem}-{hashlib.sha256(index).hexdigest()[:16]}.pack"
    copy = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"{name}.lock").open("a")
    except OSError as error:
        raise OSError(
            f"no copy of '{path}' can be written to {folder} ({error.strerror}). Set data.stage_to to a folder of your "
            "own, or go without: data.stage_to=null"
        ) from error
    with lock:
        take_turn(lock, log.info, f"another process copies '{path}' to {folder}; waiting for it")
        if not _is_copy(copy, path, index):
            _copy(pack, copy)
    return copy


def _index(pack: Pack) -> bytes:
    """Head and index of a pack, which say all there is of its crops."""
    with pack.path.open("rb") as file:
        head = file.read(64)
        file.seek(pack.section.start)
        return head + file.read()


def _is_copy(copy: Path, path: Path, index: bytes) -> bool:
    try:
        return copy.stat().st_size == path.stat().st_size and _index(Pack(copy)) == index
    except (OSError, ValueError):  # none, or one that was damaged
        return False


def _copy(pack: Pack, copy: Path) -> None:
    size = pack.path.stat().st_size
    copy.unlink(missing_ok=True)  # its room is needed
    require_room(copy.parent, size, f"a copy of '{pack.path}'", "Make room, or go without: data.stage_to=null")
    log.info(f"copying '{pack.path}' ({size / 1e6:,.0f} MB) to {copy}")
    with pack.path.open("rb") as source, writing(copy) as target:
        shutil.copyfileobj(source, target, 2**24)
    worse = set(Pack(copy).damaged())
    if worse and (worse := worse - set(pack.damaged())):
        copy.unlink()
        raise ValueError(
            f"the copy of '{pack.path}' in {copy.parent} has {len(worse):,} damaged faces that the pack has not: that "
            "disk is not to be trusted. Set data.stage_to to another"
        )
