"""`facelm calibrate`: what a detector's boxes mean, and how far off points are by their confidence, both measured."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

EXAMPLES = """
BOXES.csv has a row image,x1,y1,x2,y2 for each box, in pixels of the annotated images. Where an image shows several
faces, the box that overlaps most with the annotated one counts; faces without a box are counted and left out.

examples:
  facelm calibrate boxes.csv --data data/300w
  facelm calibrate --detector dlib --data data/300w
  facelm calibrate --detector face_detection_yunet_2023mar.onnx --data data/300w

--confidence takes the report of faces that the weights were not trained on, fits the error that a heatmap's peak lets
one expect, and says how far it is to be trusted. --weights writes the fit into the card beside these weights:

  facelm evaluate checkpoint=WEIGHTS data.root=data/300w data.val_list=dev.txt report_dir=dev
  facelm calibrate --confidence dev --weights WEIGHTS.safetensors --figure confidence.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.epilog = EXAMPLES
    boxes = parser.add_mutually_exclusive_group(required=True)
    boxes.add_argument("boxes", nargs="?", type=Path, metavar="BOXES.csv", help="boxes of any detector")
    boxes.add_argument("--detector", metavar="NAME", help="run this one instead: dlib, or a YuNet .onnx file")
    boxes.add_argument("--confidence", type=Path, metavar="REPORT", help="a report: expected errors by confidence")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="with --confidence: whose card gets the fit")
    parser.add_argument(
        "--figure", type=Path, metavar="PNG", help="with --confidence: expected against measured errors"
    )
    root = Path(os.environ.get("FACELM_300W", "data/300w"))
    parser.add_argument("--data", type=Path, default=root, metavar="ROOT", help=f"300W's folders (default: {root})")
    parser.add_argument("--split", default="train", help="train, common, challenge, full or test (default: train)")
    parser.add_argument("--name", help="what to call the convention (default: the detector's or the file's name)")


def run(args: argparse.Namespace) -> int:
    """Prints the convention, or the fit."""
    if args.confidence:
        from facelm.commands.confidence import calibrate_confidence

        return calibrate_confidence(args.confidence, args.weights, args.figure)
    if args.weights or args.figure:
        raise ValueError("--weights and --figure go with --confidence REPORT")
    from facelm.commands.progress import progress_bar
    from facelm.data.faces import Face
    from facelm.data.w300.index import index_faces
    from facelm.geometry.affine import FloatArray
    from facelm.predict.box_table import read_box_table
    from facelm.predict.calibrate import calibrate, lookup
    from facelm.predict.detect import open_detector

    table = read_box_table(args.boxes) if args.boxes else {}
    faces = index_faces(args.data, args.split, check_images=False)
    source = args.boxes.stem if args.boxes else Path(args.detector).stem
    with progress_bar(len(faces)) as bar:
        if args.boxes:
            boxes_of = lookup(table, faces)
        else:
            detector = open_detector(args.detector)

            def boxes_of(face: Face) -> FloatArray:
                bar.finish_input()
                return detector(face.read())

        result = calibrate(args.name or source, faces, boxes_of, f"{source} on {args.split}")
    print(result.report())
    return 0
