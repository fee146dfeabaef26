"""Annotated faces that are unlike the others of their data set, whatever the points are: worth a look, not refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facelm.data.plausible import DOUBTFUL, TILTED
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import LandmarkScheme

ENOUGH = 10
"""Faces from which on their own mean is what the others are compared with; below, it is the scheme's `shape`."""

_ASTRAY, _TIMES = 0.6, 5.0
"""A point is astray where it lies that far from its place, in face radii, and that many times as far as is usual."""

_Complex = NDArray[np.complex128]


def doubts(landmarks_image: Sequence[FloatArray] | FloatArray, scheme: LandmarkScheme) -> dict[int, str]:
    """Why faces with landmarks `[K, 2]` are worth a look, by their position; NaN where a point is not labelled.

    Each face is laid over the mean face by moving, turning and scaling. A face of fewer than three points is passed
    over, and so are all where there is no mean face to compare with.
    """
    points = np.array([one[:, 0] + 1j * one[:, 1] for one in landmarks_image])
    if len(points) < ENOUGH and not scheme.shape:
        return {}
    mean = _mean_face(points) if len(points) >= ENOUGH else np.array([complex(x, y) for x, y in scheme.shape])
    fitted = [_fit(mean, face) for face in points]
    away = np.stack([distances for _, _, distances in fitted])
    usual = _median(away.astype(np.complex128)).real if len(points) >= ENOUGH else np.zeros(len(mean))
    limit = np.maximum(_ASTRAY, _TIMES * np.nan_to_num(usual))
    found = {}
    for number, (left, tilt, distances) in enumerate(fitted):
        far = int(np.nan_to_num(distances / limit).argmax())
        if left > DOUBTFUL:
            found[number] = f"{left:.2f} of its points' spread is unlike the mean face ({DOUBTFUL} is usual)"
        elif distances[far] > limit[far]:
            name = f" ({scheme.names[far]})" if scheme.names else ""
            found[number] = f"point {far}{name} lies {distances[far]:.1f} face radii from where the mean face has it"
        elif abs(tilt) > TILTED:
            found[number] = f"the face is tilted by {tilt:.0f} degrees"
        if number in found and (partner := _exchanged(mean, points[number], scheme, left)):
            found[number] += f"; with points {partner[0]} and {partner[1]} exchanged it is like one"
    return found


def _mean_face(points: _Complex) -> _Complex:
    """The median face `[K]` of faces `[N, K]`, each laid over the last estimate; it stands upright as most do."""
    centred = points - np.nanmean(points, axis=1, keepdims=True)
    scaled = centred / np.sqrt(np.nanmean(abs(centred) ** 2, axis=1, keepdims=True))
    mean = _median(scaled)
    for _ in range(3):
        laid = []
        for face in scaled:
            known = np.isfinite(face) & np.isfinite(mean)
            model, own = mean[known] - mean[known].mean(), face[known] - face[known].mean()
            turn = np.vdot(own, model) / max(np.vdot(own, own).real, 1e-12)
            laid.append((face - face[known].mean()) * turn + mean[known].mean())
        mean = _median(np.stack(laid))
    return mean


def _median(faces: _Complex) -> _Complex:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a point that no face has
        real, imaginary = np.nanmedian(faces.real, axis=0), np.nanmedian(faces.imag, axis=0)
    return np.asarray(real + 1j * imaginary)


def _fit(mean: _Complex, face: _Complex) -> tuple[float, float, FloatArray]:
    """(share of the spread that is unlike the mean face, its tilt in degrees, each point's distance in face radii)."""
    known = np.isfinite(face) & np.isfinite(mean)
    distances = np.full(len(face), np.nan)
    if known.sum() < 3:
        return 0.0, 0.0, distances
    model, own = mean[known] - mean[known].mean(), face[known] - face[known].mean()
    spread = np.vdot(own, own).real
    if not spread > 0:
        return 0.0, 0.0, distances
    turn = np.vdot(model, own) / np.vdot(model, model).real
    distances[known] = abs(own - turn * model) / np.sqrt(spread / known.sum())
    return float((distances[known] ** 2).mean()), float(np.degrees(np.angle(turn))), distances


def _exchanged(mean: _Complex, face: _Complex, scheme: LandmarkScheme, left: float) -> tuple[int, int] | None:
    """The mirror partners whose exchange makes the face a quarter as unlike the mean, if any does."""
    tried = []
    for one, other in enumerate(scheme.mirror):
        if one < other:
            swapped = face.copy()
            swapped[[one, other]] = face[[other, one]]
            tried.append((_fit(mean, swapped)[0], (one, other)))
    best = min(tried, default=(left, None))
    return best[1] if best[0] < left / 4 else None
