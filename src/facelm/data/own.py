"""One's own data as a source of faces: COCO-keypoints JSON, a table, or .pts files beside the photographs.

Any number of points, as the landmark scheme says; several faces in a photograph; no folders that have to be called
something.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facelm.data.annotated import Annotated, in_several, named, order_of, ordered, read_list, several
from facelm.data.coco import read_coco
from facelm.data.datamodule import FaceDataModule
from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face
from facelm.data.images import AS_STORED, IMAGE_ENDINGS, decoded_size, exif_orientation, image_size
from facelm.data.photographs import Photographs
from facelm.data.plausible import check_in_image, check_pixels, check_shape, doubts, told_doubtful
from facelm.data.storage.all_cores import over_cores
from facelm.data.storage.watched import Watched, options_of
from facelm.data.table import Table, read_table
from facelm.data.w300.annotations import read_pts
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box, box_from_landmarks
from facelm.geometry.landmarks import LandmarkScheme, get_scheme

log = logging.getLogger(__name__)

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What a column of splits may say, in lower case."""


class OwnFaces:
    """Faces whose photographs lie under `root`.

    Args:
        root: folder of the photographs.
        scheme: what the points are.
        files: by split (`train`, `val`, `test`): a COCO-keypoints .json, a table .csv, or a folder with .pts files
            beside their photographs; a path, else one under `root`; or several. None for `train` is `root` itself.
        split_column: the column of the table for `train` that says train, val or test; `files` then name no others.
        first_pixel: what the numbers call the first pixel; None: 1 in .pts, 0 in the others.
        exif: "apply" turns photographs by their EXIF orientation, as viewers and annotation tools show them; "ignore"
            does not.
        on_error: "raise" one error that names every face that cannot be used, or "skip" them with one warning.
    """

    published: tuple[str, ...] = ()
    validates: tuple[str, tuple[str, ...]] = ("val", ("val",))
    grouped = "Faces of one photograph stay together."
    judged = True  # points that are no face from the front, or nearly, are a mistake

    def __init__(
        self,
        root: Path,
        scheme: LandmarkScheme,
        files: Mapping[str, str | Sequence[str] | None],
        *,
        split_column: str | None = None,
        first_pixel: int | None = None,
        exif: str = "apply",
        on_error: str = "raise",
    ) -> None:
        for name, value, known in (("exif", exif, ("apply", "ignore")), ("on_error", on_error, ("raise", "skip"))):
            if value not in known:
                raise ValueError(f"data.{name}={value!r} is none of {', '.join(known)}")
        self.root, self.scheme, self.files = root, scheme, files
        self.first_pixel, self.exif, self.on_error = first_pixel, exif, on_error
        self.split_column, self._photographs = split_column, Photographs(root)
        if split_column and (files.get("val") or files.get("test")):
            raise ValueError(
                f"data.split_column={split_column} says which rows are val and test: leave out data.val and test"
            )

    def faces(self, split: str, list_file: str | None = None) -> FaceArrays:
        """The faces of a split, sorted by name: the photograph's path without ending, `:2` and on for its further ones.

        Raises:
            FileNotFoundError: no such folder, file or list.
            ValueError: faces that cannot be used, all of them named; no face at all.
        """
        faces, problems = self.find(split, list_file)
        self._report(split, faces, list(problems))
        found = doubts(faces.landmarks_image, self.scheme) if self.judged else {}
        if told := told_doubtful({faces[row].name: why for row, why in found.items()}):
            log.warning(f"{split}: {told}")
        return faces

    def watches(self, split: str, list_file: str | None = None) -> Watched:
        """What `faces` rests on: all below `root`, the split's files and folders; raises FileNotFoundError."""
        where = several(self.files.get("train" if self.split_column else split))
        paths = [self._path(split, one) for one in where] + ([Path(list_file).expanduser()] if list_file else [])
        folders = (self.root, *(path for path in paths if path.is_dir()))
        return Watched(options_of(self), folders, tuple(path for path in paths if not path.is_dir()), below=True)

    def find(self, split: str, list_file: str | None = None) -> tuple[FaceArrays, dict[str, Annotated | None]]:
        """The faces that can be used, and what is wrong with others, with the annotation where it could be read."""
        found, told = self._annotated(split)
        problems: dict[str, Annotated | None] = dict.fromkeys(told)
        if list_file is not None:
            listed = read_list(Path(list_file).expanduser(), found)
            found = {name: one for name, one in found.items() if name in listed}
        names = sorted(found)
        parts = over_cores(lambda start, stop: self._read(found, names[start:stop]), len(names))
        problems |= {said: found[name] for _, wrong in parts for name, said in wrong.items()}
        return FaceArrays.joined([faces for faces, _ in parts]), problems

    def _read(self, found: Mapping[str, Annotated], names: Sequence[str]) -> tuple[FaceArrays, dict[str, str]]:
        """The faces of these names, and by name what is wrong with others."""
        faces: list[Face] = []
        wrong: dict[str, str] = {}
        for name, one in ((name, found[name]) for name in names):
            try:
                faces.append(self._face(name, one))
            except (ValueError, OSError) as error:
                wrong[name] = f"{one.where}: {error}"
        return FaceArrays.of(faces), wrong

    def subsets(self) -> list[str]:
        """`val` and `test` where there are files for them."""
        if self.split_column:
            tables = [self._table(self._path("train", one)) for one in several(self.files["train"])]
            there = {SPLITS[row.split] for table in tables for row in table.rows}
            return [name for name in ("val", "test") if name in there]
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
        parts = [self._part(split, one) for one in several(self.files.get("train" if self.split_column else split))]
        if twice := in_several([found for found, _ in parts]):
            log.warning(
                f"{len(twice):,} names of photographs stand in more than one file of data.{split}, for example "
                f"'{twice[0]}': each annotation is a face of its own"
            )
        return named(one for found, _ in parts for one in found), [one for _, problems in parts for one in problems]

    def _part(self, split: str, where: str | None) -> tuple[list[Annotated], list[str]]:
        """The faces of one file or folder, and what is wrong with others."""
        path = self._path(split, where)
        kind = "folder" if path.is_dir() else path.suffix.lower()
        readers: dict[str, Callable[[Path], tuple[list[Annotated], list[str]]]] = {
            "folder": self._from_pts,
            ".json": self._from_coco,
            ".csv": partial(self._from_table, split),
        }
        if kind not in readers:
            raise ValueError(f"data.{split}={where}: a .json (COCO keypoints), a .csv, or a folder of .pts files")
        if self.split_column and kind != ".csv":
            raise ValueError(
                f"data.split_column={self.split_column} is a column of a .csv, and data.train={where} is none"
            )
        return readers[kind](path)

    def _path(self, split: str, where: str | None) -> Path:
        """The file or folder of a split: as it is named, or so under the root."""
        if where is None:
            return self.root
        for path in (Path(where).expanduser(), self.root / where):
            if path.exists():
                return path
        raise FileNotFoundError(f"data.{split}={where}: no such file or folder, nor one under data.root={self.root}")

    def _from_pts(self, folder: Path) -> tuple[list[Annotated], list[str]]:
        first = 1 if self.first_pixel is None else self.first_pixel
        found = []
        for path in sorted(folder.rglob("*.pts")):
            beside = (path.with_suffix(case) for e in IMAGE_ENDINGS for case in (e, e.upper()))
            image = next((one for one in beside if one.is_file()), path)
            name = image.relative_to(self.root) if image.is_relative_to(self.root) else image.absolute()
            points = partial(read_pts, path, first, self.scheme.num_landmarks)
            found.append(Annotated(str(path), path, str(name), points))
        if not found:
            raise FileNotFoundError(f"no .pts file under '{folder}': one beside each photograph, of the same name")
        return found, []

    def _from_coco(self, path: Path) -> tuple[list[Annotated], list[str]]:
        file = read_coco(path, self.scheme.num_landmarks)
        for remark in file.remarks:
            log.warning(f"'{path}': {remark}")
        order = order_of(file.names, self.scheme, str(path))
        moved = self.first_pixel or 0
        found = [
            Annotated(
                one.where,
                path,
                one.image_name,
                partial(ordered, one.landmarks, order, moved),
                one.box,
                one.size,
                one.occluded if order is None else one.occluded[order],
            )
            for one in file.faces
        ]
        return found, list(file.problems)

    def _from_table(self, split: str, path: Path) -> tuple[list[Annotated], list[str]]:
        table = self._table(path)
        order = order_of(table.names, self.scheme, str(path))
        moved = self.first_pixel or 0
        return [
            Annotated(row.where, path, row.image_name, partial(ordered, row.landmarks, order, moved), row.box)
            for row in table.rows
            if self.split_column is None or SPLITS[row.split] == split
        ], table.problems

    def _table(self, path: Path) -> Table:
        table = read_table(path, self.scheme.num_landmarks, self.split_column)
        if self.split_column and (unknown := sorted({row.split for row in table.rows} - SPLITS.keys())):
            said = ", ".join(map(repr, unknown[:4]))
            raise ValueError(f"'{path}': the column {self.split_column!r} says {said}; known: {', '.join(SPLITS)}")
        return table

    def _face(self, name: str, annotated: Annotated) -> Face:
        image = self.photograph(annotated)
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
        box = annotated.box or self._box(landmarks[labelled], size)
        check_pixels(landmarks)
        if not box.side > 0:
            raise ValueError("one point is labelled, and no box is given")
        check_in_image(image, size, landmarks, box)
        if self.judged:
            check_shape(landmarks, str(image), self.scheme)
        folder = name.partition("/")[0]
        return Face(name, image, landmarks, box, folder, orientation, annotated.subsets, annotated.occluded)

    def _box(self, landmarks: FloatArray, size: tuple[int, int]) -> Box:
        """Of a face without one, from its labelled points `[L, 2]` on a photograph of `size` (width, height)."""
        return box_from_landmarks(landmarks)

    def photograph(self, annotated: Annotated) -> Path:
        """Where its photograph lies; raises ValueError or FileNotFoundError where that is not known."""
        if annotated.image_name.lower().endswith(".pts"):
            raise ValueError("there is no photograph of the same name beside it")
        return self._photographs.find(annotated.image_name, annotated.file)

    def _report(self, split: str, faces: Sequence[Face], problems: list[str]) -> None:
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
        train: str | Sequence[str] | None = None,
        val: str | Sequence[str] | None = None,
        test: str | Sequence[str] | None = None,
        split_column: str | None = None,
        first_pixel: int | None = None,
        exif: Literal["apply", "ignore"] = "apply",
        on_error: Literal["raise", "skip"] = "raise",
        **options: Any,
    ) -> None:
        scheme = get_scheme(landmarks)
        if scheme.num_landmarks > 2 and scheme.mirror == tuple(range(scheme.num_landmarks)):
            log.warning(
                f"the scheme {scheme.name} has no `mirror`, so left and right stay in mirrored photographs: "
                "write the pairs into it, or set augment.geometry.flip_probability=0 and inference.flip=none"
            )
        source = OwnFaces(
            Path(root).expanduser(),
            scheme,
            {"train": train, "val": val, "test": test},
            split_column=split_column,
            first_pixel=first_pixel,
            exif=exif,
            on_error=on_error,
        )
        super().__init__(root=root, landmarks=landmarks, source=source, **options)
