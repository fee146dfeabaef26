"""Landmarks through a video: faces followed from frame to frame, and smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from facelm.geometry.affine import FloatArray
from facelm.geometry.boxes import Box, overlaps, upright_box
from facelm.predict.candidates import Candidates
from facelm.predict.frames import Frame
from facelm.predict.photographs import Photograph
from facelm.predict.prediction import LEAST_SCORE
from facelm.predict.predictor import FaceLandmarks, Predictor
from facelm.predict.smoothing import OneEuro


@dataclass(frozen=True, eq=False)
class TrackedFace(FaceLandmarks):
    """A face in a frame; `track` is the same number in every frame that shows it."""

    track: int = 0


@dataclass
class _Track:
    """A face that is followed: the box to look in next, and its filter."""

    number: int
    box: Box
    smooth: OneEuro | None = field(default=None)


class FaceTracker:
    """Follows faces through frames: each is looked for where its landmarks were in the frame before.

    The detector runs on the first frame, on every frame while no face is followed, and otherwise every
    `detect_every` frames, for faces that came in. A face is given up where its landmarks' mean confidence falls below
    `least_confidence`, where it leaves the frame, or where it runs onto a face that was there before it.

    Args:
        predictor: finds faces and landmarks; its `refine` serves faces just detected.
        smooth: whether landmarks go through a `OneEuro` filter.
        detect_every: frames.
        least_confidence: 0..1.
    """

    def __init__(
        self, predictor: Predictor, *, smooth: bool = True, detect_every: int = 25, least_confidence: float = 0.3
    ) -> None:
        if detect_every < 1:
            raise ValueError(f"detect_every={detect_every}: it is a number of frames, 1 or more")
        self.predictor = predictor
        self.smooth = smooth
        self.detect_every = detect_every
        self.least_confidence = least_confidence
        self._tracks: list[_Track] = []
        self._count = 0

    def look_at(self, frame: Frame) -> tuple[Frame, Candidates | None]:
        """The frame, with what the detector finds where it is one of every `detect_every`: for another thread."""
        due = frame.number % self.detect_every == 0
        return frame, self.predictor.candidates(Photograph(frame.pixels)) if due else None

    def __call__(self, frame: Frame, found: Candidates | None = None) -> list[TrackedFace]:
        """The faces in the next frame, the one followed longest first; `found` as `look_at` gave it, if asked."""
        photograph = Photograph(frame.pixels)
        seen = self._follow(photograph, self._tracks, refine=0)
        if found is None and (not seen or frame.number % self.detect_every == 0):
            found = self.predictor.candidates(photograph)
        if found is not None:
            seen += self._new_tracks(photograph, seen, found)
        faces = []
        self._tracks = []
        for track, face in seen:
            if any(_overlap(track.box, other.box) > 0.6 for other in self._tracks):
                continue
            self._tracks.append(track)
            faces.append(self._smoothed(track, face, frame.seconds))
        return faces

    def _follow(
        self, photograph: Photograph, tracks: list[_Track], refine: int | None
    ) -> list[tuple[_Track, FaceLandmarks]]:
        """The tracks whose face is still there, with it; their boxes moved on to it."""
        found = self.predictor.faces_in_boxes([photograph], [[track.box for track in tracks]], refine)[0]
        seen = []
        for track, face in zip(tracks, found, strict=True):
            box = upright_box(face.landmarks_image, self.predictor.scheme.mirror)
            inside = overlaps(box.xyxy[None], np.array([[0.0, 0.0, *photograph.size]]))[0, 0] > 0
            if inside and face.confidence.mean() >= self.least_confidence and 1 / 2 < box.side / track.box.side < 2:
                track.box = box
                seen.append((track, face))
        return seen

    def _new_tracks(
        self, photograph: Photograph, seen: list[tuple[_Track, FaceLandmarks]], found: Candidates
    ) -> list[tuple[_Track, FaceLandmarks]]:
        """Tracks of the detector's faces that are not followed yet."""
        tracks = [
            _Track(number, box, OneEuro() if self.smooth else None)
            for number, box in enumerate(found.boxes)
            if all(_overlap(box, track.box) < 0.3 for track, _ in seen)
        ]
        least = self.predictor.min_score
        new = []
        for track, face in self._follow(photograph, tracks, refine=None):
            if face.score >= (least if track.number < found.sure else max(least, LEAST_SCORE)):
                self._count += 1
                track.number = self._count
                new.append((track, face))
        return new

    def _smoothed(self, track: _Track, face: FaceLandmarks, seconds: float) -> TrackedFace:
        landmarks: FloatArray = face.landmarks_image
        if track.smooth is not None:
            landmarks = track.smooth(landmarks, seconds, track.box.side)
        return TrackedFace(face.box, landmarks, face.confidence, face.rotation, face.expected_error, track.number)


def _overlap(box: Box, other: Box) -> float:
    return float(overlaps(box.xyxy[None], other.xyxy[None])[0, 0])
