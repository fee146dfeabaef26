"""Where the faces are: dlib's HOG detector or OpenCV's YuNet, and what their boxes mean.

A detector's box is not the box that the network was trained with; `convention` says how to get from one to the other
(see `facelm.geometry.boxes.BoxConvention`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from facelm.files import typed
from facelm.geometry.affine import FloatArray, Image
from facelm.geometry.boxes import CONVENTIONS, BoxConvention, overlaps

LOOK_SIDES = (1000, 2000)
"""Longer sides, in pixels, of the copies that a detector looks at. dlib, which looks for faces of any size from 80
pixels on, takes the second alone: of 258 drawn faces in groups it found 243 in both, 241 in that, 203 in the first."""

LEAST_DLIB = -0.3
"""dlib's own score from which on a box is worth a look by the network. From 0 on dlib itself calls it a face."""

_LEAST_LOOK = 80  # pixels, of dlib's window
_SAME = 0.5  # intersection over union of two boxes of one face, in two looks or in one

_MOST_ENLARGED = 2.0  # enlarging further than dlib's own upsampling finds no more faces


class Detector(Protocol):
    """Anything that finds faces: called with an image, it gives their boxes."""

    @property
    def convention(self) -> BoxConvention:
        """How its boxes lie on faces."""

    def __call__(self, image: Image) -> FloatArray:
        """Boxes `[N, 4]` of the faces in `image` `[H, W, 3]` (RGB), the surest first; `[0, 4]` where there is none.

        Convention: (x1, y1, x2, y2) in image pixels, 0-based and centred on integers.
        """


def look(detector: Detector, image: Image) -> tuple[FloatArray, int]:
    """The boxes `[N, 4]` of a detector, the surest first, and how many of them it is sure of; all, unless it says.

    A detector says by a method `look` beside its call that gives both.
    """
    if hasattr(detector, "look"):
        boxes, sure = detector.look(image)
        return boxes, sure
    boxes = detector(image)
    return boxes, len(boxes)


class DlibDetector:
    """dlib's detector of frontal faces: histograms of gradients, no GPU, no model file, about 0.25 s.

    It finds upright, roughly frontal faces (measured: see `facelm.geometry.boxes.CONVENTIONS`) whose box is at least 80
    pixels of the copy that it looks at, which is `side` pixels long: 4 % of the photograph's longer side. With 1000,
    8 % are needed, and it takes a quarter of the time.

    Raises:
        ImportError: dlib is not installed.
        ValueError: `side` is too small for a face.
    """

    def __init__(self, convention: BoxConvention = CONVENTIONS["dlib"], side: int = LOOK_SIDES[-1]) -> None:
        if side < _LEAST_LOOK:
            raise ValueError(f"side={side}: dlib finds no face in a copy of less than {_LEAST_LOOK} pixels")
        self.convention, self.side = convention, side
        try:
            import dlib
        except ImportError as error:
            raise ImportError(
                "finding faces needs dlib, which is not installed. Run pip install 'facelm[detect]', give the boxes "
                "yourself (boxes=[[x1, y1, x2, y2]], convention=...; on the command line --boxes CSV), or use YuNet "
                "with a model file of your own"
            ) from error
        self._make = dlib.get_frontal_face_detector
        self._of_thread = threading.local()  # dlib keeps what it computes in the detector: one for each thread

    def __call__(self, image: Image) -> FloatArray:
        """Boxes `[N, 4]` of what dlib calls a face, the surest first."""
        boxes, sure = self.look(image)
        return boxes[:sure]

    def look(self, image: Image) -> tuple[FloatArray, int]:
        """Boxes `[N, 4]`, the surest first, and how many of them dlib calls faces; the others from `LEAST_DLIB` on."""
        found = []
        for copy, scale in copies_to_look_at(image, (self.side,)):
            grey = cv2.cvtColor(copy, cv2.COLOR_RGB2GRAY)  # the same faces, a fifth faster
            rectangles, scores, _ = self._detector().run(grey, 0, LEAST_DLIB)
            edges = np.array([(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in rectangles], np.float64)
            found.append((to_image_pixels(edges.reshape(-1, 4), scale), np.array(scores, np.float64)))
        boxes, scores = merged(found)
        return boxes, int((scores >= 0).sum())

    def _detector(self) -> Any:
        if not hasattr(self._of_thread, "detector"):
            self._of_thread.detector = self._make()
        return self._of_thread.detector

    def __reduce__(self) -> tuple[Any, ...]:
        return DlibDetector, (self.convention, self.side)


class YuNetDetector:
    """OpenCV's FaceDetectorYN with a model file that you have, `face_detection_yunet_2023mar.onnx` or later.

    It finds smaller and more turned faces than dlib. The model is not shipped: it is in OpenCV's model zoo. Its boxes
    have not been measured here and are taken as `square` unless `convention` says better (`facelm calibrate` measures
    it); the second crop makes up for the difference.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a YuNet model.
    """

    def __init__(
        self, model: str | Path, convention: BoxConvention = CONVENTIONS["square"], threshold: float = 0.7
    ) -> None:
        self.convention = convention
        self._made_from = model, convention, threshold
        self._lock = threading.Lock()  # it is told the size of each image before it looks at it
        path = typed(model)
        if not path.is_file():
            raise FileNotFoundError(
                f"no YuNet model '{path}'. Download face_detection_yunet_2023mar.onnx from OpenCV's model zoo "
                "(github.com/opencv/opencv_zoo, models/face_detection_yunet), or use dlib"
            )
        try:
            self._detect: Any = cv2.FaceDetectorYN.create(str(path), "", (320, 320), threshold)
            self._detect.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(
                f"'{path}' is no YuNet face detector that this OpenCV ({cv2.__version__}) can run: {reason}. "
                "Use face_detection_yunet_2023mar.onnx of OpenCV's model zoo"
            ) from error

    def __call__(self, image: Image) -> FloatArray:
        """Boxes `[N, 4]`, the surest first."""
        looks = []
        for copy, scale in copies_to_look_at(image):
            with self._lock:
                self._detect.setInputSize((copy.shape[1], copy.shape[0]))
                _, found = self._detect.detect(cv2.cvtColor(copy, cv2.COLOR_RGB2BGR))
            if found is not None:
                edges = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1, dtype=np.float64)
                looks.append((to_image_pixels(edges, scale), found[:, -1].astype(np.float64)))
        return merged(looks)[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return YuNetDetector, self._made_from


def open_detector(name: str, convention: BoxConvention | None = None, side: int = LOOK_SIDES[-1]) -> Detector:
    """The detector of that name, `dlib` or a YuNet model's file; its boxes taken as `convention` where that is given.

    `side` is dlib's, see `DlibDetector`.

    Raises:
        ImportError: dlib is not installed.
        FileNotFoundError: no such model file.
        ValueError: not a YuNet model.
    """
    if name == "dlib":
        return DlibDetector(convention or CONVENTIONS["dlib"], side)
    return YuNetDetector(name, convention) if convention else YuNetDetector(name)


def merged(looks: list[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Boxes `[N, 4]` and scores `[N]` of several looks as one list, the surest first; of one face the surest box."""
    boxes = np.concatenate([np.empty((0, 4)), *(found for found, _ in looks)])
    scores = np.concatenate([np.empty(0), *(own for _, own in looks)])
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not kept or overlaps(boxes[index][None], boxes[kept]).max() < _SAME:
            kept.append(int(index))
    return boxes[kept], scores[kept]


def copies_to_look_at(image: Image, sides: Sequence[int] = LOOK_SIDES) -> Iterator[tuple[Image, float]]:
    """Copies of `image` with longer sides of at most `sides`, which rise, and their scales: the smaller one first.

    So a photograph of 100 megapixels costs no more than one of 4, and in a small one faces below the detector's least
    size are enlarged.
    """
    longer = max(image.shape[:2])
    done = 0.0
    for side in sides:
        scale = min(side / longer, _MOST_ENLARGED if side == sides[-1] else 1.0)
        if scale <= done:
            return
        done = scale
        yield _resized(image, scale), scale


def _resized(image: Image, scale: float) -> Image:
    if scale == 1:
        return np.ascontiguousarray(image)
    size = tuple(max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)


def to_image_pixels(edges: FloatArray, scale: float) -> FloatArray:
    """Boxes `[N, 4]` in pixels of the image, from pixel edges in a copy of it that is `scale` times as large.

    Convention: edges count from the image's upper left corner, which lies at (-0.5, -0.5) in pixel coordinates.
    """
    return np.asarray(edges / scale - 0.5, np.float64)
