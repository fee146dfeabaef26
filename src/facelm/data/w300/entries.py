"""From files to faces: which photograph and which points make one, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from facelm.data.faces import Face
from facelm.data.images import AS_STORED, exif_orientation
from facelm.data.plausible import check_in_image, check_shape
from facelm.data.w300.annotations import Annotation, read_pts
from facelm.data.w300.layout import Files, is_ibugs_name, parse_name
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import box_from_landmarks
from facelm.geometry.landmarks import interocular

Folders = Mapping[str, Mapping[str, Files]]
Exif = Literal["auto", "apply", "ignore"]
SizeOf = Callable[[Path, int, BinaryIO], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A face that is on disk and not read yet, annotated by the row of a file, or by the .pts of its own."""

    folder: str
    files: Files
    row: Annotation | None = None

    @property
    def image(self) -> Path:
        """The photograph."""
        return Path(self.files.place, self.files.image_names[0])

    def read(self, subtracted: int) -> FloatArray:
        """The landmarks `[68, 2]`, less `subtracted`; raises ValueError where they are none, OSError for the file."""
        if self.row:
            return self.row.read(subtracted)
        return read_pts(Path(self.files.place, self.files.pts_name), subtracted)


def entries_from_pts(folders: Folders) -> tuple[dict[str, Entry], dict[str, str]]:
    """Every .pts with its photograph by face name, and what is wrong with those that have none."""
    entries: dict[str, Entry] = {}
    problems: dict[str, str] = {}
    for folder, names in folders.items():
        for bare, files in names.items():
            name = f"{folder}/{bare}"
            if files.pts_name and files.image_names:
                entries[name] = Entry(folder, files)
            elif files.pts_name:
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
        files = folders[holders[0]][bare] if len(holders) == 1 else Files("")
        name = f"{folder or holders[0]}/{bare}" if folder or files.image_names else row.image_name
        if not files.image_names:
            reason = f"is in {' and '.join(holders)}" if len(holders) > 1 else "does not exist"
            problems[name] = f"{row.where}: the image {row.image_name!r} {reason}"
        elif name in entries:
            problems[name] = f"{row.where}: the image {row.image_name!r} is annotated twice"
        else:
            entries[name] = Entry(holders[0], files, row)
    return {name: entry for name, entry in entries.items() if name not in problems}, problems


@dataclass(frozen=True)
class Reader:
    """How entries become faces.

    `subtracted` is what is taken from stored coordinates, `exif` as in `index_faces`. `size_of` gives (width, height)
    of a photograph turned by an orientation, and opened; None leaves photographs unread. `any_shape` is for drawn
    heads, which are exact, and wilder than anybody photographs.
    """

    subtracted: int
    exif: Exif
    size_of: SizeOf | None
    any_shape: bool = False

    def face(self, name: str, entry: Entry) -> tuple[Face, bool]:
        """The face, and whether its photograph's EXIF asks viewers to turn it.

        Raises:
            ValueError: it cannot be used, with the reason.
            OSError: a file cannot be read.
        """
        landmarks_image, image = entry.read(self.subtracted), entry.image
        if not interocular(landmarks_image) > 0:
            raise ValueError(f"{image}: both outer eye corners are one point; errors are measured in their distance")
        if not self.any_shape:
            check_shape(landmarks_image, str(image))
        box = box_from_landmarks(landmarks_image)
        with open(image, "rb") as stream:
            stated = exif_orientation(stream)
            orientation = AS_STORED if self._ignored(name) else stated
            if self.size_of:
                check_in_image(image, self.size_of(image, orientation, stream), landmarks_image, box)
        return Face(name, image, landmarks_image, box, entry.folder, orientation), stated != AS_STORED

    def orientation(self, name: str, entry: Entry) -> int:
        """By which the photograph is turned."""
        if self._ignored(name):
            return AS_STORED
        with open(entry.image, "rb") as stream:
            return exif_orientation(stream)

    def _ignored(self, name: str) -> bool:
        return self.exif == "ignore" or (self.exif == "auto" and is_ibugs_name(name.rpartition("/")[2]))
