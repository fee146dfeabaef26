"""How far to the right of a network's landmarks the annotated ones lie, and what correcting that is worth.

    python -m benchmarks.annotation_shift --checkpoint NAME_OR_FILE --data ROOT --list train.txt

A network that also learned from mirrored faces has no left and no right with the exact flip test: what remains between
it and the annotations, alike on all landmarks, was put there by the annotators. Measured in annotated boxes. The value
of `inference.annotation_shift` is the mean over faces and landmarks, of other faces than those that are reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facelm.data.images import read_image
from facelm.data.w300 import Face, index_faces
from facelm.geometry import FloatArray
from facelm.landmarks import interocular
from facelm.loading import load_model
from facelm.metrics import per_face_error, point_distances
from facelm.predict import Predictor
from facelm.predict.photographs import Photograph


def predict_in_boxes(predictor: Predictor, faces: Sequence[Face], batch: int = 16) -> FloatArray:
    """The landmarks `[N, K, 2]` in the annotated boxes, in image pixels."""
    found = []
    for start in range(0, len(faces), batch):
        part = faces[start : start + batch]
        photographs = [Photograph(read_image(face.image)) for face in part]
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
    collections = np.array([face.name.split("/")[0] for face in faces])
    table = []
    for name in ("all", *sorted(set(collections))):
        chosen = (collections == name) | (name == "all")
        mean, error = shares[chosen].mean(axis=0), shares[chosen].std(axis=0) / np.sqrt(chosen.sum())
        x, y = (f"{m:+.3f} +- {e:.3f}" for m, e in zip(mean, error, strict=True))
        before, after = nme(predicted[chosen], truth[chosen]), nme(moved[chosen], truth[chosen])
        table.append(f"| {name} | {chosen.sum()} | {x} | {y} | {before:.3f} | {after:.3f} |")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="hrnetv2_w18", help="shipped name, file, run folder or address")
    parser.add_argument("--data", type=Path, default=Path("data/300w"), help="300W's folders")
    parser.add_argument("--split", default="train")
    parser.add_argument("--list", type=Path, help="text file with the faces to use, one name a line")
    parser.add_argument("--every", type=int, default=1, help="only each N-th face")
    parser.add_argument("--shift", type=float, help="to correct by (default: the model's own)")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(arguments)
    faces = index_faces(args.data, args.split, list_file=args.list, check_images=False)[:: args.every]
    model = load_model(args.checkpoint)
    shift = model.spec.annotation_shift if args.shift is None else args.shift
    unmoved = Predictor(model.net, replace(model.spec, annotation_shift=0.0), device=args.device, flip="exact")
    print("annotated minus predicted, mean over landmarks, in percent of the box's side, with its standard error;")
    print(f"inter-ocular NME in percent with the exact flip test, without and with a shift of {shift:g}\n")
    print("| faces | n | x | y | NME without | NME with |\n|---|---:|---:|---:|---:|---:|")
    print("\n".join(rows(faces, predict_in_boxes(unmoved, faces), shift)))


if __name__ == "__main__":
    main()
