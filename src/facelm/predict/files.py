"""Results on disk: overlays, and landmarks as .pts, JSON and CSV.

| file | holds |
|---|---|
| `STEM.jpg`, `STEM.mp4` | the photograph or video with its landmarks drawn on it |
| `STEM.json` | boxes, landmarks and confidences, in 0-based pixels |
| `STEM.pts` | the landmarks of the first face as iBUG writes them, 1-based; `STEM-face2.pts` those of the next |
| `STEM-000012.pts` | the same of a video's frame 12 |
| `STEM-face2.png` | with `crops`, the second face cut out upright, see `geometry/align` |
| `STEM-000012-face2.png` | the same of a video's frame 12 |
| `landmarks.csv`, `.parquet` | a row for every face of every input, in 0-based pixels |
| `landmarks.coco.json` | the photographs and faces of every input as COCO keypoints, see `coco` |
| `.facelm-results.jsonl` | which of these files are facelm's, see `journal` |

Each file appears under its name when it is whole, the tables when the folder is closed. A path that begins with =,
+, - or @ is written into the table with ./ before it: the same path, and no formula for a spreadsheet. A landmark
without a finite number is null in JSON and an empty cell in the table.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from facelm.data.w300.annotations import write_pts
from facelm.evaluation.overlay import draw_faces, encoded, in_resized, resized
from facelm.files import replacing, writing
from facelm.geometry.affine import Image
from facelm.geometry.align import aligned_crop, check_aligned
from facelm.geometry.landmarks import LandmarkScheme
from facelm.geometry.pose import head_angles
from facelm.predict import coco
from facelm.predict.film import Film
from facelm.predict.frames import Frame
from facelm.predict.journal import TABLES, Journal
from facelm.predict.parquet import require_pyarrow, write_parquet
from facelm.predict.prediction import FaceLandmarks, Prediction, plain_numbers
from facelm.predict.saving import table_header, table_row
from facelm.predict.video import TrackedFace

FORMATS = ("json", "csv", "pts", "coco", "parquet")

LONGEST_OVERLAY = 3840
"""Pixels; overlays of larger photographs are shrunk to this on their longer side."""


class ResultFolder:
    """Writes the results of images and videos into a folder; a context manager that writes the table at its end.

    Files that are not facelm's are never replaced. Results of an earlier run stay, but for those of inputs of the same
    name, which are replaced; `targets.to_do` tells which there are.

    Args:
        folder: made where it is not there.
        scheme: that of the landmarks.
        formats: of `FORMATS`.
        overlay: whether pictures and videos are written.
        crops: the size of the faces cut out, one of `geometry.align.CROPS`; None: none are.
        made: the options that decide what the results are, by name, for `journal`.
        journal: that of the folder; read anew where it is not given.

    Raises:
        ValueError: an unknown format, crops of a scheme that has none, or rows of another scheme in the folder's table.
        ImportError: pyarrow is not installed, and Parquet is asked for.
        OSError: the folder cannot be made or written to, or another process writes to it.
    """

    def __init__(
        self,
        folder: Path,
        scheme: LandmarkScheme,
        *,
        formats: Sequence[str] = FORMATS[:2],
        overlay: bool = True,
        crops: int | None = None,
        made: Mapping[str, str] | None = None,
        journal: Journal | None = None,
    ) -> None:
        if unknown := [name for name in formats if name not in FORMATS]:
            raise ValueError(f"no format {unknown[0]!r}; choose of {', '.join(FORMATS)}")
        if crops:
            check_aligned(crops, scheme)
        if "parquet" in formats:
            require_pyarrow()
        check_writable(folder)
        self.folder = folder
        self.scheme = scheme
        self.formats = frozenset(formats)
        self.overlay = overlay
        self.crops = crops
        self.journal = journal or Journal(folder)
        others = {entry.made.get("scheme", scheme.name) for entry in self.journal.entries.values()} - {scheme.name}
        if others:
            raise ValueError(
                f"{str(folder)!r} holds results of a model with other landmarks ({', '.join(sorted(others))}; this "
                f"one's are {scheme.name}). Choose another --out"
            )
        self._made = {**(made or {}), "scheme": scheme.name}

    def __enter__(self) -> ResultFolder:
        self.journal.open()
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            if "csv" in self.formats:
                self._write_table()
            if "parquet" in self.formats:
                with replacing(self.journal.claim_table(TABLES["parquet"])) as path:
                    write_parquet(path, table_header(self.scheme), self.journal.rows())
            if "coco" in self.formats:
                with writing(self.journal.claim_table(TABLES["coco"]), "w") as file:
                    coco.write_coco(file, self.scheme, self.journal.photographs)
        finally:
            self.journal.close()

    def write_image(
        self, name: str, stem: str, pixels: Image, prediction: Prediction, folder: Path | None = None
    ) -> None:
        """Writes all that was asked for about one image; `name` is what its rows are called.

        `folder` is the one from which COCO entries name it, by default that in which it lies.

        Raises:
            FileExistsError: a file that is not facelm's is where a result would go.
            OSError: a file cannot be written; the error names it.
        """
        with self._results_of(name, stem):
            if self.overlay:
                self._write_overlay(f"{stem}.jpg", pixels, prediction.faces)
            if "json" in self.formats:
                with self.place(f"{stem}.json") as path:
                    entries = [self.entry(face) for face in prediction.faces]
                    head = {"image": name, "scheme": self.scheme.name, **prediction.to_dict()}
                    content = json.dumps({**head, "faces": entries})
                    path.write_text(content + "\n", encoding="utf-8")
            self._write_points(stem, prediction.faces)
            self._write_crops(stem, pixels, prediction.faces)
            for number, face in enumerate(prediction.faces, start=1):
                self._add_row(name, "", number, face)
            if "coco" in self.formats:
                path = Path(os.path.abspath(name))
                folder = folder or path.parent
                image = coco.image_entry(path.relative_to(folder).as_posix(), prediction.size)
                self.journal.photograph(str(folder), image, [coco.annotation(face) for face in prediction.faces])

    @contextmanager
    def open_video(self, name: str, stem: str, fps: float, sound: Path | None = None) -> Iterator[VideoResult]:
        """Where a video's frames go, one by one; its files appear when the block ends well.

        `sound` is the file whose sound the overlay gets.

        Raises: as `write_image`; ValueError where COCO entries are asked for, which are of photographs.
        """
        if "coco" in self.formats:
            raise ValueError("coco is for photographs: a frame is no file that an annotation tool could open")
        with self._results_of(name, stem), ExitStack() as files:
            video = VideoResult(self, files, name, stem, fps, sound)
            yield video
            video.finish()

    @contextmanager
    def place(self, file: str) -> Iterator[Path]:
        """A temporary path for a result; it is written to the disk when the system likes, since it can be made anew."""
        with replacing(self.journal.claim(file), sync=False) as path:
            yield path

    @contextmanager
    def _results_of(self, name: str, stem: str) -> Iterator[None]:
        self.journal.begin(name, stem, self._made)
        yield
        self.journal.done()

    def _write_points(self, stem: str, faces: Sequence[FaceLandmarks]) -> None:
        if "pts" in self.formats:
            for number, face in enumerate(faces, start=1):
                with self.place(f"{stem}.pts" if number == 1 else f"{stem}-face{number}.pts") as path:
                    write_pts(path, face.landmarks_image)

    def _write_crops(self, stem: str, pixels: Image, faces: Sequence[FaceLandmarks]) -> None:
        for number, face in enumerate(faces if self.crops else (), start=1):
            if self.crops and np.isfinite(face.landmarks_image).all():
                crop = aligned_crop(pixels, face.landmarks_image, self.crops, self.scheme)
                with self.place(f"{stem}-face{number}.png") as path:
                    path.write_bytes(encoded(crop, ".png"))

    def entry(self, face: FaceLandmarks) -> dict[str, Any]:
        """What the JSON says of a face: `to_dict`, and how the head is turned, in degrees, where that can be told."""
        yaw, pitch, roll = plain_numbers(head_angles(face.landmarks_image[None], self.scheme)[0].round(2))
        return {**face.to_dict(), "pose": {"yaw": yaw, "pitch": pitch, "roll": roll}}

    def _add_row(self, name: str, frame: int | str, number: int, face: FaceLandmarks) -> None:
        if self.formats & {"csv", "parquet"}:
            self.journal.row(table_row(name, frame, number, face))

    def _write_table(self) -> None:
        with (
            replacing(self.journal.claim_table()) as path,
            path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            table = csv.writer(file)
            table.writerow(table_header(self.scheme))
            table.writerows(self.journal.rows())

    def _write_overlay(self, file: str, pixels: Image, faces: Sequence[FaceLandmarks]) -> None:
        pixels, scale = resized(pixels, most=LONGEST_OVERLAY)
        with self.place(file) as path:
            path.write_bytes(encoded(self.draw(pixels, faces, scale), ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 92]))

    def draw(self, pixels: Image, faces: Sequence[FaceLandmarks], scale: float = 1.0) -> Image:
        """`pixels`, an image shrunk by `scale`, with the landmarks of all faces on it."""
        points = [in_resized(face.landmarks_image, scale) for face in faces]
        return draw_faces(pixels, points, self.scheme, doubtful=[face.doubtful for face in faces])


class VideoResult:
    """Writes the results of a video frame by frame, so that a long one needs no memory; see `ResultFolder.open_video`.

    `notes` say what a reader of the results should know of the video; they are written at its end.

    Raises:
        OSError: the overlay's file cannot be written.
    """

    def __init__(
        self, folder: ResultFolder, files: ExitStack, name: str, stem: str, fps: float, sound: Path | None = None
    ) -> None:
        self._folder = folder
        self._files = files
        self._name = name
        self._stem = stem
        self._fps = fps
        self._sound = sound
        self._json: IO[str] | None = None
        self._overlay: Film | None = None
        self.notes: list[str] = []
        self._frames = 0
        if "json" in folder.formats:
            self._json = files.enter_context(writing(folder.journal.claim(f"{stem}.json"), "w", sync=False))
            head = {"video": name, "scheme": folder.scheme.name, "fps": round(fps, 4)}
            self._json.write(json.dumps(head)[:-1] + ', "frames": [')

    def add(self, frame: Frame, faces: Sequence[TrackedFace]) -> None:
        """Writes all that was asked for about the next frame."""
        folder = self._folder
        if folder.overlay:
            self._write_frame(folder.draw(frame.pixels, faces), frame.seconds)
        if self._json:
            entries = [{"track": face.track, **folder.entry(face)} for face in faces]
            content = json.dumps({"frame": frame.number, "seconds": round(frame.seconds, 4), "faces": entries})
            self._json.write((",\n" if self._frames else "\n") + content)
        folder._write_points(f"{self._stem}-{frame.number:06d}", faces)
        folder._write_crops(f"{self._stem}-{frame.number:06d}", frame.pixels, faces)
        for face in faces:
            folder._add_row(self._name, frame.number, face.track, face)
        self._frames += 1

    def finish(self) -> None:
        """Ends the files.

        Raises:
            OSError: the overlay cannot be written whole.
        """
        if self._json:
            self._json.write(f'\n], "notes": {json.dumps(self.notes)}}}\n')
        if self._overlay:
            self._overlay.finish()

    def _write_frame(self, drawn: Image, seconds: float) -> None:
        if self._overlay is None:
            path = self._files.enter_context(self._folder.place(f"{self._stem}.mp4"))
            self._overlay = Film(path, self._fps, self._sound)
            self._files.callback(self._overlay.release)
        self._overlay.add(drawn, seconds)


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
