"""Face boxes, and the one function from a box to the crop that the network sees.

Training, evaluation and prediction all call `crop_from_image`, so a face is framed the same way everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facelm.geometry import FloatArray, crop_matrix, mirror_about


@dataclass(frozen=True)
class Box:
    """A square around a face: `center` (x, y) and `side`, in image pixels.

    `side` is 200 times the `scale` column of the published annotation files.
    """

    center: tuple[float, float]
    side: float


def box_from_landmarks(landmarks_image: FloatArray) -> Box:
    """300W's ground-truth box of one face's landmarks `[K, 2]`.

    center = (floor(min) + ceil(max)) / 2 and side = the larger of ceil(max) - floor(min): the published `center` and
    `scale` of all 1,289 valid and test rows, exactly. Moving landmarks by whole pixels moves the box with them, so
    the formula holds for 1-based and 0-based coordinates alike.

    Convention: landmarks and box are in image pixels (x, y).
    """
    low, high = np.floor(landmarks_image.min(axis=0)), np.ceil(landmarks_image.max(axis=0))
    x, y = (low + high) / 2
    return Box(center=(float(x), float(y)), side=float((high - low).max()))


def crop_from_image(
    box: Box,
    crop_size: int,
    crop_scale: float,
    *,
    zoom: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    flip: bool = False,
) -> FloatArray:
    """The 3x3 matrix from image pixels to the pixels of a `crop_size` x `crop_size` crop around `box`.

    The crop shows `crop_scale * zoom` times the box's side (so zoom > 1 makes the face smaller), its centre moved
    by `shift` times that side, turned by `rotation` degrees (positive: counter-clockwise on the screen). `flip`
    mirrors the photograph about the box's centre first, as mmpose does, so the centre lands on the same crop pixel
    either way. With the defaults this is mmpose's and the HRNet authors' crop.

    Convention: image and crop pixels are 0-based and centred on integers.
    """
    side = box.side * crop_scale * zoom
    x, y = box.center
    matrix = crop_matrix((x + shift[0] * side, y + shift[1] * side), side, crop_size, rotation)
    return matrix @ mirror_about(x) if flip else matrix
