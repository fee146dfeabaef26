"""How far to the right of a network's landmarks the annotated ones lie, and what correcting that is worth.

    python -m benchmarks.annotation_shift --checkpoint NAME_OR_FILE --data ROOT --list train.txt

A network that also learned from mirrored faces has no left and no right with the exact flip test: what remains in x
between it and the annotations, alike on all landmarks, is theirs. In y nothing can remain: no face is mirrored upside
down, so a network learns what there is. Measured in annotated boxes. The value of `inference.annotation_shift` is the
mean over faces and landmarks, of other faces than those that are reported. The lines below the table part it into
pixels of the photograph and a share of the box: faces of different sizes tell the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.faces import chosen_faces, parser
from facelm.data.faces import Face
from facelm.evaluation.metrics import per_face_error, point_distances
from facelm.geometry.affine import FloatArray
from facelm.geometry.landmarks import interocular
from facelm.models.loading import load_model
from facelm.predict import Predictor
from facelm.predict.photographs import Photograph


def predict_in_boxes(predictor: Predictor, faces: Sequence[Face], batch: int = 16) -> FloatArray:
    """The landmarks `[N, K, 2]` in the annotated boxes, in image pixels."""
    found = []
    for start in range(0, len(faces), batch):
        part = faces[start : start + batch]
        photographs = [Photograph(face.read()) for face in part]
        found += predictor.faces_in_boxes(photographs, [[face.box] for face in part], refine=0)
    return np.array([own[0].landmarks_image for own in found])


def nme(predicted: FloatArray, truth: FloatArray) -> float:
    """Inter-ocular NME in percent."""
    return float(100 * per_face_error(point_distances(predicted, truth), interocular(truth)).mean())


def rows(faces: Sequence[Face], predicted: FloatArray, shift: float) -> list[str]:
    """Of all faces and of each collection: the shift in x and y, its standard error, NME without and with `shift`."""
    truth = np.array([face.landmarks_image for face in faces])
    sides = np.array([face.box.side for face in faces])
    shares = 100 * (truth - predicted).mean(axis=1) / sides[:, None]
    moved = predicted + shift * sides[:, None, None] * (1, 0)
    table = []
    for name, chosen in groups(faces).items():
        mean, error = shares[chosen].mean(axis=0), shares[chosen].std(axis=0) / np.sqrt(chosen.sum())
        x, y = (f"{m:+.3f} +- {e:.3f}" for m, e in zip(mean, error, strict=True))
        before, after = nme(predicted[chosen], truth[chosen]), nme(moved[chosen], truth[chosen])
        table.append(f"| {name} | {chosen.sum()} | {x} | {y} | {before:.3f} | {after:.3f} |")
    return table


def groups(faces: Sequence[Face]) -> dict[str, NDArray[np.bool_]]:
    """Masks `[N]` of all faces and of each collection."""
    collections = np.array([face.name.split("/")[0] for face in faces])
    return {"all": np.full(len(faces), True)} | {name: collections == name for name in sorted(set(collections))}


def fits(faces: Sequence[Face], predicted: FloatArray) -> list[str]:
    """Of each group of 20 faces or more: the shift in x as pixels of the photograph plus a share of the box."""
    shifts = (np.array([face.landmarks_image for face in faces]) - predicted).mean(axis=1)[:, 0]
    terms = np.array([[1.0, face.box.side / 100] for face in faces])  # of the side in percent
    lines = []
    for name, chosen in groups(faces).items():
        if chosen.sum() >= 20:
            own = terms[chosen]
            (pixels, share), *_ = np.linalg.lstsq(own, shifts[chosen], rcond=None)
            variance = (shifts[chosen] - own @ (pixels, share)).var() * np.diag(np.linalg.inv(own.T @ own))
            a, b = np.sqrt(variance)
            lines.append(f"{name}: x = {pixels:+.2f} +- {a:.2f} px {share:+.2f} +- {b:.2f} % of the side")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    options = parser(__doc__)
    options.add_argument("--every", type=int, default=1, help="only each N-th face")
    options.add_argument("--shift", type=float, help="to correct by (default: the model's own)")
    args = options.parse_args(arguments)
    faces = chosen_faces(args)[:: args.every]
    model = load_model(args.checkpoint)
    shift = model.spec.annotation_shift if args.shift is None else args.shift
    unmoved = Predictor(model.net, replace(model.spec, annotation_shift=0.0), device=args.device, flip="exact")
    print("annotated minus predicted, mean over landmarks, in percent of the box's side, with its standard error;")
    print(f"inter-ocular NME in percent with the exact flip test, without and with a shift of {shift:g}\n")
    print("| faces | n | x | y | NME without | NME with |\n|---|---:|---:|---:|---:|---:|")
    predicted = predict_in_boxes(unmoved, faces)
    print("\n".join([*rows(faces, predicted, shift), "", *fits(faces, predicted)]))


if __name__ == "__main__":
    main()
