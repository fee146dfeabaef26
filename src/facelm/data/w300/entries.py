"""What of a split lies on disk, before any of it is read: each face's photograph, and where its points stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from facelm.data.w300.annotations import Annotation, read_pts
from facelm.data.w300.layout import Files, parse_name
from facelm.geometry.affine import FloatArray

Folders = Mapping[str, Mapping[str, Files]]


@dataclass(frozen=True)
class Entry:
    """A face that is on disk and not read yet."""

    folder: str
    image: Path
    read: Callable[[int], FloatArray]


def entries_from_pts(folders: Folders) -> tuple[dict[str, Entry], dict[str, str]]:
    """Every .pts with its photograph by face name, and what is wrong with those that have none."""
    entries: dict[str, Entry] = {}
    problems: dict[str, str] = {}
    for folder, names in folders.items():
        for bare, files in names.items():
            name = f"{folder}/{bare}"
            if files.pts and files.image:
                entries[name] = Entry(folder, files.image, partial(read_pts, files.pts))
            elif files.pts:
                problems[name] = f"{files.pts}: the image does not exist; none of that name lies beside it"
    return entries, problems


def entries_from_rows(rows: Iterable[Annotation], folders: Folders) -> tuple[dict[str, Entry], dict[str, str]]:
    """Every row of this split with its photograph by face name, and what is wrong with those that have none.

    Rows in official folders that are not among `folders` (another split's, or not on disk) are passed over. A row
    whose path ends in no official folder is looked for by its file name in all of `folders`.
    """
    entries: dict[str, Entry] = {}
    problems: dict[str, str] = {}
    for row in rows:
        folder, bare = parse_name(row.image_name)
        if folder and folder not in folders:
            continue
        holders = [place for place in ([folder] if folder else folders) if bare in folders[place]]
        image = folders[holders[0]][bare].image if len(holders) == 1 else None
        name = f"{folder or holders[0]}/{bare}" if folder or image else row.image_name
        if image is None:
            reason = f"is in {' and '.join(holders)}" if len(holders) > 1 else "does not exist"
            problems[name] = f"{row.where}: the image {row.image_name!r} {reason}"
        elif name in entries:
            problems[name] = f"{row.where}: the image {row.image_name!r} is annotated twice"
        else:
            entries[name] = Entry(holders[0], image, row.read)
    return {name: entry for name, entry in entries.items() if name not in problems}, problems
