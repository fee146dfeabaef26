"""What the user named on the command line as a list of images, videos and cameras, each with a name for its results."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facelm.data.images import IMAGE_ENDINGS
from facelm.predict.video import VIDEO_ENDINGS

PHOTOGRAPH_ENDINGS = (*IMAGE_ENDINGS, ".jfif", ".gif", ".avif", ".jp2", ".tga")
"""What is taken from folders, in lower case; a file named itself may have any ending."""


@dataclass(frozen=True)
class Input:
    """One image, video or camera.

    `shown` is its name for people, `stem` the path of its results under the output folder, without an ending.
    """

    kind: Literal["image", "video", "camera"]
    path: Path
    shown: str
    stem: str

    @property
    def video_source(self) -> Path | int:
        """What `VideoReader` takes."""
        return int(str(self.path)) if self.kind == "camera" else self.path


def expand_inputs(names: Sequence[str], out: Path) -> tuple[list[Input], list[tuple[str, str]]]:
    """The inputs that files, folders, patterns and camera numbers stand for, and those names that stand for nothing.

    A folder gives the images and videos in it and in the folders below, hidden ones and `out` left out. Results keep
    the folders below the one named. Two inputs never share a stem.

    Raises:
        ValueError: an input lies directly in `out`, where its results would be mixed with it.
    """
    found: list[tuple[Path, Path]] = []  # the file, and where its results go
    failures = []
    cameras = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = [(file, file.relative_to(path)) for file in _files_below(path, out)]
            failures += [] if inside else [(shown(name), "no image or video in this folder or below it")]
            found += inside
        elif path.exists():
            found.append((path, Path(path.name)))
        elif name.isascii() and name.isdigit():
            cameras.append(Input("camera", Path(name), f"camera {int(name)}", f"camera{int(name)}"))
        elif glob.has_magic(name):
            matches = [Path(match) for match in sorted(glob.glob(os.path.expanduser(name), recursive=True))]
            files = [match for match in matches if match.is_file() and _known(match)]
            failures += [] if files else [(shown(name), "nothing matches this pattern")]
            found += [(file, Path(file.name)) for file in files]
        else:
            failures.append((shown(name), "there is no such file, folder or camera"))
    found = list({os.path.realpath(file): (file, place) for file, place in reversed(found)}.values())[::-1]
    _check_apart((file for file, _ in found), out)
    stems = _stems([place for _, place in found])
    inputs = [
        Input("video" if file.suffix.lower() in VIDEO_ENDINGS else "image", file, shown(file), stem)
        for (file, _), stem in zip(found, stems, strict=True)
    ]
    return [*inputs, *dict.fromkeys(cameras)], failures


def shown(path: str | Path) -> str:
    """A path for people: as it is, or in quotes with escapes where it holds a newline or bytes that are no text."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _files_below(folder: Path, out: Path) -> Iterator[Path]:
    """Images and videos, sorted, folders after the files beside them."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and not _same(here / name, out))
        yield from (here / name for name in sorted(files) if name[0] != "." and _known(here / name))


def _known(path: Path) -> bool:
    return path.suffix.lower() in (*PHOTOGRAPH_ENDINGS, *VIDEO_ENDINGS)


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _check_apart(files: Iterable[Path], out: Path) -> None:
    for file in files:
        if _same(file.parent, out):
            raise ValueError(
                f"--out {shown(out)} is the folder of the input {shown(file)}; results there could replace your files. "
                "Choose another folder"
            )


def _stems(places: Sequence[Path]) -> list[str]:
    """A stem for each place: without its ending, or with it where two would be the same, or with a number besides."""
    bare = [str(place.with_suffix("")) for place in places]
    repeated = {stem for stem, count in Counter(stem.casefold() for stem in bare).items() if count > 1}
    stems: list[str] = []
    taken: set[str] = set()
    for place, stem in zip(places, bare, strict=True):
        wanted = str(place) if stem.casefold() in repeated else stem
        name, number = wanted, 1
        while name.casefold() in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        stems.append(name)
    return stems
