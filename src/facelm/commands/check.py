"""`facelm check DATA`: annotated faces as training would read them, suspects, and photographs of two data sets."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facelm.commands.suspects import Suspect
    from facelm.data.own import OwnFaces
    from facelm.data.w300.entries import Reader
    from facelm.data.w300.index import Found
    from facelm.geometry.landmarks import LandmarkScheme

EXAMPLES = """
Refused are faces that training does not take; in doubt are those that it takes and that are unlike 3,103 faces of 300W,
or with --landmarks unlike the mean face of their own data. The options are the keys of `data` with the same names.

examples:
  facelm check data/300w
  facelm check data/w300_like --annotations json --annotations-at data/w300_like/faces.json --first-pixel 0
  facelm check PHOTOGRAPHS --landmarks mine.yaml --train faces.json --out suspects.png   # faces of your own
  facelm check data/mine data/300w                   # photographs that are in both folders, by what they show

exit code: 0 every face can be used, 1 some are refused, 2 wrong usage; of two folders 0 none is shared, 1 some are
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("root", type=Path, metavar="DATA", help="the folder that data.root would name")
    add("other", type=Path, nargs="?", metavar="OTHER", help="another folder: compare the photographs of the two")
    add("--annotations", choices=("pts", "json", "csv"), default="pts", help="how faces are annotated (default: pts)")
    add("--annotations-at", type=Path, metavar="PATH", help="folder of the json or csv files, or one of them")
    add("--first-pixel", type=int, choices=(0, 1), help="what numbers call the first pixel (default: as in training)")
    add("--exif", choices=("auto", "apply", "ignore"), default="auto", help="whether photographs are turned")
    add("--decode", action="store_true", help="decode every photograph: finds damage inside, and takes minutes")
    add("--out", type=Path, metavar="FILE.png", help="a sheet of the suspects with numbered points; its folder is made")
    add("--columns", type=int, default=4, metavar="N", help="faces in a row of the sheet (default: 4)")
    add = parser.add_argument_group("faces of your own").add_argument
    add("--landmarks", metavar="NAME_OR_FILE", help="their scheme, as `facelm landmarks infer` writes it")
    for split in ("train", "val", "test"):
        add(f"--{split}", metavar="FILE", help="a .json, a .csv, or a folder of .pts files")
    add("--split-column", metavar="NAME", help="the column of the .csv that says train, val or test")


def run(args: argparse.Namespace) -> int:
    """Prints what was found, and writes the sheet; of two folders, the photographs that are in both."""
    from facelm.commands.suspects import write_sheet
    from facelm.geometry.landmarks import IBUG68, get_scheme
    from facelm.predict.files import check_writable

    if args.columns < 1:
        raise ValueError(f"--columns {args.columns} is too small")
    if args.out and args.out.suffix.lower() != ".png":
        raise ValueError(f"--out {args.out}: the sheet is a .png")
    if args.other:
        return _compare(args.root.expanduser(), args.other.expanduser())
    own = [f"--{name.replace('_', '-')}" for name in ("train", "val", "test", "split_column") if getattr(args, name)]
    if own and not args.landmarks:
        raise ValueError(f"{own[0]} is about faces of your own: --landmarks says what their points are, a name or file")
    scheme = get_scheme(args.landmarks) if args.landmarks else IBUG68
    suspects = _own(args, scheme) if args.landmarks else _w300(args)
    if args.out:
        check_writable(args.out.parent)
        write_sheet(args.out, suspects, args.columns, scheme)
    return 1 if any(suspect.refused for suspect in suspects) else 0


def _say(split: str, faces: int, suspects: list[Suspect]) -> None:
    refused = sum(suspect.refused for suspect in suspects)
    print(f"{split}: {faces:,} faces can be used, {refused:,} are refused, {len(suspects) - refused:,} are in doubt")


# --- 300W -----------------------------------------------------------------------------------------------------------


def _w300(args: argparse.Namespace) -> list[Suspect]:
    from facelm.data.images import decoded_size, image_size
    from facelm.data.w300.entries import Reader
    from facelm.data.w300.index import find_faces, present_splits

    size_of = decoded_size if args.decode else image_size
    first_pixel = 1 if args.first_pixel is None else args.first_pixel
    options = {"annotations": args.annotations, "annotations_at": args.annotations_at, "first_pixel": first_pixel}
    reader = Reader(subtracted=first_pixel, exif=args.exif, size_of=None)
    suspects = []
    for split in present_splits(args.root):
        found = find_faces(args.root, split, exif=args.exif, size_of=size_of, **options)
        suspects += _report(split, found, reader)
    return suspects


def _report(split: str, found: Found, reader: Reader) -> list[Suspect]:
    """Prints what there is to say of a split; its suspects, the refused ones first. Drawn faces are beyond doubt."""
    from facelm.commands.suspects import Suspect
    from facelm.geometry.affine import FloatArray

    def photograph(name: str) -> tuple[Path, int]:
        if name not in found.entries:
            raise ValueError
        return found.entries[name].image, reader.orientation(name, found.entries[name])

    def points(name: str) -> FloatArray:
        return found.entries[name].read(reader.subtracted)

    def suspect(name: str, why: str, refused: bool) -> Suspect:
        return Suspect(name, why, refused, partial(photograph, name), partial(points, name))

    suspects = [suspect(name, why, True) for name, why in sorted(found.problems.items())]
    suspects += [suspect(name, why, False) for name, why in found.doubts.items()]
    _say(split, len(found.faces), suspects)
    if told := found.told_turned(reader.exif).replace("data.exif", "--exif"):
        print(f"  {told}")
    for name, entry in found.entries.items():
        used, *others = entry.files.image_names
        if others:
            print(f"  {name}: {used} is used, not {', '.join(others)}")
    for one in suspects:
        print(f"  {one.told()}")
    return suspects


# --- Faces of one's own ---------------------------------------------------------------------------------------------


def _own(args: argparse.Namespace, scheme: LandmarkScheme) -> list[Suspect]:
    from facelm.data.own import OwnFaces

    source = OwnFaces(
        args.root.expanduser(),
        scheme,
        {"train": args.train, "val": args.val, "test": args.test},
        split_column=args.split_column,
        first_pixel=args.first_pixel,
        exif="ignore" if args.exif == "ignore" else "apply",
        on_error="skip" if args.decode else "raise",
    )
    suspects = []
    for split in ("train", *source.subsets()):
        found = _own_suspects(source, split, scheme)
        suspects += found
        for one in found:
            print(f"  {one.told()}")
    return suspects


def _own_suspects(source: OwnFaces, split: str, scheme: LandmarkScheme) -> list[Suspect]:
    """The suspects of a split, the refused ones first; says how many there are."""
    from facelm.commands.suspects import Suspect
    from facelm.data.images import AS_STORED
    from facelm.data.suspicious import doubts
    from facelm.geometry.affine import FloatArray

    faces, problems = source.find(split)

    def photograph(said: str) -> tuple[Path, int]:
        annotated = problems[said]
        if annotated is None:
            raise ValueError
        return source.photograph(annotated), AS_STORED

    def points(said: str) -> FloatArray:
        annotated = problems[said]
        if annotated is None:
            raise ValueError
        return annotated.points()

    def usable(number: int) -> tuple[Path, int]:
        return faces[number].image, faces[number].orientation

    def landmarks(number: int) -> FloatArray:
        return faces[number].landmarks_image

    suspects = []
    for said, annotated in sorted(problems.items()):
        name = annotated.image_name if annotated else said.partition(": ")[0]
        suspects.append(Suspect(name, said, True, partial(photograph, said), partial(points, said)))
    for number, why in doubts(faces.landmarks_image, scheme).items():
        suspects.append(Suspect(faces[number].name, why, False, partial(usable, number), partial(landmarks, number)))
    _say(split, len(faces), suspects)
    return suspects


# --- Two data sets --------------------------------------------------------------------------------------------------


def _compare(one: Path, other: Path) -> int:
    """Names photographs of `other` that `one` has too, or a face of them; 1 where there are any."""
    from facelm.data.likeness import alike, hashes_below

    first, second = hashes_below(one), hashes_below(other)
    pairs = alike(first, second)
    for folder, found in ((one, first), (other, second)):
        faces = int(found.of_faces.sum())
        print(f"'{folder}': {len(found.paths) - faces:,} photographs, {faces:,} annotated faces")
    print(f"{len(pairs):,} photographs of '{other}', or faces of theirs, are in '{one}' too")
    for theirs, (ours, bits) in pairs.items():
        print(f"  {theirs} is {ours}" + (f" ({bits} of 256 bits differ)" if bits else ""))
    return 1 if pairs else 0
