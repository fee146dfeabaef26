"""Landmark schemes: what the indices mean, how a mirror permutes them, and the lengths that normalise errors.

A scheme is data, not code: mirror permutation, regions, and the points that the normalisers use. It checks itself
when it is built, so a typo in a table cannot reach training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.geometry.schemes import known_schemes, read_scheme, scheme_entries

FloatArray = NDArray[np.float64]


NORMALISERS = ("interocular", "interpupil", "box")
"""What an error is divided by: the distance of the outer eye corners or eye centres, or the side of the face's box."""


@dataclass(frozen=True)
class LandmarkScheme:
    """A set of named, ordered landmarks.

    `mirror[i]` is the index that landmark `i` has in a mirrored photograph. `regions` divides all indices.
    `normaliser`, one of NORMALISERS, is what this scheme's errors are published in. `outer_eyes` are the two outer eye
    corners (image left first) and `eyes` the points whose mean is the centre of each eye; empty where there are none.
    `contours` are polylines for drawing; a closed one repeats its first index. `names` says what the landmarks are
    called and `shape` where (x, y) they lie on a plain face, in any unit, y down; both may be empty. Lines and
    shape are for drawings: schemes that differ in them alone are the same.

    Raises:
        ValueError: the mirror is no involution, the regions do not divide the indices, an index is out of range, or
            the points that the normaliser needs are not there, or are one point.
    """

    name: str
    num_landmarks: int
    mirror: tuple[int, ...]
    regions: Mapping[str, tuple[int, ...]]
    outer_eyes: tuple[int, ...] = ()
    eyes: tuple[tuple[int, ...], ...] = ()
    contours: tuple[tuple[int, ...], ...] = field(default=(), compare=False)
    normaliser: str = "interocular"
    names: tuple[str, ...] = ()
    shape: tuple[tuple[float, ...], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for wrong in self._mistakes():
            raise ValueError(f"scheme {self.name!r}: {wrong}")
        object.__setattr__(self, "regions", dict(self.regions))  # a copy; a read-only proxy could not be pickled

    def _mistakes(self) -> Iterator[str]:
        indices = set(range(self.num_landmarks))
        last = self.num_landmarks - 1
        if sorted(self.mirror) != sorted(indices) or any(self.mirror[self.mirror[i]] != i for i in indices):
            yield f"mirror must swap pairs (an involution) of 0..{last}"
        in_regions = Counter(i for region in self.regions.values() for i in region)
        for problem, which in (
            ("name points that the scheme has not", set(in_regions) - indices),
            ("leave out", indices - set(in_regions)),
            ("name twice", {i for i, count in in_regions.items() if count > 1}),
        ):
            if which:
                yield f"regions {problem}: {_few(which)}; they must hold every index of 0..{last} exactly once"
        eyes = [i for eye in self.eyes for i in eye]
        used = {*self.outer_eyes, *eyes, *(i for line in self.contours for i in line)}
        if used - indices:
            yield f"indices out of range: {_few(used - indices)}"
        if self.outer_eyes and self.mirror[self.outer_eyes[0]] != self.outer_eyes[1]:
            yield f"outer_eyes {self.outer_eyes} are not each other's mirror image"
        if self.outer_eyes and self.outer_eyes[0] == self.outer_eyes[1]:
            yield f"outer_eyes are one point, {self.outer_eyes[0]}: no error could be divided by their distance"
        if self.eyes and (not all(self.eyes) or set(self.eyes[0]) == set(self.eyes[1])):
            yield "eyes must be two lists of different points"
        if self.normaliser not in NORMALISERS:
            yield f"normaliser is one of {', '.join(NORMALISERS)}, got {self.normaliser!r}"
        needs = {"interocular": "outer_eyes", "interpupil": "eyes"}.get(self.normaliser)
        if needs and not getattr(self, needs):
            yield f"normaliser {self.normaliser} needs {needs}; box needs no points"
        if self.names and (len(self.names) != self.num_landmarks or len(set(self.names)) != len(self.names)):
            yield f"names must be {self.num_landmarks} different ones"
        if self.shape and len(self.shape) != self.num_landmarks:
            yield f"shape must be {self.num_landmarks} places, got {len(self.shape)}"


def _few(indices: Iterable[int]) -> str:
    ordered = sorted(indices)
    return ", ".join(map(str, ordered[:8])) + (", ..." if len(ordered) > 8 else "")


def get_scheme(source: str | Path | Mapping[str, Any] | LandmarkScheme) -> LandmarkScheme:
    """The scheme that a name of `conf/landmarks`, a file, or a mapping of such a file's entries says; or itself.

    Raises:
        FileNotFoundError: no such scheme or file.
        ValueError: what it says is no scheme.
    """
    if isinstance(source, LandmarkScheme):
        return source
    return LandmarkScheme(**(scheme_entries(source) if isinstance(source, Mapping) else read_scheme(source)))


def told_scheme(said: object) -> LandmarkScheme:
    """The scheme that a checkpoint or card says: whole, or (older ones) the name of one that comes with facelm.

    Raises:
        ValueError: neither. No file that it names is read.
    """
    if isinstance(said, str):
        if said not in known_schemes():
            raise ValueError(f"no landmark scheme {checked.shown(said)}; known: {', '.join(known_schemes())}")
        return get_scheme(said)
    entries = checked.mapping(said, "a landmark scheme")
    if "file" in entries:
        raise ValueError("a landmark scheme that is told whole names no file")
    return get_scheme(entries)


def plain_scheme(scheme: LandmarkScheme) -> dict[str, Any]:
    """`scheme` as plain values, from which `get_scheme` makes it again."""
    plain: dict[str, Any] = {
        "name": scheme.name,
        "points": list(scheme.names) or scheme.num_landmarks,
        "mirror": [[i, partner] for i, partner in enumerate(scheme.mirror) if i < partner],
        "regions": {name: list(indices) for name, indices in scheme.regions.items()},
        "normaliser": scheme.normaliser,
        "contours": [list(line) for line in scheme.contours],
    }
    if scheme.outer_eyes:
        plain["outer_eyes"] = list(scheme.outer_eyes)
    if scheme.shape:
        plain["shape"] = [list(place) for place in scheme.shape]
    if scheme.eyes:
        plain["eyes"] = [list(eye) for eye in scheme.eyes]
    return plain


IBUG68 = get_scheme("ibug68")


def normaliser(landmarks: FloatArray, scheme: LandmarkScheme, side: FloatArray | None = None) -> FloatArray:
    """The length that divides the scheme's errors, `[N]` for landmarks `[N, K, 2]`; `side` `[N]` is that of the boxes.

    NaN where a point that it needs is not labelled, or a box is not known.
    """
    if scheme.normaliser == "interocular":
        return interocular(landmarks, scheme)
    if scheme.normaliser == "interpupil":
        return interpupil(landmarks, scheme)
    return np.full(landmarks.shape[:-2], np.nan) if side is None else side


def measurable(
    length: FloatArray, scheme: LandmarkScheme, name: str, among: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Which faces have a `length` `[N]` (see `normaliser`) to divide their error by, `[N]`: others are not measured.

    Raises:
        ValueError: none of those `among` `[N]` has; `name` says what they are.
    """
    known = np.asarray(length > 0)  # not where it is NaN
    asked = known if among is None else known[among]
    if len(asked) and not asked.any():
        raise ValueError(
            f"none of the {len(asked)} faces of {name} has labels for what errors are divided by ({scheme.normaliser} "
            f"of the scheme {scheme.name}): `normaliser: box` in the scheme measures all"
        )
    return known


def interocular(landmarks: FloatArray, scheme: LandmarkScheme = IBUG68) -> FloatArray:
    """Distance of the outer eye corners, `[N]` for landmarks `[N, K, 2]`; 300W's usual normaliser; NaN without them."""
    if not scheme.outer_eyes:
        return np.full(landmarks.shape[:-2], np.nan)
    left, right = scheme.outer_eyes
    return np.asarray(np.linalg.norm(landmarks[..., left, :] - landmarks[..., right, :], axis=-1))


def interpupil(landmarks: FloatArray, scheme: LandmarkScheme = IBUG68) -> FloatArray:
    """Distance of the eye centres (mean of each eye's points), `[N]` for landmarks `[N, K, 2]`; NaN without them."""
    if not scheme.eyes:
        return np.full(landmarks.shape[:-2], np.nan)
    left, right = (landmarks[..., list(eye), :].mean(axis=-2) for eye in scheme.eyes)
    return np.asarray(np.linalg.norm(left - right, axis=-1))


def box_size(landmarks: FloatArray) -> FloatArray:
    """sqrt(width * height) of the tight box of the labelled landmarks, `[N]` for landmarks `[N, K, 2]`."""
    extent = np.fmax.reduce(landmarks, axis=-2) - np.fmin.reduce(landmarks, axis=-2)
    return np.asarray(np.sqrt(extent[..., 0] * extent[..., 1]))
