"""How a head is turned, from its landmarks alone: yaw and roll in degrees, by formulas simple enough to check by hand.

    roll = the angle of the line from the outer eye corner on the image's left to the other one
    yaw  = atan(d / (NOSE_DEPTH * w)), w half that line's length, d how far along it the nose lies from its middle

A nose that stands out by h before the eyes of half distance W is seen at d = h sin(yaw), the eyes at w = W cos(yaw).
The nose is the mean of those of its points that a mirror leaves where they are (bridge, tip and base of 300W's 68).
"""

from __future__ import annotations

import numpy as np

from facelm.geometry.landmarks import FloatArray, LandmarkScheme

NOSE_DEPTH = 0.71
"""h / W: (mean depth of points 27-30 and 33 - depth of 36 and 45) / half their distance, in the 68-point mean face of
OpenFace (32.4 / 45.6)."""


def roll(landmarks: FloatArray, scheme: LandmarkScheme) -> FloatArray:
    """Degrees `[N]` of landmarks `[N, K, 2]`, clockwise above 0 as seen; NaN where the scheme has no outer eyes."""
    if not scheme.outer_eyes:
        return np.full(len(landmarks), np.nan)
    x, y = _eye_line(landmarks, scheme).T
    return np.asarray(np.degrees(np.arctan2(y, x)))


def yaw(landmarks: FloatArray, scheme: LandmarkScheme) -> FloatArray:
    """Degrees `[N]` of landmarks `[N, K, 2]`, above 0 where the nose points to the image's right.

    NaN where the scheme has no outer eyes, or no region `nose` with points on the mirror's axis.
    """
    nose = [i for i in scheme.regions.get("nose", ()) if scheme.mirror[i] == i]
    if not scheme.outer_eyes or not nose:
        return np.full(len(landmarks), np.nan)
    line = _eye_line(landmarks, scheme)
    middle = landmarks[:, list(scheme.outer_eyes)].mean(axis=1)
    length = np.linalg.norm(line, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = ((landmarks[:, nose].mean(axis=1) - middle) * line).sum(axis=-1) / length
        return np.asarray(np.degrees(np.arctan(offset / (NOSE_DEPTH * length / 2))))


def _eye_line(landmarks: FloatArray, scheme: LandmarkScheme) -> FloatArray:
    left, right = scheme.outer_eyes
    return np.asarray(landmarks[:, right] - landmarks[:, left])
