"""300W's folders: what they are called, how many faces each holds, and where they lie under a root.

iBUG's archives unpack to afw/, helen/trainset/, helen/testset/, lfpw/trainset/, lfpw/testset/, ibug/ and, for the
private test, 300W/01_Indoor/ and 300W/02_Outdoor/. Other tools keep all of it under images/, and call 300W/ Test/ or
leave it out. All of these are read, in any case of letters. A face has one name everywhere, its folder and file name
without ending: `helen/trainset/100032540_1`, `01_Indoor/indoor_001`. Some of iBUG's names have a space too many, which
is left out; in other people's names a space counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from facelm.data.images import IMAGE_ENDINGS

SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("afw", "helen/trainset", "lfpw/trainset"),
        "common": ("helen/testset", "lfpw/testset"),
        "challenge": ("ibug",),
        "full": ("helen/testset", "lfpw/testset", "ibug"),
        "test": ("01_Indoor", "02_Outdoor"),
    }
)
"""Folders of each split; `test` is the private set of 300W's own challenge."""

FOLDER_COUNTS: Mapping[str, int] = MappingProxyType(
    {
        "afw": 337,
        "helen/trainset": 2000,
        "lfpw/trainset": 811,
        "helen/testset": 330,
        "lfpw/testset": 224,
        "ibug": 135,
        "01_Indoor": 300,
        "02_Outdoor": 300,
    }
)
"""Faces that iBUG published in each folder."""

OFFICIAL_COUNTS: Mapping[str, int] = MappingProxyType(
    {split: sum(FOLDER_COUNTS[folder] for folder in folders) for split, folders in SPLITS.items()}
)
"""Faces that iBUG published for each split: 3148, 554, 135, 689, 600."""


_ENDINGS = frozenset((*IMAGE_ENDINGS, ".pts"))

_DATE = r"20[0-2]\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_IBUGS_NAMES = re.compile(rf"(?!{_DATE}_)\d{{6,10}}_\d{{1,2}}|image_\d{{3,4}}(_\d{{1,2}})?|(in|out)door_\d{{3}}")
"""AFW and Helen: number of the photograph on Flickr, number of the face in it; LFPW and iBUG; the private test.

A number that is a day since 2000 (`20240131_12`) is a camera's name: none of 3,103 faces of 300W has one.
"""


@dataclass(slots=True)
class Files:
    """What the folder `place` holds under one name: photographs, the one that counts first, and a .pts.

    Kept by their names: a path takes ten times as long to make, and there may be a million.
    """

    place: str
    image_names: tuple[str, ...] = ()
    pts_name: str = ""

    @property
    def image(self) -> Path | None:
        """The photograph, if there is one."""
        return Path(self.place, self.image_names[0]) if self.image_names else None

    @property
    def pts(self) -> Path | None:
        """The .pts, if there is one."""
        return Path(self.place, self.pts_name) if self.pts_name else None


def parse_name(text: str) -> tuple[str, str]:
    """(official folder, bare name) of a path as files and lists write it; ("", bare name) for any other folder.

    `images/ibug/image_092 _01.jpg` gives `("ibug", "image_092_01")`, `300W/01_Indoor/indoor_001` gives
    `("01_Indoor", "indoor_001")`.
    """
    path = PurePosixPath(text.strip().replace("\\", "/"))
    bare = _spelled(path.stem if path.suffix.lower() in _ENDINGS else path.name)
    parents = [part.replace(" ", "").lower() for part in path.parts[:-1]]
    for folder in FOLDER_COUNTS:
        wanted = folder.lower().split("/")
        if parents[-len(wanted) :] == wanted:
            return folder, bare
    return "", bare


def is_ibugs_name(bare: str) -> bool:
    """Whether a face's bare name is made as iBUG made 300W's: what holds for 300W's files is only known of those."""
    return _IBUGS_NAMES.fullmatch(bare) is not None


def list_folder(path: Path) -> dict[str, Files]:
    """Photographs and .pts of one folder by bare name (no ending), sorted; hidden files are left out.

    A photograph and a .pts are a pair where their names are the same. In iBUG's names spaces count for nothing.

    Raises:
        ValueError: two of iBUG's names that differ in spaces alone and would be one face.
    """
    place = str(path)
    found: dict[str, Files] = {}
    spelled: dict[tuple[str, bool], str] = {}
    for file_name in sorted(os.listdir(path)):
        bare, ending = os.path.splitext(file_name)
        if not _counts(bare, ending):
            continue
        name, annotates = _spelled(bare), ending.lower() == ".pts"
        first = spelled.setdefault((name, annotates), bare)
        if first != bare:
            raise ValueError(
                f"{path}: {first!r} and {bare!r} differ in spaces alone, which 300W's names leave out: both would be "
                f"the face {name!r}. Rename one of them and its .pts"
            )
        files = found.get(name)
        if files is None:
            files = found[name] = Files(place)
        if annotates:
            files.pts_name = files.pts_name or file_name
        else:
            files.image_names = tuple(sorted((file_name, *files.image_names), key=_rank))
    return found


def list_folders(root: Path, folders: Iterable[str] = tuple(FOLDER_COUNTS)) -> dict[str, dict[str, Files]]:
    """`list_folder` of those official folders under `root` that hold any photograph or .pts."""
    found = {}
    for folder in folders:
        for place in _places(root, folder):
            if files := list_folder(place):
                found[folder] = files
                break
    return found


def holding(root: Path, folders: Iterable[str]) -> set[str]:
    """Those of the official folders under `root` that hold any photograph or .pts: what `list_folders` lists."""
    return {folder for folder in folders if any(map(_holds_any, _places(root, folder)))}


def places(root: Path, folders: Iterable[str]) -> list[Path]:
    """Every directory under `root` that may be one of these official folders, the likeliest of each first."""
    return [place for folder in folders for place in _places(root, folder)]


def looked_for(folders: Iterable[str]) -> str:
    """The folders a search covers, for messages."""
    return ", ".join(f"300W/{folder}/ or Test/{folder}/" if _private(folder) else f"{folder}/" for folder in folders)


def count_faces(root: Path) -> dict[str, int]:
    """Photographs with a .pts in each official folder under `root`, 0 where there is none."""
    found = list_folders(root)
    return {
        folder: sum(1 for files in found.get(folder, {}).values() if files.image_names and files.pts_name)
        for folder in FOLDER_COUNTS
    }


def count_table(counts: Mapping[str, int]) -> str:
    """Found against official as text: a row for each folder of `counts`, and for each split that they make up."""
    rows = [(folder, counts[folder], FOLDER_COUNTS[folder]) for folder in FOLDER_COUNTS if folder in counts]
    rows += [
        (split, sum(counts[folder] for folder in folders), OFFICIAL_COUNTS[split])
        for split, folders in SPLITS.items()
        if all(folder in counts for folder in folders)
    ]
    lines = [f"{'':<16}{'found':>8}{'official':>10}"]
    lines += [f"{name:<16}{found:>8,}{official:>10,}" for name, found, official in rows]
    return "\n".join(lines)


def _holds_any(place: Path) -> bool:
    with os.scandir(place) as entries:
        return any(_counts(*os.path.splitext(entry.name)) for entry in entries)


def _counts(bare: str, ending: str) -> bool:
    return not bare.startswith(".") and ending.lower() in _ENDINGS


def _rank(file_name: str) -> int:
    return IMAGE_ENDINGS.index(os.path.splitext(file_name)[1].lower())


def _spelled(bare: str) -> str:
    """A bare name as it is, or without the space that is too many in a name of iBUG's."""
    if " " not in bare:
        return bare
    squeezed = bare.replace(" ", "")
    return squeezed if is_ibugs_name(squeezed) else bare


def _private(folder: str) -> bool:
    return folder in SPLITS["test"]


def _places(root: Path, folder: str) -> list[Path]:
    """Every existing directory under `root` that may be this official folder, the likeliest first."""
    parents = ["300W/", "Test/", ""] if _private(folder) else [""]
    candidates = [f"{top}{parent}{folder}" for top in ("", "images/") for parent in parents]
    return [place for text in candidates if (place := _descend(root, text.split("/"))) is not None]


def _descend(path: Path, parts: list[str]) -> Path | None:
    """The directory `parts` below `path`, letter case ignored where the exact one is absent."""
    for part in parts:
        if (path / part).is_dir():
            path = path / part
            continue
        children = sorted(path.iterdir()) if path.is_dir() else []
        matches = [child for child in children if child.name.lower() == part.lower() and child.is_dir()]
        if not matches:
            return None
        path = matches[0]
    return path
