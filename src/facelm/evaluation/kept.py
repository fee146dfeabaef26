"""Predictions as a report keeps them: `predictions.npz`, plain arrays from which the report can be made again.

    names            [N]        folder and file name of each face, as in per_face.csv
    subset_names     [S]        the rows of the table, and which faces are in each:
    subset_masks     [S, N]
    landmarks        [N, K, 2]  predicted, in pixels (x, y) of the photograph
    annotations      [N, K, 2]  NaN where not labelled
    labelled         [N, K]
    confidences      [N, K]     peaks of the heatmaps; NaN where not known
    boxes            [N, 4]     centre x, y, side and rotation in degrees of the box that was cropped; NaN if not known
    images           [N]        photographs, below the data's root; empty if not known
    orientations     [N]        how each is turned, as EXIF counts
    occluded         [N, K]     annotated though hidden, where the data set says so
    mean_shape       [K, 2]     average training face in units of the box; no rows if not known
    scheme, facts               JSON: the landmark scheme; what was evaluated, published numbers, notes

`numpy.load(path)` reads it; no array needs pickle.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facelm import checked
from facelm.data.faces import Face
from facelm.data.images import AS_STORED
from facelm.evaluation.metrics import FacePredictions, IntArray, labelled, mean_shape_in_box
from facelm.evaluation.scores import BoolArray, EvaluationResult, evaluate_faces
from facelm.files import writing
from facelm.geometry.landmarks import FloatArray, get_scheme, plain_scheme

FILE = "predictions.npz"

MOST_BYTES = 16 * 2**30
"""Of all arrays of a file that is read."""


@dataclass(frozen=True)
class Origin:
    """Where the faces of a result come from: rows follow its names.

    `boxes` `[N, 4]` are centre x, y, side and rotation in image pixels and degrees; `images` the photographs below
    the data's root, `orientations` `[N]` how they are turned. `mean_shape` `[K, 2]` is in units of the box. `occluded`
    `[N, K]` are points that are annotated though hidden; None where the data set says of none.
    """

    boxes: FloatArray
    images: tuple[str, ...]
    orientations: IntArray
    mean_shape: FloatArray | None = None
    occluded: BoolArray | None = None


@dataclass(frozen=True)
class Kept:
    """What `read_predictions` finds: all that `write_report` was told, but for the photographs."""

    result: EvaluationResult
    origin: Origin
    facts: Mapping[str, Any] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def origin_of(faces: Sequence[Face], root: Path, mean_shape: FloatArray | None = None) -> Origin:
    """The origin of `faces` whose photographs lie below `root`: of others the file name alone is kept."""
    root = root.expanduser()
    boxes = [[*face.box.center, face.box.side, face.box.rotation] for face in faces]
    images = [face.image.relative_to(root) if face.image.is_relative_to(root) else face.image.name for face in faces]
    return Origin(
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        images=tuple(str(image) for image in images),
        orientations=np.array([face.orientation for face in faces], dtype=np.int64),
        mean_shape=mean_shape,
        occluded=_occluded(faces),
    )


def _occluded(faces: Sequence[Face]) -> BoolArray | None:
    """`[N, K]`, or None where nothing says that a point is hidden."""
    if not any(face.occluded is not None and face.occluded.any() for face in faces):
        return None
    none = np.zeros(len(faces[0].landmarks_image), dtype=bool)
    return np.array([none if face.occluded is None else face.occluded for face in faces])


def no_origin(count: int) -> Origin:
    """The origin of `count` faces of which nothing is known."""
    return Origin(np.full((count, 4), np.nan), ("",) * count, np.full(count, AS_STORED, dtype=np.int64))


def write_predictions(path: Path, kept: Kept) -> None:
    """Writes the file whole or not at all; `facts`, `published` and `notes` are plain values, without NaN.

    Raises:
        OSError: it cannot be written; a former one is untouched.
    """
    result, origin = kept.result, kept.origin
    faces, scheme = result.predictions, result.scheme
    said = {"facts": dict(kept.facts), "published": dict(kept.published), "notes": list(kept.notes)}
    arrays = {
        "names": np.array(result.names, dtype=np.str_),
        "subset_names": np.array(list(result.masks), dtype=np.str_),
        "subset_masks": np.array(list(result.masks.values()), dtype=bool).reshape(-1, len(result.names)),
        "landmarks": faces.predicted.astype(np.float64),
        "annotations": faces.target.astype(np.float64),
        "labelled": labelled(faces.target),
        "confidences": confidences(faces).astype(np.float32),
        "boxes": origin.boxes,
        "images": np.array(origin.images, dtype=np.str_),
        "orientations": origin.orientations,
        "mean_shape": np.zeros((0, 2)) if origin.mean_shape is None else np.asarray(origin.mean_shape, np.float64),
        "occluded": np.zeros((0, 0), dtype=bool) if origin.occluded is None else origin.occluded,
        "scheme": np.array(json.dumps(plain_scheme(scheme))),
        "facts": np.array(json.dumps(said, allow_nan=False)),
    }
    with writing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def confidences(faces: FacePredictions) -> FloatArray:
    """The peaks `[N, K]` of the heatmaps, NaN where they are not known."""
    return np.full(faces.predicted.shape[:2], np.nan) if faces.confidence is None else faces.confidence


def read_predictions(folder: Path) -> Kept:
    """What the report in `folder` keeps.

    Raises:
        FileNotFoundError: it keeps no predictions.
        ValueError: the file is damaged, or is none of facelm's.
    """
    path = folder / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"'{folder}' holds no {FILE}: it is no report, or one of an earlier facelm, which kept none; evaluate "
            "again (facelm evaluate checkpoint=PATH)"
        )
    try:
        return _kept(_arrays(path))
    except ValueError as error:
        raise ValueError(f"'{path}' holds no predictions that can be used: {error}; evaluate again") from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive of at most MOST_BYTES; nothing in it is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES} bytes")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, MemoryError, SyntaxError) as error:
        raise ValueError(f"it is damaged ({' '.join(str(error).split())})") from error


def _kept(arrays: Mapping[str, NDArray[Any]]) -> Kept:
    """The arrays, checked against each other."""
    scheme = get_scheme(checked.mapping(checked.from_json(_one_text(arrays, "scheme"), "scheme"), "scheme"))
    names = _array(arrays, "names", "U", (None,))
    n, k = len(names), scheme.num_landmarks
    subsets = _array(arrays, "subset_names", "U", (None,))
    masks = _array(arrays, "subset_masks", "b", (len(subsets), n))
    target = _array(arrays, "annotations", "f", (n, k, 2))
    shape = _array(arrays, "mean_shape", "f", (None, 2))
    origin = Origin(
        boxes=_array(arrays, "boxes", "f", (n, 4)),
        images=tuple(_array(arrays, "images", "U", (n,)).tolist()),
        orientations=_array(arrays, "orientations", "iu", (n,)).astype(np.int64),
        mean_shape=shape if len(shape) == k else None,
        occluded=_array(arrays, "occluded", "b", (n, k)) if np.size(arrays.get("occluded", ())) else None,
    )
    labels = _array(arrays, "labelled", "b", (n, k))
    side, centers = origin.boxes[:, 2], origin.boxes[:, :2]
    predicted, peaks = _array(arrays, "landmarks", "f", (n, k, 2)), _array(arrays, "confidences", "f", (n, k))
    faces = FacePredictions(np.arange(n), predicted, np.where(labels[..., None], target, np.nan), side, peaks)
    result = evaluate_faces(
        faces,
        names.tolist(),
        dict(zip(subsets.tolist(), masks, strict=True)),
        scheme=scheme,
        mean_shape_image=None if origin.mean_shape is None else mean_shape_in_box(origin.mean_shape, centers, side),
    )
    said = checked.mapping(checked.from_json(_one_text(arrays, "facts"), "facts"), "facts")
    return Kept(
        result,
        origin,
        facts=checked.mapping(checked.plain(said.get("facts", {}), "facts"), "facts"),
        published={
            name: checked.scores(one, name)
            for name, one in checked.mapping(said.get("published", {}), "published").items()
        },
        notes=checked.strings(said.get("notes", []), "notes"),
    )


def _array(arrays: Mapping[str, NDArray[Any]], name: str, kinds: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """The array `name` of one of numpy's `kinds` and of `shape`, in which None is any length."""
    if name not in arrays:
        raise ValueError(f"the array {name} is missing")
    found = arrays[name]
    fits = len(found.shape) == len(shape) and all(
        one in (None, length) for one, length in zip(shape, found.shape, strict=True)
    )
    if found.dtype.kind not in kinds or not fits:
        raise ValueError(f"the array {name} is {found.dtype} {list(found.shape)}, not {list(shape)}")
    return found.astype(np.float64) if kinds == "f" else found


def _one_text(arrays: Mapping[str, NDArray[Any]], name: str) -> str:
    return str(_array(arrays, name, "U", ())[()])
