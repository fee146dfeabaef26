"""The photograph around a drawn head: background, things in front of the face, and what a camera does to it all.

Convention: image pixels (x, y), 0-based, centred on integers; colours RGB; images uint8 `[H, W, 3]`, changed in place
unless a new one is returned.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import cv2
import numpy as np
from cv2.typing import MatLike

from facelm.data.synthetic.appearance import Colour, Look, scaled
from facelm.data.synthetic.brush import disc, fill, fixed, smooth, stroke
from facelm.data.synthetic.camera import Camera
from facelm.data.synthetic.mesh import FloatArray
from facelm.geometry.affine import Image

_BANK_SIDE: Final = 512


def random_colour(rng: np.random.Generator, low: float = 20, high: float = 235) -> Colour:
    """A muted colour, about as light as a grey between `low` and `high`."""
    r, g, b = rng.normal(rng.uniform(low, high), 0.11 * (high - low), 3).tolist()
    return (min(max(r, 0.0), 255.0), min(max(g, 0.0), 255.0), min(max(b, 0.0), 255.0))


@cache
def _noise_bank() -> Image:
    """Normal noise around 128 with standard deviation 32, the same in every process."""
    noise = np.random.default_rng(68).normal(128, 32, (_BANK_SIDE, _BANK_SIDE, 3))
    return np.asarray(np.clip(noise, 0, 255), dtype=np.uint8)


def paint_background(rng: np.random.Generator, width: int, height: int) -> Image:
    """A new image of a room, a street or a garden that nobody could name, out of focus."""
    w, h = width // 2 + 1, height // 2 + 1
    ramp = np.array([random_colour(rng), random_colour(rng)], dtype=np.uint8)[:, None]
    small = cv2.resize(ramp, (w, h), interpolation=cv2.INTER_LINEAR)
    for x, y, long, wide, angle, kind in rng.random((int(rng.integers(2, 13)), 6)).tolist():
        colour, centre = random_colour(rng, 5, 250), (x * w, y * h)
        size = (2 + long * w / 2, 2 + wide * h / 2)
        if kind < 0.4:
            fill(small, cv2.boxPoints((centre, size, 40 * (angle - 0.5))), colour)
        elif kind < 0.75:
            disc(small, np.array(centre), (size[0] / 2, size[1] / 2), colour, 180 * angle)
        else:
            end = (centre[0] + (long - 0.5) * 2 * w, centre[1] + (wide - 0.5) * 2 * h)
            stroke(small, np.array([centre, end]), colour, 1 + int(7 * angle))
    focus = (1, 3, 7, 13)[int(rng.integers(4))]
    small = cv2.blur(small, (focus, focus))
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def paint_occluder(rng: np.random.Generator, image: Image, look: Look, camera: Camera, face: FloatArray) -> None:
    """Something in front of part of the face: a hand, a microphone, a strand of hair, a phone, a mask, anything."""
    kind = rng.choice(6, p=(0.3, 0.16, 0.16, 0.14, 0.08, 0.16))
    if kind == 0:
        _paint_hand(rng, image, look, camera, face)
    elif kind == 1:
        _paint_microphone(rng, image, camera, face)
    elif kind == 2:
        _paint_lock(rng, image, look, camera, face)
    elif kind == 3:
        centre, tilt = _edge_point(rng, camera, face), float(rng.normal(0, 25))
        size = rng.uniform((28, 50), (50, 95)) * camera.scale
        card = cv2.boxPoints(((float(centre[0]), float(centre[1])), (float(size[0]), float(size[1])), tilt))
        colour = random_colour(rng)
        fill(image, card.astype(np.float64), colour)
        stroke(image, card.astype(np.float64), scaled(colour, 0.6), 2, closed=True)
    elif kind == 4:
        cover = np.concatenate([face[2:15], [face[29] + (0, 2, 4)]])
        colour = ((150.0, 190.0, 214.0), (226.0, 226.0, 226.0), (50.0, 50.0, 56.0))[int(rng.integers(3))]
        outline = camera.project(cover)
        fill(image, outline, colour)
        for y in (0.35, 0.55, 0.75):
            pleat = outline[[2, 6, 10]] * (1 - y) + outline[-1] * y
            stroke(image, smooth(pleat), scaled(colour, 0.85))
    else:
        centre = _edge_point(rng, camera, face)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(16, 40, 9) * camera.scale
        blob = centre + np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=1)
        fill(image, smooth(blob, closed=True), random_colour(rng))


def _edge_point(rng: np.random.Generator, camera: Camera, face: FloatArray) -> FloatArray:
    """A point `[2]` in the image near the jaw, where most things that cover faces come from."""
    middle, edge = camera.project(np.stack([face[30], face[int(rng.integers(1, 16))]]))
    return np.asarray(middle + (edge - middle) * rng.uniform(0.75, 1.15))


def _paint_hand(rng: np.random.Generator, image: Image, look: Look, camera: Camera, face: FloatArray) -> None:
    """A hand from below or from the side, its fingers on the cheek or the chin."""
    tip, scale = _edge_point(rng, camera, face), camera.scale
    away = tip - camera.project(face[30:31])[0]
    away = away / (np.linalg.norm(away) + 1e-6) + (0, 0.7)
    along = away / np.linalg.norm(away)
    across = np.array([-along[1], along[0]])
    skin, edge = scaled(look.skin, float(rng.uniform(0.82, 1.0))), scaled(look.skin, 0.6)
    palm = tip + along * 62 * scale
    forearm = np.stack([palm, palm + along * 300 * scale])
    stroke(image, forearm, skin, max(2, round(46 * scale)))
    disc(image, palm, (38 * scale, 34 * scale), skin, float(np.degrees(np.arctan2(along[1], along[0]))))
    for finger, length in enumerate((0.85, 1.0, 0.95, 0.75)):
        root = palm + across * (finger - 1.5) * 17 * scale
        end = root - along * 66 * length * scale + across * (finger - 1.5) * rng.uniform(0, 5) * scale
        middle = (root + end) / 2 + across * rng.normal(0, 3) * scale
        line = np.stack([root, middle, end])
        stroke(image, line, edge, max(3, round(17 * scale)))
        stroke(image, line, skin, max(2, round(14 * scale)))


def _paint_microphone(rng: np.random.Generator, image: Image, camera: Camera, face: FloatArray) -> None:
    """A microphone held before the chin or a corner of the mouth."""
    anchor = face[[57, 8, 6, 10][int(rng.integers(4))]] + (rng.normal(0, 10), 14, 30)
    head, scale = camera.project(anchor[None])[0], camera.scale
    end = head + np.array([rng.normal(0, 70), 200]) * scale
    stroke(image, np.stack([head, end]), (28.0, 28.0, 30.0), max(3, round(20 * scale)))
    disc(image, head, (21 * scale, 23 * scale), (52.0, 52.0, 56.0))
    for ring in (-0.45, 0.0, 0.45):
        offset = np.array([(-18, ring * 20), (0, ring * 20 + 5), (18, ring * 20)]) * scale
        stroke(image, smooth(head + offset), (120.0, 120.0, 124.0))
    disc(image, head - np.array([6, 8]) * scale, (4 * scale, 4 * scale), (150.0, 150.0, 152.0))


def _paint_lock(rng: np.random.Generator, image: Image, look: Look, camera: Camera, face: FloatArray) -> None:
    """A lock of hair across the forehead, an eye and a cheek."""
    side = float(rng.choice((-1, 1)))
    x = np.array([8, 30, 46, 52, 50]) * side + rng.normal(0, 4, 5)
    spine = np.column_stack([x, (-84, -45, -8, 30, 62), (8, 20, 12, -2, -10)])
    centre = camera.project(spine)
    half = np.array([(12, 0), (13, 3), (11, 3), (8, 2), (0.5, 0)]) * camera.scale
    fill(image, np.concatenate([smooth(centre - half), smooth(centre + half)[::-1]]), look.hair)
    for share in (-0.6, -0.2, 0.2, 0.6):
        stroke(image, smooth(centre + half * share), scaled(look.hair, float(rng.uniform(0.7, 1.4))))


def develop(rng: np.random.Generator, image: Image, degradation: float) -> Image:
    """The photograph as a camera takes it: uneven light, colour cast, blur, noise, now and then grey."""
    height, width = image.shape[:2]
    photo: MatLike = image
    if rng.random() < 0.5:
        corners = rng.uniform(1 - 0.3 * degradation, 1.1, (2, 2)).astype(np.float32)
        lamp = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
        photo = cv2.multiply(photo, cv2.merge([lamp] * 3), dtype=cv2.CV_8U)
    gamma, gain = np.exp(rng.normal(0, 0.12 * degradation)), rng.uniform(0.85, 1.12) * rng.normal(1, 0.035, 3)
    curve = 255 * (np.arange(256)[:, None] / 255) ** gamma * gain
    photo = cv2.LUT(photo, np.clip(curve, 0, 255).astype(np.uint8)[:, None])
    sigma = 0.45 + rng.exponential(0.22 * degradation)
    photo = cv2.GaussianBlur(photo, (0, 0), min(sigma, 2.2))
    if rng.random() < 0.06 * degradation:
        length = int(rng.integers(3, 8))
        kernel = np.zeros((9, 9), np.float32)
        spread = np.array([np.cos(a := rng.uniform(0, np.pi)), np.sin(a)]) * length / 2
        cv2.polylines(kernel, [fixed(np.array([4 - spread, 4 + spread]))], False, 1.0, 1, cv2.LINE_8, 4)
        photo = cv2.filter2D(photo, -1, kernel / kernel.sum())
    if rng.random() < 0.08:
        photo = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return _with_noise(rng, photo, degradation, grey=True)
    return _with_noise(rng, photo, degradation, grey=False)


def _with_noise(rng: np.random.Generator, image: MatLike, degradation: float, *, grey: bool) -> Image:
    """`image` with sensor noise of a random strength."""
    height, width = image.shape[:2]
    x, y = rng.integers(_BANK_SIDE - width + 1), rng.integers(_BANK_SIDE - height + 1)
    noise: MatLike = _noise_bank()[y : y + height, x : x + width]
    if grey:
        noise = cv2.merge([np.ascontiguousarray(noise[..., 0])] * 3)
    strength = min(0.5, float(rng.exponential(0.09 * degradation)))
    return np.asarray(cv2.addWeighted(image, 1.0, noise, strength, -128 * strength), dtype=np.uint8)
