"""The head around a drawn face: neck, skull, ears, hair, hats, glasses.

Flat shapes, placed by projecting a few points of a standard head; those behind the face are painted before it.

Convention: head coordinates as in `mesh.py`; image pixels (x, y), 0-based, centred on integers; colours RGB.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import cv2
import numpy as np

from facelm.data.synthetic.appearance import Colour, Look, mix, scaled
from facelm.data.synthetic.brush import disc, fill, smooth, stroke, stroke_groups
from facelm.data.synthetic.camera import HEAD_PIVOT, Camera
from facelm.data.synthetic.mesh import FloatArray
from facelm.geometry.affine import Image

_SKULL_CENTRE: Final = np.array([0.0, -20.0, -78.0])
_SKULL_RADII: Final = np.array([77.0, 94.0, 90.0])
_EAR: Final = np.array(  # (outward and backward, down) in mm from where it meets the head
    [(-3, -18), (3, -27), (12, -30), (20, -24), (22, -12), (17, 2), (14, 14), (8, 24), (1, 26), (-4, 16)],
    dtype=np.float64,
)
_HAIR_THICKNESS: Final = {"curly": 1.2, "scarf": 1.08, "cap": 1.05, "medium": 1.1, "long": 1.08, "receding": 1.03}


class Head:
    """Paints one head's parts, from back to front, into one image.

    `face` `[68 + H, 3]` are the landmarks and hairline in head millimetres; `light` is the lamp's direction.
    """

    def __init__(self, image: Image, look: Look, camera: Camera, face: FloatArray, light: FloatArray) -> None:
        self.image, self.look, self.camera, self.face = image, look, camera, face
        width, height = (face[16, 0] - face[0, 0]) / 148, face[74, 1] / -88
        self.size = np.array([width, height, width])
        self.dim = float(0.8 + 0.15 * light[2])  # what faces sideways gets less light than the face

    def _project(self, points: FloatArray) -> FloatArray:
        """Points `[N, 3]` of a head of standard size in the image, `[N, 2]`."""
        return self.camera.project(points * self.size)

    def _hull(self, points: FloatArray, colour: Colour) -> FloatArray:
        """Fill the outline of head points `[N, 3]`, given for a head of standard size; the outline `[M, 2]`."""
        outline = cv2.convexHull(self._project(points).astype(np.float32))[:, 0].astype(np.float64)
        fill(self.image, outline, colour)
        return np.asarray(outline)

    def paint_behind(self, rng: np.random.Generator, cloth: Colour) -> None:
        """Everything that the face covers: long hair, neck, shoulders, skull, hair, ears."""
        look = self.look
        sides = self._ears_by_side()
        if look.haircut in ("long", "scarf", "medium"):
            length = {"long": 135.0, "scarf": 125.0, "medium": 62.0}[look.haircut]
            ends = [(x, length, z) for x in (-70.0, 70.0) for z in (-45.0, -120.0)]
            outline = self._hull(np.concatenate([_skull(1.1), np.array(ends)]), scaled(look.cover, 0.72))
            if look.haircut != "scarf":
                self._strands(rng, outline, 14)
        self._paint_neck(cloth)
        for ear in sides["far"]:
            self._paint_ear(ear)
        edge = self.face[[0, 1, 2, 3, 13, 14, 15, 16]] / self.size
        self._hull(np.concatenate([_skull(0.99), edge * (0.98, 1, 1)]), scaled(look.skin, self.dim))
        self._paint_hair(rng)
        if look.haircut not in ("scarf", "long"):
            for ear in sides["near"]:
                self._paint_ear(ear)

    def _ears_by_side(self) -> dict[str, list[int]]:
        """Which ears (-1 the picture's left one, 1 the right one) the head hides, and which it does not."""
        towards = {side: float(self.camera.turn[2] @ np.array([side, 0, 0.35])) for side in (-1, 1)}
        return {"far": [s for s in towards if towards[s] <= 0.1], "near": [s for s in towards if towards[s] > 0.1]}

    def _paint_ear(self, side: int) -> None:
        """The ear on the picture's left (-1) or right (1)."""
        outward = np.array([side * 0.62, 0, -0.78])
        root = np.array([side * 73.0, 8.0, -72.0])
        points = root + _EAR[:, :1] * outward + _EAR[:, 1:] * np.array([0, 1.0, 0.12])
        outline = smooth(self._project(points), closed=True, steps=3)
        fill(self.image, outline, scaled(mix(self.look.skin, (196, 100, 90), 0.12), self.dim))
        middle = outline.mean(axis=0)
        stroke(self.image, middle + (outline[6:24] - middle) * 0.62, scaled(self.look.skin, 0.55))

    def _paint_neck(self, cloth: Colour) -> None:
        """Neck and shoulders; the shoulders stay upright when the head turns."""
        angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        ring = np.stack([46 * np.cos(angles), np.full(10, 58.0), -78 + 46 * np.sin(angles)], axis=1)
        top, scale = self._project(ring), self.camera.scale
        base = self.camera.project(HEAD_PIVOT[None])[0] + (0, 104 * scale)
        bottom = base + np.stack([50 * scale * np.cos(angles), 14 * scale * np.sin(angles)], axis=1)
        neck = cv2.convexHull(np.concatenate([top, bottom]).astype(np.float32))[:, 0].astype(np.float64)
        colour = self.look.cover if self.look.haircut == "scarf" else scaled(self.look.skin, 0.95)
        fill(self.image, neck, scaled(colour, 0.82 * self.dim))
        shadow = self.camera.project(self.face[3:14] + np.array([0, 13, -12]))
        cover = np.concatenate([shadow, self.camera.project(self.face[[13, 3]] + np.array([0, -20, -20]))])
        fill(self.image, cover, scaled(colour, 0.58 * self.dim))
        half = np.array([(-60, 8), (-95, 22), (-150, 45), (-185, 90), (-190, 400)], dtype=np.float64) * scale
        shoulders = np.concatenate([half, (half * (-1, 1))[::-1], np.array([(40, 4), (0, 26), (-40, 4)]) * scale])
        fill(self.image, base + shoulders, cloth)
        stroke(self.image, base + shoulders[-4:], scaled(cloth, 0.7), max(1, round(3 * scale)))

    def _paint_hair(self, rng: np.random.Generator) -> None:
        """What is on the skull: hair of the person's cut, a cap or a scarf."""
        look = self.look
        if look.haircut == "bald":
            return
        points = _skull(_HAIR_THICKNESS.get(look.haircut, 1.06))
        lowest = np.interp(points[:, 2], [-130, -95, -60, -35], [55.0, 40.0, -8.0, -45.0])
        if look.haircut == "cap":
            lowest = np.full(len(points), -40.0)
        points = points[points[:, 1] < lowest]
        if look.haircut == "bun":
            centre = self._project(np.array([[0.0, -118, -110]]))[0]
            radius = max(4.0, 30 * self.camera.scale)
            disc(self.image, centre, (radius, radius), scaled(look.hair, 0.85))
        outline = self._hull(points, look.cover)
        if look.haircut == "curly":
            for x, y in outline[:: max(1, len(outline) // 22)]:
                radius = self.camera.scale * rng.uniform(8, 15)
                disc(self.image, np.array([x, y]), (radius, radius), scaled(look.hair, float(rng.uniform(0.85, 1.15))))
        if look.haircut not in ("cap", "scarf"):
            self._strands(rng, outline, 26)

    def _strands(self, rng: np.random.Generator, outline: FloatArray, count: int) -> None:
        """Lighter and darker strands from the crown to the hair's `outline` `[M, 2]`."""
        crown = self._project(np.array([[rng.uniform(-20, 20), -108.0, -70.0]]))
        ends = outline[rng.integers(len(outline), size=count)] * 0.96 + 0.04 * crown
        bend = (ends + crown) / 2 + rng.normal(0, 5 * self.camera.scale, (count, 2))
        stroke_groups(self.image, np.stack([np.repeat(crown, count, axis=0), bend, ends], axis=1), self.look.hair)

    def paint_in_front(self, rng: np.random.Generator) -> None:
        """What covers the face and belongs to the person: locks of hair, a cap's brim, glasses."""
        look = self.look
        if look.haircut == "long" and rng.random() < 0.6:
            for side in (-1, 1):
                lock = np.array(
                    [(60, -70, -30), (72, -30, -50), (70, 30, -48), (66, 110, -40), (92, 110, -70), (84, -40, -70)]
                )
                points = self._project(lock * (side, 1, 1) + rng.normal(0, 2, (6, 3)))
                if self.camera.turn[2] @ np.array([side, 0, 0.5]) > 0:
                    fill(self.image, smooth(points, closed=True, steps=3), scaled(look.hair, 0.9))
        if look.haircut == "cap":
            brim = [
                (-64, -56, -34),
                (-50, -52, 40),
                (-22, -50, 62),
                (22, -50, 62),
                (50, -52, 40),
                (64, -56, -34),
                (0, -66, 4),
            ]
            fill(
                self.image,
                smooth(self._project(np.array(brim, dtype=np.float64)), closed=True),
                scaled(look.cover, 0.7),
            )
        if look.glasses != "none":
            self._paint_glasses()

    def _paint_glasses(self) -> None:
        """Glasses on the nose: rims around both eyes, a bridge, and the arms that can be seen."""
        look, angles = self.look, np.linspace(0, 2 * np.pi, 20, endpoint=False)
        power = 0.55 if look.glasses in ("square", "rimless") else 1.0
        oval = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        oval = np.sign(oval) * np.abs(oval) ** power
        colour: Colour = (168.0, 158.0, 140.0) if look.glasses == "rimless" else (34.0, 28.0, 30.0)
        width = max(1, round(self.camera.scale * (1.0 if look.glasses == "rimless" else 2.2)))
        bridge = []
        for side, eye in ((-1, slice(36, 42)), (1, slice(42, 48))):
            centre = self.face[eye].mean(axis=0) + np.array([2 * side, 3, 9])
            rim = centre + np.column_stack([oval * (24, 19), -6 * side * oval[:, 0]])
            seen = self.camera.project(rim)
            if look.glasses == "dark":
                fill(self.image, seen, (30.0, 28.0, 34.0))
            stroke(self.image, seen, colour, width, closed=True)
            bridge.append(centre + np.array([-24 * side, -3, 5]))
            if self.camera.turn[2] @ np.array([side, 0, 0.1]) > 0.05:
                arm = np.array([centre + np.array([24 * side, -4, -6]), [side * 76 * self.size[0], 0, -72]])
                stroke(self.image, self.camera.project(arm), colour, width)
        stroke(self.image, self.camera.project(np.array(bridge)), colour, width)


@cache
def _unit_sphere() -> FloatArray:
    """Directions spread over the sphere, `[144, 3]`."""
    height = np.linspace(-0.99, 0.99, 144)
    around = np.arange(144) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(around), height, radius * np.sin(around)], axis=1)


@cache
def _skull(inflate: float) -> FloatArray:
    """Points on a standard skull `[144, 3]`, `inflate` times its size."""
    return np.asarray(_SKULL_CENTRE + _unit_sphere() * _SKULL_RADII * inflate)
