"""Results on disk: overlays, and landmarks as .pts, JSON and CSV.

| file | holds |
|---|---|
| `STEM.jpg`, `STEM.mp4` | the photograph or video with its landmarks drawn on it |
| `STEM.json` | boxes, landmarks and confidences, in 0-based pixels |
| `STEM.pts` | the landmarks of the first face as iBUG writes them, 1-based; `STEM-face2.pts` those of the next |
| `STEM-000012.pts` | the same of a video's frame 12 |
| `landmarks.csv` | a row for every face of every input, in 0-based pixels |
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from facelm.data.w300.annotations import write_pts
from facelm.evaluation.overlay import draw_landmarks
from facelm.geometry.affine import Image
from facelm.geometry.landmarks import LandmarkScheme
from facelm.predict.predictor import FaceLandmarks, Prediction
from facelm.predict.video import Frame, TrackedFace

FORMATS = ("json", "csv", "pts")

LONGEST_OVERLAY = 3840
"""Pixels; overlays of larger photographs are shrunk to this on their longer side."""


class ResultFolder:
    """Writes the results of images and videos into a folder; a context manager that closes its files.

    Raises:
        ValueError: an unknown format.
        OSError: the folder cannot be made or written to.
    """

    def __init__(
        self, folder: Path, scheme: LandmarkScheme, *, formats: Sequence[str] = FORMATS[:2], overlay: bool = True
    ) -> None:
        if unknown := [name for name in formats if name not in FORMATS]:
            raise ValueError(f"no format {unknown[0]!r}; choose of {', '.join(FORMATS)}")
        check_writable(folder)
        self.folder = folder
        self.scheme = scheme
        self.formats = frozenset(formats)
        self.overlay = overlay
        self._table: IO[str] | None = None

    def __enter__(self) -> ResultFolder:
        if "csv" in self.formats:
            path = self.folder / "landmarks.csv"
            self._table = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
            self._rows = csv.writer(self._table)
            points = [f"{i}_{what}" for i in range(self.scheme.num_landmarks) for what in ("x", "y", "confidence")]
            self._rows.writerow(["input", "frame", "face", "x1", "y1", "x2", "y2", *points])
        return self

    def __exit__(self, *failure: object) -> None:
        if self._table:
            self._table.close()

    def write_image(self, name: str, stem: str, pixels: Image, prediction: Prediction) -> None:
        """Writes all that was asked for about one image; `name` is what its rows are called."""
        path = self._make_room(stem)
        if self.overlay:
            self._write_overlay(_with_ending(path, ".jpg"), pixels, prediction.faces)
        if "json" in self.formats:
            content = json.dumps({"image": name, "scheme": self.scheme.name, **prediction.to_dict()})
            _with_ending(path, ".json").write_text(content + "\n", encoding="utf-8")
        self._write_points(path, prediction.faces)
        for number, face in enumerate(prediction.faces, start=1):
            self._add_row(name, "", number, face)

    def open_video(self, name: str, stem: str, fps: float) -> VideoResult:
        """Where a video's frames go, one by one."""
        return VideoResult(self, name, self._make_room(stem), fps)

    def _make_room(self, stem: str) -> Path:
        path = self.folder / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_points(self, path: Path, faces: Sequence[FaceLandmarks]) -> None:
        if "pts" in self.formats:
            for number, face in enumerate(faces, start=1):
                write_pts(_with_ending(path, ".pts" if number == 1 else f"-face{number}.pts"), face.landmarks_image)

    def _add_row(self, name: str, frame: int | str, number: int, face: FaceLandmarks) -> None:
        if self._table:
            points = np.column_stack([face.landmarks_image.round(3), face.confidence.round(4)])
            self._rows.writerow([name, frame, number, *face.box.round(3).tolist(), *points.ravel().tolist()])

    def _write_overlay(self, path: Path, pixels: Image, faces: Sequence[FaceLandmarks]) -> None:
        scale = min(1.0, LONGEST_OVERLAY / max(pixels.shape[:2]))
        if scale < 1:
            size = tuple(max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0]))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        drawn = self.draw(pixels, faces, scale)
        # OpenCV's own imwrite does not open every path that Python opens.
        _, content = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
        path.write_bytes(content.tobytes())

    def draw(self, pixels: Image, faces: Sequence[FaceLandmarks], scale: float = 1.0) -> Image:
        """`pixels`, an image shrunk by `scale`, with the landmarks of all faces on it."""
        for face in faces:
            # A shrunk image's pixel centres: (x + 1/2) scale - 1/2.
            pixels = draw_landmarks(pixels, (face.landmarks_image + 0.5) * scale - 0.5, self.scheme)
        return pixels


class VideoResult:
    """Writes the results of a video frame by frame, so that a long one needs no memory; a context manager.

    Raises:
        OSError: the overlay's file cannot be written.
    """

    def __init__(self, folder: ResultFolder, name: str, path: Path, fps: float) -> None:
        self._folder = folder
        self._name = name
        self._path = path
        self._fps = fps
        self._json: IO[str] | None = None
        self._overlay: Any = None
        self._frames = 0

    def __enter__(self) -> VideoResult:
        if "json" in self._folder.formats:
            self._json = _with_ending(self._path, ".json").open("w", encoding="utf-8")
            head = {"video": self._name, "scheme": self._folder.scheme.name, "fps": round(self._fps, 4)}
            self._json.write(json.dumps(head)[:-1] + ', "frames": [')
        return self

    def __exit__(self, *failure: object) -> None:
        if self._json:
            self._json.write("\n]}\n")
            self._json.close()
        if self._overlay is not None:
            self._overlay.release()

    def add(self, frame: Frame, faces: Sequence[TrackedFace]) -> None:
        """Writes all that was asked for about the next frame."""
        folder = self._folder
        if folder.overlay:
            self._write_frame(folder.draw(frame.pixels, faces))
        if self._json:
            entries = [{"track": face.track, **face.to_dict()} for face in faces]
            content = json.dumps({"frame": frame.number, "seconds": round(frame.seconds, 4), "faces": entries})
            self._json.write((",\n" if self._frames else "\n") + content)
        folder._write_points(self._path.with_name(f"{self._path.name}-{frame.number:06d}"), faces)
        for face in faces:
            folder._add_row(self._name, frame.number, face.track, face)
        self._frames += 1

    def _write_frame(self, drawn: Image) -> None:
        if self._overlay is None:
            path = _with_ending(self._path, ".mp4")
            size = (drawn.shape[1], drawn.shape[0])
            self._overlay = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, size)
            if not self._overlay.isOpened():
                raise OSError(f"the video {str(path)!r} cannot be written with OpenCV's mp4v; use --no-overlay")
        self._overlay.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))


def check_writable(folder: Path) -> None:
    """Makes `folder` where it is not there yet, and finds out that files can be written to it.

    Raises:
        OSError: it cannot be made, is no folder, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write to the folder {str(folder)!r}: {reason}. Choose another --out") from error


def _with_ending(path: Path, ending: str) -> Path:
    """`path` plus `ending`; unlike `with_suffix` it keeps dots in the name."""
    return path.with_name(path.name + ending)
