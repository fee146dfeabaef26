"""What the user named on the command line as a list of images, videos and cameras, each with a name for its results."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from facelm.addresses import public
from facelm.data.images import IMAGE_ENDINGS
from facelm.files import typed
from facelm.predict.frames import ANIMATED_ENDINGS, VIDEO_ENDINGS, is_animated
from facelm.predict.journal import TABLES, roots

PHOTOGRAPH_ENDINGS = (*IMAGE_ENDINGS, ".jfif", ".gif", ".jp2", ".mpo")
"""What is taken from folders, in lower case; a file named itself may have any ending."""

_RESULT = re.compile(r"(?i)\.(jpg|json|pts|png|mp4|csv|parquet)\Z")
_LONGEST_STEM = 200  # bytes: file systems have room for 255


@dataclass(frozen=True)
class Input:
    """One image, video or camera.

    `shown` is its name for people, `name` the one in its results, `stem` the path of these under the output folder,
    without an ending; `folder` the one that was named, or in which the file named lies.
    """

    kind: Literal["image", "video", "camera"]
    path: Path
    shown: str
    stem: str
    folder: Path = Path()

    @property
    def name(self) -> str:
        """Its path as it is, also where that is hard to read; a camera's number."""
        return self.shown if self.kind == "camera" else str(self.path)

    @property
    def video_source(self) -> Path | int:
        """What `VideoReader` takes."""
        return int(str(self.path)) if self.kind == "camera" else self.path


def expand_inputs(
    names: Sequence[str], out: Path, former: Mapping[str, str] | None = None, skipped: Counter[str] | None = None
) -> tuple[list[Input], list[tuple[str, str]]]:
    """The inputs that files, folders, patterns and camera numbers stand for, and those names that stand for nothing.

    A folder gives the images and videos in it and in the folders below, hidden ones and `out` left out. Results keep
    the folders below the one named. No result of one input has the name of another's; those of earlier runs, whose
    stems by input `former` holds, included. In `skipped` the files of folders and patterns that are of no known kind
    are counted by their ending.

    Raises:
        ValueError: an input lies directly in `out`, where its results would be mixed with it.
    """
    found: list[tuple[Path, Path]] = []  # the file, and where its results go
    failures = []
    cameras = []
    skipped = Counter() if skipped is None else skipped
    for name in names:
        path = typed(name)
        if path.is_dir():
            inside = [(file, file.relative_to(path)) for file in _files_below(path, out, skipped)]
            failures += [] if inside else [(shown(name), "no image or video in this folder or below it")]
            found += inside
        elif device := re.fullmatch(r"/dev/video(\d+)", name):
            cameras.append(_camera(device[1]))
        elif path.exists():
            found.append((path, Path(path.name)))
        elif name.isascii() and name.isdigit():
            cameras.append(_camera(name))
        elif glob.has_magic(name) and "://" not in name:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
            files = [match for match in matches if match.is_file() and _known(match, skipped)]
            failures += [] if files else [(shown(name), "nothing matches this pattern")]
            found += [(file, Path(file.name)) for file in files]
        else:
            failures.append((public(shown(name)), _no_file(name)))
    found = list({os.path.realpath(file): (file, place) for file, place in reversed(found)}.values())[::-1]
    _check_apart((file for file, _ in found), out)
    stems = _stems([(str(file), place) for file, place in found], former or {})
    inputs = [
        Input(
            "video" if _is_video(file) else "image",
            file,
            shown(file),
            stem,
            Path(os.path.abspath(file)).parents[len(place.parts) - 1],
        )
        for (file, place), stem in zip(found, stems, strict=True)
    ]
    return [*inputs, *dict.fromkeys(cameras)], failures


def shown(path: str | Path) -> str:
    """A path for people: as it is, or in quotes with escapes where it holds a newline or bytes that are no text."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def _camera(number: str) -> Input:
    return Input("camera", Path(number), f"camera {int(number)}", f"camera{int(number)}")


def _no_file(name: str) -> str:
    """What to say of a name that is no file's."""
    if name == "-":
        return (
            "standard input is not read. Write it to a file first: ... > photo.jpg (Predictor takes sys.stdin.buffer)"
        )
    if re.match(r"https?://", name):
        return "addresses are not read. Download it first: curl -O ADDRESS"
    if re.match(r"\w+://", name):
        return "streams are not read. Record it first, for 60 s say: ffmpeg -i ADDRESS -t 60 clip.mp4"
    return "there is no such file, folder or camera"


def _files_below(folder: Path, out: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Images and videos, sorted, folders after the files beside them."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and not _same(here / name, out))
        yield from (here / name for name in sorted(files) if name[0] != "." and _known(here / name, skipped))


def _known(path: Path, skipped: Counter[str]) -> bool:
    ending = path.suffix.lower()
    known = ending in (*PHOTOGRAPH_ENDINGS, *VIDEO_ENDINGS, *ANIMATED_ENDINGS)
    if not known:
        skipped[ending or "no ending"] += 1
    return known


def said_of_skipped(skipped: Counter[str]) -> str:
    """How many files were left out, the most frequent kinds by name; "" where there are none."""
    kinds = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))[:8]
    listed = ", ".join(f"{shown(ending)} {count}" for ending, count in kinds)
    more = ", ..." if len(skipped) > 8 else ""
    return f"left out: {skipped.total()} of unknown kind: {listed}{more}" if skipped else ""


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_ENDINGS or is_animated(path)


def _same(path: Path, other: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)


def _check_apart(files: Iterable[Path], out: Path) -> None:
    for file in files:
        if _same(file.parent, out):
            raise ValueError(
                f"--out {shown(out)} is the folder of the input {shown(file)}; results there could replace your files. "
                "Choose another folder"
            )


def folded(name: str) -> str:
    """`name` as a file system sees it that takes A for a, and one form of an accent for the other."""
    return unicodedata.normalize("NFC", name).casefold()


def _stems(inputs: Sequence[tuple[str, Path]], former: Mapping[str, str]) -> list[str]:
    """A stem for each (name, place): without its ending, or with it where results could meet, or with a number besides.

    Results of `group.jpg` (`group.pts`, `group-face2.pts`) and of `group-face2.jpg` could.
    """
    taken = _Taken([*former.values(), TABLES["coco"].removesuffix(".json")])
    bare = [_safe(place.with_suffix("")) for _, place in inputs]
    count = Counter(folded(stem) for stem in bare)
    stems: list[str] = []
    for (name, place), stem in zip(inputs, bare, strict=True):
        if name in former:
            stems.append(former[name])
            continue
        alone = all(count[folded(root)] == (1 if root == stem else 0) for root in roots(stem))
        wanted = unique = stem if alone else _safe(place)
        number = 1
        while unique in taken:
            number += 1
            unique = f"{wanted}-{number}"
        taken.add(unique)
        stems.append(unique)
    return stems


class _Taken:
    """Stems that are in use, and those that could be a part of one of their results."""

    def __init__(self, stems: Iterable[str]) -> None:
        self._stems: set[str] = set()
        self._roots: set[str] = set()
        for stem in stems:
            self.add(stem)

    def add(self, stem: str) -> None:
        self._stems.add(folded(stem))
        self._roots |= {folded(root) for root in roots(stem)}

    def __contains__(self, stem: str) -> bool:
        return folded(stem) in self._roots or any(folded(root) in self._stems for root in roots(stem))


def _safe(place: Path) -> str:
    """`place` with room for an ending in its last name, and no folder that is called as a result could be."""
    folders = [f"{part}_" if _RESULT.search(part) else part for part in place.parts[:-1]]
    name = os.fsencode(place.name)
    if len(name) > _LONGEST_STEM:
        digest = hashlib.sha256(name).hexdigest()[:16]
        name = name[: _LONGEST_STEM - 17].decode(errors="ignore").encode() + b"-" + digest.encode()
    return str(Path(*folders, os.fsdecode(name)))
