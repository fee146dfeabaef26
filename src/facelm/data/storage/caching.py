"""`data.cache`: which cache a training reads its faces from, chosen once for all of them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from facelm.data.dataset import ImageSource
from facelm.data.faces import Face
from facelm.data.storage.cache import cache_path, default_folder, open_cache
from facelm.data.storage.coding import QUALITY, RAW, coding_of
from facelm.data.storage.crop_file import estimated_bytes
from facelm.data.storage.framing import Framing

log = logging.getLogger(__name__)

KINDS = ("none", "raw", "jpeg", "auto")
"""Of caches; `disk` is what `raw` was called."""

Part = tuple[Sequence[Face], Framing]
"""Faces, and what is stored of each."""


def cache_kind(value: str) -> str:
    """One of KINDS, as `data.cache` says it.

    Raises:
        ValueError: it is none.
    """
    value = "raw" if value == "disk" else value
    if value not in KINDS:
        raise ValueError(f"data.cache={value!r} is none of {', '.join(KINDS)}")
    return value


def chosen(kind: str, parts: Sequence[Part], folder: str | None, quality: int = QUALITY) -> str:
    """`kind`, or what `auto` comes to: `raw` while that is small, else `jpeg`; said and why in a line of the log.

    A cache that is there already is used, so that a run's ranks and its continuation agree.

    Raises:
        OSError, ValueError: a photograph cannot be read.
    """
    if kind != "auto":
        return kind
    for name in ("raw", "jpeg"):
        if all(cache_path(*part, folder, coding_of(name, quality)).is_file() for part in parts):
            log.info(f"data.cache=auto: {name}, which is there already")
            return name
    kind, why = raw_or_jpeg(parts, Path(folder).expanduser() if folder else default_folder())
    log.info(f"data.cache=auto: {kind}, since {why}")
    return kind


def raw_or_jpeg(parts: Sequence[Part], place: Path) -> tuple[str, str]:
    """`raw` while that takes at most half of the memory and of what is free at `place`, else `jpeg`; and why.

    Raises:
        OSError, ValueError: a photograph cannot be read.
    """
    raw = sum(estimated_bytes(*part, RAW) for part in parts)
    (room, what) = min((memory(), "memory"), (free_bytes(place), "free disk"))
    kind = "raw" if raw <= room / 2 else "jpeg"
    limit = f"{'at most' if kind == 'raw' else 'more than'} half of the {what} ({room / 1e9:.3g} GB)"
    return kind, f"raw faces would take about {raw / 1e9:.3g} GB, {limit}"


def cached(kind: str, part: Part, folder: str | None, quality: int = QUALITY) -> ImageSource | None:
    """The cache of a part, built if need be; None for `none`, where the photographs are read.

    Raises: as `open_cache`.
    """
    return None if kind == "none" else open_cache(*part, folder, coding_of(kind, quality))


def free_bytes(folder: Path) -> int:
    """Free on the disk that `folder` is on, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def memory() -> int:
    """Bytes of memory that this process may use: the machine's, or what its control group (SLURM, Docker) leaves it."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    groups = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError, IndexError):
        own = groups / Path("/proc/self/cgroup").read_text(encoding="utf-8").split("::/")[1].splitlines()[0]
        for group in (own, *own.parents):
            with suppress(OSError, ValueError):  # the root has none; "max" is no number
                limits.append(int((group / "memory.max").read_text(encoding="utf-8")))
            if group == groups:
                break
    return min(limits)
