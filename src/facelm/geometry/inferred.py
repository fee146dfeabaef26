"""A landmark scheme from what an annotation file says: names of points, lines between them, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from facelm.geometry.affine import FloatArray

_SIDES = (("left", "right"), ("l", "r"))

_REGIONS = {
    "brows": ("brow",),
    "eyes": ("eye", "lid", "pupil", "iris", "canthus"),
    "nose": ("nose", "nostril", "nasal", "ala"),
    "mouth": ("mouth", "lip"),
    "jaw": ("jaw", "chin", "cheek", "face", "contour"),
}
"""Words that a point's name holds, the first match counts: eyebrows are brows."""


def infer_scheme(
    name: str, names: Sequence[str], skeleton: Sequence[tuple[int, int]], shape: FloatArray
) -> tuple[dict[str, Any], list[str]]:
    """(plain entries of a scheme, names of points whose partner nobody knows).

    Partners follow from left and right in the names; where no name says a side, from where the points lie. `shape`
    `[K, 2]` is that place on average, x to the right and y down: the outer eye corners are those whose names say so, or
    the eye points farthest apart; without any, errors are divided by the box.
    """
    partner = {one: mirror_name(one, set(names)) for one in names}
    index = {one: i for i, one in enumerate(names)}
    found = ((index[one], index[other]) for one, other in partner.items() if other)
    pairs = sorted({(min(pair), max(pair)) for pair in found})
    alone = [one for one, other in partner.items() if other is None and has_side(one)]
    if not pairs and not alone:
        pairs, lost = mirror_by_place(shape)
        alone = [names[i] for i in lost]
    regions: dict[str, list[int]] = {}
    for one in names:
        regions.setdefault(region_of(one), []).append(index[one])
    plain: dict[str, Any] = {
        "name": name,
        "points": list(names),
        "mirror": [list(pair) for pair in pairs],
        "regions": regions,
        "normaliser": "box",
        "contours": [list(line) for line in skeleton],
    }
    eyes = [pair for pair in pairs if region_of(names[pair[0]]) == "eyes"]
    outer = [pair for pair in eyes if re.search(r"out|temporal|lateral", names[pair[0]].lower())] or eyes
    if outer:
        widest = max(outer, key=lambda pair: float(np.linalg.norm(shape[pair[0]] - shape[pair[1]])))
        left, right = sorted(widest, key=lambda point: float(shape[point, 0]))
        plain |= {"normaliser": "interocular", "outer_eyes": [left, right]}
    return plain, alone


def mirror_by_place(shape: FloatArray) -> tuple[list[tuple[int, int]], list[int]]:
    """(pairs of points, points without a partner) of a face `[K, 2]` that is laid over its own mirror image.

    Partners are each other's nearest points; one that is its own lies in the middle. The axis may be tilted by 30
    degrees.
    """
    centred = shape - shape.mean(axis=0)
    best = np.full((len(shape), len(shape)), np.inf)
    for degrees in range(-30, 31, 2):
        axis = np.radians(2 * degrees)
        mirrored = centred @ np.array([[-np.cos(axis), -np.sin(axis)], [-np.sin(axis), np.cos(axis)]])
        away = np.linalg.norm(centred[:, None] - mirrored[None], axis=2)
        if away.min(axis=1).sum() < best.min(axis=1).sum():
            best = away
    nearest = best.argmin(axis=1)
    pairs = [(i, int(j)) for i, j in enumerate(nearest) if i < j and nearest[j] == i]
    return pairs, [i for i, j in enumerate(nearest) if nearest[j] != i]


def mirror_name(name: str, known: set[str]) -> str | None:
    """The point of `known` that is called like `name` with left and right exchanged; None where there is none."""
    for left, right in _SIDES:
        exchanged = _exchanged(name, left, right)
        if exchanged != name and exchanged in known:
            return exchanged
    return None


def has_side(name: str) -> bool:
    """Whether a name says left or right."""
    return any(_exchanged(name, left, right) != name for left, right in _SIDES)


def region_of(name: str) -> str:
    """The part of the face that a name speaks of, `other` where it says none."""
    lowered = name.lower()
    return next((region for region, words in _REGIONS.items() if any(word in lowered for word in words)), "other")


def _exchanged(name: str, left: str, right: str) -> str:
    """`name` with the words `left` and `right` exchanged, as it writes them (Left, LEFT, leftEye, eye_l)."""
    # A short word stands by itself; a long one may be part of another: lefteye, EyeLeft.
    bound = (r"(?<![A-Za-z])", r"(?![a-z])") if len(left) == 1 else ("", "")
    pattern = re.compile(f"{bound[0]}(?:{left}|{right}){bound[1]}", re.IGNORECASE)

    def other(match: re.Match[str]) -> str:
        word = right if match[0].lower() == left else left
        return word.upper() if match[0].isupper() else word.capitalize() if match[0][0].isupper() else word

    return pattern.sub(other, name)
