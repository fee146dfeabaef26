"""A pack as a source of faces, and as Lightning sees it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from facelm.data.annotated import read_list
from facelm.data.augment import Augmentation
from facelm.data.datamodule import FaceDataModule
from facelm.data.dataset import ImageSource
from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face
from facelm.data.storage.pack import KINDS, Pack, PackedCrops
from facelm.data.storage.staging import staged
from facelm.files import typed
from facelm.geometry.landmarks import LandmarkScheme, get_scheme

log = logging.getLogger(__name__)


class PackedFaces:
    """The faces of a pack, opened when it is first asked for; see `FaceSource`.

    Args:
        path: the pack.
        scheme: what the points are to be.
        pixel_origin: what training calls the first pixel, see `FaceDataModule`.
        stage_to: folder on the node's own disk that it is copied to first.
        on_error: "raise" at a face whose crop is damaged, when it is read; or "skip", which reads all of them first.
    """

    def __init__(
        self, path: Path, scheme: LandmarkScheme, *, pixel_origin: int, stage_to: Path | None, on_error: str
    ) -> None:
        self.path, self.scheme, self.pixel_origin = path, scheme, pixel_origin
        self.stage_to, self.on_error = stage_to, on_error

    @cached_property
    def pack(self) -> Pack:
        """The pack, or its copy.

        Raises:
            OSError: it cannot be read or copied.
            ValueError: it is damaged, or its points are not those of the run.
        """
        pack = Pack(staged(self.path, self.stage_to) if self.stage_to else self.path)
        have, want = pack.facts.scheme, self.scheme
        if (have.num_landmarks, have.names, have.mirror) != (want.num_landmarks, want.names, want.mirror):
            raise ValueError(
                f"'{self.path}' holds faces of the scheme {have.name}, {have.num_landmarks} points, and the run has "
                f"{want.name}: give landmarks={have.name}, or the file that facelm info PACK --scheme FILE writes"
            )
        if pack.facts.pixel_origin != self.pixel_origin:
            raise ValueError(
                f"'{self.path}' was made with data.pixel_origin={pack.facts.pixel_origin}, and here it is "
                f"{self.pixel_origin}: make another, facelm pack DATA data.pixel_origin={self.pixel_origin} --out FILE"
            )
        return pack

    @property
    def published(self) -> tuple[str, ...]:
        """As the packed data set has them."""
        return self.pack.facts.published

    @property
    def validates(self) -> tuple[str, tuple[str, ...]]:
        """As the packed data set has them."""
        return self.pack.facts.validates

    @property
    def grouped(self) -> str:
        """As the packed data set has it."""
        return self.pack.facts.grouped

    def faces(self, split: str, list_file: str | None = None) -> FaceArrays:
        """The faces of a split, in the packed order; of a list file, those alone that it names.

        Raises:
            FileNotFoundError: no list.
            ValueError: no such split, or the list names other faces.
        """
        numbers = self.pack.numbers(split)
        faces = self.pack.faces[numbers[~np.isin(numbers, list(self._damaged))]]
        if list_file is None:
            return faces
        names = faces.names()
        listed = read_list(typed(list_file), dict.fromkeys(names))
        return faces[np.array([name in listed for name in names], np.bool_)]

    def subsets(self) -> list[str]:
        """All splits but the one that trains."""
        return [split for split in self.pack.facts.splits if split != "train"]

    def group(self, face: Face) -> str:
        """The place of its photograph or clip among all of them, in digits."""
        return f"{self.pack.group[number_of(face)]:012d}"

    def nothing_to_evaluate(self) -> str:
        """That it holds faces for training alone."""
        return (
            f"nothing to evaluate in '{self.path}': it holds training faces only. Give data.val_list=FILE for a list "
            "of them; without any data.* a run is measured on the faces that validated it"
        )

    @cached_property
    def _damaged(self) -> frozenset[int]:
        if self.on_error != "skip" or not (found := self.pack.damaged()):
            return frozenset()
        names = ", ".join(self.pack.faces[number].name for number in found[:8])
        log.warning(f"'{self.path}': {len(found):,} damaged faces are left out (data.on_error=skip): {names}")
        return frozenset(found)


def number_of(face: Face) -> int:
    """The number of a face in its pack."""
    return int(face.image.name)


class PackedFaceDataModule(FaceDataModule):
    """The faces and crops of a pack, `file` or, as every data set has one, `root`, which counts. `options` as ever.

    `stage_to` is a folder on the node's own disk that it is copied to once.
    """

    def __init__(
        self,
        *,
        landmarks: Any,
        file: str | None = None,
        root: str | None = None,
        stage_to: str | None = None,
        pixel_origin: int = 1,
        on_error: Literal["raise", "skip"] = "raise",
        cache: str = "none",
        **options: Any,
    ) -> None:
        path = root or file
        if not path:
            raise ValueError("data.file= is missing: it names the pack, as facelm pack DATA --out FILE makes it")
        if cache != "none":
            raise ValueError(f"data.cache={cache}: a pack holds its crops, and none are cached. Leave data.cache out")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"data.on_error={on_error!r} is none of raise, skip")
        self._packed_faces = PackedFaces(
            typed(path),
            get_scheme(landmarks),
            pixel_origin=pixel_origin,
            stage_to=typed(stage_to) if stage_to else None,
            on_error=on_error,
        )
        super().__init__(root=path, landmarks=landmarks, source=self._packed_faces, **options)

    def originals(self, faces: Sequence[Face]) -> PackedCrops:
        """The packed crops that evaluation sees.

        Raises:
            ValueError: they were made for another crop.
        """
        wanted, stored = self.crop, self._packed_faces.pack.facts.crop
        if wanted != stored:
            raise ValueError(
                f"'{self.root}' holds crops of {stored.crop_size} pixels and scale {stored.crop_scale:g}, and here "
                f"they have {self.crop_size} and {self.crop_scale:g}: facelm pack DATA crop.size={self.crop_size} "
                f"crop.scale={self.crop_scale:g} --out FILE makes such a pack"
            )
        return PackedCrops(self._packed_faces.pack, KINDS[1], [number_of(face) for face in faces])

    def _sources(self) -> tuple[ImageSource, ImageSource | None]:
        """The packed surroundings of training faces, and the crops of those that validate."""
        train = self._packed(self.train_faces, self.augmentation)
        return train, self.originals(self.val_faces) if self.val_faces else None

    def _packed(self, faces: Sequence[Face], augmentation: Augmentation | None) -> PackedCrops:
        if augmentation is None:
            return self.originals(faces)
        crops = PackedCrops(self._packed_faces.pack, KINDS[0], [number_of(face) for face in faces])
        needed = self.crop_scale * augmentation.geometry.reach
        if needed > crops.reach + 1e-9:
            raise ValueError(
                f"'{self.root}' holds what lies up to {crops.reach:.4f} sides of the box from a face, and this "
                f"augmentation reaches {needed:.4f}: make a pack with it, facelm pack DATA experiment=NAME --out FILE"
            )
        return crops
