"""`facelm predict INPUT... --out FOLDER`: landmarks of photographs and videos, written to files."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from facelm.addresses import public
from facelm.commands import NETWORK_HELP
from facelm.commands.progress import progress_bar
from facelm.files import typed

if TYPE_CHECKING:
    from facelm.geometry.boxes import BoxConvention
    from facelm.predict.inputs import Input
    from facelm.predict.targets import Again

EXAMPLES = """
examples:
  facelm predict photo.jpg --out results
  facelm predict photos/ 'more/*.png' clip.mp4 --out results --format json,pts
  facelm predict faces/ --out results --boxes boxes.csv --convention tight
  facelm predict 0 --out results --seconds 10          (camera 0)
  facelm predict photos/ --out results --skip-existing (go on with what is not there yet)
  find photos -name '*.jpg' | facelm predict --list - --out results
  facelm predict photos/ --out results --format coco   (to correct in CVAT or Label Studio, and train on)

exit code: 0 all inputs were processed (with or without a face), 1 some failed and are listed, 2 wrong usage
"""

CONVENTION_HELP = "what the boxes are: tight, square, dlib, or DX,DY,SCALE as `facelm calibrate` prints them"

LOOK_HELP = "longer side of the copy that dlib looks at, for faces from 80/PX of it (default: 2000; 1000 is faster)"

_ENDS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what stops every other input too


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="image, folder, pattern in quotes, video, or number of a camera")
    add("--list", metavar="FILE", help="a file with an input a line, of any length; - is the standard input")
    add("--out", required=True, type=Path, metavar="FOLDER", help="where results go; made if it is not there")
    add("--checkpoint", default="hrnetv2_w18", metavar="NAME_OR_FILE", help="shipped name, file, run folder or address")
    add("--network", metavar="CLASS", help=NETWORK_HELP)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add(
        "--format",
        type=_formats,
        default=("json", "csv"),
        metavar="LIST",
        help="of json,csv,pts,coco,parquet (default: json,csv)",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--skip-existing", action="store_true", help="leave inputs whose results are there")
    again.add_argument("--overwrite", action="store_true", help="replace these inputs' results; keep others")
    add("--no-overlay", action="store_true", help="write no images or videos with landmarks drawn on them")
    add("--crops", type=int, choices=(112, 256), help="cut faces out upright, as ArcFace (112) or FFHQ (256) has them")
    add = parser.add_argument_group("where the faces are").add_argument
    add("--detector", default="dlib", metavar="NAME", help="dlib, or a YuNet .onnx file (default: dlib)")
    add("--boxes", type=Path, metavar="CSV", help="rows image,x1,y1,x2,y2 instead of a detector, for images")
    add("--convention", type=_convention, metavar="NAME", help=CONVENTION_HELP)
    add("--look", type=_at_least(80), default=2000, metavar="PX", help=LOOK_HELP)
    add("--upright-only", action="store_true", help="look for no faces in the turned photograph")
    add("--min-score", type=_share, default=0.0, metavar="S", help="leave out faces below this score, 0 to 1")
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
    add("--seconds", type=_seconds, metavar="S", help="stop after S seconds (a camera: or Ctrl-C)")
    add("--detect-every", type=_at_least(1), default=25, metavar="N", help="frames between looks for new faces")


def run(args: argparse.Namespace) -> int:
    """Processes every input; those that cannot be read are listed at the end."""
    import cv2

    from facelm.commands.predict_job import Job
    from facelm.predict.coco import common_folder
    from facelm.predict.files import ResultFolder
    from facelm.predict.inputs import expand_inputs, said_of_skipped, shown
    from facelm.predict.journal import TABLES, Journal
    from facelm.predict.targets import to_do

    out = typed(args.out)
    journal = Journal(out)
    skipped: Counter[str] = Counter()
    given, failures = expand_inputs(_named(args), out, journal.stems, skipped)
    again: Again = "overwrite" if args.overwrite else "skip" if args.skip_existing else "refuse"
    made, what = _options(args), {"formats": args.format, "overlay": not args.no_overlay, "crops": args.crops}
    inputs = to_do(given, journal, made=made, again=again, **what)
    total, there = len(given) + len(failures), len(given) - len(inputs)
    faces = 0
    if inputs:
        job = Job(args)
        # What OpenCV says of broken files is said below, once.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        results = ResultFolder(out, job.predictor.scheme, made=made, journal=journal, **what)
        with results, progress_bar(len(inputs)) as bar:
            start = perf_counter()
            for item, outcome in job.outcomes(inputs, results, bar):
                if isinstance(outcome, OSError) and outcome.errno in _ENDS:
                    raise outcome
                if isinstance(outcome, Exception):
                    failures.append((item.shown, _reason(outcome, item)))
                else:
                    faces += outcome
                bar.finish_input()
            took = perf_counter() - start
    if "coco" in args.format and (root := common_folder(journal.photographs())):
        print(f"{out / TABLES['coco']}: photographs are named from {shown(root)}")
    left = f" ({there} inputs were there)" if there else ""
    print(f"{total - len(failures)} of {total} inputs, {faces} faces{left} -> {out}")
    if inputs and (speed := job.speed(took)):
        print(speed)
    if skipped:
        print(said_of_skipped(skipped))
    if failures:
        print("failed:", *(f"  {name}: {reason}" for name, reason in failures), sep="\n", file=sys.stderr)
    return 1 if failures else 0


def _named(args: argparse.Namespace) -> list[str]:
    """The inputs that were typed, and those of the list."""
    names = list(args.inputs)
    if args.list:
        with nullcontext(sys.stdin.buffer) if args.list == "-" else typed(args.list).open("rb") as lines:
            names += [os.fsdecode(line.rstrip(b"\r\n")) for line in lines if line.strip()]
    if not names:
        raise ValueError("no input: name an image, a folder, a video, or a file that lists them (--list FILE)")
    return names


def _reason(error: Exception, item: Input) -> str:
    """The error's message without the name of the input, which is said before it."""
    lines = str(error).strip().splitlines()
    reason = lines[-1] if lines else type(error).__name__
    return reason.removeprefix(f"{str(item.path)!r}: ").removeprefix(f"{item.shown}: ")


def _options(args: argparse.Namespace) -> dict[str, str]:
    """The options that decide what the results are."""
    names = "checkpoint format no_overlay detector boxes convention refine flip annotation_shift no_smoothing seconds"
    names += " detect_every upright_only min_score crops look"
    return {f"--{name.replace('_', '-')}": public(str(getattr(args, name))) for name in names.split()}


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or set(names) - {"json", "csv", "pts", "coco", "parquet"}:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of json, csv, pts, coco and parquet, such as json,pts"
        )
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


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return number


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return number


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return number
