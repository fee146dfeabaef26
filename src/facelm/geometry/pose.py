"""How a head is turned, from its landmarks alone: all three angles, or yaw and roll by formulas to check by hand.

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

RIGID = {
    0: (-74.0, 5.0, -64.0), 1: (-73.5, 23.0, -61.0), 2: (-71.5, 41.0, -56.0),
    14: (71.5, 41.0, -56.0), 15: (73.5, 23.0, -61.0), 16: (74.0, 5.0, -64.0),
    27: (0.0, -4.0, 13.0), 28: (0.0, 8.0, 20.0), 29: (0.0, 20.0, 28.0), 30: (0.0, 32.0, 36.0),
    31: (-14.5, 41.0, 18.0), 32: (-7.5, 44.5, 22.0), 33: (0.0, 46.5, 25.0), 34: (7.5, 44.5, 22.0),
    35: (14.5, 41.0, 18.0), 36: (-46.0, 1.0, -7.0), 39: (-18.5, 2.0, -1.0), 42: (18.5, 2.0, -1.0),
    45: (46.0, 1.0, -7.0),
}  # fmt: skip
"""Points of a head that no expression moves, in millimetres: x to the right of the picture, y down, z to the camera.

Modelled by hand from the usual proportions of an adult's face, as the drawn faces are."""


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


def head_angles(landmarks: FloatArray, scheme: LandmarkScheme) -> FloatArray:
    """Yaw, pitch and roll `[N, 3]` in degrees of landmarks `[N, 68, 2]`; NaN for another scheme than `ibug68`.

    The angles of `RIGID`, a stiff face in millimetres, turned so that it lies on the points when it is seen from afar:
    the affine map from its points to the landmarks with the least squares, and the rotation nearest to that. Yaw is
    above 0 where the nose points to the image's right, pitch where it points down, roll clockwise as seen; they are
    applied in the order yaw, pitch, roll. Points without a number make NaN.

    On 2,000 drawn faces, whose angles are known and whose identities and expressions vary (yaw up to 74 degrees), the
    mean error is 1.8 degrees of yaw, 1.7 of pitch and 0.4 of roll, 1.4 of the pitch being too low: a camera nearby sees
    the chin smaller (`tests/test_pose.py`).
    """
    if scheme.name != "ibug68":
        return np.full((len(landmarks), 3), np.nan)
    index = list(RIGID)
    model = np.array([RIGID[i] for i in index])
    model -= model.mean(axis=0)
    points = landmarks[:, index] - landmarks[:, index].mean(axis=1, keepdims=True)
    affine = np.einsum("nki,kj->nij", points, np.linalg.pinv(model).T)
    angles = np.full((len(landmarks), 3), np.nan)
    known = np.isfinite(affine).all(axis=(1, 2))
    left, _, right = np.linalg.svd(affine[known], full_matrices=False)
    across, down = np.moveaxis(left @ right, 1, 0)
    towards = np.cross(across, down)
    pitch = np.arcsin(np.clip(-towards[:, 1], -1, 1))
    yaw, roll = np.arctan2(-towards[:, 0], towards[:, 2]), np.arctan2(-across[:, 1], down[:, 1])
    angles[known] = np.degrees(np.stack([yaw, pitch, roll], axis=1))
    return angles
