"""A face in three dimensions: 68 landmarks in iBUG's order, a skin that goes through them, and how both vary.

The template is modelled by hand in millimetres from the usual proportions of an adult's face (no measured or
annotated face is in it). Identity and expression move the landmarks; the skin, a triangle mesh of which the landmarks
are the first 68 vertices, follows them by interpolation. So whatever is drawn, the landmarks lie exactly on the skin.

Convention: head coordinates (x, y, z) in millimetres, x to the right of the picture, y down, z towards the camera,
the origin between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.geometry.landmarks import IBUG68

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]

NUM_LANDMARKS: Final = 68

# The picture's left half and the axis; the other half is its mirror image.
_HALF_FACE: Final[dict[int, tuple[float, float, float]]] = {
    0: (-74, 5, -64), 1: (-73.5, 23, -61), 2: (-71.5, 41, -56), 3: (-67.5, 58, -50), 4: (-60, 73.5, -41),
    5: (-48.5, 87, -29), 6: (-34, 98, -15), 7: (-17.5, 105.5, -3), 8: (0, 108, 3),
    17: (-58, -14, -15), 18: (-49.5, -22, -4), 19: (-38, -25, 3), 20: (-26, -23.5, 8), 21: (-13.5, -19, 12),
    27: (0, -4, 13), 28: (0, 8, 20), 29: (0, 20, 28), 30: (0, 32, 36),
    31: (-14.5, 41, 18), 32: (-7.5, 44.5, 22), 33: (0, 46.5, 25),
    36: (-46, 1, -7), 37: (-37.5, -5, -1), 38: (-27.5, -5.5, 1), 39: (-18.5, 2, -1), 40: (-27.5, 5, 0),
    41: (-37.5, 5, -2),
    48: (-26, 66, 7), 49: (-16, 60.5, 16), 50: (-6, 58, 20.5), 51: (0, 59, 21.5), 57: (0, 80, 20.5), 58: (-8, 79, 19.5),
    59: (-17, 75, 15), 60: (-21.5, 66.5, 9), 61: (-8, 64.5, 18), 62: (0, 65, 19), 66: (0, 72, 18), 67: (-8, 71.5, 17),
}  # fmt: skip

# Where the skin ends above the landmarks (the hairline), from the picture's left to the middle.
_HALF_HAIRLINE: Final = (
    (-75, -12, -64), (-74, -30, -58), (-69.5, -48, -48), (-60, -64, -35), (-45.5, -77, -20), (-24, -85, -8),
)  # fmt: skip
_HAIRLINE_MIDDLE: Final = (0, -88, -4)

# Points that give the skin its relief between the landmarks: forehead, temples, cheeks, sides of the nose, chin.
_HALF_RELIEF: Final = (
    (-18, -45, 14), (-40, -43, 4), (-57, -38, -19), (-20, -66, 7), (-40, -62, -6), (-66, -14, -40), (-58, 3, -18),
    (-46, 20, 0), (-60, 22, -26), (-32, 15, 1), (-34, 32, 8), (-48, 44, -8), (-60, 48, -36), (-34, 58, 3),
    (-44, 70, -16), (-28, 82, 5), (-12, 3, 4), (-10, 18, 10), (-13, 30, 14), (-19, 38, 10), (-22, 50, 10),
    (-12, 92, 14), (-24, 93, 0), (-7, 40, 27),
)  # fmt: skip
_AXIS_RELIEF: Final = ((0, -45, 16), (0, -66, 9), (0, -18, 14), (0, 53, 20), (0, 86, 13), (0, 97, 16), (0, 40, 32))

_GRID_STEP: Final = 12.0  # mm between the skin's own vertices
_GRID_CLEARANCE: Final = 5.0  # mm that they keep from landmarks, so that lids and lips stay edges of the mesh


def _mirrored(points: tuple[tuple[float, float, float], ...]) -> FloatArray:
    """Both sides `[2N, 3]` of `points` on the picture's left."""
    left = np.array(points, dtype=np.float64)
    return np.concatenate([left, left * (-1, 1, 1)])


def _template_landmarks() -> FloatArray:
    """The neutral face's landmarks `[68, 3]`, lips and eyes a little open."""
    landmarks = np.empty((NUM_LANDMARKS, 3))
    for index, (x, y, z) in _HALF_FACE.items():
        landmarks[IBUG68.mirror[index]] = (-x, y, z)
        landmarks[index] = (x, y, z)
    return landmarks


TEMPLATE: Final[FloatArray] = _template_landmarks()
HAIRLINE: Final[FloatArray] = np.array(
    [*_HALF_HAIRLINE, _HAIRLINE_MIDDLE, *((-x, y, z) for x, y, z in reversed(_HALF_HAIRLINE))], dtype=np.float64
)


@dataclass(frozen=True)
class Skin:
    """The face's surface.

    `vertices` `[V, 3]` of the template, the first 68 are the landmarks; `triangles` `[T, 3]` vertex indices, clockwise
    on the screen when they face the camera; `neighbours` `[V, n]` the triangles at each vertex, padded with T;
    `follow` `[V, 68 + H]` how far each vertex moves with the landmarks and the hairline.
    """

    vertices: FloatArray
    triangles: IntArray
    neighbours: IntArray
    follow: FloatArray


@cache
def skin() -> Skin:
    """The template's skin, built once: a grid between the landmarks, lifted to the relief, triangulated."""
    controls = np.concatenate([TEMPLATE, HAIRLINE])
    relief = np.concatenate([controls, _mirrored(_HALF_RELIEF), np.array(_AXIS_RELIEF, dtype=np.float64)])
    border = np.concatenate([TEMPLATE[:17], HAIRLINE[::-1]])[:, :2]
    grid = _free_grid(border, relief[:, :2])
    points = np.concatenate([relief[:, :2], grid])
    depth = _interpolation(relief[:, :2], points) @ relief[:, 2]
    vertices = np.concatenate([points, depth[:, None]], axis=1)
    triangles = _triangulate(points, border)
    return Skin(vertices, triangles, _triangles_at(triangles, len(points)), _interpolation(controls, vertices))


def _free_grid(border: FloatArray, taken: FloatArray) -> FloatArray:
    """Grid points `[G, 2]` inside the polygon `border` that keep clear of it and of the points `taken`."""
    low, high = border.min(axis=0), border.max(axis=0)
    columns, rows = (np.arange(low[i], high[i], _GRID_STEP) for i in (0, 1))
    columns = columns - columns.mean()  # the same on both sides
    candidates = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    polygon = border.astype(np.float32)
    inside = [cv2.pointPolygonTest(polygon, (float(x), float(y)), True) > _GRID_CLEARANCE for x, y in candidates]
    clear = np.linalg.norm(candidates[:, None] - taken, axis=2).min(axis=1) > _GRID_CLEARANCE
    return np.asarray(candidates[np.array(inside) & clear])


def _interpolation(at: FloatArray, to: FloatArray) -> FloatArray:
    """Weights `[M, N]` that carry values given at points `at` `[N, d]` over to points `to` `[M, d]`.

    Radial basis functions |r| with a linear part: exact at the given points, and a linear map is carried over exactly.
    """
    n, d = at.shape
    system = np.zeros((n + d + 1, n + d + 1))
    system[:n, :n] = np.linalg.norm(at[:, None] - at, axis=2)
    system[:n, n] = system[n, :n] = 1
    system[:n, n + 1 :] = at
    system[n + 1 :, :n] = at.T
    basis = np.concatenate([np.linalg.norm(to[:, None] - at, axis=2), np.ones((len(to), 1)), to], axis=1)
    return np.asarray(np.linalg.solve(system, basis.T).T[:, :n])


def _triangulate(points: FloatArray, border: FloatArray) -> IntArray:
    """Delaunay triangles `[T, 3]` of `points` `[V, 2]` whose centre lies inside the polygon `border`."""
    low = points.min(axis=0) - 10
    width, height = (points.max(axis=0) - low + 10).astype(int)
    delaunay = cv2.Subdiv2D((0, 0, int(width), int(height)))
    index = {delaunay.insert((float(x), float(y))): i for i, (x, y) in enumerate(points - low)}
    lookup = {tuple(delaunay.getVertex(vertex)[0]): i for vertex, i in index.items()}
    polygon = border.astype(np.float32)
    triangles = []
    for corners in np.array(delaunay.getTriangleList()).reshape(-1, 3, 2):
        vertices = [lookup.get((float(x), float(y)), -1) for x, y in corners]  # -1: OpenCV's own outer points
        centre = corners.mean(axis=0) + low
        if min(vertices) >= 0 and cv2.pointPolygonTest(polygon, (float(centre[0]), float(centre[1])), False) > 0:
            a, b, c = points[vertices]
            clockwise = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0] > 0
            triangles.append(vertices if clockwise else vertices[::-1])
    return np.array(triangles, dtype=np.int32)


def _triangles_at(triangles: IntArray, num_vertices: int) -> IntArray:
    """The triangles around each vertex `[V, n]`, padded with the number of triangles."""
    around = [np.flatnonzero((triangles == vertex).any(axis=1)) for vertex in range(num_vertices)]
    table = np.full((num_vertices, max(map(len, around))), len(triangles), dtype=np.int32)
    for vertex, found in enumerate(around):
        table[vertex, : len(found)] = found
    return table
