"""Where faces may be in a photograph, and which of them are told once the network has looked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facelm.geometry.boxes import Box
from facelm.predict.photographs import Photograph
from facelm.predict.prediction import DAMAGED, LEAST_SCORE, FaceLandmarks, not_finite

NO_FACE = "no face found"


@dataclass(frozen=True)
class Candidates:
    """Training boxes, the surest first, and how many of them are `sure`: faces, whatever the network says.

    The others are faces where the network is sure (`LEAST_SCORE`). Of boxes that the caller has `given` all are faces.
    """

    boxes: tuple[Box, ...] = ()
    sure: int = 0
    given: bool = False


def told(candidates: Candidates, faces: Sequence[FaceLandmarks]) -> list[FaceLandmarks]:
    """Of the faces found in the `candidates`, those that are faces, each once."""
    if candidates.given:
        return list(faces)
    return distinct([face for index, face in enumerate(faces) if index < candidates.sure or face.score >= LEAST_SCORE])


def distinct(faces: Sequence[FaceLandmarks]) -> list[FaceLandmarks]:
    """`faces` without those that lie on an earlier one: a detector finds some twice, in boxes that overlap little.

    Two are one where their landmarks are nearer than a fifth of the earlier one's extent to each other, on average.
    """
    kept: list[FaceLandmarks] = []
    for face in faces:
        points = face.landmarks_image
        near = (
            np.linalg.norm(points - other.landmarks_image, axis=-1).mean()
            < np.ptp(other.landmarks_image, axis=0).max() / 5
            for other in kept
        )
        if not any(near):
            kept.append(face)
    return kept


def notes(photograph: Photograph, error: str, faces: Sequence[FaceLandmarks], left_out: int) -> tuple[str, ...]:
    """What the caller should know: of the photograph, of none found, of damage, of `left_out` and unsure faces.

    Scores are rounded down, so that one below the limit does not read as the limit.
    """
    lost = not_finite(faces)
    damaged = [f"{lost} of {len(faces)} faces have no finite landmarks: {DAMAGED}"] if lost else []
    unsure = [
        f"face {number} is unsure, and may be none: its score is {math.floor(100 * face.score) / 100:.2f}"
        for number, face in enumerate(faces, start=1)
        if face.score < LEAST_SCORE
    ]
    none = [] if faces or error else [NO_FACE]
    below = [f"left out: faces below the least score, {left_out} of them"] if left_out else []
    return (*photograph.notes, *none, *below, *damaged, *unsure)
