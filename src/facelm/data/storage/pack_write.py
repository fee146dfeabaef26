"""Writing a pack (`pack.py`): every split of a data set, its crops and its index, in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from facelm import __version__
from facelm.data.face_arrays import packed
from facelm.data.faces import Face, FaceSource
from facelm.data.storage.array_file import ALIGNED, Arrays, write_arrays
from facelm.data.storage.coding import Coding, Jpeg
from facelm.data.storage.crop_file import (
    DISK_FULL,
    Rows,
    end_of,
    estimated_bytes,
    lengths,
    no_room,
    require_room,
    write_crops,
)
from facelm.data.storage.framing import EvaluationCrop, Surroundings
from facelm.data.storage.pack import HEAD, KINDS, MAGIC
from facelm.files import writing
from facelm.geometry.landmarks import LandmarkScheme, plain_scheme

_CURES = "Make room, give --out a folder on another disk, or store less: data.cache=jpeg, data.cache_size=384"


def write_pack(
    path: Path,
    source: FaceSource,
    splits: Mapping[str, Sequence[Face]],
    *,
    scheme: LandmarkScheme,
    surroundings: Surroundings,
    crop: EvaluationCrop,
    coding: Coding,
    pixel_origin: int = 1,
    seen: Callable[[int], object] | None = None,
) -> None:
    """Writes the pack of `splits_of(source)`, whole or not at all; `seen` is told how many crops are done.

    Raises:
        OSError: a photograph cannot be read, or the folder not be written, or its disk has no room.
        ValueError: faces or a photograph cannot be used.
    """
    train, everyone = splits["train"], [face for faces in splits.values() for face in faces]
    # Rather too many bytes: coded ones are told by a few faces.
    size = round(1.1 * (estimated_bytes(train, surroundings, coding) + estimated_bytes(everyone, crop, coding)))
    size += len(everyone) * 16 * (scheme.num_landmarks + 20)
    path.parent.mkdir(parents=True, exist_ok=True)
    require_room(path.parent, size, "the pack", _CURES)
    with ThreadPoolExecutor() as pool:
        contents = b"".join(pool.map(_digest, (face.image for face in everyone)))
    try:
        with writing(path) as file:
            wide = write_crops(file.fileno(), HEAD.size, train, surroundings, coding, seen)
            start = end_of(wide) or HEAD.size
            further = (lambda done: seen(len(train) + done)) if seen else None
            narrow = write_crops(file.fileno(), start, everyone, crop, coding, further)
            start = -(-(end_of(narrow) or start) // ALIGNED) * ALIGNED
            file.truncate(start)
            file.seek(start)
            arrays = _faces(source, everyone)
            arrays["split"] = np.repeat(np.arange(len(splits), dtype="<i4"), [*map(len, splits.values())])
            arrays["contents"] = np.frombuffer(contents, np.uint8).reshape(-1, 32)
            arrays |= _crops(KINDS[0], wide, len(everyone)) | _crops(KINDS[1], narrow, len(everyone))
            facts = _facts(source, scheme, surroundings, crop, coding, list(splits)) | {"pixel_origin": pixel_origin}
            arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
            write_arrays(cast(BinaryIO, file), arrays)
            end = file.tell()
            file.seek(0)
            file.write(HEAD.pack(MAGIC, start, end))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise OSError(no_room(path.parent, size, "the pack", _CURES)) from error


def splits_of(source: FaceSource) -> dict[str, Sequence[Face]]:
    """`train` and the subsets that are there, each with its faces."""
    return {split: source.faces(split) for split in ("train", *(name for name in source.subsets() if name != "train"))}


def _digest(image: Path) -> bytes:
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _faces(source: FaceSource, faces: Sequence[Face]) -> Arrays:
    """Their arrays, numbers in place of paths, and each one's photograph or clip by its place among all of them.

    What is held out is drawn from the sorted photographs: their places sort like their names do.
    """
    groups = [source.group(face) for face in faces]
    place = {group: number for number, group in enumerate(sorted(set(groups)))}
    texts = [f"packed/{number}".encode() for number in range(len(faces))]
    return packed(faces) | {
        "image_bytes": np.frombuffer(b"".join(texts), np.uint8),
        "image_ends": np.cumsum([len(text) for text in texts], dtype="<i8"),
        "group": np.array([place[group] for group in groups], "<i8"),
    }


def _crops(kind: str, rows: Rows, faces: int) -> Arrays:
    """The columns of the crops of the first of `faces` faces."""
    row_of = np.full(faces, -1, "<i8")
    row_of[: len(rows)] = np.arange(len(rows))
    columns = {
        "row": row_of,
        "offset": rows["offset"].astype("<i8"),
        "length": lengths(rows).astype("<i8"),
        "checksum": rows["checksum"].astype("<i8"),
        "size": np.stack([rows["width"], rows["height"]], axis=1).astype("<i4"),
        "matrix": np.ascontiguousarray(rows["image_from_stored"]),
    }
    return {f"{kind}_{name}": column for name, column in columns.items()}


def _facts(
    source: FaceSource,
    scheme: LandmarkScheme,
    surroundings: Surroundings,
    crop: EvaluationCrop,
    coding: Coding,
    splits: list[str],
) -> dict[str, Any]:
    """What `Facts.told` reads."""
    union, validating = source.validates
    return {
        "version": __version__,
        "scheme": plain_scheme(scheme),
        "splits": splits,
        "published": list(source.published),
        "validates": [union, list(validating)],
        "grouped": source.grouped,
        "surroundings": {"reach": surroundings.reach, "max_side": surroundings.max_side},
        "crop": {"size": crop.crop_size, "scale": crop.crop_scale},
        "quality": coding.quality if isinstance(coding, Jpeg) else None,
    }
