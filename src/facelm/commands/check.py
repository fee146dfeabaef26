"""`facelm check DATA`: annotated faces as training would read them, and those that are worth a look."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facelm.data.w300.entries import Entry, Reader
    from facelm.data.w300.index import Found
    from facelm.geometry.affine import Image

EXAMPLES = """
Refused are faces that training does not take; in doubt are those that it takes and that are unlike 3,103 faces of 300W.
The options are the keys of `data` with the same names, and mean the same.

examples:
  facelm check data/300w
  facelm check data/mine --out suspects.png
  facelm check data/mine --annotations json --annotations-at data/mine/faces.json --first-pixel 0

exit code: 0 every face can be used, 1 some are refused, 2 wrong usage
"""

_TILE, _AROUND, _BARE = 256, 1.8, 96
_MOST = 120  # faces on a sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("root", type=Path, metavar="DATA", help="the folder that data.root would name")
    add("--annotations", choices=("pts", "json", "csv"), default="pts", help="how faces are annotated (default: pts)")
    add("--annotations-at", type=Path, metavar="PATH", help="folder of the json or csv files, or one of them")
    add("--first-pixel", type=int, choices=(0, 1), default=1, help="what numbers call the first pixel (default: 1)")
    add("--exif", choices=("auto", "apply", "ignore"), default="auto", help="whether photographs are turned")
    add("--decode", action="store_true", help="decode every photograph: finds damage inside, and takes minutes")
    add("--out", type=Path, metavar="FILE.png", help="a sheet of the suspects with their points; its folder is made")
    add("--columns", type=int, default=6, metavar="N", help="faces in a row of the sheet (default: 6)")


@dataclass(frozen=True)
class Suspect:
    """A face that is refused or worth a look, and why; `entry` is None where there is no photograph."""

    name: str
    reason: str
    refused: bool
    entry: Entry | None


def run(args: argparse.Namespace) -> int:
    """Prints what was found, and writes the sheet."""
    from facelm.commands.contact_sheet import contact_sheet, write_png
    from facelm.data.images import decoded_size, image_size
    from facelm.data.synthetic.folder import MARKER
    from facelm.data.w300.entries import Reader
    from facelm.data.w300.index import find_faces, present_splits
    from facelm.predict.files import check_writable

    if args.columns < 1:
        raise ValueError(f"--columns {args.columns} is too small")
    if args.out and args.out.suffix.lower() != ".png":
        raise ValueError(f"--out {args.out}: the sheet is a .png")
    size_of = decoded_size if args.decode else image_size
    options = {"annotations": args.annotations, "annotations_at": args.annotations_at, "first_pixel": args.first_pixel}
    drawn = (args.root.expanduser() / MARKER).exists()
    suspects = []
    for split in present_splits(args.root):
        found = find_faces(args.root, split, exif=args.exif, size_of=size_of, **options)
        suspects += _report(split, found, args.exif, drawn)
    if args.out and suspects:
        check_writable(args.out.parent)
        reader = Reader(subtracted=args.first_pixel, exif=args.exif, size_of=None)
        shown = suspects[:_MOST]
        titles = [f"{suspect.name} {'refused' if suspect.refused else 'in doubt'}" for suspect in shown]
        write_png(args.out, contact_sheet([_tile(one, reader) for one in shown], titles, args.columns))
        print(f"{args.out}: {len(shown):,} of {len(suspects):,} suspects")
    elif args.out:
        print(f"{args.out} is not written: there is no suspect")
    return 1 if any(suspect.refused for suspect in suspects) else 0


def _report(split: str, found: Found, exif: str, drawn: bool) -> list[Suspect]:
    """Prints what there is to say of a split; its suspects, the refused ones first. Drawn faces are beyond doubt."""
    from facelm.data.plausible import doubt

    suspects = [Suspect(name, why, True, found.entries.get(name)) for name, why in sorted(found.problems.items())]
    faces = [] if drawn else found.faces
    doubts = {face.name: why for face in faces if (why := doubt(face.landmarks_image))}
    suspects += [Suspect(name, why, False, found.entries[name]) for name, why in doubts.items()]
    print(
        f"{split}: {len(found.faces):,} faces can be used, {len(found.problems):,} are refused, {len(doubts):,} are in "
        "doubt"
    )
    if told := found.told_turned(exif).replace("data.exif", "--exif"):
        print(f"  {told}")
    for name, entry in found.entries.items():
        if entry.unused:
            print(f"  {name}: {entry.image.name} is used, not {', '.join(path.name for path in entry.unused)}")
    for suspect in suspects:
        print(f"  {'refused' if suspect.refused else 'in doubt'} {suspect.name}: {suspect.reason}")
    return suspects


def _tile(suspect: Suspect, reader: Reader) -> Image:
    """`[256, 256, 3]`: the face with its points, the whole photograph where it has none, or grey without either."""
    import numpy as np

    from facelm.data.images import read_image
    from facelm.evaluation.overlay import draw_landmarks
    from facelm.geometry.affine import transform, warp
    from facelm.geometry.boxes import Box, box_from_landmarks, crop_from_image

    try:
        if suspect.entry is None:
            raise ValueError
        pixels = read_image(suspect.entry.image, reader.orientation(suspect.name, suspect.entry))
    except (OSError, ValueError):
        return np.full((_TILE, _TILE, 3), _BARE, np.uint8)
    height, width, _ = pixels.shape
    try:
        landmarks_image = suspect.entry.read(reader.subtracted)
        inside = landmarks_image.clip((0, 0), (width - 1, height - 1))  # else a point far off makes the face a speck
        tile_from_image = crop_from_image(box_from_landmarks(inside), _TILE, _AROUND)
    except (OSError, ValueError):  # unreadable, or all points in one place
        whole = Box(((width - 1) / 2, (height - 1) / 2), max(width, height))
        return warp(pixels, crop_from_image(whole, _TILE, 1.0), _TILE)
    return draw_landmarks(warp(pixels, tile_from_image, _TILE), transform(tile_from_image, landmarks_image))
