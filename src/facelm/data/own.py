"""One's own data as a source of faces: COCO-keypoints JSON, a table, or .pts files beside the photographs.

Any number of points, as the landmark scheme says; several faces in a photograph; no folders that have to be called
something.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facelm.data.coco import read_coco
from facelm.data.datamodule import FaceDataModule
from facelm.data.faces import Face
from facelm.data.images import AS_STORED, IMAGE_ENDINGS, decoded_size, exif_orientation, image_size
from facelm.data.plausible import check_in_image, check_shape, told_doubtful
from facelm.data.table import read_table
from facelm.data.w300.annotations import read_pts, read_text, unplaced
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box, box_from_landmarks
from facelm.geometry.landmarks import LandmarkScheme, get_scheme

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotated:
    """A face as a file has it: where, its photograph's path from the root, and how to get points `[K, 2]` and box.

    `points` gives pixels counted from 0, NaN where not labelled, and raises ValueError where they cannot be used.
    """

    where: str
    image_name: str
    points: Callable[[], FloatArray]
    box: Box | None = None
    size: tuple[int, int] | None = None


class OwnFaces:
    """Faces whose photographs lie under `root`.

    Args:
        root: folder of the photographs.
        scheme: what the points are.
        files: by split (`train`, `val`, `test`): a COCO-keypoints .json, a table .csv, or a folder with .pts files
            beside their photographs; a path, else one under `root`. None for `train` is `root` itself.
        first_pixel: what the numbers call the first pixel; None: 1 in .pts, 0 in the others.
        exif: "apply" turns photographs by their EXIF orientation, as viewers and annotation tools show them; "ignore"
            does not.
        on_error: "raise" one error that names every face that cannot be used, or "skip" them with one warning.
    """

    published: tuple[str, ...] = ()
    validates: tuple[str, tuple[str, ...]] = ("val", ("val",))
    grouped = "Faces of one photograph stay together."

    def __init__(
        self,
        root: Path,
        scheme: LandmarkScheme,
        files: Mapping[str, str | None],
        *,
        first_pixel: int | None = None,
        exif: str = "apply",
        on_error: str = "raise",
    ) -> None:
        for name, value, known in (("exif", exif, ("apply", "ignore")), ("on_error", on_error, ("raise", "skip"))):
            if value not in known:
                raise ValueError(f"data.{name}={value!r} is none of {', '.join(known)}")
        self.root, self.scheme, self.files = root, scheme, files
        self.first_pixel, self.exif, self.on_error = first_pixel, exif, on_error

    def faces(self, split: str, list_file: str | None = None) -> list[Face]:
        """The faces of a split, sorted by name: the photograph's path without ending, `:2` and on for its further ones.

        Raises:
            FileNotFoundError: no such folder, file or list.
            ValueError: faces that cannot be used, all of them named; no face at all.
        """
        found, problems = self._annotated(split)
        if list_file is not None:
            listed = _read_list(Path(list_file).expanduser(), found)
            found = {name: one for name, one in found.items() if name in listed}
        faces = []
        for name, annotated in sorted(found.items()):
            try:
                faces.append(self._face(name, annotated))
            except (ValueError, OSError) as error:
                problems.append(f"{annotated.where}: {error}")
        self._report(split, faces, problems)
        if told := told_doubtful({face.name: face.landmarks_image for face in faces}, self.scheme):
            log.warning(f"{split}: {told}")
        return faces

    def subsets(self) -> list[str]:
        """`val` and `test` where there are files for them."""
        return [name for name in self.files if name != "train" and self.files[name]]

    def group(self, face: Face) -> str:
        """Its photograph."""
        return str(face.image)

    def nothing_to_evaluate(self) -> str:
        """That no file holds faces to measure."""
        return (
            "nothing to evaluate: give data.test=FILE or data.val=FILE, or data.val_list=FILE for a list of training "
            "faces; without any data.* a run is measured on the faces that validated it"
        )

    def _annotated(self, split: str) -> tuple[dict[str, Annotated], list[str]]:
        """The split's faces by name, and what is wrong with others."""
        where = self.files.get(split)
        path = self.root if where is None else Path(where).expanduser()
        if where is not None and not path.exists():
            path = self.root / where
        if not path.exists():
            raise FileNotFoundError(
                f"data.{split}={where}: no such file or folder, nor one under data.root={self.root}"
            )
        kind = "folder" if path.is_dir() else path.suffix.lower()
        readers = {"folder": self._from_pts, ".json": self._from_coco, ".csv": self._from_table}
        if kind not in readers:
            raise ValueError(f"data.{split}={where}: a .json (COCO keypoints), a .csv, or a folder of .pts files")
        found, problems = readers[kind](path)
        return _named(found), problems

    def _from_pts(self, folder: Path) -> tuple[list[Annotated], list[str]]:
        first = 1 if self.first_pixel is None else self.first_pixel
        found = []
        for path in sorted(folder.rglob("*.pts")):
            beside = (path.with_suffix(case) for e in IMAGE_ENDINGS for case in (e, e.upper()))
            image = next((one for one in beside if one.is_file()), path)
            name = image.relative_to(self.root) if image.is_relative_to(self.root) else image.absolute()
            found.append(Annotated(str(path), str(name), partial(read_pts, path, first, self.scheme.num_landmarks)))
        if not found:
            raise FileNotFoundError(f"no .pts file under '{folder}': one beside each photograph, of the same name")
        return found, []

    def _from_coco(self, path: Path) -> tuple[list[Annotated], list[str]]:
        file = read_coco(path, self.scheme.num_landmarks)
        order = self._order(file.names, str(path))
        moved = self.first_pixel or 0
        found = [
            Annotated(one.where, one.image_name, partial(_ordered, one.landmarks, order, moved), one.box, one.size)
            for one in file.faces
        ]
        return found, list(file.problems)

    def _from_table(self, path: Path) -> tuple[list[Annotated], list[str]]:
        names, rows = read_table(path, self.scheme.num_landmarks)
        order = self._order(names if self.scheme.names else (), str(path))
        moved = self.first_pixel or 0
        return [
            Annotated(row.where, row.image_name, partial(_ordered, row.landmarks, order, moved), row.box)
            for row in rows
        ], []

    def _order(self, names: tuple[str, ...], where: str) -> list[int] | None:
        """Where the scheme's points stand in a file that names its own; None: as the scheme has them."""
        if not names or not self.scheme.names or names == self.scheme.names:
            return None
        if sorted(names) != sorted(self.scheme.names):
            odd = sorted(set(names) ^ set(self.scheme.names))
            raise ValueError(
                f"'{where}' names other points than the scheme {self.scheme.name}: {', '.join(odd[:6])} in one of them "
                "only. facelm landmarks infer FILE writes the file's own scheme"
            )
        return [names.index(name) for name in self.scheme.names]

    def _face(self, name: str, annotated: Annotated) -> Face:
        image = self._photograph(annotated.image_name)
        landmarks = annotated.points()
        labelled = np.isfinite(landmarks).all(axis=1)
        orientation = AS_STORED
        if self.exif == "apply":
            with image.open("rb") as stream:
                orientation = exif_orientation(stream)
        size = decoded_size(image, orientation) if self.on_error == "skip" else image_size(image, orientation)
        if annotated.size and annotated.size != size:
            raise ValueError(
                f"'{image}' has {size[0]} x {size[1]} pixels, and the annotations were made on {annotated.size[0]} x "
                f"{annotated.size[1]}"
            )
        box = annotated.box or box_from_landmarks(landmarks[labelled])
        if not box.side > 0:
            raise ValueError("all its points are one, so it has no box")
        check_in_image(image, size, landmarks, box)
        check_shape(landmarks, str(image), self.scheme)
        return Face(name, image, landmarks, box, name.partition("/")[0], orientation)

    def _photograph(self, name: str) -> Path:
        for path in (self.root / name, self.root / "images" / name, self.root / Path(name).name):
            if path.is_file():
                if path.suffix.lower() == ".pts":
                    raise ValueError("there is no photograph of the same name beside it")
                return path
        raise FileNotFoundError(f"no photograph '{name}' under data.root={self.root}")

    def _report(self, split: str, faces: list[Face], problems: list[str]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems[:200])
        text = f"{len(problems):,} of {len(faces) + len(problems):,} faces of '{split}' cannot be used:{lines}\n"
        if problems and self.on_error == "raise":
            raise ValueError(f"{text}Repair or remove them, or leave them out with data.on_error=skip")
        if not faces:
            raise ValueError(f"{text if problems else ''}no face of '{split}' under data.root={self.root}")
        if problems:
            warnings.warn(f"{text}They are left out (data.on_error=skip)", stacklevel=3)


class OwnFaceDataModule(FaceDataModule):
    """Faces of one's own, see `OwnFaces`; `options` as in `FaceDataModule`."""

    def __init__(
        self,
        *,
        root: str,
        landmarks: str | Mapping[str, Any],
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        first_pixel: int | None = None,
        exif: Literal["apply", "ignore"] = "apply",
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> None:
        source = OwnFaces(
            Path(root).expanduser(),
            get_scheme(landmarks),
            {"train": train, "val": val, "test": test},
            first_pixel=first_pixel,
            exif=exif,
            on_error=on_error,
        )
        super().__init__(root=root, landmarks=landmarks, source=source, **options)


def _ordered(landmarks: FloatArray, order: list[int] | None, moved: int) -> FloatArray:
    if said := unplaced(landmarks):
        raise ValueError(
            f"{said}. Mark them as not labelled (visibility 0 in COCO, empty cells in a table), or leave the face out"
        )
    return (landmarks if order is None else landmarks[order]) - moved


def _named(found: Iterable[Annotated]) -> dict[str, Annotated]:
    """Faces by name; the second of a photograph is NAME:2."""
    named: dict[str, Annotated] = {}
    counts: dict[str, int] = {}
    for annotated in found:
        name = re.sub(r"\.[A-Za-z0-9]{2,5}$", "", annotated.image_name)
        counts[name] = number = counts.get(name, 0) + 1
        named[name if number == 1 else f"{name}:{number}"] = annotated
    return named


def _read_list(path: Path, known: Mapping[str, Annotated]) -> set[str]:
    if not path.is_file():
        raise FileNotFoundError(f"no list file '{path}'; it names faces, one a line")
    names = {line.strip() for line in read_text(path).splitlines() if line.strip()}
    if unknown := sorted(names - known.keys()):
        raise ValueError(
            f"'{path}': {len(unknown)} of {len(names)} names are no faces, for example '{unknown[0]}'. A name is the "
            f"photograph's path without ending, like '{min(known, default='')}'"
        )
    return names
