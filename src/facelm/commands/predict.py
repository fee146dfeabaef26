"""`facelm predict INPUT... --out FOLDER`: landmarks of photographs and videos, written to files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from facelm.commands import NETWORK_HELP
from facelm.commands.progress import ProgressBar, progress_bar

if TYPE_CHECKING:
    from facelm.geometry.boxes import BoxConvention
    from facelm.predict.detect import Detector
    from facelm.predict.files import ResultFolder
    from facelm.predict.inputs import Input

EXAMPLES = """
examples:
  facelm predict photo.jpg --out results
  facelm predict photos/ 'more/*.png' clip.mp4 --out results --format json,pts
  facelm predict faces/ --out results --boxes boxes.csv --convention tight
  facelm predict 0 --out results --seconds 10          (camera 0)

exit code: 0 all inputs were processed (with or without a face), 1 some failed and are listed, 2 wrong usage
"""

CONVENTION_HELP = "what the boxes are: tight, square, dlib, or DX,DY,SCALE as `facelm calibrate` prints them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="image, folder, pattern in quotes, video, or number of a camera")
    add("--out", required=True, type=Path, metavar="FOLDER", help="where results go; made if it is not there")
    add("--checkpoint", default="hrnetv2_w18", metavar="NAME_OR_FILE", help="shipped name, file, run folder or address")
    add("--network", metavar="CLASS", help=NETWORK_HELP)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--format", type=_formats, default=("json", "csv"), metavar="LIST", help="of json,csv,pts (default: json,csv)")
    add("--no-overlay", action="store_true", help="write no images or videos with landmarks drawn on them")
    add = parser.add_argument_group("where the faces are").add_argument
    add("--detector", default="dlib", metavar="NAME", help="dlib, or a YuNet .onnx file (default: dlib)")
    add("--boxes", type=Path, metavar="CSV", help="rows image,x1,y1,x2,y2 instead of a detector, for images")
    add("--convention", type=_convention, metavar="NAME", help=CONVENTION_HELP)
    add("--refine", type=_at_least(0), default=1, metavar="N", help="crops around landmarks found (default: 1)")
    add("--flip", choices=("none", "shifted", "exact"), help="flip test (default: the model's, or exact)")
    add(
        "--annotation-shift",
        type=float,
        metavar="D",
        help="added to x, in sides of the box (default: the model's)",
    )
    add = parser.add_argument_group("videos").add_argument
    add("--no-smoothing", action="store_true", help="landmarks of each frame as they are")
    add("--seconds", type=float, metavar="S", help="stop after S seconds (a camera: or Ctrl-C)")
    add("--detect-every", type=_at_least(1), default=15, metavar="N", help="frames between looks for new faces")


def run(args: argparse.Namespace) -> int:
    """Processes every input; those that cannot be read are listed at the end."""
    import cv2

    from facelm.predict.files import ResultFolder
    from facelm.predict.inputs import expand_inputs

    inputs, failures = expand_inputs(args.inputs, args.out)
    total = len(inputs) + len(failures)
    faces = 0
    if inputs:
        job = Job(args)
        # What OpenCV says of broken files is said below, once.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        results = ResultFolder(args.out, job.predictor.scheme, formats=args.format, overlay=not args.no_overlay)
        with results, progress_bar(len(inputs)) as bar:
            for item in inputs:
                try:
                    faces += job.process(item, results, bar)
                except (ValueError, OSError, MemoryError, cv2.error) as error:
                    failures.append((item.shown, _reason(error, item)))
                bar.finish_input()
    print(f"{total - len(failures)} of {total} inputs, {faces} faces -> {args.out}")
    if failures:
        print("failed:", *(f"  {name}: {reason}" for name, reason in failures), sep="\n", file=sys.stderr)
    return 1 if failures else 0


class Job:
    """The model, and where boxes come from, for all inputs.

    Raises what `Predictor.load`, the detectors and `read_box_table` raise.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from facelm.models import own
        from facelm.predict.box_table import read_box_table
        from facelm.predict.predictor import Predictor

        self.args = args
        self.table = read_box_table(args.boxes) if args.boxes else None
        detector = None if args.boxes else open_detector(args.detector, args.convention)
        self.predictor = Predictor.load(
            args.checkpoint,
            args.device,
            network=own.named(args.network),
            detector=detector,
            flip=args.flip,
            annotation_shift=args.annotation_shift,
            refine=args.refine,
        )

    def process(self, item: Input, results: ResultFolder, bar: ProgressBar) -> int:
        """Writes the results of one input; the number of faces (in a video, of different faces) in it."""
        if item.kind == "image":
            return self._image(item, results, bar)
        return self._video(item, results, bar)

    def _image(self, item: Input, results: ResultFolder, bar: ProgressBar) -> int:
        from facelm.predict.box_table import boxes_of
        from facelm.predict.photographs import read_photograph

        start = perf_counter()
        photograph = read_photograph(item.path)
        reading = perf_counter() - start
        boxes = boxes_of(self.table, item.path) if self.table is not None else None
        prediction = self.predictor(photograph, boxes, convention=self.args.convention or "tight")
        prediction = replace(prediction, seconds={**prediction.seconds, "read": reading})
        results.write_image(str(item.path), item.stem, photograph.pixels, prediction)
        bar.say(*(f"{item.shown}: {note}" for note in prediction.notes))
        return len(prediction)

    def _video(self, item: Input, results: ResultFolder, bar: ProgressBar) -> int:
        from facelm.predict.video import FaceTracker, VideoReader

        if self.table is not None:
            raise ValueError("--boxes are for images; a video's faces are found with --detector")
        reader = VideoReader(item.video_source)
        smooth, every = not self.args.no_smoothing, self.args.detect_every
        tracker = FaceTracker(self.predictor, smooth=smooth, detect_every=every)
        tracks: set[int] = set()
        bar.start_video(item.shown, reader.count)
        try:
            with results.open_video(item.shown, item.stem, reader.fps) as video:
                for frame in reader:
                    if self.args.seconds is not None and frame.seconds >= self.args.seconds:
                        break
                    faces = tracker(frame)
                    tracks |= {face.track for face in faces}
                    video.add(frame, faces)
                    bar.finish_frame()
        except KeyboardInterrupt:
            if not reader.is_camera:
                raise
            bar.say(f"{item.shown}: stopped")
        finally:
            reader.close()
        if not tracks:
            bar.say(f"{item.shown}: no face found")
        return len(tracks)


def open_detector(name: str, convention: BoxConvention | None = None) -> Detector:
    """The detector of that name, `dlib` or a YuNet model's file; its boxes taken as `convention` where that is given.

    Raises:
        ImportError: dlib is not installed.
        FileNotFoundError: no such model file.
        ValueError: not a YuNet model.
    """
    from facelm.predict.detect import DlibDetector, YuNetDetector

    if name == "dlib":
        return DlibDetector(convention) if convention else DlibDetector()
    return YuNetDetector(name, convention) if convention else YuNetDetector(name)


def _reason(error: Exception, item: Input) -> str:
    """The error's message without the name of the input, which is said before it."""
    lines = str(error).strip().splitlines()
    reason = lines[-1] if lines else type(error).__name__
    return reason.removeprefix(f"{str(item.path)!r}: ").removeprefix(f"{item.shown}: ")


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - {"json", "csv", "pts"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of json, csv and pts, such as json,pts")
    return names


def _convention(text: str) -> BoxConvention:
    from facelm.geometry.boxes import BoxConvention, get_convention

    try:
        if "," not in text:
            return get_convention(text)
        x, y, scale = (float(number) for number in text.split(","))
        return BoxConvention("custom", (x, y), scale)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (or DX,DY,SCALE)") from error


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return number
