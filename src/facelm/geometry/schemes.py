"""Landmark schemes as data: what a file of `conf/landmarks`, a config node or a checkpoint says, read and checked.

name: mine20                     # one word
points: 20                       # or the list of their names
mirror: [[0, 4], [1, 3]]         # pairs that change places in a mirrored photograph; others stay
regions: {brow: [0-4], ...}      # every point in one; 0-4 are five. Without regions there is one, `all`
normaliser: interocular          # or interpupil, or box (the side of the face's box)
outer_eyes: [5, 8]               # outer eye corners, image left first
eyes: [[5-6], [7-8]]             # points whose mean is an eye's centre
contours: [[0-4], [9, 10, 9]]    # lines for drawings
shape: [[0.1, 0.3], ...]         # where the points lie on a plain face, y down; for `facelm landmarks --out`
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facelm import checked
from facelm.configs import CONF_DIR

FOLDER = CONF_DIR / "landmarks"

MOST_POINTS = 10_000

MOST_INDICES = 100_000
"""Of all regions, or of all lines, together: with ranges (0-9999) and YAML's aliases a short file may say billions."""

_KEYS = ("name", "points", "mirror", "regions", "normaliser", "outer_eyes", "eyes", "contours", "shape", "file")


def known_schemes() -> list[str]:
    """The names of the schemes that come with facelm, or that a checkout has."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in ("file",))


def scheme_file(source: str | Path) -> Path:
    """The file of a scheme that comes with facelm, by its name, or a file of one's own.

    Raises:
        FileNotFoundError: neither.
    """
    named = FOLDER / f"{source}.yaml"
    if re.fullmatch(r"\w+", str(source)) and named.is_file():
        return named
    path = Path(source).expanduser()
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"no landmark scheme '{source}'; known: {', '.join(known_schemes())}. A file of your own: landmarks=file "
        "landmarks.file=PATH"
    )


def read_scheme(source: str | Path) -> dict[str, Any]:
    """The entries of a scheme's file, as `scheme_entries`.

    Raises:
        FileNotFoundError: no such scheme or file.
        ValueError: it is no YAML, or holds no scheme.
    """
    path = scheme_file(source)
    try:
        content = checked.from_yaml(path.read_text(encoding="utf-8"), "it")
        if isinstance(content, dict) and "file" in content:
            raise ValueError("a scheme's file says the scheme itself, and names no other file")
        return scheme_entries(content)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error


def scheme_entries(content: object) -> dict[str, Any]:
    """The arguments of a `LandmarkScheme` from what a file or node says; what they mean together is checked there.

    Raises:
        ValueError: an entry that is unknown, missing, or of another form.
    """
    content = checked.mapping(content, "a landmark scheme", _KEYS)
    if content.get("file"):
        return read_scheme(checked.text(content["file"], "file", longest=4096))
    for key in ("name", "points"):
        if content.get(key) is None:
            raise ValueError(f"a landmark scheme without `{key}`")
    points = content["points"]
    names = () if isinstance(points, int) else checked.strings(points, "points", most=MOST_POINTS)
    count = len(names) or checked.integer(points, "points", 1, MOST_POINTS)
    regions = checked.mapping(content.get("regions") or {"all": list(range(count))}, "regions")
    outer_eyes, eyes = content.get("outer_eyes"), content.get("eyes")
    return {
        "name": checked.text(content["name"], "name", longest=100),
        "num_landmarks": count,
        "names": names,
        "mirror": _mirror(content.get("mirror") or [], count),
        "regions": dict(zip(regions, _lists([*regions.values()], "regions"), strict=True)),
        "normaliser": checked.text(content.get("normaliser") or "interocular", "normaliser"),
        "outer_eyes": () if not outer_eyes else _pair(outer_eyes, "outer_eyes"),
        "eyes": () if not eyes else tuple(indices(eye, "eyes") for eye in _two(eyes, "eyes")),
        "shape": tuple(
            checked.numbers(place, "shape", 2, -1e6, 1e6) for place in _list(content.get("shape") or [], "shape")
        ),
        "contours": tuple(_lists(content.get("contours") or [], "contours")),
    }


def _mirror(pairs: object, count: int) -> tuple[int, ...]:
    """The permutation that swaps each pair of indices and leaves the others where they are."""
    mirror = list(range(count))
    for pair in _list(pairs, "mirror"):
        left, right = _pair(pair, "mirror")
        for index in (left, right):
            if index >= count:
                raise ValueError(f"mirror names point {index}, and there are {count} (from 0)")
            if mirror[index] != index or left == right:
                raise ValueError(f"mirror must swap pairs of different points, each in one pair: see {index}")
        mirror[left], mirror[right] = right, left
    return tuple(mirror)


def _lists(value: object, name: str) -> list[tuple[int, ...]]:
    """Several lists of indices."""
    found: list[tuple[int, ...]] = []
    left = MOST_INDICES
    for one in _list(value, name):
        found.append(indices(one, name))
        left -= len(found[-1])
        if left < 0:
            raise ValueError(f"{name} name more than {MOST_INDICES} points in all")
    return found


def indices(value: object, name: str) -> tuple[int, ...]:
    """Indices from a list of numbers and ranges `first-last`, both included.

    Raises:
        ValueError: something else; `name` is what the message calls it.
    """
    found: list[int] = []
    for one in _list(value, name):
        span = re.fullmatch(r"(\d{1,5})-(\d{1,5})", one) if isinstance(one, str) else None
        if span:
            found += range(int(span[1]), min(int(span[2]), MOST_POINTS) + 1)
        else:
            found.append(checked.integer(one, name, 0, MOST_POINTS))
        if len(found) > MOST_POINTS:
            raise ValueError(f"{name} names more than {MOST_POINTS} points in one list")
    return tuple(found)


def _pair(value: object, name: str) -> tuple[int, int]:
    left, right = (checked.integer(one, name, 0, MOST_POINTS) for one in _two(value, name))
    return left, right


def _two(value: object, name: str) -> Sequence[Any]:
    if len(both := _list(value, name)) != 2:
        raise ValueError(f"{name} is a list of two, got {checked.shown(value)}")
    return both


def _list(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple) or len(value) > MOST_POINTS:
        raise ValueError(f"{name} is a list, got {checked.shown(value)}")
    return value
