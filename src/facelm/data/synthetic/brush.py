"""Antialiased OpenCV drawing at sub-pixel places: polygons, lines, discs, smooth curves.

Convention: points are pixels (x, y) of the image that is painted on, 0-based, centred on integers. Colours are RGB.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from facelm.data.synthetic.appearance import Colour, scaled
from facelm.geometry.affine import FloatArray

_SUBPIXEL: Final = 4  # bits after the point in the coordinates given to OpenCV


def fixed(points: FloatArray | MatLike) -> NDArray[np.int32]:
    """`points` `[..., 2]` as the fixed-point numbers of OpenCV's sub-pixel drawing."""
    return np.rint(np.multiply(points, 1 << _SUBPIXEL)).astype(np.int32)


def fill(image: MatLike, polygon: FloatArray | MatLike, colour: Colour) -> None:
    """Fill `polygon` `[N, 2]` (pixels of `image`) in place, antialiased."""
    cv2.fillPoly(image, [fixed(polygon)], colour, cv2.LINE_AA, _SUBPIXEL)


def stroke(image: MatLike, line: FloatArray, colour: Colour, width: int = 1, *, closed: bool = False) -> None:
    """Draw the polyline `line` `[N, 2]` (pixels of `image`) in place, antialiased."""
    cv2.polylines(image, [fixed(line)], closed, colour, width, cv2.LINE_AA, _SUBPIXEL)


def stroke_groups(image: MatLike, lines: FloatArray, colour: Colour) -> None:
    """Draw thin `lines` `[N, P, 2]` (pixels of `image`) in place, in four tones of `colour`."""
    for group, tone in enumerate((0.72, 0.86, 1.2, 1.4)):
        cv2.polylines(image, list(fixed(lines[group::4])), False, scaled(colour, tone), 1, cv2.LINE_AA, _SUBPIXEL)


def disc(image: MatLike, centre: FloatArray, axes: tuple[float, float], colour: Colour, angle: float = 0) -> None:
    """Fill the ellipse with half-axes `axes` in place, antialiased, turned clockwise by `angle` degrees."""
    x, y = (round(float(v) * 16) for v in centre)
    size = (max(8, round(axes[0] * 16)), max(8, round(axes[1] * 16)))
    cv2.ellipse(image, (x, y), size, angle, 0, 360, colour, -1, cv2.LINE_AA, _SUBPIXEL)


@cache
def _curve_weights(count: int, closed: bool, steps: int) -> FloatArray:
    """The matrix `[M, count]` from points to a Catmull-Rom curve through them."""
    points = np.eye(count)
    if closed:
        p = np.concatenate([points[-1:], points, points[:2]])
    else:
        p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    curve = b + t * (c - a) / 2 + t**2 * (a - 2.5 * b + 2 * c - d / 2) + t**3 * (1.5 * (b - c) + (d - a) / 2)
    curve = curve.reshape(-1, count)
    return curve if closed else np.concatenate([curve, points[-1:]])


def smooth(points: FloatArray, *, closed: bool = False, steps: int = 4) -> FloatArray:
    """A curve `[M, 2]` through `points` `[N, 2]`, `steps` points from one to the next."""
    return np.asarray(_curve_weights(len(points), closed, steps) @ points)
