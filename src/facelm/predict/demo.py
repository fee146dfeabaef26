"""The local page of `facelm demo`: what a person does on it, and what it answers. `demo_page` puts it on the screen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from facelm.data.synthetic.dataset import draw_face
from facelm.evaluation.overlay import draw_faces, encoded, in_resized, resized
from facelm.files import write_whole
from facelm.geometry.affine import Image
from facelm.geometry.boxes import LEAST_SIDE
from facelm.predict.photographs import read_photograph
from facelm.predict.prediction import FaceLandmarks, Prediction
from facelm.predict.predictor import Predictor
from facelm.predict.saving import picture_of

if TYPE_CHECKING:
    import pandas

SHOWN = ("points", "contours", "numbers", "boxes")
"""What can be drawn on the photograph."""

COLUMNS = ["face", "point", "x", "y", "confidence"]

LEAST, LONGEST = 1100, 1600
"""Pixels of a photograph's longer side on the page: numbers on a small one could not be read."""

MOST_PIXELS = 50_000_000
"""Of a photograph; a telephone's has 12 to 50 million."""

MOST_FACES = 30
"""Of one photograph; a table of more would not be read."""

_NEAR = 0.03  # of the photograph's longer side: a click so near to a corner takes it up
_LINE = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class State:
    """What one tab shows: the prediction, and the first `corner` (x, y) of a box that is being drawn."""

    prediction: Prediction
    corner: tuple[float, float] | None = None
    said: str = ""


class Demo:
    """Answers what a person does on the page, for any number of tabs; each brings its own `State`.

    `folder` is where files to download are made; they may go when the page is closed.
    """

    def __init__(self, predictor: Predictor, folder: Path) -> None:
        self.predictor = predictor
        self.folder = folder

    def look(self, path: str) -> State:
        """The faces that the detector finds in a photograph.

        Raises:
            ValueError: it cannot be read, or has more than `MOST_PIXELS` or `MOST_FACES`.
            ImportError: there is no detector.
        """
        try:
            photograph = read_photograph(path)
        except ValueError as error:  # which names the file where the page keeps it
            raise ValueError(str(error).replace(repr(path), Path(path).name)) from error
        width, height = photograph.size
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"{width} x {height} pixels: this page takes {MOST_PIXELS // 10**6} million at most. Shrink it"
            )
        # The path alone is kept: a tab that is left open holds no pixels.
        prediction = replace(self.predictor(photograph), source=path, name=Path(path).name)
        if len(prediction) > MOST_FACES:
            raise ValueError(
                f"{len(prediction)} faces; this page shows {MOST_FACES} at most. `facelm predict` takes all"
            )
        return State(prediction, said=said_of(prediction))

    def click(self, state: State, x: float, y: float, *, corners: bool) -> State:
        """After a click at (x, y) on the picture as it is shown: two make a box, and the face in it is found.

        With `corners`, a click near a corner of a face's box takes the box away and holds its opposite corner: the next
        click puts the corner down elsewhere.

        Raises:
            ValueError: the box lies outside of the photograph.
        """
        width, height = state.prediction.size
        scale = min(max(width, height, LEAST), LONGEST) / max(width, height)
        point = (x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5
        if state.corner is not None:
            return self._with_box(state, state.corner, point)
        for number, face in enumerate(state.prediction if corners else ()):
            if opposite := _opposite(face, point, _NEAR * max(width, height)):
                others = tuple(one for index, one in enumerate(state.prediction.faces) if index != number)
                said = f"The box of face {number + 1} is taken up: click where its corner should be."
                return State(replace(state.prediction, faces=others), opposite, said)
        return State(state.prediction, point, "Now click the opposite corner of the box.")

    def _with_box(self, state: State, corner: tuple[float, float], point: tuple[float, float]) -> State:
        box = [min(corner[0], point[0]), min(corner[1], point[1]), max(corner[0], point[0]), max(corner[1], point[1])]
        if max(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
            return State(state.prediction, None, "The two corners were in one place, so there is no box. Click again.")
        found = self.predictor(state.prediction.source, [box], convention="tight")
        both = replace(state.prediction, faces=(*state.prediction.faces, *found.faces), notes=found.notes)
        return State(both, None, said_of(both))

    def picture(self, state: State, shown: Sequence[str]) -> Image:
        """The photograph, `LEAST` to `LONGEST` pixels on a side, with those of `SHOWN` on it."""
        pixels, scale = resized(picture_of(state.prediction), most=LONGEST, least=LEAST)
        points = [in_resized(face.landmarks_image, scale) for face in state.prediction]
        what = {name: name in shown for name in SHOWN[:3]}
        doubtful = [face.doubtful for face in state.prediction]
        drawn = draw_faces(pixels, points, state.prediction.scheme, doubtful=doubtful, **what).copy()
        thick = max(1, round(max(drawn.shape) / 500))
        for face in state.prediction if "boxes" in shown or state.corner else ():
            x1, y1, x2, y2 = np.round(in_resized(face.box, scale)).astype(int).tolist()
            cv2.rectangle(drawn, (x1, y1), (x2, y2), _LINE, thick, cv2.LINE_AA)
        if state.corner:
            x, y = np.round(in_resized(np.array(state.corner), scale)).astype(int).tolist()
            cv2.drawMarker(drawn, (x, y), _LINE, cv2.MARKER_CROSS, 20 * thick, 2 * thick, cv2.LINE_AA)
        return drawn

    def table(self, state: State) -> pandas.DataFrame:
        """A row for each point of each face; faces count from 1, as in the files."""
        table = state.prediction.to_dataframe().round({"x": 2, "y": 2, "confidence": 3, "expected_error": 1})
        return table.assign(face=table["face"] + 1)

    def files(self, state: State) -> list[str]:
        """The results as .json, .csv, a .pts for each face and a picture, in a new folder of `folder`."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        stem = Path(state.prediction.name).stem or "photograph"
        kinds = ("json", "csv", "pts", "jpg") if state.prediction.faces else ("json",)
        return [str(path) for kind in kinds for path in state.prediction.save(folder / f"{stem}.{kind}")]


def said_of(prediction: Prediction) -> str:
    """What was found, and what there is to know about it, in sentences."""
    count = len(prediction)
    found = "No face found. Draw a box around one: two clicks on the picture, at opposite corners"
    lines = [f"{count} face{'s' if count > 1 else ''}, found in {sum(prediction.seconds.values()):.1f} s"]
    lines = [*(lines if count else [found]), *(note for note in prediction.notes if count)]
    return "\n".join(f"{line[0].upper()}{line[1:]}." for line in lines)


def _opposite(face: FaceLandmarks, point: tuple[float, float], near: float) -> tuple[float, float] | None:
    """The corner of a face's box that is opposite to the one within `near` pixels of `point`; None where none is."""
    x1, y1, x2, y2 = face.box.tolist()
    for corner, other in (((x1, y1), (x2, y2)), ((x2, y2), (x1, y1)), ((x1, y2), (x2, y1)), ((x2, y1), (x1, y2))):
        if np.hypot(corner[0] - point[0], corner[1] - point[1]) <= near:
            return other
    return None


def draw_examples(folder: Path) -> list[str]:
    """Draws three faces, and a picture of four, into `folder`; their paths."""
    faces = [draw_face(np.random.default_rng(seed))[0] for seed in range(4)]
    side = min(min(face.shape[:2]) for face in faces)
    even = [cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in faces]
    several = np.vstack([np.hstack(even[:2]), np.hstack(even[2:])])
    paths = []
    for name, image in (("drawn_1", faces[0]), ("drawn_2", faces[1]), ("drawn_3", faces[2]), ("several", several)):
        paths.append(str(folder / f"{name}.png"))
        write_whole(paths[-1], encoded(np.asarray(image, np.uint8), ".png"))
    return paths
