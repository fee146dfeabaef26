"""Faces from COCO-keypoints JSON, as CVAT, Label Studio, Roboflow and mmpose write it: any number of points a face.

A face is an annotation; a photograph may hold several. Numbers are taken for pixels counted from 0, as COCO has them.
A point of visibility 0 is not labelled: its coordinates are NaN, and it counts in neither loss nor metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.data.plausible import check_pixels
from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box, box_from_landmarks, cut_box

MOST_BYTES = 4 * 2**30
"""Of a JSON file; reading one takes about seven times its size in memory (50 MB of 20 or 98 points were measured)."""

_FAR = 1e7


@dataclass(frozen=True)
class CocoFace:
    """One annotation: where it stands in its file, its photograph's name and stated (width, height), points and box.

    `landmarks` `[K, 2]` are in pixels of the photograph, NaN where not labelled; `occluded` `[K]` are those of
    visibility 1, which are labelled but hidden; `corners` says that the bbox would fit the points as left, top, right,
    bottom, and be another.
    """

    where: str
    image_name: str
    size: tuple[int, int] | None
    landmarks: FloatArray
    occluded: NDArray[np.bool_]
    box: Box
    corners: bool = False


@dataclass(frozen=True)
class Keys:
    """What the entries of an annotation are called; without a true `valid` entry, where one is named, it is no face.

    `cut`: its box is cut at the photograph's edge, as mmpose does.
    """

    points: str = "keypoints"
    box: str = "bbox"
    valid: str | None = None
    cut: bool = False


@dataclass(frozen=True)
class CocoFile:
    """What a file holds: faces, names of points (empty where it names none), lines between points, and what is wrong.

    `problems` name annotations that cannot be used; `remarks` say what was left out, and what may be wrong.
    """

    faces: list[CocoFace]
    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    problems: list[str]
    remarks: list[str]


def read_coco(path: Path, num_landmarks: int | None = None, keys: Keys = Keys()) -> CocoFile:
    """The faces of a COCO-keypoints file; `num_landmarks` is how many points each is to have, None: as the first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such file: no JSON, no images or annotations, doubled ids.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file '{path}'")
    if path.stat().st_size > MOST_BYTES:
        size = path.stat().st_size / 2**30
        raise ValueError(
            f"'{path}' has {size:.1f} GiB, and would take seven times that in memory: split it by photograph"
        )
    try:
        content = checked.mapping(checked.read_json(path, most=MOST_BYTES), "a COCO file")
        images = _by_id(content, "images")
        _by_id({"categories": [], **content}, "categories")
        names, skeleton = _points(content.get("categories", []))
        annotations = _entries(content, "annotations")
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    count = num_landmarks or len(names) or None
    faces: list[CocoFace] = []
    problems: list[str] = []
    stated: dict[str, str] = {}
    crowds, others = 0, 0
    for position, annotation in enumerate(annotations):
        image_id = annotation.get("image_id")
        image = images.get(image_id, {}) if isinstance(image_id, int | str) else {}
        photograph, number = image.get("file_name", "no photograph"), annotation.get("id", position)
        where = f"{path.name}: {photograph}, annotation {checked.shown(number)}"
        if annotation.get("iscrowd"):
            crowds += 1
        elif not annotation.get(keys.points) or not (keys.valid is None or annotation.get(keys.valid)):
            others += 1  # of another task of the same file
        else:
            try:
                face = _face(where, annotation, images, count, keys, stated)
            except ValueError as error:
                problems.append(f"{where}: {error}")
            else:
                count = count or len(face.landmarks)
                faces.append(face)
    if others and not (faces or problems):
        raise ValueError(
            f"'{path}': none of {others:,} annotations has keypoints: boxes or masks alone. In CVAT, export COCO "
            "Keypoints of skeletons; in Label Studio, KeyPointLabels with a model_index"
        )
    return CocoFile(faces, names, skeleton, problems + _doubled(annotations, path), _remarks(faces, crowds, others))


def _face(
    where: str,
    annotation: Mapping[str, Any],
    images: Mapping[Any, Mapping[str, Any]],
    count: int | None,
    keys: Keys,
    stated: dict[str, str],
) -> CocoFace:
    if (image := images.get(_id(annotation.get("image_id")))) is None:
        raise ValueError(f"its image_id {checked.shown(annotation.get('image_id'))} is none of the file's images")
    landmarks = _landmarks(annotation[keys.points], count)
    occluded = np.array(annotation[keys.points][2::3]) == 1
    sizes = [image.get(key) for key in ("width", "height")]
    size = None if None in sizes else (_size(sizes[0], "width"), _size(sizes[1], "height"))
    name = _file_name(image)
    if (other := stated.setdefault(name, image["file_name"])) != image["file_name"]:
        raise ValueError(
            f"file_name {checked.shown(image['file_name'])} and {checked.shown(other)} are both '{name}' here"
        )
    return CocoFace(where, name, size, landmarks, occluded, *_box(annotation, landmarks, size, keys))


def _remarks(faces: Sequence[CocoFace], crowds: int, others: int) -> list[str]:
    """What was left out, and boxes that all look like corners, although none reaches out of its photograph."""
    remarks = [f"{crowds:,} groups (iscrowd) are no faces, and left out"] if crowds else []
    if others:
        remarks.append(f"{others:,} annotations without keypoints are left out")
    if len(faces) > 2 and all(face.corners for face in faces):
        remarks.append(
            "every bbox fits its points as left, top, right, bottom, and COCO's is x, y, width, height: if so, boxes "
            "are too large. Convert them, or remove bbox, and boxes follow from the points"
        )
    return remarks


def _landmarks(keypoints: object, count: int | None) -> FloatArray:
    """`[K, 2]` from x, y, v, ...; NaN where v is 0."""
    if not isinstance(keypoints, list) or len(keypoints) % 3 or not keypoints:
        raise ValueError(f"keypoints are a list of x, y, visibility for each point, got {checked.shown(keypoints)}")
    if count and len(keypoints) != 3 * count:
        raise ValueError(f"{len(keypoints) // 3} points, and there are to be {count}")
    if odd := [one for one in keypoints if isinstance(one, bool) or not isinstance(one, int | float | None)]:
        raise ValueError(f"keypoints hold something that is no number: {checked.shown(odd[0])}")
    try:
        values = np.array(keypoints, dtype=np.float64).reshape(-1, 3)
    except OverflowError as error:  # an integer beyond all floats
        raise ValueError(f"keypoints hold something that is no number: {checked.shown(keypoints)}") from error
    landmarks, labelled = values[:, :2].copy(), values[:, 2] > 0
    if not (np.isfinite(values[labelled]).all() and (np.abs(landmarks[labelled]) < _FAR).all()):
        raise ValueError("keypoints hold a number that is no place in a photograph")
    landmarks[~labelled] = np.nan
    if not labelled.any():
        raise ValueError("no point is labelled (visibility 1 or 2)")
    check_pixels(landmarks)
    return landmarks


def _box(
    annotation: Mapping[str, Any], landmarks: FloatArray, size: tuple[int, int] | None, keys: Keys
) -> tuple[Box, bool]:
    """By the `center` and `scale` that mmpose adds, else the square around `bbox`, else around the points.

    And whether the bbox would hold the points as left, top, right, bottom too, and be clearly smaller.
    """
    points = landmarks[np.isfinite(landmarks).all(axis=1)]
    center, scale, bbox = (annotation.get(key) for key in ("center", "scale", keys.box))
    if center is not None and isinstance(scale, int | float):
        x, y = checked.numbers(center, "center", 2, -_FAR, _FAR)
        return Box((x, y), 200.0 * checked.number(scale, "scale", 1e-6, _FAR)), False
    if bbox is None:
        return box_from_landmarks(points), False
    left, top, width, height = checked.numbers(bbox, "bbox", 4, -_FAR, _FAR)
    if width <= 0 or height <= 0:
        raise ValueError(f"bbox {bbox} has no area: it is x, y, width, height")
    if not ((points >= (left, top)) & (points <= (left + width, top + height))).all(axis=1).any():
        raise ValueError(f"no point lies in its bbox {bbox} (x, y, width, height)")
    beyond = size is not None and (left + width > 1.02 * size[0] + 2 or top + height > 1.02 * size[1] + 2)
    inside = bool(((points >= (left, top)) & (points <= (width, height))).all())
    corners = inside and (left > 0.1 * width or top > 0.1 * height)
    if beyond and corners:
        raise ValueError(f"bbox {bbox} looks like left, top, right, bottom: COCO's is x, y, width, height")
    if keys.cut and size:
        return cut_box(np.array([left, top, left + width, top + height]), size), corners
    return Box((left + width / 2, top + height / 2), max(width, height)), corners


def _points(categories: object) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """(names, skeleton as pairs of indices from 0) of the category that has points; empty where none names any."""
    found = [one for one in _listed(categories, "categories") if isinstance(one, dict) and one.get("keypoints")]
    if not found:
        return (), ()
    named = [checked.strings(one["keypoints"], "categories.keypoints", most=10_000) for one in found]
    if len(set(named)) > 1:
        kinds = ", ".join(checked.shown(one.get("name")) for one in found)
        raise ValueError(f"categories {kinds} have different points: keep one kind of face in a file")
    names = named[0]
    if len(set(names)) != len(names):
        raise ValueError(f"categories.keypoints names a point twice: {', '.join(_repeated(names)[:4])}")
    lines = _listed(found[0].get("skeleton") or [], "skeleton")
    drawn = [checked.numbers(line, "skeleton", 2, 0, len(names)) for line in lines]
    first = 0 if any(0 in line for line in drawn) else 1  # COCO counts points from 1 here; some writers from 0
    if first == 0 and any(len(names) in line for line in drawn):
        raise ValueError(f"skeleton counts from 0, and joins point {len(names)}, which is not there")
    return names, tuple((int(one) - first, int(other) - first) for one, other in drawn)


def _by_id(content: Mapping[str, Any], key: str) -> dict[Any, Mapping[str, Any]]:
    entries = _entries(content, key)
    known: dict[Any, Mapping[str, Any]] = {_id(entry.get("id")): entry for entry in entries}
    if len(known) != len(entries):
        raise ValueError(f"{key} have an id twice: {_repeated([_id(entry.get('id')) for entry in entries])[0]}")
    return known


def _entries(content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    if key not in content:
        raise ValueError(f"no `{key}`: a COCO-keypoints file has images, annotations and categories")
    return [checked.mapping(entry, key) for entry in _listed(content[key], key)]


def _listed(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is a list, got {checked.shown(value)}")
    return value


def _id(value: object) -> str | int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"an id is a whole number or a text, got {checked.shown(value)}")
    return value


def _size(value: object, name: str) -> int:
    return int(checked.number(value, name, 1, 1e6))


def _file_name(image: Mapping[str, Any]) -> str:
    """The photograph's path; of one elsewhere, such as ../../media/upload/1/a.jpg or a URL, the file's own name."""
    stated = checked.text(image.get("file_name"), "file_name", longest=4096).replace("\\", "/")
    path = PurePosixPath(stated.partition("?")[0] if "://" in stated else stated)
    name = path.name if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]) else str(path)
    if name in ("", ".", "..") or "\0" in name:
        raise ValueError(f"file_name {checked.shown(stated)} names no photograph")
    return name


def _doubled(annotations: Sequence[Mapping[str, Any]], path: Path) -> list[str]:
    ids = [one["id"] for one in annotations if isinstance(one.get("id"), int | str)]
    return [f"{path.name}: annotation {one} is there twice" for one in _repeated(ids)]


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for value, count in Counter(values).items() if count > 1]
