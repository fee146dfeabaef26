"""WFLW: 10,000 faces with 98 points, and six attributes that make overlapping subsets of its test faces.

Source: Wu et al., Look at Boundary, CVPR 2018, https://wywu.github.io/projects/LAB/WFLW.html. Numbers are taken as they
are, as mmpose and the HRNet authors do; the box follows from the points and is that of their files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from facelm.data.annotated import Annotated
from facelm.data.published import Forms, Found, PublishedFaceDataModule, PublishedFaces, annotated, converted, points_of
from facelm.data.w300.annotations import read_text
from facelm.geometry.boxes import box_from_landmarks

ATTRIBUTES = ("pose", "expression", "illumination", "make-up", "occlusion", "blur")
"""In the order of the authors' columns."""

_IN_FILE_NAMES = ("largepose", "expression", "illumination", "makeup", "occlusion", "blur")

_NUMBERS, _RECTANGLE = 2 * 98, 4
_LISTS = "list_98pt_rect_attr_train_test/list_98pt_rect_attr"


class WflwFaces(PublishedFaces):
    """WFLW's faces under `root`, see `PublishedFaces`."""

    title, points = "WFLW", "wflw98"
    published = ("test", *ATTRIBUTES)
    validates = ("test", ("test",))
    official: ClassVar[Mapping[str, int]] = {"train": 7500, "test": 2500}
    forms: ClassVar[Forms] = {
        "txt": {s: tuple(f"{at}{_LISTS}_{s}.txt" for at in ("WFLW_annotations/", "")) for s in ("train", "test")},
        **converted("face_landmarks_wflw_{}", {"train": ("train",), "test": ("test",)}),
    }
    photographs = ("WFLW_images", "images", "")
    parts: ClassVar[Mapping[str, Mapping[str, str]]] = {"test": dict(zip(ATTRIBUTES, _IN_FILE_NAMES, strict=True))}

    def read(self, form: str, path: Path) -> Found:
        """As `PublishedFaces.read`; a line of the authors' lists that is no face is a problem of its own."""
        if form != "txt":
            return super().read(form, path)
        found, problems = [], []
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if line.strip():
                try:
                    found.append(_from_line(line, path, number))
                except ValueError as error:
                    problems.append(str(error))
        return found, problems


def _from_line(line: str, path: Path, number: int) -> Annotated:
    """98 points, a rectangle that nothing here uses, six attributes of 0 or 1, and the photograph."""
    where = f"{path.name}: line {number}"
    wanted = _NUMBERS + _RECTANGLE + len(ATTRIBUTES) + 1
    cells = line.split(maxsplit=wanted - 1)
    if len(cells) != wanted:
        raise ValueError(f"{where} has {len(cells)} entries, and WFLW's lists {wanted}. Download the list again")
    landmarks = points_of(cells[:_NUMBERS], where)
    flags = cells[_NUMBERS + _RECTANGLE : -1]
    if not set(flags) <= {"0", "1"}:
        raise ValueError(f"{where}: an attribute is 0 or 1, got {' '.join(flags)[:80]}")
    subsets = [name for name, flag in zip(ATTRIBUTES, flags, strict=True) if flag == "1"]
    return annotated(where, path, cells[-1].strip(), landmarks, box_from_landmarks(landmarks), subsets=subsets)


class WflwFaceDataModule(PublishedFaceDataModule):
    """See `WflwFaces`."""

    reader = WflwFaces
