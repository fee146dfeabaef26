"""Whether the faces that are measured are those that a model has never learned from, and those of its run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from facelm import checked
from facelm.data.face_arrays import FaceArrays
from facelm.data.faces import Face, data_fingerprint, name_hash

ContentOf = Callable[[int], bytes]


def trained_on(faces: Sequence[Face], known: Mapping[str, Container[int]]) -> list[str]:
    """A warning, if any, where names among `faces` are names that trained the model; `known` as a checkpoint has it."""
    learned = [face.name for face in faces if name_hash(face.name) in known.get("trained", ())]
    if not learned:
        return []
    return [
        f"{len(learned)} of the {len(faces)} faces have the names of faces that trained this model, for example "
        f"'{min(learned)}': their errors say nothing of new faces"
    ]


SHARED_PHOTOGRAPHS = {("w300lp", "w300"): "300W-LP", ("lapa", "w300"): "LaPa"}
"""Data sets, by their files in `conf/data`: the first has photographs of the second, test faces among them."""


def shared_photographs(trained: str | None, measured: str | None) -> list[str]:
    """A warning, if any, where faces of the data set `measured` may be among those of `trained`, under other names."""
    title = SHARED_PHOTOGRAPHS.get((trained or "", measured or ""))
    if title is None:
        return []
    return [
        f"{title} has photographs of 300W, test faces among them, so what was trained on it may have seen the faces "
        "measured here; facelm check FOLDER OTHER names those that both have"
    ]


def other_faces(
    faces: Sequence[Face],
    labels: Sequence[str],
    known: Mapping[str, frozenset[int]],
    fingerprint: str,
    validating: Sequence[str] = (),
) -> list[str]:
    """How the faces measured, in the subsets `labels`, differ from those that validated the run; empty if not at all.

    `known` and `fingerprint` are what the checkpoint says of those (`data_fingerprint` for their landmarks); without
    them nothing is compared. Nor is it where no subset is measured by which a run validates: a list's `val`, the faces
    `held-out`, and those of the data set's own, `validating`.
    """
    if labels and not {"val", "held-out", *validating} & {*labels}:
        return []
    expected = known.get("validated", frozenset())
    found = [face for face in faces if name_hash(face.name) in expected]
    subsets = {label for face, label in zip(faces, labels, strict=True) if name_hash(face.name) in expected}
    more = sum(label in subsets for label in labels) - len(found)
    said = []
    if missing := len(expected) - len(found):
        said.append(f"{missing} of the {len(expected)} faces that validated this run are not there")
    if more:
        said.append(f"{more} faces are measured with them that were not there then")
    if expected and not said and fingerprint and data_fingerprint(found) != fingerprint:
        said.append("the landmarks of the faces that validated this run have changed")
    return said


def unlike_report(report: Path, faces: Sequence[Face], labels: Sequence[str], content: ContentOf) -> list[str]:
    """How the faces measured differ from those of the report in a folder; empty if not, or if it does not say.

    `content`: as in `photographs`.

    A subset that the report lacks is no difference: data may be added.
    """
    try:
        data = checked.read_json(report / "summary.json")["checkpoint"]["data"]
        said = []
        for key, what, digests in (
            ("fingerprints", "faces", fingerprints),
            ("contents", "photographs", partial(photographs, content=content)),
        ):
            now = digests(faces, labels) if key in data else {}
            if others := sorted(str(name) for name, one in data.get(key, {}).items() if now.get(name) != one):
                said.append(f"the {what} of {checked.shown(', '.join(others))} are not those of its report")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return said


def fingerprints(faces: Sequence[Face], labels: Sequence[str]) -> dict[str, str]:
    """`data_fingerprint` of the faces of each subset, for comparisons."""
    packed, of = FaceArrays.of(faces), np.array(labels)
    return {name: data_fingerprint(packed[of == name]) for name in dict.fromkeys(labels)}


def photographs(faces: Sequence[Face], labels: Sequence[str], content: ContentOf) -> dict[str, str]:
    """12 hex digits for each subset that change with any byte of a photograph.

    `content` gives the SHA-256 of a face's photograph, by its index. Reading the files takes a few percent of the time
    in which they are decoded and measured.
    """
    digests = {name: hashlib.sha256() for name in labels}
    for index in sorted(range(len(faces)), key=lambda index: faces[index].name):
        name = faces[index].name.encode("utf-8", "surrogateescape")
        digests[labels[index]].update(name + b"\0" + content(index))
    return {name: digest.hexdigest()[:12] for name, digest in digests.items()}
