"""What a person looks like apart from the face's shape: colours, hair, beard, glasses, age. Colours are RGB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

Colour = tuple[float, float, float]

_SKINS: Final[tuple[Colour, ...]] = (
    (252, 222, 200), (240, 200, 172), (228, 184, 150), (214, 162, 124), (190, 136, 98), (160, 108, 74), (126, 82, 56),
    (94, 60, 42), (70, 45, 34),
)  # fmt: skip
_HAIRS: Final[tuple[Colour, ...]] = (
    (26, 21, 20), (36, 27, 23), (56, 38, 28), (84, 57, 37), (118, 80, 48), (146, 72, 38), (168, 126, 74),
    (206, 172, 112),
)  # fmt: skip
_GREYS: Final[tuple[Colour, ...]] = ((120, 118, 116), (165, 162, 160), (214, 212, 208))
_IRISES: Final[tuple[Colour, ...]] = (
    (62, 38, 22),
    (84, 54, 30),
    (104, 92, 48),
    (70, 110, 80),
    (78, 118, 152),
    (104, 120, 130),
)
_DYES: Final[tuple[Colour, ...]] = (
    (196, 70, 110),
    (60, 96, 150),
    (80, 130, 90),
    (128, 84, 150),
    (52, 54, 60),
    (190, 180, 160),
)


@dataclass(frozen=True)
class Look:
    """What a person looks like, apart from the shape of the face.

    Colours are RGB; `cover` is that of what is on the head: the hair, a cap or a scarf. `gaze` is in millimetres of
    the iris's way, `brow_width` too; the numbers without a unit are shares from 0 to 1.
    """

    skin: Colour
    hair: Colour
    cover: Colour
    lips: Colour
    iris: Colour
    haircut: str
    fringe: float
    beard: float
    moustache: float
    goatee: float
    brow_width: float
    makeup: float
    age: float
    blush: float
    gaze: tuple[float, float]
    glasses: str


HAIRCUTS: Final = ("short", "medium", "long", "curly", "bun", "bald", "receding", "cap", "scarf")
_HAIRCUT_SHARES: Final = (0.28, 0.14, 0.2, 0.09, 0.07, 0.05, 0.07, 0.05, 0.05)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from `a` to `b`."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def scaled(colour: Colour, factor: float) -> Colour:
    """`colour` made darker or lighter, within 0 to 255."""
    return (min(255.0, colour[0] * factor), min(255.0, colour[1] * factor), min(255.0, colour[2] * factor))


def _pick(rng: np.random.Generator, palette: tuple[Colour, ...], place: float, jitter: float) -> Colour:
    """The colour at `place` (0 to 1) along `palette`, a little off."""
    position = place * (len(palette) - 1)
    low = min(int(position), len(palette) - 2)
    r, g, b = mix(palette[low], palette[low + 1], position - low)
    tint = rng.normal(1, jitter, 3)
    return (min(255.0, r * tint[0]), min(255.0, g * tint[1]), min(255.0, b * tint[2]))


def draw_look(rng: np.random.Generator) -> Look:
    """A person's colours, hair, beard and glasses at random."""
    darkness, age = float(rng.beta(1.0, 1.5)), float(rng.beta(1.2, 2.2))
    skin = _pick(rng, _SKINS, darkness, 0.02)
    haircut = str(rng.choice(HAIRCUTS, p=_HAIRCUT_SHARES))
    if rng.random() < 1.3 * age - 0.55:
        hair = _GREYS[int(rng.integers(len(_GREYS)))]
    else:
        hair = _pick(rng, _HAIRS, float(rng.random()) * (1 - darkness) ** 0.7, 0.05)
    dye = _DYES[int(rng.integers(len(_DYES)))]
    if rng.random() < 0.04:
        hair = dye
    bearded = rng.random() < 0.35 and haircut not in ("long", "bun", "scarf")
    makeup = rng.random() if not bearded and rng.random() < 0.5 else 0.0
    redness = mix(mix(skin, (176, 70, 78), 0.5), scaled(skin, 0.68), 0.3)
    lipstick = ((176, 24, 52), (196, 70, 96), (140, 30, 60))[int(rng.integers(3))]
    return Look(
        skin=skin,
        hair=scaled(hair, float(rng.uniform(0.85, 1.15))),
        cover=scaled(dye, float(rng.uniform(0.6, 1.2))) if haircut in ("cap", "scarf") else hair,
        lips=mix(redness, lipstick, 0.75 * makeup),
        iris=_pick(rng, _IRISES, float(rng.random()) * (1 - 0.8 * darkness), 0.08),
        haircut=haircut,
        fringe=float(rng.random()),
        beard=float(rng.uniform(0.25, 1)) * float(bearded and rng.random() < 0.7),
        moustache=float(rng.uniform(0.4, 1)) * float(bearded and rng.random() < 0.7),
        goatee=float(rng.uniform(0.5, 1)) * float(bearded and rng.random() < 0.4),
        brow_width=float(rng.uniform(1.5, 3.2)),
        makeup=makeup,
        age=age,
        blush=float(rng.uniform(0, 0.5)),
        gaze=(float(rng.normal(0, 2.2)), float(rng.normal(0, 1.0))),
        glasses=str(rng.choice(("none", "round", "square", "rimless", "dark"), p=(0.78, 0.08, 0.08, 0.04, 0.02))),
    )
