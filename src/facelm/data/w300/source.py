"""300W as a source of faces."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face
from facelm.data.storage.watched import Watched
from facelm.data.w300.index import index_faces, present_subsets, watched_files


class W300Faces:
    """The faces under `root`; `how` as in `index_faces`."""

    published: tuple[str, ...] = ("common", "challenge", "test")
    validates: tuple[str, tuple[str, ...]] = ("full", ("common", "challenge"))
    grouped = (
        "Faces whose names differ only in an underscore and one or two digits behind a digit (PHOTO1_1, PHOTO1_2) are "
        "taken for faces of one photograph or frames of one clip and stay together; data.val_list=FILE names others."
    )

    def __init__(self, root: Path, **how: Any) -> None:
        self.root = root
        self._index: Callable[..., FaceArrays] = partial(index_faces, root, **how)
        self._how = how

    def faces(self, split: str, list_file: str | None = None) -> FaceArrays:
        """The faces of a split, sorted by name, see `index_faces`."""
        return self._index(split, list_file=list_file)

    def watches(self, split: str, list_file: str | None = None) -> Watched:
        """What `faces` rests on."""
        return watched_files(self.root, split, list_file, **self._how)

    def subsets(self) -> list[str]:
        """Those of common, challenge and test that have photographs."""
        return [name for name in present_subsets(self.root) if name != "full"]

    def group(self, face: Face) -> str:
        """Its name without the number of the face or frame: AFW and Helen have PHOTO_1, PHOTO_2, ..."""
        return re.sub(r"(?<=\d)_\d{1,2}$", "", face.name)  # lfpw's image_0001 has no such ending

    def nothing_to_evaluate(self) -> str:
        """That no folder of a test subset is there."""
        return (
            f"nothing to evaluate under data.root={self.root}: no common (helen/testset, lfpw/testset), challenge "
            "(ibug) or test (300W/01_Indoor, 02_Outdoor) faces. Set data.root=..., or data.val_list=FILE for a "
            "list of training faces; without any data.* a run is measured on the faces that validated it"
        )
