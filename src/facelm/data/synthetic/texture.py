"""The painted skin of a drawn face: one flat picture per person, the same features always at the same places.

The picture is laid out like the template seen from the front, so it is painted without a thought for pose; laying it
over the 3-D skin (`render.py`) puts every brow, lid and lip exactly where its landmarks are.

Convention: texture pixels are template millimetres from `ORIGIN`, `PIXELS_PER_MM` to the millimetre, 0-based, centred
on integers. Colours are RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from facelm.data.synthetic.appearance import Look, mix, scaled
from facelm.data.synthetic.brush import disc, fill, smooth, stroke, stroke_groups
from facelm.data.synthetic.mesh import TEMPLATE, FloatArray
from facelm.geometry.affine import Image
from facelm.geometry.landmarks import IBUG68

PIXELS_PER_MM: Final = 1.25
ORIGIN: Final = (-78.0, -94.0)
TEXTURE_SIZE: Final = (196, 260)  # width, height
_COARSE: Final = 4  # soft shading is painted this many times smaller


def texture_from_template(points: FloatArray) -> FloatArray:
    """Template points `[..., 2+]` in millimetres as texture pixels `[..., 2]`."""
    return np.asarray((points[..., :2] - ORIGIN) * PIXELS_PER_MM)


_FLAT: Final = texture_from_template(TEMPLATE)  # the landmarks' places in the texture
_OUTER_LIPS: Final = smooth(_FLAT[48:60], closed=True)
_INNER_LIPS: Final = smooth(_FLAT[60:68], closed=True)


def _at(x: float, y: float) -> FloatArray:
    """The texture pixel of the template point (x, y), `[2]`."""
    return texture_from_template(np.array([x, y]))


@cache
def _soft_masks() -> dict[str, NDArray[np.float32]]:
    """Blurred places of what has no edge, each `[h, w, 1]` from 0 to 1 in the coarse texture."""
    width, height = (-(-side // _COARSE) for side in TEXTURE_SIZE)

    def soft(blur: float, *polygons: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
        mask = np.zeros((height, width), np.uint8)
        for polygon in polygons:
            for side in (-1, 1):
                points = texture_from_template(np.array(polygon, dtype=np.float64) * (side, 1)) / _COARSE
                fill(mask, points, (255.0, 0.0, 0.0))
        return np.asarray(cv2.GaussianBlur(mask, (0, 0), blur)[..., None] / np.float32(255), dtype=np.float32)

    chin = [(0, 84), (14, 84), (18, 92), (14, 112), (0, 112)]
    return {
        "socket": soft(1.4, [(12, -8), (30, -13), (48, -8), (50, 4), (36, 10), (16, 8)]),
        "nose": soft(0.9, [(8, 4), (11, 20), (16, 36), (18, 44), (8, 47), (0, 50), (0, 46), (9, 42), (8, 30), (5, 15)]),
        "ridge": soft(0.7, [(0, -6), (2.5, -6), (3, 30), (5, 36), (0, 38)]),
        "cheek": soft(2.2, [(32, 20), (54, 18), (58, 34), (44, 44), (32, 36)]),
        "rim": soft(2.0, [(60, -40), (76, -40), (76, 60), (50, 95), (0, 112), (0, 104), (40, 90), (60, 60), (66, 20)]),
        "beard": soft(
            1.0,
            [(64, 22), (80, 20), (80, 70), (40, 116), (0, 120), (0, 86), (14, 84), (28, 78), (38, 64), (56, 54)],
        ),
        "moustache": soft(0.6, [(0, 49), (10, 48), (22, 54), (32, 68), (28, 74), (22, 62), (10, 57), (0, 57)]),
        "goatee": soft(0.8, chin),
        "fold": soft(0.8, [(17, 41), (20, 41), (31, 56), (33, 66), (30, 66), (27, 57)]),
        "underlip": soft(0.8, [(0, 82), (10, 82), (12, 87), (0, 88)]),
    }


def _skin_base(rng: np.random.Generator, look: Look) -> Image:
    """The skin without features: tint, soft shadows and beard, `[H, W, 3]`."""
    masks = _soft_masks()
    shape = masks["socket"].shape[:2]
    base = np.empty((*shape, 3), np.float32)
    base[:] = look.skin
    mottle = cv2.resize(rng.normal(0, 0.025, (8, 6)).astype(np.float32), shape[::-1], interpolation=cv2.INTER_CUBIC)
    tone = 1 + mottle[..., None] - (0.10 + 0.12 * look.age) * masks["socket"] - 0.14 * masks["nose"]
    tone += 0.10 * masks["ridge"] - 0.12 * masks["rim"] - (0.06 + 0.2 * look.age) * masks["fold"]
    base *= tone - 0.15 * masks["underlip"]
    whiskers = np.maximum(look.beard * masks["beard"], look.moustache * masks["moustache"])
    whiskers = np.maximum(whiskers, look.goatee * masks["goatee"])
    layers = (
        (look.blush * masks["cheek"], mix(look.skin, (214, 96, 92), 0.6)),
        (0.5 * look.makeup * masks["socket"], mix(look.skin, (110, 70, 110), 0.6)),
        (0.94 * whiskers, look.hair),
    )
    for share, colour in layers:
        if share.any():
            base += share * (np.array(colour, np.float32) - base)
    small = np.clip(base, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(small, TEXTURE_SIZE, interpolation=cv2.INTER_LINEAR))


_BROW_HALF: Final = np.interp(np.arange(17) / 4, np.arange(5), [0.25, 0.75, 1.0, 1.1, 0.8])[:, None] * (
    0,
    PIXELS_PER_MM,
)
_BROWS: Final = ((smooth(_FLAT[17:22]), _BROW_HALF), (smooth(_FLAT[22:27]), _BROW_HALF[::-1]))


def _paint_brows(texture: Image, look: Look) -> None:
    """Brows whose middle line runs through their five landmarks."""
    colour = mix(scaled(look.hair, 0.8), look.skin, 0.12)
    if look.haircut == "bald" or sum(colour) > 0.75 * sum(look.skin):
        colour = scaled(look.skin, 0.42)  # brows must show
    for line, half in _BROWS:
        half = half * look.brow_width
        fill(texture, np.concatenate([line - half, (line + half)[::-1]]), colour)


class _EyePatch(NamedTuple):
    """What is the same for everybody's eye: its rectangle of the texture, and the lids' outline in there."""

    rows: slice
    columns: slice
    outline: FloatArray
    centre: FloatArray
    corner: FloatArray
    share: NDArray[np.float32]


@cache
def _eye_patch(which: int) -> _EyePatch:
    """The patch of the picture's left (0) or right (1) eye."""
    curve = smooth(_FLAT[list(IBUG68.eyes[which])], closed=True)
    low, high = np.floor(curve.min(axis=0)).astype(int) - (2, 8), np.ceil(curve.max(axis=0)).astype(int) + 3
    mask = np.zeros((high - low)[::-1], np.uint8)
    fill(mask, curve - low, (255.0, 0.0, 0.0))
    centre = _FLAT[list(IBUG68.eyes[which])].mean(axis=0) - low
    corner = _FLAT[(39, 42)[which]] - low
    share = np.asarray(mask[..., None] / np.float32(255), dtype=np.float32)
    return _EyePatch(slice(low[1], high[1]), slice(low[0], high[0]), curve - low, centre, corner, share)


def _paint_eye(texture: Image, look: Look, which: int, stretch: tuple[float, float]) -> None:
    """One eye: eyeball clipped by the lids, lids, lashes and crease. The iris undoes the eye's own `stretch`."""
    rows, columns, outline, centre, corner, share = _eye_patch(which)
    patch = np.ascontiguousarray(texture[rows, columns])
    ball = np.full_like(patch, 232)
    opening = max(stretch[1], 0.2)
    centre = centre + np.array([look.gaze[0] / stretch[0], look.gaze[1] / opening - 0.6]) * PIXELS_PER_MM
    for radius, colour in ((6.1, scaled(look.iris, 0.45)), (5.2, look.iris), (2.5, (12.0, 10.0, 10.0))):
        disc(ball, centre, (radius * PIXELS_PER_MM / stretch[0], radius * PIXELS_PER_MM / opening), colour)
    glint = (1.2 * PIXELS_PER_MM, 1.2 * PIXELS_PER_MM / opening)
    disc(ball, centre + np.array([2.2, -2.0 / opening]), glint, (250.0, 250.0, 250.0))
    upper = outline[:13]
    stroke(ball, upper + np.array([0, 1.2]), (150.0, 140.0, 136.0))  # the upper lid's shadow
    patch = (patch + share * (ball.astype(np.float32) - patch)).astype(np.uint8)
    lash = mix(scaled(look.skin, 0.35), (18.0, 14.0, 14.0), 0.6)
    stroke(patch, outline[11:], scaled(look.skin, 0.6))
    stroke(patch, upper, lash, 2 if look.makeup > 0.3 else 1)
    stroke(patch, upper - np.array([0, 1.0]), lash)
    stroke(patch, upper[2:-1] - np.array([0, 4.2 * PIXELS_PER_MM]), scaled(look.skin, 0.74))
    disc(patch, corner, (1.3, 1.3), scaled(mix(look.skin, (190, 90, 90), 0.5), 0.8))
    texture[rows, columns] = patch


_UPPER_LIP: Final = np.concatenate([_OUTER_LIPS[:25], _INNER_LIPS[16::-1]])
_LOWER_LIP: Final = np.concatenate([_OUTER_LIPS[24:], _OUTER_LIPS[:1], _INNER_LIPS[:1], _INNER_LIPS[:15:-1]])
_LIP_SHINE: Final = smooth(_FLAT[[59, 58, 57, 56, 55]])[4:-4] - (0, 3.6)
_TEETH: Final = _INNER_LIPS[3:14]  # where they come out from under the upper lip
_TEETH_DOWN: Final = np.array([0.1, 0.5, 0.85, 1, 1, 1, 1, 1, 0.85, 0.5, 0.1])[:, None] * (0, 1)


def _paint_mouth(texture: Image, look: Look, opening: float) -> None:
    """Lips, and between them teeth and tongue where the mouth is open by `opening` millimetres."""
    fill(texture, _UPPER_LIP, scaled(look.lips, 0.84))
    fill(texture, _LOWER_LIP, look.lips)
    fill(texture, _INNER_LIPS, (52.0, 18.0, 20.0))
    if opening > 9:
        disc(texture, _FLAT[66] - np.array([0, 1.0]), (9.0, 3.6), (176.0, 78.0, 82.0))
    if opening > 1.5:
        stretched = (_FLAT[66, 1] - _FLAT[62, 1]) / opening  # texture pixels to a millimetre of the open mouth
        teeth = _TEETH + min(6.5, 0.8 * opening) * stretched * _TEETH_DOWN
        fill(texture, np.concatenate([_TEETH, teeth[::-1]]), (238.0, 234.0, 224.0))
    stroke(texture, _INNER_LIPS, scaled(look.lips, 0.45), closed=True)
    stroke(texture, _OUTER_LIPS, scaled(look.lips, 0.78), closed=True)
    stroke(texture, _LIP_SHINE, mix(look.lips, (255, 235, 235), 0.35 + 0.3 * look.makeup))


_WINGS: Final = tuple(
    smooth(texture_from_template(np.array([(15.5, 33), (18, 38), (16.5, 42.5), (12.5, 44.5)]) * (side, 1)))
    for side in (-1, 1)
)


_NOSE_BASE: Final = smooth(_FLAT[31:36])
_NOSE_RIDGE: Final = smooth(_FLAT[27:30])


def _paint_nose(texture: Image, look: Look) -> None:
    """Nostrils, wings and the tip's shine: what makes the nose's nine landmarks visible."""
    dark, line = scaled(look.skin, 0.32), scaled(look.skin, 0.58)
    for side, wing in zip((-1, 1), _WINGS, strict=True):
        disc(texture, _at(7.6 * side, 43.2), (4.6, 2.0), dark, angle=-14 * side)
        stroke(texture, wing, line)
    stroke(texture, _NOSE_BASE, scaled(look.skin, 0.62))
    light = mix(look.skin, (255, 250, 245), 0.45)
    stroke(texture, _NOSE_RIDGE, mix(look.skin, (255, 250, 245), 0.14), 2)
    disc(texture, _FLAT[30], (4.0, 3.2), mix(look.skin, light, 0.7))


_CROWS_FEET: Final = tuple(
    texture_from_template(np.array([(49.0, 1 + y / 2), (57.0, y * 1.6)]) * (side, 1))
    for side in (-1, 1)
    for y in (-3.0, 1.0, 5.0)
)


def _paint_age(rng: np.random.Generator, texture: Image, look: Look) -> None:
    """Wrinkles of the old and freckles of some of the young."""
    line = scaled(look.skin, 0.8)
    if look.age > 0.45:
        for y in (-58, -48, -38)[: int(1 + look.age * 3)]:
            xs = np.linspace(-30, 30, 9) + rng.normal(0, 1.5, 9)
            stroke(texture, texture_from_template(np.stack([xs, y + rng.normal(0, 1.0, 9)], axis=1)), line)
        for crow in _CROWS_FEET:
            stroke(texture, crow, line)
    elif rng.random() < 0.12:
        for x, y in rng.normal((0, 22), (26, 8), (40, 2)):
            disc(texture, _at(float(x), float(y)), (0.7, 0.7), mix(look.skin, (130, 70, 40), 0.5))


_HAIR_TOP: Final = np.array([(80.0, 30.0), (80.0, -97.0), (-80.0, -97.0), (-80.0, 30.0)])
_HAIR_LOW: Final = {"receding": -84.0, "bald": -120.0, "cap": -58.0, "scarf": -56.0}


def _paint_hairline(rng: np.random.Generator, texture: Image, look: Look) -> None:
    """The hair's edge on the forehead and temples: fringe, parting, sideburns; a cap's or a scarf's edge."""
    if look.haircut == "bald":
        return
    covered = look.haircut in ("cap", "scarf")
    low = _HAIR_LOW.get(look.haircut, -78.0 + 34.0 * max(0.0, look.fringe - 0.45) / 0.55)
    xs = np.linspace(-66, 66, 15)
    wave = 0.0 if covered else rng.normal(0, 2.2, 15) + rng.uniform(-10, 10) * xs / 66
    ys = low + 26 * (np.abs(xs) / 66) ** 2.6 + wave
    if covered:
        ys = low + 6 * (np.abs(xs) / 66) ** 2
    side = 4.0 if look.beard or look.haircut in ("short", "receding") else -10.0
    edge = np.stack([xs, ys], axis=1)
    low_side = [(70.0, -20.0), (68.5, side), (80.0, side)] if not covered else [(80.0, -40.0)]
    outline = np.concatenate([_HAIR_TOP[1:3], np.array(low_side[::-1]) * (-1, 1), smooth(edge), np.array(low_side)])
    fill(texture, texture_from_template(outline), look.cover)
    if covered:
        stroke(texture, texture_from_template(edge), scaled(look.cover, 0.6), 2)
        return
    x = rng.uniform(-64, 64, 24)
    y = np.interp(x, xs, ys)
    bend = rng.normal(0, 2, (2, 24))
    strands = np.stack([x * 0.7, y - 34, x * 0.92 + bend[0], y - 14, x + bend[1], y + 2], axis=1).reshape(-1, 3, 2)
    stroke_groups(texture, texture_from_template(strands), look.hair)


def paint_texture(
    rng: np.random.Generator, look: Look, eye_stretch: Sequence[tuple[float, float]], mouth_opening: float
) -> Image:
    """The person's face flat, `[H, W, 3]` uint8 RGB.

    `eye_stretch` is how much wider and higher each eye is than the template's (so that irises come out round after
    the texture is laid on), `mouth_opening` the gap between the lips in millimetres.
    """
    texture = _skin_base(rng, look)
    _paint_age(rng, texture, look)
    _paint_nose(texture, look)
    _paint_mouth(texture, look, mouth_opening)
    for which in (0, 1):
        _paint_eye(texture, look, which, eye_stretch[which])
    _paint_brows(texture, look)
    _paint_hairline(rng, texture, look)
    return texture
