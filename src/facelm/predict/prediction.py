"""What a `Predictor` gives: the faces of an image, each with its landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from facelm.geometry.affine import FloatArray

DAMAGED = "the network gave no numbers (NaN); its weights are damaged, or those of a training that diverged"

LEAST_SCORE = 0.55
"""Below it a face is unsure: it gets a note, and faces are looked for in the turned photograph as well."""


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """One face: `landmarks_image` `[K, 2]`, `confidence` `[K]` in 0..1 (the heatmaps' peaks), and its `box`.

    Convention: landmarks are in pixels of the image (upright, where it was turned by its EXIF orientation), (x, y),
    0-based and centred on integers. `box` `[4]` is the square that was cropped last, as (x1, y1, x2, y2) before it is
    turned about its middle by `rotation` degrees, the tilt of the head (positive: clockwise on the screen).
    """

    box: FloatArray
    landmarks_image: FloatArray
    confidence: FloatArray
    rotation: float = 0.0

    @property
    def score(self) -> float:
        """How sure the network is that this is a face, 0..1: the mean confidence; see `LEAST_SCORE`."""
        return float(np.nan_to_num(self.confidence).mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, coordinates rounded to 1/1000 pixel; None where there is no number, since JSON has no NaN."""
        return {
            "score": round(self.score, 4),
            "box": self.box.round(3).tolist(),
            "rotation": round(self.rotation, 2),
            "landmarks": plain_numbers(self.landmarks_image.round(3)),
            "confidence": plain_numbers(self.confidence.round(4)),
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """The faces of one image, the surest detection first or in the order of the boxes given; it is a sequence of them.

    `size` is (width, height); `seconds` what reading, detecting and finding landmarks took, the last for all images
    of the call together; `notes` say what the caller should know, such as that no face was found. `error` says why the
    image could not be read, where that was to be skipped.
    """

    faces: tuple[FaceLandmarks, ...]
    size: tuple[int, int]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> FaceLandmarks:
        return self.faces[index]

    def __iter__(self) -> Iterator[FaceLandmarks]:
        return iter(self.faces)

    def to_dict(self) -> dict[str, Any]:
        """Plain values only."""
        return {
            "width": self.size[0],
            "height": self.size[1],
            "faces": [face.to_dict() for face in self.faces],
            "notes": list(self.notes),
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
        }


def plain_numbers(values: FloatArray) -> list[Any]:
    """`values` as lists, None where they are not finite."""
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    found: list[Any] = plain.tolist()
    return found


def not_finite(faces: Iterable[FaceLandmarks]) -> int:
    """How many of `faces` have a landmark that is no finite number."""
    return sum(not np.isfinite(face.landmarks_image).all() for face in faces)
