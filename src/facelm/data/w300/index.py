"""The faces of a 300W split: found on disk, read in any of three formats, and checked before anything trains.

`index_faces` is the way in. Everything wrong with a split is said at once: a run that stops an hour later at its first
broken file, then at the second, wastes a day.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, get_args

from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face
from facelm.data.images import AS_STORED, decoded_size, image_size
from facelm.data.plausible import doubts, told_doubtful
from facelm.data.storage.all_cores import over_cores
from facelm.data.storage.watched import Watched
from facelm.data.synthetic.folder import MARKER
from facelm.data.w300.annotations import find_annotation_files, read_annotations, read_text
from facelm.data.w300.entries import (
    Entry,
    Exif,
    Reader,
    SizeOf,
    entries_from_pts,
    entries_from_rows,
)
from facelm.data.w300.layout import (
    FOLDER_COUNTS,
    OFFICIAL_COUNTS,
    SPLITS,
    count_table,
    holding,
    is_ibugs_name,
    list_folders,
    looked_for,
    parse_name,
    places,
)

__all__ = ["OFFICIAL_COUNTS", "SPLITS", "Face", "count_table", "index_faces", "present_subsets"]

log = logging.getLogger(__name__)

Format = Literal["pts", "json", "csv"]
OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Found:
    """A split as it is on disk.

    `faces` can be used; `problems` say by name why others cannot; `entries` are all that have a photograph, and `lying`
    is how many of the usable ones have a photograph whose EXIF asks viewers to turn it. `doubts` say by name why some
    that can be used are worth a look.
    """

    faces: FaceArrays
    problems: dict[str, str]
    entries: dict[str, Entry]
    lying: int
    doubts: dict[str, str]

    def told_turned(self, exif: str) -> str:
        """What was done with photographs that lie on their side, as a sentence; "" where there are none."""
        if not self.lying:
            return ""
        turned = sum(face.orientation != AS_STORED for face in self.faces)
        return (
            f"EXIF asks viewers to turn the photographs of {self.lying:,} faces; {turned:,} were turned, so that "
            f"points placed in a viewer fit, and {self.lying - turned:,} left as stored, as 300W was annotated "
            f"(data.exif={exif}). data.exif=apply turns all, data.exif=ignore none"
        )


class How(TypedDict, total=False):
    """The options that `index_faces` describes and hands on, with what they are where they are not given."""

    annotations: Format  # "pts"
    annotations_at: str | Path | None  # None
    pixel_origin: int  # 1
    first_pixel: int  # 1
    exif: Exif  # "auto"
    list_file: str | Path | None  # None


def index_faces(
    root: str | Path, split: str, *, on_error: OnError = "raise", check_images: bool = True, **how: Unpack[How]
) -> FaceArrays:
    """The faces of `split` under `root`, sorted by name; the same ones from all three formats.

    Args:
        root: folder that holds 300W's folders, with or without images/ before them.
        split: train, common, challenge, full or test.
        annotations: "pts" beside the photographs; "json" mmpose's, "csv" the HRNet authors' files.
        annotations_at: folder of those files, or one file, instead of `root` and `root/annotations`.
        pixel_origin: 1 turns 300W's 1-based numbers into 0-based pixels; 0 keeps them, as the references do.
        first_pixel: what the files' numbers call the first pixel: 1 in 300W, 0 in files of many other tools, whose
            numbers are raised by 1 before `pixel_origin` is subtracted.
        exif: "apply" takes landmarks for those of the photograph as a viewer turns it by its EXIF orientation,
            "ignore" for those of the pixels as they are stored, "auto" ignores it where a name is one of iBUG's.
        on_error: "raise" one error that lists every unusable face, or "skip" them with one warning that does. To
            raise, headers and ends of the photographs are read; to skip, all are decoded.
        list_file: text file with a face a line, such as `afw/111076519_1`; only those are read.
        check_images: False looks at nothing of the photographs but their EXIF orientation.

    Raises:
        FileNotFoundError: no photographs of the split, no annotation file, or no list file.
        ValueError: unusable faces, an annotation file without the published columns, a list with unknown names.

    Warns:
        UserWarning: fewer faces than iBUG published (not with `list_file`), with a table; faces that were skipped.
    """
    if on_error not in get_args(OnError):
        raise ValueError(f"data.on_error={on_error!r} is none of {', '.join(get_args(OnError))}")
    size_of = (decoded_size if on_error == "skip" else image_size) if check_images else None
    found = find_faces(root, split, size_of=size_of, **how)
    root = Path(root).expanduser()
    _report(found.problems, found.faces, split, root, on_error)
    if told := found.told_turned(how.get("exif", "auto")):
        log.info(f"split {split!r}: {told}")
    if told := told_doubtful(found.doubts):
        log.warning(f"split {split!r}: {told}\nfacelm check {root} --out FILE.png shows them")
    if how.get("list_file") is None:
        _warn_if_fewer(found.faces, split, root)
    return found.faces


def find_faces(root: str | Path, split: str, *, size_of: SizeOf | None = image_size, **how: Unpack[How]) -> Found:
    """What `index_faces` reports on; raises no error for single faces, and warns of nothing.

    Raises:
        FileNotFoundError: no photographs of the split, no annotation file, or no list file.
        ValueError: an option that is none, an annotation file without the published columns, a list with unknown names.
    """
    if unknown := how.keys() - How.__annotations__.keys():
        raise TypeError(f"no option {', '.join(unknown)} of 300W's faces")
    annotations, exif = how.get("annotations", "pts"), how.get("exif", "auto")
    pixel_origin, first_pixel = how.get("pixel_origin", 1), how.get("first_pixel", 1)
    _check_choices(split, annotations, pixel_origin, first_pixel, exif)
    root = Path(root).expanduser()
    annotations_at, list_file = how.get("annotations_at"), how.get("list_file")
    named = Path(annotations_at).expanduser() if annotations_at else None
    listed = Path(list_file).expanduser() if list_file is not None else None
    entries, problems = _find(root, split, annotations, named, listed)
    drawn = (root / MARKER).exists()
    reader = Reader(subtracted=pixel_origin + first_pixel - 1, exif=exif, size_of=size_of, any_shape=drawn)
    ordered = sorted(entries)
    parts = over_cores(lambda start, stop: _read(reader, entries, ordered[start:stop]), len(ordered))
    problems |= {name: why for part in parts for name, why in part[1].items()}
    doubtful = {name: why for part in parts for name, why in part[3].items()}
    faces, lying = FaceArrays.joined([part[0] for part in parts]), sum(part[2] for part in parts)
    return Found(faces, problems, entries, lying, doubtful)


def _read(
    reader: Reader, entries: Mapping[str, Entry], names: Sequence[str]
) -> tuple[FaceArrays, dict[str, str], int, dict[str, str]]:
    """Of some entries the faces, what is wrong with others, how many lie on their side, and doubts."""
    faces: list[Face] = []
    problems: dict[str, str] = {}
    lying = 0
    for name in names:
        try:
            face, lies = reader.face(name, entries[name])
        except (ValueError, OSError) as error:
            problems[name] = str(error)
        else:
            faces.append(face)
            lying += lies
    arrays = FaceArrays.of(faces)
    found = {} if reader.any_shape else doubts(arrays.landmarks_image)
    return arrays, problems, lying, {faces[row].name: why for row, why in found.items()}


def watched_files(root: Path, split: str, list_file: str | Path | None = None, **how: Any) -> Watched:
    """What the faces rest on that `index_faces` gives for the same arguments.

    Raises:
        FileNotFoundError: no annotation file.
    """
    files = [root / MARKER, *([] if list_file is None else [Path(list_file).expanduser()])]
    if (kind := how.get("annotations", "pts")) != "pts":
        named = how.get("annotations_at")
        files += find_annotation_files(root, split, kind, Path(named).expanduser() if named else None)
    return Watched(f"{split} {sorted(how.items())}", tuple(places(root, SPLITS[split])), tuple(files))


def present_splits(root: str | Path) -> list[str]:
    """The splits that have photographs under `root`, of train, common, challenge, test.

    Raises:
        FileNotFoundError: none has any.
    """
    root = Path(root).expanduser()
    folders = holding(root, FOLDER_COUNTS)
    present = [split for split, parts in SPLITS.items() if split != "full" and not folders.isdisjoint(parts)]
    if not present:
        raise FileNotFoundError(_nothing_found(root, "train"))
    return present


def present_subsets(root: str | Path) -> list[str]:
    """The evaluation subsets that have photographs under `root`, of common, challenge, full, test.

    A subset counts as present with its first photograph; `full` needs both common and challenge.
    """
    folders = holding(Path(root).expanduser(), FOLDER_COUNTS)
    present = {split for split in ("common", "challenge", "test") if any(folder in folders for folder in SPLITS[split])}
    if {"common", "challenge"} <= present:
        present.add("full")
    return [split for split in SPLITS if split in present]


def _find(
    root: Path, split: str, annotations: Format, annotations_at: Path | None, list_file: Path | None
) -> tuple[dict[str, Entry], dict[str, str]]:
    """The split's faces by name, or those of the list, and what is wrong with those that have no photograph."""
    folders = list_folders(root, SPLITS[split])
    if not folders:
        raise FileNotFoundError(_nothing_found(root, split))
    if annotations == "pts":
        entries, problems = entries_from_pts(folders)
    else:
        files = find_annotation_files(root, split, annotations, annotations_at)
        rows = [row for path in files for row in read_annotations(path, annotations)]
        entries, problems = entries_from_rows(rows, folders)
    if list_file is not None:
        listed = _read_list(list_file, {*entries, *problems}, split)
        entries = {name: entry for name, entry in entries.items() if name in listed}
        problems = {name: problem for name, problem in problems.items() if name in listed}
    return entries, problems


def _read_list(path: Path, known: Collection[str], split: str) -> set[str]:
    """The face names in a list file; # starts a comment."""
    if not path.is_file():
        raise FileNotFoundError(f"no list file {str(path)!r}; it names faces of a split, one a line: afw/111076519_1")
    lines = [line.partition("#")[0].strip() for line in read_text(path).splitlines()]
    names = {"/".join(parse_name(line)).lstrip("/"): line for line in lines if line}
    if not names:
        raise ValueError(f"{path}: the list names no face; a line looks like afw/111076519_1")
    if unknown := [line for name, line in names.items() if name not in known]:
        raise ValueError(
            f"{path}: {len(unknown)} of {len(names)} names are no faces of split {split!r} on disk: "
            f"{', '.join(unknown)}. Names are folder and file name without ending, like afw/111076519_1"
        )
    return set(names)


def _report(problems: Mapping[str, str], faces: FaceArrays, split: str, root: Path, on_error: OnError) -> None:
    """One error or one warning that lists every unusable face; an error where no face is left."""
    text = ""
    if problems:
        lines = "\n".join(f"  {name}: {problems[name]}" for name in sorted(problems))
        total = len(faces) + len(problems)
        text = f"{len(problems):,} of {total:,} faces of split {split!r} cannot be used:\n{lines}\n"
        if on_error == "raise":
            raise ValueError(f"{text}Repair or remove them, or leave them out with data.on_error=skip")
        warnings.warn(f"{text}They are left out (data.on_error=skip)", stacklevel=3)
    if not faces:
        raise ValueError(
            f"{text}no usable face of split {split!r} under root={str(root)!r}, though there are photographs. "
            "Put iBUG's .pts files beside them, or set data.annotations=json or csv"
        )


def _warn_if_fewer(faces: FaceArrays, split: str, root: Path) -> None:
    counts = faces.folders()
    found = {folder: counts.get(folder, 0) for folder in SPLITS[split]}
    # Drawn faces and other people's do not claim to be 300W.
    claimed = not (root / MARKER).exists() and any(is_ibugs_name(name.rpartition("/")[2]) for name in faces.names())
    if claimed and any(found[folder] < FOLDER_COUNTS[folder] for folder in found):
        warnings.warn(
            f"300W is incomplete under root={str(root)!r}: split {split!r} has fewer faces than iBUG published, so its "
            f"numbers do not compare with published ones\n{count_table(found)}",
            stacklevel=3,
        )


def _check_choices(split: str, annotations: str, pixel_origin: int, first_pixel: int, exif: str) -> None:
    for what, value, choices in (
        ("split", split, tuple(SPLITS)),
        ("data.annotations", annotations, get_args(Format)),
        ("data.pixel_origin", pixel_origin, (0, 1)),
        ("data.first_pixel", first_pixel, (0, 1)),
        ("data.exif", exif, get_args(Exif)),
    ):
        if value not in choices:
            raise ValueError(f"{what}={value!r} is none of {', '.join(str(choice) for choice in choices)}")


def _nothing_found(root: Path, split: str) -> str:
    found = looked_for(list_folders(root)) or ("nothing" if root.is_dir() else "no such folder")
    return (
        f"no 300W images under root={str(root)!r} for split {split!r} (looked for {looked_for(SPLITS[split])}, with or "
        f"without images/ before them; found: {found}). {_faces_elsewhere(root) if split == 'train' else ''}\n"
        "Download 300W's archives from https://ibug.doc.ic.ac.uk/resources/300-W/ and unpack them with `facelm "
        "prepare`, or set data.root=... or FACELM_300W=...; to try facelm without data: experiment=demo"
    )


def _faces_elsewhere(root: Path) -> str:
    """What to do with .pts files in a folder of another name, at most two levels below `root`; "" without any."""
    place = next((path.parent for depth in ("*", "*/*", "*/*/*") for path in sorted(root.glob(f"{depth}.pts"))), None)
    if place is None:
        return ""
    if (folder := parse_name(f"{place.resolve()}/face")[0]) and place == root:
        above = root.resolve().parents[folder.count("/")]
        return f"This is the folder {folder}/ itself: set data.root={str(above)!r}, the one that holds it"
    return (
        f"There are .pts files in {str(place)!r}; faces that are not 300W's are read from a folder named afw/ in "
        "data.root: rename that one, or make a link of that name to it (ln -s)"
    )
