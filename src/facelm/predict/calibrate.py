"""What a detector's boxes mean, measured on annotated faces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from facelm.data.faces import Face
from facelm.data.w300.layout import parse_name
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import BoxConvention, measure_convention, overlaps
from facelm.predict.box_table import BoxTable

LEAST_OVERLAP = 0.3
"""Intersection over union with the training box from which on a detection counts as that face."""


@dataclass(frozen=True)
class Calibration:
    """A measured `convention`, how many faces it rests on, and the names of the faces that were not `found`."""

    convention: BoxConvention
    found: int
    missed: tuple[str, ...]

    def report(self) -> str:
        """The measurement in words and numbers, and the convention as Python and for the command line."""
        convention = self.convention
        x, y = convention.shift
        sd_x, sd_y, sd_scale = np.sqrt(np.diag(np.array(convention.covariance)))
        total = self.found + len(self.missed)
        rows = "\n".join(f"        ({', '.join(f'{value:g}' for value in row)})," for row in convention.covariance)
        return (
            f"{self.found} of {total} faces found ({self.found / total:.1%}), {len(self.missed)} not\n"
            f"from a box to the training box    mean     sd from face to face\n"
            f"  shift in x, of the longer side  {x:+.4f}  {sd_x:.4f}\n"
            f"  shift in y                      {y:+.4f}  {sd_y:.4f}\n"
            f"  scale                            {convention.scale:.4f}  {sd_scale:.4f} (of its logarithm)\n\n"
            f"on the command line: --convention={x:g},{y:g},{convention.scale:g}\n"
            f"in Python:\n"
            f"from facelm.geometry.boxes import BoxConvention\n"
            f"BoxConvention(\n    {convention.name!r},\n    shift=({x:g}, {y:g}),\n    scale={convention.scale:g},\n"
            f"    covariance=(\n{rows}\n    ),\n    source={convention.source!r},\n)"
        )


def calibrate(name: str, faces: Sequence[Face], boxes_of: Callable[[Face], FloatArray], source: str) -> Calibration:
    """The convention of the boxes that `boxes_of` gives for a face's photograph.

    Of several boxes the one that overlaps most with the training box is the face's, from `LEAST_OVERLAP` on.

    Raises:
        ValueError: fewer than two faces were found.
    """
    matched, truth, missed = [], [], []
    for face in faces:
        boxes = boxes_of(face)
        shared = overlaps(boxes, face.box.xyxy[None])[:, 0]
        if len(boxes) and shared.max() >= LEAST_OVERLAP:
            matched.append(boxes[shared.argmax()])
            truth.append(face.box)
        else:
            missed.append(face.name)
    if len(matched) < 2:
        raise ValueError(
            f"{len(matched)} of {len(faces)} faces have a box that overlaps with them by {LEAST_OVERLAP:.0%} or more. "
            "Boxes are x1,y1,x2,y2 in pixels of the annotated images; 100 faces or more give a steady measurement"
        )
    convention = measure_convention(name, np.array(matched), truth, f"{source}: {len(matched)} of {len(faces)} faces")
    return Calibration(convention, len(matched), tuple(missed))


def lookup(table: BoxTable, faces: Sequence[Face]) -> Callable[[Face], FloatArray]:
    """Gives a face's boxes out of `table`, whose image names are paths in 300W's layout, or file names where unique.

    Raises:
        ValueError: no name in the table belongs to a face.
    """
    full = {face.name: face for face in faces}
    bare = defaultdict(list)
    for face in faces:
        bare[face.name.rsplit("/", 1)[-1]].append(face.name)
    boxes: dict[str, FloatArray] = {}
    for image, rows in table.items():
        folder, name = parse_name(image)
        owners = [f"{folder}/{name}"] if folder else bare[name] if len(bare[name]) == 1 else []
        boxes |= {owner: rows for owner in owners if owner in full}
    if not boxes:
        some = ", ".join(repr(image) for image in list(table)[:3])
        raise ValueError(
            f"none of the {len(table)} image names in the box file ({some}, ...) is one of the {len(faces)} faces "
            f"({faces[0].name if faces else 'none'}, ...). Write paths as in 300W's folders, or choose --split"
        )
    return lambda face: boxes.get(face.name, np.empty((0, 4)))
