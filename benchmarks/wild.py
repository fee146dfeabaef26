"""Faces in whole photographs: how many are found, missed and false, and the seconds that takes.

    python -m benchmarks.wild [--photographs FOLDER] [--images N] [--detector dlib] [--least-score S] [--package NAME]

Three sets: N group photographs, each of two to six drawn faces on a drawn background, between 4 and 30 % of its longer
side; N pictures without a face (a third drawn backgrounds, a third textures, a third cut from beside drawn faces); and
the photographs of FOLDER that have a .pts beside them, where one face each is annotated. A face is found where the
landmarks lie nearer to the true ones than a tenth of their box, on average; what is at no true face is false, or,
in FOLDER, another face: look at the pictures that `--show OUT` draws. With `--least-score` only faces of that score
count. `--package` takes face-alignment or mediapipe, where they are installed, in place of facelm.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.packages import PACKAGES, FindFaces
from facelm.data.images import IMAGE_ENDINGS
from facelm.data.synthetic.dataset import draw_face
from facelm.data.synthetic.photo import paint_background
from facelm.data.w300.annotations import read_pts
from facelm.evaluation.overlay import draw_landmarks
from facelm.geometry.affine import FloatArray, Image
from facelm.predict import Predictor
from facelm.predict.detect import open_detector
from facelm.predict.photographs import read_photograph

Sample = tuple[str, Image, list[FloatArray]]
"""A name, pixels `[H, W, 3]`, and the landmarks `[68, 2]` of each true face."""

Generator = np.random.Generator


@dataclass
class Count:
    """Of one set."""

    images: int = 0
    faces: int = 0
    found: int = 0
    others: int = 0
    seconds: float = 0.0

    def row(self, name: str) -> str:
        """A row of the table."""
        missed = self.faces - self.found
        rate = self.seconds / max(1, self.images)
        return f"| {name} | {self.images} | {self.faces} | {self.found} | {missed} | {self.others} | {rate:.2f} |"


def groups(count: int) -> Iterator[Sample]:
    """Drawn group photographs."""
    for index in range(count):
        rng = np.random.default_rng([21, index])
        width, height = int(rng.integers(900, 2001)), int(rng.integers(700, 1501))
        image = paint_background(rng, width, height)
        truth, taken = [], np.zeros((height, width), bool)
        for _ in range(int(rng.integers(2, 7))):
            drawn, points = draw_face(rng, "challenge" if rng.random() < 0.3 else "common")
            side = float(np.ptp(points, axis=0).max())
            scale = max(width, height) * np.exp(rng.uniform(np.log(0.04), np.log(0.3))) / side
            size = (round(drawn.shape[1] * scale), round(drawn.shape[0] * scale))
            if (place := _free(rng, taken, size)) is not None:
                _paste(image, drawn, place, size)
                truth.append((points + 0.5) * [size[0] / drawn.shape[1], size[1] / drawn.shape[0]] - 0.5 + place)
        yield f"group {index}", image, truth


def _free(rng: Generator, taken: NDArray[np.bool_], size: tuple[int, int]) -> tuple[int, int] | None:
    """A place for a picture of that size that is not `taken` yet, which it then is; None where there is none."""
    height, width = taken.shape
    for _ in range(50):
        if size[0] >= width or size[1] >= height:
            return None
        x, y = int(rng.integers(width - size[0])), int(rng.integers(height - size[1]))
        if not (part := taken[y : y + size[1], x : x + size[0]]).any():
            part[:] = True
            return x, y
    return None


def _paste(image: Image, drawn: Image, place: tuple[int, int], size: tuple[int, int]) -> None:
    """Puts `drawn` into `image`, its border fading into what is there."""
    (x, y), (width, height) = place, size
    small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA if width < drawn.shape[1] else cv2.INTER_LINEAR)
    edge = max(2, min(size) // 20)
    inner = np.zeros((height, width, 1), np.float32)
    inner[edge:-edge, edge:-edge] = 1
    share = cv2.blur(inner, (edge, edge))[:, :, None]
    part = image[y : y + height, x : x + width]
    part[:] = np.round(share * small + (1 - share) * part).astype(np.uint8)


def empty(count: int) -> Iterator[Sample]:
    """Pictures without a face."""
    for index in range(count):
        rng = np.random.default_rng([22, index])
        width, height = (int(side) for side in rng.integers(500, 1601, 2))
        kinds = (paint_background, texture, beside_a_face)
        yield f"empty {index}", kinds[index % 3](rng, width, height), []


def texture(rng: Generator, width: int, height: int) -> Image:
    """Spots, waves and stones of many sizes, such as cloth, leaves and walls have."""
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(int(rng.integers(2, 8))):
        cells = 2 ** (octave + 1)
        noise = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * float(rng.uniform(0.2, 1))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        across = (x * rng.normal() + y * rng.normal()) * float(rng.uniform(0.005, 0.3))
        total += np.sin(across)[:, :, None] * float(rng.uniform(0.2, 1.5))
    if rng.random() < 0.5:
        total = np.round(total * 2) / 2
    spread = float(rng.uniform(25, 70))
    return np.clip(128 + spread * total / total.std(), 0, 255).astype(np.uint8)


def beside_a_face(rng: Generator, width: int, height: int) -> Image:
    """The lower left, lower right or upper corner of drawn faces, enlarged: hair, necks, ears, shoulders."""
    drawn, points = draw_face(rng, "challenge")
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    parts = [drawn[:, : int(left)], drawn[:, int(right) :], drawn[: int(top)], drawn[int(bottom) :]]
    part = max(parts, key=lambda one: min(one.shape[:2]))
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def annotated(folder: Path) -> Iterator[Sample]:
    """The photographs under `folder` that have a .pts beside them."""
    for path in sorted(folder.rglob("*.pts")):
        images = [one for ending in IMAGE_ENDINGS if (one := path.with_suffix(ending)).is_file()]
        if images:
            yield path.stem, read_photograph(images[0]).pixels, [read_pts(path)]


def measure(predictor: FindFaces, samples: Iterable[Sample], least: float, show: Path | None) -> Count:
    """What the predictor finds in them."""
    count = Count()
    for name, pixels, truth in samples:
        start = perf_counter()
        found = [face for face in predictor(pixels) if face.score >= least]
        count.seconds += perf_counter() - start
        points = [face.landmarks_image for face in found]
        at = [_at(one, truth) for one in points]
        count.images, count.faces = count.images + 1, count.faces + len(truth)
        count.found += len({one for one in at if one >= 0})
        count.others += sum(one < 0 for one in at)
        if show and (min(at, default=0) < 0 or len(set(at)) < len(truth)):
            for face, true in zip(found, at, strict=True):
                print(f"{name}: score {face.score:.2f}, {'a true face' if true >= 0 else 'other'}")
            drawn = reduce(draw_landmarks, points, pixels)
            cv2.imwrite(str(show / f"{name}.jpg"), cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
    return count


def _at(points: FloatArray, truth: Sequence[FloatArray]) -> int:
    """The number of the true face that `points` are at; -1 where they are at none."""
    for number, true in enumerate(truth):
        if np.linalg.norm(points - true, axis=-1).mean() < np.ptp(true, axis=0).max() / 10:
            return number
    return -1


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="hrnetv2_w18")
    parser.add_argument("--photographs", type=Path, help="a folder with .pts beside the photographs")
    parser.add_argument("--images", type=int, default=200, help="drawn pictures of either kind")
    parser.add_argument("--detector", default="dlib")
    parser.add_argument("--flip")
    parser.add_argument("--package", choices=PACKAGES, help="who finds the faces, if not facelm")
    parser.add_argument("--least-score", type=float, default=0.0)
    parser.add_argument("--show", type=Path, help="a folder for the pictures with a miss or another face")
    args = parser.parse_args(arguments)
    if args.show:
        args.show.mkdir(parents=True, exist_ok=True)
    predictor: FindFaces = (
        PACKAGES[args.package]()
        if args.package
        else Predictor.load(args.checkpoint, "cpu", detector=open_detector(args.detector), flip=args.flip)
    )
    sets = {"drawn groups": groups(args.images), "without faces": empty(args.images)}
    if args.photographs:
        sets["photographs"] = annotated(args.photographs)
    print("| set | pictures | faces | found | missed | others | seconds a picture |\n|---|---|---|---|---|---|---|")
    for name, samples in sets.items():
        print(measure(predictor, samples, args.least_score, args.show).row(name), flush=True)


if __name__ == "__main__":
    main()
