"""What a page says of each face and point: angles, size, confidence; errors on the mean face; which faces are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from facelm.evaluation.kept import confidences
from facelm.evaluation.metrics import FacePredictions, IntArray
from facelm.evaluation.scores import BoolArray
from facelm.geometry import pose
from facelm.geometry.landmarks import FloatArray, LandmarkScheme, box_size, normaliser
from facelm.models.expected import ExpectedError

MOST_FACES = 1200
"""On a page: of more, the worst, the best and a sample are shown."""


@dataclass(frozen=True)
class Facet:
    """A number of each face, by which faces are sorted: `values` `[N]`, and how many digits are shown."""

    label: str
    values: FloatArray
    digits: int = 1


def facets(faces: FacePredictions, scheme: LandmarkScheme, fit: ExpectedError | None = None) -> dict[str, Facet]:
    """Yaw, roll, size and confidence of faces, from the annotation where it says them; those that are known.

    And the error that is expected, mean over the points, where there is a `fit`.
    """
    landmarks = np.where(np.isfinite(faces.target), faces.target, faces.predicted)
    side = box_size(landmarks) if faces.side is None else faces.side
    with np.errstate(invalid="ignore"):
        found = {
            "yaw": Facet("yaw, degrees", pose.yaw(landmarks, scheme)),
            "roll": Facet("roll, degrees", pose.roll(landmarks, scheme)),
            "size": Facet("size of the box, pixels", side, 0),
            "confidence": Facet("confidence (mean peak)", confidences(faces).mean(axis=1), 3),
        }
    if fit is not None:
        found["expected"] = Facet("expected error, %", fit.of(confidences(faces)).mean(axis=1), 2)
    return {name: facet for name, facet in found.items() if np.isfinite(facet.values).any()}


def chosen(errors: FloatArray, most: int = MOST_FACES) -> IntArray:
    """Rows to show, worst first: all, or of more than `most` the worst third, the best sixth and a sample of others."""
    order = np.argsort(-np.nan_to_num(errors, nan=np.inf, posinf=np.inf), kind="stable")
    if len(order) <= most:
        return np.asarray(order)
    worst, best = most // 3, most // 6
    others = np.random.default_rng(0).choice(np.arange(worst, len(order) - best), most - worst - best, replace=False)
    return np.concatenate([order[:worst], order[np.sort(others)], order[len(order) - best :]])


def upright(landmarks: FloatArray, target: FloatArray, scheme: LandmarkScheme, side: FloatArray | None) -> FloatArray:
    """`landmarks` `[N, K, 2]` as those of upright faces of size 1: turned by the roll of `target`, about its middle.

    The unit is the scheme's normaliser.
    """
    angle = np.nan_to_num(np.radians(pose.roll(target, scheme)))
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = landmarks - mean_known(target, axis=1)[:, None]
        moved = moved / normaliser(target, scheme, side)[:, None, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = moved[..., 0], moved[..., 1]
    return np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)


@dataclass(frozen=True)
class Differences:
    """How far predictions are off, in percent of the normaliser, each face turned upright about its annotation.

    `annotation` `[N, K, 2]` is in units of the normaliser, `difference` and the unit vectors `tangent` `[N, K, 2]`, y
    down, are along the contours at the annotated points; NaN where no contour passes.
    """

    annotation: FloatArray
    difference: FloatArray
    tangent: FloatArray

    @property
    def along(self) -> FloatArray:
        """The part along the contour `[N, K]`, above 0 towards its last point."""
        return np.asarray((self.difference * self.tangent).sum(axis=-1))

    @property
    def across(self) -> FloatArray:
        """The part across the contour `[N, K]`, above 0 to the left of its direction as seen."""
        x, y = np.moveaxis(self.difference, -1, 0)
        return np.asarray(x * self.tangent[..., 1] - y * self.tangent[..., 0])


def differences(faces: FacePredictions, mask: BoolArray, scheme: LandmarkScheme) -> Differences:
    """Those of the faces in `mask`."""
    side = None if faces.side is None else faces.side[mask]
    target = faces.target[mask]
    annotation = upright(target, target, scheme, side)
    difference = 100 * (upright(faces.predicted[mask], target, scheme, side) - annotation)
    return Differences(annotation, difference, _tangents(annotation, scheme))


def point_errors(faces: FacePredictions, mask: BoolArray, scheme: LandmarkScheme) -> dict[str, list[Any]]:
    """The error of each point over the faces in `mask`, in percent of the normaliser, and where on the mean face.

    `x`, `y` are in units of the normaliser, y down; `error` is the mean distance, (`bias_x`, `bias_y`) the mean
    difference to the annotation on upright faces; `along` and `across` the mean distances in the directions of the
    contour at the annotated point, None where no contour passes.
    """
    found = differences(faces, mask, scheme)
    columns = {
        "x": mean_known(found.annotation[..., 0]),
        "y": mean_known(found.annotation[..., 1]),
        "error": mean_known(np.linalg.norm(found.difference, axis=-1)),
        "bias_x": mean_known(found.difference[..., 0]),
        "bias_y": mean_known(found.difference[..., 1]),
        "along": mean_known(np.abs(found.along)),
        "across": mean_known(np.abs(found.across)),
    }
    return {name: numbers(values, 3) for name, values in columns.items()}


def _tangents(landmarks: FloatArray, scheme: LandmarkScheme) -> FloatArray:
    """Unit vectors `[N, K, 2]` along the contours, from a point's neighbours; NaN where a point is on none."""
    tangents: FloatArray = np.zeros_like(landmarks)
    for line in scheme.contours:
        for start, end in pairwise(line):
            step = landmarks[:, end] - landmarks[:, start]
            tangents[:, start] += np.nan_to_num(step)
            tangents[:, end] += np.nan_to_num(step)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(tangents / np.linalg.norm(tangents, axis=-1, keepdims=True))


def mean_known(values: FloatArray, axis: int = 0) -> FloatArray:
    """The mean of those that are finite; NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis))


def numbers(values: FloatArray, digits: int) -> list[float | None]:
    """Rounded, None where not finite: as JSON holds them."""
    return [round(float(value), digits) if np.isfinite(value) else None for value in values]


def membership(masks: Mapping[str, BoolArray], rows: IntArray) -> list[list[int]]:
    """For each of `rows` the positions of the subsets that it is in."""
    return [[place for place, mask in enumerate(masks.values()) if mask[row]] for row in rows]
