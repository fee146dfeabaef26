"""Landmark schemes: what the indices mean, how a mirror permutes them, and the lengths that normalise errors.

A scheme is data, not code: mirror permutation, regions, and the points that the normalisers use. It checks itself
when it is built, so a typo in a table cannot reach training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class LandmarkScheme:
    """A set of named, ordered landmarks.

    `mirror[i]` is the index that landmark `i` has in a mirrored photograph. `regions` divides all indices.
    `outer_eyes` are the two outer eye corners (image left first); `eyes` the contours of both eyes (image left first).
    `contours` are polylines for drawing; a closed one repeats its first index.

    Raises:
        ValueError: the mirror is no involution, the regions do not divide the indices, or an index is out of range.
    """

    name: str
    num_landmarks: int
    mirror: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]]
    outer_eyes: tuple[int, int]
    eyes: tuple[tuple[int, ...], tuple[int, ...]]
    contours: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        indices = list(range(self.num_landmarks))
        if sorted(self.mirror) != indices or any(self.mirror[self.mirror[i]] != i for i in indices):
            raise ValueError(f"scheme {self.name!r}: mirror must swap pairs (an involution) of 0..{indices[-1]}")
        if sorted(i for region in self.regions.values() for i in region) != indices:
            raise ValueError(f"scheme {self.name!r}: regions must hold every index of 0..{indices[-1]} exactly once")
        used = {*self.outer_eyes, *self.eyes[0], *self.eyes[1], *(i for line in self.contours for i in line)}
        if not used <= set(indices):
            raise ValueError(f"scheme {self.name!r}: indices out of range: {sorted(used - set(indices))}")
        if self.mirror[self.outer_eyes[0]] != self.outer_eyes[1]:
            raise ValueError(f"scheme {self.name!r}: outer_eyes {self.outer_eyes} are not each other's mirror image")
        object.__setattr__(self, "regions", dict(self.regions))  # a copy; a read-only proxy could not be pickled


def _span(first: int, last: int) -> tuple[int, ...]:
    """All indices from `first` to `last`, both included."""
    return tuple(range(first, last + 1))


# Left and right are those of the image, as in the figure on iBUG's page (there 1-based).
_IBUG68_PAIRS = (
    *((i, 16 - i) for i in range(8)),  # jaw; 8 is the chin
    *((17 + i, 26 - i) for i in range(5)),  # brows
    *((31 + i, 35 - i) for i in range(2)),  # nostrils; 27-30 and 33 lie on the axis
    *((36 + i, 45 - i) for i in range(4)),  # eyes, upper lid and corners
    *((40 + i, 47 - i) for i in range(2)),  # eyes, lower lid
    *((48 + i, 54 - i) for i in range(3)),  # outer lip, upper half; 51 lies on the axis
    *((55 + i, 59 - i) for i in range(2)),  # outer lip, lower half; 57 lies on the axis
    *((60 + i, 64 - i) for i in range(2)),  # inner lip, upper half; 62 lies on the axis
    (65, 67),  # inner lip, lower half; 66 lies on the axis
)


def _mirror_from_pairs(num_landmarks: int, pairs: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """The permutation that swaps each pair and leaves every other index where it is."""
    mirror = list(range(num_landmarks))
    for left, right in pairs:
        mirror[left], mirror[right] = right, left
    return tuple(mirror)


IBUG68 = LandmarkScheme(
    name="ibug68",
    num_landmarks=68,
    mirror=_mirror_from_pairs(68, _IBUG68_PAIRS),
    regions={
        "jaw": _span(0, 16),
        "brows": _span(17, 26),
        "nose": _span(27, 35),
        "eyes": _span(36, 47),
        "mouth": _span(48, 67),
    },
    outer_eyes=(36, 45),
    eyes=(_span(36, 41), _span(42, 47)),
    contours=(
        _span(0, 16),
        _span(17, 21),
        _span(22, 26),
        _span(27, 30),
        _span(31, 35),
        (*_span(36, 41), 36),
        (*_span(42, 47), 42),
        (*_span(48, 59), 48),
        (*_span(60, 67), 60),
    ),
)

SCHEMES: Mapping[str, LandmarkScheme] = MappingProxyType({IBUG68.name: IBUG68})


def get_scheme(name: str) -> LandmarkScheme:
    """The scheme of that name.

    Raises:
        ValueError: no such scheme.
    """
    if name not in SCHEMES:
        raise ValueError(f"no landmark scheme {name!r}; known: {', '.join(sorted(SCHEMES))}. Check `landmarks=`")
    return SCHEMES[name]


def interocular(landmarks: FloatArray, scheme: LandmarkScheme = IBUG68) -> FloatArray:
    """Distance of the outer eye corners, `[N]` for landmarks `[N, K, 2]`; the usual normaliser on 300W."""
    left, right = scheme.outer_eyes
    return np.asarray(np.linalg.norm(landmarks[..., left, :] - landmarks[..., right, :], axis=-1))


def interpupil(landmarks: FloatArray, scheme: LandmarkScheme = IBUG68) -> FloatArray:
    """Distance of the eye centres (mean of each eye's contour), `[N]` for landmarks `[N, K, 2]`."""
    left, right = (landmarks[..., list(eye), :].mean(axis=-2) for eye in scheme.eyes)
    return np.asarray(np.linalg.norm(left - right, axis=-1))


def box_size(landmarks: FloatArray) -> FloatArray:
    """sqrt(width * height) of the tight landmark box, `[N]` for landmarks `[N, K, 2]`."""
    extent = landmarks.max(axis=-2) - landmarks.min(axis=-2)
    return np.asarray(np.sqrt(extent[..., 0] * extent[..., 1]))
