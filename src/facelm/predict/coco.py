"""Landmarks found, as COCO keypoints: a first annotation for CVAT and Label Studio, and what `data=coco` trains on.

Photographs are named from the folder that holds all of them (`common_folder`), the one that `data.root` then is. Every
point is written as visible (2); one that the network could not place as not labelled (0).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from facelm.geometry.landmarks import LandmarkScheme
from facelm.predict.predictor import FaceLandmarks

Photographs = Iterable[tuple[str, dict[str, Any], list[dict[str, Any]]]]
"""(folder, image entry whose `file_name` starts from it, annotations) of each photograph, all without ids."""


def annotation(face: FaceLandmarks) -> dict[str, Any]:
    """A face's annotation, but for its ids; coordinates in 0-based pixels, rounded to 1/1000.

    `bbox` is the box of its points, as annotation tools make it, or the box that was cropped where they have no area.
    """
    points = face.landmarks_image.round(3)
    found = np.asarray(np.isfinite(points).all(axis=1))
    low, high = face.box[:2], face.box[2:]
    if found.any() and (np.ptp(points[found], axis=0) > 0).all():
        low, high = points[found].min(axis=0), points[found].max(axis=0)
    width, height = high - low
    keypoints = np.column_stack([np.where(found[:, None], points, 0), np.where(found, 2, 0)])
    return {
        "keypoints": [int(value) if value == int(value) else value for value in keypoints.ravel().tolist()],
        "num_keypoints": int(found.sum()),
        "bbox": [round(float(value), 3) for value in (*low, width, height)],
        "area": round(float(width * height), 3),
        "iscrowd": 0,
        "score": round(face.score, 4),
    }


def image_entry(name: str, size: Sequence[int]) -> dict[str, Any]:
    """A photograph's entry, but for its id: its name from a folder, and (width, height) as a viewer shows it."""
    return {"file_name": name, "width": int(size[0]), "height": int(size[1])}


def category(scheme: LandmarkScheme) -> dict[str, Any]:
    """The category of all annotations; points without names are called by their numbers, from 0."""
    lines = [sorted(pair) for line in scheme.contours for pair in pairwise(line)]
    return {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(scheme.names) or [str(i) for i in range(scheme.num_landmarks)],
        "skeleton": [[i + 1, j + 1] for i, j in dict.fromkeys(map(tuple, lines))],  # COCO counts these from 1
    }


def common_folder(photographs: Photographs) -> Path | None:
    """The folder that holds every photograph; None where there is no photograph.

    Raises:
        ValueError: they lie on different drives.
    """
    folders = {folder for folder, _, _ in photographs}
    return Path(os.path.commonpath(sorted(folders))) if folders else None


def write_coco(file: IO[str], scheme: LandmarkScheme, photographs: Callable[[], Photographs]) -> None:
    """Writes the whole file; `photographs()` is gone through several times, so that a million faces need no memory.

    Of a photograph that comes twice the last one counts. Raises what `common_folder` raises.
    """
    root = common_folder(photographs())
    last = {_name(root, folder, image): number for number, (folder, image, _) in enumerate(photographs())}
    ids = {number: position for position, number in enumerate(last.values(), start=1)}

    def counted() -> Iterable[tuple[int, str, dict[str, Any], list[dict[str, Any]]]]:
        for number, (folder, image, faces) in enumerate(photographs()):
            if number in ids:
                yield ids[number], _name(root, folder, image), image, faces

    head = {"info": {"description": f"facelm predict, {scheme.name}"}, "licenses": [], "categories": [category(scheme)]}
    file.write(json.dumps(head)[:-1] + ', "images": [')
    _write_entries(file, ({"id": one, **image, "file_name": name} for one, name, image, _ in counted()))
    file.write('], "annotations": [')
    faces = ((one, face) for one, _, _, faces in counted() for face in faces)
    whose = enumerate(faces, start=1)
    _write_entries(file, ({"id": number, "image_id": one, "category_id": 1, **face} for number, (one, face) in whose))
    file.write("]}\n")


def _write_entries(file: IO[str], entries: Iterable[dict[str, Any]]) -> None:
    for number, entry in enumerate(entries):
        file.write((",\n" if number else "\n") + json.dumps(entry))


def _name(root: Path | None, folder: str, image: dict[str, Any]) -> str:
    return Path(folder, str(image["file_name"])).relative_to(root or folder).as_posix()
