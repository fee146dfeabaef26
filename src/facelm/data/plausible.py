"""Whether points can be a face at all: a file with its axes exchanged or its points in another order is none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import isfinite
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box
from facelm.geometry.landmarks import IBUG68, LandmarkScheme

UNLIKE_A_FACE = 0.6
"""The share of the points' spread that a plain face may leave unexplained. On 3,103 faces of 300W the largest is 0.145;
with the jaw reversed the smallest of them is 0.697, with y from below 0.940."""

DOUBTFUL = 0.2
"""From here on, points are worth a look. With the eyes or the brows exchanged, or the whole order begun one point too
late, the smallest of the 3,103 is 0.213."""

ASTRAY = 1.2
"""How far one point may lie from its place in the plain face, in root mean square distances of all points from their
centre. On the 3,103 faces the farthest is 1.08; a nose tip half a face away is 1.26 at least."""

ALONG = 0.5
"""How well each contour has to run as on the plain face, from -1 to 1. On the 3,103 faces the least is 0.56; an eye or
a mouth begun half way round has -0.65 at most, a nose from below 0.46, eyes the other way round 0.49."""

FEWEST = 5
"""Fewer labelled points can be moved onto any face."""

_NAMED = 20

TILTED = 60.0
"""Degrees by which eyes may be tilted without a question. On the 3,103 faces the most is 34."""

OUTSIDE = 0.25
"""How far landmarks may lie outside their photograph, in sides of the face's box. On 2,019 training faces the farthest
is 0.002 sides out; a photograph shrunk to half its size puts a centred face 0.5 sides out."""


def unlike_a_face(landmarks_image: FloatArray, scheme: LandmarkScheme = IBUG68) -> float:
    """How little the points `[K, 2]` are like a face: 0 a plain one from the front, 1 nothing in common with it.

    The share of their variance that is left when the scheme's plain face (`shape`) is moved, turned and scaled onto
    them, but not mirrored; 0 where the scheme has none, or too few points are labelled (not NaN) to tell.
    Convention: image pixels, y down; the origin does not matter.
    """
    pair = _both(landmarks_image, scheme)
    if pair is None:
        return 0.0
    points, plain = pair
    spread = np.vdot(points, points).real * np.vdot(plain, plain).real
    return float(1 - abs(np.vdot(plain, points)) ** 2 / spread) if spread > 0 else 1.0


def check_shape(landmarks_image: FloatArray, where: str, scheme: LandmarkScheme = IBUG68) -> None:
    """Refuses points that are no face.

    Raises:
        ValueError: with the likeliest cause; the message starts with `where`.
    """
    left = unlike_a_face(landmarks_image, scheme)
    if left <= UNLIKE_A_FACE:
        return
    cause = f"the points are in another order than those of {scheme.name}, or of something else"
    if unlike_a_face(landmarks_image * [1, -1], scheme) <= UNLIKE_A_FACE / 2:  # a reversed jaw alone is more unlike
        cause = "the points are mirrored: x and y are exchanged, y counts from below, or left and right are swapped"
    raise ValueError(
        f"{where}: the points are no face ({left:.2f} of their spread is unlike one, {UNLIKE_A_FACE} allowed); "
        f"{cause}. Repair the annotation, or leave the face out"
    )


def doubt(landmarks_image: FloatArray, scheme: LandmarkScheme = IBUG68) -> str:
    """Why the points `[K, 2]` of a face that `check_shape` passes are worth a look; "" where they are not."""
    left, pair = unlike_a_face(landmarks_image, scheme), _both(landmarks_image, scheme)
    if left > DOUBTFUL:
        return f"{left:.2f} of the points' spread is unlike a face ({DOUBTFUL} is usual); are two parts exchanged?"
    if pair is None:
        return ""
    points, plain = pair
    fitted = np.vdot(plain, points) / np.vdot(plain, plain).real
    away = abs(points - fitted * plain) / np.sqrt((abs(points) ** 2).mean())
    labelled = np.flatnonzero(_labelled(landmarks_image))
    if away.max() > ASTRAY:
        point = labelled[away.argmax()]
        return f"point {point} lies {away.max():.1f} face radii from where a face has it ({ASTRAY} is usual)"
    for contour in scheme.contours:
        part = np.isin(labelled, contour)
        if part.sum() > 2 and _agreement(points[part], fitted * plain[part]) < ALONG:
            return f"points {min(contour)} to {max(contour)} do not run as on a face; are they in another order?"
    tilt = float(np.degrees(np.angle(fitted)))
    if abs(tilt) > TILTED:
        return f"the face is tilted by {tilt:.0f} degrees; were its points placed in a viewer that turns photographs?"
    return ""


def doubts(landmarks_image: FloatArray, scheme: LandmarkScheme = IBUG68) -> dict[int, str]:
    """`doubt` of faces `[N, K, 2]` by their position; those beyond doubt, nearly all, are told at once."""
    if not (scheme.shape and len(landmarks_image)):
        return {}
    worth = np.flatnonzero(_near_a_doubt(landmarks_image, scheme)).tolist()
    return {row: why for row in worth if (why := doubt(landmarks_image[row], scheme))}


def _near_a_doubt(landmarks_image: FloatArray, scheme: LandmarkScheme) -> NDArray[np.bool_]:
    """Which of `[N, K, 2]` lie nearly at a limit of `doubt` or beyond it, or are not labelled in all points `[N]`."""
    points, plain = landmarks_image[..., 0] + 1j * landmarks_image[..., 1], _plain(scheme.shape)
    points = points - points.mean(axis=1, keepdims=True)
    fitted = points @ plain.conj() / np.vdot(plain, plain).real
    spread = (abs(points) ** 2).mean(axis=1)
    with np.errstate(all="ignore"):
        left = 1 - abs(fitted) ** 2 * (abs(plain) ** 2).mean() / spread
        away = abs(points - fitted[:, None] * plain).max(axis=1) / np.sqrt(spread)
        fine = (left < 0.99 * DOUBTFUL) & (away < 0.99 * ASTRAY) & (abs(np.angle(fitted)) < 0.99 * np.radians(TILTED))
        for contour in scheme.contours:
            if len(run := sorted(set(contour))) > 2:
                part, model = points[:, run], plain[run]
                part, model = part - part.mean(axis=1, keepdims=True), model - model.mean()
                alike = (part @ model.conj() * fitted.conj()).real
                sizes = abs(fitted) * np.linalg.norm(part, axis=1) * np.linalg.norm(model)
                fine &= alike > (ALONG + 0.01) * sizes
    return np.asarray(~fine)  # NaN is never fine


def told_doubtful(doubts: Mapping[str, str]) -> str:
    """Which faces are in doubt (name to why), as a sentence that names the first of them; "" where none is."""
    lines = "".join(f"\n  {name}: {why}" for name, why in list(doubts.items())[:_NAMED])
    more = f"\n  and {len(doubts) - _NAMED:,} more" if len(doubts) > _NAMED else ""
    return f"{len(doubts):,} faces are taken, but worth a look:{lines}{more}" if doubts else ""


def _both(landmarks_image: FloatArray, scheme: LandmarkScheme) -> tuple[NDArray[np.complex128], ...] | None:
    """The labelled points and the same ones of the plain face, centred; None where there is too little to compare."""
    if not scheme.shape:
        return None
    if isfinite(landmarks_image.sum()) and len(landmarks_image) >= FEWEST:  # all are labelled, and nearly always are
        return _centred(landmarks_image), _plain(scheme.shape)
    labelled = _labelled(landmarks_image)
    if labelled.sum() < max(FEWEST, scheme.num_landmarks // 2):
        return None
    return _centred(landmarks_image[labelled]), _centred(np.array(scheme.shape, dtype=np.float64)[labelled])


@cache
def _plain(shape: tuple[tuple[float, float], ...]) -> NDArray[np.complex128]:
    """A scheme's plain face, centred."""
    return _centred(np.array(shape, dtype=np.float64))


def _labelled(landmarks_image: FloatArray) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(landmarks_image).all(axis=1))


def _agreement(points: NDArray[np.complex128], expected: NDArray[np.complex128]) -> float:
    """1 where points lie about their mean as expected, whatever their size; -1 where each lies opposite."""
    points, expected = points - points.mean(), expected - expected.mean()
    size = np.linalg.norm(points) * np.linalg.norm(expected)
    return float(np.vdot(expected, points).real / size) if size > 0 else 0.0


def _centred(points: FloatArray) -> NDArray[np.complex128]:
    """Points as complex numbers about their mean: turning and scaling is then one multiplication."""
    whole = points[:, 0] + 1j * points[:, 1]
    return np.asarray(whole - whole.mean())


def check_in_image(image: Path, size: tuple[int, int], landmarks_image: FloatArray, box: Box) -> None:
    """Refuses landmarks `[K, 2]` far outside a photograph of `size` (width, height); NaN is passed over.

    Raises:
        ValueError: the farthest point lies more than OUTSIDE sides of the box outside.
    """
    (left, top), (right, bottom) = landmarks_image.min(axis=0).tolist(), landmarks_image.max(axis=0).tolist()
    most = OUTSIDE * box.side
    if min(left, top) >= -most and right - (size[0] - 1) <= most and bottom - (size[1] - 1) <= most:
        return  # nearly all; where one is NaN it is looked at closely
    beyond = np.maximum(-landmarks_image, landmarks_image - (np.array(size) - 1)).max(axis=1)
    if np.nanmax(beyond) > most:
        farthest = int(np.nanargmax(beyond))
        x, y = landmarks_image[farthest]
        raise ValueError(
            f"{image}: point {farthest} at ({x:.0f}, {y:.0f}) lies far outside the {size[0]}x{size[1]} pixels; "
            "is the image resized or cropped, or of another annotation?"
        )


def check_pixels(landmarks_image: FloatArray) -> None:
    """Refuses landmarks `[K, 2]` whose numbers are no pixels, or are one point; NaN is passed over.

    Raises:
        ValueError: two or more lie within one pixel.
    """
    labelled = landmarks_image[np.isfinite(landmarks_image).all(axis=1)]
    if len(labelled) > 1 and np.ptp(labelled, axis=0).max() <= 1:
        raise ValueError(
            "all its points lie within one pixel: numbers are pixels of the photograph. Multiply those that lie within "
            "0..1 by its width and height"
        )
