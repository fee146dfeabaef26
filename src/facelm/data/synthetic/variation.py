"""What differs between faces: who they are, what they express, and how hard a set of them is.

Convention: head coordinates in millimetres, as in `mesh.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from facelm.data.synthetic.mesh import HAIRLINE, TEMPLATE, FloatArray
from facelm.geometry.landmarks import IBUG68


@dataclass(frozen=True)
class Difficulty:
    """How far faces are drawn from a neutral, frontal, unoccluded one.

    Angles in degrees: standard deviation and limit of the normal that yaw, pitch and roll come from. `expression`
    multiplies every expression; `occlusion` is the chance that something covers part of the face; `degradation`
    scales blur, noise and bad light.
    """

    yaw: tuple[float, float]
    pitch: tuple[float, float]
    roll: tuple[float, float]
    expression: float
    occlusion: float
    degradation: float


DIFFICULTIES: Final[dict[str, Difficulty]] = {
    "common": Difficulty((15, 45), (6.5, 20), (6, 25), expression=1.0, occlusion=0.06, degradation=1.0),
    "challenge": Difficulty((29, 75), (11, 30), (14, 45), expression=1.5, occlusion=0.5, degradation=1.6),
}


def truncated_normal(rng: np.random.Generator, sd: float, limit: float) -> float:
    """One draw from a normal around 0 restricted to [-limit, limit]."""
    while True:
        value = float(rng.normal(0, sd))
        if abs(value) <= limit:
            return value


def _bump(count: int, centre: float, width: float) -> FloatArray:
    """A smooth bump over `count` consecutive landmarks, 1 at `centre`."""
    return np.asarray(np.exp(-(((np.arange(count) - centre) / width) ** 2)))


_JAW_SWING: Final = _bump(17, 8, 4.2)[:, None]  # how much each jaw landmark follows the chin
_CHEEKS: Final = np.array([0, 0.3, 0.6, 1, 1.4, 1.6, 1.5, 1.2, 0, 1.2, 1.5, 1.6, 1.4, 1, 0.6, 0.3, 0])
_ARCH: Final = np.tile(_bump(5, 2, 1.2), 2)  # of both brows
_TILT: Final = np.array([1, 0.5, 0, -0.5, -1, -1, -0.5, 0, 0.5, 1])
_UPPER_LIDS: Final = ([37, 38, 43, 44], [41, 40, 47, 46])  # each with the lower one it closes onto
_LOWER_LIP: Final = [55, 56, 57, 58, 59, 65, 66, 67]
_UPPER_LIP: Final = [49, 50, 51, 52, 53, 61, 62, 63]
_INNER_LIPS: Final = ([61, 62, 63], [67, 66, 65])
_CORNERS: Final = [48, 60, 54, 64]
_OUTWARD: Final = np.sign(TEMPLATE[:, 0])[:, None] * [1.0, 0.0, 0.0]  # away from the face's axis


def draw_identity(rng: np.random.Generator) -> FloatArray:
    """A person's 68 landmarks and hairline `[68 + H, 3]` with a neutral expression, in head millimetres."""
    face = TEMPLATE.copy()
    jaw, brows, nose, mouth = face[:17], face[17:27], face[27:36], face[48:]
    fullness = rng.normal(0, 0.05)  # round or tapered lower face
    jaw[:, 0] *= 1 + fullness * _CHEEKS
    jaw += _JAW_SWING * [0, rng.normal(0, 5), rng.normal(0, 4)]
    brows[:, 1] += rng.normal(0, 2.5)
    brows[:, 1] -= rng.normal(0, 1.8) * _ARCH
    brows[:, 1] += rng.normal(0, 2.2) * _TILT
    nose *= (np.exp(rng.normal(0, 0.14)), np.exp(rng.normal(0, 0.07)), np.exp(rng.normal(0, 0.1)))
    mouth += (0, rng.normal(0, 2.5) + (nose[6, 1] - TEMPLATE[33, 1]) * 0.7, 0)
    mouth[:, 0] *= np.exp(rng.normal(0, 0.09))
    for lip, outer in (([50, 51, 52], [61, 62, 63]), ([58, 57, 56], [67, 66, 65])):  # thin or full lips
        face[lip] = face[outer] + (face[lip] - face[outer]) * np.exp(rng.normal(0, 0.25))
    apart, width, height = rng.normal(0, 1.6), np.exp(rng.normal(0, 0.07)), np.exp(rng.normal(0, 0.15))
    tilt = rng.normal(0, 0.05)
    for eye in IBUG68.eyes:
        middle = face[list(eye)].mean(axis=0)
        rows = face[list(eye)] - middle
        rows *= (width, height, 1)
        rows[:, 1] -= tilt * np.abs(face[list(eye), 0])
        face[list(eye)] = middle + rows + np.sign(middle[0]) * np.array([apart, 0, 0]) + (0, tilt * 32, 0)
    face += rng.normal(0, 0.45, face.shape)  # nobody is symmetric
    person = np.concatenate([face, HAIRLINE + rng.normal(0, (0, 4, 2), 3)])
    return person * np.exp(rng.normal((0.03, -0.03, 0), (0.05, 0.055, 0.06), 3))


def draw_expression(rng: np.random.Generator, face: FloatArray, gain: float) -> FloatArray:
    """The landmarks and hairline `face` `[68 + H, 3]` with an expression of strength `gain` drawn at random."""
    face = face.copy()
    _move_mouth(rng, face, gain)
    raised, frown = rng.normal(1, 3) * gain, max(0.0, rng.normal(-1, 2)) * gain
    face[17:27, 1] -= raised * (1 + 0.35 * rng.normal(0, 1, 2).repeat(5))  # one brow can rise more
    face[[20, 21, 22, 23]] += frown * np.array([[0.5, 0.6, 0], [1.1, 1, 0], [-1.1, 1, 0], [-0.5, 0.6, 0]])
    opening = float(np.clip(1.05 + 0.03 * raised + rng.normal(0, 0.16), 0.6, 1.4))
    kind = rng.random()
    if kind < 0.06 * gain:
        opening = rng.uniform(0.0, 0.25)  # closed, or nearly
    elif kind < 0.2 * gain:
        opening *= rng.uniform(0.45, 0.8)  # narrowed
    upper, lower = _UPPER_LIDS
    gap = face[upper] - face[lower]
    face[lower] += gap * (1 - opening) * 0.25  # the lower lid does a quarter of the way
    face[upper] = face[lower] + gap * opening
    return face


def _move_mouth(rng: np.random.Generator, face: FloatArray, gain: float) -> None:
    """Close or open the mouth of `face`, swing the jaw with it, and let it smile, sulk or purse; in place."""
    upper, lower = _INNER_LIPS
    rest = (face[lower] - face[upper])[:, 1:2] * np.array([0, 1, 0])
    kind = rng.random()
    if kind < 0.45:
        opening = 0.0
    elif kind < 0.75:
        opening = rng.uniform(1, 7)
    else:
        opening = rng.uniform(6, 20) * gain
    shut = rest.mean(axis=0)
    drop = np.array([0, opening - shut[1], -0.25 * opening])
    bowed = np.array([0.85, 1, 1, 1, 0.85, 1, 1, 1])[:, None]  # the middle of the lower lip drops furthest
    face[_LOWER_LIP] += drop * bowed
    face[lower] += (shut - rest) * (opening < 1)  # shut lips meet along their whole length
    face[:17] += _JAW_SWING * [0, 0.85, -0.5] * opening
    face[_CORNERS] += [0, 0.35 * opening + 0.5 * drop[1] * (opening < 1), 0]
    smile = rng.normal(0.6, 1) * gain
    if smile > 0:
        face[_CORNERS] += _OUTWARD[_CORNERS] * 3.0 * smile + [0, -2.4 * smile, -1.5 * smile]
        face[_UPPER_LIP] += [0, -0.8 * smile, -0.8 * smile]
        face[[40, 41, 46, 47], 1] -= 0.5 * smile
    else:
        face[_CORNERS] += [0, -2.0 * smile, 0]
    if rng.random() < 0.08 * gain:  # pursed
        purse = rng.uniform(0.1, 0.35)
        face[48:68, 0] -= face[48:68, 0] * purse
        face[48:68, 2] += 9 * purse * _bump(20, 3, 30)
    face[48:68, 0] += rng.normal(0, 1.2) * gain  # a mouth to one side
