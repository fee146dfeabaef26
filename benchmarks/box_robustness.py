"""NME against the box: shifted, scaled, turned, and as dlib's lie, without and with a second crop.

    python -m benchmarks.box_robustness --checkpoint NAME_OR_FILE --data ROOT --list dev.txt

Every face is perturbed on its own (seeded). A shift is a share of the box's side in a random direction; a turn rotates
the photograph about the box's centre while the box stays; `dlib, drawn` draws boxes from the distribution of
`facelm.geometry.boxes.CONVENTIONS["dlib"]`; `dlib, detected` runs the detector, on the faces that it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.faces import chosen_faces, parser
from facelm.data.faces import Face
from facelm.evaluation.metrics import per_face_error, point_distances
from facelm.geometry.affine import FloatArray, crop_matrix, transform, warp
from facelm.geometry.boxes import CONVENTIONS, Box, overlaps
from facelm.geometry.landmarks import interocular
from facelm.predict import DlibDetector, Predictor
from facelm.predict.photographs import Photograph
from facelm.predict.predictor import refined_box

Generator = np.random.Generator


@dataclass(frozen=True, eq=False)
class Sample:
    """A photograph, its landmarks `[K, 2]`, and the box that the predictor is given; None where none was found."""

    photograph: Photograph
    landmarks_image: FloatArray
    box: Box | None


Perturb = Callable[[Face, Generator], Sample]


def shifted(amount: float) -> Perturb:
    """The box moved by `amount` of its side, in any direction."""

    def perturb(face: Face, rng: Generator) -> Sample:
        angle = rng.uniform(0, 2 * np.pi)
        x, y = face.box.center + amount * face.box.side * np.array([np.cos(angle), np.sin(angle)])
        return Sample(load(face), face.landmarks_image, Box((float(x), float(y)), face.box.side))

    return perturb


def scaled(factor: float) -> Perturb:
    """The box `factor` times as large."""
    return lambda face, rng: Sample(load(face), face.landmarks_image, Box(face.box.center, face.box.side * factor))


def turned(degrees: float) -> Perturb:
    """The photograph turned by `degrees` or by minus that, under an upright box where the face was."""

    def perturb(face: Face, rng: Generator) -> Sample:
        side = 3 * face.box.side  # what lies beyond is in no crop
        size = max(64, round(side))
        turned_from_image = crop_matrix(face.box.center, side, size, degrees * rng.choice([-1, 1]))
        pixels = warp(load(face).pixels, turned_from_image, size)
        box = Box((size / 2, size / 2), face.box.side * size / side)
        return Sample(Photograph(pixels), transform(turned_from_image, face.landmarks_image), box)

    return perturb


def drawn_like_dlib(face: Face, rng: Generator) -> Sample:
    """A box as dlib might give it."""
    return Sample(load(face), face.landmarks_image, CONVENTIONS["dlib"].draw_box(face.box, rng))


def detected_by_dlib(detector: DlibDetector) -> Perturb:
    """The box that dlib finds, where one overlaps with the face."""

    def perturb(face: Face, rng: Generator) -> Sample:
        photograph = load(face)
        boxes = detector(photograph.pixels)
        shared = overlaps(boxes, face.box.xyxy[None])[:, 0]
        hit = len(boxes) > 0 and shared.max() >= 0.3
        box = detector.convention.training_box(boxes[shared.argmax()]) if hit else None
        return Sample(photograph, face.landmarks_image, box)

    return perturb


def load(face: Face) -> Photograph:
    """The photograph as annotated."""
    return Photograph(face.read())


def perturbations() -> Iterator[tuple[str, Perturb]]:
    """Every row of the table."""
    yield "annotated box", shifted(0.0)
    yield from ((f"shift {amount:.0%}", shifted(amount)) for amount in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5))
    yield from ((f"scale {factor:g}", scaled(factor)) for factor in (0.5, 0.6, 0.8, 0.9, 1.1, 1.25, 1.5, 2))
    yield from ((f"turn {degrees}", turned(degrees)) for degrees in (15, 30, 45, 60))
    yield "dlib, drawn", drawn_like_dlib
    try:
        yield "dlib, detected", detected_by_dlib(DlibDetector())
    except ImportError:
        print("dlib is not installed: no row `dlib, detected`")


def errors(predictor: Predictor, samples: Sequence[Sample], passes: int) -> FloatArray:
    """Inter-ocular errors in percent `[passes, N]`: of the first crop, of the second, ..."""
    rows = []
    photographs = [sample.photograph for sample in samples]
    boxes = [sample.box for sample in samples if sample.box is not None]
    truth = np.array([sample.landmarks_image for sample in samples])
    for _ in range(passes):
        found = predictor.faces_in_boxes(photographs, [[box] for box in boxes], refine=0)
        landmarks = np.array([faces[0].landmarks_image for faces in found])
        rows.append(100 * per_face_error(point_distances(landmarks, truth), interocular(truth)))
        boxes = [
            refined_box(points, box, predictor.scheme.mirror) for points, box in zip(landmarks, boxes, strict=True)
        ]
    return np.array(rows)


def measure(
    predictor: Predictor, faces: Sequence[Face], perturb: Perturb, *, passes: int, seed: int, batch: int = 16
) -> tuple[FloatArray, int]:
    """NME in percent after each pass `[passes]`, and how many faces had no box."""
    rng = np.random.default_rng(seed)
    rows, missed = [], 0
    for start in range(0, len(faces), batch):
        samples = [perturb(face, rng) for face in faces[start : start + batch]]
        with_box = [sample for sample in samples if sample.box is not None]
        missed += len(samples) - len(with_box)
        if with_box:
            rows.append(errors(predictor, with_box, passes))
    return np.concatenate(rows, axis=1).mean(axis=1) if rows else np.full(passes, np.nan), missed


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    options = parser(__doc__)
    options.add_argument("--limit", type=int, help="only the first N faces")
    options.add_argument("--refine", type=int, default=1, help="crops after the first")
    options.add_argument("--flip", choices=("none", "shifted", "exact"))
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(arguments)
    faces = chosen_faces(args)[: args.limit]
    predictor = Predictor.load(args.checkpoint, args.device, flip=args.flip)
    passes = args.refine + 1
    print(f"inter-ocular NME in percent, {len(faces)} faces, flip test {predictor.spec.flip}\n")
    print(f"| box | {' | '.join(f'refine={i}' for i in range(passes))} | faces without box |")
    print(f"|---|{'---|' * passes}---|")
    for name, perturb in perturbations():
        nme, missed = measure(predictor, faces, perturb, passes=passes, seed=args.seed)
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in nme)} | {missed} |", flush=True)


if __name__ == "__main__":
    main()
