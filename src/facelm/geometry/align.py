"""Faces cut out upright, as the next program wants them: for recognition as ArcFace has them, or as FFHQ has them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from facelm.geometry.affine import FloatArray, Image, transform, warp
from facelm.geometry.landmarks import LandmarkScheme

CROPS = {112: "ArcFace", 256: "FFHQ"}
"""The conventions by the side of their crops in pixels."""

_ARCFACE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Where the eyes, the nose's tip and the corners of the mouth go in 112 pixels. Source: insightface, `arcface_dst`."""


def aligned_crop(image: Image, landmarks_image: FloatArray, size: int, scheme: LandmarkScheme) -> Image:
    """The face with these landmarks `[68, 2]` as `[size, size, 3]`, black beyond the image; `size` is one of `CROPS`.

    112 is ArcFace's: eyes, nose and mouth as near as a turn, a scale and a shift bring them to `_ARCFACE`. 256 is
    FFHQ's: the square of its `recreate_aligned_images`, which shows the whole head; FFHQ's blurred border is left out.

    Raises:
        ValueError: another size or scheme, or points that are no finite numbers or all in one place.
    """
    matrix = crop_from_landmarks(landmarks_image, size, scheme)
    # Of a large face more pixels are taken, and averaged: a warp alone would leave out what lies between.
    finer = max(1, math.ceil(1 / math.sqrt(abs(np.linalg.det(matrix[:2, :2])))))
    enlarged = np.array([[finer, 0.0, (finer - 1) / 2], [0.0, finer, (finer - 1) / 2], [0.0, 0.0, 1.0]])
    fine = warp(image, enlarged @ matrix, size * finer)
    return np.asarray(cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA), np.uint8) if finer > 1 else fine


def check_aligned(size: int, scheme: LandmarkScheme) -> None:
    """Refuses a size that is none of `CROPS`, and points that are not ibug68's.

    Raises:
        ValueError: with what there is.
    """
    if size not in CROPS:
        raise ValueError(f"aligned crops have {' or '.join(f'{n} ({name})' for n, name in CROPS.items())} pixels")
    if scheme.name != "ibug68":
        raise ValueError(f"aligned crops need the 68 points of ibug68; this model has those of {scheme.name}")


def crop_from_landmarks(landmarks_image: FloatArray, size: int, scheme: LandmarkScheme) -> FloatArray:
    """crop_from_image `[3, 3]` of an aligned crop; raises what `aligned_crop` raises."""
    check_aligned(size, scheme)
    eyes = [landmarks_image[36:42].mean(axis=0), landmarks_image[42:48].mean(axis=0)]
    mouth = [landmarks_image[48], landmarks_image[54]]
    if size == 112:
        points, target = np.array([*eyes, landmarks_image[30], *mouth]), _ARCFACE
    else:
        corners = _ffhq_square(np.array(eyes), np.array(mouth))
        points, target = corners, (np.array([(0, 0), (0, 1), (1, 1), (1, 0)]) * size) - 0.5
    if not (np.isfinite(points).all() and np.ptp(points, axis=0).max() > 0):
        raise ValueError("a face whose landmarks are no finite numbers, or all in one place, cannot be aligned")
    return _similarity(points, target)


def _ffhq_square(eyes: FloatArray, mouth: FloatArray) -> FloatArray:
    """The corners `[4, 2]` of FFHQ's square: upper left, lower left, lower right, upper right."""
    middle, down = eyes.mean(axis=0), mouth.mean(axis=0) - eyes.mean(axis=0)
    x = eyes[1] - eyes[0] + np.array([down[1], -down[0]])
    wide, high = (float(np.linalg.norm(line)) for line in (eyes[1] - eyes[0], down))
    x *= max(2.0 * wide, 1.8 * high) / max(float(np.linalg.norm(x)), 1e-9)
    y, center = np.array([-x[1], x[0]]), middle + down * 0.1
    return np.array([center - x - y, center - x + y, center + x + y, center + x - y])


def _similarity(points: FloatArray, target: FloatArray) -> FloatArray:
    """The turn, scale and shift `[3, 3]` that bring `points` `[N, 2]` nearest to `target`, by least squares."""
    source, goal = ((one - one.mean(axis=0)) @ (1, 1j) for one in (points, target))
    turn = np.vdot(source, goal) / np.vdot(source, source).real
    matrix = np.array([[turn.real, -turn.imag, 0.0], [turn.imag, turn.real, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = target.mean(axis=0) - transform(matrix, points.mean(axis=0))
    return matrix
