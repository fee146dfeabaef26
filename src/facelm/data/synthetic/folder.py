"""The folder of a drawn data set: what belongs in it, whether it is there, and how it gets there without harm.

A file `drawn.json` beside the faces says what was drawn. Only a folder that has it, and holds nothing else than what
it says, is ever replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from facelm.data.w300.layout import FOLDER_COUNTS, SPLITS
from facelm.files import unfinished_folder

MARKER: Final = "drawn.json"
DRAWING_VERSION: Final = 1
"""Goes up when the same seed draws other pictures, so that old ones are drawn again."""

DRAWN_SPLITS: Final = ("train", "common", "challenge", "test")
_NAMES: Final = {  # as iBUG names its files; the number is 1-based
    "afw": "1{:08d}_1.jpg",
    "helen/trainset": "2{:08d}_1.jpg",
    "helen/testset": "3{:08d}_1.jpg",
    "lfpw/trainset": "image_{:04d}.jpg",
    "lfpw/testset": "image_{:04d}.jpg",
    "ibug": "image_{:03d}_1.jpg",
    "01_Indoor": "indoor_{:03d}.png",
    "02_Outdoor": "outdoor_{:03d}.png",
}


@dataclass(frozen=True)
class Drawing:
    """What is drawn: faces of each split, the seed, the version of the painter."""

    counts: dict[str, int]
    seed: int
    version: int = DRAWING_VERSION

    @classmethod
    def of(cls, counts: Mapping[str, int], seed: int) -> Drawing:
        """A drawing with every split's count, those that are not named 0.

        Raises:
            ValueError: an unknown split, a count that is no number from 0 on, no face at all, or a negative seed.
        """
        if unknown := sorted(set(counts) - set(DRAWN_SPLITS)):
            raise ValueError(
                f"counts name {', '.join(map(repr, unknown))}; drawn splits are {', '.join(DRAWN_SPLITS)}"
                " ('full' is common and challenge together)"
            )
        for name, value in [*counts.items(), ("seed", seed)]:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}={value!r} must be a whole number from 0 on")
        if not any(counts.values()):
            raise ValueError(f"counts={dict(counts)!r} ask for no face; give one of {', '.join(DRAWN_SPLITS)} some")
        return cls({split: counts.get(split, 0) for split in DRAWN_SPLITS}, seed)

    def folders(self) -> dict[str, int]:
        """Faces of each official folder; a split's folders share its faces in the proportion of iBUG's."""
        shares: dict[str, int] = {}
        for split, count in self.counts.items():
            remaining, official = count, sum(FOLDER_COUNTS[folder] for folder in SPLITS[split])
            for folder in SPLITS[split]:
                share = -(-remaining * FOLDER_COUNTS[folder] // official)  # rounded up: the first gets the odd face
                shares[folder] = share
                remaining, official = remaining - share, official - FOLDER_COUNTS[folder]
        return {folder: count for folder, count in shares.items() if count}

    def path(self, root: Path, folder: str) -> Path:
        """Where an official folder lies under `root`."""
        return root / "300W" / folder if folder in SPLITS["test"] else root / folder

    def image_path(self, root: Path, folder: str, index: int) -> Path:
        """The photograph of face number `index`, 0-based, of an official folder."""
        return self.path(root, folder) / _NAMES[folder].format(index + 1)

    def files(self, root: Path) -> set[Path]:
        """Every file of the data set: photographs, their .pts, the marker."""
        images = [self.image_path(root, f, i) for f, count in self.folders().items() for i in range(count)]
        return {root / MARKER, *images, *(image.with_suffix(".pts") for image in images)}


def already_there(root: Path, drawing: Drawing) -> bool:
    """Whether `root` holds exactly this drawing; False where it may be drawn anew.

    Raises:
        FileExistsError: `root` is no folder, or holds anything that was not drawn here.
    """
    if not root.exists():
        return False
    if not root.is_dir():
        raise FileExistsError(f"{root} is a file; drawn faces need a folder of their own. Set another data.root=...")
    if not any(root.iterdir()):
        return False
    marked = _read_marker(root)
    cure = "Set another data.root=..., or move what you want to keep and remove the rest"
    if marked is None:
        raise FileExistsError(
            f"{root} holds other files than drawn faces (it has no {MARKER} of facelm's), so nothing is drawn there. "
            + cure
        )
    present = {Path(parent, name) for parent, _, names in os.walk(root) for name in names}
    if marked == drawing and present >= drawing.files(root):
        return True
    if strangers := sorted(present - marked.files(root)):
        raise FileExistsError(
            f"{root} is to be drawn again with {asdict(drawing)}, but also holds {len(strangers)} files that were not "
            f"drawn, e.g. {strangers[0]}. {cure}"
        )
    return False


def is_drawn(root: Path) -> bool:
    """Whether the faces under `root` are facelm's drawn ones, and so nobody's."""
    return _read_marker(root) is not None


def _read_marker(root: Path) -> Drawing | None:
    """What the marker under `root` says was drawn; None without a marker of ours."""
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
        drawn = content["drawn_by_facelm"]
        made = Drawing.of(drawn["counts"], drawn["seed"])
        return Drawing(made.counts, made.seed, int(drawn["version"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def put_in_place(unfinished: Path, root: Path, drawing: Drawing) -> None:
    """Mark the finished folder and give it the name `root`; an older drawing of that name is removed.

    Raises:
        FileExistsError: meanwhile `root` came to hold something that was not drawn here.
    """
    marker = json.dumps({"drawn_by_facelm": asdict(drawing)}, indent=1)
    (unfinished / MARKER).write_text(marker + "\n", encoding="utf-8")
    if already_there(root, drawing):  # another process was faster
        return
    with unfinished_folder(root) as old:
        if root.exists():
            root.rename(old / root.name)
        unfinished.rename(root)
