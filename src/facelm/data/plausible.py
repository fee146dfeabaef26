"""Whether 68 points can be a face at all: a file with its axes exchanged or its points in another order is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box

UNLIKE_A_FACE = 0.6
"""The share of the points' spread that a plain face may leave unexplained. On 3,103 faces of 300W the largest is 0.145;
with the jaw reversed the smallest of them is 0.697, with y from below 0.940."""

DOUBTFUL = 0.2
"""From here on, points are worth a look. With the eyes or the brows exchanged, or the whole order begun one point too
late, the smallest of the 3,103 is 0.213."""

ASTRAY = 1.2
"""How far one point may lie from its place in the plain face, in root mean square distances of all points from their
centre. On the 3,103 faces the farthest is 1.08; a nose tip half a face away is 1.26 at least."""

TILTED = 60.0
"""Degrees by which eyes may be tilted without a question. On the 3,103 faces the most is 34."""

OUTSIDE = 0.25
"""How far landmarks may lie outside their photograph, in sides of the face's box. On 2,019 training faces the farthest
is 0.002 sides out; a photograph shrunk to half its size puts a centred face 0.5 sides out."""

_FRONTAL = np.array(
    [
        (-74, 5),
        (-74, 23),
        (-72, 41),
        (-68, 58),
        (-60, 74),
        (-48, 87),
        (-34, 98),
        (-18, 106),
        (0, 108),
        (18, 106),
        (34, 98),
        (48, 87),
        (60, 74),
        (68, 58),
        (72, 41),
        (74, 23),
        (74, 5),
        (-58, -14),
        (-50, -22),
        (-38, -25),
        (-26, -24),
        (-14, -19),
        (14, -19),
        (26, -24),
        (38, -25),
        (50, -22),
        (58, -14),
        (0, -4),
        (0, 8),
        (0, 20),
        (0, 32),
        (-14, 41),
        (-8, 44),
        (0, 46),
        (8, 44),
        (14, 41),
        (-46, 1),
        (-38, -5),
        (-28, -6),
        (-18, 2),
        (-28, 5),
        (-38, 5),
        (18, 2),
        (28, -6),
        (38, -5),
        (46, 1),
        (38, 5),
        (28, 5),
        (-26, 66),
        (-16, 60),
        (-6, 58),
        (0, 59),
        (6, 58),
        (16, 60),
        (26, 66),
        (17, 75),
        (8, 79),
        (0, 80),
        (-8, 79),
        (-17, 75),
        (-22, 66),
        (-8, 64),
        (0, 65),
        (8, 64),
        (22, 66),
        (8, 72),
        (0, 72),
        (-8, 72),
    ],
    dtype=np.float64,
)
"""The face that facelm draws, before anything is varied: 68 points from the front, x to the right, y down."""


def unlike_a_face(landmarks_image: FloatArray) -> float:
    """How little the points `[68, 2]` are like a face: 0 a plain one from the front, 1 nothing in common with it.

    The share of their variance that is left when the plain face is moved, turned and scaled onto them, but not
    mirrored. Convention: image pixels, y down; the origin does not matter.
    """
    points, plain = _centred(landmarks_image), _centred(_FRONTAL)
    spread = np.vdot(points, points).real * np.vdot(plain, plain).real
    return float(1 - abs(np.vdot(plain, points)) ** 2 / spread) if spread > 0 else 1.0


def check_shape(landmarks_image: FloatArray, where: str) -> None:
    """Refuses points that are no face.

    Raises:
        ValueError: with the likeliest cause; the message starts with `where`.
    """
    left = unlike_a_face(landmarks_image)
    if left <= UNLIKE_A_FACE:
        return
    cause = "the points are in another order than 300W's, or of something else"
    if unlike_a_face(landmarks_image * [1, -1]) <= UNLIKE_A_FACE / 2:  # a reversed jaw alone is more unlike
        cause = "the points are mirrored: x and y are exchanged, y counts from below, or left and right are swapped"
    raise ValueError(
        f"{where}: the points are no face ({left:.2f} of their spread is unlike one, {UNLIKE_A_FACE} allowed); "
        f"{cause}. Repair the annotation, or leave the face out"
    )


def doubt(landmarks_image: FloatArray) -> str:
    """Why the points `[68, 2]` of a face that `check_shape` passes are worth a look; "" where they are not."""
    left = unlike_a_face(landmarks_image)
    if left > DOUBTFUL:
        return f"{left:.2f} of the points' spread is unlike a face ({DOUBTFUL} is usual); are two parts exchanged?"
    points, plain = _centred(landmarks_image), _centred(_FRONTAL)
    fitted = np.vdot(plain, points) / np.vdot(plain, plain).real
    away = abs(points - fitted * plain) / np.sqrt((abs(points) ** 2).mean())
    if away.max() > ASTRAY:
        return f"point {away.argmax()} lies {away.max():.1f} face radii from where a face has it ({ASTRAY} is usual)"
    tilt = float(np.degrees(np.angle(fitted)))
    if abs(tilt) > TILTED:
        return f"the face is tilted by {tilt:.0f} degrees; were its points placed in a viewer that turns photographs?"
    return ""


def _centred(points: FloatArray) -> NDArray[np.complex128]:
    """Points as complex numbers about their mean: turning and scaling is then one multiplication."""
    whole = points[:, 0] + 1j * points[:, 1]
    return np.asarray(whole - whole.mean())


def check_in_image(image: Path, size: tuple[int, int], landmarks_image: FloatArray, box: Box) -> None:
    """Refuses landmarks `[K, 2]` far outside a photograph of `size` (width, height); NaN is passed over.

    Raises:
        ValueError: the farthest point lies more than OUTSIDE sides of the box outside.
    """
    beyond = np.maximum(-landmarks_image, landmarks_image - (np.array(size) - 1)).max(axis=1)
    if np.nanmax(beyond) > OUTSIDE * box.side:
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
