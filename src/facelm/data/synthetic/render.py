"""A small rasteriser: the painted texture laid over the 3-D skin, with light.

Triangles that face the camera are filled from back to front with their own number, and every pixel then looks its
colour up in the texture. So what the nose or a cheek hides is hidden exactly.

Convention: image pixels (x, y), 0-based, centred on integers; head coordinates as in `mesh.py`.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.synthetic.brush import fixed
from facelm.data.synthetic.camera import Camera
from facelm.data.synthetic.mesh import FloatArray, skin
from facelm.data.synthetic.texture import texture_from_template
from facelm.geometry.affine import Image


def _corner_attributes(shade: FloatArray) -> NDArray[np.float64]:
    """Texture x, texture y and `shade` of every vertex, `[V, 3]`."""
    return np.column_stack([_texture_places(), shade])


@cache
def _texture_places() -> FloatArray:
    """The texture pixel of every vertex of the skin, `[V, 2]`."""
    return texture_from_template(skin().vertices)


def _gradients(corners: FloatArray, values: FloatArray) -> NDArray[np.float32]:
    """The affine functions `[T, 9]` of image x, y that take `values` `[T, 3, 3]` at `corners` `[T, 3, 2]`.

    A row holds value at the origin, slope along x, slope along y of the first value, then the second, then the third.
    """
    (x1, y1), (x2, y2) = (corners[:, i].T - corners[:, 0].T for i in (1, 2))
    area = x1 * y2 - x2 * y1
    first, second = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    along_x = (first * y2[:, None] - second * y1[:, None]) / area[:, None]
    along_y = (second * x1[:, None] - first * x2[:, None]) / area[:, None]
    origin = values[:, 0] - along_x * corners[:, 0, :1] - along_y * corners[:, 0, 1:]
    return np.asarray(np.stack([origin, along_x, along_y], axis=2).reshape(-1, 9), dtype=np.float32)


def shading(turned: FloatArray, light: FloatArray, ambient: float) -> FloatArray:
    """Brightness `[V]` of the skin's vertices under a lamp in direction `light` `[3]`."""
    mesh = skin()
    a, b, c = (turned[mesh.triangles[:, i]] for i in range(3))
    faces = np.concatenate([np.cross(b - a, c - a), np.zeros((1, 3))])
    normals = faces[mesh.neighbours].sum(axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    lit = np.maximum(0, (normals @ light + 0.25) / 1.25)
    return np.asarray(ambient + (1.12 - ambient) * lit)


def render_skin(image: Image, texture: Image, turned: FloatArray, camera: Camera, shade: FloatArray) -> None:
    """Lay `texture` over the skin whose turned vertices are `turned` `[V, 3]`, in place."""
    mesh, xy = skin(), camera.image(turned)
    corners = xy[mesh.triangles]
    (x1, y1), (x2, y2) = (corners[:, i].T - corners[:, 0].T for i in (1, 2))
    facing = np.flatnonzero(x1 * y2 - x2 * y1 > 0.02)
    order = facing[np.argsort(turned[mesh.triangles[facing], 2].sum(axis=1))]
    corners = corners[order]
    height, width = image.shape[:2]
    low = np.maximum(np.floor(corners.reshape(-1, 2).min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(corners.reshape(-1, 2).max(axis=0)).astype(int) + 2, (width, height))
    number = np.zeros((high[1] - low[1], high[0] - low[0]), np.int32)
    for index, triangle in enumerate(fixed((corners - low).reshape(-1, 2)).reshape(-1, 3, 2), start=1):
        cv2.fillConvexPoly(number, triangle, index, cv2.LINE_8, 4)
    values = _corner_attributes(shade)[mesh.triangles[order]]
    table = np.concatenate([np.zeros((1, 9), np.float32), _gradients(corners - low, values)])
    affine = np.take(table, number, axis=0)  # [h, w, 9]
    x = np.arange(number.shape[1], dtype=np.float32)
    y = np.arange(number.shape[0], dtype=np.float32)[:, None]
    u, v, brightness = (affine[..., i] + affine[..., i + 1] * x + affine[..., i + 2] * y for i in (0, 3, 6))
    colour = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lit = cv2.multiply(colour, cv2.merge([brightness] * 3), dtype=cv2.CV_8U)
    # OpenCV fills half a pixel too much; taking it off again also makes the outline smooth.
    inside = cv2.blur(np.minimum(number, 1).astype(np.float32), (3, 3)) * 2 - 1
    patch = image[low[1] : high[1], low[0] : high[0]]
    patch[:] = cv2.blendLinear(lit, np.ascontiguousarray(patch), np.maximum(inside, 0), np.minimum(1 - inside, 1))
