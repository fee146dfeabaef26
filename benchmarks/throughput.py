"""Faces and frames a second of `facelm predict` from file to file, and where the time goes.

    python -m benchmarks.throughput [--against SRC] [--rounds N] [--portraits N] [--groups N] [--frames N]

Drawn faces: portraits (1600 x 1200), group photographs as `benchmarks.wild` draws them, and a face that moves in
videos of 640 x 480 and 1920 x 1080 pixels (these need PyAV). Overlays, JSON and CSV are written. `--against` names
the `src` folder of another checkout, which takes turns with this one; ratios are medians over rounds, of seconds and
of CPU seconds. The profile is of one stage after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import cv2
import numpy as np

from benchmarks.wild import groups
from facelm.data.synthetic.dataset import draw_face
from facelm.data.synthetic.photo import paint_background
from facelm.geometry.affine import Image

ROOT = Path(__file__).resolve().parents[1]

CHILD = """
import json, sys, time
from facelm.cli import main
first, folder, out, *more = sys.argv[1:]
main(["predict", first, "--out", out + "/warm", *more])
start = time.perf_counter(), time.process_time()
main(["predict", folder, "--out", out + "/all", *more])
took = time.perf_counter() - start[0], time.process_time() - start[1]
import pathlib
found = frames = 0
for path in pathlib.Path(out, "all").rglob("*.json"):
    content = json.loads(path.read_text())
    parts = content.get("frames", [content])
    frames += len(parts)
    found += sum(len(part["faces"]) for part in parts)
print("RESULT", json.dumps([*took, found, frames]))
"""


def portrait(index: int, width: int = 1600, height: int = 1200) -> Image:
    """A drawn face that takes up half of the photograph's height."""
    rng = np.random.default_rng([31, index])
    drawn, _ = draw_face(rng)
    image = paint_background(rng, width, height)
    side = int(0.8 * height)
    left, top = (width - side) // 2, height - side
    image[top:, left : left + side] = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_CUBIC)
    return image


def make_video(path: Path, frames: int, width: int, height: int) -> None:
    """A face that moves to and fro."""
    import av

    rng = np.random.default_rng(32)
    drawn, background = draw_face(rng)[0], paint_background(rng, width, height)
    side = height // 2
    face = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 8_000_000
        for number in range(frames):
            image = background.copy()
            left = int((width - side) * (0.5 + 0.4 * np.sin(number / 20)))
            image[height // 4 : height // 4 + side, left : left + side] = face
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def make_inputs(folder: Path, args: argparse.Namespace) -> dict[str, Path]:
    """The inputs of each row, in a folder each."""
    names = ("portraits", "groups", "video 640 x 480", "video 1920 x 1080")
    made = {name: folder / name.replace(" ", "") for name in names}
    for place in made.values():
        place.mkdir()
    for index in range(args.portraits):
        cv2.imwrite(str(made["portraits"] / f"{index}.jpg"), cv2.cvtColor(portrait(index), cv2.COLOR_RGB2BGR))
    for index, (_, image, _) in enumerate(groups(args.groups)):
        cv2.imwrite(str(made["groups"] / f"{index}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    make_video(made["video 640 x 480"] / "clip.mp4", args.frames, 640, 480)
    make_video(made["video 1920 x 1080"] / "clip.mp4", args.frames, 1920, 1080)
    return made


def timed(source: Path, first: Path, inputs: Path, options: Sequence[str]) -> list[float]:
    """What `CHILD` prints of a run of the facelm under `source`: seconds, CPU seconds, faces and pictures."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", CHILD, str(first), str(inputs), out, *options]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=False
        )
    answer = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not answer:
        raise SystemExit(done.stderr)
    return [float(one) for one in json.loads(answer[0].removeprefix("RESULT "))]


def profile(inputs: Path, out: Path) -> dict[str, float]:
    """CPU milliseconds a photograph of each stage, one after the other."""
    from facelm.geometry.landmarks import IBUG68
    from facelm.predict import Predictor
    from facelm.predict.files import ResultFolder
    from facelm.predict.photographs import read_photograph

    predictor = Predictor.load(device="cpu")
    spent = dict.fromkeys(("reading", "detecting", "landmarks", "writing"), 0.0)
    paths = sorted(inputs.glob("*.jpg"))
    with ResultFolder(out, IBUG68) as results:
        for path in [paths[0], *paths]:
            clock = [process_time()]
            photograph = read_photograph(path)
            clock.append(process_time())
            seen = predictor.see(photograph)
            clock.append(process_time())
            (prediction,) = predictor.finish([seen])
            clock.append(process_time())
            results.write_image(str(path), path.stem, photograph.pixels, prediction)
            clock.append(process_time())
            for stage, seconds in zip(spent, np.diff(clock), strict=True):
                spent[stage] += seconds if path != paths[0] else 0
    return {stage: 1e3 * seconds / max(1, len(paths) - 1) for stage, seconds in spent.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--portraits", type=int, default=24)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--options", default="", help="further options of facelm predict, in one string")
    args = parser.parse_args(arguments)
    sources = [*([args.against] if args.against else []), ROOT / "src"]
    with tempfile.TemporaryDirectory() as folder:
        made = make_inputs(Path(folder), args)
        print(
            "| inputs | faces | faces a second | pictures a second | CPU ms a picture | times the other | in CPU time |"
        )
        print("|---|---|---|---|---|---|---|")
        for name, inputs in made.items():
            first = made["portraits"] / "0.jpg"
            rounds = [[timed(one, first, inputs, args.options.split()) for one in sources] for _ in range(args.rounds)]
            ratios = [statistics.median(done[0][i] / done[-1][i] for done in rounds) for i in (0, 1)]
            for number, source in enumerate(sources):
                seconds, cpu = (statistics.median(done[number][i] for done in rounds) for i in (0, 1))
                faces, pictures = rounds[0][number][2:]
                what, times = (name, ratios) if source == sources[-1] else (f"{name}, other", [1.0, 1.0])
                rates = f"{faces:.0f} | {faces / seconds:.2f} | {pictures / seconds:.2f} | {1e3 * cpu / pictures:.0f}"
                print(f"| {what} | {rates} | {times[0]:.2f} | {times[1]:.2f} |", flush=True)
        print("\n| CPU ms a photograph | reading | detecting | landmarks | writing |\n|---|---|---|---|---|")
        for name in ("portraits", "groups"):
            spent = profile(made[name], Path(folder, f"out-{name}"))
            print(f"| {name} | {' | '.join(f'{value:.0f}' for value in spent.values())} |")


if __name__ == "__main__":
    main()
