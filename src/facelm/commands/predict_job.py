"""The work of `facelm predict`: inputs read, looked at, put through the network and written; the stages overlap."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby

import cv2

from facelm.commands.progress import ProgressBar
from facelm.models import own
from facelm.predict.ahead import ahead, helpers
from facelm.predict.box_table import boxes_of, read_box_table
from facelm.predict.candidates import Candidates
from facelm.predict.detect import open_detector
from facelm.predict.files import ResultFolder
from facelm.predict.frames import VideoReader
from facelm.predict.inputs import Input
from facelm.predict.photographs import Seen
from facelm.predict.prediction import DAMAGED, Prediction, not_finite
from facelm.predict.predictor import Predictor
from facelm.predict.video import FaceTracker

_BATCH = 8  # photographs that go through the network together, where so many are ready


class Job:
    """The model, and where boxes come from, for all inputs.

    Raises what `Predictor.load`, the detectors and `read_box_table` raise.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.frames = self.looked_at = 0
        self.table = read_box_table(args.boxes) if args.boxes else None
        detector = None if args.boxes else open_detector(args.detector, args.convention, args.look)
        self.predictor = Predictor.load(
            args.checkpoint,
            args.device,
            network=own.named(args.network),
            detector=detector,
            flip=args.flip,
            annotation_shift=args.annotation_shift,
            refine=args.refine,
            upright_only=args.upright_only,
            min_score=args.min_score,
        )

    def outcomes(
        self, inputs: Iterable[Input], results: ResultFolder, bar: ProgressBar
    ) -> Iterator[tuple[Input, int | Exception]]:
        """Each input, its results written, with the number of faces (a video: different ones) or why it failed."""
        for is_image, items in groupby(inputs, key=lambda item: item.kind == "image"):
            if is_image:
                with closing(ahead(items, self._see, helpers(), most=_BATCH)) as batches:
                    for batch in batches:
                        yield from self._images(batch, results, bar)
            else:
                for item in items:
                    yield item, self._tried(self._video, item, results, bar)

    def speed(self, seconds: float) -> str:
        """What was done in that time, in words; nothing where it is too short to say."""
        frames = f" and {self.frames / seconds:.1f} frames" if self.frames else ""
        return f"{seconds:.1f} s: {self.looked_at / seconds:.1f} faces{frames} a second" if seconds >= 1 else ""

    def _tried(self, do: Callable[..., int], *given: object) -> int | Exception:
        """What `do` gives, or the error that ends this input and no other."""
        try:
            return do(*given)
        except (ValueError, OSError, MemoryError, cv2.error) as error:
            return error

    def _see(self, item: Input) -> tuple[Input, Seen[Candidates] | Exception]:
        """A photograph read, and the faces in it detected; called in other threads."""
        try:
            boxes = boxes_of(self.table, item.path) if self.table is not None else None
            return item, self.predictor.see(item.path, boxes, convention=self.args.convention or "tight")
        except (ValueError, OSError, MemoryError, cv2.error) as error:
            return item, error

    def _images(
        self, batch: Sequence[tuple[Input, Seen[Candidates] | Exception]], results: ResultFolder, bar: ProgressBar
    ) -> Iterator[tuple[Input, int | Exception]]:
        """Photographs through the network together, and written in order."""
        seen = [one for _, one in batch if not isinstance(one, Exception)]
        try:
            found = iter(self.predictor.finish(seen))
        except (MemoryError, RuntimeError):  # too much at once; alone, each says what is wrong with it
            found = iter(())
        for item, one in batch:
            if isinstance(one, Exception):
                yield item, one
            else:
                yield item, self._tried(self._write, item, one, next(found, None), results, bar)

    def _write(
        self, item: Input, seen: Seen[Candidates], found: Prediction | None, results: ResultFolder, bar: ProgressBar
    ) -> int:
        prediction = found or self.predictor.finish([seen])[0]
        results.write_image(item.name, item.stem, seen.photograph.pixels, prediction, item.folder)
        bar.say(*(f"{item.shown}: {note}" for note in prediction.notes))
        self.looked_at += len(prediction)
        return len(prediction)

    def _video(self, item: Input, results: ResultFolder, bar: ProgressBar) -> int:
        if self.table is not None:
            raise ValueError("--boxes are for images; a video's faces are found with --detector")
        reader = VideoReader(item.video_source)
        smooth, every = not self.args.no_smoothing, self.args.detect_every
        tracker = FaceTracker(self.predictor, smooth=smooth, detect_every=every)
        tracks: set[int] = set()
        lost = 0
        bar.start_video(item.shown, reader.count)
        sound = None if reader.is_camera else item.path
        with (
            closing(reader),
            results.open_video(item.name, item.stem, reader.fps, sound) as video,
            closing(ahead(reader, tracker.look_at)) as frames,
        ):
            try:
                for ((frame, found),) in frames:
                    if self.args.seconds is not None and frame.seconds >= self.args.seconds:
                        break
                    faces = tracker(frame, found)
                    tracks |= {face.track for face in faces}
                    lost += not_finite(faces)
                    video.add(frame, faces)
                    self.frames, self.looked_at = self.frames + 1, self.looked_at + len(faces)
                    bar.finish_frame()
            except KeyboardInterrupt:
                if not reader.is_camera:
                    raise
                bar.say(f"{item.shown}: stopped")
            video.notes += [reader.cut] if reader.cut else []
        if lost:
            bar.say(f"{item.shown}: {lost} faces of its frames have no finite landmarks: {DAMAGED}")
        if reader.cut:
            raise ValueError(reader.cut)
        if not tracks:
            bar.say(f"{item.shown}: no face found")
        return len(tracks)
