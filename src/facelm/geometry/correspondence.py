"""Which points of two landmark schemes mark the same place of a face: a file of `conf/correspondence`, or shared names.

schemes: [wflw98, ibug68]        # names, or paths of schemes of one's own beside this file
same:                            # in groups of any name: points of the first scheme, and those of the second
  nose: [[51-59], [27-35]]       # 51-59 are nine
  eyes: [[60, 72], [36, 45]]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.configs import CONF_DIR
from facelm.geometry.landmarks import FloatArray, LandmarkScheme, get_scheme
from facelm.geometry.schemes import indices, known_schemes

FOLDER = CONF_DIR / "correspondence"


@dataclass(frozen=True)
class Correspondence:
    """Points of `source` and of `target` that are the same: `pairs` of their indices.

    Raises:
        ValueError: no pair, a point in two pairs or out of range, or a pair whose mirror images are not the same.
    """

    source: LandmarkScheme
    target: LandmarkScheme
    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for wrong in self._mistakes():
            raise ValueError(f"points of {self.source.name} and {self.target.name}: {wrong}")

    def _mistakes(self) -> Iterator[str]:
        if not self.pairs:
            yield "none is the same"
        for side, scheme in enumerate((self.source, self.target)):
            counts = Counter(pair[side] for pair in self.pairs)
            for wrong in sorted(one for one in counts if not 0 <= one < scheme.num_landmarks):
                yield f"{scheme.name} has no point {wrong}, its last is {scheme.num_landmarks - 1}"
            for wrong in sorted(one for one, count in counts.items() if count > 1):
                yield f"point {wrong} of {scheme.name} is in two pairs"
        known = set(self.pairs)
        for one, other in self.pairs:
            mirrored = self.source.mirror[one], self.target.mirror[other]
            if mirrored not in known:
                yield f"{one} is {other}, but their mirror images {mirrored[0]} and {mirrored[1]} are no pair"

    @property
    def compared(self) -> NDArray[np.bool_]:
        """Which points of `target` have one in `source`, `[K]`."""
        found = np.zeros(self.target.num_landmarks, dtype=bool)
        found[[other for _, other in self.pairs]] = True
        return found

    def mapped(self, landmarks: FloatArray) -> FloatArray:
        """Landmarks `[..., K, 2]` of `source` as those of `target`, in the same frame; NaN where there is none such.

        Or any other numbers of each landmark, `[..., K, D]`.
        """
        found = np.full((*landmarks.shape[:-2], self.target.num_landmarks, landmarks.shape[-1]), np.nan)
        found[..., [other for _, other in self.pairs], :] = landmarks[..., [one for one, _ in self.pairs], :]
        return found


def known_correspondences() -> list[str]:
    """The names of those that come with facelm, or that a checkout has."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def correspondence(source: LandmarkScheme, target: str | Path | LandmarkScheme) -> Correspondence:
    """Which points of `source` and `target` are the same, by a file or by the names that both give them.

    `target` is a scheme, its name or file; or a file of correspondences whose one scheme is `source`, the other then
    being the target.

    Raises:
        FileNotFoundError: no such scheme or file.
        ValueError: a file that is wrong, or nothing says which points are the same.
    """
    if not isinstance(target, LandmarkScheme):
        path = Path(target).expanduser()
        if path.is_file() and "schemes" in checked.mapping(_content(path), f"'{path}'"):
            return _between(path, source, None)
        target = get_scheme(target)
    if source == target:
        return Correspondence(source, target, tuple((i, i) for i in range(source.num_landmarks)))
    for name in (f"{source.name}_{target.name}", f"{target.name}_{source.name}"):
        if name in known_correspondences():
            return _between(FOLDER / f"{name}.yaml", source, target)
    shared = [name for name in source.names if name in target.names]
    if shared:
        pairs = tuple((source.names.index(name), target.names.index(name)) for name in shared)
        return Correspondence(source, target, pairs)
    raise ValueError(
        f"nothing says which points of {source.name} and {target.name} are the same: they share no names, and known "
        f"are {', '.join(known_correspondences())}. Write it into a file, see docs/data.md, and name that file"
    )


def _content(path: Path) -> object:
    return checked.from_yaml(path.read_text(encoding="utf-8"), f"'{path}'")


def _between(path: Path, source: LandmarkScheme, target: LandmarkScheme | None) -> Correspondence:
    """What the file says of `source` and `target`, in this direction; None: the other scheme of the file."""
    try:
        content = checked.mapping(_content(path), "a correspondence", ("schemes", "same"))
        named = checked.strings(content.get("schemes"), "schemes", most=2)
        if len(named) != 2:
            raise ValueError("schemes are two")
        first, second = (_scheme(name, path) for name in named)
        if _alike(second, source) and not _alike(first, source):
            first, second, turned = second, first, True
        else:
            turned = False
        if not _alike(first, source) or (target is not None and not _alike(second, target)):
            wanted = source.name + (f" and {target.name}" if target else "")
            raise ValueError(f"it is about {' and '.join(named)}, not about {wanted}")
        pairs = tuple(_pairs(content.get("same")))
        if turned:
            pairs = tuple((other, one) for one, other in pairs)
        return Correspondence(source, target or second, pairs)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error


def _scheme(name: str, path: Path) -> LandmarkScheme:
    return get_scheme(name if name in known_schemes() else path.parent / name)


def _alike(one: LandmarkScheme, other: LandmarkScheme) -> bool:
    """Whether both have the same points: a checkpoint may say another normaliser, or other regions."""
    return (one.name, one.num_landmarks, one.mirror) == (other.name, other.num_landmarks, other.mirror)


def _pairs(same: Any) -> Iterator[tuple[int, int]]:
    groups: Mapping[str, Any] = checked.mapping(same, "same")
    for name, both in groups.items():
        if not isinstance(both, list) or len(both) != 2:
            raise ValueError(f"same.{name} is a list of two lists, got {checked.shown(both)}")
        ours, theirs = (indices(one, f"same.{name}") for one in both)
        if len(ours) != len(theirs):
            raise ValueError(f"same.{name} has {len(ours)} points of one scheme and {len(theirs)} of the other")
        yield from zip(ours, theirs, strict=True)
