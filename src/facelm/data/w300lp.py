"""300W-LP: faces of 300W, turned by machine up to a profile, with 68 points.

Source: Zhu et al., Face alignment across large poses, CVPR 2016. Its photographs are 300W's, test faces among them. Of
the authors' two sets of points those of `landmarks/` are read where they are there, from which mmpose's JSON is made,
else `pt2d` beside the photograph. The box is the rectangle around the points, cut at the photograph's edge.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from facelm.data.annotated import Annotated, each_read
from facelm.data.faces import Face
from facelm.data.published import (
    Forms,
    Found,
    PublishedFaceDataModule,
    PublishedFaces,
    annotated,
    converted,
    tight_cut_box,
)
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box

FOLDERS = ("AFW", "HELEN", "IBUG", "LFPW")
"""The authors' folders. Those of mirrored photographs, AFW_Flip and so on, are not read: training mirrors by itself."""

_POINTS = 68


class W300LpFaces(PublishedFaces):
    """300W-LP's faces under `root`, see `PublishedFaces`; the authors' files have no evaluation split."""

    title, points = "300W-LP", "ibug68"
    published = ("val", "test")
    grouped = "All turned pictures of a photograph of 300W stay together."
    forms: ClassVar[Forms] = {
        "mat": {"train": FOLDERS},
        **converted(
            "face_landmarks_300wlp_{}", {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}, ("json",)
        ),
    }
    photographs = ("", "images", "train", "val", "test")

    def read(self, form: str, path: Path) -> Found:
        """As `PublishedFaces.read`; a .mat that cannot be used is a problem of its own."""
        if form != "mat":
            return super().read(form, path)
        return each_read(self._from_mat, [im for name in FOLDERS for im in sorted((self.root / name).glob("*.jpg"))])

    def group(self, face: Face) -> str:
        """The photograph of 300W: the name without the numbers of the turn and of the face."""
        return re.sub(r"(?<=\d)_\d{1,2}$", "", re.sub(r"_\d+$", "", face.name))

    def _from_mat(self, image: Path) -> Annotated:
        folder = image.parent.name
        beside = image.with_suffix(".mat")
        apart = self.root / "landmarks" / folder / f"{image.stem}_pts.mat"
        path, key = (apart, "pts_2d") if apart.is_file() else (beside, "pt2d")
        landmarks = _points_in(path, key)
        return annotated(str(path), path, f"{folder}/{image.name}", landmarks, None)

    def _box(self, landmarks: FloatArray, size: tuple[int, int]) -> Box:
        return tight_cut_box(landmarks, size)


def _points_in(path: Path, key: str) -> FloatArray:
    """The points `[68, 2]` that a MATLAB file holds as `key`, either way round."""
    from scipy.io import loadmat

    if not path.is_file():
        raise FileNotFoundError(f"there is no '{path}' with the points of the photograph beside it")
    try:
        value = loadmat(path, variable_names=[key])[key]
    except Exception as error:  # whatever a damaged file makes of scipy's reader
        raise ValueError(f"'{path}' is no .mat of 300W-LP: nothing called {key} can be read ({error})") from error
    points = np.asarray(value)
    if points.dtype.kind not in "fiu" or sorted(points.shape) != [2, _POINTS]:
        raise ValueError(f"'{path}': {key} has the shape {list(points.shape)}, and 300W-LP's is [2, {_POINTS}]")
    landmarks = np.asarray(points if points.shape[1] == 2 else points.T, dtype=np.float64)
    if not (np.isfinite(landmarks).all() and (abs(landmarks) < 1e7).all()):
        raise ValueError(f"'{path}': {key} holds a number that is no place in a photograph")
    return landmarks


class W300LpFaceDataModule(PublishedFaceDataModule):
    """See `W300LpFaces`."""

    reader = W300LpFaces
