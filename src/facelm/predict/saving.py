"""One image's prediction as a table, a file or a figure; `files` writes those of many, with a journal."""

from __future__ import annotations

import csv
import io
import json
import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facelm.data.w300.annotations import write_pts
from facelm.evaluation.overlay import draw_faces, encoded
from facelm.files import cell, replacing, typed, write_whole
from facelm.geometry.affine import Image
from facelm.geometry.landmarks import LandmarkScheme
from facelm.predict.photographs import read_photograph
from facelm.predict.prediction import FaceLandmarks, Prediction, plain_numbers

if TYPE_CHECKING:
    import pandas

    from facelm.evaluation.plots import Axes

PICTURES = (".jpg", ".jpeg", ".png", ".webp")

ENDINGS = (".json", ".csv", ".pts", *PICTURES)


def table_header(scheme: LandmarkScheme) -> list[str]:
    """The columns of landmarks.csv."""
    points = [f"{i}_{what}" for i in range(scheme.num_landmarks) for what in ("x", "y", "confidence")]
    return ["input", "frame", "face", "x1", "y1", "x2", "y2", *points]


def table_row(name: str, frame: int | str, number: int, face: FaceLandmarks) -> list[Any]:
    """A face's row of landmarks.csv; None where there is no number."""
    points = np.column_stack([face.landmarks_image.round(3), face.confidence.round(4)])
    return [cell(name), frame, number, *face.box.round(3).tolist(), *plain_numbers(points.ravel())]


def save(prediction: Prediction, path: str | os.PathLike[str]) -> list[Path]:
    """As `Prediction.save`."""
    path = typed(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"{str(path)!r}: a prediction is saved as {', '.join(ENDINGS)}; give the file such an ending")
    if ending == ".pts":
        return _save_points(prediction, path)
    if ending == ".json":
        content = json.dumps({"image": prediction.name, "scheme": prediction.scheme.name, **prediction.to_dict()})
        write_whole(path, content + "\n")
    elif ending == ".csv":
        write_whole(path, _table(prediction).encode("utf-8", "surrogateescape"))
    else:
        points, doubtful = [face.landmarks_image for face in prediction], [face.doubtful for face in prediction]
        drawn = draw_faces(picture_of(prediction), points, prediction.scheme, doubtful=doubtful)
        write_whole(path, encoded(drawn, ending))
    return [path]


def _save_points(prediction: Prediction, path: Path) -> list[Path]:
    if not prediction.faces:
        raise ValueError(f"{str(path)!r}: a .pts file holds the points of a face, and no face was found")
    places = [path, *(path.with_stem(f"{path.stem}-face{number}") for number in range(2, len(prediction) + 1))]
    for place, face in zip(places, prediction, strict=True):
        with replacing(place) as temporary:
            write_pts(temporary, face.landmarks_image)
    return places


def _table(prediction: Prediction) -> str:
    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(table_header(prediction.scheme))
    table.writerows(table_row(prediction.name, "", number, face) for number, face in enumerate(prediction, start=1))
    return file.getvalue()


def to_dataframe(prediction: Prediction) -> pandas.DataFrame:
    """As `Prediction.to_dataframe`."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_dataframe needs pandas: pip install pandas") from error
    scheme, faces = prediction.scheme, prediction.faces
    pairs = list(product(range(len(faces)), range(scheme.num_landmarks)))
    columns: dict[str, Any] = {
        "face": [face for face, _ in pairs],
        "point": [point for _, point in pairs],
        "x": prediction.landmarks[..., 0].ravel(),
        "y": prediction.landmarks[..., 1].ravel(),
        "confidence": np.array([face.confidence for face in faces]).ravel(),
    }
    if all(face.expected_error is not None for face in faces):
        columns["expected_error"] = np.array([face.expected_error for face in faces]).ravel()
    if scheme.names:
        columns["name"] = [scheme.names[point] for _, point in pairs]
    return pandas.DataFrame(columns)


def plot(prediction: Prediction, axes: Axes | None, image: Any, *, numbers: bool, contours: bool, boxes: bool) -> Axes:
    """As `Prediction.plot`."""
    from facelm.evaluation.plots import faces_axes

    pixels = picture_of(prediction) if image is None else read_photograph(image).pixels
    return faces_axes(
        axes,
        pixels,
        [face.landmarks_image for face in prediction],
        prediction.scheme,
        boxes=[face.box for face in prediction] if boxes else (),
        numbers=numbers,
        contours=contours,
    )


def picture_of(prediction: Prediction) -> Image:
    """The pixels `[H, W, 3]` that the prediction is of.

    Raises:
        ValueError: it does not know them, and what `read_photograph` raises.
    """
    if prediction.source is None:
        raise ValueError("this prediction does not know its picture: give plot(image=...), or draw on your own")
    return read_photograph(prediction.source).pixels
