"""Faces as other packages find them, where the user has installed these, for `benchmarks.wild --package`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from facelm.geometry.affine import FloatArray, Image
from facelm.predict.prediction import FaceLandmarks

FindFaces = Callable[[Image], Sequence[FaceLandmarks]]

# Which of mediapipe's 468 points lie where the 68 do. Its jaw is another line: that is for finding, not for errors.
_IBUG68_IN_MEDIAPIPE = (
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)


def face_alignment() -> FindFaces:
    """The package of that name, with its own detector; it fetches its weights on first use."""
    import face_alignment

    network = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, device="cpu")
    return lambda image: [_face(points) for points in network.get_landmarks(image) or []]


def mediapipe() -> FindFaces:
    """The face mesh of mediapipe, whose models are in the package (before 0.10.30)."""
    import mediapipe

    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, max_num_faces=20)

    def find(image: Image) -> list[FaceLandmarks]:
        found = mesh.process(image).multi_face_landmarks or []
        height, width = image.shape[:2]
        points = [np.array([(p.x * width, p.y * height) for p in one.landmark]) - 0.5 for one in found]
        return [_face(one[list(_IBUG68_IN_MEDIAPIPE)]) for one in points]

    return find


PACKAGES = {"face-alignment": face_alignment, "mediapipe": mediapipe}


def _face(points: FloatArray) -> FaceLandmarks:
    """A face of `points` `[68, 2]`, as sure as can be: these packages give no score that compares."""
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return FaceLandmarks(box.astype(np.float64), np.asarray(points, np.float64), np.ones(len(points)))
