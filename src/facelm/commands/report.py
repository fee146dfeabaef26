"""`facelm report FOLDER`: a report made again from the predictions that it keeps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from facelm.evaluation.kept import FILE, Kept, read_predictions
from facelm.evaluation.plots import ImageOf
from facelm.evaluation.report import print_table, write_report
from facelm.evaluation.stored import in_report
from facelm.files import typed
from facelm.launch.recorded import recorded_root

if TYPE_CHECKING:
    from facelm.geometry.affine import Image

EXAMPLES = """
Nothing is evaluated anew. Pictures are made from the photographs where these are still there: those of a run are
looked for where its record says, others below --photographs. Without them the thumbnails that are there stay.

examples:
  facelm report outputs/hrnetv2_w18/2025-01-31_12-00-00
  facelm report outputs/evaluate/2025-01-31_12-00-00 --photographs data/300w
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run folder, or a report's")
    parser.add_argument("--photographs", type=Path, metavar="ROOT", help="the data's root, as data.root")


def run(args: argparse.Namespace) -> int:
    """Writes the report's files again, and prints the table."""
    folder = typed(args.folder)
    found = in_report(folder, FILE)
    report = folder if found is None else found.parent
    kept = read_predictions(report)
    root = typed(args.photographs) if args.photographs else photographs_of(folder)
    if args.photographs and not all_there(root, kept):
        raise FileNotFoundError(f"--photographs {args.photographs}: '{kept.origin.images[0]}' or others are not in it")
    write_report(
        report,
        kept.result,
        facts=kept.facts,
        published=kept.published,
        notes=kept.notes,
        origin=kept.origin,
        image_of=photograph_of(kept, root) if all_there(root, kept) else None,
    )
    print_table(kept.result, published=kept.published, notes=kept.notes)
    print(f"report in {report}")
    return 0


def photographs_of(folder: Path) -> Path | None:
    """Where the photographs of a run, given by its folder or its report's, are by its record."""
    return next((Path(root) for run in (folder, folder.parent) if (root := recorded_root(run))), None)


def all_there(root: Path | None, kept: Kept) -> bool:
    """Whether all photographs are below `root`; a name that leads out of it is none."""
    if root is None or not kept.origin.images:
        return False
    top = root.resolve()
    paths = [root / image for image in kept.origin.images]
    return all(path.is_file() and path.resolve().is_relative_to(top) for path in paths)


def photograph_of(kept: Kept, root: Path | None) -> ImageOf:
    """Reads the photograph of a face, turned as it was annotated."""
    from facelm.data.images import read_image

    def read(index: int) -> Image:
        return read_image((root or Path()) / kept.origin.images[index], int(kept.origin.orientations[index]))

    return read
