"""What the readers of published data sets share: which files hold a split, names, photographs, and official counts.

A data set comes in several forms: as its authors ship it, as mmpose converted it (COCO-keypoints JSON) and as the HRNet
authors did (CSV). All forms of one give the same faces. A face is called as its photograph without folder and ending,
since forms differ in folders and never in that; of several in a photograph the leftmost has the plain name, the next
ones have `:2`, `:3` and so on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.data.annotated import Annotated
from facelm.data.coco import Keys, read_coco
from facelm.data.datamodule import FaceDataModule
from facelm.data.face_arrays import FaceArrays
from facelm.data.images import IMAGE_ENDINGS
from facelm.data.own import OwnFaces
from facelm.data.table import read_table
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box, box_from_landmarks, cut_box
from facelm.geometry.landmarks import LandmarkScheme, get_scheme

log = logging.getLogger(__name__)

Forms = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Form -> split -> the paths under `root` that hold its annotations, of which the first that is there is read."""

_FAR = 1e7

Found = tuple[list[Annotated], list[str]]
"""Annotated faces, and what is wrong with others."""


class PublishedFaces(OwnFaces):
    """The faces of a published data set under `root`; one subclass for each, which says what the names below mean.

    `title` and `points` (its scheme) say what it is, `forms` where its annotations are, `official` how many faces its
    authors count. `photographs` are folders under `root` in which photographs are looked for. `parts` are subsets of
    an evaluation split that have files of their own: split -> subset -> its part of the file's name.

    Args:
        root: folder of the data set.
        scheme: what the points are; any with as many points as the data set has.
        annotations: one of the forms of `forms`, or "auto" for the first that is there.
        exif, on_error: as in `OwnFaces`.
    """

    title: ClassVar[str]
    points: ClassVar[str]
    forms: ClassVar[Forms]
    official: ClassVar[Mapping[str, int]] = {}
    photographs: ClassVar[tuple[str, ...]] = ("images", "")
    parts: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    keys: ClassVar[Keys] = Keys(cut=True)
    judged = False  # profiles, by the thousand

    def __init__(
        self,
        root: Path,
        scheme: LandmarkScheme | None = None,
        *,
        annotations: str = "auto",
        exif: str = "apply",
        on_error: str = "raise",
    ) -> None:
        own = get_scheme(self.points)
        if annotations not in ("auto", *self.forms):
            raise ValueError(f"data.annotations={annotations!r} is none of auto, {', '.join(self.forms)}")
        if scheme and scheme.num_landmarks != own.num_landmarks:
            raise ValueError(
                f"{self.title} has {own.num_landmarks} points, and the scheme {scheme.name} has "
                f"{scheme.num_landmarks}; leave landmarks= out, and it is {own.name}"
            )
        super().__init__(root, scheme or own, {}, exif=exif, on_error=on_error)
        self.chosen = list(self.forms) if annotations == "auto" else [annotations]

    def faces(self, split: str, list_file: str | None = None) -> FaceArrays:
        """The faces of a split, sorted by name, see the module; fewer than the official count are said in the log.

        Raises:
            FileNotFoundError: no annotations of the split, no photographs or no list.
            ValueError: faces that cannot be used, all of them named; no face at all.
        """
        found = super().faces(split, list_file)
        official = self.official.get(split, 0)
        if list_file is None and len(found) < official:
            log.warning(
                f"{self.title} is incomplete under data.root={self.root}: {len(found):,} faces of '{split}', and its "
                f"authors count {official:,}; numbers do not compare with published ones"
            )
        return found

    def subsets(self) -> list[str]:
        """The evaluation splits whose annotations are there."""
        names = dict.fromkeys(split for splits in self.forms.values() for split in splits if split != "train")
        return [split for split in names if self._place(split)]

    def nothing_to_evaluate(self) -> str:
        """That there are no annotations of an evaluation split."""
        return (
            f"nothing to evaluate under data.root={self.root}: no {self.title} annotations but those of training. Set "
            "data.root=..., or data.val_list=FILE for a list of training faces; without any data.* a run is measured "
            "on the faces that validated it"
        )

    def prepare(self) -> None:
        """Makes what reading needs and the authors' files hold in another way; nothing for most."""

    def unpack(self, files: Sequence[Path], report: Callable[[str], object] = print) -> None:
        """Writes what the authors' files hold under `root`, where facelm can.

        Raises:
            ValueError: it cannot, or the files are not the authors'.
        """
        if files:
            raise ValueError(
                f"{files[0]}: {self.title}'s archives are unpacked with tar or unzip, into {self.root}; without a file "
                "this command counts what is there"
            )

    def count_table(self) -> str:
        """Annotated faces with a photograph, found against official, of each split: as text."""
        lines = [f"{'':<16}{'found':>8}{'official':>10}"]
        for split in dict.fromkeys((*(split for splits in self.forms.values() for split in splits), *self.official)):
            found = self._annotated(split)[0].values() if self._place(split) else ()
            official = f"{self.official[split]:,}" if split in self.official else "-"
            lines.append(f"{split:<16}{sum(map(self._has_photograph, found)):>8,}{official:>10}")
        return "\n".join(lines)

    def _has_photograph(self, one: Annotated) -> bool:
        try:
            return self.photograph(one).is_file()
        except (OSError, ValueError):
            return False

    def read(self, form: str, path: Path) -> Found:
        """The faces of an annotation file or folder of one of the data set's forms.

        Raises:
            ValueError: it is no such file.
        """
        return self._from_hrnet(path) if form == "csv" else self._from_mmpose(path)

    def _annotated(self, split: str) -> tuple[dict[str, Annotated], list[str]]:
        place = self._place(split)
        if place is None:
            looked = [name for form in self.chosen for name in self.forms[form].get(split, ())]
            raise FileNotFoundError(
                f"no {self.title} annotations of '{split}' under data.root={self.root}: looked for "
                f"{', '.join(looked) or 'nothing, as this form has no such split'}. docs/data.md says what is read; "
                "set data.root=FOLDER"
            )
        form, path = place
        found, problems = self.read(form, path)
        if split == "train":
            found = [replace(one, subsets=()) for one in found]
        return _named(self._marked(split, form, path, found)), problems

    def _place(self, split: str) -> tuple[str, Path] | None:
        """The form and path of the split's annotations."""
        for form in self.chosen:
            for name in self.forms[form].get(split, ()):
                if (self.root / name).exists():
                    return form, self.root / name
        return None

    def _marked(self, split: str, form: str, path: Path, found: list[Annotated]) -> list[Annotated]:
        """`found` with the subsets that have files beside the split's: `..._test_blur.json` beside `..._test.json`."""
        members: dict[Any, list[str]] = {}
        for subset, part in self.parts.get(split, {}).items():
            beside = path.with_name(f"{path.stem}_{part}{path.suffix}")
            if beside.is_file():
                for one in self.read(form, beside)[0]:
                    members.setdefault(_key(one), []).append(subset)
        return [replace(one, subsets=(*one.subsets, *members.get(_key(one), ()))) for one in found]

    def _from_mmpose(self, path: Path) -> Found:
        file = read_coco(path, self.scheme.num_landmarks, self.keys)
        return [
            annotated(one.where, path, one.image_name, one.landmarks, one.box, one.size, one.occluded)
            for one in file.faces
        ], list(file.problems)

    def _from_hrnet(self, path: Path) -> Found:
        table = read_table(path, self.scheme.num_landmarks)
        found = [annotated(row.where, path, row.image_name, row.landmarks, row.box) for row in table.rows]
        return found, table.problems

    def photograph(self, annotated: Annotated) -> Path:
        """By its path in one of the folders, else by its file name anywhere under `root`."""
        name = annotated.image_name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{checked.shown(name)} is no path within the folder of photographs")
        for folder in self.photographs:
            if (path := self.root / folder / name).is_file():
                return path
        found = self._by_name.get(PurePosixPath(name).name, [])
        if len(found) == 1:
            return found[0]
        wrong = f"is there {len(found)} times" if found else "is not there"
        raise FileNotFoundError(f"the photograph '{name}' {wrong} under data.root={self.root}")

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """Every photograph under `root` by its file name, in whatever folder."""
        found: dict[str, list[Path]] = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS:
                    found.setdefault(name, []).append(Path(folder, name))
        return found


class PublishedFaceDataModule(FaceDataModule):
    """The faces of a published data set, see `PublishedFaces`; `options` as in `FaceDataModule`."""

    reader: ClassVar[type[PublishedFaces]]

    def __init__(
        self,
        *,
        root: str,
        landmarks: str | Mapping[str, Any],
        annotations: str = "auto",
        exif: Literal["apply", "ignore"] = "apply",
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> None:
        self._published = self.reader(
            Path(root).expanduser(), get_scheme(landmarks), annotations=annotations, exif=exif, on_error=on_error
        )
        super().__init__(root=root, landmarks=landmarks, source=self._published, **options)

    def prepare_data(self) -> None:
        """Lightning calls this on one process of a machine."""
        self._published.prepare()


def annotated(
    where: str,
    file: Path,
    image_name: str,
    landmarks: FloatArray,
    box: Box | None,
    size: tuple[int, int] | None = None,
    occluded: NDArray[np.bool_] | None = None,
    subsets: Sequence[str] = (),
) -> Annotated:
    """A face whose points `[K, 2]` are read already, in pixels counted from 0."""
    get: Callable[[], FloatArray] = partial(np.asarray, landmarks)
    return Annotated(where, file, image_name, get, box, size, occluded, tuple(subsets))


def converted(pattern: str, splits: Mapping[str, Sequence[str]], forms: Sequence[str] = ("json", "csv")) -> Forms:
    """The files of a data set that others converted: `pattern` with a split's name, under `root` or annotations/."""
    return {
        form: {
            split: tuple(f"{at}{pattern.format(name)}.{form}" for name in names for at in ("", "annotations/"))
            for split, names in splits.items()
        }
        for form in forms
    }


def tight_cut_box(landmarks: FloatArray, size: tuple[int, int]) -> Box:
    """The rectangle around points `[L, 2]` as mmpose's converters have it, see `cut_box`."""
    return cut_box(np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)]), size)


def points_of(cells: Sequence[str], where: str) -> FloatArray:
    """The points `[K, 2]` that 2 K cells x y x y ... of a text file say.

    Raises:
        ValueError: a cell is no place in a photograph; the message starts with `where`.
    """
    numbers = []
    for i, cell in enumerate(cells):
        try:
            if "_" in cell:  # Python's float reads 1_0 as 10
                raise ValueError(cell)
            numbers.append(checked.number(float(cell), "it", -_FAR, _FAR))
        except ValueError:
            raise ValueError(
                f"{where}: {'xy'[i % 2]} of point {i // 2} is {checked.shown(cell)}, no place in a photograph"
            ) from None
    return np.array(numbers, dtype=np.float64).reshape(-1, 2)


def _named(found: Sequence[Annotated]) -> dict[str, Annotated]:
    """Faces by name, whatever the order of their file."""
    named: dict[str, Annotated] = {}
    counts: dict[str, int] = {}
    for _, one in sorted(((_place_in_photograph(one), one) for one in found), key=lambda pair: pair[0]):
        name = PurePosixPath(one.image_name).stem
        counts[name] = number = counts.get(name, 0) + 1
        named[name if number == 1 else f"{name}:{number}"] = one
    return named


def _place_in_photograph(one: Annotated) -> tuple[float, ...]:
    points = one.points()
    box = box_from_landmarks(points[np.isfinite(points).all(axis=1)])
    return (*box.center, box.side)


def _key(one: Annotated) -> tuple[str, bytes]:
    """By which a face is known again in another file of the same form."""
    return PurePosixPath(one.image_name).name, one.points().tobytes()
