"""What a `Predictor` gives: the faces of an image, each with its landmarks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import IBUG68, LandmarkScheme

if TYPE_CHECKING:
    import pandas

    from facelm.evaluation.plots import Axes

DAMAGED = "the network gave no numbers (NaN); its weights are damaged, or those of a training that diverged"

DOUBTFUL_ABOVE = 6.0
"""Percent: a point that is expected to be further off is red in overlays."""

LEAST_SCORE = 0.55
"""Below it a face is unsure: it gets a note, and faces are looked for in the turned photograph as well."""


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """One face: `landmarks_image` `[K, 2]`, `confidence` `[K]` in 0..1 (the heatmaps' peaks), and its `box`.

    Convention: landmarks are in pixels of the image (upright, where it was turned by its EXIF orientation), (x, y),
    0-based and centred on integers. `box` `[4]` is the square that was cropped last, as (x1, y1, x2, y2) before it is
    turned about its middle by `rotation` degrees, the tilt of the head (positive: clockwise on the screen).
    `expected_error` `[K]` is how far each point is expected to be off, in percent of the distance of the outer eye
    corners (or the scheme's normaliser); None where that was not measured for the weights.
    """

    box: FloatArray
    landmarks_image: FloatArray
    confidence: FloatArray
    rotation: float = 0.0
    expected_error: FloatArray | None = None

    @property
    def score(self) -> float:
        """How sure the network is that this is a face, 0..1: the mean confidence; see `LEAST_SCORE`."""
        return float(np.nan_to_num(self.confidence).mean())

    @property
    def doubtful(self) -> NDArray[np.bool_] | None:
        """Which points are expected to be off by more than `DOUBTFUL_ABOVE` percent `[K]`; None if not known."""
        return None if self.expected_error is None else np.asarray(self.expected_error > DOUBTFUL_ABOVE)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, coordinates rounded to 1/1000 pixel; None where there is no number, since JSON has no NaN."""
        return {
            "score": round(self.score, 4),
            "box": self.box.round(3).tolist(),
            "rotation": round(self.rotation, 2),
            "landmarks": plain_numbers(self.landmarks_image.round(3)),
            "confidence": plain_numbers(self.confidence.round(4)),
        } | ({} if self.expected_error is None else {"expected_error": plain_numbers(self.expected_error.round(2))})


@dataclass(frozen=True, eq=False)
class Prediction:
    """The faces of one image, the surest detection first or in the order of the boxes given; it is a sequence of them.

    `size` is (width, height); `seconds` what reading, detecting and finding landmarks took, the last for all images
    whose crops went through the network with its own; `notes` say what the caller should know, such as that no face was
    found. `error` says why the image could not be read, where that was to be skipped. `scheme` says what the points
    are. `source` is the image's path or bytes, or its pixels where it came as neither, for `plot` and `save` to draw
    on; `name` its path as given.
    """

    faces: tuple[FaceLandmarks, ...]
    size: tuple[int, int]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    scheme: LandmarkScheme = IBUG68
    source: Any = field(default=None, repr=False)
    name: str = ""

    @property
    def landmarks(self) -> FloatArray:
        """The landmarks of all faces `[N, K, 2]`, in pixels of the image; N is 0 where there is no face."""
        points = [face.landmarks_image for face in self.faces]
        return np.array(points).reshape(len(points), self.scheme.num_landmarks, 2)

    def to_dataframe(self) -> pandas.DataFrame:
        """A pandas table with a row for each point of each face: face and point (both from 0), x, y, confidence.

        Name and expected error are columns where they are known.

        Raises:
            ImportError: pandas is not installed.
        """
        from facelm.predict.saving import to_dataframe

        return to_dataframe(self)

    def plot(
        self,
        axes: Axes | None = None,
        *,
        image: Any = None,
        numbers: bool = False,
        contours: bool = True,
        boxes: bool = False,
    ) -> Axes:
        """The image with its landmarks on matplotlib's `axes`, or on those of a new figure; the axes.

        `image` is what a `Predictor` takes, where the prediction's own is not to be used; `numbers` writes each
        point's, `contours` joins them, `boxes` shows the squares that were cropped.

        Raises:
            ValueError: the image is not known, or cannot be read; and what `read_photograph` raises.
        """
        from facelm.predict.saving import plot

        return plot(self, axes, image, numbers=numbers, contours=contours, boxes=boxes)

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Writes `path` by its ending, and gives the files written: each whole, or not at all.

        .json and .csv hold what `facelm predict` writes, .jpg, .png and .webp the image with its landmarks, .pts a
        face's points, 1-based as iBUG writes them; those of further faces go to STEM-face2.pts and so on.

        Raises:
            ValueError: another ending, .pts without a face, or a picture of an image that is not known.
            OSError: a file cannot be written.
        """
        from facelm.predict.saving import save

        return save(self, path)

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
