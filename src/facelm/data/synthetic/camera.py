"""Where the camera stands, and how the head before it is turned.

Convention: head coordinates in millimetres, as in `mesh.py`; image pixels (x, y), 0-based, centred on integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from facelm.data.synthetic.mesh import NUM_LANDMARKS, FloatArray
from facelm.data.synthetic.variation import Difficulty, truncated_normal


def rotation(yaw: float, pitch: float, roll: float) -> FloatArray:
    """The rotation `[3, 3]` of a head turned by these angles, in degrees.

    Convention: positive yaw turns the nose to the picture's right, positive pitch lowers it, positive roll turns the
    picture clockwise.
    """
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians([yaw, pitch, roll])), np.cos(np.radians([yaw, pitch, roll]))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in front of a turned head.

    `turn` `[3, 3]` rotates head coordinates about the head's `pivot` `[3]`; the camera stands `distance` mm before the
    pivot; `scale` is pixels per millimetre there, and the pivot falls on the pixel `centre` `[2]`.
    """

    turn: FloatArray
    pivot: FloatArray
    distance: float
    scale: float
    centre: FloatArray

    def turned(self, points: FloatArray) -> FloatArray:
        """Head points `[N, 3]` in millimetres about the pivot, the head turned and the axes the camera's."""
        return np.asarray((points - self.pivot) @ self.turn.T)

    def image(self, turned: FloatArray) -> FloatArray:
        """Turned points `[N, 3]` in the image, `[N, 2]` pixels."""
        shrink = self.distance / (self.distance - turned[:, 2:])
        return np.asarray(turned[:, :2] * shrink * self.scale + self.centre)

    def project(self, points: FloatArray) -> FloatArray:
        """Head points `[N, 3]` in the image, `[N, 2]` pixels."""
        return self.image(self.turned(points))


HEAD_PIVOT: Final[FloatArray] = np.array([0.0, 40.0, -60.0])


def draw_camera(rng: np.random.Generator, face: FloatArray, difficulty: Difficulty, width: int, height: int) -> Camera:
    """A camera and pose that show the landmarks of `face` in a `width` x `height` image at half to two thirds of it."""
    yaw, pitch, roll = (truncated_normal(rng, *s) for s in (difficulty.yaw, difficulty.pitch, difficulty.roll))
    turn = rotation(yaw, pitch, roll)
    distance = float(np.exp(rng.uniform(np.log(450), np.log(2000))))
    seen = Camera(turn, HEAD_PIVOT, distance, 1.0, np.zeros(2)).project(face[:NUM_LANDMARKS])
    low, high = seen.min(axis=0), seen.max(axis=0)
    scale = rng.uniform(0.48, 0.66) * min(width, height) / float((high - low).max())
    room = (np.array([width, height]) - scale * (high - low)) / 2 - 6
    offset = rng.uniform((-0.6, -0.25), (0.6, 0.7)) * room
    centre = np.array([width, height]) / 2 + offset - scale * (low + high) / 2
    return Camera(turn, HEAD_PIVOT, distance, float(scale), centre)
