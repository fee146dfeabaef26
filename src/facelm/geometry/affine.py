"""Plane affine maps as 3x3 float64 matrices, and the one warp that samples an image through them.

Convention: points are (x, y), 0-based, and pixel `i` is centred on `i` (OpenCV's). A matrix is named `to_from` and
products read right to left: `heatmap_from_crop @ crop_from_image`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]


def crop_matrix(center: tuple[float, float], side: float, crop_size: int, rotation: float = 0.0) -> FloatArray:
    """crop_from_image: a square of `side` image pixels around `center` becomes `crop_size` x `crop_size`.

    Convention: `center` goes to (crop_size / 2, crop_size / 2), as in mmpose's `get_warp_matrix` and the HRNet
    authors' `get_transform`, so crop pixel 0 looks at the left edge of the square. `rotation` is in degrees;
    positive turns the picture counter-clockwise on the screen.

    Raises:
        ValueError: `side` is not a positive, finite number.
    """
    x, y = center
    if not (math.isfinite(side) and side > 0 and math.isfinite(x) and math.isfinite(y)):
        raise ValueError(f"a crop needs a finite center and a side > 0, got center={center}, side={side}")
    k, turn = crop_size / side, math.radians(rotation)
    cos, sin = k * math.cos(turn), k * math.sin(turn)
    half = crop_size / 2
    return np.array([[cos, sin, half - cos * x - sin * y], [-sin, cos, half + sin * x - cos * y], [0.0, 0.0, 1.0]])


def mirror_about(x: float) -> FloatArray:
    """The left-right mirror that leaves the vertical line at `x` in place: u -> 2x - u.

    An image `width` pixels wide is mirrored in place by `mirror_about((width - 1) / 2)`.
    """
    return np.array([[-1.0, 0.0, 2.0 * x], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def transform(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """`points` `[..., 2]` moved by the affine `matrix` `[3, 3]`."""
    return np.asarray(points @ matrix[:2, :2].T + matrix[:2, 2], dtype=np.float64)


def invert(matrix: FloatArray) -> FloatArray:
    """The map back: `invert(crop_from_image)` is `image_from_crop`."""
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    inverse[2] = (0.0, 0.0, 1.0)  # exactly affine, whatever the rounding
    return inverse


def warp(image: Image, matrix: FloatArray, size: int) -> Image:
    """`image` `[H, W, 3]` seen through `matrix` (crop_from_image) as `[size, size, 3]`.

    Bilinear, black outside the image, no antialiasing: what both references do.
    """
    # OpenCV 5 has a vector loop for four channels and none for three: the same bytes in two thirds of the time, unless
    # the image is so much larger than the crop that the fourth channel costs more than it saves.
    if image.shape[0] * image.shape[1] <= 8 * size * size:
        warped = cv2.warpAffine(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), matrix[:2], (size, size))
        return np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), dtype=np.uint8)
    return np.asarray(cv2.warpAffine(image, matrix[:2], (size, size)), dtype=np.uint8)
