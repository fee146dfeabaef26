"""Which faces train and which validate."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facelm.data.faces import Face
from facelm.data.w300.index import present_subsets

log = logging.getLogger(__name__)


GROUPED = (
    "Faces whose names differ only in an underscore and one or two digits behind a digit (PHOTO1_1, PHOTO1_2) are "
    "taken for faces of one photograph or frames of one clip and stay together; data.val_list=FILE names others."
)
"""The rule of `hold_out`, for messages."""


@dataclass(frozen=True)
class Partition:
    """The faces that train and those that validate; `val_name` is the validation's subset, "" where there is none."""

    train: list[Face]
    val: list[Face]
    val_name: str


def partition(
    index: Callable[..., list[Face]],
    root: Path,
    *,
    train_list: str | None = None,
    val_list: str | None = None,
    share: float = 0.1,
) -> Partition:
    """The faces of `train_list`, or all training faces, and those that validate, which are taken out of them.

    Validation: the faces of `val_list` if given; else the subset `full` (or what is there of it), as both references
    do, and the log says that the best epoch is then chosen on the reported set; else, with no test subset on disk,
    `share` of the training photographs.

    Args:
        index: `index_faces` of `root`, which takes a split and `list_file`.
        root: the data's folder.
        train_list: a file with names of training faces.
        val_list: a file with names of training faces.
        share: of the training photographs; 0 leaves none to validate.

    Raises:
        ValueError: the lists share a face, or no face is left to train on; and what `index_faces` raises.
    """
    train = index("train", list_file=train_list)
    present = present_subsets(root)
    if val_list:
        name, val = "val", index("train", list_file=val_list)
        train = _without(val, train, both_listed=train_list is not None)
    elif subsets := [name for name in ("common", "challenge") if name in present]:
        name = "full" if len(subsets) == 2 else subsets[0]
        val = [face for subset in subsets for face in index(subset)]
        log.info(
            f"validation on {name}: the best epoch is chosen on the reported set, as both references do. "
            "data.val_list=FILE chooses it on other faces"
        )
    elif share == 0:
        name, val = "", []
        log.info(f"no validation: there is no validation subset under {root}, and data.hold_out=0")
    else:
        name = "held-out"
        total, groups = len(train), _groups(train)
        train, val = hold_out(train, share)
        log.info(
            f"no validation subset under {root}: {len(val):,} of {total:,} training faces are held out, "
            f"{_groups(val):,} of {groups:,} photographs or clips. {GROUPED}"
        )
    if not train:
        rule = f"{GROUPED} " if name == "held-out" else ""
        raise ValueError(
            f"no face is left to train on: all {len(val)} validate. {rule}Change "
            "data.train_list or data.val_list; data.hold_out=0 trains on every face"
        )
    return Partition(train, val, name)


def hold_out(faces: list[Face], share: float) -> tuple[list[Face], list[Face]]:
    """(kept, held out): about `share` of the photographs with all their faces, the same ones every time.

    AFW and Helen name the faces of one photograph PHOTO_1, PHOTO_2, ...; they stay together, and so do the frames of a
    clip that are numbered like this: apart, they would validate on what was trained on.
    """
    photographs = sorted({_photograph(face) for face in faces})
    chosen = np.random.default_rng(0).permutation(len(photographs))[: max(1, round(share * len(photographs)))]
    held = {photographs[i] for i in chosen}
    return [f for f in faces if _photograph(f) not in held], [f for f in faces if _photograph(f) in held]


def _without(val: list[Face], train: list[Face], *, both_listed: bool) -> list[Face]:
    """`train` without the faces of `val`; an error where both come from lists, which then contradict each other."""
    shared = {face.name for face in val} & {face.name for face in train}
    if shared and both_listed:
        raise ValueError(
            f"data.train_list and data.val_list share {len(shared)} faces, for example {min(shared)}: "
            "validation would measure faces that were trained on"
        )
    if shared:
        log.info(f"{len(shared)} faces of data.val_list are held out of training")
    return [face for face in train if face.name not in shared]


def _groups(faces: list[Face]) -> int:
    return len({_photograph(face) for face in faces})


def _photograph(face: Face) -> str:
    return re.sub(r"(?<=\d)_\d{1,2}$", "", face.name)  # lfpw's image_0001 has no such ending
