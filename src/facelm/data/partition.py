"""Which faces train and which validate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face, FaceSource, name_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Partition:
    """The faces that train and those that validate; `val_name` is the validation's subset, "" where there is none."""

    train: FaceArrays
    val: FaceArrays
    val_name: str


def partition(
    source: FaceSource, *, train_list: str | None = None, val_list: str | None = None, share: float = 0.1
) -> Partition:
    """The faces of `train_list`, or all training faces, and those that validate, which are taken out of them.

    Validation: the faces of `val_list` if given; else the subsets by which `source` validates (of 300W `full`, as both
    references do, or what is there of it; the log says that the best epoch is then chosen on the reported set); else
    `share` of the training photographs, 0 leaves none. Both lists hold names of training faces.

    Raises:
        ValueError: the lists share a face, or no face is left to train on; and what `source` raises.
    """
    train = FaceArrays.of(source.faces("train", train_list))
    union, validating = source.validates
    there = [name for name in source.subsets() if name in validating]
    if val_list:
        name, val = "val", FaceArrays.of(source.faces("train", val_list))
        train = _without(val, train, both_listed=train_list is not None)
    elif there:
        name = union if len(there) == len(validating) else there[0]
        val = FaceArrays.joined([FaceArrays.of(source.faces(subset)) for subset in there])
        log.info(
            f"validation on {name}: the best epoch is chosen on the reported set. data.val_list=FILE chooses it on "
            "other faces"
        )
    elif share == 0:
        name, val = "", train[:0]
        log.info("no validation: there is no validation subset, and data.hold_out=0")
    else:
        name, groups = "held-out", _groups(source, train)
        held = _held(groups, share)
        log.info(
            f"no validation subset: {held.sum():,} of {len(train):,} training faces are held out, "
            f"{len(set(np.array(groups)[held])):,} of {len(set(groups)):,} photographs or clips. {source.grouped}"
        )
        train, val = train[~held], train[held]
    if not train:
        rule = f"{source.grouped} " if name == "held-out" else ""
        raise ValueError(
            f"no face is left to train on: all {len(val)} validate. {rule}Change "
            "data.train_list or data.val_list; data.hold_out=0 trains on every face"
        )
    if name != "held-out":
        _warn_of_leaks(source, train, val)
    return Partition(train, val, name)


def measured(
    source: FaceSource,
    train_list: str | None,
    val_list: str | None,
    known: Container[int] | None,
    share: Callable[[], FaceArrays] | None,
) -> tuple[FaceArrays, list[str]]:
    """(faces, the subset of each) of `val_list` and every evaluation subset that is there.

    With neither, the training faces whose `name_hash` is among `known`, or else the `share` that is held out.

    Raises:
        FileNotFoundError: none of these.
    """
    parts: list[tuple[str, FaceArrays]] = []
    if val_list:
        parts.append(("val", FaceArrays.of(source.faces("train", val_list))))
    parts += [(name, FaceArrays.of(source.faces(name))) for name in source.subsets()]
    if not parts and known is not None:
        faces = FaceArrays.of(source.faces("train", train_list))
        parts.append(("held-out", faces[np.array([name_hash(name) in known for name in faces.names()], np.bool_)]))
    elif not parts and share:
        parts.append(("held-out", share()))
    if not parts:
        raise FileNotFoundError(source.nothing_to_evaluate())
    labels = [name for name, faces in parts for _ in range(len(faces))]
    return FaceArrays.joined([faces for _, faces in parts]), labels


def hold_out(source: FaceSource, faces: Sequence[Face], share: float) -> tuple[FaceArrays, FaceArrays]:
    """(kept, held out): about `share` of the photographs with all their faces, the same ones every time.

    Faces of one photograph, or frames of one clip, stay together: apart, they would validate on what was trained on.
    """
    faces = FaceArrays.of(faces)
    held = _held(_groups(source, faces), share)
    return faces[~held], faces[held]


def _held(groups: Sequence[str], share: float) -> NDArray[np.bool_]:
    """Which faces `[N]` are held out, by the photograph of each."""
    photographs = sorted(set(groups))
    chosen = np.random.default_rng(0).permutation(len(photographs))[: max(1, round(share * len(photographs)))]
    held = {photographs[i] for i in chosen}
    return np.array([group in held for group in groups], np.bool_)


def _warn_of_leaks(source: FaceSource, train: FaceArrays, val: FaceArrays) -> None:
    """Says it where a photograph is on both sides, which only lists or files can do."""
    shared = {*_groups(source, val)}.intersection(_groups(source, train))
    if shared:
        log.warning(
            f"{len(shared)} photographs have faces that train and faces that validate, for example '{min(shared)}': "
            "val/nme is better than on photographs that were never seen"
        )


def _without(val: FaceArrays, train: FaceArrays, *, both_listed: bool) -> FaceArrays:
    """`train` without the faces of `val`; an error where both come from lists, which then contradict each other."""
    names = train.names()
    shared = set(val.names()).intersection(names)
    if shared and both_listed:
        raise ValueError(
            f"data.train_list and data.val_list share {len(shared)} faces, for example {min(shared)}: "
            "validation would measure faces that were trained on"
        )
    if shared:
        log.info(f"{len(shared)} faces of data.val_list are held out of training")
    return train[np.array([name not in shared for name in names], np.bool_)]


def _groups(source: FaceSource, faces: FaceArrays) -> list[str]:
    return [source.group(face) for face in faces]
