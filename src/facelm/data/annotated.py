"""A face as a file of annotations has it, before its photograph is looked at; its name, and lists of names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facelm.data.storage.all_cores import over_cores
from facelm.data.w300.annotations import read_text, unplaced
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box
from facelm.geometry.landmarks import LandmarkScheme


@dataclass(frozen=True)
class Annotated:
    """A face as a file has it: where, the file, its photograph's path, and how to get points `[K, 2]` and box.

    `points` gives pixels counted from 0, NaN where not labelled, and raises ValueError where they cannot be used.
    """

    where: str
    file: Path
    image_name: str
    points: Callable[[], FloatArray]
    box: Box | None = None
    size: tuple[int, int] | None = None
    occluded: NDArray[np.bool_] | None = None
    subsets: tuple[str, ...] = ()


def each_read(read: Callable[[Path], Annotated], files: Sequence[Path]) -> tuple[list[Annotated], list[str]]:
    """The faces of files that hold one each, read by all cores, and what is wrong with those that `read` refuses."""

    def some(start: int, stop: int) -> tuple[list[Annotated], list[str]]:
        found, problems = [], []
        for file in files[start:stop]:
            try:
                found.append(read(file))
            except (ValueError, OSError) as error:
                problems.append(str(error))
        return found, problems

    parts = over_cores(some, len(files))
    return [one for found, _ in parts for one in found], [said for _, problems in parts for said in problems]


def ordered(landmarks: FloatArray, order: list[int] | None, moved: int) -> FloatArray:
    """The landmarks in the scheme's order, and counted from 0; raises ValueError for points that were never placed."""
    if said := unplaced(landmarks):
        raise ValueError(
            f"{said}. Mark them as not labelled (visibility 0 in COCO, empty cells in a table), or leave the face out"
        )
    return (landmarks if order is None else landmarks[order]) - moved


def order_of(names: tuple[str, ...], scheme: LandmarkScheme, where: str) -> list[int] | None:
    """Where the scheme's points stand in the file `where` that names its own; None: as the scheme has them.

    Raises:
        ValueError: they are others.
    """
    if not names or not scheme.names or names == scheme.names:
        return None
    if sorted(names) != sorted(scheme.names):
        odd = sorted(set(names) ^ set(scheme.names))
        raise ValueError(
            f"'{where}' names other points than the scheme {scheme.name}: {', '.join(odd[:6])} in one of them only. "
            "facelm landmarks infer FILE writes the file's own scheme"
        )
    return [names.index(name) for name in scheme.names]


def named(found: Iterable[Annotated]) -> dict[str, Annotated]:
    """Faces by name; the second of a photograph is NAME:2."""
    named: dict[str, Annotated] = {}
    counts: dict[str, int] = {}
    for annotated in found:
        name = re.sub(r"\.[A-Za-z0-9]{2,5}$", "", annotated.image_name)
        counts[name] = number = counts.get(name, 0) + 1
        named[name if number == 1 else f"{name}:{number}"] = annotated
    return named


def several(where: str | Sequence[str] | None) -> Sequence[str | None]:
    """One file, none or several, as a list."""
    return [where] if where is None or isinstance(where, str) else where


def in_several(parts: Sequence[Sequence[Annotated]]) -> list[str]:
    """The photographs, by name, that are annotated in more than one of the files `parts`, sorted."""
    counts = Counter(name for part in parts for name in {one.image_name for one in part})
    return sorted(name for name, count in counts.items() if count > 1)


def read_list(path: Path, known: Mapping[str, object]) -> set[str]:
    """The names of faces in a list file, a line each; raises FileNotFoundError, or ValueError for a name not known."""
    if not path.is_file():
        raise FileNotFoundError(f"no list file '{path}'; it names faces, one a line")
    names = {line.strip() for line in read_text(path).splitlines() if line.strip()}
    if unknown := sorted(names - known.keys()):
        raise ValueError(
            f"'{path}': {len(unknown)} of {len(names)} names are no faces, for example '{unknown[0]}'. A name is the "
            f"photograph's path without ending, like '{min(known, default='')}'"
        )
    return names
